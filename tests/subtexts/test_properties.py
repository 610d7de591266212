"""What holds for every caption and seed: positives are true and smaller, negatives differ in one part."""

from __future__ import annotations

import pickle
from collections import Counter
from itertools import chain, pairwise
from random import Random

import pytest

from hf_ta_cleaner.seeding import rng
from hf_ta_cleaner.subtexts import Parts, Vocabulary, parse
from hf_ta_cleaner.subtexts.drafts import article
from hf_ta_cleaner.subtexts.parts import normalize
from tests.subtexts.helpers import CAPTIONS, draws


@pytest.mark.parametrize("caption", CAPTIONS)
def test_positives_are_smaller_true_statements(caption, vocabulary):
    parts = parse(caption)
    positives, _ = draws(vocabulary, caption)
    assert len(positives) == 40
    said = Counter(normalize(caption).split())
    for positive in positives:
        assert positive.words <= parts.words
        assert positive.words & {word for phrase in parts.phrases for word in phrase.words}
        assert (positive.swapped, positive.original, positive.kind) == (None, None, None)
        own = Counter(normalize(positive.text).split()) - Counter({"a": 9, "an": 9, "to": 1, "the": 1, "of": 1})
        assert own <= said, positive.text
    smaller = {p.text for p in positives if normalize(p.text) != normalize(caption)}
    assert smaller or len(parts.phrases) == 1


@pytest.mark.parametrize("caption", CAPTIONS)
def test_negatives_differ_from_a_true_statement_in_one_part(caption, vocabulary):
    parts = parse(caption)
    _, negatives = draws(vocabulary, caption)
    assert negatives
    for negative in negatives:
        assert normalize(negative.text) != normalize(caption)
        assert f" {normalize(negative.swapped)} " not in f" {normalize(caption)} "
        assert len(negative.words - parts.words) in (1, 2)  # two for compounds
        assert f" {negative.swapped} " in f" {negative.text} "
        restored = f" {negative.text} ".replace(f" {negative.swapped} ", f" {negative.original} ", 1).split()
        plain = [word for word in restored if word not in ("a", "an")]
        assert " ".join(plain) in true_texts(parts), negative


def true_texts(parts: Parts) -> set[str]:
    """Every statement the parts allow, without articles, built without the drafts of the package."""

    def phrase_texts(i: int) -> list[str]:
        if i < 0:
            return [""]
        phrase, texts = parts.phrases[i], [""]
        for attribute in phrase.attributes:
            ways = [f" {attribute.text}", f" and {attribute.text}"] if attribute.joined else [f" {attribute.text}"]
            texts += [text + way for text in texts for way in ways]
        return [f"{phrase.determiner}{text} {phrase.noun}" for text in texts]

    texts = {text for i in range(len(parts.phrases)) for text in phrase_texts(i)}
    for s in parts.statements:
        for one in phrase_texts(s.subject):
            texts.add(f"{one} {s.verb}")
            for two in phrase_texts(s.object):
                texts |= {f"{one} {s.verb} {s.relation} {two}", f"{one} {s.relation} {two}"}
    return {" ".join(word for word in text.split() if word not in ("a", "an")) for text in texts}


@pytest.mark.parametrize("caption", CAPTIONS)
def test_articles_agree(caption, vocabulary):
    for sub_text in chain(*draws(vocabulary, caption)):
        words = sub_text.text.split()
        for first, second in pairwise(words):
            if first in ("a", "an"):
                assert first == ("an" if second[0] in "aeiou" else "a"), sub_text.text


@pytest.mark.parametrize(
    ("word", "expected"),
    [("apple", "an"), ("kettle", "a"), ("unicorn", "a"), ("uninspired", "an"), ("hour", "an"), ("used", "a"),
     ("one", "a"), ("onion", "an"), ("umbrella", "an"), ("european", "a"), ("8", "an"), ("orange", "an")],
)  # fmt: skip
def test_article(word, expected):
    assert article(word) == expected


def test_everything_hangs_on_the_generator_alone(vocabulary):
    rows = [parse(caption).to_row() for caption in CAPTIONS] * 3
    other = pickle.loads(pickle.dumps(Vocabulary.from_parts(reversed(rows))))
    for caption in CAPTIONS:
        parts = parse(caption)
        first = vocabulary.sub_texts(parts, rng("sub-texts", caption), 2, 2)
        assert first == other.sub_texts(Parts.from_row(parts.to_row()), rng("sub-texts", caption), 2, 2)
    assert len({vocabulary.sub_texts(parse("a red car next to a tree"), Random(s))[0][0].text for s in range(30)}) >= 4


def test_several_sub_texts_are_distinct(vocabulary):
    caption = "a small blue kettle to the left of a striped umbrella on grass"
    for seed in range(30):
        positives, negatives = vocabulary.sub_texts(parse(caption), Random(seed), 5, 5)
        texts = [s.text for s in positives + negatives]
        assert len(positives) == len(negatives) == 5
        assert len(set(texts)) == 10
    assert vocabulary.sub_texts(parse(caption), Random(0), 0, 0) == ([], [])


def test_a_caption_that_can_shrink_is_not_repeated(vocabulary):
    for caption in ("a red car next to a tree", "a red car", "two dogs"):
        positives, _ = draws(vocabulary, caption, num_positive=3)
        assert caption not in {p.text for p in positives}
    assert {p.text for p in draws(vocabulary, "a car")[0]} == {"a car"}
