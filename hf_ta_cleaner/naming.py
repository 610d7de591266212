"""How things are called in what is published: by their Hub id, or by no more than a file's or folder's own name."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any


def is_hub_id(name: Any) -> bool:
    """Whether this names a repository (owner/name) and not something on this machine."""
    return isinstance(name, str) and bool(re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", name)) and not Path(name).exists()


def without_folders(value: Any) -> Any:
    """A setting as it is told: of what lies on this machine no more than its own name; also within lists."""
    if isinstance(value, (list, tuple)):
        return [without_folders(each) for each in value]
    here = isinstance(value, Path) or (isinstance(value, str) and {"/", os.sep} & set(value) and Path(value).exists())
    return shown(value) if here else value


def shown(name: Any) -> str | None:
    """A Hub id as it is; of a folder its own name only, which is nobody else's business."""
    return name if name is None or is_hub_id(name) else Path(str(name)).name
