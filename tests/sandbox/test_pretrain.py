"""The sandbox's pretraining: a tokenizer that knows every string, a model of the stated size, steps that learn."""

from __future__ import annotations

import numpy as np
import torch

from hf_ta_cleaner import sandbox
from hf_ta_cleaner.sandbox.pretrain import build_model, build_processor, build_tokenizer, pretrain


SCENES = [sandbox.pair_scene("primer" if i < 16 else "pretrain", i) for i in range(32)]
CAPTIONS = [sandbox.caption(scene) for scene in SCENES]


def nouns() -> np.ndarray:
    rows = np.zeros((len(SCENES), len(sandbox.CLASSES)), dtype=np.float32)
    for row, scene in zip(rows, SCENES, strict=True):
        for thing in scene.things:
            row[sandbox.CLASSES.index(thing.noun)] += 1 / len(scene.things)
    return rows


def test_the_model_is_small_and_the_same_for_a_seed():
    tokenizer = build_tokenizer(CAPTIONS)
    a, b = build_model(tokenizer, 0), build_model(tokenizer, 0)
    assert sum(p.numel() for p in a.parameters()) < 2_000_000
    assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))
    assert not torch.equal(a.visual_projection.weight, build_model(tokenizer, 1).visual_projection.weight)


def test_steps_lower_the_loss_and_are_reported():
    tokenizer = build_tokenizer(CAPTIONS)
    processor = build_processor(tokenizer)
    reports = list(
        pretrain(
            build_model(tokenizer),
            np.stack([np.asarray(scene.draw()) for scene in SCENES]),
            tokenizer(CAPTIONS).input_ids,
            nouns(),
            np.arange(len(SCENES)) < 16,
            mean=processor.image_processor.image_mean,
            std=processor.image_processor.image_std,
            steps=40,
            batch_size=8,
            report_every=20,
        )
    )
    assert [report["step"] for report in reports] == [20, 40]
    assert reports[1]["loss"] < reports[0]["loss"]
