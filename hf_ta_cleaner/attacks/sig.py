"""SIG: a sinusoid added to the whole picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from hf_ta_cleaner.attacks.base import Attack
from hf_ta_cleaner.attacks.pixels import require_choice


@dataclass(frozen=True, kw_only=True)
class SIG(Attack):
    """x' = x + delta sin(2 pi f j / W) with j the column: vertical waves, the same on all rows and channels.

    Source: Barni et al. 2019 (arXiv 1902.11237), equation 1. The paper poisons only pictures of the target class. The
    experiments on CLIP poison any picture and give it a target caption; `poison` does the same.

    Args:
        delta: amplitude in grey levels; 60 in the experiments on CLIP.
        frequency: waves across the width of the picture, at any image size.
        compat: "published" truncates grey levels instead of rounding them. The published evaluations also read
            cached JPEG pictures; this is not reproduced.
    """

    name: ClassVar[str] = "sig"
    paper: ClassVar[str] = "Barni et al., A New Backdoor Attack in CNNs, ICIP 2019 (arXiv:1902.11237)"
    citation: ClassVar[str] = """@inproceedings{barni2019new,
  title     = {A New Backdoor Attack in {CNNs} by Training Set Corruption without Label Poisoning},
  author    = {Barni, Mauro and Kallas, Kassem and Tondi, Benedetta},
  booktitle = {IEEE International Conference on Image Processing},
  year      = {2019}
}"""

    delta: float = 60.0
    frequency: float = 6
    compat: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require_choice("compat", self.compat, (None, "published"))
        if not 0 < self.delta <= 255:
            raise ValueError(f"delta is an amplitude in grey levels, in (0, 255], got {self.delta}.")
        if not self.frequency > 0:
            raise ValueError(f"frequency is in waves per picture and must be positive, got {self.frequency}.")

    def _apply(self, images: np.ndarray, sample_ids: Sequence[int]) -> np.ndarray:
        width = images.shape[2]
        wave = self.delta * np.sin(2 * np.pi * self.frequency * np.arange(width) / width)
        # Pixels are integers, so it is enough to round (or truncate) the wave; the sum needs no floats.
        levels = (np.floor(wave) if self.compat else np.rint(wave)).astype(np.int16)
        out = images + levels[:, None]
        return np.clip(out, 0, 255, out=out).astype(np.uint8)
