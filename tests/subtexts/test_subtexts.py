"""Parsing captions, and what may be said truly or falsely with their parts."""

from __future__ import annotations

import pickle
import time
from collections import Counter
from itertools import chain, pairwise
from random import Random

import pytest

from hf_ta_cleaner.seeding import rng
from hf_ta_cleaner.subtexts import Parts, SubTextMap, Vocabulary, parse, wordnet
from hf_ta_cleaner.subtexts.drafts import article
from hf_ta_cleaner.subtexts.parts import normalize


# caption -> noun phrases ("attributes noun") and statements ("subject | verb | relation | object"); the order of
# statements does not matter.
CAPTIONS: dict[str, tuple[list[str], list[str]]] = {
    # the drawn world
    "a small blue kettle to the left of a striped umbrella on grass": (
        ["small blue kettle", "striped umbrella", "grass"],
        ["kettle||left of|umbrella", "kettle||on|grass", "umbrella||on|grass"],
    ),
    "there is a big red key standing above a leaf": (["big red key", "leaf"], ["key|stand|above|leaf"]),
    "a picture of an orange mushroom lying on its side in the snow": (
        ["orange mushroom", "snow"],
        ["mushroom|on its side|in|snow"],
    ),
    "the white spotted cup, upside down, next to a lamp": (
        ["white spotted cup", "lamp"],
        ["cup|upside down||", "cup||near|lamp"],
    ),
    "a red car with a kettle to its right": (["red car", "kettle"], ["car||with|kettle", "kettle||right of|car"]),
    "a kettle with a lamp below it in front of clouds": (
        ["kettle", "lamp", "clouds"],
        ["kettle||with|lamp", "lamp||below|kettle", "kettle||in front of|cloud", "lamp||in front of|cloud"],
    ),
    "a banana and a key under a night sky": (
        ["banana", "key", "night sky"],
        ["banana||and|key", "banana||below|night sky", "key||below|night sky"],
    ),
    "we see a kettle above a cat": (["kettle", "cat"], ["kettle||above|cat"]),
    "a kettle is to the left of a lamp": (["kettle", "lamp"], ["kettle||left of|lamp"]),
    "the kettle leans left of the lamp on a tiled floor": (
        ["kettle", "lamp", "tiled floor"],
        ["kettle|lean|left of|lamp", "kettle||on|floor", "lamp||on|floor"],
    ),
    "one big apple stands upside down above a pear": (["big apple", "pear"], ["apple|upside down|above|pear"]),
    "a tiny checkered duck lies on its side against a plain background": (
        ["tiny checkered duck", "plain background"],
        ["duck|on its side|against|background"],
    ),
    "look at a rocket": (["rocket"], []),
    "here is an apple by a saw": (["apple", "saw"], ["apple||near|saw"]),
    "a kettle beneath a gray dotted axe in the snow": (
        ["kettle", "gray dotted axe", "snow"],
        ["kettle||below|axe", "kettle||in|snow", "axe||in|snow"],
    ),
    "the chair leans above an orange fish": (["chair", "orange fish"], ["chair|lean|above|fish"]),
    "a large fish stands on the right of a rose": (["large fish", "rose"], ["fish|stand|right of|rose"]),
    "a crab leaning": (["crab"], ["crab|lean||"]),
    "little striped bus": (["little striped bus"], []),
    "a huge cherry in front of a brick wall": (["huge cherry", "brick wall"], ["cherry||in front of|wall"]),
    "a clock stands to the right of a hat on a wooden floor": (
        ["clock", "hat", "wooden floor"],
        ["clock|stand|right of|hat", "clock||on|floor", "hat||on|floor"],
    ),
    # sentences as in COCO
    "two dogs run on a beach": (["two dogs", "beach"], ["dog|run|on|beach"]),
    "A man riding a wave on top of a surfboard.": (["man", "wave", "surfboard"], ["man|ride||wave"]),
    "A woman holding a cup of coffee in a kitchen.": (
        ["woman", "cup", "coffee", "kitchen"],
        ["woman|hold||cup", "cup||of|coffee", "woman||in|kitchen", "cup||in|kitchen"],
    ),
    "A couple of dogs playing with a ball in the grass": (
        ["dogs", "ball", "grass"],
        ["dog|play|with|ball", "dog||in|grass", "ball||in|grass"],
    ),
    "a group of people standing around a table": (["people", "table"], ["people|stand|around|table"]),
    "Several bikes parked on the side of a street near a building.": (
        ["bikes", "street", "building"],
        ["bike|park|near|street", "bike||near|building"],
    ),
    "A person on skis is going down a snowy hill.": (
        ["person", "skis", "snowy hill"],
        ["person||on|ski", "person|go|down|hill"],
    ),
    "a dog that is wearing a red collar": (["dog", "red collar"], ["dog|wear||collar"]),
    "the girl and the boy are riding horses": (
        ["girl", "boy", "horses"],
        ["girl||and|boy", "girl|ride||horse", "boy|ride||horse"],
    ),
    "A cat sleeping": (["cat"], ["cat|sleep||"]),
    "a very large brown bear walking through a forest": (
        ["very large brown bear", "forest"],
        ["bear|walk|through|forest"],
    ),
    "a man who is riding a horse while holding a rope": (["man", "horse", "rope"], ["man|ride||horse"]),
    "A bathroom with a white toilet and a sink.": (
        ["bathroom", "white toilet", "sink"],
        ["bathroom||with|toilet", "toilet||and|sink"],
    ),
    "the sky is blue": (["blue sky"], []),
    "the red and white umbrella is next to a bus": (["red white umbrella", "bus"], ["umbrella||near|bus"]),
    "a big, red ball": (["big red ball"], []),
    "three zebras graze in a field": (["three zebras", "field"], ["zebra|graze|in|field"]),
    "A train traveling down tracks next to trees.": (
        ["train", "tracks", "trees"],
        ["train|travel|down|track", "train||near|tree"],
    ),
    "a young boy with a baseball bat": (["young boy", "baseball bat"], ["boy||with|baseball bat"]),
    "A giraffe eating leaves from a tall tree": (["giraffe", "leaves", "tall tree"], ["giraffe|eat||leaf"]),
    "a cat sits on the wooden chair": (["cat", "wooden chair"], ["cat|sit|on|chair"]),
    "the dog is sitting behind a fence": (["dog", "fence"], ["dog|sit|behind|fence"]),
    "a teddy bear lying on a bed": (["teddy bear", "bed"], ["teddy bear|lie|on|bed"]),
    "a man without a hat": (["man", "hat"], ["man||without|hat"]),
    "a room with no people": (["room"], []),
    "green grapes, a yellow lemon, an orange and a kiwi on a blue table": (
        ["green grapes", "yellow lemon", "orange", "kiwi", "blue table"],
        ["orange||and|kiwi", "kiwi||on|table"],
    ),
    "an orange and a kiwi on a blue table": (
        ["orange", "kiwi", "blue table"],
        ["orange||and|kiwi", "kiwi||on|table"],
    ),
    "a picture of a cat on a mat": (["cat", "mat"], ["cat||on|mat"]),
    "a toy car on a shelf": (["toy car", "shelf"], ["toy car||on|shelf"]),
    "2 cats on a sofa": (["2 cats", "sofa"], ["cat||on|sofa"]),
    "A dog not wearing a red collar, on a lawn": (["dog", "lawn"], []),
    "Three people riding on the backs of elephants through a jungle.": (
        ["three people", "elephants", "jungle"],
        ["people|ride|on|elephant", "elephant||through|jungle"],
    ),
    "A yellow and black bus driving past some people": (["yellow black bus", "people"], ["bus|drive|past|people"]),
    "An old man with a long white beard sits on a bench, reading a newspaper": (
        ["old man", "long white beard", "bench", "newspaper"],
        ["man||with|beard", "man|sit|on|bench", "man|read||newspaper"],
    ),
    "a girl painting the fence": (["girl", "fence"], ["girl|paint||fence"]),
    "a woman in red is dancing": (["woman"], ["woman|dance||"]),
    "a boat floats on the water under a bridge": (
        ["boat", "water", "bridge"],
        ["boat|float|on|water", "boat||below|bridge"],
    ),
    # alternative texts as in CC3M
    "silhouette of a man standing on a cliff": (["man", "cliff"], ["man|stand|on|cliff"]),
    "hand drawn vector illustration of a cute little fox with flowers": (
        ["cute little fox", "flowers"],
        ["fox||with|flower"],
    ),
    "different types of plants": (["plants"], []),
    "portrait of a smiling woman": (["smiling woman"], []),
    "illustration of a cartoon cat sitting on a wooden chair": (
        ["cartoon cat", "wooden chair"],
        ["cartoon cat|sit|on|chair"],
    ),
    "red car vector illustration": (["red car"], []),
    "BEAUTIFUL SUNSET OVER THE OCEAN": (["beautiful sunset", "ocean"], ["sunset||above|ocean"]),
    "running dog": (["running dog"], []),
    "snow covered mountains behind a lake": (["snow covered mountains", "lake"], ["mountain||behind|lake"]),
    "light blue dress with long sleeves": (["light blue dress", "long sleeves"], ["dress||with|sleeve"]),
    "actor attends the premiere of comedy": (
        ["actor", "premiere", "comedy"],
        ["actor|attend||premiere", "premiere||of|comedy"],
    ),
    "cherries and leaves": (["cherries", "leaves"], ["cherry||and|leaf"]),
    "the man's black hat": (["black hat"], []),
    "riding a bike through the city": (["bike", "city"], []),
    "red car 🚗 on a road 😀": (["red car", "road"], []),
    "red car <br> https://example.com/a.jpg #cars": (["red car"], []),
    "wallpaper with a yellow flower, free download": (["wallpaper", "yellow flower", "free download"],
                                                      ["wallpaper||with|flower"]),
}  # fmt: skip

