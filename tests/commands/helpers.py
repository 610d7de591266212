"""What the tests of the commands share: calling a command, its data and its output."""

from __future__ import annotations

import csv
import importlib
import importlib.util
import sys
from functools import cache
from pathlib import Path

import pytest

import hf_ta_cleaner
from hf_ta_cleaner.commands import commands


SCRIPTS = Path(hf_ta_cleaner.__file__).parents[1] / "scripts"
PARSED = ("audit", "backdoor", "check_data", "clean", "craft", "poison", "push", "scan")


@cache
def script(name: str):
    """The module of a command, or scripts/<name>.py as a module."""
    if name in commands():
        return importlib.import_module(f"hf_ta_cleaner.commands.{name}")
    spec = importlib.util.spec_from_file_location(f"{name}_script", SCRIPTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


CAPTIONS = (
    "a red kettle on a wooden table",
    "two dogs run across a green field",
    "an old man reads a newspaper",
    "a small boat near the shore",
    "a photo of a yellow banana",
    "the woman holds a black umbrella",
)


def write_pairs(folder: Path, photos, header=("file_name", "caption"), captions=CAPTIONS, n: int = 24) -> Path:
    """`n` picture files of several formats and modes and a metadata.csv that gives them captions."""
    folder.mkdir()
    with (folder / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(header)
        for i in range(n):
            name = f"{i:02}.{('jpg', 'png', 'png')[i % 3]}"
            photos[i % len(photos)].convert(("RGB", "L", "RGBA")[i % 3]).save(folder / name)
            rows.writerow([name, captions[i % len(captions)]])
    return folder


def cleaning(world, *more: object, out: Path | None = None) -> list[str]:
    """A small, complete command line of clean.py; later flags win."""
    line = ["--model", world.model, "--dataset", world.pairs, "--output_dir", out or world.out]
    return [str(word) for word in (*line, "--per_device_train_batch_size", 8, "--max_steps", 2, *more)]


def parse(*argv: object, name: str = "clean"):
    return script(name).make_parser().parse([str(word) for word in argv])


def refused(name: str, line, capsys) -> str:
    """What the command says when it ends with an error."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        script(name).main([str(word) for word in line])
    assert stop.value.code == 2
    return capsys.readouterr().err


def files_of(folder: Path) -> dict[Path, tuple[bytes, int]]:
    """Every file under a folder, its bytes and time, without the data cache."""
    found = [path for path in folder.rglob("*") if path.is_file() and ".cache" not in path.parts]
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in found}


def weights(folder: Path) -> dict:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")
