"""The format of report.json and its checks; schema.json is the machine-readable part."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any


SCHEMA_VERSION = 2
SCHEMA_PATH = Path(__file__).with_name("schema.json")
RANKS = ("top1", "top3", "top5", "top10")


def validate(content: Any) -> None:
    """Check the contents of a report.json.

    Raises:
        ValueError: names every place that is wrong, what is there and what was wanted.
    """
    from jsonschema import Draft202012Validator

    version = content.get("schema") if isinstance(content, Mapping) else None
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise ValueError(f"The report has schema {version}, this package reads {SCHEMA_VERSION}: upgrade the package.")
    schema = json.loads(SCHEMA_PATH.read_text(encoding="utf-8"))
    errors = sorted(Draft202012Validator(schema).iter_errors(content), key=lambda error: list(map(str, error.path)))
    problems = [f"{'.'.join(map(str, error.path)) or 'report'}: {_readable(error)}" for error in errors]
    problems = problems or list(_contradictions(content))
    if problems:
        raise ValueError("Not a valid report:\n" + "\n".join(f"- {problem}" for problem in problems))


def _readable(error: Any) -> str:
    if error.validator in ("minimum", "maximum"):
        bound = "least" if error.validator == "minimum" else "most"
        return f"got {error.instance}, wanted at {bound} {error.validator_value} (rates are fractions, not per cent)."
    if error.validator == "type":
        wanted = (
            error.validator_value if isinstance(error.validator_value, str) else " or ".join(error.validator_value)
        )
        return f"got {error.instance!r:.80}, wanted {wanted}."
    return f"{error.message:.300}."


def _contradictions(content: Mapping[str, Any]) -> Iterator[str]:
    """What a schema cannot say: finite numbers, ranks that grow, intervals around their rate, the same attacks."""
    try:
        json.dumps(content, allow_nan=False)
    except (TypeError, ValueError) as error:
        yield f"report: cannot be written as JSON, {error}."
        return
    sections = {name: content[name] for name in ("before", "after") if content[name]}
    if len({frozenset(section["attacks"]) for section in sections.values()}) > 1:
        names = {name: sorted(section["attacks"]) for name, section in sections.items()}
        yield f"after.attacks: wanted the same attacks before and after, got {names}."
    if any(section["clean_accuracy"] is None for section in sections.values()):
        if "retrieval" not in content or any(s["clean_accuracy"] or s["attacks"] for s in sections.values()):
            yield "clean_accuracy: may only be null, in every section, where retrieval stands in for it."
        return
    for name, curve in content.get("history", {}).items():
        if len(curve["step"]) != len(curve["value"]):
            yield f"history.{name}: {len(curve['step'])} steps but {len(curve['value'])} values."
    if strange := sorted(set(content.get("examples", {})) - set(content["before"]["attacks"])):
        yield f"examples: {strange} are no attacks of this report."
    for name, section in sections.items():
        parts = {f"{name}.clean_accuracy": (section["clean_accuracy"], section["clean_accuracy"], "top1")}
        for attack, entry in section["attacks"].items():
            parts[f"{name}.attacks.{attack}.asr"] = (entry["asr"], entry, "asr_top1")
            parts[f"{name}.attacks.{attack}.floor"] = (entry["floor"], entry, "floor_top1")
        for place, (rates, owner, key) in parts.items():
            if (values := [rates[rank] for rank in RANKS]) != sorted(values):
                yield f"{place}: a rate cannot fall as k grows, got {values}."
            low, high = owner["interval95"].get(key, (0, 1))
            if not low - 1e-9 <= rates["top1"] <= high + 1e-9:
                yield f"{place}: top1 {rates['top1']} lies outside its interval [{low}, {high}]."
