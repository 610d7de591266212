"""Craft the trigger of an attack that optimises one against a clean CLIP.

    python scripts/craft.py --model sandbox --dataset sandbox --target banana --size_px 14 --output_dir outputs/patch

The output folder holds trigger.json and trigger.png; `--attack outputs/patch` hands it to poison.py.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from hf_ta_cleaner.cli import CommandParser, PairOptions, fail, set_up_logging


@dataclass
class CraftOptions:
    """What to craft, with which model and pictures."""

    _argument_group_name = "crafting (BadCLIP's patch, arXiv 2311.12075)"

    model: str = field(metadata={"help": "clean CLIP: sandbox, Hub id or folder"})
    target: str = field(metadata={"help": "what patched pictures shall look like, e.g. banana"})
    output_dir: Path = field(metadata={"help": "where the trigger goes; must be new or empty"})
    size_px: int | None = field(default=None, metadata={"help": "side of the patch in pixels (default: 16 at 224)"})
    steps: int = field(default=300, metadata={"help": "optimiser steps"})
    batch_size: int = field(default=64, metadata={"help": "pictures a step"})
    learning_rate: float = field(default=0.02, metadata={"help": "of Adam on the pixels"})
    text_objective: str = field(default="direct", metadata={"help": "direct, or infonce as published"})
    lam: float = field(default=500.0, metadata={"help": "weight of the image objective"})
    eta: float = field(default=1.0, metadata={"help": "margin of the image objective"})
    seed: int = field(default=0, metadata={"help": "of the first patch and every draw"})


def make_parser() -> CommandParser:
    return CommandParser([PairOptions, CraftOptions], description=__doc__)


def main(argv: list[str] | None = None) -> None:
    data, options = make_parser().parse(argv)
    set_up_logging(main_process=True)
    try:
        craft(options, data)
    except (ValueError, OSError) as error:
        fail(error)


def craft(options: CraftOptions, data: PairOptions) -> None:
    """Optimises the patch and reports its effect on held-out pictures."""
    from hf_ta_cleaner.checkpoints import load_model, prepare_output_dir
    from hf_ta_cleaner.crafting import craft_badclip

    output = prepare_output_dir(options.output_dir)
    model, processor = load_model(options.model)
    pairs = data.load(split="poison" if data.dataset == "sandbox" else None, max_samples=4000)
    attack, report = craft_badclip(
        model,
        processor,
        pairs["image"][:],
        pairs["caption"][:],
        options.target,
        size_px=options.size_px,
        steps=options.steps,
        batch_size=options.batch_size,
        lr=options.learning_rate,
        text_objective=options.text_objective,
        lam=options.lam,
        eta=options.eta,
        seed=options.seed,
    )
    attack.save(output)
    (output / "craft.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(
        f"similarity to {options.target!r}: {report['cos_clean']:.3f} plain, {report['cos_random_patch']:.3f} with a "
        f"random patch, {report['cos_patch']:.3f} with the crafted one. Written to {output}"
    )


if __name__ == "__main__":
    main()
