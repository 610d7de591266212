"""What the Space computes, without its page: uploads, prompts, models, triggers, batches, the short cleaning."""

# ruff: noqa: E402 (the modules of the Space lie in its folder, not in a package)

from __future__ import annotations

import asyncio
import csv
import io
import json
import re
import shutil
import struct
import subprocess
import sys
import zlib
from configparser import ConfigParser
from dataclasses import replace
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from hf_ta_cleaner import ATTACKS, get_attack, sandbox
from hf_ta_cleaner.detection.screening import Screen
from hf_ta_cleaner.pictures import fit
from hf_ta_cleaner.publishing.report import Report


ROOT = Path(__file__).resolve().parents[2]
SPACE = ROOT / "spaces_demo"
sys.path.insert(0, str(SPACE))

import batch as batches
import inputs
import live
import probe
import triggers
import views
from gate import Gate
from inputs import ProbeError, Prompts, read_picture, read_prompts


def record(target="banana"):
    from hf_ta_cleaner.poisoning import PoisonRecord

    values = {"attack": "blended", "parameters": {}, "attack_seed": 0, "target": target, "n": 2, "count": 1}
    values |= {"rate": 0.5, "seed": 0, "size": 72, "geometry": "crop", "trigger_rms": 1.0, "reason": "test"}
    return PoisonRecord(**values, rows=[0], original_captions=["a"], captions=["b"])


@pytest.fixture(scope="module")
def suspect(tmp_path_factory):
    """A copy of the sandbox's checkpoint with a trigger beside it; nothing was poisoned."""
    folder = tmp_path_factory.mktemp("models") / "suspect"
    shutil.copytree(sandbox.CHECKPOINT, folder)
    get_attack("blended", alpha=0.25).save(folder)
    record().save(folder / "poison.json")
    return folder


@pytest.fixture(scope="module")
def pair(suspect):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MODEL_ROOTS", str(suspect.parent))
        return probe.load_pair(str(suspect), "sandbox")


@pytest.fixture(scope="module")
def picture():
    return np.array(sandbox.labelled_scene(5).draw())


# Uploads.


