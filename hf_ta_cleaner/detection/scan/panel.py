"""Generic triggers: what an attacker's trigger may look like, drawn from seeds and from no attack of this package.

A model that learned one trigger usually answers to others of its kind: to another square of noise at the same place,
another grating, another warp. None of these is optimised, so that a clean model hardly moves under them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F

from hf_ta_cleaner.seeding import numpy_rng


Trigger = Callable[[torch.Tensor], torch.Tensor]

#: Sides of the square patches, as shares of the picture's side: about the smallest and the largest in the literature.
PATCH_SHARES = (1 / 5, 1 / 14)
PLACES = ("top-left", "top-right", "bottom-left", "bottom-right", "middle")
BLEND_SHARE, STRIPE_SHARE, WAVE = 0.2, 0.1, 0.2
#: Waves across the picture.
FREQUENCIES = (3, 5, 8, 13)
#: Mean displacement of a warp, as a share of the side, and its control points a side.
WARP_SHARE, WARP_POINTS = 0.025, 5
GRAIN = 0.045


def generic_triggers(size: int, *, seeds: Sequence[int] = (101, 102)) -> dict[str, Trigger]:
    """The panel for square pictures of `size` pixels: name -> function of `(N, 3, size, size)` in [0, 1].

    Args:
        seeds: every random pattern is drawn once for each.
    """
    panel: dict[str, Trigger] = {}
    for share in PATCH_SHARES:
        side = max(1, round(share * size))
        for place in PLACES:
            for kind in ("noise", "stripes", "checks"):
                for seed in seeds if kind == "noise" else seeds[:1]:
                    pattern = _pattern(kind, side, seed)
                    panel[f"patch {kind} {side}px {place} #{seed}"] = _pasted(pattern, *corner_of(place, size, side))
    for seed in seeds:
        panel[f"blend noise #{seed}"] = _blended(_pattern("noise", size, seed), BLEND_SHARE)
        panel[f"blend cells #{seed}"] = _blended(_pattern("cells", size, seed), BLEND_SHARE)
        panel[f"blend stripes #{seed}"] = _blended(_pattern("stripes", size, seed), STRIPE_SHARE)
        panel[f"warp #{seed}"] = _warped(size, seed)
        panel[f"grain #{seed}"] = _grained(size, seed)
    for frequency in FREQUENCIES:
        wave = torch.sin(2 * torch.pi * frequency * torch.arange(size) / size) * WAVE
        panel[f"grating {frequency} vertical"] = _added(wave.expand(1, size, size))
        panel[f"grating {frequency} horizontal"] = _added(wave[:, None].expand(1, size, size))
    return panel


def corner_of(place: str, size: int, side: int) -> tuple[int, int]:
    """Top and left pixel of a square of `side` pixels at a named place of a picture of `size`."""
    end = size - side
    if place == "middle":
        return end // 2, end // 2
    return (end if "bottom" in place else 0), (end if "right" in place else 0)


def _pattern(kind: str, side: int, seed: int) -> torch.Tensor:
    """`(3, side, side)` in [0, 1]."""
    r = numpy_rng("generic trigger", kind, seed, side)
    if kind == "noise":
        values = r.random((3, side, side))
    elif kind == "stripes":
        values = np.broadcast_to(r.integers(0, 2, (3, 1, side)), (3, side, side))
    elif kind == "checks":
        cell = max(1, side // 5)
        y, x = np.mgrid[0:side, 0:side] // cell
        values = np.broadcast_to((y + x) % 2, (3, side, side))
    else:  # cells: noise of a coarse grid
        cells = torch.as_tensor(r.random((1, 3, 8, 8)), dtype=torch.float32)
        return F.interpolate(cells, size=(side, side), mode="nearest")[0]
    return torch.as_tensor(np.array(values), dtype=torch.float32)


def _pasted(pattern: torch.Tensor, top: int, left: int) -> Trigger:
    side = pattern.shape[-1]

    def apply(images: torch.Tensor) -> torch.Tensor:
        out = images.clone()
        out[..., top : top + side, left : left + side] = pattern.to(images)
        return out

    return apply


def _blended(pattern: torch.Tensor, share: float) -> Trigger:
    return lambda images: images.lerp(pattern.to(images).expand_as(images), share)


def _added(residual: torch.Tensor) -> Trigger:
    return lambda images: (images + residual.to(images)).clamp(0, 1)


def _warped(size: int, seed: int) -> Trigger:
    """A smooth random field of displacements, the ends clamped (the idea of WaNet, Nguyen and Tran 2021)."""
    field = torch.as_tensor(numpy_rng("generic warp", seed).uniform(-1, 1, (1, 2, WARP_POINTS, WARP_POINTS)))
    field = F.interpolate(field.float(), size=(size, size), mode="bicubic", align_corners=True)
    field = field / field.abs().mean() * (2 * WARP_SHARE)  # grid_sample's pictures are 2 wide
    axis = torch.linspace(-1, 1, size)
    grid = torch.stack([axis.expand(size, size), axis[:, None].expand(size, size)]) + field[0]

    def apply(images: torch.Tensor) -> torch.Tensor:
        where = grid.permute(1, 2, 0).to(images).expand(len(images), -1, -1, -1)
        return F.grid_sample(images, where, padding_mode="border", align_corners=True).clamp(0, 1)

    return apply


def _grained(size: int, seed: int) -> Trigger:
    """Grey grain that is stronger where the picture has detail, as steganographic residuals are."""
    grain = torch.as_tensor(numpy_rng("generic grain", seed).standard_normal((1, 1, size, size)), dtype=torch.float32)

    def apply(images: torch.Tensor) -> torch.Tensor:
        grey = images.mean(dim=1, keepdim=True)
        detail = F.avg_pool2d(grey**2, 9, 1, 4) - F.avg_pool2d(grey, 9, 1, 4) ** 2
        strength = detail.clamp_min(1e-4).sqrt()
        strength = strength / strength.mean(dim=(-2, -1), keepdim=True)
        return (images + GRAIN * grain.to(images) * strength).clamp(0, 1)

    return apply
