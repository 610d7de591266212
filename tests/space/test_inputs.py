"""What a visitor gives: uploads, labels, sentences."""

from __future__ import annotations

import inputs
import numpy as np
import probe
import pytest
from inputs import ProbeError, Prompts, read_picture, read_prompts
from PIL import Image

from hf_ta_cleaner.pictures import fit
from tests.space.helpers import bomb, noise, saved


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
