"""A zip of any other form, extracted into the cache once."""

from __future__ import annotations

import logging
import re
import shutil
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from .cache import cached_folder
from .columns import DataError
from .place import IMAGE_SUFFIXES, SPLIT_WORDS, Place, Splits


logger = logging.getLogger(__name__)

#: A zip may become so many times its size, or `ALLOWANCE` bytes if that is more. Text shrinks to a tenth at best.
GROWTH = 50
ALLOWANCE = 1 << 28


def claims(place: Place) -> list[Path]:
    """The file itself, if it is a zip."""
    return [file for file in place.files if file == place.path and file.suffix.lower() == ".zip"]


def open_splits(place: Place, files: list[Path], open_inside: Callable[[Place], Splits]) -> Splits:
    """What `open_inside` finds in the extracted copy. The copy stays in the cache, nothing else is written.

    Raises:
        DataError: Damaged, encrypted, too large, or with members that would lie outside the copy's folder.
    """
    file = files[0]
    stat = file.stat()
    stamp = [str(file.resolve()), stat.st_size, stat.st_mtime_ns]
    folder = cached_folder(place.cache_dir, file.name, stamp, lambda unfinished: _extract(file, unfinished))
    return open_inside(replace(place, path=_without_wrapping(folder)))


def _extract(file: Path, folder: Path) -> None:
    try:
        with zipfile.ZipFile(file) as archive:
            members = [member for member in archive.infolist() if not member.filename.startswith("__MACOSX/")]
            _check(file, members, folder)
            logger.info("%s: %d members are extracted into the cache", file, len(members))
            for member in members:
                archive.extract(member, folder)
    except (zipfile.BadZipFile, zipfile.LargeZipFile, OSError, NotImplementedError, EOFError, zlib.error) as error:
        raise DataError(
            f"'{file}' cannot be read: {type(error).__name__}: {error}. Wanted a whole zip. Copy it again, or "
            "unpack it and give the folder."
        ) from error


def _check(file: Path, members: list[zipfile.ZipInfo], folder: Path) -> None:
    """Judges the members by the sizes that the zip states; `zipfile` never writes more than these."""
    outside = [m.filename for m in members if ".." in re.split(r"[/\\]", m.filename) or _is_absolute(m.filename)]
    if outside:
        raise DataError(f"'{file}' has a member '{outside[0]}' outside its own folder. Nothing was extracted.")
    if any(member.flag_bits & 1 for member in members):
        raise DataError(f"'{file}' is encrypted. Unpack it and give the folder.")
    size, allowed = sum(member.file_size for member in members), max(GROWTH * file.stat().st_size, ALLOWANCE)
    free = shutil.disk_usage(folder).free
    if size > min(allowed, free):
        reason = "more than a zip of pictures holds" if size > allowed else f"and the cache has {free:,} bytes free"
        raise DataError(f"'{file}' holds {size:,} bytes, {reason}. Unpack it yourself and give the folder.")


def _is_absolute(name: str) -> bool:
    return name.startswith(("/", "\\")) or re.match(r"[A-Za-z]:", name) is not None


def _without_wrapping(folder: Path) -> Path:
    """The folder inside that holds everything, if there is one. The folder of a split or of a class stays."""
    entries = list(folder.iterdir())
    if len(entries) == 1 and entries[0].is_dir() and entries[0].name.lower() not in SPLIT_WORDS:
        inside = list(entries[0].iterdir())
        if not all(entry.suffix.lower() in IMAGE_SUFFIXES for entry in inside):
            return _without_wrapping(entries[0])
    return folder
