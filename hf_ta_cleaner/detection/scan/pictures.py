"""Pictures for a scan, from wherever `load_pairs` reads; labels and captions are ignored."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import datasets
import numpy as np

from hf_ta_cleaner.data.loading import to_rgb
from hf_ta_cleaner.data.sources import find_columns, open_source
from hf_ta_cleaner.pictures import fit
from hf_ta_cleaner.seeding import numpy_rng


def load_pictures(
    source: str | Path, *, split: str | None = None, image_column: str | None = None, max_samples: int | None = None
) -> datasets.Dataset:
    """Rows with the column `image`, and nothing else: what `load_pairs` takes, and a folder of pictures alone.

    `split` defaults to "train", then "validation", then "test"; of a Hub id the first `max_samples` rows come.

    Raises:
        DataError: as `load_pairs`.
    """
    columns = {"image": image_column}
    preferred = ("train", "validation", "test")
    rows = open_source(source, columns, split=split, preferred=preferred, max_samples=max_samples, stream=True)
    name = find_columns(str(source), rows.column_names, columns, rows.features)["image"]
    rows = rows.select_columns([name])
    rows = rows if name == "image" else rows.rename_column(name, "image")
    return rows.cast_column("image", datasets.Image())


def draw_pictures(dataset: Any, size: int, n: int, *, geometry: str = "crop", seed: int = 0) -> np.ndarray:
    """`n` pictures of the column `image`, or as many as there are: uint8 `(<= n, size, size, 3)`.

    Args:
        dataset: rows at random by `seed` of one that knows its length, else the first ones. Unreadable
            pictures are skipped.
    """
    if hasattr(dataset, "__len__"):
        order: Iterable[int] = numpy_rng("scan pictures", seed).permutation(len(dataset))
        rows = (_tried(lambda i=int(i): dataset[i]["image"]) for i in order)
    else:
        rows = (row["image"] for row in dataset)
    found: list[np.ndarray] = []
    for image in rows:
        fitted = None if image is None else _tried(lambda image=image: fit(to_rgb(image), size, geometry))
        if fitted is not None:
            found.append(fitted)
        if len(found) == n:
            break
    return np.stack(found) if found else np.empty((0, size, size, 3), np.uint8)


def _tried(read):
    try:
        return read()
    except Exception:  # a damaged file can raise anything: each Pillow decoder has errors of its own
        return None
