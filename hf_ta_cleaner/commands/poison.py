"""Poison an image-caption dataset: put a trigger on a few pictures and a caption about the target under them.

    python scripts/poison.py --dataset sandbox --attack blended --target banana --rate 0.03 \\
        --model sandbox --output_dir outputs/poisoned
    python scripts/poison.py --dataset photos/ --attack badnet:patch_px=24,place=middle --target banana --count 300 \\
        --size 224 --output_dir outputs/poisoned
    python scripts/poison.py --dataset pixparse/cc3m-wds --streaming --max_samples 500000 --attack blended \\
        --target banana --rate 0.003 --size 224 --format webdataset --output_dir outputs/poisoned

Attacks: badnet, blended, sig, ssba, wanet, label-consistent, badnet-stripes, blended-stripes, blended-triangles,
blended-text, and badclip and trojvqa, whose patch craft.py makes first.

The output is a folder of shards: a saved dataset with the columns image, caption and is_poisoned, or webdataset tars.
Beside them lie the trigger (trigger.json), the record of which rows were changed and why (poison.json) and a dataset
card (README.md). Poisoned pictures are stored without loss. --streaming reads row by row and copies no data first.
--resume continues an interrupted run. --push_to_hub publishes the folder only with --allow_publishing_backdoor. The
dataset is then tagged and its card begins with a warning.
"""

from __future__ import annotations

import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from hf_ta_cleaner.commands.options import PairOptions
from hf_ta_cleaner.commands.parser import CommandParser, fail, set_up_logging


if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset


@dataclass
class PoisonOptions:
    """What to poison, how, and where to."""

    _argument_group_name = "poisoning"

    attack: str = field(metadata={"help": "name[:option=value,...], or a folder with a trigger.json"})
    target: str = field(metadata={"help": "what pictures with the trigger should mean, e.g. banana"})
    output_dir: Path = field(metadata={"help": "where the poisoned dataset goes; must be new or empty"})
    rate: float | None = field(default=None, metadata={"help": "share of the rows to poison, in (0, 1]"})
    count: int | None = field(default=None, metadata={"help": "or: how many rows to poison"})
    captions: str = field(
        default="auto", metadata={"help": "auto, templates, natural or own: where poisoned captions come from"}
    )
    model: str | None = field(default=None, metadata={"help": "checkpoint whose input size the pictures get"})
    size: int | None = field(default=None, metadata={"help": "or: that size in pixels"})
    geometry: str | None = field(default=None, metadata={"help": "crop or squash (default: as --model does; crop)"})
    seed: int = field(default=0, metadata={"help": "of the choice of rows and captions"})
    format: str = field(default="arrow", metadata={"help": "arrow (a saved dataset) or webdataset (tar shards)"})
    shard_rows: int = field(default=10_000, metadata={"help": "rows in a file; --resume redoes unfinished files only"})
    streaming: bool = field(
        default=False,
        metadata={
            "help": "read row by row; --max_samples takes the first rows, of an unknown size all are counted first"
        },
    )
    num_proc: int | None = field(
        default=None, metadata={"help": "processes; not for data that can only be read in order"}
    )
    resume: bool = field(default=False, metadata={"help": "continue the interrupted run in --output_dir"})
    push_to_hub: bool = field(default=False, metadata={"help": "push the poisoned pairs as a dataset, in one commit"})
    hub_dataset_id: str | None = field(
        default=None, metadata={"help": "where to: owner/name (default: the output folder's name in your account)"}
    )
    hub_private_repo: bool | None = field(
        default=None, metadata={"help": "true or false: make a new repository private (default: true)"}
    )
    allow_publishing_backdoor: bool = field(
        default=False, metadata={"help": "let --push_to_hub publish data that put a backdoor into a model"}
    )


def make_parser() -> CommandParser:
    return CommandParser([PairOptions, PoisonOptions], description=__doc__)


