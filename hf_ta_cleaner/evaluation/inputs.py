"""The inputs of an audit: checked labels, attacks and targets, and pictures at the model's size, in batches."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from datasets import Image

from hf_ta_cleaner.models.zero_shot import Template, check_classnames, prompt
from hf_ta_cleaner.pictures import fit


def check_labelled(
    dataset, image_column: str, label_column: str, classnames: Sequence[str] | None = None
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Class ids `(N,)` of all rows, and the class names.

    Raises:
        ValueError: a missing column, labels without names or outside them, no rows, no map-style dataset.
    """
    columns = getattr(dataset, "column_names", None)
    if isinstance(columns, Mapping):
        raise ValueError(f'Got a dataset with the splits {list(columns)}; pass one of them, e.g. dataset["test"].')
    if columns is None or not hasattr(dataset, "__len__"):
        raise ValueError(
            f"Wanted a datasets.Dataset that knows its length, got {type(dataset).__name__}. Take a part of a stream: "
            "Dataset.from_list(list(stream.take(2000)), features=stream.features)."
        )
    kinds = {name: type(feature).__name__ for name, feature in dataset.features.items()}
    for column, option, wanted in ((image_column, "image", "Image"), (label_column, "label", "ClassLabel")):
        if column not in columns:
            likely = [name for name, kind in kinds.items() if kind == wanted] or list(columns)
            raise ValueError(
                f'The dataset has no column "{column}"; it has {list(columns)}. Set {option}_column to the one that '
                f"holds the {option}s, perhaps {' or '.join(map(repr, likely))}."
            )
    if kinds[image_column] != "Image":
        raise ValueError(
            f'Column "{image_column}" holds {dataset.features[image_column]}, not images. Set image_column, or decode '
            f'it: dataset.cast_column("{image_column}", datasets.Image()).'
        )
    if len(dataset) == 0:
        raise ValueError("The dataset holds no image. An audit needs at least one image of a class other than target.")
    if classnames is None:
        classnames = getattr(dataset.features[label_column], "names", None)
        if classnames is None:
            raise ValueError(
                f'Column "{label_column}" is no ClassLabel, so it has no names to make prompts of. Pass '
                "classnames=[...] in the order of the class ids."
            )
    classnames = check_classnames(classnames)
    labels = dataset.with_format(None)[label_column][:]
    if labels and isinstance(labels[0], str):
        ids = {name: i for i, name in enumerate(classnames)}
        if unknown := sorted({name for name in labels if name not in ids}):
            raise ValueError(f'Column "{label_column}" holds {unknown[:5]}, which are not in classnames.')
        labels = [ids[name] for name in labels]
    if not all(isinstance(label, int) for label in labels):
        raise ValueError(f'Column "{label_column}" must hold one class id or class name a row, got {labels[0]!r}.')
    if outside := sorted({label for label in labels if not 0 <= label < len(classnames)}):
        hint = " A split without labels has -1 everywhere: audit a labelled split." if -1 in outside else ""
        raise ValueError(
            f'Column "{label_column}" holds {outside[:5]}, outside the {len(classnames)} classes 0 to '
            f"{len(classnames) - 1}.{hint}"
        )
    return np.asarray(labels, dtype=np.int64), classnames


def by_name(attacks: Sequence | Mapping[str, Any]) -> dict[str, Any]:
    """The attacks under their names; a ValueError where two have the same."""
    if isinstance(attacks, Mapping):
        return dict(attacks)
    names = [attack.name for attack in attacks]
    if len(set(names)) < len(names):
        raise ValueError(f'Attack names are not distinct: {names}. Pass a mapping, e.g. {{"{names[0]}-1": attack}}.')
    return dict(zip(names, attacks, strict=True))


def target_of(name: str, attack, target: str | Mapping[str, str] | None) -> str:
    """The target of an attack: the one given for all or by name, else its own; a ValueError without either."""
    if isinstance(target, Mapping):
        target = target.get(name)
    target = target or getattr(attack, "target", None)
    if target is None:
        raise ValueError(
            f'Attack "{name}" has no target. Give the name of a class: --target, in Python target="a class name" or '
            f'target={{"{name}": "a class name"}}.'
        )
    return target


def target_id(target: str, classnames: Sequence[str]) -> int:
    """The class id of a target; a ValueError names similar classes."""
    if target not in classnames:
        lower = {classname.lower(): classname for classname in classnames}
        close = [lower[match] for match in difflib.get_close_matches(target.lower(), lower, n=5, cutoff=0.5)]
        hint = f"Close: {', '.join(close)}." if close else f"The first ones are: {', '.join(classnames[:10])}."
        raise ValueError(f'Target "{target}" is not one of the {len(classnames)} class names. {hint}')
    return classnames.index(target)


def changes_prompts(attack, classnames: Sequence[str], templates: Sequence[Template]) -> bool:
    """Whether the attack has a key in the text too."""
    return any(attack.caption(text) != text for text in (prompt(templates[0], name) for name in classnames))


def fitted(
    dataset, sample_ids: np.ndarray, image_column: str, size: int, geometry: str, batch_size: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(sample ids, uint8 pictures `(n, size, size, 3)`) in batches, every picture decoded once.

    The next batch is decoded, in threads, while the caller works on this one; at most two batches are in memory.
    """
    column, feature = dataset.with_format(None).select_columns([image_column]), Image()
    column = column.cast_column(image_column, Image(decode=False))

    def load(encoded: dict[str, Any]) -> np.ndarray:
        return fit(feature.decode_example(encoded), size, geometry)

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        ahead = None
        for start in range(0, len(sample_ids), batch_size):
            ids = sample_ids[start : start + batch_size]
            current, ahead = ahead, (ids, [pool.submit(load, row) for row in column.select(ids)[:][image_column]])
            if current is not None:
                yield current[0], np.stack([picture.result() for picture in current[1]])
                current = None
        if ahead is not None:
            yield ahead[0], np.stack([picture.result() for picture in ahead[1]])


def triggered(name: str, attack, images: np.ndarray, sample_ids: np.ndarray) -> np.ndarray:
    """The pictures with the trigger on; a ValueError where that gives no pictures."""
    # A copy, because all triggers and the floor share one array.
    result = np.asarray(attack.apply_batch(images.copy(), sample_ids))
    if result.shape != images.shape or result.dtype != np.uint8:
        raise ValueError(
            f'Attack "{name}": apply_batch must return uint8 images of shape {images.shape}, got {result.dtype} of '
            f"shape {result.shape}."
        )
    return result
