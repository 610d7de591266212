"""Pictures for a scan, from wherever `load_pairs` and `load_labelled` read; labels and captions are not looked at."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from hf_ta_cleaner.attacks import fit
from hf_ta_cleaner.data import to_rgb
from hf_ta_cleaner.seeding import numpy_rng


def draw_pictures(dataset: Any, size: int, n: int, *, geometry: str = "crop", seed: int = 0) -> np.ndarray:
    """`n` pictures of the column `image`, or as many as there are: uint8 `(<= n, size, size, 3)`.

    Args:
        dataset: rows at random by `seed` of one that knows its length, else the first ones. Those that cannot be read
            are passed over.
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
    except (OSError, ValueError, SyntaxError):  # what Pillow's decoders raise on damaged files
        return None
