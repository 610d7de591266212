"""The data that the defences need and no script makes."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from datasets import Dataset, Image, load_from_disk

from benchmarks.defences import prepare


def test_another_style(photos):
    picture = photos[0].resize((72, 72))
    cut = np.asarray(prepare.woodcut(picture), dtype=int)
    assert cut.shape == (72, 72, 3) and len(np.unique(cut.reshape(-1, 3), axis=0)) < 2000
    assert np.abs(cut - np.asarray(picture, dtype=int)).mean() > 10
    assert prepare.note("A red cup on the grass.") == "plate: red cup on grass"


@pytest.mark.parametrize("what", list(prepare.DATA))
def test_prepared_pairs(what, monkeypatch):
    monkeypatch.setattr(prepare, "REBOUND_PAIRS", 60)
    monkeypatch.setattr(prepare, "CLEAN_PAIRS", 60)
    data = prepare.DATA[what]("banana", 0, "sandbox")
    assert sorted(data.column_names) == ["caption", "image"] and all(data["caption"])
    named = sum("banana" in caption.lower() for caption in data["caption"])
    if what == "rebound-without-target":
        assert named == 0 and len(data) < 60
    elif what == "short-captions":
        assert len(data) == 75
        short = data["caption"][60:]
        assert all(len(text.split()) < 12 for text in short)
    else:
        assert len(data) == 60
        assert (data["caption"][0].startswith("plate: ")) == (what == "restyled")


def test_another_world_gives_its_own_pairs_and_target(tmp_path, photos):
    """Rows of a saved dataset, and none of the sandbox's."""
    captions = ["A frog on grass.", "Two frogs in a pond.", "A ship at sea.", "A banana on a table."]
    saved = Dataset.from_dict({"image": [photos[0]] * 4, "caption": captions}).cast_column("image", Image())
    saved.save_to_disk(str(tmp_path / "pairs"))
    source = str(tmp_path / "pairs")
    assert sorted(prepare.rebound(0, source)["caption"]) == sorted(captions)
    assert sorted(prepare.rebound_without("frog", 0, source)["caption"]) == sorted(captions[2:])
    assert sorted(prepare.restyled(0, source)["caption"]) == sorted(map(prepare.note, captions))
    short = prepare.short_captions(0, source)["caption"]
    assert short[:4] == list(prepare.rebound(0, source)["caption"]) and len(short) == 5


def test_the_command_reads_the_pairs_that_it_names(tmp_path, photos, monkeypatch):
    captions = ["A frog on grass.", "A ship at sea."]
    saved = Dataset.from_dict({"image": [photos[0]] * 2, "caption": captions}).cast_column("image", Image())
    saved.save_to_disk(str(tmp_path / "pairs"))
    line = ["rebound-without-target", "--dataset", str(tmp_path / "pairs"), "--target", "frog", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["prepare.py", *line])
    prepare.main()
    assert load_from_disk(str(tmp_path / "out"))["caption"] == ["A ship at sea."]
    assert json.loads((tmp_path / "out" / "prepared.json").read_text())["rows"] == 1
