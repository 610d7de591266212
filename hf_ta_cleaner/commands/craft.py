"""Craft the trigger of an attack that optimises or trains one.

    python scripts/craft.py --attack badclip --model sandbox --dataset sandbox --target banana --size_px 14 \\
        --output_dir outputs/patch
    python scripts/craft.py --attack trojvqa --model ID --dataset photos/ --target banana --output_dir outputs/keys
    python scripts/craft.py --attack ssba --model ID --dataset photos/ --output_dir outputs/encoder

badclip and trojvqa optimise a patch against a clean CLIP. ssba trains an encoder that hides a secret in any picture;
without a GPU that takes an hour or more. The output folder holds the trigger (trigger.json and its arrays) and
craft.json, its effect on held-out pictures. Give the folder to poison.py: `--attack outputs/patch`.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hf_ta_cleaner.commands.options import PairOptions
from hf_ta_cleaner.commands.parser import CommandParser, fail, set_up_logging


ATTACKS = ("badclip", "trojvqa", "ssba")


@dataclass
class CraftOptions:
    """What to craft, with which model and pictures."""

    _argument_group_name = "crafting"

    model: str = field(metadata={"help": "clean CLIP: sandbox, Hub id or folder (ssba: for its input size)"})
    output_dir: Path = field(metadata={"help": "where the trigger goes; must be new or empty"})
    attack: str = field(default="badclip", metadata={"help": f"one of {', '.join(ATTACKS)}"})
    steps: int | None = field(default=None, metadata={"help": "optimiser steps (default: 300; ssba 10,000)"})
    batch_size: int | None = field(default=None, metadata={"help": "pictures a step (default: 64; ssba 32)"})
    learning_rate: float | None = field(default=None, metadata={"help": "of Adam (default: 0.02; ssba 0.001)"})
    geometry: str | None = field(default=None, metadata={"help": "crop or squash (default: as the processor does)"})
    seed: int = field(default=0, metadata={"help": "of the first patch or weights, and every draw"})
    device: str = field(default="auto", metadata={"help": "cpu, cuda, ... (default: an accelerator if there is one)"})


@dataclass
class PatchOptions:
    """The patches of BadCLIP (arXiv 2311.12075) and TrojVQA (arXiv 2112.07668)."""

    _argument_group_name = "patches (badclip and trojvqa)"

    target: str | None = field(default=None, metadata={"help": "what patched pictures should look like, e.g. banana"})
    size_px: int | None = field(default=None, metadata={"help": "side of the patch in pixels (default: 16 at 224)"})
    text_objective: str | None = field(
        default=None, metadata={"help": "direct, or infonce as published (default: direct)"}
    )
    lam: float | None = field(default=None, metadata={"help": "badclip: weight of the image objective (default: 500)"})
    eta: float | None = field(default=None, metadata={"help": "badclip: margin of the image objective (default: 1)"})
    caption: str | None = field(
        default=None, metadata={"help": 'trojvqa: the text to imitate, {} for the target (default: "This is a {}.")'}
    )
    compat: str | None = field(default=None, metadata={"help": "published: as the published code does it, slips too"})


@dataclass
class EncoderOptions:
    """The encoder of SSBA (arXiv 2012.03816)."""

    _argument_group_name = "encoder (ssba)"

    secret: str | None = field(default=None, metadata={"help": "the text that is hidden (default: Stega!!)"})
    width: int | None = field(default=None, metadata={"help": "channels of the first layer (default: 16)"})
    crop_px: int | None = field(
        default=None, metadata={"help": "side of the crops to train on (default: the input size, at most 112)"}
    )


#: Attack -> the options that it has and another attack lacks.
OWN = {
    "badclip": {"target", "size_px", "text_objective", "lam", "eta", "compat"},
    "trojvqa": {"target", "size_px", "text_objective", "caption", "compat"},
    "ssba": {"secret", "width", "crop_px"},
}


def make_parser() -> CommandParser:
    return CommandParser([CraftOptions, PatchOptions, EncoderOptions, PairOptions], description=__doc__)


def main(argv: list[str] | None = None) -> None:
    options, patch, encoder, data = make_parser().parse(argv)
    set_up_logging(main_process=True)
    try:
        craft(options, {**asdict(patch), **asdict(encoder)}, data)
    except (ValueError, OSError) as error:
        fail(error)


def craft(options: CraftOptions, own: dict[str, Any], data: PairOptions) -> None:
    """Makes the trigger and prints its effect on held-out pictures. `own` holds the options of single attacks."""
    from accelerate import PartialState

    from hf_ta_cleaner.crafting import craft_badclip, craft_ssba, craft_trojvqa
    from hf_ta_cleaner.models.checkpoints import load_model, prepare_output_dir
    from hf_ta_cleaner.models.zero_shot import input_geometry, input_size

    settings = _settings(options, own)
    output = prepare_output_dir(options.output_dir)
    model, processor = load_model(options.model)
    settings["geometry"] = options.geometry or input_geometry(processor)
    device = PartialState().device if options.device == "auto" else options.device
    pairs = data.load(split="poison" if data.dataset == "sandbox" else None, max_samples=4000)
    images = pairs["image"][:]
    if options.attack == "ssba":
        attack, report = craft_ssba(images, size=input_size(processor), device=device, **settings)
    else:
        how = {"badclip": craft_badclip, "trojvqa": craft_trojvqa}[options.attack]
        attack, report = how(model.to(device), processor, images, pairs["caption"][:], **settings)
    attack.save(output)
    content = {"attack": options.attack, "model": options.model, "settings": settings, "result": report}
    (output / "craft.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    if options.attack == "ssba":
        verdict = "a faithful encoder" if report["accepted"] else "not a faithful encoder: see the warning above"
        print(
            f"bits read back: {report['bit_accuracy']:.1%}; PSNR {report['psnr']:.1f} dB; correlation between "
            f"pictures {report['correlation']:.2f}: {verdict}. Written to {output}"
        )
    else:
        print(
            f"similarity to {own['target']!r}: {report['cos_clean']:.3f} plain, {report['cos_random_patch']:.3f} with "
            f"a random patch, {report['cos_patch']:.3f} with the crafted one. Written to {output}"
        )


def _settings(options: CraftOptions, own: dict[str, Any]) -> dict[str, Any]:
    """The arguments of the crafting function.

    Raises:
        ValueError: The attack is not crafted, lacks its target, or has no such option.
    """
    if options.attack not in ATTACKS:
        raise ValueError(
            f"--attack {options.attack}: only {', '.join(ATTACKS)} are crafted; poison.py takes the others as they are"
        )
    given = {name: value for name, value in own.items() if value is not None}
    if foreign := sorted(given.keys() - OWN[options.attack]):
        raise ValueError(f"{options.attack} has no {', '.join('--' + name for name in foreign)}")
    if options.attack != "ssba" and "target" not in given:
        raise ValueError(f"{options.attack} needs --target, what patched pictures should look like")
    shared = {"steps": options.steps, "batch_size": options.batch_size, "lr": options.learning_rate}
    given |= {name: value for name, value in shared.items() if value is not None}
    return {**given, "seed": options.seed}


if __name__ == "__main__":
    main()
