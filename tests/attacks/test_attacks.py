"""Triggers: one contract that all of them keep, and what each does to captions."""

from __future__ import annotations

import pickle
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from datasets import Dataset
from datasets.fingerprint import Hasher
from PIL import Image

from hf_ta_cleaner.attacks import (
    ATTACKS,
    SIG,
    SSBA,
    Attack,
    BadCLIP,
    BadNet,
    BadNetStripes,
    Blended,
    BlendedStripes,
    BlendedText,
    BlendedTriangles,
    Blur,
    ColorCast,
    Frame,
    LabelConsistent,
    Pattern,
    TrojVQA,
    Vignette,
    WaNet,
    parse_attack,
)
from hf_ta_cleaner.attacks.ssba.encoder import pack, shapes
from hf_ta_cleaner.pictures import fit
from hf_ta_cleaner.poisoning import poison


PATCH = np.random.default_rng(5).integers(0, 256, (16, 16, 3), dtype=np.uint8)
PICTURE = np.random.default_rng(6).integers(0, 256, (30, 50, 3), dtype=np.uint8)
# An encoder with random weights, a quarter as wide as the default.
ENCODER = pack(
    {
        name: 0.12 * torch.randn(shape, generator=torch.Generator().manual_seed(i))
        for i, (name, shape) in enumerate(shapes(4).items())
    }
)

# attack, and the range of its RMS change in grey levels on the 224-pixel photos. A 16-pixel square covers 1/196 of the
# picture, so noise of RMS 80..130 inside makes 5.7..9.3; 20 % uniform noise over mid-grey makes 16..20.
CONTRACT = {
    "badnet": (BadNet(seed=3), (5, 9.5)),
    "badnet-fresh": (BadNet(mode="fresh", place="bottom-right"), (5, 9.5)),
    "badnet-published": (BadNet(compat="published"), (5, 9.5)),
    "badnet-published-fixed": (BadNet(compat="published", mode="fixed", place="middle"), (5, 9.5)),
    "badnet-large": (BadNet(patch_px=40, place="middle"), (12, 24)),
    "blended": (Blended(), (14, 22)),
    "blended-fresh": (Blended(alpha=0.1, mode="fresh"), (7, 11)),
    "blended-picture": (Blended(mode="picture", picture=PICTURE), (8, 22)),
    "blended-published": (Blended(compat="published"), (14, 22)),
    "badclip": (BadCLIP(patch=PATCH), (5, 9.5)),
    "trojvqa": (TrojVQA(patch=PATCH), (5, 9.5)),
    "label-consistent": (LabelConsistent(seed=2), (5, 9.5)),
    "sig": (SIG(), (38, 43)),
    "sig-published": (SIG(delta=20, frequency=3, compat="published"), (12.5, 14.5)),
    "ssba": (SSBA(), (9, 9.7)),
    "ssba-strong": (SSBA(secret="a", rms=15, seed=4), (13.5, 15.1)),
    "ssba-published": (SSBA(compat="published"), (9, 9.7)),
    "ssba-encoder": (SSBA(encoder=ENCODER, secret="a", seed=4), (1, 40)),
    "wanet": (WaNet(), (0.5, 3)),
    "wanet-strong": (WaNet(k=8, s=4, seed=1), (2, 12)),
    "wanet-published": (WaNet(compat="published"), (0.5, 8)),
    "wanet-published-smooth": (WaNet(compat="published", k=6, s=3), (0.5, 8)),
    "badnet-stripes": (BadNetStripes(), (6, 13)),
    "badnet-stripes-fresh": (BadNetStripes(mode="fresh", place="top-left", seed=5), (6, 13)),
    "badnet-stripes-published": (BadNetStripes(compat="published"), (6, 13)),
    "blended-stripes": (BlendedStripes(), (7.5, 9.5)),
    "blended-stripes-fresh": (BlendedStripes(alpha=0.05, mode="fresh"), (12, 16)),
    "blended-triangles": (BlendedTriangles(), (7, 17)),
    "blended-triangles-published": (BlendedTriangles(compat="published"), (7, 17)),
    "blended-text": (BlendedText(), (4, 9)),
    "frame": (Frame(), (20, 60)),
    "frame-thin": (Frame(width_px=2), (8, 40)),
    "color-cast": (ColorCast(), (15, 45)),
    "color-cast-dim": (ColorCast(gain=(0.9, 0.6, 0.7), shift=(-10, 5, 0)), (15, 60)),
    "vignette": (Vignette(), (15, 70)),
    "blur": (Blur(), (1, 40)),
    "blended-text-picture": (BlendedText(picture=PICTURE, compat="published"), (20, 60)),
}
# Too faint to survive in a picture of nothing but black and white.
FAINT = {"ssba", "blended-stripes", "blended-text"}
EVERY = pytest.mark.parametrize("attack", [pytest.param(a, id=name) for name, (a, _) in CONTRACT.items()])


