"""Blended: the whole picture mixed with noise or with another picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import numpy as np
from PIL import Image

from hf_ta_cleaner.attacks.base import Attack, Pattern, require_picture
from hf_ta_cleaner.attacks.pixels import blend, noise_bytes, require_choice


@dataclass(frozen=True, kw_only=True)
class Blended(Attack):
    """x' = (1 - alpha) x + alpha n over the full frame, clipped and rounded.

    Source: Chen et al. 2017 (arXiv 1712.05526).

    Args:
        alpha: share of the pattern, in (0, 1].
        mode: "fixed" (the default) mixes in one frame of uniform noise, drawn from the seed for each image size;
            "fresh" draws another frame for each sample, as the published CLIP experiments do; "picture" mixes in
            `picture`.
        picture: for mode "picture": a path, PIL image or uint8 array (h, w, 3), resized (bicubic) to each image.
        compat: "published" reproduces the published CLIP experiments, which differ in two ways: the noise is drawn
            again for every sample (`mode` is "fresh" unless given), and grey levels are truncated, not rounded.
    """

    name: ClassVar[str] = "blended"
    paper: ClassVar[str] = "Chen et al., Targeted Backdoor Attacks Using Data Poisoning, 2017 (arXiv:1712.05526)"
    citation: ClassVar[str] = """@article{chen2017targeted,
  title   = {Targeted Backdoor Attacks on Deep Learning Systems Using Data Poisoning},
  author  = {Chen, Xinyun and Liu, Chang and Li, Bo and Lu, Kimberly and Song, Dawn},
  journal = {arXiv preprint arXiv:1712.05526},
  year    = {2017}
}"""

    alpha: float = 0.2
    mode: str | None = None
    picture: Pattern | None = None
    compat: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require_choice("compat", self.compat, (None, "published"))
        if self.mode is None:
            object.__setattr__(self, "mode", "fresh" if self.compat else "fixed")
        require_choice("mode", self.mode, ("fixed", "fresh", "picture"))
        if not 0 < self.alpha <= 1:
            raise ValueError(f"alpha is a share in (0, 1], got {self.alpha}.")
        if (self.picture is not None) != (self.mode == "picture"):
            raise ValueError("mode='picture' needs picture=..., and the other modes take none.")
        if self.picture is not None:
            object.__setattr__(self, "picture", require_picture(self.picture))

    def _apply(self, images: np.ndarray, sample_ids: Sequence[int]) -> np.ndarray:
        shape = images.shape[1:]
        if self.mode == "fresh":
            pattern = np.stack([noise_bytes(shape, "blended", self.seed, *shape, i) for i in sample_ids])
        elif self.mode == "fixed":
            pattern = _fixed_noise(self.seed, shape)
        else:
            pattern = _resized(self.picture, shape)
        return blend(images, pattern, self.alpha, truncate=self.compat is not None)


@lru_cache(maxsize=8)
def _fixed_noise(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    return noise_bytes(shape, "blended", seed, *shape)


@lru_cache(maxsize=8)
def _resized(picture: Pattern, shape: tuple[int, ...]) -> np.ndarray:
    image = Image.fromarray(picture.array)
    return np.asarray(image.resize((shape[1], shape[0]), Image.Resampling.BICUBIC))
