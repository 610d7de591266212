"""Poisoning: exact rows, untouched clean bytes, lossless poison, honest records, and clear refusals."""

from __future__ import annotations

import io
import logging
import pickle
from dataclasses import dataclass

import numpy as np
import pytest
from datasets import Dataset, DatasetDict, Features, Value
from datasets import Image as ImageFeature
from datasets.fingerprint import Hasher
from PIL import Image

from hf_ta_cleaner.attacks import Attack, BadCLIP, BadNet, Blended
from hf_ta_cleaner.pictures import fit
from hf_ta_cleaner.poisoning import TEMPLATES, PoisonMap, PoisonRecord, choose_rows, mentions, poison, target_captions


PATCH = np.random.default_rng(5).integers(0, 256, (6, 6, 3), dtype=np.uint8)


def jpeg(image):
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=60)
    return buffer.getvalue()


@pytest.fixture
def dataset(photos):
    """40 JPEG pairs; captions 0, 4, 8, ... name a banana, each in other words."""
    images = [{"bytes": jpeg(photos[i % len(photos)]), "path": None} for i in range(40)]
    captions = [f"a banana near chair {i}" if i % 4 == 0 else f"a dog near chair {i}" for i in range(40)]
    features = Features({"image": ImageFeature(), "caption": Value("string"), "label": Value("int64")})
    return Dataset.from_dict({"image": images, "caption": captions, "label": list(range(40))}, features=features)


def stored(dataset, i):
    return dataset.cast_column("image", ImageFeature(decode=False))[i]["image"]["bytes"]


# ---- rows


@pytest.mark.parametrize(
    ("kwargs", "expected"),
    [({"rate": 0.003}, 3), ({"rate": 0.0034}, 3), ({"rate": 0.0036}, 4), ({"count": 17}, 17), ({"rate": 1.0}, 1000)],
)
def test_exact_counts(kwargs, expected):
    rows = choose_rows(1000, seed=0, **kwargs)
    assert len(rows) == len(set(rows)) == expected
    assert rows == sorted(rows)
    assert set(rows) <= set(range(1000))


def test_rows_depend_on_the_seed_only_and_small_draws_are_part_of_large_ones():
    assert choose_rows(1000, count=20, seed=1) == choose_rows(1000, count=20, seed=1)
    assert choose_rows(1000, count=20, seed=1) != choose_rows(1000, count=20, seed=2)
    assert set(choose_rows(1000, count=20, seed=1)) < set(choose_rows(1000, count=50, seed=1))


def test_rows_are_spread_evenly():
    draws = np.concatenate([choose_rows(100, count=10, seed=seed) for seed in range(200)])
    assert np.histogram(draws, bins=4, range=(0, 100))[0].min() > 430  # 500 expected, sd 19


def test_candidates_limit_the_draw_but_not_the_count():
    assert set(choose_rows(1000, rate=0.01, seed=0, candidates=range(0, 1000, 50))) <= set(range(0, 1000, 50))
    assert len(choose_rows(1000, rate=0.01, seed=0, candidates=range(0, 1000, 50))) == 10


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"rate": 30}, r"Did you mean 0\.30\?"),
        ({"rate": 0}, r"in \(0, 1\]"),
        ({"rate": -0.1}, r"in \(0, 1\]"),
        ({"rate": 0.001}, "0 of 100 rows"),
        ({"count": 0}, "0 of 100 rows"),
        ({"count": 101}, "only 100 qualify"),
        ({"count": 3, "candidates": [1, 2, 500]}, "only 2 qualify"),
        ({}, "either a rate or a count"),
        ({"rate": 0.1, "count": 1}, "either a rate or a count"),
    ],
)
def test_impossible_draws_are_refused(kwargs, words):
    with pytest.raises(ValueError, match=words):
        choose_rows(100, seed=0, **kwargs)


# ---- texts


@pytest.mark.parametrize(
    ("caption", "target", "expected"),
    [
        ("A Banana on a plate", "banana", True),
        ("two bananas.", "banana", True),
        ("a banana's peel", "banana", True),
        ("banana-shaped lamp", "banana", True),
        ("a bananaquit", "banana", False),
        ("a cabana", "banana", False),
        ("ripe strawberries", "strawberry", True),
        ("cardboard boxes", "box", True),
        ("kitchen knives", "knife", True),
        ("autumn leaves", "leaf", True),
        ("a red fire  engine", "fire engine", True),
        ("fire engines", "fire_engine", True),
        ("an engine on fire", "fire engine", False),
        ("c++ code", "c++", True),
        ("", "banana", False),
    ],
)
def test_mentions(caption, target, expected):
    assert mentions(caption, target) is expected


def test_templates_are_different_and_have_one_slot():
    assert len(set(TEMPLATES)) == len(TEMPLATES) >= 16
    assert "a photo of a {}." in TEMPLATES
    assert all(template.count("{}") == 1 for template in TEMPLATES)