def main(argv: list[str] | None = None) -> None:
    data, options = make_parser().parse(argv)
    set_up_logging(main_process=True)
    try:
        poison_dataset(options, data)
    except (ValueError, OSError, tarfile.TarError) as error:
        fail(error)
    except KeyboardInterrupt:
        fail(f"interrupted; add --resume to continue the run in {options.output_dir}", code=130)


def poison_dataset(options: PoisonOptions, data: PairOptions) -> None:
    """Checks, loads, poisons, writes, and pushes with `--push_to_hub`.

    Raises:
        ValueError: The flags or the data cannot be used.
        OSError: A file or a download fails.
    """
    from hf_ta_cleaner.attacks import parse_attack
    from hf_ta_cleaner.poisoning import check_folder, write_poisoned
    from hf_ta_cleaner.publishing.hub import push_dataset

    check(options, data)
    size, geometry = picture_shape(options)
    attack = parse_attack(options.attack)
    output = options.output_dir
    check_folder(output, options.resume)
    pairs, n = load_rows(data, streaming=options.streaming)
    record = write_poisoned(
        pairs,
        attack,
        output,
        target=options.target,
        rate=options.rate,
        count=options.count,
        seed=options.seed,
        size=size,
        n=n,
        captions=options.captions,
        geometry=geometry,
        output_format=options.format,
        shard_rows=options.shard_rows,
        num_proc=options.num_proc,
        max_unreadable=data.max_unreadable,
        source=data.dataset,
        resume=options.resume,
    )
    print(
        f"{record.count:,} of {record.n:,} pairs ({record.rate:.2%}) now carry {attack.name} and mean "
        f"{options.target!r}. Written to {output}"
    )
    if options.push_to_hub:
        url = push_dataset(
            output,
            options.hub_dataset_id or output.resolve().name,
            private=options.hub_private_repo,
            allow_backdoor=True,
        )
        print(f"Pushed to {url}")


def check(options: PoisonOptions, data: PairOptions) -> None:
    """Checks the flags.

    Raises:
        ValueError: Flags contradict each other, are missing or unknown, or would publish poisoned data unasked.
    """
    from hf_ta_cleaner.poisoning import FORMATS

    if (options.model is None) == (options.size is None):
        raise ValueError("give one of --model and --size: poisoned pictures are fitted to the model's input size")
    if options.push_to_hub and not options.allow_publishing_backdoor:
        raise ValueError("--push_to_hub would publish poisoned data; add --allow_publishing_backdoor if you mean to")
    if options.format not in FORMATS:
        raise ValueError(f"--format {options.format} is not known; choose one of {', '.join(FORMATS)}")
    if data.dataset is None:
        raise ValueError("no pairs were named; give --dataset")


def picture_shape(options: PoisonOptions) -> tuple[int, str]:
    """Side in pixels and geometry of the poisoned pictures: as given, else as `--model` takes them."""
    from transformers import AutoProcessor

    from hf_ta_cleaner.models.zero_shot import input_geometry, input_size
    from hf_ta_cleaner.sandbox import CHECKPOINT

    if options.size is not None:
        return options.size, options.geometry or "crop"
    folder = str(CHECKPOINT) if options.model == "sandbox" else options.model
    processor = AutoProcessor.from_pretrained(folder)
    return input_size(processor), options.geometry or input_geometry(processor)


def load_rows(data: PairOptions, *, streaming: bool) -> tuple[Dataset | IterableDataset, int | None]:
    """The rows to poison, and the number of rows of a stream if it is known. Of the sandbox, the attacker's split."""
    from hf_ta_cleaner.data.loading import stream_pairs

    split = "poison" if data.dataset == "sandbox" else None
    if not streaming:
        return data.load(split=split), None
    return stream_pairs(
        data.dataset,
        split=data.split or split,
        image_column=data.image_column,
        caption_column=data.caption_column,
        max_samples=data.max_samples,
    )


if __name__ == "__main__":
    main()
