"""Class names that can stand in a prompt: from a file, or from the data, cut to a synonym or split into words."""

from __future__ import annotations

import json
import logging
import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets

from .roles import column_values, with_columns
from .sources import DataError


logger = logging.getLogger(__name__)

SYNSET = re.compile(r"n\d{8}")
MAPS = ("LOC_synset_mapping.txt", "words.txt", "classnames.txt", "classnames.json", "imagenet_class_index.json")


def with_classes(source: Any, dataset: datasets.Dataset, file: str | os.PathLike | None) -> datasets.Dataset:
    """Make `label` a ClassLabel whose names can stand in a prompt.

    Raises:
        DataError: Rows without a label, numbers without names, names that do not fit.
    """
    feature, labels = dataset.features["label"], column_values(dataset, "label")
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
    names = (
        split_camel_case(first_synonyms(names))
        if file is None
        else read_class_names(Path(file), names, numbered=numbered)
    )
    if isinstance(feature, datasets.ClassLabel) and names == feature.names:
        return dataset
    return with_columns(dataset, {"label": labels}, {"label": datasets.ClassLabel(names=names)})


def are_synsets(names: Sequence[str]) -> bool:
    """Whether all names are WordNet ids, as of ImageNet's class folders. A prompt needs words, not "n01440764"."""
    return all(SYNSET.fullmatch(name) for name in names)


def find_map(source: str | os.PathLike, names: Sequence[str]) -> Path | None:
    """The file beside a local data set that names all of its WordNet ids, or None.

    ImageNet as Kaggle ships it has LOC_synset_mapping.txt up to four folders above the class folders; tiny-imagenet
    has words.txt one above. All of `MAPS` are looked for in the folder of the data and the one above it.
    """
    path = Path(source).expanduser()
    if not (path.exists() and are_synsets(names)):
        return None
    folders = [path.resolve(), *path.resolve().parents][:5]
    for file in [folder / name for folder in folders[:2] for name in MAPS] + [f / MAPS[0] for f in folders[2:]]:
        if file.is_file():
            content = _read(file)
            if isinstance(content, dict) and set(names) <= set(content):
                return file
    return None


def read_class_names(file: Path, old: Sequence[str], *, numbered: bool = False) -> list[str]:
    """The names of `file` in the order of the `old` ones.

    The file is one of: one name a line or a JSON list, in class order; lines of a WordNet id and its name; a JSON
    object from the old names to the new ones, or from numbers to pairs of both (imagenet_class_index.json). Where up
    to one class in a hundred shares its name with another, as two do in ImageNet, the later ones are numbered.

    Args:
        numbered: The old names are bare numbers: the last classes may not occur, so the file may name more.

    Raises:
        DataError: unreadable, a class without a name, another number of names, too many repeated ones.
    """
    new = _read(file)
    if isinstance(new, dict):
        absent = [name for name in old if name not in new]
        if absent:
            raise DataError(f"'{file}' has no name for {len(absent)} classes: {', '.join(absent[:10])}. Add them.")
        new = [new[name] for name in old]
    elif len(new) != len(old) and not (numbered and len(new) > len(old)):
        raise DataError(f"'{file}' has {len(new)} names for {len(old)} classes. Wanted one each, in class order.")
    new = first_synonyms(new)
    repeated = [name for name, count in Counter(new).items() if count > 1]
    if 100 * sum(count - 1 for count in Counter(new).values()) > len(new):
        raise DataError(f"'{file}' gives several classes the name {', '.join(repeated)}. Make the names unique.")
    if repeated:
        logger.warning("%s gives several classes the name %s; the later ones are numbered", file, ", ".join(repeated))
    seen: Counter[str] = Counter()
    for i, name in enumerate(new):
        seen[name] += 1
        new[i] = name if seen[name] == 1 else f"{name} ({seen[name]})"
    return new


def first_synonyms(names: Sequence[str]) -> list[str]:
    """Names cut at their first comma where that leaves them distinct: "tench, Tinca tinca" -> "tench".

    ImageNet names its classes by all words of a WordNet synset. No caption reads like that, so prompts have the first
    word alone. "Cardigan, Cardigan Welsh corgi" stays, because there is a class "cardigan".
    """
    short = [name.split(",")[0].strip() or name for name in names]
    count = Counter(name.lower() for name in short)
    chosen = [cut if count[cut.lower()] == 1 else name for cut, name in zip(short, names, strict=True)]
    if changed := sum(a != b for a, b in zip(chosen, names, strict=True)):
        logger.info("%d of %d class names are cut to their first synonym", changed, len(chosen))
    return chosen


def split_camel_case(names: Sequence[str]) -> list[str]:
    """CamelCase names as words, as of EuroSAT's class folders: "AnnualCrop" -> "Annual Crop".

    Only where every name is written so, by letters alone: of "iPod", "McDonald's" and "BMW" none is taken apart.
    """
    if not all(re.fullmatch(r"([A-Z][a-z]+)+", name) for name in names):
        return list(names)
    words = [re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name) for name in names]
    if changed := [(old, new) for old, new in zip(names, words, strict=True) if old != new]:
        old, new = changed[0]
        logger.info(
            "%d of %d class names are taken apart, '%s' to '%s'; --classnames_file gives others",
            len(changed), len(names), old, new,
        )  # fmt: skip
    return words


def _read(file: Path) -> list[str] | dict[str, str]:
    """Names in class order, or new names by old ones."""
    try:
        text = file.read_text(encoding="utf-8-sig")
        content = json.loads(text) if file.suffix == ".json" else [line.strip() for line in text.splitlines()]
    except (OSError, ValueError) as error:
        raise DataError(f"Class names '{file}' cannot be read: {error}. Wanted one name per line or JSON.") from error
    if file.suffix != ".json":
        content = [line for line in content if line]
        parts = [re.split(r"[\s,]+", line, maxsplit=1) for line in content]
        if parts and all(len(part) == 2 and SYNSET.fullmatch(part[0]) for part in parts):
            return dict(parts)
        return content
    if isinstance(content, dict) and all(isinstance(pair, list) and len(pair) == 2 for pair in content.values()):
        content = dict(content.values())
    values = list(content.values()) if isinstance(content, dict) else content
    if not isinstance(values, list) or not all(isinstance(name, str) for name in values):
        raise DataError(f"Class names '{file}' hold {values!r:.60}. Wanted a JSON list or object of strings.")
    return content
