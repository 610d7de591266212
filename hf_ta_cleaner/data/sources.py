"""Opens what a user calls "my dataset": local files in every accepted form, or a Hub id, streamed into a cache.

Everything here ends in a `datasets.Dataset`, or lazily in an `IterableDataset`, with the columns as they were found;
`data.py` gives them fixed names.
"""

from __future__ import annotations

import csv
import hashlib
import json
import logging
import os
import re
import shutil
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

import datasets
import fsspec
from datasets.arrow_writer import ArrowWriter
from filelock import FileLock


logger = logging.getLogger(__name__)

COLUMN_NAMES = {
    "image": {"image", "img", "jpg", "jpeg", "png", "webp", "file", "file_name", "filename", "filepath", "path"},
    "caption": {"caption", "captions", "txt", "text", "sentence", "sentences", "description", "alt_text"},
    "label": {"label", "labels", "class", "cls", "category", "target"},
}
SPLIT_WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm"}
TABLE_SUFFIXES = {".csv", ".tsv", ".jsonl"}
BUILDERS = {".parquet": "parquet", ".tar": "webdataset"}
#: How the fields of a tar shard that are no pictures are stored, as the "webdataset" builder decodes them.
TAR_TYPES = {"txt": "string", "text": "string", "transcript": "string", "cls": "int64"}
FORMATS = (
    "'sandbox', a Hub id, a folder of images with metadata.jsonl or metadata.csv, a csv/tsv/jsonl of paths, parquet, "
    "webdataset .tar shards, or a folder written by save_to_disk"
)

Columns = dict[str, str | None]  # role -> the user's name for its column, None to find it
Cache = str | os.PathLike | None


class DataError(ValueError):
    """A dataset that cannot be used as it is; the message says what was got, what was wanted and what to do."""


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
        dataset = choose(_local_splits(path, columns, cache_dir, lazily))()
    elif not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", name) or path.suffix in {*TABLE_SUFFIXES, *BUILDERS}:
        raise DataError(f"'{name}' does not exist. Wanted: {FORMATS}. Check the spelling and the current directory.")
    elif lazily:
        dataset = choose(_hub_splits(name, cache_dir, streaming=True))
    elif stream:

        def write(file: Path) -> None:
            _write_stream(file, name, choose(_hub_splits(name, cache_dir, streaming=True)), columns, max_samples)

        dataset = _cached(cache_dir, name, [name, split, *preferred, columns, max_samples], write)
    else:
        dataset = choose(_hub_splits(name, cache_dir, streaming=False))
    if isinstance(dataset, datasets.Dataset) and len(dataset) == 0:
        raise DataError(f"'{name}' holds no rows. Wanted at least one image. Check --split and the files.")
    return dataset


def find_columns(
    source: str, names: list[str], columns: Columns, features: Mapping[str, Any] | None = None
) -> dict[str, str]:
    """{role: column}: each column as the user named it, or the only one known by its name (an image also by its type).

    Raises:
        DataError: none or several fit; the message lists what was found and the flag to set.
    """
    found = {}
    for role, given in columns.items():
        matches = [name for name in names if name.lower() in COLUMN_NAMES[role]]
        if given is not None:
            matches = [name for name in names if name == given]
        elif role == "image":
            typed = [name for name in names if isinstance((features or {}).get(name), datasets.Image)]
            matches = typed or matches
        if len(matches) != 1:
            problem = f"several columns that may hold the {role} ({', '.join(matches)})" if matches else f"no {role}"
            problem = f"no column '{given}'" if given else problem
            listed = ", ".join(map(str, names))
            wanted = "" if given or matches else f" Wanted one called {', '.join(sorted(COLUMN_NAMES[role]))}."
            raise DataError(f"'{source}' has {problem}; found: {listed}.{wanted} Name it with --{role}_column.")
        found[role] = matches[0]
    if len(set(found.values())) < len(found):
        raise DataError(f"'{source}': {found} names one column twice. Wanted one each of: {', '.join(names)}.")
    return found