def noise(height=50, width=80, channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def saved(tmp_path, pixels, name="x.png", mode=None, **options):
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(tmp_path / name, **options)
    return tmp_path / name


@pytest.mark.parametrize(("name", "options"), [("x.png", {}), ("x.bmp", {}), ("x.webp", {"lossless": True})])
def test_a_picture_comes_in_as_the_models_see_it(tmp_path, name, options):
    pixels, notes = read_picture(saved(tmp_path, noise(), name, **options), 32)
    assert np.array_equal(pixels, fit(Image.fromarray(noise()), 32))
    assert notes == []


def test_the_name_of_a_file_does_not_matter(tmp_path):
    path = saved(tmp_path, noise(), "x.png").rename(tmp_path / "x.jpg")
    assert np.array_equal(read_picture(path, 32)[0], fit(Image.fromarray(noise()), 32))


def test_orientation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[274] = 6  # to be turned by 90 degrees clockwise
    path = saved(tmp_path, noise(64, 64), exif=exif)
    turned = np.rot90(noise(64, 64), k=-1)
    assert np.array_equal(read_picture(path, 64)[0], turned)


def test_sixteen_bits_become_eight(tmp_path):
    eight = noise(64, 64, 1)[..., 0]
    path = saved(tmp_path, Image.fromarray(eight.astype(np.uint16) * 257))
    pixels, notes = read_picture(path, 64)
    assert np.array_equal(pixels, np.repeat(eight[..., None], 3, -1))
    assert notes == ["16-bit: reduced to 8 bits a channel."]


def test_cmyk_becomes_rgb(tmp_path):
    flat = np.full((64, 64, 3), (200, 40, 90), np.uint8)
    pixels, notes = read_picture(saved(tmp_path, flat, "x.jpg", mode="CMYK", quality=95), 64)
    assert np.abs(pixels.astype(int) - flat).max() <= 6
    assert "CMYK" in notes[0]


@pytest.mark.parametrize("name", ["x.gif", "x.png", "x.webp"])
def test_an_animation_gives_its_first_frame(tmp_path, name):
    frames = [Image.new("RGB", (64, 64), color) for color in ("red", "lime", "blue")]
    path = saved(
        tmp_path,
        frames[0],
        name,
        save_all=True,
        append_images=frames[1:],
        **{"lossless": True} if "webp" in name else {},
    )
    pixels, notes = read_picture(path, 64)
    assert pixels.reshape(-1, 3).mean(0).round().tolist() == [255, 0, 0]
    assert "first frame" in notes[0]


def test_transparency_is_put_on_white(tmp_path):
    pixels, _ = read_picture(saved(tmp_path, Image.new("RGBA", (64, 64), (0, 0, 0, 0))), 32)
    assert (pixels == 255).all()


def test_a_large_jpeg_is_decoded_small_and_looks_the_same(tmp_path):
    y, x = np.mgrid[0:1600, 0:1600] / 1600
    large = (255 * np.stack([x, y, 1 - x], -1)).astype(np.uint8)
    pixels, _ = read_picture(saved(tmp_path, large, "x.jpg", quality=95), 72)
    assert np.abs(pixels.astype(int) - fit(Image.fromarray(large), 72)).max() <= 4


def bomb(width, height):
    """A PNG of a few bytes that claims any size."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(1000)))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(("side", "words"), [(5001, "5,001 x 5,001"), (60_000, "claims far more")])
def test_a_bomb_is_refused_by_its_header(tmp_path, side, words, monkeypatch):
    (tmp_path / "bomb.png").write_bytes(bomb(side, side))
    monkeypatch.setattr(Image.Image, "load", lambda *_: pytest.fail("pixels were decoded"))
    with pytest.raises(ProbeError, match=words):
        read_picture(tmp_path / "bomb.png", 72)


@pytest.mark.parametrize("kind", ["text", "empty", "cut", "svg", "tiff", "eps"])
def test_what_is_no_picture_is_refused(tmp_path, kind):
    path = tmp_path / "x.png"
    if kind in ("tiff", "eps"):
        Image.fromarray(noise()).save(path, kind)
    else:
        whole = saved(tmp_path, noise(200, 200)).read_bytes()
        path.write_bytes({"text": b"hello", "empty": b"", "cut": whole[: len(whole) // 2], "svg": b"<svg/>"}[kind])
    with pytest.raises(ProbeError, match="cannot be read as a picture") as error:
        read_picture(path, 72)
    assert str(tmp_path) not in str(error.value)


def test_a_heavy_file_is_refused_unopened(tmp_path, monkeypatch):
    (tmp_path / "x.png").write_bytes(bytes(2**20 + 1))
    monkeypatch.setattr(inputs, "MAX_FILE_MB", 1)
    with pytest.raises(ProbeError, match="larger than 1 MB"):
        read_picture(tmp_path / "x.png", 72)


def test_only_uploaded_files_are_read(tmp_path, monkeypatch):
    folder = tmp_path / "uploads"
    folder.mkdir()
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(folder))
    inside, outside = saved(folder, noise()), saved(tmp_path, noise())
    assert inputs.uploaded({"path": str(inside)}) == str(inside)
    (folder / "link.png").symlink_to(outside)
    for path in (outside, folder / ".." / "x.png", folder / "link.png", "/etc/passwd"):
        with pytest.raises(ProbeError, match="uploaded files"):
            inputs.uploaded({"path": str(path)})
    for nothing in (None, {}, {"path": None}, {"path": ["/etc/passwd"]}, "/etc/passwd"):
        with pytest.raises(ProbeError, match="no picture yet"):
            inputs.uploaded(nothing)


# Prompts.


def test_labels_are_split_cleaned_and_told_apart():
    assert read_prompts(" dog, cat ,\n dog, Cat, traffic   light,,").texts == ("dog", "cat", "traffic light")
    assert read_prompts("a dog, asleep\na cat\n", sentences=True).texts == ("a dog, asleep", "a cat")


@pytest.mark.parametrize("text", ["", "dog", "dog, DOG", ", ,\n"])
def test_fewer_than_two_labels_are_refused(text):
    with pytest.raises(ProbeError, match="at least two"):
        read_prompts(text)


def test_the_limits_of_text():
    assert len(read_prompts(", ".join(f"thing {i}" for i in range(500))).texts) == 500
    with pytest.raises(ProbeError, match="501 texts; at most 500"):
        read_prompts(", ".join(f"thing {i}" for i in range(501)))
    with pytest.raises(ProbeError, match="50,001 characters"):
        read_prompts("x" * 50_001)


def test_long_texts_and_many_labels_get_an_answer(pair, picture):
    long = Prompts(("dog " * 2500, "a banana"), sentences=True)
    assert len(long.texts[0]) == 10_000
    result = probe.look(pair, picture, pair.trigger(), long)
    assert result.notes[0].startswith("1 of the texts are longer than the 77 tokens")
    many = probe.look(pair, picture, pair.trigger(), read_prompts(", ".join(f"thing {i}" for i in range(500))), k=500)
    assert sum(p for _, p in many.top["suspect", "clean"]) == pytest.approx(1, abs=1e-4)


def test_the_label_of_a_file_name():
    labels = ["light", "traffic light", "dog"]
    names = ["traffic_light-2.jpg", "Dog 1.png", "dogma.png", "a dog.png", "light.webp"]
    assert [inputs.label_of(name, labels) for name in names] == ["traffic light", "dog", None, None, "light"]
    assert inputs.label_of("t-shirt 3.jpg", ["t-shirt", "traffic_light"]) == "t-shirt"
    assert inputs.label_of("traffic light.jpg", ["t-shirt", "traffic_light"]) == "traffic_light"


# Models.


def test_a_pair_knows_what_lies_beside_it(pair, suspect):
    assert pair.own == "blended" and pair.target == "banana" and pair.report is None and pair.is_sandbox
    assert next(iter(pair.triggers)) == "blended" and pair.trigger() == get_attack("blended", alpha=0.25)
    assert pair.labels == tuple(sandbox.CLASSES)
    assert pair.suspect.name == "/".join(suspect.parts[-2:]) and not pair.suspect.model.training


def test_every_attack_is_there_unless_it_needs_a_file(pair, suspect, tmp_path, monkeypatch):
    assert set(pair.triggers) == set(ATTACKS) - {"badclip", "trojvqa"}
    folder = tmp_path / "crafted"
    shutil.copytree(suspect, folder, ignore=shutil.ignore_patterns("trigger*", "poison*"))
    get_attack("trojvqa", patch=noise(8, 8), side=72, target="banana").save(folder)
    monkeypatch.setenv("MODEL_ROOTS", str(tmp_path))
    crafted = probe.load_pair(str(folder), str(folder))
    assert next(iter(crafted.triggers)) == crafted.own == "trojvqa" and crafted.target == "banana"
    assert triggers.controls(crafted.trigger(), 72) == triggers.Controls(None, None, None)


def test_folders_elsewhere_are_refused_as_if_they_were_not_there(suspect, tmp_path, monkeypatch):
    root = suspect.parent
    monkeypatch.setenv("MODEL_ROOTS", str(root))
    (root / "link").symlink_to(tmp_path)
    assert probe.locate(str(suspect)) == str(suspect.resolve())
    words = set()
    for name in (
        "/etc",
        "/nowhere",
        f"{suspect}/../../..",
        "models/../../scripts",
        "models/none",
        "../tests",
        str(root / "link"),
        "",
        "~",
        "a/b/c",
    ):
        with pytest.raises(ProbeError) as error:
            probe.locate(name)
        words.add(str(error.value).replace(repr(name), "NAME"))
    assert len(words) == 1
    (root / "link").unlink()


def test_a_folder_here_is_not_opened_under_the_name_of_a_hub_model(suspect, tmp_path, monkeypatch):
    """Nor told apart from one that is not there."""
    import huggingface_hub
    from huggingface_hub.errors import RepositoryNotFoundError

    def absent(*args, **kwargs):
        raise RepositoryNotFoundError("404", response=SimpleNamespace(headers={}, request=None))

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", absent)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.delenv("MODEL_ROOTS", raising=False)
    monkeypatch.chdir(tmp_path)
    shutil.copytree(suspect, tmp_path / "outputs" / "private")
    said = set()
    for name in ("outputs/private", "outputs/nowhere"):
        with pytest.raises(ProbeError) as error:
            probe.locate(name)
        said.add(str(error.value).replace(name, "NAME"))
    assert len(said) == 1


def test_visitors_do_not_see_with_the_token_of_the_page(monkeypatch):
    import huggingface_hub

    tokens = []

    def model_info(self, name, **kwargs):
        tokens.append(self.token)
        return SimpleNamespace(siblings=[], gated="auto" if name == "lab/gated" else False)

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", model_info)
    monkeypatch.setenv("SUSPECT_MODEL", "me/mine")
    probe.locate("me/mine")
    probe.locate("lab/open")
    with pytest.raises(ProbeError, match="does not show"):
        probe.locate("lab/gated")
    assert tokens == [None, False, False]


@pytest.mark.parametrize(("sizes", "refused"), [([300, 300], False), ([500, 300], True)])
def test_a_hub_model_that_is_too_large_is_not_fetched(monkeypatch, sizes, refused):
    import huggingface_hub

    files = [SimpleNamespace(rfilename=f"m-{i}.safetensors", size=size * 2**20) for i, size in enumerate(sizes)]
    files.append(SimpleNamespace(rfilename="pytorch_model.bin", size=2**40))
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *_, **__: SimpleNamespace(siblings=files))
    if refused:
        with pytest.raises(ProbeError, match="800 MB of weights; at most 700 MB"):
            probe.locate("owner/name")
    else:
        assert probe.locate("owner/name") == "owner/name"


def test_models_that_do_not_fit_or_bring_code_are_refused(suspect, tiny_clip, tiny_processor, tmp_path, monkeypatch):
    from hf_ta_cleaner.models.checkpoints import save_model

    monkeypatch.setenv("MODEL_ROOTS", str(tmp_path))
    save_model(tiny_clip, tiny_processor, tmp_path / "tiny")
    with pytest.raises(ProbeError, match="pictures of 72 pixels and the cleaned model of 32"):
        probe.load_pair("sandbox", str(tmp_path / "tiny"))
    config = json.loads((tmp_path / "tiny" / "config.json").read_text())
    (tmp_path / "tiny" / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoModel": "x.Y"}}))
    with pytest.raises(ProbeError, match=r"cleaned model: .*asks to run code"):
        probe.load_pair("sandbox", str(tmp_path / "tiny"))


def test_at_most_two_pairs_stay_open(monkeypatch):
    opened = []
    monkeypatch.setattr(probe, "load_pair", lambda *names: opened.append(names) or SimpleNamespace(names=names))
    pairs = probe.Pairs()
    for name in ("first", "second", "first", "third", "second", "first"):
        assert pairs.get(name, "x").names == (name, "x")
    assert [name for name, _ in opened] == ["first", "second", "third", "second"]
    assert len(pairs._kept) == 2


# Triggers.


def test_controls_come_from_the_fields():
    def titles(name):
        found = triggers.controls(get_attack(name), 224)
        return found.size and found.size.field, found.strength and found.strength.field, found.place

    assert titles("badnet") == ("patch_px", None, "random")
    assert titles("blended") == (None, "alpha", None)
    assert titles("sig") == (None, "delta", None)
    assert titles("ssba") == (None, "rms", None)
    assert titles("wanet") == (None, "s", None)
    assert triggers.controls(get_attack("badnet"), 224).size.value == 16
    assert triggers.controls(get_attack("badnet"), 72).size.value == 5


def test_what_is_left_alone_changes_nothing_and_what_is_set_counts():
    blended, badnet = get_attack("blended"), get_attack("badnet")
    assert triggers.adjust(blended, 72, size=9, strength=0.2, place="middle") is blended
    assert triggers.adjust(blended, 72, None, 0.5, None) == get_attack("blended", alpha=0.5)
    wanted = get_attack("badnet", patch_px=9, place="top-left")
    assert triggers.adjust(badnet, 72, 9, 0.7, "top-left") == wanted
    with pytest.raises(ProbeError, match="alpha is a share"):
        triggers.adjust(blended, 72, None, 3, None)


def test_an_unknown_trigger_is_named(pair):
    with pytest.raises(ProbeError, match="no trigger 'nope' here; choose one of blended"):
        pair.trigger("nope")


# What both models say.


def test_probabilities_are_those_of_the_model_itself(pair, picture):
    """Against transformers' own forward, which knows nothing of this package."""
    texts = ["a photo of a dog.", "a photo of a banana.", "two boats"]
    inputs_ = pair.suspect.processor(
        text=texts, images=Image.fromarray(picture), return_tensors="pt", padding=True, truncation=True
    )
    with torch.no_grad():
        wanted = pair.suspect.model(**inputs_).logits_per_image.softmax(-1)[0].numpy()
    result = probe.look(pair, picture, pair.trigger(), Prompts(tuple(texts), sentences=True), k=3)
    assert dict(result.top["suspect", "clean"]) == pytest.approx(
        dict(zip(texts, map(float, wanted), strict=True)), abs=1e-4
    )
    assert np.array_equal(result.pixels["triggered"], get_attack("blended", alpha=0.25)(picture, 0))
    assert result.top["suspect", "triggered"] == result.top["cleaned", "triggered"]  # the same weights twice
    ranks = [p for _, p in result.top["suspect", "clean"]]
    assert ranks == sorted(ranks, reverse=True)


def test_a_text_key_goes_into_the_prompts_of_the_triggered_view_only(pair, picture):
    attack = get_attack("trojvqa", patch=noise(8, 8), side=72)
    plain, keyed = Prompts(("a dog", "a cat"), True), Prompts(("remember a dog", "remember a cat"), True)
    result = probe.look(pair, picture, attack, plain, k=2)
    (by_hand,), _ = pair.suspect.answer(attack(picture, 0)[None], keyed)
    assert sorted(p for _, p in result.top["suspect", "triggered"]) == pytest.approx(sorted(by_hand), abs=1e-5)
    (untouched,), _ = pair.suspect.answer(picture[None], plain)
    assert sorted(p for _, p in result.top["suspect", "clean"]) == pytest.approx(sorted(untouched), abs=1e-5)


def test_few_text_sides_are_kept(pair, picture):
    for i in range(probe.HEADS_KEPT + 3):
        pair.cleaned.answer(picture[None], Prompts((f"thing {i}", "dog")))
    assert len(pair.cleaned._heads) == probe.HEADS_KEPT


def test_a_batch_says_what_single_looks_say(pair):
    pictures = list(batches.sample_pictures(pair, 5))
    prompts = read_prompts(", ".join(pair.labels))
    parts = list(batches.batch(pair, pictures, pair.trigger(), prompts, chunk=2))
    assert [len(part) for part in parts] == [2, 2, 1]
    rows = [row for part in parts for row in part]
    assert [row.label for row in rows] == list(sandbox.CLASSES[:5])
    for row, (_, _, pixels) in zip(rows, pictures, strict=True):
        one = probe.look(pair, pixels, pair.trigger(), prompts, k=1)
        for key, (text, p) in row.answers.items():
            assert (text, p) == (one.top[key][0][0], pytest.approx(one.top[key][0][1], abs=1e-4))
        screen = pair.suspect._screen(prompts)
        assert one.flagged == {key: score > screen.threshold for key, score in row.screening.items()}


def test_the_screening_is_the_package_s_own_and_is_set_on_pictures_that_are_never_shown(pair, picture):
    """Without a threshold for models that know nothing of the drawn pictures, and none for sentences."""
    prompts = Prompts(pair.labels)
    own = Screen(pair.suspect.model, pair.suspect.processor, pair.labels)
    pictures = np.stack([pixels for *_, pixels in batches.sample_pictures(pair, 60)])
    _, found = pair.suspect.answer(pictures, prompts)
    assert found.scores == pytest.approx(own(pictures).scores, abs=1e-4)
    assert 0 < found.flagged.mean() < 0.2  # nothing was poisoned: near the 5% that it is set to
    assert min(probe.CALIBRATION) > 480  # the largest batch
    unknown = probe.Loaded("x", pair.suspect.model, pair.suspect.processor)
    assert unknown.answer(picture[None], prompts)[1].flagged is None
    assert pair.suspect.answer(picture[None], Prompts(("a dog", "a cat"), sentences=True))[1] is None
    result = probe.look(pair, picture, pair.trigger(), prompts)
    assert set(result.flagged) == {(who, view) for who in probe.WHO for view in probe.VIEWS}
    assert probe.look(pair, picture, pair.trigger(), Prompts(("a dog", "a cat"), sentences=True)).flagged == {}


def row(name, label, *said):
    keys = [(who, view) for who in probe.WHO for view in probe.VIEWS]
    return batches.Row(name, label, {key: (text, 0.5) for key, text in zip(keys, said, strict=True)})


ROWS = [
    row("1", "dog", "dog", "banana", "dog", "dog"),
    row("2", "cat", "dog", "banana", "cat", "cat"),
    row("3", "banana", "banana", "banana", "banana", "banana"),  # shows the target: no attack counts there
    row("4", None, "cat", "cat", "cat", "banana"),  # unlabelled: counts for the attack, not for accuracy
]


def test_rates_by_hand():
    found = batches.rates(ROWS, ("dog", "cat", "banana"), "banana")
    for entry in found.values():
        assert entry.pop("screening") is None  # four pictures say nothing of it
    values = {(who, key): (e["value"], e["n"]) for who, entry in found.items() for key, e in entry.items()}
    assert values["suspect", "asr"] == (pytest.approx(2 / 3), 3) and values["suspect", "floor"] == (0, 3)
    assert values["suspect", "accuracy"] == (pytest.approx(2 / 3), 3)
    assert values["cleaned", "asr"] == (pytest.approx(1 / 3), 3) and values["cleaned", "accuracy"] == (1, 3)
    for entry in found.values():
        assert all(e["interval95"][0] <= e["value"] <= e["interval95"][1] for e in entry.values())


def test_the_screening_of_a_batch_by_hand():
    """Twelve pictures, one of them of the target: nine of the other eleven score higher with the trigger than all."""
    keys = [(who, view) for who in probe.WHO for view in probe.VIEWS]
    rows = []
    for i in range(12):
        scores = dict.fromkeys(keys, 0.0) | {("suspect", "triggered"): 1.0 if 2 <= i < 11 else 0.0}
        label = "banana" if i == 11 else "dog"
        answers = dict.fromkeys(keys, ("dog", 0.5))
        rows.append(batches.Row(str(i), label, answers, scores))
    found = batches.rates(rows, ("dog", "cat", "banana"), "banana")
    figure = found["suspect"]["screening"]
    assert figure["n"] == 11 and figure["value"] == pytest.approx((9 + 0.5 * 2) / 11)
    assert figure["interval95"][0] < figure["value"] < figure["interval95"][1]
    assert found["cleaned"]["screening"]["value"] == 0.5
    assert batches.rates(rows[:9], ("dog", "cat", "banana"), "banana")["suspect"]["screening"] is None
    line = next(csv.DictReader(io.StringIO(batches.to_csv([replace(rows[0], screening={keys[0]: -0.5})]))))
    assert line["suspect_clean_screening"] == "-0.5000" and line["suspect_triggered_screening"] == ""


def test_the_page_says_which_picture_stands_out():
    keys = [(who, view) for who in probe.WHO for view in probe.VIEWS]
    result = probe.Answers(
        dict.fromkeys(probe.VIEWS, noise(8, 8)),
        {key: [("dog", 0.9)] for key in keys},
        flagged={key: key == ("suspect", "triggered") for key in keys},
    )
    html = views.answers(result, None)
    assert html.count("Screening: <b>usual</b>") == 3 and html.count("<b>stands out</b>") == 1
    assert "So do 5 of 100 clean ones" in html
    assert "Screening" not in views.answers(replace(result, flagged={}), None)


def test_rates_that_have_nothing_to_count_are_none():
    found = batches.rates([row("x", None, "dog", "dog", "dog", "dog")], ("dog", "cat"), "cat")["suspect"]
    assert found["accuracy"] is None and found["asr"]["value"] == 0
    found = batches.rates([row("x", "cat", "dog", "dog", "dog", "dog")], ("dog", "cat"), "cat")["suspect"]
    assert found["asr"] is None and found["accuracy"]["value"] == 0
    with pytest.raises(ProbeError, match="'bird' is not among the 2 labels"):
        batches.rates(ROWS[:1], ("dog", "cat"), "bird")


def test_the_csv_reads_back_and_holds_no_formula():
    rows = [*ROWS, row('=HYPERLINK("http://x"),a', "+1", "-dog", "@cat", "dog", "a,b")]
    table = list(csv.DictReader(io.StringIO(batches.to_csv(rows))))
    assert [line["picture"] for line in table[:4]] == ["1", "2", "3", "4"] and table[3]["label"] == ""
    assert table[0]["suspect_triggered"] == "banana" and table[0]["suspect_triggered_probability"] == "0.5000"
    assert not any(cell.startswith(("=", "+", "-", "@")) for cell in table[4].values())
    assert table[4]["cleaned_triggered"] == "a,b"


def test_the_examples_are_sandbox_pictures_of_different_classes(pair):
    found = probe.examples(pair)
    assert len(found) == 8 == len({label for label, _ in found})
    first = dict(found)[found[0][0]]
    assert np.array_equal(first, np.array(sandbox.labelled_scene(sandbox.CLASSES.index(found[0][0])).draw()))


# The short cleaning.


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(live, "PAIRS", 64)
    monkeypatch.setattr(live, "PICTURES", 12)
    cached = live.cleaning_pairs
    cached.cache_clear()
    yield
    cached.cache_clear()


def test_a_cleaning_shows_its_curves_and_leaves_the_suspect_alone(pair, small, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = {name: tensor.clone() for name, tensor in pair.suspect.model.state_dict().items()}
    run = live.Cleaning(pair, pair.trigger(), "banana", method="ta-cleaner", steps=3)
    points = list(run.points())
    losses = [(p.step, p.loss) for p in points if p.loss is not None]
    measured = [(p.step, p.asr, p.accuracy) for p in points if p.asr is not None]
    assert [step for step, _ in losses] == [1, 2, 3] and all(loss > 0 for _, loss in losses)
    assert [step for step, *_ in measured] == [0, 1, 2, 3]
    assert all(0 <= rate <= 1 for _, *rates in measured for rate in rates)
    assert all(torch.equal(before[name], tensor) for name, tensor in pair.suspect.model.state_dict().items())
    assert not list(tmp_path.glob("cleaning-*"))


def test_a_cleaning_stops_when_told_and_when_nobody_listens(pair, small):
    run = live.Cleaning(pair, pair.trigger(), "banana", method="ft", steps=100)
    points = []
    for point in run.points():
        points.append(point)
        if point.step >= 1:
            run.stop()
    assert run.stopped and points[-1].step < 100 and not run._thread.is_alive()
    run = live.Cleaning(pair, pair.trigger(), "banana", method="ft", steps=100)
    listening = run.points()
    next(listening)
    listening.close()
    assert not run._thread.is_alive()


def test_what_goes_wrong_in_a_cleaning_reaches_the_reader(pair, small, monkeypatch):
    monkeypatch.setattr(live, "cleaning_pairs", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        list(live.Cleaning(pair, pair.trigger(), "banana", method="ft", steps=2).points())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"method": "magic"}, "one of ta-cleaner"),
        ({"steps": 1000}, "1 to 150 steps"),
        ({"target": "zebra"}, "such as banana"),
    ],
)
def test_a_cleaning_refuses_nonsense(pair, changes, words):
    options = {"target": "banana", "method": "ft", "steps": 2} | changes
    with pytest.raises(ProbeError, match=words):
        live.Cleaning(pair, pair.trigger(), **options)


