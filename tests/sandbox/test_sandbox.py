"""The sandbox world: deterministic, balanced, not solvable by tricks, and its captions are true."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from PIL import Image

from hf_ta_cleaner import sandbox
from hf_ta_cleaner.sandbox import CLASSES, Scene, Thing, compose, holds


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """No test finds the pictures of another one."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))


def encoded(dataset) -> list[bytes]:
    from datasets import Image as ImageFeature

    return [row["bytes"] for row in dataset.cast_column("image", ImageFeature(decode=False))["image"]]


# ---------------------------------------------------------------------------------------------- the world


def test_classes_are_many_distinct_single_words_with_the_banana():
    assert len(CLASSES) >= 40
    assert "banana" in CLASSES
    assert list(CLASSES) == sorted(set(CLASSES))
    assert all(name.isalpha() and name.islower() for name in CLASSES)


def test_pairs_have_the_promised_columns_and_pictures():
    pairs = sandbox.pairs("clean", 4, size=40)
    assert pairs.column_names == ["image", "caption"]
    assert {(image.size, image.mode) for image in pairs["image"]} == {((40, 40), "RGB")}
    assert pairs["caption"][:] == [sandbox.caption(sandbox.pair_scene("clean", i)) for i in range(4)]


def test_same_seed_gives_the_same_bytes(tmp_path, monkeypatch):
    first = sandbox.pairs("clean", 12, seed=3)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "other"))
    second = sandbox.pairs("clean", 12, seed=3)
    assert encoded(first) == encoded(second)
    assert first["caption"][:] == second["caption"][:]


def test_another_seed_gives_other_pictures():
    assert not set(encoded(sandbox.pairs("clean", 12, seed=0))) & set(encoded(sandbox.pairs("clean", 12, seed=1)))


def test_a_larger_set_begins_with_the_smaller_one():
    small, large = sandbox.pairs("clean", 8), sandbox.pairs("clean", 20)
    assert encoded(small) == encoded(large)[:8]
    assert small["caption"][:] == large["caption"][:8]
    assert encoded(sandbox.labelled(8)) == encoded(sandbox.labelled(20))[:8]


def test_no_two_splits_share_a_scene():
    scenes = [sandbox.pair_scene(split, i) for split in sandbox.SPLITS for i in range(300)]
    scenes += [sandbox.labelled_scene(i) for i in range(300)]
    assert len({scene.seed for scene in scenes}) == len(scenes)
    assert len({scene.things for scene in scenes}) == len(scenes)


def test_parallel_generation_equals_serial(tmp_path, monkeypatch):
    parts = {}
    for processes in (1, 2):
        monkeypatch.setattr("os.cpu_count", lambda processes=processes: processes)
        monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / str(processes)))
        parts[processes] = sandbox.pairs("clean", 1001, size=16)
    assert len(list((tmp_path / "2").rglob("*.arrow"))) == 2, "nothing ran in parallel"
    assert encoded(parts[1]) == encoded(parts[2])
    assert parts[1]["caption"][:] == parts[2]["caption"][:]


def test_a_second_request_draws_nothing(monkeypatch):
    first = encoded(sandbox.pairs("clean", 6))
    monkeypatch.setattr(Scene, "draw", lambda *_: pytest.fail("the picture was drawn again"))
    assert encoded(sandbox.pairs("clean", 6)) == first


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: sandbox.pairs("train", 5), ["train", "clean"]),
        (lambda: sandbox.pairs("clean", 0), ["n=0"]),
        (lambda: sandbox.labelled(-3), ["n=-3"]),
    ],
)
def test_impossible_requests_are_refused(make, said):
    with pytest.raises(ValueError) as error:
        make()
    assert all(word in str(error.value) for word in said)


# ---------------------------------------------------------------------------------------------- labels


def test_labels_are_balanced_and_name_the_main_object():
    data = sandbox.labelled(2 * len(CLASSES) + 5, size=16)
    assert data.features["label"].names == list(CLASSES)
    counts = Counter(data["label"])
    assert set(counts) == set(range(len(CLASSES)))
    assert max(counts.values()) - min(counts.values()) == 1
    for i, label in enumerate(data["label"]):
        assert sandbox.labelled_scene(i).things[0].noun == CLASSES[label]


def test_the_label_is_the_largest_object_and_the_banana_is_never_a_distractor():
    scenes = [sandbox.labelled_scene(i) for i in range(4000)]
    pairs = [scene for scene in scenes if len(scene.things) == 2]
    assert 0.09 < len(pairs) / len(scenes) < 0.15  # a distractor in 12% of the pictures
    for scene in pairs:
        main, other = scene.things
        assert other.extent < main.extent
        assert other.noun not in ("banana", main.noun)
    assert len({scene.things[1].noun for scene in pairs}) == len(CLASSES) - 1


# ---------------------------------------------------------------------------------------------- no short cuts


def attributes(scene: Scene) -> dict[str, str]:
    thing = scene.things[0]
    return {
        "colour": thing.colour,
        "texture": thing.texture,
        "size": thing.size,
        "pose": thing.pose,
        "mirror": str(thing.mirror),
        "ground": scene.ground,
        "count": str(len(scene.things)),
    }


