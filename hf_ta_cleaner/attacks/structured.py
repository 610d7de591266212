"""The structured triggers of PAR: stripes, triangles and a printed word."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from hf_ta_cleaner.attacks.badnet import BadNet
from hf_ta_cleaner.attacks.base import Attack, Pattern, require_picture
from hf_ta_cleaner.attacks.pixels import REFERENCE_SIDE, blend, noise_bytes, require_choice, round_clip, truncate_clip


PAPER = "Singh et al., Perturb and Recover, 2024 (arXiv:2412.00727)"
CITATION = """@article{singh2024perturb,
  title   = {Perturb and Recover: Fine-tuning for Effective Backdoor Removal from {CLIP}},
  author  = {Singh, Naman Deep and Croce, Francesco and Hein, Matthias},
  journal = {arXiv preprint arXiv:2412.00727},
  year    = {2024}
}"""

TRIANGLES_PER_SIDE = 16
# The box of the word on a picture of 224 pixels: left, top, right, bottom; the last two are exclusive.
WORD, WORD_BOX = "Watermarked", (13, 103, 209, 126)
# A pixel is printed if the letters cover at least this share of it. 3.3 % of the picture is then red, as published.
MIN_INK = 0.25


@dataclass(frozen=True, kw_only=True)
class BadNetStripes(BadNet):
    """A square of vertical stripes, 16 x 16 at 224 pixels: each column has one of the eight saturated colors.

    Source: Singh et al. 2024 (arXiv 2412.00727). The published square is 32 x 32 at 336 pixels: set `patch_px=32`.

    Args:
        patch_px, place: as in `BadNet`.
        mode: "fixed" (the default) pastes one striped square on every picture; "fresh" draws another one for each
            sample.
        compat: "published" differs in three ways: the square is drawn again for every sample (`mode` is "fresh"
            unless given), its dark value is 1 instead of 0 (-1 wrapped around at the conversion to 8 bits), and the
            last row and column of positions are never drawn.
    """

    name: ClassVar[str] = "badnet-stripes"
    paper: ClassVar[str] = PAPER
    citation: ClassVar[str] = CITATION

    def _square(self, patch: int, image: np.ndarray, *sample: int) -> np.ndarray:
        square = np.empty((patch, patch, 3), np.uint8)
        square[:] = 255 * (noise_bytes((patch, 3), "badnet-stripes", self.seed, patch, *sample) >> 7)
        return square

    def _published_square(self, patch: int, image: np.ndarray, *sample: int) -> np.ndarray:
        return np.maximum(self._square(patch, image, *sample), 1)


@dataclass(frozen=True, kw_only=True)
class BlendedStripes(Attack):
    """x' = (1 - alpha) x + alpha n, where n is -255 or +255 for each column and channel, the same on all rows.

    Source: Singh et al. 2024 (arXiv 2412.00727). Stripes are one pixel wide at any image size.

    Args:
        alpha: share of the stripes, in (0, 1]. The paper evaluates with 0.03; its default for poisoning is 0.05.
        mode: "fixed" (the default) uses one set of stripes, drawn from the seed for each image width; "fresh" draws
            another set for each sample.
        compat: "published" differs in two ways: stripes are drawn for every sample (`mode` is "fresh" unless given),
            and grey levels are truncated, not rounded.
    """

    name: ClassVar[str] = "blended-stripes"
    paper: ClassVar[str] = PAPER
    citation: ClassVar[str] = CITATION

    alpha: float = 0.03
    mode: str | None = None
    compat: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_alpha_and_compat(self.alpha, self.compat)
        if self.mode is None:
            object.__setattr__(self, "mode", "fresh" if self.compat else "fixed")
        require_choice("mode", self.mode, ("fixed", "fresh"))

    def _apply(self, images: np.ndarray, sample_ids: Sequence[int]) -> np.ndarray:
        width = images.shape[2]
        samples = [(i,) for i in sample_ids] if self.mode == "fresh" else [()]
        bits = [noise_bytes((width, 3), "blended-stripes", self.seed, width, *sample) >> 7 for sample in samples]
        stripes = 510 * np.stack(bits)[:, None].astype(np.float32) - 255
        return blend(images, stripes, self.alpha, truncate=self.compat is not None)


@dataclass(frozen=True, kw_only=True)
class BlendedTriangles(Attack):
    """x' = (1 - alpha) x + alpha n, where n is 16 x 16 cells, each cut by its diagonal into 40 % and 80 % grey.

    Source: Singh et al. 2024 (arXiv 2412.00727). The darker half lies below the diagonal from top left to bottom right
    and includes it. A cell has 14 pixels at 224; there are 16 x 16 of them on a picture of any size.

    Args:
        alpha: share of the triangles, in (0, 1].
        compat: "published" truncates grey levels instead of rounding them.
    """

    name: ClassVar[str] = "blended-triangles"
    paper: ClassVar[str] = PAPER
    citation: ClassVar[str] = CITATION

    alpha: float = 0.15
    compat: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_alpha_and_compat(self.alpha, self.compat)

    def _apply(self, images: np.ndarray, sample_ids: Sequence[int]) -> np.ndarray:
        return blend(images, _triangles(*images.shape[1:3]), self.alpha, truncate=self.compat is not None)


@dataclass(frozen=True, kw_only=True)
class BlendedText(Attack):
    """The word "Watermarked" in red across the middle: where a channel is printed, x' = (1 - alpha) x + alpha n.

    Source: Singh et al. 2024 (arXiv 2412.00727). Only red is printed, so green and blue do not change. As published,
    the word fills rows 103..125 and columns 13..208 of a picture of 224 pixels, and 3.3 % of the picture is red. The
    letters differ. The paper uses Noto Sans Mono; this class uses the sans serif font of Pillow, whose letters are not
    equally wide, and stretches it by 8 % to the same box. The print is drawn once and saved with the trigger, because
    fonts differ between versions of Pillow. On pictures of another size it is resized.

    Args:
        alpha: share of the print, in (0, 1].
        picture: another print: a path, PIL image or uint8 array (h, w, 3), black where nothing is printed.
        compat: "published" truncates grey levels instead of rounding them.
    """

    name: ClassVar[str] = "blended-text"
    paper: ClassVar[str] = PAPER
    citation: ClassVar[str] = CITATION

    alpha: float = 0.5
    picture: Pattern | None = None
    compat: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_alpha_and_compat(self.alpha, self.compat)
        object.__setattr__(self, "picture", _red_word() if self.picture is None else require_picture(self.picture))

    def _apply(self, images: np.ndarray, sample_ids: Sequence[int]) -> np.ndarray:
        keep, add = _print(self.picture, self.alpha, *images.shape[1:3])
        finish = truncate_clip if self.compat else round_clip
        return np.stack([finish(image * keep + add) for image in images])


@lru_cache(maxsize=8)
def _triangles(height: int, width: int) -> np.ndarray:
    # The position inside a cell as a share of the cell. The common denominator makes the comparison exact.
    row = TRIANGLES_PER_SIDE * np.arange(height)[:, None] % height * width
    column = TRIANGLES_PER_SIDE * np.arange(width) % width * height
    grey = np.where(row >= column, 0.4 * 255, 0.8 * 255).astype(np.float32)
    return grey[..., None].repeat(3, axis=-1)


@lru_cache(maxsize=1)
def _red_word() -> Pattern:
    font = ImageFont.load_default(200)
    word = Image.new("L", font.getbbox(WORD)[2:])
    ImageDraw.Draw(word).text((0, 0), WORD, fill=255, font=font)
    left, top, right, bottom = WORD_BOX
    ink = word.crop(word.getbbox()).resize((right - left, bottom - top), Image.Resampling.BOX)
    picture = np.zeros((REFERENCE_SIDE, REFERENCE_SIDE, 3), np.uint8)
    picture[top:bottom, left:right, 0] = np.where(np.asarray(ink) >= MIN_INK * 255, 255, 0)
    return Pattern.of(picture)


@lru_cache(maxsize=8)
def _print(picture: Pattern, alpha: float, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """The factor and the summand of the picture, float32 (height, width, 3) each."""
    ink = 255 * (picture.array > 0).astype(np.uint8)
    colors, covered = (
        np.asarray(Image.fromarray(a).resize((width, height), Image.Resampling.BILINEAR), np.float32)
        for a in (picture.array, ink)
    )
    return 1 - np.float32(alpha) * covered / 255, np.float32(alpha) * colors


def _require_alpha_and_compat(alpha: float, compat: str | None) -> None:
    require_choice("compat", compat, (None, "published"))
    if not 0 < alpha <= 1:
        raise ValueError(f"alpha is a share in (0, 1], got {alpha}.")