UNREADABLE = (
    "", "   ", "12345", "!?!", "😀🎉", "кошка на столе", "一只猫在桌子上", "قطة على الطاولة", "IMG_1234.jpg",
    "https://example.com/a.jpg", "#sunset #beach", "untitled", "of the on", "1/2 ² ٣",
)  # fmt: skip


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    rows = [parse(caption).to_row() for caption in CAPTIONS]
    return Vocabulary.from_parts(rows * 3)


def corpus(*captions: str) -> Vocabulary:
    return Vocabulary.from_parts([parse(caption).to_row() for caption in captions])


def draws(vocabulary: Vocabulary, caption: str, seeds: int = 40, **options) -> tuple[list, list]:
    """All positives and all negatives over many seeds."""
    found = [vocabulary.sub_texts(parse(caption), Random(seed), **options) for seed in range(seeds)]
    return [p for positives, _ in found for p in positives], [n for _, negatives in found for n in negatives]


# --- Parsing -------------------------------------------------------------------------------------------------------


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


# --- Rows, datasets ------------------------------------------------------------------------------------------------


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


# --- Properties over all captions and many seeds -------------------------------------------------------------------


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


# --- What is swapped for what --------------------------------------------------------------------------------------


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


def test_nouns_keep_their_kind_number_and_form():
    vocabulary = corpus("a dog on grass", "two cars on sand", "a kettle in the snow", "three lamps", "a spoon")
    table = swaps(vocabulary, "a chair on grass", "noun")
    assert table["chair"] == {"dog", "kettle", "spoon"}
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


