"""Columns as they were found become `image`, `caption` or `label`, with one type each."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

import datasets

from ..seeding import rng
from .sources import DataError, find_columns
from .sources.columns import check_no_addresses


logger = logging.getLogger(__name__)

CAPTIONS = datasets.List(datasets.Value("string"))


def with_roles(source: Any, dataset: datasets.Dataset, columns: dict[str, str | None]) -> datasets.Dataset:
    """Only the columns of these roles, under the roles' names and with their types.

    `caption` is the first caption of a row. If a row has several, `captions` holds all of them.

    Raises:
        DataError: No column fits, or one holds something else.
    """
    found = find_columns(str(source), dataset.column_names, columns, dataset.features)
    listed = ", ".join(f"{role} from column '{name}'" for role, name in found.items())
    logger.info("%s: %d rows, %s", source, len(dataset), listed)
    dataset = dataset.select_columns(list(found.values()))
    dataset = dataset.rename_columns({name: role for role, name in found.items() if name != role})
    dataset = _with_images(source, dataset, found["image"])
    if "caption" in found and dataset.features["caption"] != datasets.Value("string"):
        dataset = _with_captions(source, dataset, found["caption"])
    return dataset


def stream_with_roles(
    source: Any, stream: datasets.IterableDataset, columns: dict[str, str | None]
) -> datasets.IterableDataset:
    """`with_roles` of a stream of pairs; `captions` is there if the column of captions holds lists.

    Raises:
        DataError: No column fits, or the first row cannot be read. While the stream is read: a cell holds no caption.
    """
    known = stream.features or {}
    first = {} if known else _first_row(source, stream)
    names = list(known or first)
    found = find_columns(str(source), names, columns, known)
    image, caption = found["image"], found["caption"]
    if getattr(known.get(image), "dtype", "") in {"string", "large_string"}:
        first = _first_row(source, stream)
    check_no_addresses(source, image, [first.get(image)])
    features = {"image": datasets.Image(decode=False), "caption": datasets.Value("string")}
    several = isinstance(known.get(caption, first.get(caption)), (list, datasets.List, datasets.LargeList))
    if several:
        features["captions"] = CAPTIONS
    if isinstance(known.get(image), datasets.Image):
        stream = stream.cast_column(image, features["image"])
    return stream.map(
        _stream_row,
        fn_kwargs={"image_column": image, "caption_column": caption, "several": several},
        remove_columns=names,
        features=datasets.Features(features),
    )


def usable_captions(value: Any) -> list[str]:
    """The captions of a cell, a string or a list of strings, without blank and repeated ones.

    Raises:
        TypeError: The cell holds something else.
    """
    given = value if isinstance(value, list) else [value]
    if wrong := [text for text in given if not isinstance(text, (str, type(None)))]:
        raise TypeError(f"{wrong[0]!r} is no caption")
    return list(dict.fromkeys(text for text in given if text and text.strip()))


def caption_columns(values: Iterable[Any]) -> dict[str, list]:
    """`caption`, the first of each cell or None, and `captions` if a cell has several."""
    captions = [usable_captions(value) for value in values]
    first = {"caption": [own[0] if own else None for own in captions]}
    return {**first, "captions": captions} if any(len(own) > 1 for own in captions) else first


def subset(dataset: datasets.Dataset, max_samples: int | None, seed: int) -> datasets.Dataset:
    """At most `max_samples` rows chosen by `seed`, in their order: files sorted by class stay representative."""
    if max_samples is None or max_samples >= len(dataset):
        return dataset
    return dataset.select(sorted(rng("max_samples", seed).sample(range(len(dataset)), max_samples)))


def column_values(dataset: datasets.Dataset, column: str) -> list:
    """One column as a list; no picture is decoded for it."""
    return dataset.select_columns(column)[:][column]


def with_columns(dataset: datasets.Dataset, values: dict[str, list], types: dict[str, Any]) -> datasets.Dataset:
    """Set columns without copying the pictures."""
    new = datasets.Dataset.from_dict(values, features=datasets.Features(types))
    kept = dataset.remove_columns([name for name in values if name in dataset.column_names])
    return datasets.concatenate_datasets([kept, new], axis=1)


def _with_images(source: Any, dataset: datasets.Dataset, column: str) -> datasets.Dataset:
    image = dataset.features["image"]
    if image == datasets.Image():
        return dataset
    if not isinstance(image, datasets.Image):
        kind = "struct" if isinstance(image, dict) and set(image) <= {"bytes", "path"} else getattr(image, "dtype", "")
        if kind not in {"struct", "string", "large_string", "binary", "large_binary"}:
            raise DataError(
                f"'{source}': column '{column}' holds {image}. Wanted images, encoded bytes or paths. "
                "Name the right column with --image_column."
            )
        if kind in {"string", "large_string"}:
            check_no_addresses(source, column, dataset.select(range(min(100, len(dataset))))["image"])
    return dataset.cast_column("image", datasets.Image())


def _with_captions(source: Any, dataset: datasets.Dataset, column: str) -> datasets.Dataset:
    try:
        values = caption_columns(column_values(dataset, "caption"))
    except TypeError as error:
        raise DataError(
            f"'{source}': column '{column}' holds {str(error).removesuffix(' is no caption')}. Wanted a string or a "
            "list of strings. Name the right column with --caption_column."
        ) from error
    types = {"caption": datasets.Value("string"), "captions": CAPTIONS}
    return with_columns(dataset, values, {name: types[name] for name in values})


def _first_row(source: Any, stream: datasets.IterableDataset) -> dict[str, Any]:
    try:
        return next(iter(stream), {})
    except Exception as error:  # network, archive and decoder errors have no common base
        raise DataError(
            f"'{source}' cannot be streamed: {type(error).__name__}: {error}. Check the source."
        ) from error


def _stream_row(row: dict[str, Any], image_column: str, caption_column: str, several: bool) -> dict[str, Any]:
    """A streamed row under the fixed names; images that are only paths are read where they are needed."""
    image, caption = row[image_column], row[caption_column]
    if isinstance(image, (str, bytes)):
        check_no_addresses("the stream", image_column, [image])
        image = {"path": image, "bytes": None} if isinstance(image, str) else {"path": None, "bytes": image}
    try:
        captions = usable_captions(caption)
        if not isinstance(image, (dict, type(None))):
            raise TypeError
    except TypeError:
        raise DataError(
            f"Columns '{image_column}' and '{caption_column}' hold {type(image).__name__} and "
            f"{type(caption).__name__}. Wanted an image and a string. Name the right ones with --image_column and "
            "--caption_column."
        ) from None
    pair = {"image": image, "caption": captions[0] if captions else None}
    return {**pair, "captions": captions} if several else pair
