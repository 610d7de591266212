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
    "DataCollatorForTACleaner": "views.collator",
    "LOSSES": "losses",
    "PoisonMap": "poisoning",
    "Report": "publishing.report",
    "SubTextMap": "subtexts",
    "TACleanerConfig": "training.config",
    "TACleanerTrainer": "training.trainer",
    "Views": "losses",
    "ZeroShotHead": "models.zero_shot",
    "load_labelled": "data.loading",
    "load_model": "models.checkpoints",
    "load_pairs": "data.loading",
    "poison": "poisoning",
    "poison_stream": "poisoning",
    "stream_pairs": "data.loading",
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
