"""Which column of a data set holds the pictures, which the captions, which the labels."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import datasets


COLUMN_NAMES = {
    "image": {"image", "img", "jpg", "jpeg", "png", "webp", "file", "file_name", "filename", "filepath", "path"},
    "caption": {"caption", "captions", "txt", "text", "sentence", "sentences", "description", "alt_text"},
    "label": {"label", "labels", "class", "cls", "category", "target"},
}
#: Names that count only where no column has one of the names above.
SECOND_NAMES = {
    "image": {"image_name", "image_path", "img_path", "image_file"},
    "caption": {"title", "comment"},
    "label": set(),
}

Columns = dict[str, str | None]  # role -> the user's name for its column, None to find it


class DataError(ValueError):
    """A data set that cannot be used as it is. The message says what was got, what was wanted and what to do."""


def matching_columns(role: str, names: Iterable[str]) -> list[str]:
    """The columns that may have this role by their names: those with a usual name, else those with a second one."""
    names = list(names)
    usual = [name for name in names if name.lower() in COLUMN_NAMES[role]]
    return usual or [name for name in names if name.lower() in SECOND_NAMES[role]]


def find_columns(
    source: str, names: list[str], columns: Columns, features: Mapping[str, Any] | None = None
) -> dict[str, str]:
    """{role: column}: each column as the user named it, or the only one known by its name (an image also by its type).

    Of `caption` and `captions` the second is taken: it holds all captions of a picture, the first one included.

    Raises:
        DataError: No column fits, or several do. The message lists what was found and the flag to set.
    """
    found = {}
    for role, given in columns.items():
        matches = matching_columns(role, names) if given is None else [name for name in names if name == given]
        if role == "image" and given is None:
            matches = [name for name in names if isinstance((features or {}).get(name), datasets.Image)] or matches
        if sorted(matches) == ["caption", "captions"] and _may_hold_lists((features or {}).get("captions")):
            matches = ["captions"]
        if len(matches) != 1:
            raise DataError(_column_error(source, names, role, given, matches))
        found[role] = matches[0]
    if len(set(found.values())) < len(found):
        raise DataError(f"'{source}': {found} names one column twice. Wanted one each of: {', '.join(names)}.")
    return found


def check_no_addresses(source: Any, column: str, values: Iterable[Any]) -> None:
    """Refuse a column of pictures whose first value is a web address.

    Raises:
        DataError: It is one. The message says which tool downloads the pictures.
    """
    first = next((value for value in values if value), None)
    if is_address(first):
        raise DataError(f"'{source}': column '{column}' holds web addresses ({first:.60}). {_DOWNLOAD}")


def is_address(value: Any) -> bool:
    """Whether a cell holds a web address."""
    return isinstance(value, str) and re.match(r"\s*https?://", value) is not None


_DOWNLOAD = (
    "Pictures are not downloaded here. Download them with img2dataset (https://github.com/rom1504/img2dataset) and "
    "give the folder that it writes."
)


def _may_hold_lists(feature: Any) -> bool:
    return feature is None or isinstance(feature, (list, datasets.List, datasets.LargeList))


def _column_error(source: str, names: list[str], role: str, given: str | None, matches: list[str]) -> str:
    problem = f"several columns that may hold the {role} ({', '.join(matches)})" if matches else f"no {role}"
    problem = f"no column '{given}'" if given else problem
    wanted = "" if given or matches else f" Wanted one called {', '.join(sorted(COLUMN_NAMES[role]))}."
    message = f"'{source}' has {problem}; found: {', '.join(map(str, names))}.{wanted} Name it with --{role}_column."
    addresses = [name for name in names if re.search(r"(^|_)urls?$", str(name).lower())]
    if role == "image" and not matches and not given and addresses:
        message += f" Column '{addresses[0]}' seems to hold web addresses. {_DOWNLOAD}"
    return message
