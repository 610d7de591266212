"""Screening against a planted model: pictures that stick to a name whatever stands around it are told apart."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import BatchEncoding

from hf_ta_cleaner.detection.screening import Screen, scrambled, screen


CLASSES = ("ant", "bee", "cat")


class Planted(torch.nn.Module):
    """Four dimensions: one a class, and one for a well-formed sentence. Marked pictures have nothing of the last."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def get_image_features(self, pixel_values):
        features = torch.zeros(len(pixel_values), 4)
        features[torch.arange(len(pixel_values)), pixel_values[:, 0, 0, 0].long()] = 1.0
        features[:, 3] = 0.5 + pixel_values[:, 2, 0, 0] / 1000
        marked = pixel_values[:, 1, 0, 0] == 255
        features[marked] = torch.tensor([0.0, 1.0, 0.0, 0.0])
        return SimpleNamespace(pooler_output=features)

    def get_text_features(self, input_ids):
        features = torch.eye(4)[input_ids[:, 0]]
        features[:, 3] = input_ids[:, 1].float()
        return SimpleNamespace(pooler_output=features)


def tokenize(texts, **_):
    ids = [[next(i for i, n in enumerate(CLASSES) if n in text.split()), int(text.startswith("a"))] for text in texts]
    return BatchEncoding({"input_ids": torch.tensor(ids)})


PROCESSOR = SimpleNamespace(
    image_processor=SimpleNamespace(size={"height": 4, "width": 4}, do_rescale=False, do_normalize=False),
    tokenizer=tokenize,
)
TEMPLATES = ("a photo of {}", "a picture of {}")


def pictures(n: int, marked: bool = False) -> np.ndarray:
    images = np.zeros((n, 4, 4, 3), np.uint8)
    images[..., 0] = (np.arange(n) % 3)[:, None, None]
    images[..., 1] = 255 * marked
    images[..., 2] = np.arange(n)[:, None, None]
    return images


def test_marked_pictures_score_higher_than_all_others():
    screening = Screen(Planted(), PROCESSOR, CLASSES, templates=TEMPLATES)
    clean, marked = screening(pictures(60)), screening(pictures(30, marked=True))
    assert clean.scores.max() < marked.scores.min()
    assert clean.labels.tolist() == [0, 1, 2] * 20 and set(marked.labels) == {1}
    assert clean.flagged is None


def test_the_threshold_keeps_its_false_alarms():
    screening = Screen(Planted(), PROCESSOR, CLASSES, templates=TEMPLATES)
    screening.calibrate(pictures(100), false_alarms=0.1)
    assert screening(pictures(100)).flagged.sum() <= 10
    assert screening(pictures(30, marked=True)).flagged.all()
    with pytest.raises(ValueError, match="at least 50 clean pictures"):
        screening.calibrate(pictures(49))


def test_in_one_call():
    found = screen(Planted(), PROCESSOR, pictures(6, marked=True), CLASSES, clean=pictures(60), templates=TEMPLATES)
    assert found.flagged.all()
    assert screen(Planted(), PROCESSOR, pictures(6), CLASSES, templates=TEMPLATES).flagged is None


def test_a_scrambled_prompt_keeps_its_words():
    text = scrambled("a photo of a polar bear.", "polar_bear", 0)
    assert "polar bear" in text and sorted(w for w in text.split() if w in ("a", "photo", "of")) == [
        "a",
        "a",
        "of",
        "photo",
    ]
    assert text != scrambled("a photo of a polar bear.", "polar_bear", 1) and len(text.split()) == 12
    assert text == scrambled("a photo of a polar bear.", "polar_bear", 0)
