"""Check image-caption pairs for poison: score every pair, rank them, show the worst, write the rest.

    python scripts/check_data.py --dataset outputs/poisoned --model sandbox --output_dir outputs/check
    python scripts/check_data.py --dataset pixparse/cc3m-wds --streaming --max_samples 100000 --model ID \\
        --output_dir outputs/check
    python scripts/check_data.py --dataset photos/ --model ID --drop 0.01 --output_dir outputs/check

Writes scores.csv (one row for each pair, the most suspect first), check.json and sheet.png. With --drop it also
writes filtered/, a saved dataset without that share of the most suspect pairs. A --model that was trained on these
pairs shows what it learned from them. Another model shows which captions are wrong.

Exit codes: 0 nothing stands out, 3 something does, 2 wrong input.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from hf_ta_cleaner.commands.options import PairOptions
from hf_ta_cleaner.commands.parser import CommandParser, fail, set_up_logging


SUSPECT = 3


@dataclass
class CheckOptions:
    """How to check."""

    _argument_group_name = "check"

    model: str = field(metadata={"help": "the CLIP that embeds the pairs: sandbox, Hub id or folder"})
    output_dir: Path = field(metadata={"help": "where the scores go; must be new or empty"})
    drop: float | None = field(
        default=None, metadata={"help": "share of the most suspect pairs to leave out of filtered/, in [0, 1)"}
    )
    worst: int = field(default=48, metadata={"help": "how many of the most suspect pairs sheet.png shows"})
    batch_size: int = field(default=1024, metadata={"help": "pairs that are compared with each other"})
    neighbors: int = field(default=16, metadata={"help": "nearest pictures that a picture is compared with"})
    geometry: str | None = field(default=None, metadata={"help": "crop or squash (default: as the processor does)"})
    streaming: bool = field(default=False, metadata={"help": "read row by row and copy nothing; not with --drop"})
    seed: int = field(default=0, metadata={"help": "of the order in which pairs are compared"})
    allow_pickle: bool = field(
        default=False, metadata={"help": "allow full unpickling of a .bin (runs code from the file)"}
    )
    device: str = field(default="auto", metadata={"help": "cpu, cuda, ... (default: an accelerator if there is one)"})


def make_parser() -> CommandParser:
    return CommandParser([CheckOptions, PairOptions], description=__doc__)


def main(argv: list[str] | None = None) -> None:
    options, data = make_parser().parse(argv)
    set_up_logging(main_process=True)
    try:
        findings = check(options, data)
    except (ValueError, OSError) as error:
        fail(error)
    if findings:
        raise SystemExit(SUSPECT)


def check(options: CheckOptions, data: PairOptions) -> list[str]:
    """Loads and scores the pairs and writes the results. Returns a sentence for each thing that stands out."""
    from accelerate import PartialState

    from hf_ta_cleaner.data.loading import load_pairs, stream_pairs
    from hf_ta_cleaner.detection.pair_check import score_pairs, write_check
    from hf_ta_cleaner.models.checkpoints import load_model

    if data.dataset is None:
        raise ValueError("no pairs were named; give --dataset")
    if options.drop is not None and (options.streaming or not 0 <= options.drop < 1):
        raise ValueError(
            "--drop writes a copy of the other pairs: give a share in [0, 1), and leave out --streaming, which keeps "
            f"none; got --drop {options.drop:g}{' --streaming' if options.streaming else ''}. scores.csv has the rows"
        )
    if options.output_dir.exists() and any(options.output_dir.iterdir()):
        raise ValueError(f"{options.output_dir} holds files; give a new --output_dir")
    named = {"split": data.split, "image_column": data.image_column, "caption_column": data.caption_column}
    if options.streaming:
        pairs, _ = stream_pairs(data.dataset, max_samples=data.max_samples, **named)
        if data.max_samples is not None and not hasattr(pairs, "__len__"):
            pairs = pairs.take(data.max_samples)
    else:
        pairs = load_pairs(data.dataset, max_samples=data.max_samples, **named)
    model, processor = load_model(options.model, allow_pickle=options.allow_pickle)
    device = PartialState().device if options.device == "auto" else options.device
    scores = score_pairs(
        model.to(device),
        processor,
        pairs,
        batch_size=options.batch_size,
        k=options.neighbors,
        geometry=options.geometry,
        seed=options.seed,
    )
    findings = scores.findings()
    write_check(scores, options.output_dir, model=options.model, dataset=data.dataset, worst=options.worst)
    print(f"{len(scores.rows):,} pairs scored, {len(scores.unreadable):,} unreadable")
    for finding in findings or ["nothing stands out; a trigger that few pairs carry may still be among the worst"]:
        print(f"- {finding}")
    if options.drop is not None:
        kept = scores.kept(options.drop)
        pairs.select(kept).save_to_disk(options.output_dir / "filtered")
        print(f"{len(kept):,} pairs kept in {options.output_dir / 'filtered'}")
    print(f"Written to {options.output_dir}: scores.csv, check.json, sheet.png")
    return findings


if __name__ == "__main__":
    main()
