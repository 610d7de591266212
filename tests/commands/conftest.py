"""A place of its own for every test of a command, and a small world to run the commands in."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace

import pytest

from hf_ta_cleaner.models.checkpoints import save_model
from tests.commands.helpers import write_pairs


@pytest.fixture(autouse=True)
def separate(tmp_path, monkeypatch):
    """Each test has its own working directory and data cache, and leaves the logging as it was."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / ".cache"))
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = before


@pytest.fixture
def suspect(tiny_clip, tiny_processor, tmp_path) -> Path:
    """A folder with a random CLIP, in the ordinary form."""
    return save_model(tiny_clip, tiny_processor, tmp_path / "suspect")


@pytest.fixture
def world(suspect, photos, tmp_path) -> SimpleNamespace:
    """A model, captioned pictures, labelled pictures, and a place for the output."""
    labelled = tmp_path / "labelled"
    for i, name in enumerate(("banana", "kettle", "lamp")):
        (labelled / name).mkdir(parents=True)
        for j in range(4):
            photos[(i + j) % len(photos)].save(labelled / name / f"{j}.png")
    pairs = write_pairs(tmp_path / "pairs", photos)
    return SimpleNamespace(model=suspect, pairs=pairs, labelled=labelled, out=tmp_path / "out", photos=photos)
