"""The probe: an optimum checked by its own equations, and pictures that are or are not told apart."""

from __future__ import annotations

from types import SimpleNamespace

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from hf_ta_cleaner.evaluation.linear_probe import fit_logistic, linear_probe


def test_the_fit_is_the_optimum():
    """Where the gradient of mean cross-entropy + decay/2 |W|^2 vanishes, written out in NumPy."""
    r = np.random.default_rng(0)
    x, y, decay = r.normal(3, 2, (60, 4)), r.integers(0, 3, 60), 0.05
    logits = fit_logistic(torch.tensor(x, dtype=torch.float32), torch.tensor(y), 3, decay)
    at = lambda points: logits(torch.tensor(points, dtype=torch.float32)).numpy()  # noqa: E731
    z = (x - x.mean(0)) / x.std(0)
    bias = at(x.mean(0)[None])[0]
    weight = np.stack([at((x.mean(0) + x.std(0) * np.eye(4)[i])[None])[0] - bias for i in range(4)])
    p = np.exp(z @ weight + bias)
    p /= p.sum(1, keepdims=True)
    wrong = (p - np.eye(3)[y]) / 60
    assert np.abs(z.T @ wrong + decay * weight).max() < 1e-4
    assert np.abs(wrong.sum(0)).max() < 1e-4


class Colors(torch.nn.Module):
    """Embeds a picture as its mean color."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def get_image_features(self, pixel_values):
        return SimpleNamespace(pooler_output=pixel_values.mean(dim=(2, 3)) + 1)


PROCESSOR = SimpleNamespace(
    image_processor=SimpleNamespace(size={"height": 8, "width": 8}, do_rescale=False, do_normalize=False)
)


def pictures(n: int, seed: int, names=("red", "green", "blue"), told_apart=True):
    r = np.random.default_rng(seed)
    labels = r.integers(0, 3, n)
    shown = labels if told_apart else r.integers(0, 3, n)
    images = [
        Image.fromarray(r.integers(0, 99, (8, 8, 3)).astype(np.uint8) + np.eye(3, dtype=np.uint8)[c] * 90)
        for c in shown
    ]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=list(names))})
    return datasets.Dataset.from_dict({"image": images, "label": labels.tolist()}, features)


def test_what_is_told_apart_is_learned():
    found = linear_probe(Colors(), PROCESSOR, pictures(60, 0), pictures(40, 1), batch_size=16)
    assert (found["top1"], found["n"], found["n_train"]) == (1.0, 40, 60)
    assert found["interval95"]["top1"][0] == pytest.approx(0.9124, abs=1e-4)
    chance = linear_probe(Colors(), PROCESSOR, pictures(60, 0, told_apart=False), pictures(40, 1), batch_size=16)
    assert chance["top1"] < 0.75


def test_errors_say_what_to_do():
    with pytest.raises(ValueError, match="3 training classes are not the 3"):
        linear_probe(Colors(), PROCESSOR, pictures(60, 0), pictures(9, 1, names=("a", "b", "c")))
    with pytest.raises(ValueError, match=r"Got 4 training pictures.*--linear_probe"):
        linear_probe(Colors(), PROCESSOR, pictures(4, 0), pictures(9, 1))
