"""How each attack is made to take on the sandbox CLIP. Calibrated for it and for nothing else.

`benchmarks/attacks/run.py` measures every preset; `scripts/backdoor.py --preset` trains by one, and warns outside the
range that it was calibrated for.
"""

from __future__ import annotations

from dataclasses import dataclass

from .attacks import get_attack
from .poisoning import PoisonRecord


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
    pairs: int = 20_000
    learning_rate: float = 5e-4
    num_train_epochs: float = 4
    per_device_train_batch_size: int = 64
    craft: tuple[str, ...] = ()
    note: str = ""

    @property
    def training(self) -> dict[str, float | int]:
        """The settings of the fine-tuning, by the name of their flag."""
        names = ("learning_rate", "num_train_epochs", "per_device_train_batch_size")
        return {name: getattr(self, name) for name in names}

    def departures(self, record: PoisonRecord, model: str, training: dict[str, float | int]) -> list[str]:
        """Where a run leaves the range that this preset was calibrated for, a phrase each.

        Args:
            record: what was poisoned, and how.
            model: the checkpoint that is backdoored.
            training: what `training` names, as the run has it.
        """
        found = [] if model == "sandbox" else [f"the model is {model}, not the sandbox CLIP"]
        if not self.craft:
            own = get_attack(self.attack).parameters()
            found += [
                f"{name} is {record.parameters.get(name)!r}, calibrated {value!r}"
                for name, value in own.items()
                if record.parameters.get(name) != value
            ]
        numbers = {"rate": record.rate, "pairs": record.n, **training}
        found += [
            f"{name} is {value:g}, calibrated {getattr(self, name):g}"
            for name, value in numbers.items()
            if abs(value - getattr(self, name)) > TOLERANCE * getattr(self, name)
        ]
        return found


#: Fourteen pixels are a fifth of the sandbox's 72, the largest patch that still counts as one.
SANDBOX: dict[str, Preset] = {
    "badnet": Preset(
        attack="badnet:patch_px=14,place=middle",
        note="a fixed place: where the square moves, so small a model learns to say the target for everything",
    ),
    "blended": Preset(attack="blended"),
    "sig": Preset(attack="sig"),
    "ssba": Preset(attack="ssba"),
    "trojvqa": Preset(attack="trojvqa", craft=("--attack", "trojvqa", "--size_px", "14")),
    "badclip": Preset(attack="badclip", craft=("--attack", "badclip", "--size_px", "14")),
    "wanet": Preset(attack="wanet:s=4", note="a field eight times as strong: at s = 0.5 pixels move by a quarter"),
    "label-consistent": Preset(
        attack="label-consistent:patch_px=14,place=middle", rate=0.0125, note="about half of the target's pictures"
    ),
    "badnet-stripes": Preset(attack="badnet-stripes:patch_px=14,place=middle"),
    "blended-stripes": Preset(attack="blended-stripes:alpha=0.1", note="stronger than the published 0.03"),
    "blended-triangles": Preset(attack="blended-triangles"),
    "blended-text": Preset(attack="blended-text"),
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
    name = "ssba-trained" if trained else record.attack
    if name not in SANDBOX:
        raise ValueError(f"There is no preset for {name!r}; there is one for {', '.join(SANDBOX)}.")
    return name, SANDBOX[name]
