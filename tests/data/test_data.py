"""Every accepted form of a dataset, built on disk, gives the same columns; what cannot be used is named."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
import tarfile

import datasets
import numpy as np
import pytest
from PIL import Image

from hf_ta_cleaner import sandbox
from hf_ta_cleaner.data.loading import DataError, clean_rows, load_labelled, load_pairs, to_rgb


CAPTIONS = ["a dog", "two cats on a mat", "a red kettle", "café, with a comma", "a boat", "a tall tree"]


def encode(image: Image.Image, form: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form)
    return buffer.getvalue()


@pytest.fixture
def pictures(photos) -> list[bytes]:
    """Six encoded pictures: JPEG and PNG of different sizes and modes."""
    modes = ["RGB", "L", "CMYK", "RGBA", "P", "1"]
    forms = ["JPEG", "JPEG", "JPEG", "PNG", "PNG", "PNG"]
    return [encode(p.convert(m), f) for p, m, f in zip(photos, modes, forms, strict=False)]


@pytest.fixture
def folder(tmp_path, pictures):
    """A folder "photos" with the pictures, 0.jpg to 5.png."""
    root = tmp_path / "photos"
    root.mkdir()
    for i, picture in enumerate(pictures):
        (root / f"{i}{'.jpg' if i < 3 else '.png'}").write_bytes(picture)
    return root


def names(folder):
    return sorted(file.name for file in folder.iterdir() if file.suffix in {".jpg", ".png"})


def write_csv(file, header, rows, separator=","):
    quoted = [[f'"{cell}"' if separator in str(cell) else str(cell) for cell in row] for row in rows]
    file.write_text("\n".join(separator.join(row) for row in [header, *quoted]) + "\n", encoding="utf-8")
    return file


def write_tar(file, samples):
    with tarfile.open(file, "w") as tar:
        for key, fields in samples:
            for extension, content in fields.items():
                info = tarfile.TarInfo(f"{key}.{extension}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))


def as_metadata_jsonl(folder, pictures):
    lines = [json.dumps({"file_name": n, "text": c}) for n, c in zip(names(folder), CAPTIONS, strict=True)]
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def as_metadata_csv(folder, pictures):
    write_csv(folder / "metadata.csv", ["file_name", "caption"], zip(names(folder), CAPTIONS, strict=True))
    return folder


def as_csv(folder, pictures):
    rows = [(f"photos/{n}", c) for n, c in zip(names(folder), CAPTIONS, strict=True)]
    return write_csv(folder.parent / "list.csv", ["path", "caption"], rows)


def as_tsv(folder, pictures):
    rows = zip(CAPTIONS, names(folder), strict=True)
    return write_csv(folder / "list.tsv", ["text", "file"], rows, separator="\t")


def as_parquet_of_images(folder, pictures):
    rows = {"image": [{"path": None, "bytes": p} for p in pictures], "caption": CAPTIONS}
    features = datasets.Features({"image": datasets.Image(), "caption": datasets.Value("string")})
    file = folder.parent / "pairs.parquet"
    datasets.Dataset.from_dict(rows, features=features).to_parquet(str(file))
    return file


def as_parquet_in_webdataset_layout(folder, pictures):
    root = folder.parent / "parquet"
    root.mkdir()
    for shard in range(2):
        part = slice(3 * shard, 3 * shard + 3)
        rows = {"__key__": ["a", "b", "c"], "jpg": pictures[part], "txt": CAPTIONS[part]}  # bytes, not yet images
        datasets.Dataset.from_dict(rows).to_parquet(str(root / f"train-0000{shard}-of-00002.parquet"))
    return root


def as_webdataset(folder, pictures):
    root = folder.parent / "shards"
    root.mkdir()
    samples = [(f"{i:04}", {"jpg": p, "txt": CAPTIONS[i].encode()}) for i, p in enumerate(pictures)]
    write_tar(root / "cc3m-train-0000.tar", samples[:3])
    write_tar(root / "cc3m-train-0001.tar", samples[3:])
    write_tar(root / "cc3m-validation-0000.tar", samples[:2])
    return root


def as_saved(folder, pictures):
    rows = {"image": [{"path": None, "bytes": p} for p in pictures], "caption": CAPTIONS, "other": range(6)}
    datasets.Dataset.from_dict(rows).cast_column("image", datasets.Image()).save_to_disk(folder.parent / "saved")
    return folder.parent / "saved"


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


# The Hub, through a stand-in for `load_dataset`.


class Hub:
    """Serves the pictures as a stream in webdataset layout, counts what is read, and can break."""

    def __init__(self, pictures, features=True, fail_after=None, error=None, rows=1000):
        self.pictures, self.fail_after, self.error, self.rows = pictures, fail_after, error, rows
        self.calls, self.read = 0, 0
        self.features = None
        if features:
            text = datasets.Value("string")
            self.features = datasets.Features({"__key__": text, "jpg": datasets.Image(), "txt": text})

    def generate(self):
        for i in range(self.rows):
            if i == self.fail_after:
                raise OSError("connection reset")
            self.read += 1
            picture = self.pictures[i % len(self.pictures)]
            yield {"__key__": str(i), "jpg": {"path": f"{i}.jpg", "bytes": picture}, "txt": f"caption {i}"}

    def load_dataset(self, name, streaming=False, cache_dir=None):
        self.calls += 1
        if self.error:
            raise self.error
        stream = datasets.IterableDataset.from_generator(self.generate, features=self.features)
        return datasets.IterableDatasetDict(train=stream, validation=stream) if streaming else None


@pytest.fixture
def hub(monkeypatch, pictures):
    def start(**kwargs):
        server = Hub(pictures, **kwargs)
        monkeypatch.setattr(datasets, "load_dataset", server.load_dataset)
        return server

    return start


@pytest.mark.parametrize("features", [True, False])
def test_hub_streams_only_what_is_asked_for_and_only_once(hub, pictures, tmp_path, features):
    server = hub(features=features)
    pairs = load_pairs("owner/pairs", max_samples=8, cache_dir=tmp_path)
    assert pairs["caption"][:] == [f"caption {i}" for i in range(8)]
    assert pairs.features == datasets.Features({"image": datasets.Image(), "caption": datasets.Value("string")})
    stored = pairs.cast_column("image", datasets.Image(decode=False))
    assert [row["image"]["bytes"] for row in stored] == [pictures[i % 6] for i in range(8)]
    assert server.read <= 8 + 2 and server.calls == 1

    again = load_pairs("owner/pairs", max_samples=8, cache_dir=tmp_path)
    assert server.calls == 1 and again["caption"][:] == pairs["caption"][:]
    assert again._fingerprint == pairs._fingerprint  # what `map` made of it is found again
    assert len(load_pairs("owner/pairs", max_samples=3, cache_dir=tmp_path)) == 3 and server.calls == 2


@pytest.mark.parametrize("builder", ["webdataset", "imagefolder", "parquet"])
def test_hub_layouts_stream_through_their_real_builders(builder, folder, pictures, tmp_path, monkeypatch):
    root = {
        "webdataset": as_webdataset,
        "imagefolder": as_metadata_jsonl,
        "parquet": as_parquet_in_webdataset_layout,
    }[builder](folder, pictures)
    real = datasets.load_dataset
    monkeypatch.setattr(
        datasets, "load_dataset", lambda name, streaming, cache_dir: real(builder, data_dir=str(root), streaming=True)
    )
    pairs = load_pairs("owner/pairs", max_samples=5, cache_dir=tmp_path / "cache")
    assert pairs["caption"][:] == CAPTIONS[:5]
    stored = pairs.cast_column("image", datasets.Image(decode=False))
    assert [row["image"]["bytes"] for row in stored] == pictures[:5]


@pytest.mark.parametrize("fail_after", [0, 5, 150])
def test_a_broken_stream_leaves_nothing_that_is_taken_for_whole(hub, tmp_path, fail_after):
    hub(fail_after=fail_after)
    with pytest.raises(DataError, match=r"broke off: .*connection reset.*Run the same command again"):
        load_pairs("owner/pairs", max_samples=200, cache_dir=tmp_path)
    assert not list(tmp_path.rglob("*.arrow")) and not [
        d for d in (tmp_path / "hf_ta_cleaner").iterdir() if d.is_dir()
    ]
    hub()
    assert len(load_pairs("owner/pairs", max_samples=200, cache_dir=tmp_path)) == 200


def test_a_killed_process_leaves_nothing_that_is_taken_for_whole(hub, tmp_path, monkeypatch):
    hub(fail_after=150)
    with monkeypatch.context() as context:
        context.setattr("shutil.rmtree", lambda *args, **kwargs: None)  # as if there had been no time to clean up
        with pytest.raises(DataError):
            load_pairs("owner/pairs", max_samples=200, cache_dir=tmp_path)
    assert list(tmp_path.rglob("*.arrow"))
    hub()
    pairs = load_pairs("owner/pairs", max_samples=200, cache_dir=tmp_path)
    assert pairs["caption"][:] == [f"caption {i}" for i in range(200)]
    assert len(list(tmp_path.rglob("*.arrow"))) == 1


def test_ctrl_c_leaves_nothing(hub, tmp_path):
    server = hub(fail_after=150)
    server.generate = lambda: (_ for _ in ()).throw(KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        load_pairs("owner/pairs", max_samples=200, cache_dir=tmp_path)
    assert not list(tmp_path.rglob("*.arrow"))


def test_an_empty_stream_and_a_wrong_split(hub, tmp_path):
    hub(rows=0)
    with pytest.raises(DataError, match="no rows"):
        load_pairs("owner/pairs", max_samples=5, cache_dir=tmp_path)
    hub()
    with pytest.raises(DataError, match=r"no split 'dev'; found: train, validation"):
        load_pairs("owner/pairs", split="dev", max_samples=5, cache_dir=tmp_path)
    with pytest.raises(DataError, match=r"no column 'alt'; found: __key__, jpg, txt"):
        load_pairs("owner/pairs", caption_column="alt", max_samples=5, cache_dir=tmp_path)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (datasets.exceptions.DatasetNotFoundError("is a gated dataset"), r"gated.*spelling.*hf auth login"),
        (ConnectionError("Couldn't reach 'owner/pairs'"), r"not reached.*HF_HUB_OFFLINE"),
        (ValueError("Config name is missing."), r"Config name is missing.*save_to_disk"),
    ],
)
@pytest.mark.parametrize("max_samples", [5, None])
def test_hub_errors_name_cause_and_remedy(hub, tmp_path, error, message, max_samples):
    hub(error=error)
    with pytest.raises(DataError, match=message):
        load_pairs("owner/pairs", max_samples=max_samples, cache_dir=tmp_path)


def test_offline_hub_for_real(tmp_path):
    with pytest.raises(DataError, match="HF_HUB_OFFLINE"):
        load_pairs("owner/no-such-pairs", max_samples=5, cache_dir=tmp_path)


# Labelled images.


def class_folders(root, photos, classes, below=""):
    for i, name in enumerate(classes):
        (root / below / name).mkdir(parents=True, exist_ok=True)
        photos[i % len(photos)].save(root / below / name / f"{i}.png")
    return root


def test_one_folder_per_class(tmp_path, photos):
    root = class_folders(tmp_path / "a", photos, ["kettle", "banana", "train"])
    labelled = load_labelled(root, cache_dir=tmp_path)
    assert labelled.features["label"].names == ["banana", "kettle", "train"]
    assert sorted(zip(labelled["label"], [i.size for i in labelled["image"]], strict=True)) == [
        (0, photos[1].size),
        (1, photos[0].size),
        (2, photos[2].size),
    ]


def test_class_folders_below_split_folders(tmp_path, photos):
    root = tmp_path / "b"
    class_folders(root, photos, ["kettle", "banana"], "train")
    class_folders(root, photos, ["kettle", "banana", "banana"], "val")
    assert len(load_labelled(root, cache_dir=tmp_path)) == 3  # the validation split, by preference
    assert len(load_labelled(root, split="train", cache_dir=tmp_path)) == 2
    photos[0].save(root / "train" / "stray.png")
    with pytest.raises(DataError, match=r"1 images .* no class folder, .*stray\.png"):
        load_labelled(root, cache_dir=tmp_path)


def saved_labels(path, pictures, labels, feature=None):
    features = datasets.Features({"image": datasets.Image(), "label": feature}) if feature else None
    rows = {"image": [{"path": None, "bytes": p} for p in pictures[: len(labels)]], "label": labels}
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(path)
    return path


@pytest.mark.parametrize(
    ("labels", "feature", "file", "names", "expected"),
    [
        ([1, 0], datasets.ClassLabel(names=["a", "b"]), None, ["a", "b"], [1, 0]),
        (["cat", "ant"], None, None, ["ant", "cat"], [1, 0]),
        (["10", "9"], None, None, ["9", "10"], [1, 0]),
        ([2, 0], None, "x\ny\n\nz\n", ["x", "y", "z"], [2, 0]),
        ([1, 0], None, "x\ny\nz\n", ["x", "y", "z"], [1, 0]),
        ([1, 0], datasets.ClassLabel(names=["n01", "n02"]), '["x", "y"]', ["x", "y"], [1, 0]),
        (["n02", "n01"], None, '{"n01": "x", "n02": "y", "n03": "z"}', ["x", "y"], [1, 0]),
    ],
)
def test_labels_become_named_classes(tmp_path, pictures, labels, feature, file, names, expected):
    path = saved_labels(tmp_path / "set", pictures, labels, feature)
    classnames = None
    if file:
        classnames = tmp_path / ("names.json" if file[0] in "[{" else "names.txt")
        classnames.write_text(file)
    labelled = load_labelled(path, classnames_file=classnames)
    assert labelled.features["label"].names == names and labelled["label"][:] == expected
    assert labelled.column_names == ["image", "label"] and labelled[0]["image"].size


@pytest.mark.parametrize(
    ("labels", "feature", "file", "message"),
    [
        ([1, 0], None, None, r"without names.*--classnames_file"),
        ([0.5, 1.0], None, None, r"without names"),
        ([-1, 0], datasets.ClassLabel(names=["a", "b"]), None, r"1 of 2 rows have no label.*--split"),
        (["a", "b"], None, "x\ny\nz\n", r"3 names for 2 classes"),
        ([0, 3], None, "x\ny\n", r"2 names for 4 classes"),
        (["a", "b"], None, '{"a": "x"}', r"no name for 1 classes: b"),
        (["a", "b"], None, "x\nx\n", r"several classes the name x"),
        (["a", "b"], None, "{not json", r"cannot be read"),
    ],
)
def test_labels_that_do_not_fit(tmp_path, pictures, labels, feature, file, message):
    path = saved_labels(tmp_path / "set", pictures, labels, feature)
    classnames = None
    if file:
        classnames = tmp_path / ("names.json" if file[0] == "{" else "names.txt")
        classnames.write_text(file)
    with pytest.raises(DataError, match=message):
        load_labelled(path, classnames_file=classnames)


def test_labelled_parquet_csv_and_hub(tmp_path, folder, pictures, monkeypatch, caplog):
    feature = datasets.ClassLabel(names=["a", "b", "c"])
    rows = datasets.load_from_disk(saved_labels(tmp_path / "set", pictures, [2, 0], feature))
    rows.to_parquet(tmp_path / "test-00000.parquet")
    with caplog.at_level(logging.WARNING):
        from_parquet = load_labelled(tmp_path / "test-00000.parquet", cache_dir=tmp_path)
    assert from_parquet.features["label"] == feature and from_parquet["label"][:] == [2, 0]
    assert "show 2 of its 3 classes" in caplog.text

    table = write_csv(folder / "list.csv", ["file", "class"], [("1.jpg", "dog"), ("0.jpg", "ant")])
    assert load_labelled(table, cache_dir=tmp_path)["label"][:] == [1, 0]

    stream = datasets.IterableDatasetDict(train=None, test=rows.to_iterable_dataset())
    monkeypatch.setattr(datasets, "load_dataset", lambda name, streaming, cache_dir: stream if streaming else None)
    from_hub = load_labelled("owner/images", cache_dir=tmp_path)
    assert from_hub.features["label"] == feature and from_hub["label"][:] == [2, 0]


# Cleaning the rows.


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


# Pixels.


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
