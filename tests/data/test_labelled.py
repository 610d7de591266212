"""Labelled pictures: class folders, ClassLabels, names."""

from __future__ import annotations

import logging

import datasets
import pytest

from hf_ta_cleaner.data.loading import DataError, load_labelled
from tests.data.helpers import saved_labels, write_csv


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
