"""Captions -> parts: phrases, relations, attributes, and the rows of a data set."""

from __future__ import annotations

import time
from random import Random

import pytest

from hf_ta_cleaner.subtexts import Parts, SubTextMap, parse
from tests.subtexts.helpers import CAPTIONS, UNREADABLE, draws


def test_the_table_is_large_enough():
    assert len(CAPTIONS) >= 60


@pytest.mark.parametrize("caption", CAPTIONS)
def test_parse(caption):
    phrases, statements = CAPTIONS[caption]
    parts = parse(caption)
    assert [" ".join([*(a.text for a in p.attributes), p.noun]) for p in parts.phrases] == phrases

    def name(i: int) -> str:
        return parts.phrases[i].lemma if i >= 0 else ""

    said = [f"{name(s.subject)}|{s.verb_lemma}|{s.relation_name}|{name(s.object)}" for s in parts.statements]
    assert sorted(said) == sorted(statements)
    assert parts.eligible


@pytest.mark.parametrize("caption", UNREADABLE)
def test_unreadable_captions_are_not_eligible(caption, vocabulary):
    parts = parse(caption)
    assert not parts.eligible
    assert vocabulary.sub_texts(parts, Random(0)) == ([], [])


def test_none_counts_as_an_empty_caption():
    assert parse(None) == parse("")


@pytest.mark.parametrize("caption", ["banana", "Banana.", "BANANA"])
def test_one_word(caption, vocabulary):
    positives, negatives = draws(vocabulary, caption)
    assert {p.text for p in positives} == {"banana"}
    assert negatives
    assert all(n.kind == "noun" and n.original == "banana" for n in negatives)


def test_long_captions_take_bounded_work():
    once = "a red car next to a blue house with a dog, "
    parse(once)
    start = time.perf_counter()
    parts = parse(once * 2000)
    assert time.perf_counter() - start < 1
    assert 40 < len(parts.phrases) < 120
    for hostile in ("a-" * 20000, "<" * 20000, "." * 20000, "a" * 50000, "and " * 5000, "a red " * 5000):
        start = time.perf_counter()
        parse(hostile)
        assert time.perf_counter() - start < 1, hostile[:10]


def test_a_phrase_knows_its_place_in_the_caption():
    caption = "Look: a small blue kettle, and The Umbrellas"
    spans = [caption[p.start : p.end] for p in parse(caption).phrases]
    assert spans == ["a small blue kettle", "The Umbrellas"]


def test_words_hold_what_the_caption_says_and_what_its_relations_entail():
    words = parse("Two small dogs run to the left of an old tree").words
    assert words == {"two", "small", "dog", "run", "left of", "near", "old", "tree"}


def test_a_hat_that_is_not_there_is_no_positive(vocabulary):
    positives, _ = draws(vocabulary, "a man without a red hat on a bench")
    assert positives
    assert not {p.text for p in positives} & {"a hat", "a red hat", "red hat"}


@pytest.mark.parametrize("caption", [*CAPTIONS, *UNREADABLE])
def test_rows_round_trip(caption):
    parts = parse(caption)
    row = parts.to_row()
    assert Parts.from_row(row) == parts
    assert {key: type(value) for key, value in row.items()} == dict.fromkeys(parse("a cat").to_row(), str)


def test_from_row_says_what_is_missing():
    with pytest.raises(ValueError, match="SubTextMap"):
        Parts.from_row({"caption": "a cat"})


def test_map_adds_a_column_with_the_same_schema_whatever_a_batch_holds():
    datasets = pytest.importorskip("datasets")
    empty, full = ["", "12", None], ["two dogs run on a beach", "", "a cat"]
    mapped = [
        datasets.Dataset.from_dict({"caption": captions}).map(SubTextMap(), batched=True, batch_size=2)
        for captions in (empty + full, full + empty, empty)
    ]
    features = [dataset.features["parts"] for dataset in mapped]
    assert features[0] == features[1] == features[2]
    assert [Parts.from_row(row).eligible for row in mapped[0]["parts"]] == [False, False, False, True, False, True]


def test_the_fingerprint_does_not_change_with_use():
    fingerprint = pytest.importorskip("datasets.fingerprint")
    used = SubTextMap()
    before = fingerprint.Hasher.hash(used)
    used({"caption": ["a red car next to a tree"]})
    assert fingerprint.Hasher.hash(used) == before == fingerprint.Hasher.hash(SubTextMap())
    assert fingerprint.Hasher.hash(SubTextMap(caption_column="text")) != before


def test_map_explains_wrong_use():
    with pytest.raises(KeyError, match="caption_column"):
        SubTextMap()({"text": ["a cat"]})
    with pytest.raises(TypeError, match="batched"):
        SubTextMap()({"caption": "a cat"})