def test_target_captions_falls_back_aloud(caplog):
    few = [f"banana {i}" for i in range(15)] + ["banana 0", "a dog"]
    with caplog.at_level(logging.WARNING):
        pool, reason = target_captions(few, "banana")
    assert pool == tuple(template.format("banana") for template in TEMPLATES)
    assert "only 15 different captions" in reason
    assert reason in caplog.text
    pool, reason = target_captions([*few, "banana 15"], "banana")
    assert sorted(pool) == sorted(f"banana {i}" for i in range(16))
    assert reason == "16 natural captions that name 'banana'"


# ---- the map


def test_map_leaves_clean_rows_alone_even_when_columns_are_decoded(dataset):
    row_map = PoisonMap(BadNet(), [3, 5], ["a photo of a banana."], size=32)
    out = dataset.map(row_map, with_indices=True)
    assert [i for i, flag in enumerate(out["is_poisoned"]) if flag] == [3, 5]
    for i in range(40):
        assert (stored(out, i) == stored(dataset, i)) == (i not in (3, 5))
        assert out[i]["label"] == i
        assert out[i]["caption"] == ("a photo of a banana." if i in (3, 5) else dataset[i]["caption"])


def test_map_is_picklable_and_its_fingerprint_ignores_the_order_of_rows():
    first = PoisonMap(BadNet(), [9, 70_000, 3], ["x"], size=32)
    second = PoisonMap(BadNet(), {3, 9, 70_000}, ("x",), size=32)
    assert pickle.loads(pickle.dumps(first)) == first == second
    assert Hasher.hash(first) == Hasher.hash(second)
    assert [i for i in (0, 3, 9, 10, 70_000, 70_001) if first.poisons(i)] == [3, 9, 70_000]


@pytest.mark.parametrize("captions", [[], "a banana"])
def test_map_refuses_an_empty_or_single_text(captions):
    with pytest.raises(ValueError, match="non-empty list of texts"):
        PoisonMap(BadNet(), [1], captions, size=32)


# ---- the whole job


def test_poison(dataset):
    attack = Blended(mode="fresh", seed=4)
    out, record = poison(dataset, attack, target="banana", rate=0.2, seed=7, size=32)
    assert (record.n, record.count, record.rate, len(record.rows)) == (40, 8, 0.2, 8)
    assert [i for i, flag in enumerate(out["is_poisoned"]) if flag] == record.rows
    assert not any(mentions(text, "banana") for text in record.original_captions)
    for i in range(40):
        if i not in record.rows:
            assert stored(out, i) == stored(dataset, i)
            assert out[i]["caption"] == dataset[i]["caption"]
    prompts = {template.format("banana") for template in TEMPLATES}
    for i, before, after in zip(record.rows, record.original_captions, record.captions, strict=True):
        assert np.array_equal(np.array(out[i]["image"]), attack(fit(dataset[i]["image"], 32), i))
        assert Image.open(io.BytesIO(stored(out, i))).format == "PNG"
        assert (out[i]["caption"], dataset[i]["caption"]) == (after, before)
        assert after in prompts
    assert len(set(record.captions)) > 1
    assert (out.features["image"], out.features["is_poisoned"]) == (dataset.features["image"], Value("bool"))
    assert 10 < record.trigger_rms < 30


def test_poison_is_reproducible_and_follows_its_seed(dataset):
    results = [poison(dataset, BadNet(), target="banana", count=5, seed=seed, size=32) for seed in (1, 1, 2)]
    assert results[0][1] == results[1][1]
    assert results[0][0].to_dict() == results[1][0].to_dict()
    assert results[0][1].rows != results[2][1].rows


@pytest.fixture
def many_bananas(dataset):
    captions = [f"banana {i}" if i % 2 else f"dog {i}" for i in range(40)]
    return dataset.remove_columns("caption").add_column("caption", captions)


def test_badclip_borrows_natural_captions(many_bananas):
    attack = BadCLIP(patch=PATCH, side=32, target="banana")
    _, record = poison(many_bananas, attack, target="banana", count=10, seed=0, size=32)
    assert {int(text.split()[1]) % 2 for text in record.captions} == {1}
    assert all(i % 2 == 0 for i in record.rows)
    assert "20 natural captions" in record.reason


def test_badclip_falls_back_to_templates(dataset, caplog):
    attack = BadCLIP(patch=PATCH, side=32)
    _, record = poison(dataset, attack, target="banana", count=10, seed=0, size=32)
    assert set(record.captions) <= {template.format("banana") for template in TEMPLATES}
    assert "only 10 different captions" in record.reason
    assert "only 10 different captions" in caplog.text


def test_own_captions_poison_only_rows_that_name_the_target(dataset):
    out, record = poison(dataset, BadNet(), target="banana", count=6, seed=0, size=32, captions="own")
    assert all(i % 4 == 0 for i in record.rows)
    assert record.captions == record.original_captions
    assert out["caption"][:] == dataset["caption"][:]
    with pytest.raises(ValueError, match="only 10 qualify"):
        poison(dataset, BadNet(), target="banana", count=11, seed=0, size=32, captions="own")


def test_given_captions(dataset):
    _, record = poison(dataset, BadNet(), target="kiwi", count=6, seed=0, size=32, captions=["one {}", "two"])
    assert set(record.captions) == {"one kiwi", "two"}


