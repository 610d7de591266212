"""Triggers and what can be changed about them: size, strength, place."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from inputs import ProbeError

from hf_ta_cleaner import ATTACKS, Attack, get_attack


# Fields that the strength slider moves: from, to, step.
STRENGTHS = {"alpha": (0.01, 1.0, 0.01), "delta": (1, 127, 1), "rms": (0.5, 64, 0.1), "s": (0.1, 10, 0.1)}
PLACES = ("random", "middle", "top-left", "top-right", "bottom-left", "bottom-right")


@dataclass(frozen=True)
class Slider:
    """A control of a trigger: the field it sets, its title, range and present value."""

    field: str
    title: str
    low: float
    high: float
    step: float
    value: float


@dataclass(frozen=True)
class Controls:
    """What can be changed about a trigger; None where it has no such field."""

    size: Slider | None
    strength: Slider | None
    place: str | None


def available_attacks() -> dict[str, Attack]:
    """Every attack that needs no crafted file, with its defaults."""
    found = {}
    for name in ATTACKS:
        try:
            found[name] = get_attack(name)
        except ValueError:  # a crafted patch: it is there only where its file lies beside the suspect
            continue
    return found


def controls(attack: Attack, side: int) -> Controls:
    """The controls of an attack on pictures of this side, read off its fields."""
    names = {item.name for item in fields(attack)}
    size = strength = None
    if "patch_px" in names:
        value = attack.patch_px or max(1, round(16 * side / 224))
        size = Slider("patch_px", "Size (pixels)", 1, side, 1, value)
    for name in STRENGTHS.keys() & names:
        strength = Slider(name, "Strength", *STRENGTHS[name], value=getattr(attack, name))
    place = attack.place if "place" in names and getattr(attack, "compat", None) is None else None
    return Controls(size, strength, place)


def adjust(attack: Attack, side: int, size: float | None, strength: float | None, place: str | None) -> Attack:
    """The attack with what was set; what it has no field for, or was left as it is, changes nothing.

    Raises:
        ProbeError: a value that the attack refuses.
    """
    present, changes = controls(attack, side), {}
    if present.size and size is not None and size != present.size.value:
        changes["patch_px"] = int(size)
    if present.strength and strength is not None and strength != present.strength.value:
        changes[present.strength.field] = float(strength)
    if present.place and place and place != present.place:
        changes["place"] = place
    try:
        return replace(attack, **changes) if changes else attack
    except (TypeError, ValueError) as error:
        raise ProbeError(f"{attack.name}: {error}") from error


def describe(attack: Attack) -> str:
    """The attack and its parameters in a few words."""
    shown = {k: v for k, v in attack.parameters().items() if v is not None and k not in ("mode", "side", "target")}
    return (
        f"{attack.name} ({', '.join(f'{k} {v:g}' if isinstance(v, float) else f'{k} {v}' for k, v in shown.items())})"
    )
