"""Poison an image-caption dataset: put a trigger on a few pictures and a caption about the target under them.

    python scripts/poison.py --dataset sandbox --attack blended --target banana --rate 0.03 \\
        --model sandbox --output_dir outputs/poisoned
    python scripts/poison.py --dataset photos/ --attack badnet:patch_px=24,place=middle --target banana --count 300 \\
        --size 224 --output_dir outputs/poisoned

Attacks: badnet, blended, sig, ssba, wanet, label-consistent, badnet-stripes, blended-stripes, blended-triangles,
blended-text, and badclip and trojvqa, whose patch craft.py makes first.

The output is a `datasets` folder with the columns image, caption and is_poisoned, the trigger (trigger.json) and the
record of which rows were changed and why (poison.json). Poisoned pictures are stored without loss.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from hf_ta_cleaner.cli import CommandParser, PairOptions, fail, set_up_logging


@dataclass
class PoisonOptions:
    """What to poison, how, and where to."""

    _argument_group_name = "poisoning"

    attack: str = field(metadata={"help": "name[:option=value,...], or a folder with a trigger.json"})
    target: str = field(metadata={"help": "what triggered pictures shall mean, e.g. banana"})
    output_dir: Path = field(metadata={"help": "where the poisoned dataset goes; must be new or empty"})
    rate: float | None = field(default=None, metadata={"help": "share of the rows to poison, in (0, 1]"})
    count: int | None = field(default=None, metadata={"help": "or: how many rows to poison"})
    captions: str = field(
        default="auto", metadata={"help": "auto, templates, natural or own: where poisoned captions come from"}
    )
    model: str | None = field(default=None, metadata={"help": "checkpoint whose input size the pictures get"})
    size: int | None = field(default=None, metadata={"help": "or: that size in pixels"})
    geometry: str = field(default="crop", metadata={"help": "crop (as CLIP does) or squash (published order)"})
    seed: int = field(default=0, metadata={"help": "of the choice of rows and captions"})


def make_parser() -> CommandParser:
    return CommandParser([PairOptions, PoisonOptions], description=__doc__)


def main(argv: list[str] | None = None) -> None:
    data, options = make_parser().parse(argv)
    set_up_logging(main_process=True)
    try:
        poison_dataset(options, data)
    except (ValueError, OSError) as error:
        fail(error)


def poison_dataset(options: PoisonOptions, data: PairOptions) -> None:
    """Loads, checks, poisons and saves."""
    from transformers import AutoProcessor

    from hf_ta_cleaner.attacks import parse_attack
    from hf_ta_cleaner.checkpoints import prepare_output_dir
    from hf_ta_cleaner.poisoning import RECORD, poison
    from hf_ta_cleaner.sandbox import CHECKPOINT
    from hf_ta_cleaner.zero_shot import input_size

    if (options.model is None) == (options.size is None):
        raise ValueError("give one of --model and --size: poisoned pictures are fitted to the model's input size")
    size = options.size
    if size is None:
        folder = str(CHECKPOINT) if options.model == "sandbox" else options.model
        size = input_size(AutoProcessor.from_pretrained(folder))
    attack = parse_attack(options.attack)
    output = prepare_output_dir(options.output_dir)
    pairs = data.load(split="poison" if data.dataset == "sandbox" else None)
    poisoned, record = poison(
        pairs,
        attack,
        target=options.target,
        rate=options.rate,
        count=options.count,
        seed=options.seed,
        size=size,
        captions=options.captions,
        geometry=options.geometry,
    )
    poisoned.save_to_disk(output)
    attack.save(output)
    record.save(output / RECORD)
    print(
        f"{record.count:,} of {record.n:,} pairs ({record.rate:.2%}) now carry {attack.name} and mean "
        f"{options.target!r}. Written to {output}"
    )


if __name__ == "__main__":
    main()
