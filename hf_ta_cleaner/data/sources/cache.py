"""Arrow files in the cache of `datasets`: written under a lock, moved into place when whole, found again next time."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import datasets
from datasets.arrow_writer import ArrowWriter
from filelock import FileLock


logger = logging.getLogger(__name__)

Cache = str | os.PathLike | None  # where copies go; None for the cache of `datasets`


def cached_folder(cache_dir: Cache, name: str, key: list, write: Callable[[Path], None]) -> Path:
    """The folder of this key in the cache. `write` fills a missing one; a lock keeps other processes waiting."""
    root = Path(cache_dir or datasets.config.HF_DATASETS_CACHE) / "hf_ta_cleaner"
    digest = hashlib.sha256(json.dumps(key, default=str).encode()).hexdigest()[:16]
    folder = root / f"{name.replace('/', '--')}-{digest}"
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if folder.exists():
            logger.info("%s: from the cache %s", name, folder)
            return folder
        unfinished = root / f"{folder.name}.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)  # left by a killed process
        unfinished.mkdir()
        try:
            write(unfinished)
            unfinished.rename(folder)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    return folder


def cached(cache_dir: Cache, name: str, key: list, write: Callable[[Path], None]) -> datasets.Dataset:
    """The Arrow file of this key. `write` writes a missing one to the path that it is given."""
    folder = cached_folder(cache_dir, name, key, lambda unfinished: write(unfinished / "data.arrow"))
    return datasets.Dataset.from_file(str(folder / "data.arrow"))


def write_rows(
    file: Path, rows: Iterable[dict[str, Any]], features: datasets.Features, total: int | None = None, desc: str = ""
) -> int:
    """Write an Arrow file, with a progress bar if `desc` names it. Returns the number of rows."""
    with ArrowWriter(path=str(file), features=features, writer_batch_size=100) as writer:
        for row in datasets.utils.tqdm(rows, total=total, desc=desc, unit=" rows", disable=None if desc else True):
            writer.write(row)
        return writer.finalize()[0]


def path_dataset(folder: Path, image_column: str, values: dict[str, list], cache_dir: Cache) -> datasets.Dataset:
    """Columns, one of them with paths of pictures, as a dataset on disk.

    The key holds size and time of every picture, so a repaired file is read anew. What `datasets` computes from the
    rows is found again next time.
    """
    features = datasets.Dataset.from_dict(values).features
    features[image_column] = datasets.Image()
    rows = (dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True))
    stamps = []
    for path in values[image_column]:
        stat = os.stat(path) if path and os.path.exists(path) else None
        stamps.append(stat and (stat.st_size, stat.st_mtime_ns))
    return cached(cache_dir, folder.resolve().name, [values, stamps], lambda file: _write(file, rows, features))


def _write(file: Path, rows: Iterable[dict[str, Any]], features: datasets.Features) -> None:
    write_rows(file, rows, features)
