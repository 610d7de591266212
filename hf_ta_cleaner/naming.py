"""How things are called in what is published: by their Hub id, or by no more than a file's or folder's own name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any


def is_hub_id(name: Any) -> bool:
    """Whether this names a repository (owner/name) and not something on this machine."""
    return isinstance(name, str) and bool(re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", name)) and not Path(name).exists()


def shown(name: Any) -> str | None:
    """A Hub id as it is; of a folder its own name only, which is nobody else's business."""
    return name if name is None or is_hub_id(name) else Path(str(name)).name
