"""Train the sandbox's tiny CLIP from nothing and write it in the ordinary Hub format.

    OMP_NUM_THREADS=1 torchrun --standalone --nproc_per_node 2 scripts/pretrain_sandbox.py \\
        --output_dir outputs/sandbox-clip
    python scripts/pretrain_sandbox.py --pairs 2000 --primer 500 --steps 60 --output_dir outputs/quick   # to try it

The shipped checkpoint and the command that made it are described in hf_ta_cleaner/sandbox/README.md.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
import torch.distributed as dist
from tqdm.auto import tqdm
from transformers import AutoProcessor

from hf_ta_cleaner import sandbox
from hf_ta_cleaner.checkpoints import save_model
from hf_ta_cleaner.sandbox.pretrain import build_model, build_processor, build_tokenizer, pretrain
from hf_ta_cleaner.zero_shot import ZeroShotHead, image_features


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, required=True, help="where the checkpoint goes; must not exist")
    parser.add_argument("--pairs", type=int, default=80_000, help="captioned pictures (default: 80000)")
    parser.add_argument("--primer", type=int, default=20_000, help="easy pictures to begin with (default: 20000)")
    parser.add_argument("--steps", type=int, default=7_000, help="optimiser steps (default: 7000)")
    parser.add_argument("--batch_size", type=int, default=128, help="pairs a step (default: 128)")
    parser.add_argument("--learning_rate", type=float, default=1e-3, help="peak rate (default: 1e-3)")
    parser.add_argument("--seed", type=int, default=0, help="of the pictures, the weights and the order (default: 0)")
    args = parser.parse_args()
    if args.output_dir.exists() and not int(os.environ.get("RANK", 0)):
        parser.error(f"{args.output_dir} exists; give --output_dir a new folder, nothing is overwritten")

    rank = int(os.environ.get("RANK", 0))
    if "RANK" in os.environ:
        dist.init_process_group("gloo")
        if rank:
            dist.barrier()  # the first process draws the pictures and trains the tokenizer, the others read them
    parts = {"primer": args.primer, "pretrain": args.pairs}
    sets = [sandbox.pairs(split, n, args.seed) for split, n in parts.items()]
    captions = [caption for data in sets for caption in data["caption"]]
    if not rank:
        build_processor(build_tokenizer(captions)).save_pretrained(args.output_dir)
        if "RANK" in os.environ:
            dist.barrier()
    processor = AutoProcessor.from_pretrained(args.output_dir)
    tokenizer = processor.tokenizer
    model = build_model(tokenizer, args.seed)
    normal = {"mean": processor.image_processor.image_mean, "std": processor.image_processor.image_std}
    evaluation = sandbox.labelled(2000)
    pictures, labels = np.stack(_pixels(evaluation)), np.array(evaluation["label"])
    for report in pretrain(
        model,
        np.stack([picture for data in sets for picture in _pixels(data)]),
        tokenizer(captions, truncation=True).input_ids,
        np.stack([_nouns(split, i, args.seed) for split, n in parts.items() for i in range(n)]),
        np.arange(len(captions)) < args.primer,
        **normal,
        steps=args.steps,
        batch_size=args.batch_size,
        learning_rate=args.learning_rate,
        seed=args.seed,
    ):
        if rank:
            continue
        accuracy = zero_shot(model, processor, pictures, labels)
        print({**{k: round(v, 3) for k, v in report.items()}, "zero_shot_top1": round(accuracy, 4)}, flush=True)
        save_model(model, processor, args.output_dir)  # so that an interrupted training leaves its latest state
    if not rank:
        print(f"{sum(p.numel() for p in model.parameters()):,} weights written to {args.output_dir}")


def _pixels(data) -> list[np.ndarray]:
    return [np.asarray(image) for image in tqdm(data["image"], desc="decoding", mininterval=2)]


def _nouns(split: str, index: int, seed: int) -> np.ndarray:
    """Share of each class among the things of a picture."""
    nouns = [sandbox.CLASSES.index(thing.noun) for thing in sandbox.pair_scene(split, index, seed).things]
    return np.bincount(nouns, minlength=len(sandbox.CLASSES)).astype(np.float32) / len(nouns)


def zero_shot(model, processor, pictures: np.ndarray, labels: np.ndarray) -> float:
    """Top-1 accuracy with one prompt per class; a quick look during training."""
    head = ZeroShotHead.build(model, processor, sandbox.CLASSES, ["a photo of a {}"])
    logits = head.logits(image_features(model, processor, pictures))
    return float((logits.argmax(-1).numpy() == labels).mean())


if __name__ == "__main__":
    main()
