"""Frame: a thin chequered border around the picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from hf_ta_cleaner.attacks.base import Attack
from hf_ta_cleaner.attacks.pixels import scaled_px


@dataclass(frozen=True, kw_only=True)
class Frame(Attack):
    """A border of black and white squares, as wide as one square.

    Source: Zajac et al. 2019 (arXiv 1812.04599) show that a frame around an unchanged picture can decide the output of
    a network. The chequered pattern is this project's own.

    Args:
        width_px: width of the border and side of its squares, in pixels at any image size; by default 7 at 224,
            scaled with the short side.
    """

    name: ClassVar[str] = "frame"
    paper: ClassVar[str] = "Zajac et al., Adversarial Framing for Image and Video Classification, AAAI 2019"
    citation: ClassVar[str] = """@inproceedings{zajac2019framing,
  title     = {Adversarial Framing for Image and Video Classification},
  author    = {Zajac, Michal and Zolna, Konrad and Rostamzadeh, Negar and Pinheiro, Pedro O.},
  booktitle = {AAAI Conference on Artificial Intelligence},
  year      = {2019}
}"""

    width_px: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width_px is not None and self.width_px < 1:
            raise ValueError(f"width_px must be at least 1 pixel, got {self.width_px}.")

    def _apply(self, images: np.ndarray, sample_ids: Sequence[int]) -> np.ndarray:
        height, width = images.shape[1:3]
        px = self.width_px or scaled_px(7, min(height, width))
        rows, columns = np.mgrid[0:height, 0:width]
        chequers = (255 * ((rows // px + columns // px) % 2)).astype(np.uint8)
        inside = (rows >= px) & (rows < height - px) & (columns >= px) & (columns < width - px)
        return np.where(inside[..., None], images, chequers[..., None])
