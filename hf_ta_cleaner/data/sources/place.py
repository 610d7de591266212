"""A file or folder of the user's, listed once, and what all forms do with it."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from .cache import Cache
from .columns import Columns


logger = logging.getLogger(__name__)

SPLIT_WORDS = {
    **dict.fromkeys(("train", "training", "restval"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm"}

#: {split: a function that opens it}
Splits = dict[str, Callable[[], Any]]


@dataclass(frozen=True)
class Place:
    """What `--dataset` points to, and how it is wanted.

    Attributes:
        path: The file or folder.
        columns: The roles that are wanted and the user's names for their columns.
        cache_dir: Where copies go; None for the cache of `datasets`.
        lazily: Whether nothing may be copied.
    """

    path: Path
    columns: Columns
    cache_dir: Cache = None
    lazily: bool = False

    @property
    def root(self) -> Path:
        """The folder: the path itself, or the folder of the file."""
        return self.path if self.path.is_dir() else self.path.parent

    @cached_property
    def files(self) -> list[Path]:
        """All files below the path, in order, except hidden ones and those whose names begin with "_"."""
        if not self.path.is_dir():
            return [self.path]
        return sorted(f for f in self.path.rglob("*") if f.is_file() and not f.name.startswith((".", "_")))

    @cached_property
    def images(self) -> list[Path]:
        """The pictures among the files."""
        return self.with_suffix(*IMAGE_SUFFIXES)

    def with_suffix(self, *suffixes: str) -> list[Path]:
        """The files with one of these suffixes, of any case."""
        return [file for file in self.files if file.suffix.lower() in suffixes]


def by_split(root: Path, files: Iterable[Path]) -> dict[str, list[Path]]:
    """Group files by the split that is named in their path below `root`. Files that name none belong to "train"."""
    groups: dict[str, list[Path]] = {}
    for file in files:
        words = re.split(r"[^a-z]+", str(file.relative_to(root)).lower())
        groups.setdefault(next((SPLIT_WORDS[w] for w in words if w in SPLIT_WORDS), "train"), []).append(file)
    return groups


def in_split_folders(root: Path, images: list[Path]) -> bool:
    """Whether every top folder is named like a split."""
    return {image.relative_to(root).parts[0].lower() for image in images} <= set(SPLIT_WORDS)


def by_split_folder(root: Path, images: list[Path]) -> dict[str, list[Path]]:
    """Group pictures by their top folders if all are named like splits. Else all pictures belong to "train"."""
    return by_split(root, images) if in_split_folders(root, images) else {"train": images}


def find_pictures(root: Path, names: list[str | None]) -> list[str | None]:
    r"""The paths of pictures that a table or an annotation file names.

    A name is a path below `root`, or an absolute one. `img\1.png`, as Windows writes it, is read as `img/1.png` where
    no file has that name. If no picture at all is where its name says, all are looked up below `root` by the end of
    their names; a name that several pictures end with stays as it is.
    """
    base = str(root.resolve())
    paths = {name: _path(base, name) for name in dict.fromkeys(names) if name}
    if paths and not any(map(os.path.exists, paths.values())):
        known = _files_by_name(base)
        found = {name: path for name in paths if (path := _look_up(known, name))}
        if found:
            logger.info("%s: %d pictures are found by their file names in folders below it", root, len(found))
        paths |= found
    return [paths.get(name) for name in names]


def _path(base: str, name: str) -> str:
    path = os.path.join(base, name)
    if "\\" in name and not os.path.exists(path):
        path = os.path.join(base, name.replace("\\", "/"))
    return path


def _files_by_name(root: str) -> dict[str, list[str]]:
    """All files below `root`, linked folders included, each folder once."""
    known: dict[str, list[str]] = {}
    seen = set()
    for folder, below, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:  # a link that leads back
            below.clear()
            continue
        seen.add(real)
        for file in files:
            known.setdefault(file, []).append(os.path.join(folder, file))
    return known


def _look_up(known: dict[str, list[str]], name: str) -> str | None:
    """The one file whose path ends like `name`, compared by as many parts as it takes to leave one."""
    parts = re.split(r"[/\\]", name)
    found = known.get(parts[-1], [])
    for count in range(2, len(parts) + 1):
        if len(found) <= 1:
            break
        found = [path for path in found if Path(path).parts[-count:] == tuple(parts[-count:])]
    return found[0] if len(found) == 1 else None
