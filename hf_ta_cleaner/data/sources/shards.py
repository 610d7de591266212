"""What `datasets` reads itself: its own saved folders, parquet files, and webdataset shards."""

from __future__ import annotations

import tarfile
from functools import partial
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

import datasets

from .cache import Cache, cached
from .columns import DataError
from .hub import write_stream
from .place import IMAGE_SUFFIXES, Place, Splits, by_split


#: How the fields of a tar shard that are no pictures are stored, as the "webdataset" builder decodes them.
TAR_TYPES = {"txt": "string", "text": "string", "transcript": "string", "cls": "int64"}


def claims_saved(place: Place) -> list[Path]:
    """The file that tells a folder written by `save_to_disk`."""
    files = [place.path / name for name in ("state.json", "dataset_dict.json")]
    return [file for file in files if file.exists()]


def open_saved(place: Place, files: list[Path]) -> Splits:
    """{split: how to open it} of a folder written by `save_to_disk`.

    Raises:
        DataError: A file of it is missing or damaged.
    """
    try:
        saved = datasets.load_from_disk(str(place.path))
    except Exception as error:  # Arrow, JSON and file errors have no common base
        raise DataError(f"'{place.path}' is not a whole saved dataset: {error}. Save it again.") from error
    saved = saved if isinstance(saved, datasets.DatasetDict) else {str(saved.split or "train"): saved}
    return {split: partial(part.with_format, None) for split, part in saved.items()}


def claims_tars(place: Place) -> list[Path]:
    """All tar files."""
    return place.with_suffix(".tar")


def open_tars(place: Place, files: list[Path]) -> Splits:
    """{split: how to open it}; a shard's split is named in its path."""
    groups = by_split(place.root, files)
    return {split: partial(_open_tars, part, place) for split, part in groups.items()}


def claims_parquet(place: Place) -> list[Path]:
    """All parquet files."""
    return place.with_suffix(".parquet")


def open_parquet(place: Place, files: list[Path]) -> Splits:
    """{split: how to open it}; a file's split is named in its path."""
    groups = by_split(place.root, files)
    return {s: partial(_build, "parquet", s, part, place.cache_dir, place.lazily) for s, part in groups.items()}


def _build(builder: str, split: str, files: list[Path], cache_dir: Cache, lazily: bool, **options: Any) -> Any:
    try:
        options |= {"data_files": {split: [str(file) for file in files]}, "split": split, "cache_dir": cache_dir}
        return datasets.load_dataset(builder, streaming=lazily, **options)
    except Exception as error:  # each builder and archive format has errors of its own
        raise _unreadable(builder, files, error) from error


def _unreadable(kind: str, files: list[Path], error: Exception) -> DataError:
    cause = error.__cause__ or error
    return DataError(
        f"{len(files)} {kind} files from '{files[0]}' on cannot be read: {type(cause).__name__}: {cause}. "
        "Check that each is complete and that all have the same columns."
    )


def _open_tars(files: list[Path], place: Place) -> Any:
    """Webdataset shards. Pictures of several types, jpg in one row and png in the next, become one column `image`.

    The builder takes its columns from the first five rows and drops what it meets later, so it is told them here.
    """
    try:
        with tarfile.open(files[0]) as tar:
            names = [PurePosixPath(member.name).name for member in islice(tar, 100) if member.isfile()]
    except (OSError, tarfile.TarError) as error:
        raise _unreadable("webdataset", files, error) from error
    columns, cache_dir = place.columns, place.cache_dir
    fields = dict.fromkeys(name.partition(".")[2] for name in names)
    given = columns["image"]
    pictures = [
        field for field in fields if (f".{field.lower()}" in IMAGE_SUFFIXES if given is None else field == given)
    ]
    if given is None:
        pictures += sorted({suffix[1:] for suffix in IMAGE_SUFFIXES} - set(pictures))
    others = {
        field: datasets.Value(TAR_TYPES.get(field.lower(), "binary"))
        for field in fields
        if field not in pictures and (field.lower() in TAR_TYPES or field in columns.values())
    }
    picture = datasets.Image(decode=False)
    features = datasets.Features({**dict.fromkeys(pictures, picture), **others})
    stream = _build("webdataset", "train", files, cache_dir, True, features=features)
    if given is None:
        merged = datasets.Features({"image": picture, **others})
        stream = stream.map(partial(_one_picture, fields=pictures), remove_columns=pictures, features=merged)
    if place.lazily:
        return stream

    def write(file: Path) -> None:
        write_stream(file, str(files[0]), stream, columns, None, partial(_unreadable, "webdataset", files))

    stamps = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return cached(cache_dir, files[0].resolve().parent.name, [stamps, columns], write)


def _one_picture(row: dict[str, Any], fields: list[str]) -> dict[str, Any]:
    return {"image": next((row[field] for field in fields if row[field] is not None), None)}
