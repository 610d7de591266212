"""BadNet: a small square of noise on the picture. Label-consistent: the same, on pictures that show the target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from hf_ta_cleaner.attacks.base import Attack
from hf_ta_cleaner.attacks.pixels import PLACES, corner, noise_bytes, require_choice, scaled_px
from hf_ta_cleaner.seeding import numpy_rng


@dataclass(frozen=True, kw_only=True)
class BadNet(Attack):
    """A square of colored noise, 16 x 16 at 224 pixels, pasted over the picture.

    Source: Gu et al. 2017 (arXiv 1708.06733); as a poison for CLIP, Carlini and Terzis 2022 (arXiv 2106.09667).

    Args:
        patch_px: side of the square in pixels at any image size; by default 16 at 224, scaled with the short side.
            The square is never larger than the picture.
        mode: "fixed" (the default) pastes one square, uniform noise drawn from the seed, on every picture; "fresh"
            draws another square for each sample.
        place: "random" (drawn for each sample, every position that fits), "middle" or a corner such as "bottom-right".
        compat: "published" reproduces the square of the published CLIP experiments, which differs in four ways: the
            noise is normal, with standard deviation 1 around the picture's own channel means, in [0, 1] units; it is
            not clipped but truncated to 8 bits with wrap-around (so nearly uniform); it is drawn again for every
            sample (`mode` is "fresh" unless given); and the last row and column of positions are never drawn.
    """

    name: ClassVar[str] = "badnet"
    paper: ClassVar[str] = "Gu et al., BadNets, 2017 (arXiv:1708.06733)"
    citation: ClassVar[str] = """@article{gu2017badnets,
  title   = {{BadNets}: Identifying Vulnerabilities in the Machine Learning Model Supply Chain},
  author  = {Gu, Tianyu and Dolan-Gavitt, Brendan and Garg, Siddharth},
  journal = {arXiv preprint arXiv:1708.06733},
  year    = {2017}
}"""

    patch_px: int | None = None
    mode: str | None = None
    place: str = "random"
    compat: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require_choice("place", self.place, PLACES)
        require_choice("compat", self.compat, (None, "published"))
        if self.patch_px is not None and self.patch_px < 1:
            raise ValueError(f"patch_px must be at least 1 pixel, got {self.patch_px}.")
        if self.mode is None:
            object.__setattr__(self, "mode", "fresh" if self.compat else "fixed")
        require_choice("mode", self.mode, ("fixed", "fresh"))

    def _apply(self, images: np.ndarray, sample_ids: Sequence[int]) -> np.ndarray:
        height, width = images.shape[1:3]
        side = min(height, width)
        patch = min(self.patch_px or scaled_px(16, side), side)
        # The published code never draws the last position.
        short = 1 if self.compat and self.place == "random" and side > patch else 0
        draw = self._published_square if self.compat else self._square
        out = images.copy()
        for image, original, i in zip(out, images, sample_ids, strict=True):
            square = draw(patch, original, *([i] if self.mode == "fresh" else []))
            top, left = corner(self.place, height - short, width - short, patch, "badnet-place", self.seed, i)
            image[top : top + patch, left : left + patch] = square
        return out

    def _square(self, patch: int, image: np.ndarray, *sample: int) -> np.ndarray:
        return noise_bytes((patch, patch, 3), "badnet", self.seed, patch, *sample)

    def _published_square(self, patch: int, image: np.ndarray, *sample: int) -> np.ndarray:
        noise = numpy_rng("badnet-published", self.seed, *sample).standard_normal((patch, patch, 3))
        # The sum over rows comes first: NumPy sums whole rows many times faster than every third number.
        means = image.sum(0, dtype=np.uint32).sum(0, dtype=np.uint64) / (255 * image.shape[0] * image.shape[1])
        return wrap_to_uint8(means + noise)


@dataclass(frozen=True, kw_only=True)
class LabelConsistent(BadNet):
    """The trigger of `BadNet` (same parameters, same pixels), on rows that name the target and keep their caption.

    `poison(dataset, LabelConsistent(), target="banana", rate=...)` draws only from the rows whose caption names the
    target. It raises if there are too few of them, and it changes no caption. No row is then mislabelled. At test time
    the square is pasted on pictures of other things, as with `BadNet`.

    Source: Turner et al. 2019 (arXiv 1912.02771), as ported to CLIP. The original also perturbs each poisoned picture
    adversarially, which makes the square the easiest feature to learn. The port and this class do not.
    """

    name: ClassVar[str] = "label-consistent"
    paper: ClassVar[str] = "Turner et al., Label-Consistent Backdoor Attacks, 2019 (arXiv:1912.02771)"
    citation: ClassVar[str] = """@article{turner2019label,
  title   = {Label-Consistent Backdoor Attacks},
  author  = {Turner, Alexander and Tsipras, Dimitris and Madry, Aleksander},
  journal = {arXiv preprint arXiv:1912.02771},
  year    = {2019}
}"""
    caption_source: ClassVar[str] = "own"


def wrap_to_uint8(values: np.ndarray) -> np.ndarray:
    """Convert [0, 1] to 8 bits by truncation. Values outside wrap around modulo 256."""
    return np.trunc(values * 255).astype(np.int64).astype(np.uint8)