def _choose_split(source: str, splits: Mapping[str, Any], split: str | None, preferred: Iterable[str]) -> Any:
    if split is None:
        split = next((name for name in preferred if name in splits), None)
        split = next(iter(splits)) if split is None and len(splits) == 1 else split
    if split in splits:
        logger.info("%s: split '%s'", source, split)
        return splits[split]
    problem = f"no split '{split}'" if split else "several splits"
    raise DataError(f"'{source}' has {problem}; found: {', '.join(splits)}. Choose one of these with --split.")


# Local files.


def _local_splits(path: Path, columns: Columns, cache_dir: Cache, lazily: bool) -> dict[str, Callable[[], Any]]:
    """{split: how to open it} for a file or folder."""
    if any((path / name).exists() for name in ("state.json", "dataset_dict.json")):
        try:
            saved = datasets.load_from_disk(str(path))
        except Exception as error:  # Arrow, JSON and file errors have no common base
            raise DataError(f"'{path}' is not a whole saved dataset: {error}. Save it again.") from error
        saved = saved if isinstance(saved, datasets.DatasetDict) else {str(saved.split or "train"): saved}
        return {split: partial(part.with_format, None) for split, part in saved.items()}
    root, files = path.parent, [path]
    if path.is_dir():
        root, files = path, sorted(f for f in path.rglob("*") if f.is_file() and not f.name.startswith((".", "_")))
    for suffix, builder in BUILDERS.items():
        if shards := [f for f in files if f.suffix.lower() == suffix]:
            groups = _by_split(root, shards)
            if suffix == ".tar":
                return {split: partial(_open_tars, part, columns, cache_dir, lazily) for split, part in groups.items()}
            return {split: partial(_build, builder, split, part, cache_dir, lazily) for split, part in groups.items()}
    tables = [f for f in files if f.suffix.lower() in TABLE_SUFFIXES and (f == path or f.stem == "metadata")]
    if tables:
        groups = _by_split(root, tables)
        return {split: partial(_open_tables, part, columns, cache_dir) for split, part in groups.items()}
    if (images := [f for f in files if f.suffix.lower() in IMAGE_SUFFIXES]) and "label" in columns:
        return _class_folders(root, images, cache_dir)
    if images and set(columns) == {"image"}:
        return {
            "train": partial(_path_dataset, root, "image", {"image": [str(f.resolve()) for f in images]}, cache_dir)
        }
    raise DataError(
        f"'{path}' holds {len(files)} files, {len(images)} of them images, in no form known here. Wanted: {FORMATS}. "
        "Images need a metadata.csv or metadata.jsonl beside them with the columns file_name and caption."
    )


def _by_split(root: Path, files: list[Path]) -> dict[str, list[Path]]:
    """Group files by a split's name in their path below `root`; files that name none belong to "train"."""
    groups: dict[str, list[Path]] = {}
    for file in files:
        words = re.split(r"[^a-z]+", str(file.relative_to(root)).lower())
        groups.setdefault(next((SPLIT_WORDS[w] for w in words if w in SPLIT_WORDS), "train"), []).append(file)
    return groups


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


def _open_tars(files: list[Path], columns: Columns, cache_dir: Cache, lazily: bool) -> Any:
    """Webdataset shards. Pictures of several types, jpg in one row and png in the next, become one column `image`.

    The builder takes its columns from the first five rows and drops what it meets later, so it is told them here.
    """
    try:
        with tarfile.open(files[0]) as tar:
            names = [PurePosixPath(member.name).name for member in islice(tar, 100) if member.isfile()]
    except (OSError, tarfile.TarError) as error:
        raise _unreadable("webdataset", files, error) from error
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
    if lazily:
        return stream

    def write(file: Path) -> None:
        _write_stream(file, str(files[0]), stream, columns, None, partial(_unreadable, "webdataset", files))

    stamps = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return _cached(cache_dir, files[0].resolve().parent.name, [stamps, columns], write)