@pytest.mark.parametrize("split", ["evaluation", "clean"])
def test_attributes_are_independent_of_the_class(split):
    """Pearson's chi-square of each attribute against the class, as a whole and cell by cell."""
    make = sandbox.labelled_scene if split == "evaluation" else lambda i: sandbox.pair_scene(split, i)
    scenes = [make(i) for i in range(200 * len(CLASSES))]
    rows = np.array([CLASSES.index(scene.things[0].noun) for scene in scenes])
    looks = [attributes(scene) for scene in scenes]
    for name in looks[0]:
        values = sorted({look[name] for look in looks})
        assert len(values) > 1, f"{name} never varies"
        columns = np.array([values.index(look[name]) for look in looks])
        table = np.zeros((len(CLASSES), len(values)))
        np.add.at(table, (rows, columns), 1)
        expected = np.outer(table.sum(1), table.sum(0)) / table.sum()
        deviation = (table - expected) / np.sqrt(expected)
        freedom = (len(CLASSES) - 1) * (len(values) - 1)
        # The mean of chi-square is its degrees of freedom, its variance twice that: five deviations are no accident.
        assert (deviation**2).sum() < freedom + 5 * np.sqrt(2 * freedom), name
        assert np.abs(deviation).max() < 5, name


def test_thumbnails_do_not_give_the_class_away():
    """The nearest of 3,000 pictures at 8 x 8 pixels seldom shows the same class."""

    def thumbnails(n: int, seed: int) -> np.ndarray:
        pictures = [sandbox.labelled_scene(i, seed).draw() for i in range(n)]
        return np.stack([np.asarray(p.resize((8, 8), Image.Resampling.BOX), np.float32).ravel() for p in pictures])

    known, asked = thumbnails(3000, seed=1), thumbnails(480, seed=0)
    distances = (known**2).sum(1) - 2 * asked @ known.T
    right = distances.argmin(1) % len(CLASSES) == np.arange(len(asked)) % len(CLASSES)
    assert right.mean() < 0.40
    # Not because the pictures were noise: it is still better than guessing.
    assert right.mean() > 1.5 / len(CLASSES)


def test_a_class_never_looks_the_same_twice():
    scenes = [compose(0, "variety", i, label="kettle", second=0) for i in range(40)]
    assert len({scene.draw(24).tobytes() for scene in scenes}) == 40
    assert len({scene.things[0].colour for scene in scenes}) >= 9
    assert {scene.things[0].pose for scene in scenes} == {"upright", "leaning", "lying", "upside down"}


# ---------------------------------------------------------------------------------------------- truth


@pytest.mark.parametrize("split", [s for s in sandbox.SPLITS if s != "primer"])
def test_captions_are_true_of_their_scene(split):
    verdicts = Counter()
    for i in range(1500):
        scene = sandbox.pair_scene(split, i)
        text = sandbox.caption(scene)
        verdict = holds(scene, text)
        assert verdict is not False, (text, scene)
        verdicts[verdict] += 1
    assert verdicts[True] / 1500 >= 0.97


def test_captions_come_in_many_forms():
    texts = [sandbox.caption(sandbox.pair_scene("clean", i)) for i in range(3000)]
    assert len(set(texts)) > 2500
    for part in (" stands ", " to the left of ", " above ", " and ", "small ", "striped ", " on grass", "a photo of "):
        share = sum(part in f" {text} " for text in texts) / len(texts)
        assert 0.01 < share < 0.6, (part, share)
    assert any(holds(sandbox.pair_scene("clean", i), text) is None for i, text in enumerate(texts))


def test_captions_of_other_scenes_are_mostly_false():
    scenes = [sandbox.pair_scene("clean", i) for i in range(1000)]
    verdicts = Counter(holds(scene, sandbox.caption(scenes[i - 1])) for i, scene in enumerate(scenes))
    assert verdicts[False] > 900


def test_the_caption_of_a_scene_is_the_same_at_every_call():
    scene = sandbox.pair_scene("clean", 5)
    assert {sandbox.caption(scene) for _ in range(5)} == {sandbox.caption(scene)}


def thing(noun: str, x: float, y: float, **looks) -> Thing:
    same = {"colour": "blue", "texture": "plain", "size": "medium", "pose": "upright"}
    rest = {"extent": 0.4, "angle": 0.0, "mirror": False, "outlined": True, "shape_seed": 1}
    return Thing(noun=noun, x=x, y=y, **{**same, **looks}, **rest)


