"""Images with captions or labels from wherever a user keeps them, as one `datasets.Dataset` with fixed columns.

`load_pairs` gives (image, caption), `load_labelled` (image, label), `load_captioned` (image, captions); all take the
sandbox, a Hub id, or any of the formats in docs/data.md. `stream_pairs` gives pairs without copying them. `clean_rows`
takes out what cannot be trained on and says which rows those were.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from PIL import Image, ImageOps

from ..pictures import on_white
from ..seeding import rng
from .classnames import find_map, first_synonyms, read_class_names
from .mapping import mapped
from .sources import DataError, find_columns, open_source


logger = logging.getLogger(__name__)

DEFAULT_PAIRS = "pixparse/cc3m-wds"
DEFAULT_MAX_SAMPLES = 100_000
SANDBOX_PAIRS = 10_000
SANDBOX_LABELLED = 2_064  # 43 of each class, so that more than 2,000 are not the target


@dataclass(frozen=True)
class Dropped:
    """One row that `clean_rows` took out: its index in the input, the path of its image ("" if none), and why."""

    row: int
    path: str
    problem: str


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
    """Image-caption pairs as a map-style dataset with exactly the columns `image` (Image) and `caption` (string).

    Where a row holds a list of captions the first is taken. `split` defaults to "train" ("clean" in the sandbox).
    `max_samples` means the first rows for a Hub id, which is then streamed into a local cache with its image bytes as
    they are, and a random choice by `seed` for local data. Without `max_samples`, or with `streaming_ok=False`, a Hub
    id is downloaded whole and treated like local data.

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
    return _subset(_with_roles(source, dataset, columns), max_samples, seed)


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

    Hub ids, tar shards and parquet files come as an `IterableDataset`; what has random access anyway (the sandbox,
    saved datasets, tables of paths) as a `Dataset`. Arguments are those of `load_pairs`, except that `max_samples`
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
        pairs = _with_roles(source, found, columns).cast_column("image", picture)
        pairs = pairs if max_samples is None else pairs.select(range(min(max_samples, len(pairs))))
        return pairs, len(pairs)
    declared = (found.info.splits or {}).get(str(found.split))
    sizes = [size for size in (max_samples, declared and declared.num_examples) if size]
    try:
        names = list(found.features or next(iter(found), {}))
    except Exception as error:  # network, archive and decoder errors have no common base
        raise DataError(
            f"'{source}' cannot be streamed: {type(error).__name__}: {error}. Check the source."
        ) from error
    roles = find_columns(str(source), names, columns, found.features)
    if isinstance((found.features or {}).get(roles["image"]), datasets.Image):
        found = found.cast_column(roles["image"], picture)
    pairs = found.map(
        _stream_row,
        fn_kwargs={"image_column": roles["image"], "caption_column": roles["caption"]},
        remove_columns=names,
        features=datasets.Features({"image": picture, "caption": datasets.Value("string")}),
    )
    return pairs, min(sizes, default=None)


def _stream_row(row: dict[str, Any], image_column: str, caption_column: str) -> dict[str, Any]:
    """A streamed row under the fixed names; images that are only addresses are fetched where they are needed."""
    image, caption = row[image_column], row[caption_column]
    if isinstance(image, (str, bytes)):
        image = {"path": image, "bytes": None} if isinstance(image, str) else {"path": None, "bytes": image}
    if isinstance(caption, list):
        caption = caption[0] if caption else None
    if not isinstance(caption, (str, type(None))) or not isinstance(image, (dict, type(None))):
        raise DataError(
            f"Columns '{image_column}' and '{caption_column}' hold {type(image).__name__} and "
            f"{type(caption).__name__}. Wanted an image and a string. Name the right ones with --image_column and "
            "--caption_column."
        )
    return {"image": image, "caption": caption}


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
    `max_samples` means the first rows for a Hub id, a random choice for local data.

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
        dataset = _with_roles(source, dataset, columns)
    dataset = _subset(_with_classes(source, dataset, classnames_file), max_samples, seed=0)
    seen, names = len(set(_values(dataset, "label"))), dataset.features["label"].names
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
        pairs = _subset(_with_roles(source, dataset, columns, first_caption=False), max_samples, seed=0)
    captions: dict[Any, list[str]] = {}
    rows: dict[Any, int] = {}
    encoded = pairs.cast_column("image", datasets.Image(decode=False)).with_format(None)
    for row, pair in enumerate(encoded):
        image = pair["image"] or {"path": None, "bytes": None}
        key = hashlib.sha256(image["bytes"]).digest() if image["bytes"] else image["path"]
        own = pair["caption"] if isinstance(pair["caption"], list) else [pair["caption"]]
        if own := [text for text in own if (text or "").strip()]:
            rows.setdefault(key, row)
            captions.setdefault(key, []).extend(own)
    if not rows:
        raise DataError(f"'{source}' holds no caption. Name the right column with --retrieval_caption_column.")
    texts = {"captions": [list(dict.fromkeys(own)) for own in captions.values()]}
    features = datasets.Features({"captions": datasets.List(datasets.Value("string"))})
    new = datasets.Dataset.from_dict(texts, features=features)
    return datasets.concatenate_datasets([pairs.select(list(rows.values())).select_columns("image"), new], axis=1)