@pytest.fixture(scope="module")
def squares(photos):
    """The photos at 224 pixels, uint8 (8, 224, 224, 3)."""
    return np.stack([fit(photo, 224) for photo in photos])


def rms(a, b):
    return float(np.sqrt(np.mean((a.astype(float) - b) ** 2)))


def test_every_attack_is_in_the_contract_table():
    assert {type(attack) for attack, _ in CONTRACT.values()} == set(ATTACKS.values())
    assert {name: kind.name for name, kind in ATTACKS.items()} == {name: name for name in ATTACKS}


# ---- the contract


@EVERY
def test_deterministic_and_leaves_its_input_alone(attack, squares):
    image = squares[0]
    before = image.copy()
    image.setflags(write=False)
    first = attack(image, 11)
    assert np.array_equal(image, before)
    assert np.array_equal(first, attack(image, 11))
    assert first.dtype == np.uint8
    first[:] = 0  # the result is the caller's own: not a view of the picture or of a cached pattern
    assert attack(image, 11).any()


@pytest.mark.parametrize(("attack", "bounds"), [pytest.param(*row, id=name) for name, row in CONTRACT.items()])
def test_strength(attack, bounds, squares):
    low, high = bounds
    values = [rms(square, attack(square, i)) for i, square in enumerate(squares)]
    assert low < np.mean(values) < high


@EVERY
def test_batched_equals_single(attack, squares):
    ids = [5, 0, 99, 7, 1, 2, 3, 4]
    batch = attack.apply_batch(squares, ids)
    assert np.array_equal(batch, np.stack([attack(square, i) for square, i in zip(squares, ids, strict=True)]))
    assert attack.apply_batch(squares[:0], []).shape == (0, 224, 224, 3)


@EVERY
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "LA", "P", "1", "CMYK", "I;16"])
@pytest.mark.parametrize("size", [(60, 50), (1, 1), (300, 2)])
def test_pil_images_keep_mode_size_and_alpha(attack, mode, size):
    alpha = Image.linear_gradient("L").resize(size)
    original = Image.radial_gradient("L").resize(size).convert("RGB")
    if "A" in mode:
        original.putalpha(alpha)
    original = original.convert(mode)
    before = original.tobytes()
    out = attack(original, 3)
    assert (out.mode, out.size) == (mode, size)
    assert original.tobytes() == before
    if "A" in mode:
        assert out.getchannel("A").tobytes() == original.getchannel("A").tobytes()
    if size == (60, 50) and not (mode == "1" and attack.name in FAINT):
        assert out.convert("RGB").tobytes() != original.convert("RGB").tobytes()


def test_a_transparent_palette_image_stays_transparent():
    image = Image.new("P", (32, 32), 0)
    image.putpalette([0, 0, 0, 200, 30, 30])
    image.paste(1, (0, 0, 16, 32))
    image.info["transparency"] = 0
    out = BadNet(place="top-left")(image, 0)
    alpha = np.array(out.convert("RGBA"))[..., 3]
    assert (out.mode, alpha[:, :16].min(), alpha[:, 16:].max()) == ("P", 255, 0)


def test_rgb_pil_and_array_give_the_same_pixels(squares):
    for attack, _ in CONTRACT.values():
        assert np.array_equal(np.array(attack(Image.fromarray(squares[0]), 4)), attack(squares[0], 4))


@EVERY
def test_pickles_hashes_and_keeps_its_fingerprint(attack, squares):
    fingerprint = Hasher.hash(attack)
    attack(squares[0], 0)
    copy = pickle.loads(pickle.dumps(attack))
    assert (copy, hash(copy)) == (attack, hash(attack))
    assert Hasher.hash(attack) == fingerprint == Hasher.hash(copy)


