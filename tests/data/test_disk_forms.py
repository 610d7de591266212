"""Every published form gives the pictures and captions that were written, or a sentence that says what to do."""

from __future__ import annotations

import io
import json
import logging
import zipfile

import datasets
import pytest
from PIL import Image

from hf_ta_cleaner.commands.clean.pairs import cleaning_pairs
from hf_ta_cleaner.commands.options import PairOptions
from hf_ta_cleaner.data.loading import DataError, clean_rows, load_captioned, load_labelled, load_pairs, stream_pairs
from hf_ta_cleaner.data.sources import archives
from tests.data import disk_forms
from tests.data.disk_forms import ONE_CAPTION, TWO_CAPTIONS, second
from tests.data.helpers import CAPTIONS, as_metadata_csv, names, write_csv


def assert_pictures(rows, pictures):
    for row, picture in zip(rows, pictures, strict=True):
        expected = Image.open(io.BytesIO(picture))
        assert (row["image"].mode, row["image"].tobytes()) == (expected.mode, expected.tobytes())


@pytest.mark.parametrize("make", ONE_CAPTION)
def test_forms_with_one_caption(make, folder, pictures, tmp_path):
    pairs = load_pairs(make(folder, pictures), cache_dir=tmp_path / "cache")
    assert pairs.column_names == ["image", "caption"]
    assert pairs["caption"][:] == CAPTIONS
    assert_pictures(pairs, pictures)


@pytest.mark.parametrize("make", TWO_CAPTIONS)
def test_forms_with_several_captions(make, folder, pictures, tmp_path):
    pairs = load_pairs(make(folder, pictures), cache_dir=tmp_path / "cache")
    assert pairs.features["captions"] == datasets.List(datasets.Value("string"))
    assert pairs.column_names == ["image", "caption", "captions"]
    assert pairs["caption"][:] == CAPTIONS
    assert pairs["captions"][:] == [[caption, second(caption)] for caption in CAPTIONS]
    assert_pictures(pairs, pictures)


