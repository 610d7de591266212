"""What is swapped for what, and what never is."""

from __future__ import annotations

from random import Random

import pytest

from hf_ta_cleaner.subtexts import Vocabulary, parse, wordnet
from tests.subtexts.helpers import corpus, draws, needs_wordnet


def swaps(vocabulary: Vocabulary, caption: str, kind: str) -> dict[str, set[str]]:
    _, negatives = draws(vocabulary, caption, seeds=120, swap=(kind,))
    table: dict[str, set[str]] = {}
    for negative in negatives:
        assert negative.kind == kind
        table.setdefault(negative.original, set()).add(negative.swapped)
    return table


def test_attributes_are_swapped_within_their_kind():
    vocabulary = corpus("a small red striped car", "a large blue dotted cup", "a tiny plain green box", "an old bus",
                        "a big wooden door", "a metal gate", "a young tree")  # fmt: skip
    table = swaps(vocabulary, "a small red striped car", "attribute")
    assert table == {"small": {"large", "big"}, "red": {"blue", "green"}, "striped": {"dotted", "plain"}}
    assert swaps(vocabulary, "an old wooden table", "attribute") == {"old": {"young"}, "wooden": {"metal"}}


def test_numbers_are_swapped_for_numbers():
    vocabulary = corpus("two dogs", "three cats", "one horse", "5 birds", "7 cows", "a red car")
    assert swaps(vocabulary, "two sheep and four geese", "attribute") == {
        "two": {"three"},
        "four": {"three"},
    }
    assert swaps(vocabulary, "3 ships", "attribute") == {"3": {"5", "7"}}
    assert swaps(vocabulary, "one car", "attribute") == {}


def test_attributes_outside_the_tables_are_learned_from_the_captions():
    nouns = ("lake", "road", "tree", "house")
    vocabulary = corpus(
        *(f"a {attribute} {noun}" for noun in nouns for attribute in ("crowded", "deserted") for _ in range(12)),
        *(f"a crowded {attribute} {noun}" for noun in nouns for attribute in ("scenic",) for _ in range(12)),
    )
    table = swaps(vocabulary, "a crowded road", "attribute")
    assert table == {"crowded": {"deserted"}}  # scenic roads may be crowded


def test_relations_are_swapped_for_what_they_exclude():
    vocabulary = corpus("a cup to the left of a box", "a cup right of a box", "a cup above a box", "a cup under a box",
                        "a cup near a box", "a cup on a box", "a cup in front of a box", "a cup behind a box",
                        "a cup in a box", "a cup against a box", "a cup with a box")  # fmt: skip
    expected = {
        "a dog to the left of a tree": {"right of"},
        "a dog right of a tree": {"to the left of"},
        "a dog over a tree": {"under"},
        "a dog beneath a tree": {"above", "on"},
        "a dog on a tree": {"under", "behind"},
        "a dog behind a tree": {"in front of", "on"},
        "a dog in a tree": {"behind"},
    }
    for caption, phrases in expected.items():
        assert set().union(*swaps(vocabulary, caption, "relation").values()) == phrases, caption
    for caption in ("a dog near a tree", "a dog with a tree", "a dog against a tree", "a dog above a dog"):
        assert swaps(vocabulary, caption, "relation") == {}, caption


def test_the_side_of_the_second_thing_is_read_the_right_way_round():
    vocabulary = corpus("a cup to the left of a box", "a cup to the right of a box")
    positives, negatives = draws(vocabulary, "a car with a kettle to its right", seeds=60, swap=("relation",))
    assert "a kettle to the right of a car" in {p.text for p in positives}
    assert {n.text for n in negatives} == {"a kettle to the left of a car"}


def test_postures_exclude_each_other():
    vocabulary = corpus("a cup standing", "a cup leaning on a box", "a cup upside down", "a cup lying on its side",
                        "a cup stands", "a cup lies on its side", "a cup rolling")  # fmt: skip
    assert swaps(vocabulary, "a key standing on a bed", "relation") == {
        "standing": {"leaning", "upside down", "lying on its side"}
    }
    assert swaps(vocabulary, "a key stands on a bed", "relation") == {"stands": {"lies on its side"}}
    assert swaps(vocabulary, "two keys standing on a bed", "relation") == {"standing": {"leaning", "upside down"}}


def test_verbs_are_not_swapped_for_what_may_be_true_as_well():
    vocabulary = corpus("a man holding a sandwich", "a boy riding a horse", "a man eating a sandwich",
                        "a girl painting a fence", "a girl wearing a hat")  # fmt: skip
    table = swaps(vocabulary, "a man eating a sandwich", "relation")
    assert table == {"eating": {"riding", "painting"}}


@needs_wordnet
def test_nouns_keep_their_supersense_number_and_form():
    vocabulary = corpus("a dog on grass", "two cars on sand", "a kettle in the snow", "three lamps", "a spoon")
    table = swaps(vocabulary, "a chair on grass", "noun")
    assert table["chair"] == {"kettle", "spoon"}  # an animal is no artifact
    assert table["grass"] == {"sand"}
    assert swaps(vocabulary, "four books", "noun") == {"books": {"cars", "lamps"}}