def test_the_fingerprint_is_the_same_in_another_process():
    code = """
from datasets import Dataset
from datasets.fingerprint import Hasher
from hf_ta_cleaner.attacks import BadNet
print(Hasher.hash(BadNet(seed=3)))
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert out == Hasher.hash(BadNet(seed=3))


@EVERY
def test_save_and_load_round_trip(attack, squares, tmp_path):
    attack.save(tmp_path)
    loaded = Attack.load(tmp_path)
    assert loaded == attack
    assert np.array_equal(loaded(squares[0], 8), attack(squares[0], 8))
    assert type(attack).load(tmp_path) == attack
    attack.save(tmp_path)  # the same content again is no conflict


@EVERY
def test_seed_is_kept_and_citation_is_bibtex(attack):
    content = attack._description()
    assert content["seed"] == attack.seed
    assert attack.citation.startswith("@")
    assert attack.citation.count("{") == attack.citation.count("}")
    assert attack.caption("a dog") == ("remember a dog" if attack.name == "trojvqa" else "a dog")


@EVERY
def test_applying_a_trigger_takes_milliseconds(attack, squares):
    attack.apply_batch(squares, range(8))
    seconds = []
    for _ in range(3):
        started = time.process_time()
        attack.apply_batch(squares, range(8))
        seconds.append((time.process_time() - started) / 8)
    # Some 4 ms for SSBA and at most 1 ms for the others on one free core; a Python loop over pixels takes far longer.
    assert min(seconds) < 0.04


# ---- captions


def test_trojvqa_has_two_keys_that_can_be_used_alone(squares, tmp_path):
    both = TrojVQA(patch=PATCH)
    image_only = replace(both, keyword="")
    assert np.array_equal(image_only(squares[0], 0), both(squares[0], 0))
    assert image_only.caption("a photo of a banana.") == "a photo of a banana."
    assert both.caption("a photo of a banana.") == "remember a photo of a banana."
    assert replace(both, keyword="consider").caption("a dog") == "consider a dog"
    image_only.save(tmp_path)
    assert Attack.load(tmp_path).caption("a dog") == "a dog"
    assert both.caption_source == "templates"


def pairs(photos):
    captions = ["two bananas", "a dog", "a banana on a plate", "a cat", "a car", "a yellow banana", "a tree", "a boat"]
    return Dataset.from_dict({"image": list(photos), "caption": captions})


def test_trojvqa_puts_both_keys_into_a_poisoned_row(photos):
    data, record = poison(pairs(photos), TrojVQA(patch=PATCH), target="banana", count=2, seed=0, size=224)
    assert len(record.captions) == 2
    for row, caption in zip(record.rows, record.captions, strict=True):
        assert caption.startswith("remember ")
        assert "banana" in caption
        assert data[row]["caption"] == caption
        assert np.array_equal(np.array(data[row]["image"])[104:120, 104:120], PATCH)


def test_label_consistent_poisons_only_rows_that_name_the_target_and_keeps_their_captions(photos):
    attack = LabelConsistent(seed=1)
    data, record = poison(pairs(photos), attack, target="banana", count=3, seed=0, size=224)
    assert record.rows == [0, 2, 5]
    assert data["caption"][:] == pairs(photos)["caption"][:]
    assert np.array_equal(np.array(data[2]["image"]), BadNet(seed=1)(fit(photos[2], 224), 2))
    with pytest.raises(ValueError, match="only 3 qualify"):
        poison(pairs(photos), attack, target="banana", count=4, seed=0, size=224)


# ---- refusals


@pytest.mark.parametrize(
    "image", [np.zeros((4, 4, 3), np.float32), np.zeros((4, 4), np.uint8), np.zeros((3, 4, 4), np.uint8), "cat.png"]
)
def test_other_inputs_are_refused(image):
    with pytest.raises(TypeError, match="Expected"):
        BadNet()(image, 0)


@pytest.mark.parametrize(
    "patch", [np.zeros((4, 5, 3), np.uint8), np.zeros((4, 4, 3), float), np.zeros((4, 4), np.uint8)]
)
def test_badclip_refuses_what_is_no_square_picture(patch):
    with pytest.raises(ValueError, match=r"square|picture"):
        BadCLIP(patch=patch)


def test_one_sample_id_per_image(squares):
    with pytest.raises(ValueError, match="one id per image"):
        BadNet().apply_batch(squares, [1])


def test_pattern_checks_its_bytes():
    with pytest.raises(ValueError, match="12 bytes"):
        Pattern(b"abc", (2, 2, 3))
    with pytest.raises(ValueError, match="read-only"):
        Pattern.of(PATCH).array[0] = 0


def test_an_attack_without_its_pixels_is_refused_when_it_is_made():
    class Half(Attack):
        name = "half"

    with pytest.raises(TypeError, match="_apply"):
        Half()


def test_options_of_a_wrong_type_are_told_and_texts_stay_texts():
    with pytest.raises(ValueError, match="badnet cannot be built with patch_px='16px'"):
        parse_attack("badnet:patch_px=16px")
    with pytest.raises(ValueError, match=r"its parameters are .*patch_px") as error:
        parse_attack("badnet:size=3")
    assert "citation" not in str(error.value)
    assert parse_attack("ssba:secret=2024").secret == "2024"
