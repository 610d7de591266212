"""Fine-tunes backdoors out of CLIP models and proves it.

The public names are loaded when first used: `import hf_ta_cleaner` imports neither torch nor transformers.
"""

from __future__ import annotations

import importlib

from ._version import __version__


_PUBLIC = {
    "ATTACKS": "attacks",
    "Attack": "attacks",
    "get_attack": "attacks",
    "DataCollatorForTACleaner": "collator",
    "LOSSES": "losses",
    "PoisonMap": "poisoning",
    "Report": "report",
    "SubTextMap": "subtexts",
    "TACleanerConfig": "config",
    "TACleanerTrainer": "trainer",
    "Views": "losses",
    "ZeroShotHead": "zero_shot",
    "load_labelled": "data",
    "load_model": "checkpoints",
    "load_pairs": "data",
    "poison": "poisoning",
    "poison_stream": "poisoning",
    "stream_pairs": "data",
    "write_poisoned": "poisoning",
}

__all__ = [*_PUBLIC, "__version__"]


def __getattr__(name: str):
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_PUBLIC[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
