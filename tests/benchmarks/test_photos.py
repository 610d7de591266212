"""The world of photographs: drawn alike for a seed, true captions, photographs that no two sides share."""

from __future__ import annotations

import json
from itertools import combinations

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Image, Value
from PIL import Image as PIL

from benchmarks.photos.__main__ import main
from benchmarks.photos.dataset import PARTS, PhotosError, labelled, load_photos, pairs, scene
from benchmarks.photos.pretrain import draw, train
from benchmarks.photos.scenes import CLASSES, RELATIONS, SIDE, Photo, Scene, caption, compose, holds
from hf_ta_cleaner.models.checkpoints import load_model


LABELS = np.arange(400) % 10


def write_photos(folder, names=CLASSES, column="img"):
    """Photographs of noise, one mean colour for each class."""
    r = np.random.default_rng(0)
    features = Features({column: Image(), "label": ClassLabel(names=list(names))})
    for split, n in (("train", 100), ("test", 40)):
        means = 20 * (np.arange(n) % 10)
        pixels = (means[:, None, None, None] + r.integers(0, 60, (n, 32, 32, 3))).astype(np.uint8)
        rows = {column: [PIL.fromarray(p) for p in pixels], "label": (np.arange(n) % 10).tolist()}
        Dataset.from_dict(rows, features=features).to_parquet(folder / f"{split}.parquet")
    return str(folder)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_photos(tmp_path_factory.mktemp("photos"))


def test_a_scene_is_decided_by_its_seed():
    photos = np.random.default_rng(1).integers(0, 256, (400, 32, 32, 3), dtype=np.uint8)
    one, two, other = (compose(seed, range(400), LABELS) for seed in ("a", "a", "b"))
    assert one == two != other
    assert np.array_equal(np.asarray(one.draw(photos)), np.asarray(two.draw(photos)))
    assert caption(one) == caption(two)


def test_captions_are_true_and_say_different_things():
    scenes = [compose(f"true {i}", range(400), LABELS) for i in range(2_000)]
    texts = [caption(s) for s in scenes]
    assert all(holds(s, text) for s, text in zip(scenes, texts, strict=True))
    wrong = [holds(s, text) for s, text in zip(scenes, texts[1:] + texts[:1], strict=True)]
    assert np.mean(wrong) < 0.1 and len(set(texts)) > 1_500


def test_what_is_true_by_hand():
    frog = Photo("frog", 0, "small", "dark", 20, 0, 5)
    car = Photo("automobile", 1, "medium", "plain", 30, 30, 5)
    s = Scene("red", "striped", (frog, car), "left of", "")
    true = "a frog|A tiny dark frog on a striped red wall.|a frog to the left of a car|a frog near a car"
    true += "|a car to the right of a dark frog|a photo of an automobile on a red ground"
    false = "a ship|a large frog|a blurry frog|a frog on a blue ground|a frog on a checkered ground"
    false += "|a car to the left of a frog|a frog above a car|a frog near a dog"
    assert [text for text in true.split("|") if not holds(s, text)] == []
    assert [text for text in false.split("|") if holds(s, text)] == []
    with pytest.raises(ValueError, match="'zebra' is not in the language"):
        holds(s, "a zebra")


def test_photographs_lie_within_the_picture_and_where_the_relation_says():
    for i in range(500):
        s = compose(f"place {i}", range(400), LABELS)
        for p in s.photos:
            assert 0 <= p.left <= SIDE - p.side and 0 <= p.top <= SIDE - p.side
        if s.relation:
            first, second = s.photos
            inside = {
                "left of": first.left + first.side <= second.left,
                "right of": second.left + second.side <= first.left,
                "above": first.top + first.side <= second.top,
                "below": second.top + second.side <= first.top,
            }
            assert set(inside) == set(RELATIONS) and inside[s.relation]


def test_the_defender_has_photographs_of_its_own():
    known = {"primer", "pretrain", "poison"}
    for a, b in combinations(PARTS, 2):
        if {a, b} <= known:
            continue
        (split, rows), (other, others) = PARTS[a], PARTS[b]
        assert split != other or not set(rows) & set(others), (a, b)


@pytest.mark.parametrize("size", [1.0, 0.02])
def test_scenes_take_their_own_photographs(size):
    """As drawn, not only as the table says; of a small copy of the data too."""
    drawn = {}
    for part, (split, rows) in PARTS.items():
        labels = np.zeros(round(size * (50_000 if split == "train" else 10_000)), dtype=int)
        taken = {photo.row for i in range(300) for photo in scene(part, i, labels).photos}
        assert all(rows.start * size <= row < rows.stop * size for row in taken), part
        drawn[part] = {(split, row) for row in taken}
    defender = ("clean", "validation", "rebound")
    for a, b in combinations((*defender, "development", "evaluation"), 2):
        assert not drawn[a] & drawn[b]
    assert not any(drawn["poison"] & drawn[part] for part in defender)


def test_too_few_photographs_are_refused():
    with pytest.raises(PhotosError, match="leave none for the part validation"):
        scene("validation", 0, np.zeros(10, dtype=int))


def test_pairs_and_labelled_pictures(source):
    data = pairs(source, "clean", 12)
    assert data.features == Features({"image": Image(), "caption": Value("string")}) and len(data) == 12
    assert data[3]["image"].size == (SIDE, SIDE)
    assert data["caption"][:] == pairs(source, "clean", 12)["caption"][:] != pairs(source, "rebound", 12)["caption"][:]
    shown = labelled(source, "evaluation", 20)
    assert shown.features["label"].names == list(CLASSES)
    labels = load_photos(source, "test")[1]
    expected = [scene("evaluation", i, labels).photos[0].label for i in range(20)]
    assert [CLASSES[i] for i in shown["label"]] == expected
    with pytest.raises(ValueError, match="no such part 'evaluation'"):
        pairs(source, "evaluation", 5)
    with pytest.raises(ValueError, match="n=0"):
        pairs(source, "clean", 0)


def test_other_data_are_refused(tmp_path):
    with pytest.raises(PhotosError, match=r"train\.parquet"):
        load_photos(str(tmp_path), "train")
    with pytest.raises(PhotosError, match=r"columns picture, label.*wanted img"):
        load_photos(write_photos(tmp_path, column="picture"), "train")


def test_data_command_and_a_few_steps_of_training(source, tmp_path, capsys):
    main(["data", "--photos", source, "--part", "validation", "--n", "6", "--output_dir", str(tmp_path / "pairs")])
    assert "6 pictures" in capsys.readouterr().out
    draw(source, tmp_path / "clip-pictures", {"primer": 40, "pretrain": 60}, 0)
    before = (tmp_path / "clip-pictures" / "pixels.npy").stat().st_mtime_ns
    train(source, tmp_path / "clip", scenes=60, primer=40, steps=3, batch_size=8, tested=20)
    with pytest.raises(ValueError, match="clip"):
        train(source, tmp_path / "clip", scenes=60, primer=40, steps=3, batch_size=8, tested=20)
    assert (tmp_path / "clip-pictures" / "pixels.npy").stat().st_mtime_ns == before  # drawn once
    model, processor = load_model(tmp_path / "clip")
    assert model.config.vision_config.image_size == SIDE and model.config.vision_config.patch_size == 8
    assert json.loads((tmp_path / "clip" / "pretrain.json").read_text())["step"] == 3
    assert processor.tokenizer("a frog").input_ids
