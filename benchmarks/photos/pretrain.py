"""Trains the tiny CLIP of the photographs' world from nothing and writes it in the ordinary Hub format."""

from __future__ import annotations

import json
import os
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch.distributed as dist
from tqdm.auto import tqdm
from transformers import AutoProcessor

from benchmarks.photos.dataset import PARTS, load_photos, scene
from benchmarks.photos.scenes import CLASSES, SIDE, caption
from hf_ta_cleaner.commands.parser import fast_precision
from hf_ta_cleaner.models.checkpoints import prepare_output_dir, save_model
from hf_ta_cleaner.models.zero_shot import ZeroShotHead, image_features
from hf_ta_cleaner.sandbox.pretrain import build_model, build_processor, build_tokenizer, pretrain
from hf_ta_cleaner.seeding import code_digest


_CHUNK = 1000


def train(
    source: str,
    output: Path,
    *,
    scenes: int,
    primer: int,
    steps: int,
    batch_size: int = 256,
    learning_rate: float = 1e-3,
    seed: int = 0,
    tested: int = 2_000,
) -> None:
    """Draws the scenes into OUTPUT-pictures, once, and trains on them; with torchrun on several processes.

    Args:
        source: The photographs, see `load_photos`.
        output: Where the checkpoint goes; it is written at every report, so an interrupted training leaves its latest.
        scenes, primer: Captioned scenes, and how many easy ones come before them.
        tested: Labelled pictures for the accuracy that is printed.

    Raises:
        ValueError: The output folder is not empty.
    """
    rank, alone = int(os.environ.get("RANK", 0)), "RANK" not in os.environ
    pictures = output.with_name(output.name + "-pictures")
    if not alone:
        dist.init_process_group("gloo")
    if not rank:
        prepare_output_dir(output)
        draw(source, pictures, {"primer": primer, "pretrain": scenes}, seed)
        build_processor(build_tokenizer(_captions(pictures)), SIDE).save_pretrained(output)
    if not alone:
        dist.barrier()
    processor = AutoProcessor.from_pretrained(output)
    model = build_model(processor.tokenizer, seed, shape="tiny-8", size=SIDE)
    shown, labels = evaluation(source, tested)
    for report in pretrain(
        model,
        np.load(pictures / "pixels.npy", mmap_mode="r"),
        processor.tokenizer(_captions(pictures), truncation=True).input_ids,
        np.load(pictures / "nouns.npy"),
        np.arange(primer + scenes) < primer,
        mean=processor.image_processor.image_mean,
        std=processor.image_processor.image_std,
        steps=steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        bf16=bool(fast_precision()),
        seed=seed,
        report_every=250,
    ):
        if rank:
            continue
        head = ZeroShotHead.build(model, processor, CLASSES, ["a photo of a {}"])
        right = head.logits(image_features(model, processor, shown)).argmax(-1).numpy() == labels
        last = {**{k: round(v, 3) for k, v in report.items()}, "zero_shot_top1": round(float(right.mean()), 4)}
        print(last, flush=True)
        save_model(model, processor, output)
        (output / "pretrain.json").write_text(json.dumps({"seed": seed, "batch_size": batch_size, **last}) + "\n")


def evaluation(source: str, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Pictures `(n, 64, 64, 3)` and labels of the part that recipes are developed on."""
    photos, labels = load_photos(source, PARTS["development"][0])
    scenes = [scene("development", index, labels) for index in range(n)]
    return np.stack([np.asarray(s.draw(photos)) for s in scenes]), np.array(
        [CLASSES.index(s.photos[0].label) for s in scenes]
    )


def draw(source: str, folder: Path, parts: dict[str, int], seed: int) -> None:
    """Draws so many scenes of each part into memory-mappable files, in parallel, once.

    Writes pixels.npy, uint8 `(n, 64, 64, 3)`; nouns.npy, float32 `(n, classes)`, the share of each class among the
    photographs of a scene; captions.json; and contents.json, which says what they hold and is written last.
    """
    contents = {"parts": parts, "seed": seed, "world": code_digest(Path(__file__).parent)}
    done = folder / "contents.json"
    if done.is_file() and json.loads(done.read_text()) == contents:
        return
    done.unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    total = sum(parts.values())
    pixels = np.lib.format.open_memmap(folder / "pixels.npy", "w+", np.uint8, (total, SIDE, SIDE, 3))
    nouns = np.zeros((total, len(CLASSES)), dtype=np.float32)
    chunks = [
        (source, part, range(a, min(a + _CHUNK, n)), seed) for part, n in parts.items() for a in range(0, n, _CHUNK)
    ]
    captions: list[str] = []
    with get_context("spawn").Pool(os.cpu_count()) as pool, tqdm(total=total, desc="drawing", mininterval=5) as bar:
        for drawn, shares, texts in pool.imap(_draw_chunk, chunks):
            rows = slice(len(captions), len(captions) + len(texts))
            pixels[rows], nouns[rows] = drawn, shares
            captions += texts
            bar.update(len(texts))
    pixels.flush()
    np.save(folder / "nouns.npy", nouns)
    (folder / "captions.json").write_text(json.dumps(captions))
    done.write_text(json.dumps(contents))


def _draw_chunk(chunk: tuple[str, str, range, int]) -> tuple[np.ndarray, np.ndarray, list[str]]:
    source, part, indices, seed = chunk
    photos, labels = load_photos(source, PARTS[part][0])
    scenes = [scene(part, index, labels, seed) for index in indices]
    shares = np.zeros((len(scenes), len(CLASSES)), dtype=np.float32)
    for row, drawn in zip(shares, scenes, strict=True):
        for photo in drawn.photos:
            row[CLASSES.index(photo.label)] += 1 / len(drawn.photos)
    return np.stack([np.asarray(drawn.draw(photos)) for drawn in scenes]), shares, [caption(s) for s in scenes]


def _captions(folder: Path) -> list[str]:
    return json.loads((folder / "captions.json").read_text())