def _one_picture(row: dict[str, Any], fields: list[str]) -> dict[str, Any]:
    return {"image": next((row[field] for field in fields if row[field] is not None), None)}


def _open_tables(files: list[Path], columns: Columns, cache_dir: Cache) -> datasets.Dataset:
    """The image column and the other one of tables whose image paths are relative to the table."""
    values: dict[str, list] = {}
    for file in files:
        rows = _read_table(file)
        found = find_columns(str(file), list(rows[0]), columns)
        for role, name in found.items():
            cells = [row.get(name) for row in rows]
            if role == "image":
                cells = [str((file.parent / cell).resolve()) if cell else None for cell in cells]
            values.setdefault(name, []).extend(cells)
    if len({len(cells) for cells in values.values()}) > 1 or len(values) != len(columns):
        raise DataError(f"{', '.join(map(str, files))} name their columns differently. Give all the same header.")
    return _path_dataset(files[0].parent, found["image"], values, cache_dir)


def _read_table(file: Path) -> list[dict[str, Any]]:
    kind = file.suffix.lower()[1:]
    try:
        with file.open(newline="", encoding="utf-8-sig") as lines:
            if kind == "jsonl":
                rows = [json.loads(line) for line in lines if line.strip()]
            else:
                rows = list(csv.DictReader(lines, delimiter="\t" if kind == "tsv" else ","))
    except (ValueError, csv.Error) as error:
        raise DataError(f"'{file}' cannot be read: {error}. Wanted {kind} in UTF-8. Save it as that.") from error
    bad = next((i for i, row in enumerate(rows, 1) if not isinstance(row, dict) or None in row), None)
    if bad is not None:
        raise DataError(f"'{file}': row {bad} does not fit the others. Wanted as many cells as names; quote commas.")
    if not rows:
        raise DataError(f"'{file}' holds no rows. Wanted a row for each image, below a header if it is csv or tsv.")
    return rows


def _class_folders(root: Path, images: list[Path], cache_dir: Cache) -> dict[str, Callable[[], datasets.Dataset]]:
    """One folder per class, below one folder per split where every top folder is named like a split."""
    in_splits = {image.relative_to(root).parts[0].lower() for image in images} <= set(SPLIT_WORDS)
    depth = 1 if in_splits else 0
    strays = [image for image in images if len(image.relative_to(root).parts) < depth + 2]
    if strays:
        raise DataError(f"{len(strays)} images in '{root}' lie in no class folder, '{strays[0]}' first. Move them.")
    return {
        split: partial(
            _path_dataset,
            root,
            "image",
            {"image": [str(f.resolve()) for f in part], "label": [f.relative_to(root).parts[depth] for f in part]},
            cache_dir,
        )
        for split, part in (_by_split(root, images) if in_splits else {"train": images}).items()
    }


def _path_dataset(folder: Path, image_column: str, values: dict[str, list], cache_dir: Cache) -> datasets.Dataset:
    """Columns with image paths as a dataset on disk: what `datasets` computes from it is found again next time.

    The key holds size and time of every image, so that a repaired file is looked at anew.
    """
    features = datasets.Dataset.from_dict(values).features
    features[image_column] = datasets.Image()
    rows = (dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True))
    stamps = []
    for path in values[image_column]:
        stat = os.stat(path) if path and os.path.exists(path) else None
        stamps.append(stat and (stat.st_size, stat.st_mtime_ns))
    return _cached(cache_dir, folder.resolve().name, [values, stamps], lambda file: _write_rows(file, rows, features))


# The Hub and the cache.


