"""Annotation files beside a folder of pictures: COCO's `captions_*.json` and Karpathy's `dataset_*.json`.

COCO (Lin et al., 2014; https://cocodataset.org/#format-data): `images` with `id` and `file_name`, and `annotations`
with `image_id` and `caption`. Karpathy and Fei-Fei (2015): `images` with `filename`, `sentences` (each with `raw`),
`split`, and for COCO `filepath`, the folder. Both have about five captions a picture.
"""

from __future__ import annotations

import json
import logging
import os
import re
from functools import partial
from pathlib import Path
from typing import Any

import datasets

from .cache import Cache, path_dataset
from .columns import DataError
from .place import SPLIT_WORDS, Place, Splits, by_split, find_pictures
from .tables import grouped


logger = logging.getLogger(__name__)

#: What the files are called in a folder. A file that is given itself may have any name.
FILE_NAME = re.compile(r"(captions_|dataset_?).*\.json", re.IGNORECASE)

#: {split: the (file name, caption) of each annotation}
Named = dict[str, list[tuple[str, Any]]]


def claims(place: Place) -> list[Path]:
    """The file itself if it is one of these; in a folder, the files that are called so.

    Raises:
        DataError: A folder holds files of both kinds, or several for one split.
    """
    if "caption" not in place.columns:
        return []
    if place.path.is_file():
        return [file for file in place.with_suffix(".json") if _kind(file)]
    files = [file for file in place.with_suffix(".json") if FILE_NAME.fullmatch(file.name) and _kind(file)]
    one_each = all(len(part) == 1 for part in by_split(place.root, files).values())
    if not one_each or len({_kind(file) for file in files}) > 1:
        listed = ", ".join(str(file.relative_to(place.root)) for file in files[:5])
        raise DataError(
            f"'{place.path}' holds several annotation files for the same pictures or splits ({listed}). "
            "Give one of them with --dataset."
        )
    return files


def open_splits(place: Place, files: list[Path]) -> Splits:
    """{split: how to open it}. Karpathy's file names each picture's split, COCO's files are named by theirs.

    Raises:
        DataError: A file is damaged, or no file holds a caption.
    """
    root = place.root
    if place.path.is_file() and root.name == "annotations":
        root = root.parent
    splits: Named = {}
    for split, part in by_split(place.root, files).items():
        for file in part:
            for own, named in _read(file, split).items():
                splits.setdefault(own, []).extend(named)
    names = ", ".join(file.name for file in files)
    logger.info("%s: %s captions from %s", place.path, _kind(files[0]), names)
    opens = {split: partial(_open, root, named, place.cache_dir) for split, named in splits.items() if named}
    if not opens:
        raise DataError(f"'{place.path}' holds no captions in {names}. Give a file with captions with --dataset.")
    return opens


def _kind(file: Path) -> str:
    """Which of the two forms a file has by its first keys, or "" for any other file; it is not read to its end."""
    with file.open("rb") as opened:
        head = opened.read(1 << 16).decode("utf-8", errors="replace").removeprefix("\ufeff").lstrip()
    if not head.startswith("{") or not ('"images"' in head or '"annotations"' in head):
        return ""
    return "Karpathy's" if '"sentences"' in head else "COCO's"


def _read(file: Path, split: str) -> Named:
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
        return _karpathy(content["images"]) if _kind(file) == "Karpathy's" else {split: _coco(content)}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        problem = f"{type(error).__name__}: {error}"
        raise DataError(
            f"'{file}' cannot be read: {problem}. Wanted COCO's captions (images with id and file_name, annotations "
            "with image_id and caption) or Karpathy's (images with filename and sentences)."
        ) from error


def _coco(content: dict[str, Any]) -> list[tuple[str, Any]]:
    names = {image["id"]: image["file_name"] for image in content["images"]}
    return [(names[entry["image_id"]], entry["caption"]) for entry in content["annotations"]]


def _karpathy(images: list[dict[str, Any]]) -> Named:
    splits: Named = {}
    for image in images:
        split = SPLIT_WORDS.get(image.get("split", "train"), image.get("split", "train"))
        name = os.path.join(image.get("filepath", ""), image["filename"])
        splits.setdefault(split, []).extend((name, sentence["raw"]) for sentence in image["sentences"])
    return splits


def _open(root: Path, named: list[tuple[str, Any]], cache_dir: Cache) -> datasets.Dataset:
    names, captions = map(list, zip(*named, strict=True))
    values = grouped({"image": names, "caption": captions}, "image", "caption")
    return path_dataset(root, "image", {**values, "image": find_pictures(root, values["image"])}, cache_dir)
