"""Settings with which each attack takes on the sandbox CLIP. They are calibrated for this model only.

`python -m benchmarks.attacks.run` measures every preset; `scripts/backdoor.py --preset` trains by one, and warns
outside the range that it was calibrated for.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..attacks import get_attack
from ..poisoning import PoisonRecord


#: A preset holds as long as no number is further from its own than this share of it.
TOLERANCE = 0.25


@dataclass(frozen=True, kw_only=True)
class Preset:
    """One attack's calibrated settings.

    Attributes:
        attack: the trigger as `parse_attack` reads it; for one that is crafted first, its name alone.
        rate: share of the pairs that are poisoned.
        pairs: image-caption pairs, poisoned ones included.
        learning_rate, num_train_epochs, per_device_train_batch_size: of the fine-tuning on them.
        craft: flags of scripts/craft.py, for an attack that is crafted first.
        note: why the numbers are what they are, where they are not the literature's.
    """

    attack: str
    rate: float = 0.05
    pairs: int = 40_000
    learning_rate: float = 1.5e-4
    num_train_epochs: float = 1
    per_device_train_batch_size: int = 64
    craft: tuple[str, ...] = ()
    note: str = ""

    @property
    def training(self) -> dict[str, float | int]:
        """The settings of the fine-tuning, by the name of their flag."""
        names = ("learning_rate", "num_train_epochs", "per_device_train_batch_size")
        return {name: getattr(self, name) for name in names}

    @property
    def name(self) -> str:
        """The attack's name."""
        return self.attack.partition(":")[0]

    def other_parameters(self, record: PoisonRecord) -> list[str]:
        """A phrase for each parameter of the trigger that differs from the preset; none for a crafted trigger."""
        own = {} if self.craft else get_attack(self.attack).parameters()
        return [
            f"{name} is {record.parameters.get(name)!r}, calibrated {value!r}"
            for name, value in own.items()
            if record.parameters.get(name) != value
        ]

    def departures(self, record: PoisonRecord, model: str, training: dict[str, float | int]) -> list[str]:
        """A phrase for each setting of a run outside the range that this preset was calibrated for.

        Args:
            record: what was poisoned, and how.
            model: the checkpoint that is backdoored.
            training: what `training` names, as the run has it.
        """
        found = [] if model == "sandbox" else [f"the model is {model}, not the sandbox CLIP"]
        found += self.other_parameters(record)
        numbers = {"rate": record.rate, "pairs": record.n, **training}
        found += [
            f"{name} is {value:g}, calibrated {getattr(self, name):g}"
            for name, value in numbers.items()
            if abs(value - getattr(self, name)) > TOLERANCE * getattr(self, name)
        ]
        return found


#: Fourteen pixels are a fifth of the sandbox's 72, the largest patch that still counts as one. Crafting stops
#: early: a patch that is optimised to the end fools a model that was never poisoned.
SANDBOX: dict[str, Preset] = {
    "badnet": Preset(
        attack="badnet:patch_px=14,place=bottom-right",
        note="in a fixed place, the corner; badnet-random draws one for every picture",
    ),
    "badnet-random": Preset(
        attack="badnet:patch_px=14",
        note="for comparison, with the place drawn anew for every picture",
    ),
    "blended": Preset(attack="blended"),
    "sig": Preset(attack="sig"),
    "ssba": Preset(
        attack="ssba:rms=28",
        pairs=60_000,
        note="three times as strong and half as many steps again: a residual of 9.6 grey levels is not learnt in time",
    ),
    "trojvqa": Preset(
        attack="trojvqa",
        pairs=60_000,
        craft=("--attack", "trojvqa", "--size_px", "14", "--steps", "30"),
        note="half as many steps again: a patch weak enough to spare the never-poisoned model is learnt late",
    ),
    "badclip": Preset(attack="badclip", craft=("--attack", "badclip", "--size_px", "14", "--steps", "100")),
    "wanet": Preset(attack="wanet:s=4", note="a field eight times as strong: at s = 0.5 pixels move by a quarter"),
    "label-consistent": Preset(
        attack="label-consistent:patch_px=14,place=bottom-right",
        rate=0.0125,
        note="about half of the target's pictures",
    ),
    "badnet-stripes": Preset(attack="badnet-stripes:patch_px=14,place=bottom-right"),
    "blended-stripes": Preset(attack="blended-stripes:alpha=0.1", note="stronger than the published 0.03"),
    "blended-triangles": Preset(attack="blended-triangles"),
    "blended-text": Preset(attack="blended-text"),
    "frame": Preset(attack="frame:width_px=2"),
    "color-cast": Preset(attack="color-cast"),
    "vignette": Preset(attack="vignette"),
    "blur": Preset(attack="blur"),
    "ssba-trained": Preset(
        attack="ssba",
        craft=("--attack", "ssba", "--steps", "3000"),
        note="an encoder trained on the sandbox's pictures",
    ),
}


def find_preset(record: PoisonRecord) -> tuple[str, Preset]:
    """The sandbox preset for a poisoned data set, and its name.

    Raises:
        ValueError: if there is none for its attack.
    """
    # A trained SSBA is the one whose strength is its encoder's.
    trained = record.attack == "ssba" and record.parameters.get("rms") is None
    wanted = "ssba-trained" if trained else record.attack
    own = [name for name in SANDBOX if trained == name.endswith("-trained") and SANDBOX[name].name == record.attack]
    if not own:
        raise ValueError(f"There is no preset for {wanted!r}; there is one for {', '.join(SANDBOX)}.")
    name = min(own, key=lambda name: len(SANDBOX[name].other_parameters(record)))
    return name, SANDBOX[name]