@pytest.mark.parametrize(
    ("caption", "never"),
    [
        ("a dog near a tree", {"animal", "puppy", "dogs"}),
        ("a sofa", {"couch"}),
        ("a man with an umbrella", {"person", "player"}),
        ("a red car next to a tree", {"vehicle", "tree", "car"}),
        ("a fire truck", {"truck", "vehicle"}),
    ],
)
def test_nouns_are_not_swapped_for_what_may_be_the_same_thing(caption, never):
    vocabulary = corpus("an animal", "a puppy", "a couch", "a person", "a player", "a vehicle", "a tree", "a car",
                        "a truck", "a kettle", "a spoon", "a banana")  # fmt: skip
    found = set().union(*swaps(vocabulary, caption, "noun").values())
    assert found
    assert not found & never


def test_nouns_that_often_come_together_are_not_swapped_in():
    pairs = ["a hammer and a nail"] * 20
    rest = [f"a {noun}" for noun in ("kettle", "spoon", "lamp", "book", "clock", "bell") for _ in range(20)]
    table = swaps(corpus(*pairs, *rest), "a hammer", "noun")
    assert table["hammer"] == {"kettle", "spoon", "lamp", "book", "clock", "bell"}


@needs_wordnet
def test_men_become_women_but_not_teachers():
    vocabulary = corpus("a woman", "a teacher", "a surfer", "a kettle")
    assert swaps(vocabulary, "a man", "noun") == {"man": {"woman"}}


def test_kinds_fall_back_to_one_another():
    vocabulary = corpus("a red cup", "a blue box")
    _, negatives = draws(vocabulary, "a lamp", swap=("attribute", "relation", "noun"))
    assert {n.kind for n in negatives} == {"noun"}
    assert draws(vocabulary, "a lamp", swap=("attribute",))[1] == []
    assert draws(corpus("a lamp"), "a lamp")[1] == []
    _, negatives = draws(vocabulary, "a red lamp", seeds=200)
    assert {n.kind for n in negatives} == {"noun", "attribute"}


def test_unknown_kinds_are_refused(vocabulary):
    with pytest.raises(ValueError, match="verb"):
        vocabulary.sub_texts(parse("a cat"), Random(0), swap=("verb",))


def test_without_wordnet_the_captions_and_the_families_decide(monkeypatch):
    monkeypatch.setattr(wordnet, "_places", lambda: iter(()))
    wordnet.forget()
    try:
        vocabulary = corpus("an animal", "a couch", "a puppy", "a kettle", "a spoon")
        assert not wordnet.available()
        assert swaps(vocabulary, "a dog", "noun") == {"dog": {"couch", "kettle", "spoon"}}
        assert swaps(vocabulary, "a sofa", "noun") == {"sofa": {"animal", "puppy", "kettle", "spoon"}}
    finally:
        monkeypatch.undo()
        wordnet.forget()


def test_other_captions_of_the_picture_make_negatives_safer():
    vocabulary = corpus(*["a dog on grass"] * 3, "a kettle", "a spoon", "a lamp", "a chair")
    parts, other = parse("a kettle on grass"), parse("a spoon beside it, and a lamp")
    swapped = set()
    for seed in range(40):
        _, negatives = vocabulary.sub_texts(parts, Random(seed), 1, 1, ("noun",), [other])
        swapped |= {n.swapped for n in negatives if n.original == "kettle"}
    assert swapped and not swapped & {"spoon", "lamp"}


def test_a_negative_reads_like_the_captions():
    """Of two false nouns the one is taken that stands in such a place; the other never met these words."""
    vocabulary = corpus(*["a man rides a horse", "a boy rides a camel", "a kettle boils"] * 3, "a man rides a bike")
    assert vocabulary.fluency("a man rides a camel") > vocabulary.fluency("a man rides a kettle")
    swapped = swaps(vocabulary, "a man rides a horse", "noun")
    assert "camel" in swapped["horse"] and "kettle" not in swapped["horse"]


@needs_wordnet
@pytest.mark.parametrize(
    ("caption", "verbs"),
    [
        ("A dog jumps over a log.", {"jump"}),
        ("a boy dances in the street", {"dance"}),
        ("a person skis down a hill", {"ski"}),
        ("a man with glasses jumps into the pool", {"jump"}),
        ("two dogs play in the snow", {"play"}),
        ("a man drinking", {"drink"}),
        ("a boy in white looks up", {"look"}),
        ("a building with a railing", set()),
        ("a painting on the wall", set()),
        ("a fishing boat", set()),
    ],
)
def test_what_somebody_does_is_a_verb(caption, verbs):
    parts = parse(caption)
    assert verbs <= parts.words
    assert not {phrase.lemma.split(" ")[-1] for phrase in parts.phrases} & verbs
