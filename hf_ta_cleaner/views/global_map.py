"""Smooth changes of whole pictures as functions of a few numbers, so that the worst can be searched for by gradient.

A trigger is not always drawn on the picture. It can be a colour cast, a change of tone, light or sharpness, or a
slight warp, the same for every triggered picture. `AdversarialTrigger` holds the numbers of a few such changes and
moves them up the loss, as it moves the pixels of its patch.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F


#: Group of numbers -> how many there are, and how far each goes from 0, which is no change.
#: Pixels are in [0, 1] here. `colour` is added to the identity matrix; `tone` is the logarithm of an exponent for each
#: channel; `light` is the logarithm of a factor on a grid; `haze` is added on a grid, for each channel; `sharpness` is
#: added to a kernel of one point; `warp` is a displacement on a grid in halves of a side.
GROUPS: dict[str, tuple[int, float]] = {
    "colour": (9, 0.35),
    "shift": (3, 0.15),
    "tone": (3, 0.5),
    "light": (16, 0.5),
    "haze": (48, 0.12),
    "sharpness": (24, 0.12),
    "warp": (32, 0.12),
}
NUMBERS = sum(count for count, _ in GROUPS.values())
#: Points of a grid along a side.
GRID, KERNEL = 4, 5
#: How far the numbers lie from 0 at the start, at most.
BEGIN = 0.3
#: A picture gets each group with this chance, and the map at a strength in this range.
CHANCE, STRENGTH = 0.6, (0.3, 1.0)


def begin(maps: int, generator: torch.Generator) -> torch.Tensor:
    """`(maps, NUMBERS)` random small changes, each number in [-1, 1] times its bound."""
    return BEGIN * (2 * torch.rand(maps, NUMBERS, generator=generator) - 1)


def drawn(n: int, r: np.random.Generator) -> torch.Tensor:
    """`(n, NUMBERS)` factors of the numbers for `n` pictures: which groups act, and how strongly."""
    on = r.random((n, len(GROUPS))) < CHANCE
    on[np.arange(n), r.integers(0, len(GROUPS), n)] = True  # no picture without any
    strength = r.uniform(*STRENGTH, (n, 1)) * on
    return torch.from_numpy(strength.repeat([count for count, _ in GROUPS.values()], axis=1).astype(np.float32))


def apply(images: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    """Changes each picture by its own map.

    Args:
        images: Floats in [0, 255], `(N, 3, S, S)`.
        numbers: `(N, NUMBERS)` in [-1, 1]; all 0 leaves the picture as it is.

    Returns:
        Floats in [0, 255], `(N, 3, S, S)`, differentiable in the numbers.
    """
    n, side = len(images), images.shape[-1]
    part = _parts(numbers)
    x = (images / 255).clamp(1e-3, 1)
    x = _warped(x, part["warp"].view(n, 2, GRID, GRID))
    x = _filtered(x, part["sharpness"])
    x = x.clamp(1e-3, 1) ** part["tone"].exp()[:, :, None, None]
    matrix = torch.eye(3, device=x.device) + part["colour"].view(n, 3, 3)
    x = torch.einsum("nij,njhw->nihw", matrix, x) + part["shift"][:, :, None, None]
    x = x * _spread(part["light"].view(n, 1, GRID, GRID), side).exp()
    x = x + _spread(part["haze"].view(n, 3, GRID, GRID), side)
    return 255 * x.clamp(0, 1)


def _parts(numbers: torch.Tensor) -> dict[str, torch.Tensor]:
    """Group -> its numbers, in the group's own units."""
    ends = np.cumsum([0, *(count for count, _ in GROUPS.values())])
    slices = zip(GROUPS.items(), pairwise(ends), strict=True)
    return {name: bound * numbers[:, a:b] for (name, (_, bound)), (a, b) in slices}


def _spread(grid: torch.Tensor, side: int) -> torch.Tensor:
    """`(N, C, GRID, GRID)` -> `(N, C, side, side)`, smoothly."""
    return F.interpolate(grid, size=(side, side), mode="bicubic", align_corners=True)


def _warped(x: torch.Tensor, displacement: torch.Tensor) -> torch.Tensor:
    line = torch.linspace(-1, 1, x.shape[-1], device=x.device)
    place = torch.stack(torch.meshgrid(line, line, indexing="xy"), dim=-1)
    place = place + _spread(displacement, x.shape[-1]).permute(0, 2, 3, 1)
    return F.grid_sample(x, place, padding_mode="border", align_corners=True)


def _filtered(x: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Each picture through its own kernel, whose sum is 1: flat parts stay as they are."""
    n, channels, height, width = x.shape
    half = math.ceil(weights.shape[1] / 2)
    around = torch.cat([weights[:, :half], -weights.sum(1, keepdim=True), weights[:, half:]], dim=1)
    kernel = around.view(n, 1, KERNEL, KERNEL).expand(n, channels, KERNEL, KERNEL).reshape(-1, 1, KERNEL, KERNEL)
    padded = F.pad(x.reshape(1, n * channels, height, width), 4 * (KERNEL // 2,), mode="replicate")
    return x + F.conv2d(padded, kernel, groups=n * channels).view_as(x)
