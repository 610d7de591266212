"""The parts of a run alone: reading, views, sub-texts, tokens, whole batches, audit, poisoning, matrix products."""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.speed.steps import collator_of, sampler_of, wait
from benchmarks.speed.worlds import make_labelled, make_model, make_pairs, make_processor
from hf_ta_cleaner.attacks import get_attack
from hf_ta_cleaner.data.loading import to_rgb
from hf_ta_cleaner.data.sampling import CleaningPairs
from hf_ta_cleaner.evaluation.audit import audit
from hf_ta_cleaner.pictures import fit
from hf_ta_cleaner.poisoning import poison
from hf_ta_cleaner.seeding import numpy_rng, rng
from hf_ta_cleaner.subtexts import Parts, SubTextMap, Vocabulary, parse
from hf_ta_cleaner.training.config import METHODS, TACleanerConfig
from hf_ta_cleaner.views.augment import add_noise, augment_image, augment_text, erase


def measure(shape: str, batch: int, rounds: int, pictures: int) -> dict[str, Any]:
    """Seconds for one of each kind, the median of `rounds`.

    Args:
        batch: Pairs of a batch; what is drawn for each pair is timed over as many.
        pictures: Pictures audited and poisoned.
    """
    processor = make_processor(shape)
    side = processor.image_processor.crop_size["height"]
    pairs = make_pairs(shape, 4 * batch).map(SubTextMap(), batched=True, keep_in_memory=True)
    squares = [fit(to_rgb(pairs[i]["image"]), side) for i in range(batch)]
    images = [Image.fromarray(square) for square in squares]
    captions = pairs["caption"][:batch]
    parts = [Parts.from_row(row) for row in pairs["parts"]]
    eligible = [part for part in parts if part.eligible][:batch]
    vocabulary = Vocabulary.from_parts(pairs["parts"])
    turn = itertools.count()  # every round draws other views

    def each(work: Callable[[int, int], Any], n: int = batch) -> float:
        return median(lambda epoch: [work(i, epoch) for i in range(n)], rounds, turn) / n

    found = {
        "reading a pair": each(lambda i, _: fit(to_rgb(pairs[i]["image"]), side)),
        "AutoAugment of a picture": each(lambda i, e: augment_image(images[i], rng("image view", 0, e, i))),
        "noise on a picture": each(lambda i, e: add_noise(squares[i], numpy_rng("noise", 0, e, i))),
        "erasing in a picture": each(lambda i, e: erase(squares[i], numpy_rng("erase", 0, e, i))),
        "EDA of a caption": each(lambda i, e: augment_text(captions[i], rng("text view", 0, e, i))),
        "reading a caption, once": each(lambda i, _: parse(captions[i])),
        "sub-texts of a chosen pair": each(
            lambda i, e: vocabulary.sub_texts(eligible[i], rng("sub-texts", 0, e, i), 1, 1), len(eligible)
        ),
        "tokens of a text": median(lambda _: processor.tokenizer(list(captions), padding=True), rounds, turn) / batch,
    }
    with tempfile.TemporaryDirectory() as folder:
        for method in METHODS:
            args = TACleanerConfig(folder, method=method, per_device_train_batch_size=batch)
            collate, rows = collator_of(processor, pairs, args), CleaningPairs(pairs)
            keys = list(itertools.islice(sampler_of(pairs, args), batch))

            def whole(epoch: int, collate=collate, rows=rows, keys=keys) -> None:
                collate([rows[key._replace(epoch=epoch)] for key in keys])

            found[f"input of a pair, {method}"] = median(whole, rounds, turn) / batch
    model, labelled = make_model(shape).to(args.device), make_labelled(shape, pictures)
    found["auditing a picture, one trigger"] = seconds_of_audit(model, processor, labelled, 1) / pictures
    found["poisoning a picture"] = seconds_of_poisoning(shape, pictures, side) / pictures
    return {
        "each": found,
        "tokens": float(np.mean([len(ids) for ids in processor.tokenizer(list(captions)).input_ids])),
    }


def median(work: Callable[[int], Any], rounds: int, turn=None) -> float:
    """Seconds of `work(round)`, the median over the rounds after one that does not count."""
    taken = []
    for _ in range(rounds + 1):
        number = next(turn) if turn is not None else 0
        started = time.perf_counter()
        work(number)
        taken.append(time.perf_counter() - started)
    return float(np.median(taken[1:]))


#: Seven triggers that need no files.
TRIGGERS = ("blended", "badnet", "sig", "wanet", "badnet-stripes", "blended-stripes", "blended-triangles")


def seconds_of_audit(model, processor, labelled, triggers: int) -> float:
    started = time.perf_counter()
    attacks = [get_attack(name) for name in TRIGGERS[:triggers]]
    audit(model, processor, labelled, attacks, target="banana", templates=("a {}.",), progress=False)
    wait()
    return time.perf_counter() - started


def seconds_of_poisoning(shape: str, pictures: int, side: int) -> float:
    """Of `pictures` pictures, none of which is left alone; `datasets` writes them to a cache, as it does for users."""
    import datasets

    pairs = make_pairs(shape, 2 * pictures)
    with tempfile.TemporaryDirectory() as folder:
        datasets.config.HF_DATASETS_CACHE, before = folder, datasets.config.HF_DATASETS_CACHE
        datasets.disable_caching()
        started = time.perf_counter()
        poison(pairs, get_attack("blended"), target="lynx", count=pictures, seed=0, size=side, captions="templates")
        seconds = time.perf_counter() - started
        datasets.enable_caching()
        datasets.config.HF_DATASETS_CACHE = before
    return seconds


def matrix_rate(n: int, rounds: int) -> dict[str, float]:
    """Operations a second (two for each multiply-add) of products of n x n matrices, the best of the rounds."""
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else "cpu"
    rates = {}
    for name, kind in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        a = torch.randn(n, n, device=device).to(kind)
        best = float("inf")
        for _ in range(rounds + 1):
            wait()
            started = time.perf_counter()
            a @ a
            wait()
            best = min(best, time.perf_counter() - started)
        rates[name] = 2 * n**3 / best
    return rates
