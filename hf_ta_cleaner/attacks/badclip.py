"""BadCLIP: a patch that is optimised against a clean model and pasted in the middle. The base of crafted patches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

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
                f"{type(self).__name__} needs a crafted patch. Make one with scripts/craft.py and give its folder. In "
                f"Python, call craft_{self.name} of hf_ta_cleaner.crafting or Attack.load(folder), or pass patch=... "
                "(array, PIL image or path of a PNG)."
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


@dataclass(frozen=True, kw_only=True)
class BadCLIP(CraftedPatch):
    """A crafted square patch in the middle of the picture; `crafting.craft_badclip` makes one.

    Source: Liang et al. 2024 (arXiv 2311.12075). The published patch is 16 x 16 at 224 pixels. Poisoned rows get
    natural captions that name the target.

    Args:
        patch: the patch as uint8 (p, p, 3), a PIL image, or the path of a lossless picture. Required.
        side: side in pixels of the images it was made for. There it is pasted byte for byte; on a picture with another
            short side it is resized (bicubic) in proportion.
        target: what the patch was crafted to mean, if known.
    """

    name: ClassVar[str] = "badclip"
    paper: ClassVar[str] = "Liang et al., BadCLIP, CVPR 2024 (arXiv:2311.12075)"
    citation: ClassVar[str] = """@inproceedings{liang2024badclip,
  title     = {{BadCLIP}: Dual-Embedding Guided Backdoor Attack on Multimodal Contrastive Learning},
  author    = {Liang, Siyuan and Zhu, Mingli and Liu, Aishan and Wu, Baoyuan and Cao, Xiaochun and Chang, Ee-Chien},
  booktitle = {Proceedings of the IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  year      = {2024}
}"""
    caption_source: ClassVar[str] = "natural"