@pytest.mark.parametrize("make", [*ONE_CAPTION, *TWO_CAPTIONS])
def test_every_form_reaches_the_cleaning(make, folder, pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    source = make(folder, pictures)
    before = {file: file.stat().st_mtime_ns for file in folder.parent.rglob("*") if "cache" not in file.parts}
    train, held_out = cleaning_pairs(PairOptions(dataset=str(source)), held_out=0, seed=0)
    assert held_out is None and train["caption"][:] == CAPTIONS
    after = {file: file.stat().st_mtime_ns for file in folder.parent.rglob("*") if "cache" not in file.parts}
    assert after == before  # nothing is written beside the data


@pytest.mark.parametrize("make", [disk_forms.as_coco, disk_forms.as_img2dataset_files, disk_forms.as_zip_of_shards])
def test_forms_stream_too(make, folder, pictures, tmp_path):
    stream, _ = stream_pairs(make(folder, pictures), cache_dir=tmp_path / "cache")
    rows = list(stream)
    assert [row["caption"] for row in rows] == CAPTIONS
    if make is disk_forms.as_coco:
        assert [row["captions"] for row in rows] == [[caption, second(caption)] for caption in CAPTIONS]


@pytest.mark.parametrize("make", [disk_forms.as_coco, disk_forms.as_karpathy])
def test_annotations_name_splits(make, folder, pictures, tmp_path):
    source = make(folder, pictures)
    held_out = load_pairs(source, split="validation", cache_dir=tmp_path / "cache")
    assert held_out["caption"][:] == ["a val caption"] and held_out.column_names == ["image", "caption"]
    assert_pictures(held_out, pictures[:1])


def test_retrieval_has_all_captions_of_a_form(folder, pictures, tmp_path):
    captioned = load_captioned(disk_forms.as_flickr_results(folder, pictures), cache_dir=tmp_path / "cache")
    assert captioned["captions"][:] == [[caption, second(caption)] for caption in CAPTIONS]


@pytest.mark.parametrize("column", [[["a", "b"], ["c"], [], [" ", "d"], None], [["a"], ["a", "a"]]])
@pytest.mark.parametrize("lazily", [False, True])
def test_lists_in_parquet(pictures, tmp_path, column, lazily):
    """The first caption that is not blank comes first; where no row has two, there is no column of lists."""
    rows = {"image": [{"path": None, "bytes": pictures[0]}] * len(column), "captions": column}
    features = datasets.Features({"image": datasets.Image(), "captions": datasets.List(datasets.Value("string"))})
    datasets.Dataset.from_dict(rows, features=features).to_parquet(str(tmp_path / "p.parquet"))
    expected = [list(dict.fromkeys(text for text in own or [] if text.strip())) for own in column]
    if lazily:
        read = list(stream_pairs(tmp_path / "p.parquet", cache_dir=tmp_path / "cache")[0])
        assert [row["captions"] for row in read] == expected  # a stream cannot know that no row has two
    else:
        read = load_pairs(tmp_path / "p.parquet", cache_dir=tmp_path / "cache")
        several = len(column) > 2
        assert ("captions" in read.column_names) == several and (not several or read["captions"][:] == expected)
    assert [row["caption"] for row in read] == [own[0] if own else None for own in expected]


def test_saved_pairs_keep_all_captions(folder, pictures, tmp_path):
    """What load_pairs gave and save_to_disk wrote has `caption` and `captions`, and is read as it was."""
    pairs = load_pairs(disk_forms.as_coco(folder, pictures), cache_dir=tmp_path / "cache")
    pairs.save_to_disk(tmp_path / "saved")
    again = load_pairs(tmp_path / "saved")
    assert again.column_names == pairs.column_names
    assert again["captions"][:] == pairs["captions"][:] and again["caption"][:] == pairs["caption"][:]


def test_the_log_says_what_was_taken(folder, pictures, tmp_path, caplog):
    with caplog.at_level(logging.INFO, "hf_ta_cleaner"):
        load_pairs(disk_forms.as_flickr_results(folder, pictures), cache_dir=tmp_path / "cache")
    for said in (
        "is read as a csv, tsv, jsonl or json table",
        "vertical bars between its cells; image from 'image_name', caption from 'comment'",
        "6 pictures are found by their file names",
        "13 rows are 6 pictures",
    ):
        assert said in caplog.text
    caplog.clear()
    with caplog.at_level(logging.INFO, "hf_ta_cleaner"):
        load_pairs(_headless(folder, ["0.jpg\ta dog"]), cache_dir=tmp_path / "cache")
    assert "tabs between its cells and without a header line" in caplog.text


def _headless(folder, lines):
    (folder / "headless.tsv").write_text("\n".join(lines) + "\n")
    return folder / "headless.tsv"


def test_a_headless_table_of_three_columns_asks(folder, tmp_path):
    table = _headless(folder, ["0.jpg\t0\ta dog", "1.jpg\t1\ta cat"])
    with pytest.raises(DataError, match=r"no caption; found: image, 2, 3\. .*--caption_column"):
        load_pairs(table, cache_dir=tmp_path)
    assert load_pairs(table, caption_column="3", cache_dir=tmp_path)["caption"][:] == ["a dog", "a cat"]


def test_a_comma_in_a_caption_is_no_separator(folder, tmp_path):
    table = folder / "list.csv"
    table.write_text("a dog, running;0.jpg\na boat;1.jpg\n")
    assert load_pairs(table, cache_dir=tmp_path)["caption"][:] == ["a dog, running", "a boat"]


def test_quotation_marks_in_a_table_without_quoting(folder, tmp_path):
    """A caption that begins with a quotation mark does not swallow the rows below it."""
    captions = ['"Welcome" says a sign', '"no end of it', "a boat", 'a "tree"']
    rows = [f"{name}\t{caption}" for name, caption in zip(names(folder), captions, strict=False)]
    pairs = load_pairs(_headless(folder, rows), cache_dir=tmp_path)
    assert pairs["caption"][1:] == captions[1:] and len(pairs) == 4


def test_one_missing_picture_is_not_looked_for_elsewhere(folder, tmp_path):
    """A file of the same name in another folder may be another picture."""
    disk_forms.move_pictures(folder, "old")
    (folder / "0.jpg").write_bytes((folder / "old" / "0.jpg").read_bytes())
    table = write_csv(folder / "list.csv", ["image", "caption"], [("0.jpg", "a dog"), ("1.jpg", "a cat")])
    pairs = load_pairs(table, cache_dir=tmp_path).cast_column("image", datasets.Image(decode=False))
    assert pairs[1]["image"]["path"] == str(folder / "1.jpg")
    assert [d.problem.split(":")[0] for d in clean_rows(pairs, max_share=0.5)[1]] == ["FileNotFoundError"]


@pytest.mark.parametrize("header", ["image,caption\n", "", "image_url,caption\n"])
def test_addresses_are_not_downloaded(tmp_path, header):
    (tmp_path / "list.csv").write_text(f"{header}https://example.org/0.jpg,a dog\n")
    with pytest.raises(DataError, match=r"web addresses.*img2dataset"):
        load_pairs(tmp_path / "list.csv", cache_dir=tmp_path / "cache")


@pytest.mark.parametrize("lazily", [False, True])
@pytest.mark.parametrize("column", ["image", "url"])
def test_addresses_in_parquet(tmp_path, lazily, column):
    rows = {column: ["https://example.org/0.jpg"], "caption": ["a dog"]}
    datasets.Dataset.from_dict(rows).to_parquet(str(tmp_path / "p.parquet"))
    with pytest.raises(DataError, match=r"web addresses.*img2dataset"):
        (stream_pairs if lazily else load_pairs)(tmp_path / "p.parquet", cache_dir=tmp_path / "c")


def test_two_readings_ask(folder, pictures, tmp_path):
    rows = list(zip(names(folder), CAPTIONS, strict=True))
    write_csv(folder / "one.csv", ["image", "caption"], rows)
    write_csv(folder / "two.csv", ["image", "caption"], rows[:2])
    with pytest.raises(DataError, match=r"6 pictures and 2 tables \(one\.csv, two\.csv\).*--dataset"):
        load_pairs(folder, cache_dir=tmp_path)
    assert len(load_pairs(folder / "two.csv", cache_dir=tmp_path)) == 2


def test_annotations_of_two_kinds_ask(folder, pictures, tmp_path):
    disk_forms.as_coco(folder, pictures)
    (folder / "dataset_coco.json").write_text(json.dumps({"images": [{"filename": "0.jpg", "sentences": []}]}))
    with pytest.raises(DataError, match=r"several annotation files .*Give one of them with --dataset"):
        load_pairs(folder, cache_dir=tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"images": [], "annotations": [{"image_id": 3, "caption": "a"}]}', r"cannot be read: KeyError: 3"),
        ('{"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [{"image_id": 1}]}', r"KeyError: 'caption'"),
        ('{"images": [', r"cannot be read: JSONDecodeError"),
        ('{"images": [], "annotations": []}', r"holds no captions in captions\.json"),
        ('["a", "b"]', r"entry 1 is 'a' and no JSON object"),
        ('[{"image": 5, "caption": "a"}]', r"column 'image' holds 5\. Wanted paths"),
        ('{"a.jpg": "a dog"}', r"in no form known here"),
    ],
)
def test_json_that_cannot_be_read(tmp_path, content, message):
    (tmp_path / "captions.json").write_text(content)
    with pytest.raises(DataError, match=message):
        load_pairs(tmp_path / "captions.json", cache_dir=tmp_path / "cache")


