"""Rows that cannot be read are dropped and listed; pictures of every mode become RGB."""

from __future__ import annotations

import logging
import os

import datasets
import numpy as np
import pytest
from PIL import Image

from hf_ta_cleaner.data.loading import DataError, clean_rows, load_labelled, load_pairs, to_rgb
from tests.data.helpers import CAPTIONS, as_csv, names, saved_labels, write_csv


def test_unreadable_images_and_empty_captions_are_dropped_and_listed(folder, pictures, caplog, tmp_path):
    contents = {
        "cut.jpg": pictures[0][: len(pictures[0]) // 2],
        "cut.png": pictures[3][: len(pictures[3]) // 2],
        "empty.jpg": b"",
        "garbage.jpg": b"not a picture at all" * 20,
        "blank.jpg": pictures[0],
        "none.jpg": pictures[0],
    }
    rows = list(zip(names(folder), CAPTIONS, strict=True))
    for name, content in contents.items():
        (folder / name).write_bytes(content)
        rows.insert(1, (name, {"blank.jpg": " \u3000", "none.jpg": ""}.get(name, "a caption")))
    rows.insert(0, ("absent.jpg", "a caption"))
    pairs = load_pairs(write_csv(folder / "list.csv", ["path", "caption"], rows), cache_dir=tmp_path)

    with caplog.at_level(logging.WARNING):
        kept, dropped = clean_rows(pairs, max_share=0.6)
    assert kept["caption"][:] == CAPTIONS and [row["image"].size for row in kept]
    expected = [i for i, (name, _) in enumerate(rows) if name in {*contents, "absent.jpg"}]
    assert [d.row for d in dropped] == expected
    problems = {d.path.rsplit("/", 1)[1]: d.problem for d in dropped}
    assert problems["blank.jpg"] == problems["none.jpg"] == "empty caption"
    assert "truncated" in problems["cut.jpg"].lower() and "truncated" in problems["cut.png"]
    assert "no bytes" in problems["empty.jpg"] and "cannot identify" in problems["garbage.jpg"]
    assert "7 of 13 rows" in caplog.text and "garbage.jpg" in caplog.text

    with pytest.raises(DataError, match=r"7 of 13 rows .* at most 50\.0% may[\s\S]*absent\.jpg"):
        clean_rows(pairs, max_share=0.5)


def test_decompression_bombs_are_unreadable(folder, monkeypatch, tmp_path):
    rows = zip(names(folder), CAPTIONS, strict=True)
    pairs = load_pairs(write_csv(folder / "list.csv", ["path", "caption"], rows), cache_dir=tmp_path)
    sizes = [row["image"].size for row in pairs]
    limit = sorted(w * h for w, h in sizes)[-2]
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    kept, dropped = clean_rows(pairs, max_share=0.5)
    assert len(kept) == 5 and "DecompressionBomb" in dropped[0].problem


def test_clean_data_stays_as_it_is_and_is_checked_once(folder, pictures, tmp_path):
    pairs = load_pairs(as_csv(folder, pictures), cache_dir=tmp_path)
    kept, dropped = clean_rows(pairs)
    assert kept is pairs and dropped == []
    made = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.arrow")}
    clean_rows(load_pairs(folder.parent / "list.csv", cache_dir=tmp_path))
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.arrow")} == made


def test_a_repaired_file_is_looked_at_again(folder, pictures, tmp_path):
    whole = (folder / "0.jpg").read_bytes()
    (folder / "0.jpg").write_bytes(whole[:100])
    table = as_csv(folder, pictures)
    assert len(clean_rows(load_pairs(table, cache_dir=tmp_path), max_share=0.5)[1]) == 1
    (folder / "0.jpg").write_bytes(whole)
    assert clean_rows(load_pairs(table, cache_dir=tmp_path))[1] == []


def test_labelled_rows_are_cleaned_too(tmp_path, pictures):
    path = saved_labels(tmp_path / "set", [b"", *pictures], ["a"] * 4)
    kept, dropped = clean_rows(load_labelled(path), max_share=0.5)
    assert len(kept) == 3 and [(d.row, d.path) for d in dropped] == [(0, "")]


def grey(values, dtype):
    return Image.fromarray(np.array(values, dtype=dtype))


def palette_with_transparency():
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putdata([0, 1])
    image.info["transparency"] = 1
    return image


def rotated_by_exif():
    image = Image.new("RGB", (2, 1))
    image.putdata([(9, 9, 9), (200, 200, 200)])
    image.getexif()[0x0112] = 3  # upside down
    return image


RGBA = Image.new("RGBA", (2, 1))


RGBA.putdata([(255, 0, 0, 255), (0, 0, 0, 0)])


ONE_BIT = Image.new("1", (2, 1))


ONE_BIT.putdata([0, 255])


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (RGBA, [(255, 0, 0), (255, 255, 255)]),
        (palette_with_transparency(), [(255, 0, 0), (255, 255, 255)]),
        (Image.new("LA", (2, 1), (100, 0)), [(255, 255, 255)] * 2),
        (Image.new("CMYK", (2, 1), (0, 255, 255, 0)), [(255, 0, 0)] * 2),
        (Image.new("YCbCr", (2, 1), (128, 128, 128)), [(128, 128, 128)] * 2),
        (ONE_BIT, [(0, 0, 0), (255, 255, 255)]),
        (grey([[0, 65535]], np.uint16), [(0, 0, 0), (255, 255, 255)]),
        (grey([[257 * 10, 257 * 20]], np.uint16), [(10, 10, 10), (20, 20, 20)]),
        (grey([[10, 200]], np.int32), [(10, 10, 10), (200, 200, 200)]),
        (grey([[-5, 65535]], np.int32), [(0, 0, 0), (255, 255, 255)]),
        (grey([[0.2, 1.0]], np.float32), [(51, 51, 51), (255, 255, 255)]),
        (grey([[51.0, 102.0]], np.float32), [(51, 51, 51), (102, 102, 102)]),
        (grey([[np.nan, 1.0]], np.float32), [(0, 0, 0), (255, 255, 255)]),
        (rotated_by_exif(), [(200, 200, 200), (9, 9, 9)]),
    ],
    ids=lambda value: value.mode if isinstance(value, Image.Image) else "",
)
def test_to_rgb(image, expected):
    mode, before = image.mode, image.tobytes()
    rgb = to_rgb(image)
    assert rgb.mode == "RGB" and [rgb.getpixel((x, 0)) for x in range(2)] == expected
    assert (image.mode, image.tobytes()) == (mode, before)


