"""What sub-texts are made of, on captions that people wrote.

    python -m benchmarks.subtexts captions.tsv                       # number of the picture, tab, caption
    python -m benchmarks.subtexts captions.tsv --sample sample.tsv   # also 200 sub-texts for a person to read
    python -m benchmarks.subtexts captions.tsv --from_picture 600 --write

Wrong heads: noun phrases whose last word spaCy tags as something else than a noun (`pip install spacy` and a model of
English). spaCy itself errs on some; the command prints the words. Supersense kept: noun swaps whose new noun has a
WordNet supersense of the old one. Bigram: how often a bigram model of the captions gives the true statement more than
the false one made from it; 50% means that the text alone does not tell. `--write` writes benchmarks/subtexts.json.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import re
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from hf_ta_cleaner.seeding import rng
from hf_ta_cleaner.subtexts import Parts, SubText, Vocabulary, parse
from hf_ta_cleaner.subtexts.wordnet import available, supersenses


HERE = Path(__file__).parent
Z = 1.959963984540054


def read(file: Path, start: int = 0, stop: int | None = None) -> dict[int, list[str]]:
    """Picture -> its captions.

    Raises:
        SystemExit: a line is not a number, a tab and a caption.
    """
    found: dict[int, list[str]] = defaultdict(list)
    for n, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        number, tab, caption = line.partition("\t")
        if not tab or not number.isdecimal():
            raise SystemExit(f"{file}:{n} should be the number of a picture, a tab and a caption; got {line!r}")
        if start <= int(number) and (stop is None or int(number) < stop):
            found[int(number)].append(caption)
    return found


def rate(hits: int, n: int) -> dict[str, Any]:
    """A rate in per cent with its Wilson interval."""
    if not n:
        return {"value": None, "interval95": None, "n": 0}
    p = hits / n
    middle = (p + Z * Z / (2 * n)) / (1 + Z * Z / n)
    half = Z * math.sqrt(p * (1 - p) / n + Z * Z / (4 * n * n)) / (1 + Z * Z / n)
    interval = [round(100 * (middle - half), 2), round(100 * (middle + half), 2)]
    return {"value": round(100 * p, 2), "interval95": interval, "n": n}


def wrong_heads(parts: Sequence[Parts], model: str) -> tuple[dict[str, Any], Counter]:
    """Heads that spaCy calls no noun, and how often each; of phrases that are in the picture."""
    import spacy

    nlp = spacy.load(model, disable=["ner", "lemmatizer", "parser"])
    wrong: Counter[str] = Counter()
    n = 0
    for one, doc in zip(parts, nlp.pipe(p.caption for p in parts), strict=True):
        tags = {token.idx + len(token.text): token.pos_ for token in doc}
        for phrase in one.phrases:
            if phrase.end in tags:
                n += 1
                if tags[phrase.end] not in ("NOUN", "PROPN", "PRON", "NUM"):
                    wrong[phrase.noun] += 1
    return rate(sum(wrong.values()), n), wrong


class Bigrams:
    """A bigram model of the captions with add-one smoothing over the words seen."""

    def __init__(self, captions: Iterable[str]) -> None:
        self.pairs: Counter[tuple[str, str]] = Counter()
        self.words: Counter[str] = Counter()
        for caption in captions:
            words = self.split(caption)
            self.pairs.update(pairwise(words))
            self.words.update(words)

    @staticmethod
    def split(text: str) -> list[str]:
        return ["<", *re.findall(r"[\w'-]+", text.lower()), ">"]

    def score(self, text: str) -> float:
        """Mean logarithm of the probability of a word after the one before it."""
        words = self.split(text)
        size = len(self.words)
        logs = [math.log((self.pairs[a, b] + 0.1) / (self.words[a] + 0.1 * size)) for a, b in pairwise(words)]
        return sum(logs) / len(logs)


def draw(captions: dict[int, list[str]], vocabulary: Vocabulary, parsed: dict[str, Parts], seed: int):
    """(caption, positives, negatives) of every caption that has parts; one of each."""
    for picture, own in captions.items():
        for caption in own:
            others = [parsed[other] for other in own if other != caption]
            parts = parsed[caption]
            if parts.eligible:
                r = rng("benchmark of sub-texts", seed, picture, caption)
                yield caption, *vocabulary.sub_texts(parts, r, 1, 1, others=others)


def measure(captions: dict[int, list[str]], seed: int, model: str | None) -> tuple[dict[str, Any], list[list[str]]]:
    """The figures, and lines (caption, kind, true, false) for a person to read."""
    texts = [caption for own in captions.values() for caption in own]
    started = time.perf_counter()
    parsed = {caption: parse(caption) for caption in texts}
    speed = len(texts) / (time.perf_counter() - started)
    vocabulary = Vocabulary.from_parts(parsed[caption].to_row() for caption in texts)
    bigrams = Bigrams(texts)
    kinds: Counter[str] = Counter()
    kept = nouns = told = compared = 0
    lines = []
    for caption, positives, negatives in draw(captions, vocabulary, parsed, seed):
        for negative in negatives:
            kinds[negative.kind or ""] += 1
            true = original_of(negative)
            compared += 1
            told += bigrams.score(true) > bigrams.score(negative.text)
            if negative.kind == "noun":
                nouns += 1
                kept += bool(set(supersenses(negative.swapped or "")) & set(supersenses(negative.original or "")))
        lines.append(
            [caption, negatives[0].kind or "" if negatives else "", positives[0].text if positives else "",
             negatives[0].text if negatives else ""]
        )  # fmt: skip
    figures: dict[str, Any] = {
        "captions": len(texts),
        "pictures": len(captions),
        "captions_a_second": round(speed),
        "without_parts": rate(sum(not parsed[caption].eligible for caption in texts), len(texts)),
        "supersense_kept": rate(kept, nouns),
        "told_by_bigrams": rate(told, compared),
        "negatives": dict(kinds),
        "wordnet": available(),
    }
    if model:
        figures["wrong_heads"], wrong = wrong_heads([parsed[caption] for caption in texts], model)
        figures["most_frequent_wrong"] = dict(wrong.most_common(25))
    return figures, lines


def original_of(negative: SubText) -> str:
    """The true statement that a negative was made from."""
    return re.sub(rf"\b{re.escape(negative.swapped or '')}\b", negative.original or "", negative.text, count=1)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.subtexts", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("captions", type=Path, help="tsv: number of the picture, tab, caption")
    parser.add_argument("--seed", type=int, default=0, help="of the sub-texts and of the sample (default: 0)")
    parser.add_argument("--from_picture", type=int, default=0, help="leave out the pictures before this one")
    parser.add_argument("--to_picture", type=int, help="leave out this picture and those after it")
    parser.add_argument("--spacy_model", default="en_core_web_sm", help="judge of heads (default: %(default)s)")
    parser.add_argument("--no_spacy", action="store_true", help="do not judge heads")
    parser.add_argument("--sample", type=Path, help="write 200 captions with a true and a false sub-text here")
    parser.add_argument("--write", action="store_true", help="write benchmarks/subtexts.json")
    args = parser.parse_args(argv)
    captions = read(args.captions, args.from_picture, args.to_picture)
    if not captions:
        parser.error(f"{args.captions} has no picture in this range")
    figures, lines = measure(captions, args.seed, None if args.no_spacy else args.spacy_model)
    print(json.dumps(figures, indent=1))
    if args.sample:
        if args.sample.exists():
            parser.error(f"{args.sample} exists; name another file")
        chosen = rng("sample of sub-texts", args.seed).sample(lines, min(200, len(lines)))
        args.sample.write_text("\n".join("\t".join(line) for line in chosen) + "\n", encoding="utf-8")
    if args.write:
        about = {
            "command": "python -m benchmarks.subtexts CAPTIONS.tsv --from_picture "
            f"{args.from_picture} --seed {args.seed}",
            "machine": {"python": platform.python_version(), "cores": os.cpu_count()},
        }
        content = {
            name: {**value, **about} if isinstance(value, dict) and "value" in value else value
            for name, value in figures.items()
        }
        (HERE / "subtexts.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