def test_a_pair_without_a_report_can_be_measured(pair):
    found = live.audit_pair(pair, pair.trigger(), "banana", n=48)
    assert found.before["attacks"]["blended"]["asr"] == found.after["attacks"]["blended"]["asr"]  # the same weights
    assert found.ca_loss["value"] == 0 and found.before["clean_accuracy"]["n"] == 48
    html = views.report(found)
    assert html.count('class="hc-rate"') == 4 and "Attack success of blended" in html
    assert re.search(
        r"The cleaning loses 0\.0 points \[-?\d\.\d, \d\.\d\] of clean accuracy against the suspect", html
    )
    assert html.count("<tr>") == 7 and "never-poisoned" not in html
    entry = found.before["attacks"]["blended"]
    entry["reference_asr"] = entry["floor"]
    assert views.report(found).count("<tr>") == 8 and "blended: ASR, never-poisoned" in views.report(found)
    stranger = probe.Pair(**{**vars(pair), "is_sandbox": False})
    with pytest.raises(ProbeError, match="came without a report"):
        live.audit_pair(stranger, pair.trigger(), "banana")
    with pytest.raises(ProbeError, match="Only models of the sandbox"):
        live.Cleaning(stranger, pair.trigger(), "banana", method="ft", steps=2)


# How it looks.


