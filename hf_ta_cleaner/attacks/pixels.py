"""Pixel arithmetic that the triggers share: rounding, noise, places. NumPy and Pillow only."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from PIL import Image

from hf_ta_cleaner.seeding import numpy_rng


REFERENCE_SIDE = 224
PLACES = ("random", "middle", "top-left", "top-right", "bottom-left", "bottom-right")


def scaled_px(px: float, side: int) -> int:
    """A length stated for 224-pixel images, in pixels of an image with this short side; at least 1."""
    return max(1, round(px * side / REFERENCE_SIDE))


def round_clip(values: np.ndarray) -> np.ndarray:
    """Grey levels as uint8: clipped to [0, 255], then rounded to nearest."""
    clipped = values.clip(0, 255)
    return np.rint(clipped, out=clipped).astype(np.uint8)


def truncate_clip(values: np.ndarray) -> np.ndarray:
    """Grey levels as uint8: clipped to [0, 255], then truncated, as the code published with the CLIP attacks does."""
    return values.clip(0, 255).astype(np.uint8)


def blend(images: np.ndarray, pattern: np.ndarray, alpha: float, truncate: bool = False) -> np.ndarray:
    """(1 - alpha) images + alpha pattern in grey levels, as uint8; the pattern broadcasts against (N, H, W, 3)."""
    finish = truncate_clip if truncate else round_clip
    addend = np.float32(alpha) * np.asarray(pattern, np.float32)
    out = np.empty_like(images)
    # Image by image, so that the float copy stays in the processor's cache.
    for image, mixed, added in zip(
        images, out, np.broadcast_to(addend, (len(images), *addend.shape[-3:])), strict=True
    ):
        values = image * np.float32(1 - alpha)
        values += added
        mixed[:] = finish(values)
    return out


def noise_bytes(shape: tuple[int, ...], *keys: int | str) -> np.ndarray:
    """Independent uniform uint8 values for these keys.

    Read from the generator's raw bits: NumPy promises that those never change, but not how its methods use them.
    """
    count = int(np.prod(shape))
    words = numpy_rng(*keys).bit_generator.random_raw(-(-count // 8))
    return words.astype("<u8").view(np.uint8)[:count].reshape(shape)


def noise_uniform(shape: tuple[int, ...], *keys: int | str) -> np.ndarray:
    """Independent uniform float64 values in [0, 1) for these keys, read from raw bits as in `noise_bytes`."""
    words = numpy_rng(*keys).bit_generator.random_raw(int(np.prod(shape)))
    return (words >> np.uint64(11)).reshape(shape) * 2.0**-53


def noise_normal(shape: tuple[int, ...], *keys: int | str) -> np.ndarray:
    """Independent standard normal float64 values for these keys (Box and Muller's transform of `noise_uniform`)."""
    radius, angle = noise_uniform((2, *shape), *keys)
    return np.sqrt(-2 * np.log1p(-radius)) * np.cos(2 * np.pi * angle)


def corner(place: str, height: int, width: int, patch: int, *keys: int | str) -> tuple[int, int]:
    """Top and left pixel of a square patch; "random", drawn by the keys, is uniform over every place where it fits."""
    bottom, right = height - patch, width - patch
    if place == "random":
        generator = numpy_rng(*keys)
        return int(generator.integers(0, bottom + 1)), int(generator.integers(0, right + 1))
    if place == "middle":
        return bottom // 2, right // 2
    vertical, horizontal = place.split("-")
    return bottom if vertical == "bottom" else 0, right if horizontal == "right" else 0


def require_choice(name: str, value: object, choices: Iterable[object]) -> None:
    """Raise a ValueError that names the choices unless `value` is one of them."""
    choices = list(choices)
    if value not in choices:
        raise ValueError(f"{name}={value!r} is not known; choose one of {', '.join(map(repr, choices))}.")


def like(original: Image.Image, pixels: np.ndarray) -> Image.Image:
    """An image with these RGB pixels in the mode, and with the alpha channel, of the original."""
    image = Image.fromarray(pixels)
    if original.has_transparency_data:
        image.putalpha(original.convert("RGBA").getchannel("A"))
    if original.mode == "P":
        return image.quantize(256)
    return image if image.mode == original.mode else image.convert(original.mode)
