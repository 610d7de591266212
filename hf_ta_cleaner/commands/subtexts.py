"""Print the parts of captions and the true and false sub-texts that are made of them.

  ta-cleaner subtexts "A small dog jumps over a log." "Two men in red shirts ride horses."
  ta-cleaner subtexts "A small dog jumps over a log." --captions captions.txt --draws 5

A false sub-text takes its words from the captions of the file, or from captions of the sandbox and those given.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NoReturn

from hf_ta_cleaner.seeding import rng
from hf_ta_cleaner.subtexts import Parts, Vocabulary, parse


#: Captions of the sandbox that a vocabulary is made of where none is given.
SANDBOX_CAPTIONS = 2_000


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ta-cleaner subtexts", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("caption", nargs="+", help="captions to take apart")
    parser.add_argument("--captions", type=Path, help="file with a caption on each line; words are taken from there")
    parser.add_argument("--draws", type=int, default=3, help="pairs of sub-texts for each caption (default: 3)")
    parser.add_argument("--seed", type=int, default=0, help="of the draws (default: 0)")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    parser = make_parser()
    args = parser.parse_args(argv)
    if args.draws < 1:
        parser.error(f"--draws must be at least 1, got {args.draws}")
    if args.captions is not None and not args.captions.is_file():
        parser.error(f"--captions: there is no file {args.captions}")
    vocabulary = Vocabulary.from_parts(parse(text).to_row() for text in [*_known(args, parser), *args.caption])
    for caption in args.caption:
        print("\n".join(describe(parse(caption), vocabulary, args.draws, args.seed)) + "\n")


def _known(args: argparse.Namespace, parser: argparse.ArgumentParser) -> list[str]:
    if args.captions is None:
        from hf_ta_cleaner.sandbox import caption, pair_scene

        return [caption(pair_scene("clean", index)) for index in range(SANDBOX_CAPTIONS)]
    try:
        return [line for line in args.captions.read_text(encoding="utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        _unreadable(parser, args.captions, error)


def _unreadable(parser: argparse.ArgumentParser, file: Path, error: UnicodeDecodeError) -> NoReturn:
    parser.error(f"--captions: {file} is not a text in UTF-8 ({error.reason} at byte {error.start})")


def describe(parts: Parts, vocabulary: Vocabulary, draws: int, seed: int) -> Iterable[str]:
    """What a caption says, and some sub-texts of it, a line each."""
    yield parts.caption
    for phrase in parts.phrases:
        words = " ".join(attribute.text for attribute in phrase.attributes)
        yield f"  noun phrase  {phrase.noun}" + (f"  ({words})" if words else "")
    for s in parts.statements:
        ends = [parts.phrases[i].noun if i >= 0 else "" for i in (s.subject, s.object)]
        yield "  relation     " + " ".join(filter(None, (ends[0], s.verb, s.relation, ends[1])))
    if not parts.eligible:
        yield "  no sub-text: the caption names nothing that is in the picture"
        return
    for n in range(draws):
        positives, negatives = vocabulary.sub_texts(parts, rng("subtexts command", seed, n))
        yield f"  true         {positives[0].text}"
        if negatives:
            yield f"  false        {negatives[0].text}  ({negatives[0].original} -> {negatives[0].swapped})"
        else:
            yield "  false        none found"


if __name__ == "__main__":
    main()