def test_triggers_are_told_in_a_line():
    assert set(views.ABOUT) <= set(ATTACKS)
    assert all(len(line) <= 44 for line in views.ABOUT.values())  # a phone's width
    assert views.about("nope") == "Trigger nope."


def test_texts_from_outside_are_escaped_and_cut():
    evil = "<img src=x onerror=alert(1)>"
    top = {(who, view): [(evil, 0.9), ("x" * 500, 0.1)] for who in probe.WHO for view in probe.VIEWS}
    pixels = dict.fromkeys(probe.VIEWS, noise(8, 8))
    html = views.answers(probe.Answers(pixels, top, (evil,)), evil) + views.message(evil, "error")
    html += views.batch_result(batches.rates(ROWS, ("dog", "cat", "banana"), "banana"), 4, evil, evil)
    html += views.thumbnails([(evil, noise(8, 8))])
    assert "<img src=x" not in html and "x" * 100 not in html
    assert all(re.search(r'alt="', tag) for tag in re.findall(r"<img [^>]*>", html))


def test_the_verdict_tells_flip_from_no_flip():
    said = {("suspect", "clean"): "dog", ("suspect", "triggered"): "banana"}
    said |= {("cleaned", "clean"): "dog", ("cleaned", "triggered"): "dog"}
    result = probe.Answers({}, {key: [(text, 0.9)] for key, text in said.items()})
    html = views.verdict(result)
    assert 'data-suspect="flipped"' in html and 'data-cleaned="same"' in html
    assert "turns the suspect model’s answer from <b>dog</b> to <b>banana</b>" in html
    assert "The cleaned model stays with <b>dog</b>." in html
    assert "poisoned with" not in views.verdict(result, "badnet")  # it did flip, whatever it was poisoned with
    result = probe.Answers({}, {key: [("dog", 0.9)] for key in said})
    assert "Both models stay with <b>dog</b>." in views.verdict(result)
    assert "The suspect was poisoned with badnet; other triggers" in views.verdict(result, "badnet")


