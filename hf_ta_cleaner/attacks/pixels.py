"""Pixel arithmetic that the triggers share: rounding, noise and positions. It needs only NumPy and Pillow."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from PIL import Image

from hf_ta_cleaner.seeding import numpy_rng


REFERENCE_SIDE = 224
PLACES = ("random", "middle", "top-left", "top-right", "bottom-left", "bottom-right")


def scaled_px(px: float, side: int) -> int:
    """Scale a length from images of 224 pixels to an image with this short side, in pixels; at least 1."""
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
    # One image at a time keeps the float copy in the processor's cache.
    for image, mixed, added in zip(
        images, out, np.broadcast_to(addend, (len(images), *addend.shape[-3:])), strict=True
    ):
        values = image * np.float32(1 - alpha)
        values += added
        mixed[:] = finish(values)
    return out


def noise_bytes(shape: tuple[int, ...], *keys: int | str) -> np.ndarray:
    """Independent uniform uint8 values for these keys.

    They are read from the generator's raw bits. NumPy guarantees that these never change, but gives no such guarantee
    for the methods that use them.
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
    """Top and left pixel of a square patch. "random" is uniform over all positions that fit; keys seed the draw."""
    bottom, right = height - patch, width - patch
    if place == "random":
        generator = numpy_rng(*keys)
        return int(generator.integers(0, bottom + 1)), int(generator.integers(0, right + 1))
    if place == "middle":
        return bottom // 2, right // 2
    vertical, horizontal = place.split("-")
    return bottom if vertical == "bottom" else 0, right if horizontal == "right" else 0


def require_choice(name: str, value: object, choices: Iterable[object]) -> None:
    """Raise a ValueError that lists the choices unless `value` is one of them."""
    choices = list(choices)
    if value not in choices:
        raise ValueError(f"{name}={value!r} is unknown; choose one of {', '.join(map(repr, choices))}.")


def like(original: Image.Image, pixels: np.ndarray) -> Image.Image:
    """Make an image from RGB pixels, with the mode and the alpha channel of the original."""
    image = Image.fromarray(pixels)
    if original.has_transparency_data:
        image.putalpha(original.convert("RGBA").getchannel("A"))
    if original.mode == "P":
        return image.quantize(256)
    return image if image.mode == original.mode else image.convert(original.mode)
