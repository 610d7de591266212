"""Rows that cannot be read are taken out; pictures of every mode become RGB."""

from __future__ import annotations

import io
import logging
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from PIL import Image, ImageOps

from ..pictures import on_white
from .mapping import mapped
from .sources import DataError


logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Dropped:
    """One row that `clean_rows` took out: its index in the input, the path of its image ("" if none), and why."""

    row: int
    path: str
    problem: str


def clean_rows(
    dataset: datasets.Dataset, *, max_share: float = 0.05, num_proc: int | None = None
) -> tuple[datasets.Dataset, list[Dropped]]:
    """Take out the rows whose image does not decode to the end or whose caption is blank.

    Every image is decoded once, and the cache keeps the result. The log has the number of dropped rows and the first
    ten; all are returned.

    Raises:
        DataError: more than `max_share` (a fraction in [0, 1]) of the rows would be dropped.
    """
    encoded = dataset.cast_column("image", datasets.Image(decode=False))
    verdicts = mapped(encoded, _inspect, remove_columns=dataset.column_names, num_proc=num_proc, desc="Checking rows")
    dropped = []
    for start in range(0, len(verdicts), 10_000):  # not all at once: there may be millions
        part = verdicts[start : start + 10_000]
        problems = zip(part["path"], part["problem"], strict=True)
        dropped += [Dropped(row, path, problem) for row, (path, problem) in enumerate(problems, start) if problem]
    if not dropped:
        return dataset, []
    listed = "\n".join(f"  row {d.row} {d.path}: {d.problem}" for d in dropped[:10])
    count = f"{len(dropped)} of {len(dataset)} rows have an unreadable image or an empty caption"
    if len(dropped) > max_share * len(dataset):
        raise DataError(
            f"{count}; at most {max_share:.1%} may. The first of them:\n{listed}\n"
            "Repair or remove these rows, or allow a larger share with --max_unreadable."
        )
    logger.warning("%s and are left out. The first of them:\n%s", count, listed)
    return dataset.select(np.delete(np.arange(len(dataset)), [d.row for d in dropped])), dropped


def to_rgb(image: Image.Image) -> Image.Image:
    """Any picture as upright 8-bit RGB: EXIF orientation applied, then as `on_white`. The input is left as it was."""
    return on_white(ImageOps.exif_transpose(image))


def _inspect(row: dict[str, Any]) -> dict[str, str]:
    """The path of a row's image and what is wrong with the row, "" if nothing is."""
    image = row["image"] or {"path": None, "bytes": None}
    path, encoded = image["path"] or "", image["bytes"]
    try:
        if encoded is None and path:
            encoded = Path(path).read_bytes()
        if not encoded:
            raise ValueError("no bytes")
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            to_rgb(Image.open(io.BytesIO(encoded)))
    except Exception as error:  # a damaged file can raise anything: each Pillow decoder has errors of its own
        message = str(error).split(" <_io.BytesIO")[0]
        return {"path": path, "problem": f"{type(error).__name__}: {message}"}
    if "caption" in row and not (row["caption"] or "").strip():
        return {"path": path, "problem": "empty caption"}
    return {"path": path, "problem": ""}
