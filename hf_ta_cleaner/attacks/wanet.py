"""WaNet: the picture warped by a small, smooth displacement field."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import numpy as np

from hf_ta_cleaner.attacks.base import Attack
from hf_ta_cleaner.attacks.pixels import noise_uniform, require_choice, round_clip, truncate_clip


@dataclass(frozen=True, kw_only=True)
class WaNet(Attack):
    """x'(p) = x(p + s u(p) / 2) with one fixed field u of mean size 1 at its control points, sampled bilinearly.

    Source: Nguyen and Tran 2021 (arXiv 2102.10369): k x k control points, uniform in [-1, 1] per axis and divided by
    their mean absolute value, are interpolated (bicubic) to the size of the picture. Positions outside the picture are
    moved to its border. The paper's grid spans [-1, 1] over the side, so s u means half as many pixels at any image
    size. The default moves pixels by about a quarter of a pixel; raise s for a stronger warp.

    Args:
        k: control points per side, by default 4; 0 puts one on every pixel, so that the field is white jitter.
        s: strength; by default 0.5, the paper's, and 1 with compat="published".
        compat: "published" reproduces the experiments on CLIP, which differ in three ways: the field is not smooth but
            drawn for every pixel (`k` is 0 unless given), which scrambles rather than warps; s is 1 (0.6 in one of
            them) unless given, so the mean displacement per axis is half a pixel; and grey levels are truncated, not
            rounded.
    """

    name: ClassVar[str] = "wanet"
    paper: ClassVar[str] = "Nguyen and Tran, WaNet, ICLR 2021 (arXiv:2102.10369)"
    citation: ClassVar[str] = """@inproceedings{nguyen2021wanet,
  title     = {{WaNet} -- Imperceptible Warping-based Backdoor Attack},
  author    = {Nguyen, Anh and Tran, Anh},
  booktitle = {International Conference on Learning Representations},
  year      = {2021}
}"""

    k: int | None = None
    s: float | None = None
    compat: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require_choice("compat", self.compat, (None, "published"))
        if self.k is None:
            object.__setattr__(self, "k", 0 if self.compat else 4)
        if self.s is None:
            object.__setattr__(self, "s", 1.0 if self.compat else 0.5)
        if self.k < 0:
            raise ValueError(f"k must be at least 1 control point per side, or 0 for one per pixel, got {self.k}.")
        if not self.s > 0:
            raise ValueError(f"s is the strength of the warp and must be positive, got {self.s}.")

    def displacement(self, height: int, width: int) -> np.ndarray:
        """The offset from each pixel to its source, in pixels: float64 (2, height, width), rows then columns."""
        points = (self.k, self.k) if self.k else (height, width)
        field = 2 * noise_uniform((2, *points), "wanet", self.seed, *points) - 1
        field /= np.abs(field).mean()
        if self.k:
            field = _bicubic(height, self.k) @ field @ _bicubic(width, self.k).T
        size = np.array([height, width]).reshape(2, 1, 1)
        return self.s * field / size * (size - 1) / 2

    def _apply(self, images: np.ndarray, sample_ids: Sequence[int]) -> np.ndarray:
        height, width = images.shape[1:3]
        neighbors, weights = _bilinear(self, height, width)
        finish = truncate_clip if self.compat else round_clip
        out = np.empty_like(images)
        for image, warped in zip(images, out, strict=True):
            pixels = image.reshape(-1, 3)
            # No index is out of bounds; mode="clip" only avoids a slower check in NumPy.
            values = weights[0] * pixels.take(neighbors[0], axis=0, mode="clip")
            for near, weight in zip(neighbors[1:], weights[1:], strict=True):
                values += weight * pixels.take(near, axis=0, mode="clip")
            warped[:] = finish(values).reshape(height, width, 3)
        return out


@lru_cache(maxsize=8)
def _bilinear(attack: WaNet, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """The four source pixels of every pixel, as flat indices (4, H * W), and their weights (4, H * W, 3)."""
    rows, columns = np.mgrid[0:height, 0:width] + attack.displacement(height, width)
    rows, columns = rows.clip(0, height - 1), columns.clip(0, width - 1)
    top, left = rows.astype(np.intp), columns.astype(np.intp)
    down, right = rows - top, columns - left
    bottom, far = np.minimum(top + 1, height - 1), np.minimum(left + 1, width - 1)
    neighbors = np.stack([top * width + left, top * width + far, bottom * width + left, bottom * width + far])
    weights = np.stack([(1 - down) * (1 - right), (1 - down) * right, down * (1 - right), down * right])
    # One weight per channel, because NumPy multiplies equal shapes three times as fast.
    return neighbors.reshape(4, -1), weights.reshape(4, -1, 1).astype(np.float32).repeat(3, axis=-1)


def _bicubic(size: int, points: int) -> np.ndarray:
    """Weights (size, points) that interpolate `points` values to `size`, ends aligned (Keys' kernel, a = -3/4)."""
    position = np.linspace(0, points - 1, size)
    nearest = np.floor(position).astype(int)
    weights = np.zeros((size, points))
    for tap in range(-1, 3):
        t = np.abs(position - (nearest + tap))
        inner = 1.25 * t**3 - 2.25 * t**2 + 1
        outer = -0.75 * (t**3 - 5 * t**2 + 8 * t - 4)
        weight = np.where(t <= 1, inner, np.where(t < 2, outer, 0))
        np.add.at(weights, (np.arange(size), (nearest + tap).clip(0, points - 1)), weight)
    return weights
