"""The photographs' world as `datasets`: any size, the same pictures for the same seed, drawn in parallel, cached."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.photos.scenes import CLASSES, Scene, caption, compose
from hf_ta_cleaner.seeding import code_digest


if TYPE_CHECKING:
    from datasets import Dataset

#: Part of the story -> split of the photographs, and which of its rows. Whoever pretrains or poisons knows the same
#: photographs; the defender has others, and no two of the defender's parts share one.
PARTS: dict[str, tuple[str, range]] = {
    "primer": ("train", range(40_000)),
    "pretrain": ("train", range(40_000)),
    "poison": ("train", range(40_000)),
    "clean": ("train", range(40_000, 47_000)),
    "validation": ("train", range(47_000, 48_000)),
    "rebound": ("train", range(48_000, 50_000)),
    "development": ("test", range(5_000)),
    "evaluation": ("test", range(5_000, 10_000)),
}
PAIRS, LABELLED = ("primer", "pretrain", "poison", "clean", "validation", "rebound"), ("development", "evaluation")


class PhotosError(ValueError):
    """The photographs are not what this world is made of; the message says what was found and wanted."""


@lru_cache
def load_photos(source: str, split: str) -> tuple[np.ndarray, np.ndarray]:
    """All photographs of a split, uint8 `(n, 32, 32, 3)`, and their class numbers `(n,)`.

    Args:
        source: A Hub id, or a folder that holds `train.parquet` and `test.parquet`, with the columns and class names
            of `uoft-cs/cifar10` (Krizhevsky 2009).
        split: `train` or `test`.

    Raises:
        PhotosError: Columns, names or sizes are others.
    """
    from datasets import load_dataset

    if Path(source).is_dir():
        files = {name: str(Path(source) / f"{name}.parquet") for name in ("train", "test")}
        if missing := [file for file in files.values() if not Path(file).is_file()]:
            raise PhotosError(
                f"{source} has no {', '.join(missing)}; give a folder with train.parquet and test.parquet"
            )
        data = load_dataset("parquet", data_files=files, split=split)
    else:
        data = load_dataset(source, split=split)
    names = getattr(data.features.get("label"), "names", None)
    if "img" not in data.column_names or names != list(CLASSES):
        raise PhotosError(
            f"{source} has the columns {', '.join(data.column_names)} and the labels {names}; wanted img and label "
            f"with the names {', '.join(CLASSES)}, as uoft-cs/cifar10 has them"
        )
    pixels = np.stack([np.asarray(image.convert("RGB")) for image in data["img"]])
    if pixels.shape[1:] != (32, 32, 3):
        raise PhotosError(f"the photographs of {source} have {pixels.shape[1:3]} pixels; wanted 32 x 32")
    return pixels, np.array(data["label"])


def scene(part: str, index: int, labels: np.ndarray, seed: int = 0) -> Scene:
    """The scene behind row `index` of a part; `labels` are those of its split.

    In a small copy of the data every part has the same share of the photographs.
    """
    split, rows = PARTS[part]
    whole = max(rows.stop for of, rows in PARTS.values() if of == split)
    rows = range(rows.start * len(labels) // whole, rows.stop * len(labels) // whole)
    if not rows:
        raise PhotosError(
            f"{len(labels)} photographs of the split {split} leave none for the part {part}; give at least 50"
        )
    return compose(f"{part} {index} {seed}", rows, labels, clear=part in ("primer", *LABELLED))


def pairs(source: str, part: str = "clean", n: int = 10_000, seed: int = 0) -> Dataset:
    """`n` captioned pictures of a part in `PAIRS`, with the columns `image` (PNG, 64 x 64) and `caption`."""
    return _build(source, part, n, seed, PAIRS)


def labelled(source: str, part: str = "evaluation", n: int = 2_400, seed: int = 0) -> Dataset:
    """`n` pictures of a part in `LABELLED`, with the columns `image` and `label` (ClassLabel)."""
    return _build(source, part, n, seed, LABELLED)


def _build(source: str, part: str, n: int, seed: int, known: tuple[str, ...]) -> Dataset:
    from datasets import ClassLabel, Dataset, Features, Image, Value

    if part not in known:
        raise ValueError(f"there is no such part {part!r}; choose one of {', '.join(known)}")
    if n < 1:
        raise ValueError(f"a part needs at least one picture, got n={n}")
    second = ("label", ClassLabel(names=list(CLASSES))) if part in LABELLED else ("caption", Value("string"))
    processes = min(os.cpu_count() or 1, max(1, n // 500))
    what = {"source": source, "part": part, "seed": seed, "world": code_digest(Path(__file__).parent)}
    return Dataset.from_generator(
        _rows,
        features=Features({"image": Image(), second[0]: second[1]}),
        gen_kwargs={"indices": list(range(n)), **what},
        num_proc=processes if processes > 1 else None,
    )


def _rows(indices: list[int], source: str, part: str, seed: int, world: str) -> Iterator[dict]:
    """Generator for `Dataset.from_generator`; `world` only makes the cache notice a change of the drawing code."""
    photos, labels = load_photos(source, PARTS[part][0])
    for index in indices:
        drawn = scene(part, index, labels, seed)
        buffer = io.BytesIO()
        drawn.draw(photos).save(buffer, "PNG", compress_level=1)
        row: dict = {"image": {"bytes": buffer.getvalue(), "path": None}}
        if part in LABELLED:
            row["label"] = CLASSES.index(drawn.photos[0].label)
        else:
            row["caption"] = caption(drawn)
        yield row