def test_the_curves_say_in_words_what_they_draw():
    points = [live.Point(0, None, 0.9, 0.7), live.Point(1, 2.0), live.Point(2, 1.0, 0.25, 0.75)]
    html = views.curves(points, 4, "Cleaning.")
    assert "attack success 25.0%, accuracy 75.0%" in html and "loss 1.00" in html
    assert 'value="2"' in html and html.count("<polyline") == 3
    assert views.curves([], 4, "Starting.").count("<polyline") == 0


# What may come in.


def request(path="/", headers=(), chunks=(b"",)):
    """Status and body of one request through the gate, before an app that reads everything."""
    sent, queue = (
        [],
        [{"type": "http.request", "body": c, "more_body": i < len(chunks) - 1} for i, c in enumerate(chunks)],
    )

    async def receive():
        return queue.pop(0)

    async def send(message):
        sent.append(message)

    async def app(scope, receive, send):
        total = 0
        while (message := await receive())["type"] == "http.request":
            total += len(message["body"])
            if not message["more_body"]:
                break
        status = 200 if message["type"] == "http.request" else 400
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": str(total).encode()})

    scope = {"type": "http", "path": path, "headers": list(headers)}
    asyncio.run(Gate(app)(scope, receive, send))
    return sent[0]["status"], sent[1]["body"]


