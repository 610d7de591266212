"""Pairs in every form that a disk holds them in: files, columns, splits."""

from __future__ import annotations

import io
import json
import subprocess
import sys

import datasets
import pytest
from PIL import Image

from hf_ta_cleaner import sandbox
from hf_ta_cleaner.data.loading import DataError, load_pairs
from tests.data.helpers import (
    CAPTIONS,
    as_csv,
    as_metadata_csv,
    as_metadata_jsonl,
    as_parquet_in_webdataset_layout,
    as_parquet_of_images,
    as_saved,
    as_tsv,
    as_webdataset,
    names,
    write_csv,
)


FORMS = [
    as_metadata_jsonl,
    as_metadata_csv,
    as_csv,
    as_tsv,
    as_parquet_of_images,
    as_parquet_in_webdataset_layout,
    as_webdataset,
    as_saved,
]


@pytest.mark.parametrize("make", FORMS)
def test_every_form_gives_the_same_pairs(make, folder, pictures, tmp_path):
    pairs = load_pairs(make(folder, pictures), cache_dir=tmp_path / "cache")
    assert pairs.features == datasets.Features({"image": datasets.Image(), "caption": datasets.Value("string")})
    assert pairs["caption"][:] == CAPTIONS
    for row, picture in zip(pairs, pictures, strict=True):
        expected = Image.open(io.BytesIO(picture))
        assert (row["image"].mode, row["image"].size) == (expected.mode, expected.size)
        assert row["image"].tobytes() == expected.tobytes()


def test_import_brings_no_torch():
    code = "import sys, hf_ta_cleaner.data.loading, hf_ta_cleaner.models.checkpoints; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_splits_are_chosen_and_listed(folder, pictures, tmp_path):
    shards = as_webdataset(folder, pictures)
    assert load_pairs(shards, split="validation", cache_dir=tmp_path)["caption"][:] == CAPTIONS[:2]
    with pytest.raises(DataError, match=r"no split 'test'; found: train, validation\. .*--split"):
        load_pairs(shards, split="test", cache_dir=tmp_path)

    whole = datasets.load_from_disk(as_saved(folder, pictures))
    datasets.DatasetDict(a=whole, b=whole.select([1])).save_to_disk(tmp_path / "both")
    assert load_pairs(tmp_path / "both", split="b")["caption"][:] == CAPTIONS[1:2]
    with pytest.raises(DataError, match=r"several splits; found: a, b\."):
        load_pairs(tmp_path / "both")


def test_image_names_do_not_make_splits(folder, pictures):
    """A picture called "test 1.png" belongs to the folder like every other."""
    (folder / "0.jpg").rename(folder / "test 1.jpg")
    (folder / "1.jpg").rename(folder / "train-station.jpg")
    assert len(load_pairs(as_metadata_csv(folder, pictures))) == 6


def test_a_list_of_captions_gives_the_first(folder, pictures):
    lines = [{"file_name": "0.jpg", "captions": ["first", "second"]}, {"file_name": "1.jpg", "captions": []}]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert load_pairs(folder)["caption"][:] == ["first", None]


def test_columns_by_name_win_over_the_usual_ones(folder, tmp_path):
    rows = [(n, "usual", c) for n, c in zip(names(folder), CAPTIONS, strict=True)]
    table = write_csv(folder / "list.csv", ["picture", "caption", "alt"], rows)
    pairs = load_pairs(table, image_column="picture", caption_column="alt", cache_dir=tmp_path)
    assert pairs["caption"][:] == CAPTIONS and pairs.column_names == ["image", "caption"]


@pytest.mark.parametrize(
    ("header", "arguments", "message"),
    [
        (["picture", "caption"], {}, r"no image; found: picture, caption\. .*--image_column"),
        (["path", "words"], {}, r"no caption; found: path, words\. .*--caption_column"),
        (["path", "caption", "text"], {}, r"several columns .* \(caption, text\); found: .*--caption_column"),
        (["path", "image", "text"], {}, r"several columns .* \(path, image\); found: .*--image_column"),
        (["path", "caption"], {"caption_column": "alt"}, r"no column 'alt'; found: path, caption"),
        (["path", "caption"], {"caption_column": "path"}, r"names one column twice"),
    ],
)
def test_columns_missing_or_ambiguous(folder, header, arguments, message):
    table = write_csv(folder / "list.csv", header, [["0.jpg", "0.jpg", "x"][: len(header)]])
    with pytest.raises(DataError, match=message):
        load_pairs(table, **arguments)


def test_columns_of_the_wrong_type(tmp_path, pictures):
    datasets.Dataset.from_dict({"image": [1.5], "caption": ["a"]}).save_to_disk(tmp_path / "numbers")
    with pytest.raises(DataError, match=r"'image' holds .*float.*--image_column"):
        load_pairs(tmp_path / "numbers")
    datasets.Dataset.from_dict({"image": pictures[:1], "caption": [7]}).save_to_disk(tmp_path / "counts")
    with pytest.raises(DataError, match=r"'caption' holds 7.*--caption_column"):
        load_pairs(tmp_path / "counts")


def test_sources_that_are_none(folder, tmp_path):
    for source in ("./nowhere", "nowhere.csv", "a/b/c", "name with spaces"):
        with pytest.raises(DataError, match=f"'{source}' does not exist"):
            load_pairs(source)
    with pytest.raises(DataError, match=r"6 files, 6 of them images.*metadata\.csv"):
        load_pairs(folder)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"0 files"):
        load_pairs(tmp_path / "empty")
    (tmp_path / "head.csv").write_text("path,caption\n")
    with pytest.raises(DataError, match=r"head\.csv' holds no rows"):
        load_pairs(tmp_path / "head.csv")
    (tmp_path / "comma.csv").write_text("path,caption\na.jpg,a dog\nb.jpg,a cat, sleeping\n")
    with pytest.raises(DataError, match=r"row 2 does not fit.*quote"):
        load_pairs(tmp_path / "comma.csv")


@pytest.mark.parametrize("name", ["shards/train-0.tar", "data.parquet", "metadata.jsonl"])
def test_damaged_files_are_named(tmp_path, name):
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(b"\x00\x01 this is neither" * 50)
    with pytest.raises(DataError, match=rf"{file.name}.* cannot be read"):
        load_pairs(file, cache_dir=tmp_path / "cache")


def test_max_samples_of_local_data_is_a_seeded_choice(folder, pictures):
    table = as_csv(folder, pictures)
    chosen = [load_pairs(table, max_samples=3, seed=seed)["caption"][:] for seed in (0, 0, 1, 2, 3)]
    assert chosen[0] == chosen[1] and len({tuple(c) for c in chosen}) > 1
    assert all(sorted(c, key=CAPTIONS.index) == c and len(set(c)) == 3 for c in chosen)
    assert len(load_pairs(table, max_samples=99)) == 6
    with pytest.raises(DataError, match="max_samples is 0"):
        load_pairs(table, max_samples=0)


def test_sandbox_source(monkeypatch):
    calls = []
    monkeypatch.setattr(sandbox, "pairs", lambda *a, **k: calls.append((a, k)) or "pairs")
    assert load_pairs("sandbox", max_samples=5, seed=3) == "pairs"
    load_pairs("sandbox", split="validation")
    assert calls == [(("clean", 5), {"seed": 3}), (("validation", 10_000), {"seed": 0})]


def test_sandbox_split_that_is_none():
    with pytest.raises(DataError, match=r"sandbox: .*'nope'"):
        load_pairs("sandbox", split="nope", max_samples=2)
