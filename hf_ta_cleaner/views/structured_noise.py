"""Random patterns over whole pictures. A model should recognise a picture under any of them.

Hidden triggers that lie over the whole picture are waves or texture of some kind. A model that learned one answers to
many of its kind, so it unlearns them together when it has to see through random ones.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F

from ..distributed import rank, world_size
from ..seeding import derive_seed, numpy_rng


#: Waves across a picture, at most one in four pixels of the sandbox's 72; grey levels.
FREQUENCY, AMPLITUDE = (2.0, 18.0), (20.0, 80.0)
#: Side of a grain in pixels; standard deviation in grey levels.
GRAIN, DEVIATION = (1.0, 1.5, 2.5, 4.0), (8.0, 32.0)
#: Textures of each size that grain is cut from, each time elsewhere.
TEXTURES = 8
#: Pixels around one that its contrast is measured in.
_AROUND = 9


class StructuredNoise:
    """Adds waves to some pictures of a batch and grain to as many others. Draws both for every picture.

    *Waves* are sinusoids of any direction (half of them along an axis), length, phase and strength, half of them grey.
    *Grain* is smooth noise, over half of the pictures stronger where they have detail. Nothing is learnt.
    The patterns of a batch depend on the seed and its number alone, not on the number of processes.

    Args:
        share: Share of a batch's pictures that get a pattern, in [0, 1].
        seed: Seed of all draws.
    """

    def __init__(self, share: float, seed: int) -> None:
        self.share, self.seed = share, seed
        self._textures: torch.Tensor | None = None

    def __call__(self, images: torch.Tensor, b: int, step: int, part: int = 0) -> torch.Tensor:
        """The pictures with a pattern over some.

        Args:
            images: uint8 `(N, 3, S, S)`.
            b: Only the first b pictures can get a pattern.
            step: Number of the training step.
            part: Number of the batch among those whose gradients the step gathers.

        Returns:
            uint8 `(N, 3, S, S)`, a new tensor.
        """
        number = (step, part) if part else (step,)
        r, total = numpy_rng("disturbances", self.seed, *number), b * world_size()
        rows = r.permutation(total)[: round(self.share * total)]
        noisy = images.clone()
        for some, pattern in zip(np.array_split(rows, 2), (self._waves, self._grain), strict=True):
            draws = r.random((len(some), 9))
            own = some // b == rank()
            if own.any():
                where = torch.from_numpy(some[own] % b).to(images.device)
                seen = images[where].float()
                over = pattern(seen, torch.from_numpy(draws[own].astype(np.float32)).to(images.device))
                noisy[where] = (seen + over).round().clamp(0, 255).to(torch.uint8)
        return noisy

    def _waves(self, images: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
        """`(n, 3, S, S)` grey levels, from `(n, 9)` numbers in [0, 1)."""
        length, turn, axis, phase, strength, grey, *tint = draws[:, :, None, None].unbind(1)
        low, high = map(math.log, FREQUENCY)
        quarter = math.pi / 2
        angle = torch.where(axis < 0.5, 2 * quarter * turn, quarter * (2 * turn).floor())
        place = torch.arange(images.shape[-1], device=images.device) / images.shape[-1]
        along = place * angle.cos() + place[:, None] * angle.sin()
        waves = torch.sin(2 * math.pi * ((low + (high - low) * length).exp() * along + phase))
        colour = torch.stack(tint, dim=1) * 2 - 1
        colour = torch.where(grey[:, None] < 0.5, torch.ones_like(colour), colour)
        return _between(AMPLITUDE, strength)[:, None] * colour * waves[:, None]

    def _grain(self, images: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
        """The same, from textures that are shifted around."""
        side = images.shape[-1]
        which, down, right, detailed, strength = (x for x in draws[:, :5].unbind(1))
        line = torch.arange(side, device=images.device)
        rows, columns = ((line + (side * shift)[:, None].long()) % side for shift in (down, right))
        textures = self._drawn(side, images.device)
        number = (which * len(textures)).long()
        grain = textures[number[:, None, None], rows[:, :, None], columns[:, None, :]]
        grain = torch.where(detailed[:, None, None] < 0.5, grain * contrast(images), grain)
        grain = grain / grain.std(dim=(1, 2), keepdim=True)
        return (_between(DEVIATION, strength)[:, None, None] * grain)[:, None]

    def _drawn(self, side: int, device: torch.device) -> torch.Tensor:
        """`(T, S, S)`, the same in every process."""
        if self._textures is None:
            noise = torch.Generator().manual_seed(derive_seed("disturbances", self.seed) >> 1)
            textures = []
            for size in GRAIN:
                cells = torch.randn(1, TEXTURES, *2 * (max(2, round(side / size)),), generator=noise)
                textures.append(F.interpolate(cells, size=(side, side), mode="bicubic")[0])
            self._textures = torch.cat(textures).to(device)
        return self._textures


def contrast(images: torch.Tensor) -> torch.Tensor:
    """How much detail there is around each pixel, 1 in the mean: `(n, 3, S, S)` -> `(n, S, S)`."""
    grey = images.mean(dim=1, keepdim=True)
    mean, square = (F.avg_pool2d(x, _AROUND, 1, _AROUND // 2, count_include_pad=False) for x in (grey, grey**2))
    deviation = (square - mean**2).clamp_min(1).sqrt()[:, 0]
    return deviation / deviation.mean(dim=(1, 2), keepdim=True)


def _between(ends: tuple[float, float], draws: torch.Tensor) -> torch.Tensor:
    return ends[0] + (ends[1] - ends[0]) * draws
