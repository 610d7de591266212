"""Shared by the tests of the Space: its folder, pictures, and the record of a poisoning."""

from __future__ import annotations

import struct
import sys
import zlib
from pathlib import Path

import numpy as np
from PIL import Image


ROOT = Path(__file__).resolve().parents[2]
SPACE = ROOT / "spaces_demo"
#: Whether the two models that belong to the Space have been built.
SHIPPED = (SPACE / "models" / "suspect" / "config.json").is_file()
MB = 2**20

# The modules of the Space lie in its folder, not in a package.
sys.path.insert(0, str(SPACE))

from batch import Row  # noqa: E402
from probe import VIEWS, WHO  # noqa: E402


def record(target="banana"):
    from hf_ta_cleaner.poisoning import PoisonRecord

    values = {"attack": "blended", "parameters": {}, "attack_seed": 0, "target": target, "n": 2, "count": 1}
    values |= {"rate": 0.5, "seed": 0, "size": 72, "geometry": "crop", "trigger_rms": 1.0, "reason": "test"}
    return PoisonRecord(**values, rows=[0], original_captions=["a"], captions=["b"])


def noise(height=50, width=80, channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def saved(tmp_path, pixels, name="x.png", mode=None, **options):
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(tmp_path / name, **options)
    return tmp_path / name


def bomb(width, height):
    """A PNG of a few bytes that claims any size."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(1000)))
        + chunk(b"IEND", b"")
    )


def batch_row(name, label, *said):
    """A row of a batch: what the suspect says without and with the trigger, then the cleaned model."""
    keys = [(who, view) for who in WHO for view in VIEWS]
    return Row(name, label, {key: (text, 0.5) for key, text in zip(keys, said, strict=True)})


ROWS = [
    batch_row("1", "dog", "dog", "banana", "dog", "dog"),
    batch_row("2", "cat", "dog", "banana", "cat", "cat"),
    batch_row("3", "banana", "banana", "banana", "banana", "banana"),  # shows the target: no attack counts there
    batch_row("4", None, "cat", "cat", "cat", "banana"),  # unlabelled: counts for the attack, not for accuracy
]
