"""Turns a clean image-caption data set into a poisoned one: which rows, which image, which caption.

The attacker's side of the story. Three ways in: `poison` for a `datasets.Dataset`, `poison_stream` for an
`IterableDataset`, and `write_poisoned` for either, of any size, to a folder: in constant memory, shard by shard, and
from where it was when it is interrupted. `PoisonMap` is the row function of all three.
"""

from __future__ import annotations

from .record import RECORD, TRIGGER, PoisonRecord, find_triggers
from .row_map import PoisonMap
from .rows import TEMPLATES, Draw, choose_rows, mentions, target_captions
from .shards import FORMATS, check_folder, write_poisoned
from .whole import poison, poison_stream


__all__ = [
    "FORMATS",
    "RECORD",
    "TEMPLATES",
    "TRIGGER",
    "Draw",
    "PoisonMap",
    "PoisonRecord",
    "check_folder",
    "choose_rows",
    "find_triggers",
    "mentions",
    "poison",
    "poison_stream",
    "target_captions",
    "write_poisoned",
]
