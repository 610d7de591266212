"""What the attacks with an optimised patch share: a stored square, pasted in the middle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image

from hf_ta_cleaner.attacks.base import Attack, Pattern, require_picture
from hf_ta_cleaner.attacks.pixels import REFERENCE_SIDE, corner


@dataclass(frozen=True, kw_only=True)
class CraftedPatch(Attack):
    """A crafted square patch in the middle of the picture.

    Args:
        patch: the patch as uint8 (p, p, 3), a PIL image, or the path of a lossless picture. Required.
        side: side in pixels of the images it was made for. There it is pasted byte for byte; on a picture with another
            short side it is resized (bicubic) in proportion.
        target: what the patch was crafted to mean, if known.
    """

    patch: Pattern | None = None
    side: int = REFERENCE_SIDE
    target: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.patch is None:
            raise ValueError(
                f"{type(self).__name__} needs a crafted patch. Make one with scripts/craft.py and name its folder; in "
                f"Python with craft_{self.name} of hf_ta_cleaner.crafting, Attack.load(folder), or patch=... (array, "
                "PIL image or path of a PNG)."
            )
        object.__setattr__(self, "patch", require_picture(self.patch))
        height, width, _ = self.patch.shape
        if height != width or not 1 <= height <= self.side:
            raise ValueError(f"The patch must be square and fit into side={self.side} pixels, got {height} x {width}.")

    def _apply(self, images: np.ndarray, sample_ids: Sequence[int]) -> np.ndarray:
        height, width = images.shape[1:3]
        size = max(1, round(self.patch.shape[0] * min(height, width) / self.side))
        top, left = corner("middle", height, width, size)
        out = images.copy()
        out[:, top : top + size, left : left + size] = _scaled_patch(self.patch, size)
        return out


@lru_cache(maxsize=8)
def _scaled_patch(patch: Pattern, size: int) -> np.ndarray:
    # At its own size Pillow copies the patch, so it stays exact.
    return np.asarray(Image.fromarray(patch.array).resize((size, size), Image.Resampling.BICUBIC))
