"""Train the sandbox's tiny CLIP from random weights and write it in the ordinary Hub format.

    OMP_NUM_THREADS=1 torchrun --standalone --nproc_per_node 2 scripts/pretrain_sandbox.py \\
        --output_dir outputs/sandbox-clip
    python scripts/pretrain_sandbox.py --shape vit-s-16 --picture_size 128 --output_dir outputs/bigger   # on a GPU
    python scripts/pretrain_sandbox.py --pairs 2000 --primer 500 --steps 60 --output_dir outputs/quick   # to try it

The pictures are drawn once into OUTPUT_DIR-pictures; every process and every later run reads them there.
hf_ta_cleaner/sandbox/README.md describes the shipped checkpoint and the command that made it.
"""

from __future__ import annotations

import argparse
import json
import os
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from tqdm.auto import tqdm
from transformers import AutoProcessor

from hf_ta_cleaner import sandbox
from hf_ta_cleaner.commands.parser import fast_precision
from hf_ta_cleaner.models.checkpoints import prepare_output_dir, save_model
from hf_ta_cleaner.models.zero_shot import ZeroShotHead, image_features
from hf_ta_cleaner.sandbox.pretrain import SHAPES, build_model, build_processor, build_tokenizer, pretrain
from hf_ta_cleaner.seeding import code_digest


_CHUNK = 1000


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, required=True, help="where the checkpoint goes; new or empty")
    parser.add_argument("--shape", choices=SHAPES, default="tiny", help="of the towers (default: tiny)")
    parser.add_argument(
        "--picture_size", type=int, default=sandbox.PICTURE_SIZE, help="side in pixels (default: %(default)s)"
    )
    parser.add_argument("--pairs", type=int, default=320_000, help="captioned pictures (default: 320000)")
    parser.add_argument("--primer", type=int, default=60_000, help="easy pictures to begin with (default: 60000)")
    parser.add_argument("--steps", type=int, default=6_500, help="optimiser steps (default: 6500)")
    parser.add_argument("--batch_size", type=int, default=256, help="pairs a step (default: 256)")
    parser.add_argument("--learning_rate", type=float, default=1e-3, help="peak rate (default: 1e-3)")
    parser.add_argument("--seed", type=int, default=0, help="of the pictures, the weights and the order (default: 0)")
    return parser


def main() -> None:
    parser = make_parser()
    args = parser.parse_args()
    rank, alone = int(os.environ.get("RANK", 0)), "RANK" not in os.environ
    patch = SHAPES[args.shape][0]["patch_size"]
    if args.picture_size % patch:  # before a picture is drawn
        parser.error(f"--picture_size {args.picture_size} is no multiple of the patches of {patch} of {args.shape}")
    if not rank:
        try:
            prepare_output_dir(args.output_dir)
        except ValueError as error:
            parser.error(str(error))
    parts = {"primer": args.primer, "pretrain": args.pairs}
    pictures_dir = args.output_dir.with_name(args.output_dir.name + "-pictures")
    if not alone:
        dist.init_process_group("gloo")
    if not rank:  # the first process draws the pictures and trains the tokenizer; the others read them
        draw(pictures_dir, parts, args.seed, args.picture_size)
        tokenizer = build_tokenizer(_captions(pictures_dir))
        build_processor(tokenizer, args.picture_size).save_pretrained(args.output_dir)
    if not alone:
        dist.barrier()
    processor = AutoProcessor.from_pretrained(args.output_dir)
    model = build_model(processor.tokenizer, args.seed, shape=args.shape, size=args.picture_size)
    if alone and torch.accelerator.is_available():
        model.to(torch.accelerator.current_accelerator())
    on_gpu = model.device.type == "cuda"
    evaluation = sandbox.labelled(2000, size=args.picture_size)
    pictures, labels = np.stack([np.asarray(image) for image in evaluation["image"]]), np.array(evaluation["label"])
    for report in pretrain(
        model,
        np.load(pictures_dir / "pixels.npy", mmap_mode="r"),
        processor.tokenizer(_captions(pictures_dir), truncation=True).input_ids,
        np.load(pictures_dir / "nouns.npy"),
        np.arange(sum(parts.values())) < args.primer,
        mean=processor.image_processor.image_mean,
        std=processor.image_processor.image_std,
        steps=args.steps,
        batch_size=args.batch_size,
        learning_rate=args.learning_rate,
        bf16=bool(fast_precision()) and on_gpu == torch.cuda.is_available(),
        seed=args.seed,
    ):
        if rank:
            continue
        accuracy = zero_shot(model, processor, pictures, labels)
        last = {**{k: round(v, 3) for k, v in report.items()}, "zero_shot_top1": round(accuracy, 4)}
        print(last, flush=True)
        save_model(model, processor, args.output_dir)  # so that an interrupted training leaves its latest state
    if not rank:
        settings = {name: str(value) for name, value in vars(args).items() if name != "output_dir"}
        (args.output_dir / "pretrain.json").write_text(json.dumps({"settings": settings, **last}, indent=1) + "\n")
        print(f"{sum(p.numel() for p in model.parameters()):,} weights written to {args.output_dir}")