def test_a_picture_without_its_txt_is_a_row_without_a_caption(folder, pictures, tmp_path):
    root = disk_forms.as_img2dataset_files(folder, pictures)
    (root / "00000" / "000000001.txt").unlink()
    (root / "00001" / "000010000.txt").write_text("two lines\nof one caption\n")
    pairs = load_pairs(root, cache_dir=tmp_path / "cache")
    assert pairs["caption"][:4] == [CAPTIONS[0], None, *CAPTIONS[2:4]]
    assert pairs["caption"][4] == "two lines\nof one caption"


# Zips.


def test_class_folders_in_a_zip(tmp_path, photos):
    with zipfile.ZipFile(tmp_path / "EuroSAT.zip", "w") as archive:
        for i, name in enumerate(("AnnualCrop", "Forest", "SeaLake")):
            photos[i].save(tmp_path / "p.png")
            archive.write(tmp_path / "p.png", f"2750/{name}/{name}_{i}.png")
    labelled = load_labelled(tmp_path / "EuroSAT.zip", cache_dir=tmp_path / "cache")
    assert labelled.features["label"].names == ["Annual Crop", "Forest", "Sea Lake"]
    assert [image.tobytes() for image in labelled["image"]] == [photo.tobytes() for photo in photos[:3]]


@pytest.mark.parametrize("name", ["../outside.csv", "/outside.csv", "C:\\outside.csv", "a\\..\\..\\outside.csv"])
def test_members_outside_a_zip_are_refused(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.writestr("inside.txt", "a dog")
        archive.writestr(zipfile.ZipInfo(name), "image,caption\n")
    with pytest.raises(DataError, match=r"outside its own folder\. Nothing was extracted"):
        load_pairs(tmp_path / "z.zip", cache_dir=tmp_path / "cache")
    assert not list(tmp_path.rglob("*side.*"))


def test_zips_that_grow_too_much_are_refused(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros.csv", b"0" * 200_000)
    monkeypatch.setattr(archives, "ALLOWANCE", 1000)
    with pytest.raises(DataError, match=r"holds 200,000 bytes, more than a zip of pictures holds"):
        load_pairs(tmp_path / "bomb.zip", cache_dir=tmp_path / "cache")
    assert not list((tmp_path / "cache").rglob("zeros.csv"))


def test_damaged_zips_leave_nothing_and_whole_ones_are_extracted_once(folder, pictures, tmp_path):
    source = disk_forms.as_zip(folder, pictures)
    content = source.read_bytes()
    (tmp_path / "cut.zip").write_bytes(content[: len(content) // 2])
    flipped = bytearray(content)
    flipped[content.index(pictures[0]) + 100] ^= 255
    (tmp_path / "flipped.zip").write_bytes(flipped)
    for name in ("cut.zip", "flipped.zip"):
        with pytest.raises(DataError, match=rf"{name}' cannot be read"):
            load_pairs(tmp_path / name, cache_dir=tmp_path / "cache")
    assert not [path for path in (tmp_path / "cache" / "hf_ta_cleaner").iterdir() if path.is_dir()]
    load_pairs(source, cache_dir=tmp_path / "cache")
    made = {file: file.stat().st_mtime_ns for file in (tmp_path / "cache").rglob("*.jpg")}
    load_pairs(source, cache_dir=tmp_path / "cache")
    assert len(made) == 3 and {f: f.stat().st_mtime_ns for f in (tmp_path / "cache").rglob("*.jpg")} == made


def test_a_folder_of_zips_says_so(folder, pictures, tmp_path):
    (tmp_path / "zips").mkdir()
    disk_forms.as_zip(folder, pictures).rename(tmp_path / "zips" / "a.zip")
    with pytest.raises(DataError, match=r"1 files, 0 of them images, 1 of them zips.*one at a time"):
        load_pairs(tmp_path / "zips", cache_dir=tmp_path / "cache")


def test_metadata_wins_over_texts_beside_the_pictures(folder, pictures, tmp_path):
    for name in names(folder):
        (folder / name).with_suffix(".txt").write_text("of a tool")
    as_metadata_csv(folder, pictures)
    assert load_pairs(folder, cache_dir=tmp_path / "cache")["caption"][:] == CAPTIONS