def test_to_rgb_of_a_16_bit_png_from_disk(tmp_path):
    grey([[0, 32896], [65535, 257]], np.uint16).save(tmp_path / "deep.png")
    assert np.asarray(to_rgb(Image.open(tmp_path / "deep.png")))[..., 0].tolist() == [[0, 128], [255, 1]]


def test_a_saved_data_set_is_read_and_not_written_to(photos, tmp_path, monkeypatch):
    """Whatever it was formatted for; what is computed from it lies in the cache and is found there again."""
    from hf_ta_cleaner.commands.clean import main

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    rows = {"image": photos * 6, "caption": [f"a red dog and a bus {i}" for i in range(48)]}
    pairs = datasets.Dataset.from_dict(rows).cast_column("image", datasets.Image())
    pairs.with_format("torch").save_to_disk(tmp_path / "pairs")
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "pairs").rglob("*")}
    run = ["--model", "sandbox", "--dataset", str(tmp_path / "pairs"), "--max_steps", "1", "--resize_once"]
    run += ["--per_device_train_batch_size", "8", "--validation_samples", "4", "--no_check_data"]
    main([*run, "--output_dir", str(tmp_path / "out")])
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "pairs").rglob("*")} == before
    kept = sorted((tmp_path / "cache" / "hf_ta_cleaner" / "maps").glob("*.arrow"))
    assert len(kept) == 3  # verdicts, resized pictures, parts of captions
    opened = load_pairs(tmp_path / "pairs")
    assert opened.format["type"] is None
    again = clean_rows(opened)[0]
    assert len(again) == 48 and sorted((tmp_path / "cache" / "hf_ta_cleaner" / "maps").glob("*.arrow")) == kept
    # A file that has changed is looked at anew, though its fingerprint says that it has not.
    file = next((tmp_path / "pairs").glob("*.arrow"))
    os.utime(file, (0, 0))
    clean_rows(load_pairs(tmp_path / "pairs"))
    assert len(list((tmp_path / "cache" / "hf_ta_cleaner" / "maps").glob("*.arrow"))) == 4