def _hub_splits(name: str, cache_dir: Cache, streaming: bool) -> Mapping[str, Any]:
    try:
        return datasets.load_dataset(name, streaming=streaming, cache_dir=cache_dir)
    except (datasets.exceptions.DatasetNotFoundError, ConnectionError) as error:
        if isinstance(error, ConnectionError):
            advice = "The Hub was not reached: check the network, unset HF_HUB_OFFLINE, or give a local folder"
        else:
            advice = "Check the spelling; for a private or gated dataset ask for access and run `hf auth login`"
        raise DataError(f"'{name}' is no local path and could not be had from the Hub: {error}. {advice}.") from error
    except Exception as error:  # dataset scripts, missing config names, HTTP errors: no common base
        raise DataError(
            f"'{name}' cannot be loaded from the Hub: {type(error).__name__}: {error}. "
            "Load it with `datasets`, save one split with save_to_disk, and give that folder."
        ) from error


def _write_stream(
    file: Path,
    name: str,
    stream: Any,
    columns: Columns,
    limit: int | None,
    explain: Callable[[Exception], DataError] | None = None,
) -> None:
    """The first `limit` rows of an IterableDataset as an Arrow file, image bytes untouched."""
    try:
        known = stream.features
        first = {} if known else next(iter(stream), {})
        found = find_columns(name, list(known or first), columns, known)
        features = datasets.Features()
        for role, column in found.items():
            guess = known or datasets.Dataset.from_list([{column: first[column]}]).features
            features[column] = datasets.Image() if role == "image" else guess[column]
        image = found["image"]
        if known and isinstance(known[image], datasets.Image):
            stream = stream.cast_column(image, datasets.Image(decode=False))
        rows = ({column: row[column] for column in found.values()} for row in islice(stream, limit))
        if not _write_rows(file, _with_bytes(rows, image), features, total=limit, desc=f"Streaming {name}"):
            raise DataError(f"'{name}' holds no rows in this split. Choose another with --split.")
    except DataError:
        raise
    except Exception as error:  # network, archive and decoder errors have no common base
        if explain is not None:
            raise explain(error) from error
        raise DataError(
            f"Streaming '{name}' broke off: {type(error).__name__}: {error}. Nothing of it was kept. "
            "Run the same command again, with a smaller --max_samples if the connection is poor."
        ) from error


def _with_bytes(rows: Iterable[dict[str, Any]], image: str) -> Iterator[dict[str, Any]]:
    """Fetch the images that are only addresses (an image folder on the Hub)."""
    for row in rows:
        value = {"path": row[image], "bytes": None} if isinstance(row[image], str) else row[image]
        if isinstance(value, dict) and value["bytes"] is None and value["path"]:
            with fsspec.open(value["path"], "rb") as remote:
                value = {"path": value["path"], "bytes": remote.read()}
        yield {**row, image: value}


def _write_rows(
    file: Path, rows: Iterable[dict[str, Any]], features: datasets.Features, total: int | None = None, desc: str = ""
) -> int:
    """Write an Arrow file, with a progress bar if `desc` names it; returns the number of rows."""
    with ArrowWriter(path=str(file), features=features, writer_batch_size=100) as writer:
        for row in datasets.utils.tqdm(rows, total=total, desc=desc, unit=" rows", disable=None if desc else True):
            writer.write(row)
        return writer.finalize()[0]


def _cached(cache_dir: Cache, name: str, key: list, write: Callable[[Path], None]) -> datasets.Dataset:
    """The Arrow file of this key. A missing one is written under a lock, elsewhere, and moved here when whole."""
    root = Path(cache_dir or datasets.config.HF_DATASETS_CACHE) / "hf_ta_cleaner"
    digest = hashlib.sha256(json.dumps(key, default=str).encode()).hexdigest()[:16]
    folder = root / f"{name.replace('/', '--')}-{digest}"
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            unfinished = root / f"{folder.name}.unfinished"
            shutil.rmtree(unfinished, ignore_errors=True)  # left by a killed process
            unfinished.mkdir()
            try:
                write(unfinished / "data.arrow")
                unfinished.rename(folder)
            finally:
                shutil.rmtree(unfinished, ignore_errors=True)
        else:
            logger.info("%s: from the cache %s", name, folder)
    return datasets.Dataset.from_file(str(folder / "data.arrow"))