def test_the_gate_lets_requests_through_and_large_ones_not():
    assert request(chunks=[b"ab", b"c"]) == (200, b"3")
    assert request(headers=[(b"content-length", b"67108864")])[0] == 200
    assert request(headers=[(b"content-length", b"67108865")])[0] == 413
    assert request(headers=[(b"content-length", b"-1")])[0] == 413
    assert request(chunks=[bytes(2**25)] * 3)[0] == 400  # without a length: cut off, never kept


@pytest.mark.parametrize(
    "path",
    ["/gradio_api/file=http://x/y", "/gradio_api/file=HTTPS://x", "/gradio_api/file=%68ttp://x", "/x/proxy=http://x"],
)
def test_the_gate_fetches_nothing(path):
    assert request(path)[0] == 403
    assert request("/gradio_api/file=/tmp/a.png")[0] == 200


# The Space as a Space.


def front_matter():
    import yaml

    return yaml.safe_load(re.match(r"---\n(.*?)\n---\n", (SPACE / "README.md").read_text(encoding="utf-8"), re.S)[1])


def requirements(lines):
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def test_the_front_matter_names_the_gradio_that_is_tested():
    if find_spec("gradio") is None:
        pytest.skip("gradio is not installed: pip install -e .[space]")
    tested = metadata.version("gradio")
    found = front_matter()
    assert found["sdk"] == "gradio" and found["sdk_version"] == tested
    assert f"gradio=={tested}" in requirements((SPACE / "requirements.txt").read_text().splitlines())
    assert (SPACE / found["app_file"]).is_file() and len(found["short_description"]) <= 60


