"""Structured noise: which pictures change and how, and that the draws depend on seed and step alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hf_ta_cleaner.views import structured_noise
from hf_ta_cleaner.views.structured_noise import AMPLITUDE, DEVIATION, FREQUENCY, StructuredNoise, contrast


SIDE = 72


def grey(n: int = 20) -> torch.Tensor:
    return torch.full((n, 3, SIDE, SIDE), 128, dtype=torch.uint8)


def test_shares_and_order_of_the_pictures():
    """Two fifths of the first twenty are changed, nothing of the second views, and the batch given is left alone."""
    images = grey(25)
    found = StructuredNoise(0.4, seed=3)(images, 20, step=7)
    changed = (found != images).flatten(1).any(1)
    assert changed[:20].sum() == 8 and not changed[20:].any()
    assert found.dtype == torch.uint8 and torch.equal(images, grey(25))
    assert torch.equal(StructuredNoise(0.0, seed=3)(images, 20, 7), images)


def test_draws_depend_on_seed_and_step_alone():
    own = StructuredNoise(0.5, seed=0)
    first = own(grey(), 20, 0)
    assert not torch.equal(first, own(grey(), 20, 1))
    assert torch.equal(first, own(grey(), 20, 0)) and torch.equal(first, StructuredNoise(0.5, seed=0)(grey(), 20, 0))
    assert not torch.equal(first, StructuredNoise(0.5, seed=1)(grey(), 20, 0))
    assert not torch.equal(first, own(grey(), 20, 0, part=1)) and torch.equal(first, own(grey(), 20, 0, part=0))


def test_processes_share_what_one_would_do(monkeypatch):
    together = StructuredNoise(0.5, seed=0)(grey(), 20, 4)
    monkeypatch.setattr(structured_noise, "world_size", lambda: 2)
    for process in (0, 1):
        monkeypatch.setattr(structured_noise, "rank", lambda process=process: process)
        apart = StructuredNoise(0.5, seed=0)(grey(10), 10, 4)
        assert torch.equal(apart, together[10 * process : 10 * process + 10])


def waves(n: int = 400) -> np.ndarray:
    draws = torch.from_numpy(np.random.default_rng(0).random((n, 9)).astype(np.float32))
    return StructuredNoise(1.0, seed=0)._waves(torch.zeros(n, 3, SIDE, SIDE), draws).numpy()


def test_waves_are_single_sinusoids_in_their_range():
    found = waves()
    strongest = found.reshape(len(found), 3, -1)
    amplitudes = abs(strongest).max(axis=(1, 2))
    assert AMPLITUDE[0] * 0.3 < np.median(amplitudes) and amplitudes.max() <= AMPLITUDE[1] + 1e-3
    same = (abs(found[:, :1] - found) < 1e-4).all(axis=(1, 2, 3))
    assert 0.4 < same.mean() < 0.6  # half of them grey
    # Between neighbours of one axis, x[t-1] + x[t+1] = 2 cos(w) x[t] holds for a sinusoid and for nothing else.
    for wave in found[:50, 0]:
        middle = wave[:, 1:-1].ravel()
        if abs(middle).max() < 5:
            continue
        ratio = (wave[:, :-2] + wave[:, 2:]).ravel() @ middle / (middle @ middle)
        assert np.allclose(wave[:, :-2] + wave[:, 2:], ratio * wave[:, 1:-1], atol=0.02 * abs(wave).max())
    spectra = abs(np.fft.fft2(found[:, 0]))
    spectra[:, 0, 0] = 0
    rows, columns = np.unravel_index(spectra.reshape(len(found), -1).argmax(1), (SIDE, SIDE))
    cycles = np.hypot(*(np.minimum(x, SIDE - x) for x in (rows, columns)))
    assert FREQUENCY[0] - 1 <= cycles.min() < 4 and 12 < cycles.max() <= FREQUENCY[1] + 1
    along_an_axis = np.minimum(rows, SIDE - rows).clip(0, 1) + np.minimum(columns, SIDE - columns).clip(0, 1) == 1
    assert 0.4 < along_an_axis.mean() < 0.8


def test_grain_has_its_strength_and_follows_the_detail_of_half_the_pictures():
    images = torch.zeros(200, 3, SIDE, SIDE)
    images[..., SIDE // 2 :] = torch.randint(0, 256, (SIDE, SIDE // 2), generator=torch.Generator().manual_seed(0))
    draws = torch.from_numpy(np.random.default_rng(1).random((200, 9)).astype(np.float32))
    grain = StructuredNoise(1.0, seed=0)._grain(images, draws)
    assert grain.shape == (200, 1, SIDE, SIDE)
    strength = grain.std(dim=(1, 2, 3))
    assert DEVIATION[0] - 0.1 <= strength.min() and strength.max() <= DEVIATION[1] + 0.1
    left, right = (half.std(dim=(1, 2, 3)) for half in (grain[..., : SIDE // 2], grain[..., SIDE // 2 :]))
    follows = draws[:, 3] < 0.5
    assert (right > 2 * left)[follows].float().mean() > 0.9
    assert (right > 2 * left)[~follows].float().mean() < 0.1


def test_contrast_by_hand():
    images = torch.zeros(1, 3, 18, 18)
    assert torch.allclose(contrast(images), torch.ones(1, 18, 18))
    images[..., ::2, :] = 100.0  # rows in turn: the same everywhere but at the edges
    assert contrast(images)[0, 8:10, 8:10] == pytest.approx(torch.ones(2, 2), abs=0.05)


def test_a_run_uses_them_and_another_share_gives_another_model(make_trainer):
    def trained(**options):
        trainer = make_trainer(method="ft", max_steps=2, **options)
        trainer.train()
        return trainer, torch.cat([p.detach().flatten() for p in trainer.model.parameters()])

    (plain, without), (own, under) = trained(), trained(image_structured_noise=0.5)
    assert plain.perturbations.noise is None and own.perturbations.noise.share == 0.5
    assert not torch.equal(without, under)
    assert torch.equal(under, trained(image_structured_noise=0.5)[1])
