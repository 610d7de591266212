"""Images with captions or labels from wherever a user keeps them, as one `datasets.Dataset` with fixed columns.

`load_pairs` gives (image, caption), `load_labelled` (image, label), `load_captioned` (image, captions). All take the
sandbox, a Hub id, or any of the forms in docs/data.md. `stream_pairs` gives pairs without copying them.
"""

from __future__ import annotations

import hashlib
import logging
import os
from pathlib import Path
from typing import Any

import datasets

from .classnames import with_classes
from .readable import Dropped, clean_rows, to_rgb
from .roles import CAPTIONS, column_values, stream_with_roles, subset, usable_captions, with_columns, with_roles
from .sources import DataError, open_source


__all__ = [
    "DataError",
    "Dropped",
    "clean_rows",
    "load_captioned",
    "load_labelled",
    "load_pairs",
    "stream_pairs",
    "text_head_cache",
    "to_rgb",
]

logger = logging.getLogger(__name__)

DEFAULT_PAIRS = "pixparse/cc3m-wds"
DEFAULT_MAX_SAMPLES = 100_000
SANDBOX_PAIRS = 10_000
SANDBOX_LABELLED = 2_064  # 43 of each class, so that more than 2,000 are not the target


def load_pairs(
    source: str | os.PathLike,
    *,
    split: str | None = None,
    image_column: str | None = None,
    caption_column: str | None = None,
    max_samples: int | None = None,
    streaming_ok: bool = True,
    seed: int = 0,
    cache_dir: str | os.PathLike | None = None,
) -> datasets.Dataset:
    """Image-caption pairs as a map-style dataset with the columns `image` (Image) and `caption` (string).

    If pictures have several captions, a third column `captions` (list of strings) holds all of them, and `caption` is
    the first. The rows of a table or an annotation file that name the same picture are one row here.

    `split` defaults to "train" ("clean" in the sandbox). `max_samples` means the first rows for a Hub id, which is
    then streamed into a local cache with its image bytes as they are, and a random choice by `seed` for local data.
    Without `max_samples`, or with `streaming_ok=False`, a Hub id is downloaded whole and treated like local data.

    Raises:
        DataError: source, split or column not found or ambiguous, Hub not reached, file damaged.
    """
    _check_max_samples(max_samples)
    if str(source) == "sandbox":
        from .. import sandbox

        return _from_sandbox(sandbox.pairs, split or "clean", max_samples or SANDBOX_PAIRS, seed=seed)
    columns = {"image": image_column, "caption": caption_column}
    dataset = open_source(
        source,
        columns,
        split=split,
        preferred=("train",),
        max_samples=max_samples,
        stream=streaming_ok and max_samples is not None,
        cache_dir=cache_dir,
    )
    return subset(with_roles(source, dataset, columns), max_samples, seed)


def stream_pairs(
    source: str | os.PathLike,
    *,
    split: str | None = None,
    image_column: str | None = None,
    caption_column: str | None = None,
    max_samples: int | None = None,
    seed: int = 0,
    cache_dir: str | os.PathLike | None = None,
) -> tuple[datasets.Dataset | datasets.IterableDataset, int | None]:
    """What `load_pairs` gives, without a copy of it: pairs of any number, their images as {"bytes", "path"}.

    Hub ids, tar shards and parquet files come as an `IterableDataset`, with the column `captions` if their captions
    are lists. What has random access anyway (the sandbox, saved datasets, paths of pictures) comes as a `Dataset`.
    Arguments are those of `load_pairs`, except that `max_samples`
    means the first rows of either.

    Returns:
        The pairs, and how many rows to take of them: all that there are, or `max_samples` if that is less. None where
        neither the source nor `max_samples` says.

    Raises:
        DataError: as `load_pairs`.
    """
    _check_max_samples(max_samples)
    picture = datasets.Image(decode=False)
    if str(source) == "sandbox":
        pairs = load_pairs(source, split=split, max_samples=max_samples, seed=seed)
        return pairs.cast_column("image", picture), len(pairs)
    columns = {"image": image_column, "caption": caption_column}
    found = open_source(source, columns, split=split, preferred=("train",), lazily=True, cache_dir=cache_dir)
    if isinstance(found, datasets.Dataset):
        pairs = with_roles(source, found, columns).cast_column("image", picture)
        pairs = pairs if max_samples is None else pairs.select(range(min(max_samples, len(pairs))))
        return pairs, len(pairs)
    declared = (found.info.splits or {}).get(str(found.split))
    sizes = [size for size in (max_samples, declared and declared.num_examples) if size]
    return stream_with_roles(source, found, columns), min(sizes, default=None)