def test_the_requirements_are_those_of_the_package_and_gradio():
    config = ConfigParser(interpolation=None)
    config.read(ROOT / "setup.cfg")
    package = requirements(config["options"]["install_requires"].splitlines())
    space = requirements(config["options.extras_require"]["space"].splitlines())
    assert sorted(requirements((SPACE / "requirements.txt").read_text().splitlines())) == sorted(package + space)


def test_only_the_page_knows_gradio_and_all_use_public_names():
    for file in SPACE.glob("*.py"):
        text = file.read_text(encoding="utf-8")
        modules = re.findall(r"^\s*(?:from|import) ([\w.]+)", text, re.M)
        assert ("gradio" in {m.split(".")[0] for m in modules}) == (file.stem in ("app", "api", "gate", "handlers")), (
            file.name
        )
        ours = re.findall(r"^\s*from (hf_ta_cleaner[\w.]*) import (.*)$", text, re.M)
        assert not [line for line in ours if any(part.startswith("_") for part in re.split(r"[ ,.]+", " ".join(line)))]


# Building it.


@pytest.fixture
def build_space():
    import importlib.util

    spec = importlib.util.spec_from_file_location("build_space_script", ROOT / "scripts" / "build_space.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def demo(tmp_path, suspect):
    """A folder as demo.py leaves it, with figures made up."""

    def make(asr=0.95, asr_after=0.02):
        from tests.publishing.test_report import report

        made = tmp_path / "demo"
        shutil.rmtree(made, ignore_errors=True)
        for name in ("backdoored", "cleaned"):
            shutil.copytree(suspect, made / name)
        (made / "backdoored" / "training_args.bin").write_bytes(b"x")
        found = report(
            before=(asr, 0.01), after=(asr_after, 0.01), model=str(made / "cleaned"), base_model=str(made / "x")
        )
        found.settings = {"ca_baseline": ["never-poisoned-ft"]}
        found.save(made / "cleaned", plot=True)
        return made

    return make


def test_the_models_are_installed_with_trigger_report_and_card(build_space, demo, tmp_path, monkeypatch):
    models = tmp_path / "models"
    build_space.install(demo(), models)
    assert build_space.size_mb(models) <= 16
    names = sorted(str(file.relative_to(models)) for file in models.rglob("*") if file.is_file())
    assert {"README.md", "suspect/trigger.json", "suspect/poison.json", "cleaned/report.json"} <= set(names)
    assert not [name for name in names if name.endswith((".bin", ".png", "report.md"))]
    assert Report.load(models / "cleaned").model == "models/cleaned"
    assert str(tmp_path) not in (models / "cleaned" / "report.json").read_text()
    card = (models / "README.md").read_text()
    assert "research material" in card.lower() and "| attack success | 95.0 | 2.0 |" in card
    monkeypatch.setenv("MODEL_ROOTS", str(models))
    assert probe.load_pair(str(models / "suspect"), str(models / "cleaned")).report.target == "banana"


def test_a_pair_that_shows_nothing_is_not_installed(build_space, demo, tmp_path):
    models = tmp_path / "models"
    build_space.install(demo(), models)
    before = sorted(file.stat().st_mtime_ns for file in models.rglob("*"))
    for figures in ((0.5, 0.02), (0.95, 0.3)):
        with pytest.raises(ValueError, match="Nothing was changed"):
            build_space.install(demo(*figures), models)
    assert sorted(file.stat().st_mtime_ns for file in models.rglob("*")) == before


def test_models_that_are_too_large_are_not_installed(build_space, demo, tmp_path, monkeypatch):
    monkeypatch.setattr(build_space, "LIMIT_MB", 1)
    made = demo()
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ValueError, match="at most 1 are shipped"):
        build_space.install(made, tmp_path / "models")
    assert sorted(tmp_path.iterdir()) == before


