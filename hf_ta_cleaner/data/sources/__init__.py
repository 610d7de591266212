"""Opens what a user calls "my dataset": local files in every accepted form, or a Hub id, streamed into a cache.

`FORMS` is the table of the local forms, one small file for each kind. All end in a `datasets.Dataset`, or lazily in
an `IterableDataset`, with the columns as they were found. `loading.py` gives them fixed names.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import datasets

from . import archives, coco, folders, shards, tables
from .cache import Cache, cached
from .columns import Columns, DataError, find_columns
from .hub import hub_splits, write_stream
from .place import Place, Splits


__all__ = ["FORMS", "DataError", "find_columns", "open_source"]

logger = logging.getLogger(__name__)


class Form(NamedTuple):
    """How one form is known and read.

    Attributes:
        claims: The files that a place holds in this form; none if it is another one.
        opens: {split: how to open it} of these files.
    """

    claims: Callable[[Place], list[Path]]
    opens: Callable[[Place, list[Path]], Splits]


def _open_zip(place: Place, files: list[Path]) -> Splits:
    return archives.open_splits(place, files, _local_splits)


#: The forms of local data, tried in this order. img2dataset writes a parquet file of addresses beside its shards and
#: pictures, so these come before parquet.
FORMS = {
    "a folder written by save_to_disk": Form(shards.claims_saved, shards.open_saved),
    "a zip": Form(archives.claims, _open_zip),
    "webdataset .tar shards": Form(shards.claims_tars, shards.open_tars),
    "pictures with a .txt beside each": Form(folders.claims_sidecars, folders.open_sidecars),
    "parquet": Form(shards.claims_parquet, shards.open_parquet),
    "COCO's or Karpathy's annotations beside pictures": Form(coco.claims, coco.open_splits),
    "a csv, tsv, jsonl or json table of paths": Form(tables.claims, tables.open_splits),
    "a folder for each class": Form(folders.claims_class_folders, folders.open_class_folders),
    "pictures alone": Form(folders.claims_pictures, folders.open_pictures),
}
WANTED = (
    "'sandbox', a Hub id, or one of: a folder of pictures with a table (metadata.csv, metadata.jsonl), with COCO's or "
    "Karpathy's annotations, or with a .txt beside each picture; a csv, tsv, jsonl or json table of paths; parquet; "
    "webdataset .tar shards; a folder written by save_to_disk; a zip of one of these"
)
FILE_SUFFIXES = {*tables.SUFFIXES, ".parquet", ".tar", ".zip"}


def open_source(
    source: str | os.PathLike,
    columns: Columns,
    *,
    split: str | None,
    preferred: Iterable[str],
    max_samples: int | None = None,
    stream: bool = False,
    lazily: bool = False,
    cache_dir: Cache = None,
) -> datasets.Dataset | datasets.IterableDataset:
    """One split of a source. With `stream`, a Hub id's first `max_samples` rows (all if None) come by way of a cache.

    With `lazily` nothing is copied: Hub ids, tar shards and parquet files come as an `IterableDataset`.

    Raises:
        DataError: source or split not found, Hub not reached, file damaged, no rows.
    """
    path, name = Path(source).expanduser(), str(source)
    choose = partial(_choose_split, name, split=split, preferred=preferred)
    if path.exists():
        dataset = choose(_local_splits(Place(path, columns, cache_dir, lazily)))()
    elif not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", name) or path.suffix in FILE_SUFFIXES:
        raise DataError(f"'{name}' does not exist. Wanted: {WANTED}. Check the spelling and the current directory.")
    elif lazily:
        dataset = choose(hub_splits(name, cache_dir, streaming=True))
    elif stream:

        def write(file: Path) -> None:
            write_stream(file, name, choose(hub_splits(name, cache_dir, streaming=True)), columns, max_samples)

        dataset = cached(cache_dir, name, [name, split, *preferred, columns, max_samples], write)
    else:
        dataset = choose(hub_splits(name, cache_dir, streaming=False))
    if isinstance(dataset, datasets.Dataset) and len(dataset) == 0:
        raise DataError(f"'{name}' holds no rows. Wanted at least one image. Check --split and the files.")
    return dataset


def _choose_split(source: str, splits: Mapping[str, Any], split: str | None, preferred: Iterable[str]) -> Any:
    if split is None:
        split = next((name for name in preferred if name in splits), None)
        split = next(iter(splits)) if split is None and len(splits) == 1 else split
    if split in splits:
        logger.info("%s: split '%s'", source, split)
        return splits[split]
    problem = f"no split '{split}'" if split else "several splits"
    raise DataError(f"'{source}' has {problem}; found: {', '.join(splits)}. Choose one of these with --split.")


def _local_splits(place: Place) -> Splits:
    """{split: how to open it} for a file or folder, by the first form that it has."""
    for name, form in FORMS.items():
        if files := form.claims(place):
            logger.info("%s is read as %s", place.path, name)
            return form.opens(place, files)
    zips = f", {len(found)} of them zips" if (found := place.with_suffix(".zip")) else ""
    raise DataError(
        f"'{place.path}' holds {len(place.files)} files, {len(place.images)} of them images{zips}, in no form known "
        f"here. Wanted: {WANTED}. Pictures need a metadata.csv or metadata.jsonl beside them with the columns "
        "file_name and caption, or a .txt beside each; zips are opened one at a time."
    )
