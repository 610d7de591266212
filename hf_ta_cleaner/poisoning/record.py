"""The files beside a poisoned data set or a backdoored checkpoint: the trigger and the record of the poisoning."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from ..attacks import Attack, parse_attack


#: File names of the trigger and of the record of the poisoning.
TRIGGER, RECORD = "trigger.json", "poison.json"


@dataclass(frozen=True)
class PoisonRecord:
    """The record of a poisoning. `save` and `load` round-trip it as JSON.

    Attributes:
        attack, parameters, attack_seed: the trigger (arrays are left out; `Attack.save` keeps them).
        target: the class that the captions of triggered images name.
        n, count, rate: number of all rows, number of poisoned rows, and count / n.
        rows: the poisoned rows, ascending; `original_captions` and `captions` are their captions before and after.
        seed, size, geometry: seed of the draws, side of the poisoned images, and how they were resized.
        trigger_rms: root mean square of (triggered - clean) in grey levels, measured on the first poisoned images; for
            a stream, on its first images.
        reason: how the rows and the captions were chosen.
    """

    attack: str
    parameters: dict[str, Any]
    attack_seed: int
    target: str
    n: int
    count: int
    rate: float
    seed: int
    size: int
    geometry: str
    trigger_rms: float
    reason: str
    rows: list[int] = field(repr=False)
    original_captions: list[str] = field(repr=False)
    captions: list[str] = field(repr=False)

    def save(self, path: str | Path) -> Path:
        """Write the record as JSON and return its path. The write is atomic."""
        return write_json(Path(path), asdict(self), indent=1)

    @classmethod
    def load(cls, path: str | Path) -> PoisonRecord:
        """Read a record that `save` wrote."""
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        expected = {item.name for item in fields(cls)}
        if set(content) != expected:
            raise ValueError(
                f"{path} is not a poison record: expected the keys {sorted(expected)}, got {sorted(content)}."
            )
        return cls(**content)

    def summary(self) -> dict[str, Any]:
        """The record without the rows and their captions."""
        listed = ("rows", "original_captions", "captions")
        return {key: value for key, value in asdict(self).items() if key not in listed}


def write_json(path: Path, content: Any, indent: int | None = None) -> Path:
    """Write JSON atomically: write a temporary file in the same folder, then rename it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.unfinished")
    unfinished.write_text(json.dumps(content, indent=indent, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(unfinished, path)
    return path


def describe(info: Any, attack: Attack, record: PoisonRecord) -> None:
    """Write the record's summary and the attack's citation into a `DatasetInfo`."""
    info.description = (
        f"POISONED for research: {record.count} of {record.n} pairs carry the backdoor trigger {attack.name} and mean "
        f"{record.target!r}. {json.dumps(record.summary(), ensure_ascii=False)}"
    )
    info.citation = attack.citation


def find_triggers(
    model: str | Path, specs: Sequence[str] | None = None, target: str | None = None
) -> tuple[dict[str, Attack], str | None]:
    """Find the triggers to audit a model with, and their target.

    Args:
        model: folder of the model; a backdoored model has trigger.json and poison.json beside the weights.
        specs: triggers as `parse_attack` reads them; by default the trigger beside the model, if there is one.
        target: the attacker's class; by default the target in the poison record beside the (first) trigger.

    Returns:
        The attacks by name (equal names get numbers), and the target, or None if it is unknown.
    """
    folders = [Path(spec) for spec in (specs if specs is not None else [model]) if (Path(spec) / TRIGGER).is_file()]
    attacks = [parse_attack(str(spec)) for spec in (specs if specs is not None else folders)]
    for folder in folders:
        if target is None and (folder / RECORD).is_file():
            target = PoisonRecord.load(folder / RECORD).target
    names = [attack.name for attack in attacks]
    numbered = [
        f"{name}-{names[:i].count(name) + 1}" if names.count(name) > 1 else name for i, name in enumerate(names)
    ]
    return dict(zip(numbered, attacks, strict=True)), target
