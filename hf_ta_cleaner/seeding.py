"""Random generators that depend on names, not on call order.

Every draw of the package is a function of (seed, what it is for, sample, epoch). Two processes, a resumed run and a
shuffled worker pool therefore see the same triggers, views and sub-texts.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path
from random import Random

import numpy as np


def derive_seed(*keys: int | str) -> int:
    """A 64-bit seed from any mix of integers and strings, stable across machines and Python versions."""
    text = "\x1f".join(f"{type(key).__name__}:{key}" for key in keys)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


@lru_cache
def code_digest(folder: Path) -> str:
    """A short hash of the Python sources under a folder.

    `datasets` caches by a function's name and arguments; as an argument, this makes a change of code a new result.
    """
    digest = hashlib.blake2b(digest_size=8)
    for source in sorted(folder.rglob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()


def rng(*keys: int | str) -> Random:
    """A `random.Random` for these keys."""
    return Random(derive_seed(*keys))


def numpy_rng(*keys: int | str) -> np.random.Generator:
    """A NumPy generator for these keys."""
    return np.random.default_rng(derive_seed(*keys))