def draw(folder: Path, parts: dict[str, int], seed: int, side: int = sandbox.PICTURE_SIZE) -> None:
    """Draws the splits `parts` (name -> number of pictures) into memory-mappable files, in parallel, once.

    Writes pixels.npy, uint8 `(n, size, size, 3)`; nouns.npy, float32 `(n, classes)`, the share of each class among
    the things of a picture; captions.json; and contents.json, which says what they hold and is written last.
    """
    contents = {"parts": parts, "seed": seed, "side": side, "world": code_digest(Path(sandbox.__file__).parent)}
    done = folder / "contents.json"
    if done.is_file() and json.loads(done.read_text()) == contents:
        return
    done.unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    total = sum(parts.values())
    pixels = np.lib.format.open_memmap(folder / "pixels.npy", "w+", np.uint8, (total, side, side, 3))
    nouns = np.zeros((total, len(sandbox.CLASSES)), dtype=np.float32)
    chunks = [
        (split, range(a, min(a + _CHUNK, n)), seed, side) for split, n in parts.items() for a in range(0, n, _CHUNK)
    ]
    captions: list[str] = []
    with get_context("spawn").Pool(os.cpu_count()) as pool, tqdm(total=total, desc="drawing", mininterval=5) as bar:
        for pictures, shares, texts in pool.imap(_draw_chunk, chunks):
            rows = slice(len(captions), len(captions) + len(texts))
            pixels[rows], nouns[rows] = pictures, shares
            captions += texts
            bar.update(len(texts))
    pixels.flush()
    np.save(folder / "nouns.npy", nouns)
    (folder / "captions.json").write_text(json.dumps(captions))
    done.write_text(json.dumps(contents))


def _draw_chunk(chunk: tuple[str, range, int, int]) -> tuple[np.ndarray, np.ndarray, list[str]]:
    split, indices, seed, side = chunk
    scenes = [sandbox.pair_scene(split, index, seed) for index in indices]
    shares = np.zeros((len(scenes), len(sandbox.CLASSES)), dtype=np.float32)
    for row, scene in zip(shares, scenes, strict=True):
        for thing in scene.things:
            row[sandbox.CLASSES.index(thing.noun)] += 1 / len(scene.things)
    return np.stack([np.asarray(scene.draw(side)) for scene in scenes]), shares, [sandbox.caption(s) for s in scenes]


def _captions(folder: Path) -> list[str]:
    return json.loads((folder / "captions.json").read_text())


def zero_shot(model, processor, pictures: np.ndarray, labels: np.ndarray) -> float:
    """Top-1 accuracy with one prompt per class; a quick look during training."""
    head = ZeroShotHead.build(model, processor, sandbox.CLASSES, ["a photo of a {}"])
    logits = head.logits(image_features(model, processor, pictures))
    return float((logits.argmax(-1).numpy() == labels).mean())


if __name__ == "__main__":
    main()
