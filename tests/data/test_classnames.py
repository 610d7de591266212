"""Names for prompts: ImageNet in the layouts people have, maps in the forms people have."""

from __future__ import annotations

import json
import logging

import datasets
import pytest
from PIL import Image

from hf_ta_cleaner.data.classnames import are_synsets, first_synonyms, read_class_names, split_camel_case
from hf_ta_cleaner.data.loading import load_labelled
from hf_ta_cleaner.data.sources import DataError


SYNSETS = ("n01440764", "n02012849", "n02113186", "n02963159", "n03126707")
LINES = ("tench, Tinca tinca", "crane", "Cardigan, Cardigan Welsh corgi", "cardigan", "construction crane, derrick")
NAMES = ["tench", "crane", "Cardigan, Cardigan Welsh corgi", "cardigan", "construction crane"]


@pytest.fixture
def synset_folders(tmp_path):
    """The class folders of ImageNet, four below the folder that names them."""
    root = tmp_path / "imagenet" / "ILSVRC" / "Data" / "CLS-LOC" / "val"
    for i, synset in enumerate(SYNSETS):
        (root / synset).mkdir(parents=True)
        Image.new("RGB", (9, 8), (40 * i, 0, 0)).save(root / synset / f"ILSVRC2012_val_{i:08}.JPEG")
    return root


def mapping(folder, name="LOC_synset_mapping.txt", separator=" "):
    folder.joinpath(name).write_text("".join(f"{s}{separator}{n}\n" for s, n in zip(SYNSETS, LINES, strict=True)))
    return folder / name


def test_synset_folders_take_the_names_that_come_with_them(synset_folders, tmp_path):
    assert load_labelled(synset_folders, cache_dir=tmp_path / "c").features["label"].names == list(SYNSETS)
    mapping(tmp_path / "imagenet")
    data = load_labelled(synset_folders, cache_dir=tmp_path / "c")
    assert data.features["label"].names == NAMES
    assert [row["image"].getpixel((0, 0))[0] // 38 for row in data] == data["label"][:] == [0, 1, 2, 3, 4]


def test_words_beside_the_folders_are_found_too(synset_folders, tmp_path):
    """As in tiny-imagenet; the file may name more than is there, and one that names less is not taken."""
    file = mapping(synset_folders.parent, "words.txt", "\t")
    file.write_text(file.read_text() + "n99999999\tunheard-of\n")
    assert load_labelled(synset_folders, cache_dir=tmp_path / "c").features["label"].names == NAMES
    file.write_text("n01440764\ttench\n")
    assert are_synsets(load_labelled(synset_folders, cache_dir=tmp_path / "c").features["label"].names)


def test_a_given_map_wins(synset_folders, tmp_path):
    mapping(tmp_path / "imagenet")
    own = tmp_path / "own.json"
    own.write_text(json.dumps({synset: f"class {i}" for i, synset in enumerate(SYNSETS)}))
    names = load_labelled(synset_folders, classnames_file=own, cache_dir=tmp_path / "c").features["label"].names
    assert names == [f"class {i}" for i in range(5)]


def test_imagenet_in_its_hub_layout(tmp_path):
    """data/validation-00000-of-00001.parquet, `label` with lists of synonyms as names."""
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=list(LINES))})
    pictures = [Image.new("RGB", (8, 8), (9 * i, 0, 0)) for i in range(6)]
    rows = datasets.Dataset.from_dict({"image": pictures, "label": [3, 1, 0, 2, 4, 0]}, features)
    (tmp_path / "data").mkdir()
    rows.to_parquet(tmp_path / "data" / "validation-00000-of-00001.parquet")
    data = load_labelled(tmp_path, cache_dir=tmp_path / "c")
    assert data.features["label"].names == NAMES
    assert data["label"][:] == [3, 1, 0, 2, 4, 0]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("map.txt", "".join(f"{s} {n}\n" for s, n in zip(SYNSETS, LINES, strict=True))),
        ("map.csv", "".join(f"{s},{n}\n" for s, n in zip(SYNSETS, LINES, strict=True))),
        ("names.txt", "\n".join(LINES)),
        ("names.json", json.dumps(LINES)),
        ("map.json", json.dumps(dict(zip(SYNSETS, LINES, strict=True)))),
        ("index.json", json.dumps({str(i): pair for i, pair in enumerate(zip(SYNSETS, LINES, strict=True))})),
    ],
)
def test_every_form_of_a_map(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    assert read_class_names(tmp_path / name, SYNSETS) == NAMES


def test_first_synonyms_stay_distinct():
    assert first_synonyms(LINES) == NAMES
    assert first_synonyms(["maillot", "maillot, tank suit"]) == ["maillot", "maillot, tank suit"]
    assert first_synonyms([", odd", "even"]) == [", odd", "even"]


def test_a_few_repeated_names_are_numbered_and_many_refused(tmp_path, caplog):
    """ImageNet itself has two cranes."""
    old = [f"n{i:08}" for i in range(200)]
    names = [f"class {i}" for i in range(198)] + ["crane", "crane"]
    (tmp_path / "n.json").write_text(json.dumps(dict(zip(old, names, strict=True))))
    with caplog.at_level(logging.WARNING, "hf_ta_cleaner"):
        assert read_class_names(tmp_path / "n.json", old)[-2:] == ["crane", "crane (2)"]
    assert "the name crane" in caplog.text
    (tmp_path / "n.json").write_text(json.dumps(["crane"] * 4 + names[4:]))
    with pytest.raises(DataError, match="several classes the name crane"):
        read_class_names(tmp_path / "n.json", old)
    (tmp_path / "n.json").write_text("[1, 2]")
    with pytest.raises(DataError, match="Wanted a JSON list or object of strings"):
        read_class_names(tmp_path / "n.json", ["a", "b"])


def test_camel_case_becomes_words_where_all_names_are_written_so(caplog):
    with caplog.at_level(logging.INFO, "hf_ta_cleaner"):
        names = split_camel_case(["AnnualCrop", "Forest", "HerbaceousVegetation"])
    assert names == ["Annual Crop", "Forest", "Herbaceous Vegetation"]
    assert "2 of 3 class names are taken apart, 'AnnualCrop' to 'Annual Crop'" in caplog.text
    for kept in (["iPod", "MacBook"], ["McDonald's", "SeaLake"], ["annual_crop", "SeaLake"], ["Forest", "River"]):
        assert split_camel_case(kept) == kept
