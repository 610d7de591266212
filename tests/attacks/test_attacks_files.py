"""Triggers as files and as command line specs, and `fit`, which brings a picture to the model's size."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from hf_ta_cleaner.attacks import (
    SIG,
    SSBA,
    Attack,
    BadCLIP,
    BadNet,
    Blended,
    BlendedStripes,
    BlendedText,
    BlendedTriangles,
    ColorCast,
    LabelConsistent,
    Pattern,
    WaNet,
    get_attack,
    parse_attack,
    structured,
)
from hf_ta_cleaner.pictures import fit


PATCH = np.random.default_rng(5).integers(0, 256, (16, 16, 3), dtype=np.uint8)
PICTURE = np.random.default_rng(6).integers(0, 256, (30, 50, 3), dtype=np.uint8)


# ---- fit


@pytest.mark.parametrize("size", [(90, 40), (41, 90), (224, 224), (225, 224), (500, 375), (7, 3), (1, 1), (1000, 33)])
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
def test_fit_is_clips_own_resize_and_crop(size, mode):
    from transformers import CLIPImageProcessorPil

    noise = np.random.default_rng(0).integers(0, 256, (*size[::-1], 4), dtype=np.uint8)
    image = Image.fromarray(noise).convert(mode)
    processor = CLIPImageProcessorPil(do_normalize=False, do_rescale=False)
    expected = processor(image, return_tensors="np")["pixel_values"][0].transpose(1, 2, 0)
    assert np.array_equal(fit(image, 224), expected)


def test_fit_squash_keeps_the_borders_that_crop_cuts():
    image = Image.new("RGB", (400, 100), (0, 0, 255))
    image.paste((255, 0, 0), (0, 0, 50, 100))
    assert fit(image, 32, "squash")[16, 0].tolist() == [255, 0, 0]
    assert fit(image, 32, "crop")[16, 0].tolist() == [0, 0, 255]
    assert np.array_equal(fit(image, 32, "squash"), np.array(image.resize((32, 32), Image.Resampling.BICUBIC)))


@pytest.mark.parametrize(("args", "words"), [((224, "stretch"), "'crop', 'squash'"), ((0,), "at least 1")])
def test_fit_names_what_is_wrong(args, words):
    with pytest.raises(ValueError, match=words):
        fit(Image.new("RGB", (9, 9)), *args)


# ---- files


def test_a_patch_is_stored_as_png_and_checked(tmp_path):
    BadCLIP(patch=PATCH, target="banana").save(tmp_path)
    stored = np.array(Image.open(tmp_path / "trigger.png"))
    assert np.array_equal(stored, PATCH)
    stored[0, 0, 0] ^= 1
    Image.fromarray(stored).save(tmp_path / "trigger.png")
    with pytest.raises(ValueError, match="changed after it was saved"):
        Attack.load(tmp_path)
    (tmp_path / "trigger.png").unlink()
    with pytest.raises(ValueError, match="missing"):
        Attack.load(tmp_path)


def test_another_trigger_is_not_overwritten_silently(tmp_path):
    BadCLIP(patch=PATCH).save(tmp_path)
    with pytest.raises(FileExistsError, match="overwrite=True"):
        BadCLIP(patch=PATCH[::-1].copy()).save(tmp_path)
    assert Attack.load(tmp_path) == BadCLIP(patch=PATCH)
    BadNet().save(tmp_path, overwrite=True)
    assert Attack.load(tmp_path) == BadNet()
    assert not (tmp_path / "trigger.png").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format_version": 99}, "format version 99"),
        ({"name": "nonsense"}, "choose one of .*'badnet'"),
        ({"parameters": {"colour": 1}}, "does not know: colour"),
        ({"parameters": {"mode": "sideways"}}, "'fixed', 'fresh'"),
    ],
)
def test_load_says_what_is_wrong(change, words, tmp_path):
    path = BadNet().save(tmp_path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ValueError, match=words):
        Attack.load(tmp_path)


def test_load_refuses_other_files(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no trigger\.json"):
        Attack.load(tmp_path)
    BadNet().save(tmp_path)
    with pytest.raises(ValueError, match=r"Use Attack\.load"):
        Blended.load(tmp_path)
    (tmp_path / "trigger.json").write_text("{")
    with pytest.raises(ValueError, match="not readable as JSON"):
        Attack.load(tmp_path)


def test_the_printed_word_is_read_from_the_file_not_drawn_again(tmp_path, monkeypatch):
    attack = BlendedText()
    attack.save(tmp_path)
    monkeypatch.setattr(structured, "_red_word", lambda: Pattern.of(PICTURE))
    assert BlendedText() != attack
    assert Attack.load(tmp_path) == attack


# ---- specs


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("badnet", BadNet()),
        ("badnet:patch_px=14, place=middle,seed=7", BadNet(patch_px=14, place="middle", seed=7)),
        ("blended:alpha=0.3,mode=fresh", Blended(alpha=0.3, mode="fresh")),
        ("badnet:compat=none", BadNet()),
        ("sig:delta=40", SIG(delta=40)),
        ("ssba:secret=a", SSBA(secret="a")),
        ("wanet:s=2", WaNet(s=2)),
        ("label-consistent:patch_px=9", LabelConsistent(patch_px=9)),
        ("blended-stripes:mode=fresh", BlendedStripes(mode="fresh")),
        ("blended-triangles:alpha=0.2", BlendedTriangles(alpha=0.2)),
        ("badnet:compat=published", BadNet(mode="fresh", compat="published")),
        ("wanet:compat=published", WaNet(k=0, s=1.0, compat="published")),
        ("ssba:compat=published", SSBA(rms=9.6, compat="published")),
        ("color-cast:gain=1/1/0.8,shift=10/5/0", ColorCast(gain=(1, 1, 0.8), shift=(10, 5, 0))),
    ],
)
def test_parse_attack(spec, expected):
    assert parse_attack(spec) == expected


def test_parse_attack_reads_folders_and_pictures(tmp_path):
    BadCLIP(patch=PATCH).save(tmp_path)
    assert parse_attack(str(tmp_path)) == BadCLIP(patch=PATCH)
    assert parse_attack(f"badclip:patch={tmp_path}/trigger.png") == BadCLIP(patch=PATCH)
    assert get_attack("badclip", patch=PATCH, side=48) == BadCLIP(patch=PATCH, side=48)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("batnet", "choose one of badnet, blended"),
        ("badnet:colour=red", "no parameter colour"),
        ("badnet:fresh", "key=value"),
        ("badnet:mode=new", "'fixed', 'fresh'"),
        ("badnet:patch_px=0", "at least 1 pixel"),
        ("blended:alpha=20", r"in \(0, 1\]"),
        ("blended:mode=picture", "needs picture"),
        ("badclip", "craft_badclip"),
        ("trojvqa", "craft_trojvqa"),
        ("sig:delta=0", "amplitude in grey levels"),
        ("sig:frequency=-1", "must be positive"),
        ("sig:compat=old", "None, 'published'"),
        ("ssba:rms=300", r"in \(0, 255\]"),
        ("wanet:k=-1", "at least 1 control point"),
        ("wanet:s=0", "must be positive"),
        ("badnet-stripes:mode=striped", "'fixed', 'fresh'"),
        ("blended-stripes:alpha=1.5", r"in \(0, 1\]"),
        ("blended-stripes:mode=picture", "'fixed', 'fresh'"),
        ("blended-triangles:alpha=0", r"in \(0, 1\]"),
        ("blended-text:compat=no", "None, 'published'"),
    ],
)
def test_specs_say_what_is_wrong(spec, words):
    with pytest.raises(ValueError, match=words):
        parse_attack(spec)