def load_labelled(
    source: str | os.PathLike,
    *,
    split: str | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    classnames_file: str | os.PathLike | None = None,
    max_samples: int | None = None,
    cache_dir: str | os.PathLike | None = None,
) -> datasets.Dataset:
    """Labelled images as a map-style dataset with exactly the columns `image` (Image) and `label` (ClassLabel).

    Takes what `load_pairs` takes, and a folder with one folder per class. `split` defaults to "validation", then
    "test", then "train"; of a Hub id only this split is fetched. String labels become classes in sorted order; bare
    integers need `classnames_file` (its forms: `classnames.read_class_names`). Class folders named by WordNet ids get
    their names from the map that comes with the data, if there is one, and "tench, Tinca tinca" becomes "tench".
    Where all names are CamelCase, "AnnualCrop" becomes "Annual Crop". `max_samples` means the first rows for
    a Hub id, a random choice for local data.

    Raises:
        DataError: as `load_pairs`; also rows without a label, numbers without names, names that do not fit.
    """
    _check_max_samples(max_samples)
    if str(source) == "sandbox":
        from .. import sandbox

        # Scenes of another seed, so that what is trained on them can be measured on the usual ones.
        dataset = _from_sandbox(sandbox.labelled, max_samples or SANDBOX_LABELLED, seed=int(split == "train"))
    else:
        columns = {"image": image_column, "label": label_column}
        dataset = open_source(
            source,
            columns,
            split=split,
            preferred=("validation", "test", "train"),
            max_samples=max_samples,
            stream=True,
            cache_dir=cache_dir,
        )
        dataset = with_roles(source, dataset, columns)
    dataset = subset(with_classes(source, dataset, classnames_file), max_samples, seed=0)
    seen, names = len(set(column_values(dataset, "label"))), dataset.features["label"].names
    if seen < len(names):
        logger.warning("%s: the %d rows used show %d of its %d classes.", source, len(dataset), seen, len(names))
    return dataset


def load_captioned(
    source: str | os.PathLike,
    *,
    split: str | None = None,
    image_column: str | None = None,
    caption_column: str | None = None,
    max_samples: int | None = None,
    cache_dir: str | os.PathLike | None = None,
) -> datasets.Dataset:
    """Pictures with all of their captions, for retrieval: the columns `image` and `captions` (a list of strings).

    Takes what `load_pairs` takes. A row may hold a list of captions, and rows with the same picture (path or bytes)
    become one. Blank captions are left out, and pictures without any other. `split` defaults to "test", then
    "validation", then "train". `max_samples` counts rows, the first ones of a Hub id, a random choice of local data.

    Raises:
        DataError: as `load_pairs`; also no caption at all.
    """
    _check_max_samples(max_samples)
    if str(source) == "sandbox":
        pairs = load_pairs("sandbox", split=split or "validation", max_samples=max_samples or 1000)
    else:
        columns = {"image": image_column, "caption": caption_column}
        dataset = open_source(
            source,
            columns,
            split=split,
            preferred=("test", "validation", "train"),
            max_samples=max_samples,
            stream=True,
            cache_dir=cache_dir,
        )
        pairs = subset(with_roles(source, dataset, columns), max_samples, seed=0)
    captions: dict[Any, list[str]] = {}
    rows: dict[Any, int] = {}
    encoded = pairs.cast_column("image", datasets.Image(decode=False)).with_format(None)
    for row, pair in enumerate(encoded):
        image = pair["image"] or {"path": None, "bytes": None}
        key = hashlib.sha256(image["bytes"]).digest() if image["bytes"] else image["path"]
        if own := usable_captions(pair.get("captions") or pair["caption"]):
            rows.setdefault(key, row)
            captions.setdefault(key, []).extend(own)
    if not rows:
        raise DataError(f"'{source}' holds no caption. Name the right column with --retrieval_caption_column.")
    images = pairs.select(list(rows.values())).select_columns("image")
    distinct = [list(dict.fromkeys(own)) for own in captions.values()]
    return with_columns(images, {"captions": distinct}, {"captions": CAPTIONS})


def text_head_cache() -> Path:
    """The folder that keeps text heads of audits; it may be deleted at any time."""
    return Path(datasets.config.HF_DATASETS_CACHE) / "hf_ta_cleaner" / "heads"


def _from_sandbox(make: Any, *args: Any, **kwargs: Any) -> datasets.Dataset:
    try:
        return make(*args, **kwargs)
    except ValueError as error:
        raise DataError(f"sandbox: {error}") from error


def _check_max_samples(max_samples: int | None) -> None:
    if max_samples is not None and max_samples < 1:
        raise DataError(f"max_samples is {max_samples}. Wanted at least 1. Leave it out to use every row.")
