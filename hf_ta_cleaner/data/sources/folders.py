"""Folders of pictures: with a `.txt` beside each picture, with one folder for each class, or alone."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path

import datasets

from .cache import path_dataset
from .columns import DataError
from .place import Place, Splits, by_split_folder, in_split_folders


logger = logging.getLogger(__name__)


def claims_sidecars(place: Place) -> list[Path]:
    """The pictures, if pairs are wanted and at least half of them have a `.txt` of the same name beside them.

    So img2dataset writes its `files` output, and so do most captioning tools. A metadata table wins over them.
    """
    if "caption" not in place.columns or not place.path.is_dir() or _has_metadata(place):
        return []
    texts = set(place.with_suffix(".txt"))
    captioned = sum(image.with_suffix(".txt") in texts for image in place.images)
    return place.images if captioned and 2 * captioned >= len(place.images) else []


def open_sidecars(place: Place, images: list[Path]) -> Splits:
    """{split: how to open it}; splits are top folders, if all are named like one."""
    groups = by_split_folder(place.root, images)
    return {split: partial(_open_sidecars, place, part) for split, part in groups.items()}


def claims_class_folders(place: Place) -> list[Path]:
    """The pictures, if labels are wanted."""
    return place.images if "label" in place.columns else []


def open_class_folders(place: Place, images: list[Path]) -> Splits:
    """{split: how to open it}; class folders lie below split folders where every top folder is named like a split.

    Raises:
        DataError: A picture lies in no class folder.
    """
    groups = by_split_folder(place.root, images)
    depth = 1 if in_split_folders(place.root, images) else 0
    strays = [image for image in images if len(image.relative_to(place.root).parts) < depth + 2]
    if strays:
        raise DataError(
            f"{len(strays)} images in '{place.root}' lie in no class folder, '{strays[0]}' first. Move them."
        )
    return {
        split: partial(_open_paths, place, part, label=[file.relative_to(place.root).parts[depth] for file in part])
        for split, part in groups.items()
    }


def claims_pictures(place: Place) -> list[Path]:
    """The pictures, if nothing but pictures is wanted."""
    return place.images if set(place.columns) == {"image"} else []


def open_pictures(place: Place, images: list[Path]) -> Splits:
    """All pictures are one split."""
    return {"train": partial(_open_paths, place, images)}


def _open_sidecars(place: Place, images: list[Path]) -> datasets.Dataset:
    captions = [_caption(image.with_suffix(".txt")) for image in images]
    missing = sum(caption is None for caption in captions)
    logger.info("%s: %d pictures, %d of them without a .txt", place.path, len(images), missing)
    return _open_paths(place, images, caption=captions)


def _caption(file: Path) -> str | None:
    """The whole text of a file, however many lines it has."""
    try:
        return file.read_text(encoding="utf-8-sig").strip() if file.is_file() else None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"'{file}' cannot be read: {error}. Wanted a caption in UTF-8. Save it as that.") from error


def _open_paths(place: Place, images: list[Path], **others: list) -> datasets.Dataset:
    return path_dataset(place.root, "image", {"image": [str(f.resolve()) for f in images], **others}, place.cache_dir)


def _has_metadata(place: Place) -> bool:
    return any(file.stem == "metadata" for file in place.with_suffix(".csv", ".tsv", ".jsonl"))
