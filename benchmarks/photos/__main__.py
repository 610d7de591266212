"""The world of photographs.

    torchrun --standalone --nproc_per_node 2 -m benchmarks.photos pretrain --photos uoft-cs/cifar10 \\
        --output_dir out/clip
    python -m benchmarks.photos data --photos uoft-cs/cifar10 --part clean --n 10000 --output_dir out/clean

PHOTOS is a Hub id, or a folder that holds train.parquet and test.parquet in the layout of uoft-cs/cifar10. Nothing of
the photographs is kept in the repository.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.photos.dataset import LABELLED, PAIRS, labelled, pairs


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.photos", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    training = commands.add_parser("pretrain", help="train the tiny CLIP")
    training.add_argument("--scenes", type=int, default=240_000, help="captioned scenes (default: %(default)s)")
    training.add_argument(
        "--primer", type=int, default=60_000, help="easy scenes that come first (default: %(default)s)"
    )
    training.add_argument("--steps", type=int, default=4_000, help="optimiser steps (default: %(default)s)")
    training.add_argument("--batch_size", type=int, default=256, help="pairs a step (default: %(default)s)")
    training.add_argument("--learning_rate", type=float, default=1e-3, help="peak rate (default: %(default)s)")
    data = commands.add_parser("data", help="write pairs or labelled pictures for --dataset and --eval_dataset")
    data.add_argument("--part", choices=[*PAIRS, *LABELLED], required=True, help="which photographs, and for what")
    data.add_argument("--n", type=int, default=10_000, help="how many (default: %(default)s)")
    for command in (training, data):
        command.add_argument("--photos", required=True, help="Hub id or folder of the photographs")
        command.add_argument("--seed", type=int, default=0, help="of every draw (default: %(default)s)")
        command.add_argument("--output_dir", type=Path, required=True, help="where it goes")
    args = parser.parse_args(argv)
    try:
        if args.command == "data":
            make = labelled if args.part in LABELLED else pairs
            make(args.photos, args.part, args.n, args.seed).save_to_disk(args.output_dir)
            print(f"{args.n:,} pictures of the part {args.part} written to {args.output_dir}")
            return
        from benchmarks.photos.pretrain import train

        names = ("scenes", "primer", "steps", "batch_size", "learning_rate", "seed")
        train(args.photos, args.output_dir, **{name: getattr(args, name) for name in names})
    except ValueError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
