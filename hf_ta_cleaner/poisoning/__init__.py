"""Poisons a clean image-caption data set: chooses the rows, applies the trigger and replaces the captions.

There are three entry points. `poison` takes a `datasets.Dataset`, and `poison_stream` takes an `IterableDataset`.
`write_poisoned` takes either, of any size, and writes it to a folder. It works shard by shard in constant memory, and
it can resume after an interruption. All three apply `PoisonMap` to the rows.
"""

from __future__ import annotations

from .card import CARD, POISONED, write_card
from .record import RECORD, TRIGGER, PoisonRecord, find_triggers
from .row_map import PoisonMap
from .rows import TEMPLATES, Draw, choose_rows, mentions, target_captions
from .shards import FORMATS, check_folder, write_poisoned
from .whole import poison, poison_stream


__all__ = [
    "CARD",
    "FORMATS",
    "POISONED",
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
    "write_card",
    "write_poisoned",
]
