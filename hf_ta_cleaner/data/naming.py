"""Names in published files: a Hub id, or the own name of a file or folder without the folders above it."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any


def is_hub_id(name: Any) -> bool:
    """Whether this names a repository (owner/name) and not something on this machine."""
    return isinstance(name, str) and bool(re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", name)) and not Path(name).exists()


def without_folders(value: Any) -> Any:
    """A setting for publication: a path of this machine is cut to its last part, also within lists."""
    if isinstance(value, (list, tuple)):
        return [without_folders(each) for each in value]
    here = isinstance(value, Path) or (isinstance(value, str) and _is_path(value))
    return re.split(r"[/\\]", str(value).rstrip("/\\"))[-1] if here else value


def _is_path(text: str) -> bool:
    """Whether this looks like a path (absolute, of a home, relative with a dot), or such a file exists here."""
    if re.match(r"[/~.\\]|[A-Za-z]:[/\\]", text):
        return len(text.split()) == 1 or Path(text).exists()
    return bool({"/", os.sep} & set(text)) and Path(text).exists()


def public_name(name: Any) -> str | None:
    """A Hub id as it is; of a folder only its own name."""
    return name if name is None or is_hub_id(name) else Path(str(name)).name
