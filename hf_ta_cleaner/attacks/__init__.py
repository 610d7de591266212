"""Backdoor triggers, one file for each kind. To add a trigger, add one file and one entry in `ATTACKS`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from hf_ta_cleaner.attacks.badclip import BadCLIP
from hf_ta_cleaner.attacks.badnet import BadNet, LabelConsistent
from hf_ta_cleaner.attacks.base import Attack, Pattern
from hf_ta_cleaner.attacks.blended import Blended
from hf_ta_cleaner.attacks.frame import Frame
from hf_ta_cleaner.attacks.photometric import Blur, ColorCast, Vignette
from hf_ta_cleaner.attacks.sig import SIG
from hf_ta_cleaner.attacks.ssba import SSBA
from hf_ta_cleaner.attacks.structured import BadNetStripes, BlendedStripes, BlendedText, BlendedTriangles
from hf_ta_cleaner.attacks.trojvqa import TrojVQA
from hf_ta_cleaner.attacks.wanet import WaNet


ATTACKS: dict[str, type[Attack]] = {
    "badnet": BadNet,
    "blended": Blended,
    "sig": SIG,
    "ssba": SSBA,
    "trojvqa": TrojVQA,
    "badclip": BadCLIP,
    "wanet": WaNet,
    "label-consistent": LabelConsistent,
    "badnet-stripes": BadNetStripes,
    "blended-stripes": BlendedStripes,
    "blended-triangles": BlendedTriangles,
    "blended-text": BlendedText,
    "frame": Frame,
    "color-cast": ColorCast,
    "vignette": Vignette,
    "blur": Blur,
}

__all__ = [
    "ATTACKS",
    "SIG",
    "SSBA",
    "Attack",
    "BadCLIP",
    "BadNet",
    "BadNetStripes",
    "Blended",
    "BlendedStripes",
    "BlendedText",
    "BlendedTriangles",
    "Blur",
    "ColorCast",
    "Frame",
    "LabelConsistent",
    "Pattern",
    "TrojVQA",
    "Vignette",
    "WaNet",
    "get_attack",
    "parse_attack",
]


def get_attack(name: str, **kwargs: Any) -> Attack:
    """Build a trigger by name.

    Args:
        name: a key of `ATTACKS`, or a spec as `parse_attack` reads it.
        kwargs: the trigger's parameters; they override those in a spec.

    Raises:
        ValueError: for an unknown name or parameter; the message lists the known ones.
    """
    name, _, options = name.partition(":")
    if name not in ATTACKS:
        raise ValueError(f"Unknown attack {name!r}; choose one of {', '.join(ATTACKS)}.")
    kind = ATTACKS[name]
    types = {field.name: field.type for field in fields(kind)}
    given = {**_parse_options(options, name, types), **kwargs}
    unknown = sorted(set(given) - set(types))
    if unknown:
        raise ValueError(f"{name} has no parameter {', '.join(unknown)}; its parameters are {', '.join(types)}.")
    try:
        return kind(**given)
    except TypeError as error:
        arguments = ", ".join(f"{key}={value!r}" for key, value in given.items())
        raise ValueError(
            f"{name} cannot be built with {arguments}: {error}. Check the types of its parameters."
        ) from error


def parse_attack(spec: str) -> Attack:
    """Read a trigger from a command line: a folder that `Attack.save` wrote, or "name" or "name:key=value,...".

    Example: `parse_attack("blended:alpha=0.3,mode=fresh")` is `Blended(alpha=0.3, mode="fresh")`. Slashes separate the
    numbers of a tuple: `parse_attack("color-cast:gain=1/1/0.8")` is `ColorCast(gain=(1, 1, 0.8))`.
    """
    if (Path(spec) / "trigger.json").is_file():
        return Attack.load(spec)
    return get_attack(spec)


def _parse_options(options: str, name: str, types: Mapping[str, Any]) -> dict[str, Any]:
    values = {}
    for item in filter(None, options.split(",")):
        key, equals, value = item.partition("=")
        if not equals:
            raise ValueError(f"Cannot read {item!r}; write options as '{name}:key=value,key=value'.")
        key, value = key.strip(), value.strip()
        values[key] = value if types.get(key) == "str" else _parse_value(value)  # a text parameter keeps "2024"
    return values


def _parse_value(text: str) -> Any:
    literals = {"true": True, "false": False, "none": None}
    if text.lower() in literals:
        return literals[text.lower()]
    for kind in (int, float, _numbers):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split("/"))
