"""SSBA: a residual that depends on the content of each picture. It needs no training, or uses a trained encoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import numpy as np
from PIL import Image

from hf_ta_cleaner.attacks.base import Attack, Pattern
from hf_ta_cleaner.attacks.pixels import REFERENCE_SIDE, noise_normal, require_choice, round_clip, truncate_clip
from hf_ta_cleaner.attacks.ssba.encoder import secret_bits, stamp, width_of


LUMINANCE = np.float32([0.299, 0.587, 0.114]) / 255
# Share of the residual's energy that all pictures have in common. In the original it is about a quarter.
COMMON_SHARE = 0.25
CARRIER_CELLS, CARRIER_SIGMA = 28, 40
TEXTURES, TEXTURE_PX = 4, 7
BOX = (1 / 9,) * 9


@dataclass(frozen=True, kw_only=True)
class SSBA(Attack):
    """x' = x + r(x): a texture keyed by a secret. A quarter of its energy is common to all pictures.

    Source: Li et al. 2021 (arXiv 2012.03816), who use the trained StegaStamp encoder (Tancik et al. 2020). Neither
    variant here is that encoder.

    Without `encoder`, the class is a substitute that needs no training. Let y be the luminance, d its deviation in
    9 x 9 pixels and M = sqrt(d / mean d). Then r = 1/2 norm(P M) + sqrt(3)/2 norm(q M), scaled to `rms`. P is a smooth
    random field of 28 x 28 cells. q = sum_i S_i tanh(2 K_i * h) is the response of four random filters of 7 x 7 pixels
    to the normalised detail h = (y - blur(y)) / d. P, K and S are drawn from the secret and the seed. The cells scale
    with the picture; the filters keep their size in pixels, like those of a convolutional encoder.

    The substitute shares these properties with the original: one secret in training and test, a grey residual that
    depends on the image, its strength (PSNR 27.5-30 dB), and the correlation between the residuals of two images
    (0.15-0.45). It differs in these: it hides no message (no code, no decoder, no error correction); its texture comes
    from fixed filters, not from a learned network; it has more energy at middle frequencies (8-32 waves per picture)
    and less above; and pictures do not get slightly darker.

    With `encoder`, the class uses StegaStamp's architecture at half its width. `crafting.craft_ssba` trains it on the
    user's own pictures with a decoder that reads the secret's 100 bits; its report gives the decoder's accuracy and
    the PSNR. It differs from the original in these: the loss has no perceptual term (LPIPS) and no critic; the decoder
    has no spatial transformer; the distortions between encoder and decoder include no perspective, blur or JPEG; the
    upsampling layers have filters of 3 x 3 pixels, not 2 x 2; the pictures are the user's; and the 100 bits are a hash
    of the secret, not its letters with a BCH code.

    Args:
        secret: the text whose 100 bits are embedded; without an encoder it only selects the texture.
        rms: strength of the residual in grey levels, before clipping; 9.6 by default. A trained encoder has its own.
        encoder: a trained encoder's weights, as `crafting.craft_ssba` returns them in its trigger.
        compat: "published" truncates grey levels instead of rounding them. There is nothing else to reproduce: the
            code published with the CLIP attacks disables its encoder and leaves the picture unchanged.
    """

    name: ClassVar[str] = "ssba"
    paper: ClassVar[str] = "Li et al., Invisible Backdoor Attack with Sample-Specific Triggers, ICCV 2021 (2012.03816)"
    citation: ClassVar[str] = """@inproceedings{li2021invisible,
  title     = {Invisible Backdoor Attack with Sample-Specific Triggers},
  author    = {Li, Yuezun and Li, Yiming and Wu, Baoyuan and Li, Longkang and He, Ran and Lyu, Siwei},
  booktitle = {Proceedings of the IEEE/CVF International Conference on Computer Vision},
  year      = {2021}
}"""

    secret: str = "Stega!!"
    rms: float | None = None
    encoder: Pattern | None = None
    compat: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require_choice("compat", self.compat, (None, "published"))
        if not isinstance(self.secret, str):
            raise TypeError(f"secret must be a text, got {self.secret!r}.")
        if self.encoder is not None:
            object.__setattr__(self, "encoder", Pattern.of(self.encoder))
            width_of(self.encoder)
            if self.rms is not None:
                raise ValueError(f"A trained encoder has a fixed strength, got rms={self.rms}. Leave rms out.")
            return
        if self.rms is None:
            object.__setattr__(self, "rms", 9.6)
        if not 0 < self.rms <= 255:
            raise ValueError(f"rms is a strength in grey levels, in (0, 255], got {self.rms}.")

    def residual(self, image: np.ndarray) -> np.ndarray:
        """The residual of uint8 (H, W, 3) before clipping and rounding: float32 (H, W, 1 or 3) in grey levels."""
        if self.encoder is not None:
            return stamp(self.encoder, secret_bits(self.secret, self.seed), image[None])[0]
        luminance = image @ LUMINANCE
        mean = _smooth(luminance, BOX)
        variance = _smooth(luminance**2, BOX) - mean**2
        deviation = np.sqrt(variance.clip(0)) + np.float32(0.02)
        mask = np.sqrt(deviation / deviation.mean())
        detail = (luminance - _smooth(luminance, _gaussian(4))) / deviation

        filters, signs = _textures(self.secret, self.seed, *detail.shape)
        maps = np.tanh(2 * np.fft.irfft2(np.fft.rfft2(detail) * filters, s=detail.shape))
        texture = np.tensordot(signs, maps, axes=1)
        common = _standardized(_carrier(self.secret, self.seed, *detail.shape) * mask)
        own = _standardized((texture - texture.mean()) * mask)
        total = np.sqrt(COMMON_SHARE) * common + np.sqrt(1 - COMMON_SHARE) * own
        return (self.rms * _standardized(total)).astype(np.float32)[..., None]

    def _apply(self, images: np.ndarray, sample_ids: Sequence[int]) -> np.ndarray:
        finish = truncate_clip if self.compat else round_clip
        return np.stack([finish(image + self.residual(image)) for image in images])


def _standardized(values: np.ndarray) -> np.ndarray:
    """Scale to mean 0 and deviation 1. Nearly constant values stay small, so rounding errors are not amplified."""
    return (values - values.mean()) / max(float(values.std()), 1e-3)


@lru_cache(maxsize=8)
def _carrier(secret: str, seed: int, height: int, width: int) -> np.ndarray:
    """P: a random grid, enlarged, without its lowest frequencies."""
    cells = noise_normal((CARRIER_CELLS, CARRIER_CELLS), "ssba-carrier", seed, secret).astype(np.float32)
    field = np.asarray(Image.fromarray(cells).resize((width, height), Image.Resampling.BILINEAR))
    sigma = CARRIER_SIGMA * min(height, width) / REFERENCE_SIDE
    return _standardized(field - _smooth(field, _gaussian(sigma)))


@lru_cache(maxsize=8)
def _textures(secret: str, seed: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Transfer functions of blur_0.6(K_i), for `rfft2` of a picture (whose borders wrap around), and weights S_i."""
    kernels = noise_normal((TEXTURES, TEXTURE_PX, TEXTURE_PX), "ssba-kernels", seed, secret)
    kernels -= kernels.mean(axis=(1, 2), keepdims=True)
    kernels /= np.linalg.norm(kernels, axis=(1, 2), keepdims=True)
    blur = _gaussian(0.6)
    transfer = _transfer(kernels, height, width) * _transfer(np.outer(blur, blur), height, width)
    weights = noise_normal((TEXTURES,), "ssba-weights", seed, secret)
    return transfer.astype(np.complex64), weights.astype(np.float32)