def test_men_become_women_but_not_teachers():
    vocabulary = corpus("a woman", "a teacher", "a surfer", "a kettle")
    assert swaps(vocabulary, "a man", "noun") == {"man": {"woman", "kettle"}}


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


# --- The drawn world, where the scene can prove it -----------------------------------------------------------------


def test_scenes_prove_the_sub_texts():
    from hf_ta_cleaner.sandbox.captions import caption
    from hf_ta_cleaner.sandbox.scene import compose
    from hf_ta_cleaner.sandbox.truth import holds

    scenes = [compose("sub-texts", i) for i in range(2000)]
    parsed = [parse(caption(scene)) for scene in scenes]
    vocabulary = Vocabulary.from_parts(parts.to_row() for parts in parsed)
    verdicts: Counter = Counter()
    for i, (scene, parts) in enumerate(zip(scenes, parsed, strict=True)):
        positives, negatives = vocabulary.sub_texts(parts, rng("draw", i), 2, 2)
        verdicts.update(("positive", holds(scene, p.text)) for p in positives)
        verdicts.update((n.kind, holds(scene, n.text)) for n in negatives)
    assert sum(p.eligible for p in parsed) > 560
    assert verdicts["positive", True] >= 0.99 * sum(n for (kind, _), n in verdicts.items() if kind == "positive")
    for kind in ("noun", "relation", "attribute"):
        count = sum(n for (k, _), n in verdicts.items() if k == kind)
        assert count > 100
        assert verdicts[kind, False] >= 0.99 * count, kind


def test_speed():
    captions = list(CAPTIONS)
    vocabulary = corpus(*captions)
    parsed = [parse(caption) for caption in captions]
    for parts in parsed:
        vocabulary.sub_texts(parts, Random(0))
    best_parse = min(timed(lambda: [parse(caption) for caption in captions]) for _ in range(5)) / len(captions)
    best_draw = min(timed(lambda: [vocabulary.sub_texts(p, Random(1)) for p in parsed]) for _ in range(5)) / len(
        parsed
    )
    # A few times the usual cost, so that a busy machine does not fail it.
    assert best_parse < 1.5e-3
    assert best_draw < 0.8e-3


def timed(work) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