#: A small red striped kettle on the left, a big green lamp lying on its right, on grass.
BESIDE = Scene(
    (
        thing("kettle", 0.25, 0.5, colour="red", texture="striped", size="small"),
        thing("lamp", 0.7, 0.55, colour="green", size="large", pose="lying"),
    ),
    "grass",
    1,
)
#: A gray spotted fish, upside down, above a leaning blue kettle, under a night sky.
STACKED = Scene(
    (
        thing("fish", 0.5, 0.25, colour="gray", texture="spotted", pose="upside down"),
        thing("kettle", 0.45, 0.75, pose="leaning"),
    ),
    "night",
    2,
)
#: One banana on a wooden floor.
ALONE = Scene((thing("banana", 0.5, 0.5, colour="yellow"),), "planks", 3)
#: One checkered hat, nothing behind it.
PLAIN = Scene((thing("hat", 0.4, 0.5, texture="checkered"),), "plain", 4)


@pytest.mark.parametrize(
    ("scene", "text", "verdict"),
    [
        # What is there, and how it looks.
        (BESIDE, "kettle", True),
        (BESIDE, "a picture of a red kettle", True),
        (BESIDE, "A Red Kettle.", True),
        (BESIDE, "a little striped red kettle", True),
        (BESIDE, "a blue kettle", False),
        (BESIDE, "a big kettle", False),
        (BESIDE, "a spotted kettle", False),
        (BESIDE, "a red lamp", False),
        (BESIDE, "a mug", False),
        (BESIDE, "a red and green kettle", False),
        (STACKED, "a grey dotted fish", True),
        (STACKED, "there is a medium-sized kettle", True),
        # Two things.
        (BESIDE, "a kettle and a lamp", True),
        (BESIDE, "a lamp and a kettle", True),
        (BESIDE, "a kettle and a kettle", False),
        (BESIDE, "a kettle and a mug", False),
        (BESIDE, "a green kettle and a red lamp", False),
        (ALONE, "a banana and a lamp", False),
        # Relations, both ways round.
        (BESIDE, "a kettle to the left of a lamp", True),
        (BESIDE, "a lamp to the left of a kettle", False),
        (BESIDE, "a lamp right of a kettle", True),
        (BESIDE, "a kettle to the right of a lamp", False),
        (BESIDE, "a kettle above a lamp", False),
        (BESIDE, "a kettle next to a lamp", True),
        (BESIDE, "a lamp beside a kettle", True),
        (BESIDE, "a kettle near a mug", False),
        (BESIDE, "a kettle on a lamp", False),
        (BESIDE, "the kettle is to the left of the lamp", True),
        (STACKED, "a fish over a kettle", True),
        (STACKED, "a kettle over a fish", False),
        (STACKED, "a kettle beneath a fish", True),
        (STACKED, "a fish to the left of a kettle", False),
        # Said from the other side.
        (BESIDE, "a kettle with a lamp to its right", True),
        (BESIDE, "a kettle with a lamp to its left", False),
        (BESIDE, "a lamp with a kettle to its left", True),
        (STACKED, "a fish with a kettle below it", True),
        (STACKED, "a fish with a kettle above it", False),
        # Postures.
        (BESIDE, "a kettle stands to the left of a lamp on grass", True),
        (BESIDE, "a lamp lies on its side", True),
        (BESIDE, "a lamp stands on grass", False),
        (BESIDE, "a kettle lying on its side to the left of a lamp", False),
        (BESIDE, "a kettle to the left of a lamp lying on its side", True),
        (STACKED, "the fish stands upside down above a kettle", True),
        (STACKED, "a leaning kettle", True),
        (STACKED, "a kettle stands upside down", False),
        # Grounds.
        (BESIDE, "a kettle on grass", True),
        (BESIDE, "a kettle to the left of a lamp on grass", True),
        (BESIDE, "a kettle on sand", False),
        (BESIDE, "a kettle in front of grass", False),
        (STACKED, "a fish under a night sky", True),
        (STACKED, "a fish above a night sky", False),
        (ALONE, "a banana on a wooden floor", True),
        (ALONE, "a banana on a tiled floor", False),
        (ALONE, "a floor on a banana", False),
        (PLAIN, "a hat against a plain background", True),
        (PLAIN, "a hat on grass", False),
        # Nothing that could be true or false, or not this world's words.
        (ALONE, "", None),
        (ALONE, "untitled", None),
        (ALONE, "look at this", None),
        (ALONE, "a banana dancing", None),
        (ALONE, "a shiny banana", None),
        (BESIDE, "a kettle to the left of", None),
        (BESIDE, "to the left of a lamp", None),
        (BESIDE, "red", None),
        (BESIDE, "a lamp to its left", None),
    ],
)
def test_holds(scene, text, verdict):
    assert holds(scene, text) is verdict


def test_relations_are_never_in_doubt():
    """One axis clearly dominates in every scene of two, and the reversed relation is the opposite one."""
    opposite = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
    seen = Counter()
    for i in range(3000):
        scene = sandbox.pair_scene("clean", i)
        if len(scene.things) < 2:
            continue
        a, b = scene.things
        far, near = sorted((abs(a.x - b.x), abs(a.y - b.y)), reverse=True)
        assert far > 2 * near
        assert scene.relation(1, 0) == opposite[scene.relation(0, 1)]
        seen[scene.relation(0, 1)] += 1
    assert min(seen[r] for r in opposite) > 0.2 * sum(seen.values())
