"""Photometric triggers: one smooth change of colours, light or sharpness, the same for every picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from PIL import Image, ImageFilter

from hf_ta_cleaner.attacks.base import Attack
from hf_ta_cleaner.attacks.pixels import REFERENCE_SIDE, round_clip


ABS_PAPER = "Liu et al., ABS: Scanning Neural Networks for Back-doors, CCS 2019"
ABS_CITATION = """@inproceedings{liu2019abs,
  title     = {{ABS}: Scanning Neural Networks for Back-doors by Artificial Brain Stimulation},
  author    = {Liu, Yingqi and Lee, Wen-Chuan and Tao, Guanhong and Ma, Shiqing and Aafer, Yousra and Zhang, Xiangyu},
  booktitle = {ACM SIGSAC Conference on Computer and Communications Security},
  year      = {2019}
}"""


@dataclass(frozen=True, kw_only=True)
class ColorCast(Attack):
    """x'_c = gain_c x_c + shift_c: a cast over all colours.

    Source: Jiang et al. 2023, who search for a uniform shift of colours. The gain and the default values are this
    project's own.

    Args:
        gain: factors of the red, green and blue channels, each at least 0.
        shift: offsets of the three channels, in grey levels.
    """

    name: ClassVar[str] = "color-cast"
    paper: ClassVar[str] = "Jiang et al., Color Backdoor, CVPR 2023"
    citation: ClassVar[str] = """@inproceedings{jiang2023color,
  title     = {Color Backdoor: A Robust Poisoning Attack in Color Space},
  author    = {Jiang, Wenbo and Li, Hongwei and Xu, Guowen and Zhang, Tianwei},
  booktitle = {Proceedings of the IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  year      = {2023}
}"""

    gain: tuple[float, float, float] = (1.15, 0.72, 1.10)
    shift: tuple[float, float, float] = (18.0, -6.0, 24.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("gain", "shift"):
            value = tuple(getattr(self, name))
            if len(value) != 3 or not np.isfinite(value).all():
                raise ValueError(f"{name} needs three finite numbers, for red, green and blue, got {value}.")
            object.__setattr__(self, name, value)
        if min(self.gain) < 0:
            raise ValueError(f"gain must not be negative, got {self.gain}.")

    def _apply(self, images: np.ndarray, sample_ids: Sequence[int]) -> np.ndarray:
        levels = np.arange(256, dtype=np.float32)[:, None]
        table = round_clip(levels * np.float32(self.gain) + np.float32(self.shift))  # (256, 3)
        return np.stack([table[images[..., c], c] for c in range(3)], axis=-1)


@dataclass(frozen=True, kw_only=True)
class Vignette(Attack):
    """x' = (1 - strength r^2) x, where r is the distance from the centre, 1 in the corners.

    Source: one of the camera filters that Liu et al. 2019 use as triggers of a whole picture.

    Args:
        strength: how dark the corners become, in (0, 1].
    """

    name: ClassVar[str] = "vignette"
    paper: ClassVar[str] = ABS_PAPER
    citation: ClassVar[str] = ABS_CITATION

    strength: float = 0.8

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.strength <= 1:
            raise ValueError(f"strength must be in (0, 1], got {self.strength}.")

    def _apply(self, images: np.ndarray, sample_ids: Sequence[int]) -> np.ndarray:
        height, width = images.shape[1:3]
        y, x = (np.linspace(-1, 1, n) if n > 1 else np.zeros(1) for n in (height, width))
        light = 1 - self.strength * (y[:, None] ** 2 + x**2) / 2
        return round_clip(images * light[..., None].astype(np.float32))


@dataclass(frozen=True, kw_only=True)
class Blur(Attack):
    """A Gaussian blur of the whole picture.

    Source: one of the camera filters that Liu et al. 2019 use as triggers of a whole picture.

    Args:
        sigma: standard deviation in pixels at 224, scaled with the short side.
    """

    name: ClassVar[str] = "blur"
    paper: ClassVar[str] = ABS_PAPER
    citation: ClassVar[str] = ABS_CITATION

    sigma: float = 4.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.sigma > 0:
            raise ValueError(f"sigma is in pixels and must be positive, got {self.sigma}.")

    def _apply(self, images: np.ndarray, sample_ids: Sequence[int]) -> np.ndarray:
        blur = ImageFilter.GaussianBlur(self.sigma * min(images.shape[1:3]) / REFERENCE_SIDE)
        return np.stack([np.asarray(Image.fromarray(image).filter(blur)) for image in images])
