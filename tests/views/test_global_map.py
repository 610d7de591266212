"""Learnt smooth changes of whole pictures: what they can do, and that the search finds one that a model answers to."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hf_ta_cleaner.attacks import Blur, ColorCast, Vignette
from hf_ta_cleaner.views import global_map
from hf_ta_cleaner.views.adversarial_trigger import MAPS, AdversarialTrigger
from hf_ta_cleaner.views.global_map import CHANCE, GROUPS, NUMBERS, STRENGTH


SIDE = 36


def pictures(n: int = 4) -> torch.Tensor:
    """Smooth pictures between black and white."""
    coarse = torch.rand(n, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(255 * coarse, size=(SIDE, SIDE), mode="bilinear")


def numbers(**groups) -> torch.Tensor:
    """One map whose groups are the values given, each in the units of the pixels; all others are 0."""
    parts = [torch.as_tensor(groups.get(name, [0.0] * count)) / bound for name, (count, bound) in GROUPS.items()]
    return torch.cat(parts)[None].repeat(4, 1)


def test_no_change_by_default():
    assert torch.allclose(global_map.apply(pictures(), torch.zeros(4, NUMBERS)), pictures(), atol=0.3)


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        ({"shift": [0.1, 0.0, -0.05]}, lambda x: x + 255 * torch.tensor([0.1, 0, -0.05]).view(3, 1, 1)),
        ({"colour": [0.2, 0, 0, 0, -0.3, 0, 0, 0, 0.0]}, lambda x: x * torch.tensor([1.2, 0.7, 1]).view(3, 1, 1)),
        ({"colour": [-0.3, 0.3, 0, 0, 0, 0, 0, 0, 0.0]},
         lambda x: torch.stack([0.7 * x[:, 0] + 0.3 * x[:, 1], x[:, 1], x[:, 2]], 1)),
        ({"tone": [0.4, 0.4, 0.4]}, lambda x: 255 * (x / 255) ** np.exp(0.4)),
        ({"light": [-0.4] * 16}, lambda x: x * np.exp(-0.4)),
        ({"haze": [0.1] * 48}, lambda x: x + 25.5),
    ],
)  # fmt: skip
def test_each_group_by_its_formula(groups, expected):
    after = global_map.apply(pictures(), numbers(**groups))
    assert torch.allclose(after, expected(pictures()).clamp(0, 255), atol=0.5)


def test_sharpness_keeps_flat_parts_and_the_warp_moves_by_what_it_says():
    flat = torch.full((4, 3, SIDE, SIDE), 90.0)
    assert torch.allclose(global_map.apply(flat, numbers(sharpness=[0.1] * 24)), flat, atol=0.5)
    ramp = torch.linspace(50, 200, SIDE).expand(4, 3, SIDE, SIDE).contiguous()
    moved = global_map.apply(ramp, numbers(warp=[0.1] * 16 + [0.0] * 16))  # a twentieth of the side to the right
    inner = slice(4, -4)
    assert torch.allclose(moved[..., inner], (ramp + 0.05 * 150)[..., inner], atol=1.0)


@pytest.mark.parametrize("attack", [ColorCast(gain=(1.1, 0.8, 1.0), shift=(8, 0, -8)), Vignette(strength=0.4),
                                    Blur(sigma=4.0)], ids=lambda a: a.name)  # fmt: skip
def test_photometric_triggers_lie_among_the_maps(attack):
    """Gradient descent finds numbers within the bounds that do nearly what the trigger does."""
    before = pictures(8)
    image = before.permute(0, 2, 3, 1).round().byte().numpy()
    after = torch.from_numpy(attack.apply_batch(image, range(8)).copy()).permute(0, 3, 1, 2).float()
    free = torch.zeros(1, NUMBERS, requires_grad=True)
    optimiser = torch.optim.Adam([free], lr=0.05)
    for _ in range(120):
        loss = (global_map.apply(before, free.expand(8, -1)) - after).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        with torch.no_grad():
            free.clamp_(-1, 1)
    assert loss.item() < 0.15 * (before - after).square().mean().item() or loss.item() < 2.0


def test_draws_leave_no_picture_without_a_change():
    factors = global_map.drawn(400, np.random.default_rng(0))
    assert factors.shape == (400, NUMBERS) and (factors != 0).any(1).all()
    assert factors[factors != 0].min() >= STRENGTH[0] and factors.max() <= STRENGTH[1]
    assert CHANCE < (factors != 0).float().mean() < CHANCE + 0.1


def attacked(own: AdversarialTrigger, n: int = 8) -> torch.Tensor:
    x = pictures(4).repeat(n // 4, 1, 1, 1)
    return own.attack(x / 255, n, lambda y: y / 255, x)


def test_a_share_of_the_pictures_is_changed_and_the_numbers_climb():
    own = AdversarialTrigger(patch=0.0, blend=0.0, maps=0.5, step=4.0, seed=0)
    out = attacked(own)
    assert (out != pictures(4).repeat(2, 1, 1, 1) / 255).flatten(1).any(1).sum() == 4
    own.searching = True
    last = None
    for _ in range(12):  # the loss is the mean red: the search makes pictures redder, within the bounds
        out = attacked(own)
        loss = out[:, 0].mean() - out[:, 2].mean()
        loss.backward()
        own.ascend()
        last = loss.item()
    start = (pictures()[:, 0].mean() - pictures()[:, 2].mean()).item() / 255
    assert last > start + 0.15
    learnt = own.pictures["maps"]
    assert learnt.shape == (MAPS, NUMBERS) and learnt.abs().max() <= 1


def test_maps_are_kept_for_a_resumed_run(tmp_path):
    own = AdversarialTrigger(patch=0.25, blend=0.0, maps=0.25, step=4.0, seed=0)
    attacked(own).sum().backward()
    own.ascend()
    own.save(tmp_path)
    other = AdversarialTrigger(patch=0.25, blend=0.0, maps=0.25, step=4.0, seed=0)
    other.load(tmp_path, torch.device("cpu"))
    assert torch.equal(attacked(own), attacked(other))