def text_head_cache() -> Path:
    """The folder that keeps text heads of audits; it may be deleted at any time."""
    return Path(datasets.config.HF_DATASETS_CACHE) / "hf_ta_cleaner" / "heads"


def clean_rows(
    dataset: datasets.Dataset, *, max_share: float = 0.05, num_proc: int | None = None
) -> tuple[datasets.Dataset, list[Dropped]]:
    """Take out the rows whose image does not decode to the end or whose caption is blank.

    Every image is decoded once; the cache keeps the verdicts. The dropped rows are counted, the first ten logged,
    all of them returned.

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


def _from_sandbox(make: Any, *args: Any, **kwargs: Any) -> datasets.Dataset:
    try:
        return make(*args, **kwargs)
    except ValueError as error:
        raise DataError(f"sandbox: {error}") from error


def _check_max_samples(max_samples: int | None) -> None:
    if max_samples is not None and max_samples < 1:
        raise DataError(f"max_samples is {max_samples}. Wanted at least 1. Leave it out to use every row.")


def _subset(dataset: datasets.Dataset, max_samples: int | None, seed: int) -> datasets.Dataset:
    """At most `max_samples` rows chosen by `seed`, in their order: files sorted by class stay representative."""
    if max_samples is None or max_samples >= len(dataset):
        return dataset
    return dataset.select(sorted(rng("max_samples", seed).sample(range(len(dataset)), max_samples)))


def _values(dataset: datasets.Dataset, column: str) -> list:
    return dataset.select_columns(column)[:][column]


def _replace(dataset: datasets.Dataset, column: str, values: list, feature: Any) -> datasets.Dataset:
    """Set one column without copying the images."""
    new = datasets.Dataset.from_dict({column: values}, features=datasets.Features({column: feature}))
    return datasets.concatenate_datasets([dataset.remove_columns(column), new], axis=1)


def _with_roles(
    source: Any, dataset: datasets.Dataset, columns: dict[str, str | None], *, first_caption: bool = True
) -> datasets.Dataset:
    """Only the columns of these roles, under the roles' names and with their types; one caption, unless told not."""
    found = find_columns(str(source), dataset.column_names, columns, dataset.features)
    listed = ", ".join(f"{role} from column '{name}'" for role, name in found.items())
    logger.info("%s: %d rows, %s", source, len(dataset), listed)
    dataset = dataset.select_columns(list(found.values()))
    dataset = dataset.rename_columns({name: role for role, name in found.items() if name != role})
    image = dataset.features["image"]
    if not isinstance(image, datasets.Image):
        kind = "struct" if isinstance(image, dict) and set(image) <= {"bytes", "path"} else getattr(image, "dtype", "")
        if kind not in {"struct", "string", "large_string", "binary", "large_binary"}:
            raise DataError(
                f"'{source}': column '{found['image']}' holds {image}. Wanted images, encoded bytes or paths. "
                "Name the right column with --image_column."
            )
    if image != datasets.Image():
        dataset = dataset.cast_column("image", datasets.Image())
    if first_caption and "caption" in found and dataset.features["caption"] != datasets.Value("string"):
        captions = [value[0] if isinstance(value, list) and value else value for value in _values(dataset, "caption")]
        wrong = next((value for value in captions if value and not isinstance(value, str)), None)
        if wrong is not None:
            raise DataError(
                f"'{source}': column '{found['caption']}' holds {wrong!r}. Wanted a string or a list of strings. "
                "Name the right column with --caption_column."
            )
        dataset = _replace(dataset, "caption", [value or None for value in captions], datasets.Value("string"))
    return dataset


def _with_classes(source: Any, dataset: datasets.Dataset, file: str | os.PathLike | None) -> datasets.Dataset:
    """Make `label` a ClassLabel with readable names."""
    feature, labels = dataset.features["label"], _values(dataset, "label")
    missing = sum(label is None or label == -1 for label in labels)
    if missing:
        raise DataError(f"'{source}': {missing} of {len(labels)} rows have no label. Choose another --split.")
    numbered = not isinstance(feature, datasets.ClassLabel) and all(isinstance(label, int) for label in labels)
    if isinstance(feature, datasets.ClassLabel):
        names = feature.names
    elif all(isinstance(label, str) for label in labels):
        names = sorted(set(labels), key=lambda name: (int(name), name) if name.isdecimal() else (float("inf"), name))
        index = {name: i for i, name in enumerate(names)}
        labels = [index[label] for label in labels]
    elif numbered and file is not None:
        names = [str(i) for i in range(max(labels) + 1)]
    else:
        raise DataError(
            f"'{source}': the labels are {feature}, without names. Wanted a ClassLabel or strings. Give the names in "
            "class order with --classnames_file, or name the right column with --label_column."
        )
    if file is None and (file := find_map(source, names)) is not None:
        logger.info("%s: class names from %s", source, file)
    names = first_synonyms(names) if file is None else read_class_names(Path(file), names, numbered=numbered)
    if isinstance(feature, datasets.ClassLabel) and names == feature.names:
        return dataset
    return _replace(dataset, "label", labels, datasets.ClassLabel(names=names))