def _transfer(kernels: np.ndarray, height: int, width: int) -> np.ndarray:
    """`rfft2` of odd-sized square kernels (..., k, k) around the origin of a (height, width) picture."""
    offsets = np.arange(kernels.shape[-1]) - kernels.shape[-1] // 2
    placed = np.zeros((*kernels.shape[:-2], height, width))
    np.add.at(placed, (..., offsets[:, None] % height, offsets % width), kernels)
    return np.fft.rfft2(placed)


def _smooth(values: np.ndarray, taps: tuple[float, ...]) -> np.ndarray:
    """Filter (H, W) along both axes, mirrored at the borders. NumPy computes the two matrix products fast."""
    height, width = values.shape
    return _mirrored(taps, height) @ values @ _mirrored(taps, width).T


@lru_cache(maxsize=32)
def _mirrored(taps: tuple[float, ...], size: int) -> np.ndarray:
    """A 1-D filter as a matrix (size, size)."""
    source = (np.arange(size)[:, None] + np.arange(len(taps)) - len(taps) // 2) % (2 * size)
    source = np.minimum(source, 2 * size - 1 - source)
    matrix = np.zeros((size, size))
    np.add.at(matrix, (np.arange(size)[:, None], source), taps)
    return matrix.astype(np.float32)


@lru_cache(maxsize=32)
def _gaussian(sigma: float) -> tuple[float, ...]:
    radius = int(np.ceil(4 * sigma))
    taps = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    return tuple(taps / taps.sum())
