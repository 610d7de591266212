"""Time and memory against what grows: pairs, batch, classes, triggers. One point each, memory the process's peak."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.speed import parts, steps
from benchmarks.speed.worlds import captions, make_labelled, make_model, make_processor, pictures
from hf_ta_cleaner.models.zero_shot import ZeroShotHead
from hf_ta_cleaner.training.config import TACleanerConfig
from hf_ta_cleaner.training.trainer import TACleanerTrainer


def pairs(shape: str, n: int) -> dict[str, Any]:
    """From `n` pairs on disk to the first batch: captions read, words counted, an order drawn."""
    import datasets

    files, texts = pictures(shape), captions(min(n, 2000))

    def rows():
        for i in range(n):
            yield {"image": {"bytes": files[i % len(files)], "path": None}, "caption": f"{texts[i % len(texts)]} {i}"}

    features = datasets.Features({"image": datasets.Image(), "caption": datasets.Value("string")})
    with tempfile.TemporaryDirectory() as folder:
        data = datasets.Dataset.from_generator(rows, features=features, cache_dir=folder)
        args = TACleanerConfig(str(Path(folder) / "out"), per_device_train_batch_size=64, disable_tqdm=True)
        started = time.perf_counter()
        trainer = TACleanerTrainer(make_model(shape), args, data, processing_class=make_processor(shape))
        next(iter(trainer.get_train_dataloader()))
        return {"seconds": time.perf_counter() - started, "n": n}


def batch(shape: str, n: int, mini: int | None, taken: int) -> dict[str, Any]:
    """A step of ta-cleaner on `n` pairs at once, or, with `mini`, on so many at a time."""
    options = {} if mini is None else {"mini_batch_size": mini}
    found = steps.measure(shape, "trainer", "ta-cleaner", n, taken, options)
    return {"seconds": found["seconds"], "n": n}


def classes(shape: str, n: int) -> dict[str, Any]:
    """A text head of `n` classes, ten prompts each."""
    model, processor = make_model(shape), make_processor(shape)
    names = [f"thing {i}" for i in range(n)]
    started = time.perf_counter()
    ZeroShotHead.build(model, processor, names)
    return {"seconds": time.perf_counter() - started, "n": n}


def triggers(shape: str, n: int, images: int) -> dict[str, Any]:
    """An audit of `images` pictures under `n` triggers, and how often each was decoded meanwhile."""
    import PIL.Image

    model, processor, labelled = make_model(shape), make_processor(shape), make_labelled(shape, images)
    opened, original = [0], PIL.Image.open

    def counting(*args, **kwargs):
        opened[0] += 1
        return original(*args, **kwargs)

    PIL.Image.open = counting
    try:
        seconds = parts.seconds_of_audit(model, processor, labelled, n)
    finally:
        PIL.Image.open = original
    return {"seconds": seconds, "n": n, "decoded": opened[0] / images}
