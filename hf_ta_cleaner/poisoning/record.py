"""What lies beside a poisoned data set and a backdoored checkpoint: the trigger and the record of the poisoning."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from ..attacks import Attack, parse_attack


#: The trigger, and the record of what was poisoned.
TRIGGER, RECORD = "trigger.json", "poison.json"


@dataclass(frozen=True)
class PoisonRecord:
    """The record of a poisoning. `save` and `load` round-trip it as JSON.

    Attributes:
        attack, parameters, attack_seed: the trigger (arrays are left out; `Attack.save` keeps them).
        target: what the triggered images are captioned as.
        n, count, rate: rows in all, rows poisoned, and their quotient.
        rows: the poisoned rows, ascending; `original_captions` and `captions` are theirs, before and after.
        seed, size, geometry: seed of the draws, side of the poisoned images, and how they were fitted.
        trigger_rms: root mean square of (triggered - clean) in grey levels, on the first poisoned images; of a stream,
            on its first images.
        reason: why these rows and these captions.
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
        """Write the record as JSON, whole or not at all, and return its path."""
        return write_json(Path(path), asdict(self), indent=1)

    @classmethod
    def load(cls, path: str | Path) -> PoisonRecord:
        """Read what `save` wrote."""
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        expected = {item.name for item in fields(cls)}
        if set(content) != expected:
            raise ValueError(f"{path} is no poison record: wanted the keys {sorted(expected)}, got {sorted(content)}.")
        return cls(**content)

    def summary(self) -> dict[str, Any]:
        """All but the rows and their captions."""
        listed = ("rows", "original_captions", "captions")
        return {key: value for key, value in asdict(self).items() if key not in listed}


def write_json(path: Path, content: Any, indent: int | None = None) -> Path:
    """Write JSON beside its place and move it in, so that the file is always whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.unfinished")
    unfinished.write_text(json.dumps(content, indent=indent, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(unfinished, path)
    return path


def describe(info: Any, attack: Attack, record: PoisonRecord) -> None:
    """Put into a `DatasetInfo` what the data set is, the trigger with its parameters and seed, and the sources."""
    info.description = (
        f"POISONED for research: {record.count} of {record.n} pairs carry the backdoor trigger {attack.name} and mean "
        f"{record.target!r}. {json.dumps(record.summary(), ensure_ascii=False)}"
    )
    info.citation = attack.citation


def find_triggers(
    model: str | Path, specs: Sequence[str] | None = None, target: str | None = None
) -> tuple[dict[str, Attack], str | None]:
    """The triggers to audit a model with, and what they mean.

    Args:
        model: folder of the model; a backdoored one has its trigger.json and poison.json beside the weights.
        specs: triggers as `parse_attack` reads them; by default the one beside the model, if there is one.
        target: the attacker's class; by default what the poison record beside the (first) trigger says.

    Returns:
        Attacks by name (numbered where two have the same), and the target, None where nothing names it.
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