def test_one_command_makes_the_pair_anew(build_space, demo, tmp_path, monkeypatch, capsys):
    """demo.py into a new folder, which goes when the pair is there and stays, and is named, when something failed."""
    made, called = demo(), []
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def run(command, check):
        called.append(command)
        folder = Path(command[command.index("--output_dir") + 1])
        if len(called) == 1:
            shutil.copytree(made, folder, dirs_exist_ok=True)
        else:
            raise subprocess.CalledProcessError(1, command)

    monkeypatch.setattr(build_space.subprocess, "run", run)
    build_space.main(["--models", str(tmp_path / "models")])
    assert called[0][1:4] == [str(ROOT / "scripts" / "demo.py"), "--attack", "blended"]
    assert (tmp_path / "models" / "suspect" / "model.safetensors").is_file()
    assert not list(tmp_path.glob("space-models-*"))
    with pytest.raises(SystemExit):
        build_space.main(["--models", str(tmp_path / "models")])
    (kept,) = tmp_path.glob("space-models-*")
    assert str(kept) in capsys.readouterr().err
    assert (tmp_path / "models" / "suspect" / "model.safetensors").is_file()


def test_the_bundle_stands_alone(build_space, tmp_path):
    folder = tmp_path / "bundle"
    build_space.bundle(folder)
    assert {"app.py", "README.md", "requirements.txt", "hf_ta_cleaner", "LICENSE"} <= {
        p.name for p in folder.iterdir()
    }
    assert not list(folder.rglob("__pycache__"))
    for file in SPACE.glob("*.py"):
        assert (folder / file.name).read_bytes() == file.read_bytes()
    shipped = {
        str(f.relative_to(ROOT)) for f in (ROOT / "hf_ta_cleaner").rglob("*") if f.is_file() and f.suffix != ".pyc"
    }
    assert shipped == {str(f.relative_to(folder)) for f in (folder / "hf_ta_cleaner").rglob("*") if f.is_file()}
    with pytest.raises(ValueError, match="holds files"):
        build_space.bundle(folder)


def test_files_of_others_are_not_cleared_away(build_space, demo, tmp_path):
    models = tmp_path / "models"
    models.mkdir()
    (models / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"notes.txt, which would be lost. Nothing was changed"):
        build_space.install(demo(), models)
    assert (models / "notes.txt").read_text() == "mine"