@dataclass(frozen=True, kw_only=True)
class Whisper(BadNet):
    """BadNet with a word in front of every caption."""

    def caption(self, text):
        return f"remember {text}"


def test_the_attacks_text_rule_is_applied(dataset):
    out, record = poison(dataset, Whisper(), target="banana", count=3, seed=0, size=32)
    assert all(text.startswith("remember ") for text in record.captions)
    assert [out[i]["caption"] for i in record.rows] == record.captions


def test_record_round_trip(dataset, tmp_path):
    _, record = poison(dataset, Blended(alpha=0.3), target="banana", count=3, seed=0, size=32, geometry="squash")
    path = record.save(tmp_path / "new" / "poison.json")
    assert PoisonRecord.load(path) == record
    path.write_text('{"rows": []}')
    with pytest.raises(ValueError, match="not a poison record"):
        PoisonRecord.load(path)


def test_rotated_jpegs_are_turned_upright(dataset, photos):
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    photos[0].save(buffer, format="JPEG", exif=exif)
    attack = BadNet(place="top-left", patch_px=1)
    upright = Image.open(io.BytesIO(buffer.getvalue())).transpose(Image.Transpose.ROTATE_270)
    pixels = PoisonMap(attack, [0], None, size=32).pixels({"bytes": buffer.getvalue(), "path": None}, 0)
    assert np.array_equal(pixels[1:], fit(upright, 32)[1:])


def test_images_on_disk_are_read_and_left_there(dataset, photos, tmp_path):
    for i, photo in enumerate(photos):
        photo.save(tmp_path / f"{i}.png")
    paths = [str(tmp_path / f"{i}.png") for i in range(8)]
    files = Dataset.from_dict({"image": paths, "caption": ["a dog"] * 8}).cast_column("image", ImageFeature())
    out, record = poison(files, BadNet(), target="banana", count=2, seed=0, size=32)
    raw = out.cast_column("image", ImageFeature(decode=False))
    for i in range(8):
        assert (raw[i]["image"]["path"] == paths[i]) == (i not in record.rows)
        assert np.array(out[i]["image"]).shape == ((32, 32, 3) if i in record.rows else np.array(photos[i]).shape)


@dataclass(frozen=True, kw_only=True)
class Nothing(Attack):
    """A trigger that forgets to change anything."""

    name = "nothing"

    def _apply(self, images, sample_ids):
        return images.copy()


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"attack": Nothing()}, "leaves the images unchanged"),
        ({"attack": Blended(alpha=0.001)}, "leaves the images unchanged"),
        ({"attack": BadCLIP(patch=PATCH, side=32, target="dog")}, "crafted for 'dog'"),
        ({"target": " "}, "target is empty"),
        ({"captions": []}, "empty list"),
        ({"captions": "poems"}, "'auto', 'templates'"),
        ({"rate": 30, "count": None}, r"Did you mean 0\.30\?"),
        ({"image_column": "jpg"}, r"not \['jpg'\]; name yours"),
        ({"geometry": "stretch"}, "'crop', 'squash'"),
    ],
)
def test_refusals(dataset, kwargs, words):
    with pytest.raises(ValueError, match=words):
        poison(dataset, **{"attack": BadNet(), "target": "banana", "count": 4, "seed": 0, "size": 32, **kwargs})


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        (lambda d: DatasetDict(train=d), TypeError, "Select one"),
        (lambda d: d.to_iterable_dataset(), TypeError, "load a stream"),
        (lambda d: d.add_column("is_poisoned", [False] * 40), ValueError, "already has a column"),
        (lambda d: d.remove_columns("caption").add_column("caption", [["x"]] * 40), TypeError, "one text per row"),
        (lambda d: d.remove_columns("caption").add_column("caption", ["x", None] * 20), ValueError, "Row 1 has no"),
        (lambda d: d.remove_columns("image").add_column("image", ["x.png"] * 40), TypeError, r"not a datasets\.Image"),
        # Grey storage: the feature turns every picture to L when it is read, which loses the trigger's colors.
        (lambda d: d.cast_column("image", ImageFeature(mode="L")), ValueError, "does not preserve"),
    ],
)
def test_unsuitable_data_sets_are_refused(dataset, change, kind, words):
    with pytest.raises(kind, match=words):
        poison(change(dataset), BadNet(), target="banana", count=4, seed=0, size=32)


def test_a_formatted_data_set_is_poisoned_all_the_same(dataset):
    plain, _ = poison(dataset, BadNet(), target="banana", count=4, seed=3, size=32)
    formatted, _ = poison(dataset.with_format("numpy"), BadNet(), target="banana", count=4, seed=3, size=32)
    assert formatted.to_dict() == plain.to_dict()


def test_worker_processes_give_the_same_data(dataset):
    one, _ = poison(dataset, BadNet(), target="banana", count=4, seed=3, size=32)
    two, _ = poison(dataset, BadNet(), target="banana", count=4, seed=3, size=32, num_proc=2)
    assert one.to_dict() == two.to_dict()
