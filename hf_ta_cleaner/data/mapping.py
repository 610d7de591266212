"""`Dataset.map` that writes its result into the cache, never beside the rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    import datasets


def mapped(dataset: datasets.Dataset, function: Callable, **how: Any) -> datasets.Dataset:
    """`dataset.map(function, **how)`, kept in the cache of `datasets` and found there by the next run.

    By default `datasets` writes into the folder of the rows. That may be the user's own folder, or one without
    permission to write. Rows in memory stay in memory.
    """
    from datasets import config
    from datasets.fingerprint import Hasher

    files = [Path(file["filename"]) for file in dataset.cache_files]
    if not files:
        return dataset.map(function, **how)
    stamps = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    settled = {name: value for name, value in how.items() if name not in ("desc", "num_proc", "writer_batch_size")}
    key = Hasher.hash([dataset._fingerprint, stamps, function, sorted(settled.items(), key=str)])
    folder = Path(config.HF_DATASETS_CACHE) / "hf_ta_cleaner" / "maps"
    folder.mkdir(parents=True, exist_ok=True)
    return dataset.map(function, cache_file_name=str(folder / f"{key}.arrow"), new_fingerprint=key, **how)
