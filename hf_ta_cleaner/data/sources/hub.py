"""Data sets on the Hugging Face Hub, and streams that are written into the cache."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import datasets
import fsspec

from .cache import Cache, write_rows
from .columns import Columns, DataError, check_no_addresses, find_columns


def hub_splits(name: str, cache_dir: Cache, streaming: bool) -> Mapping[str, Any]:
    """All splits of a data set on the Hub, as streams or downloaded whole.

    Raises:
        DataError: Not found, not reached, or not to be loaded without code of its own.
    """
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


def write_stream(
    file: Path,
    name: str,
    stream: Any,
    columns: Columns,
    limit: int | None,
    explain: Callable[[Exception], DataError] | None = None,
) -> None:
    """Write the first `limit` rows of an IterableDataset as an Arrow file, image bytes untouched.

    Raises:
        DataError: No column fits, there are no rows, or the stream broke off; `explain` words the last one.
    """
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
        if not write_rows(file, _with_bytes(rows, image), features, total=limit, desc=f"Streaming {name}"):
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
    """Read the pictures that are only paths, as of an image folder on the Hub."""
    for row in rows:
        check_no_addresses("the stream", image, [row[image]])
        value = {"path": row[image], "bytes": None} if isinstance(row[image], str) else row[image]
        if isinstance(value, dict) and value["bytes"] is None and value["path"]:
            with fsspec.open(value["path"], "rb") as remote:
                value = {"path": value["path"], "bytes": remote.read()}
        yield {**row, image: value}
