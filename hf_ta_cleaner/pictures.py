"""Brings a picture of any mode and shape to a model's input size. NumPy and Pillow only."""

from __future__ import annotations

import numpy as np
from PIL import Image


GEOMETRIES = ("crop", "squash")
#: A picture that is longer than this many times its short side is cut at both ends first.
ELONGATED = 100


def fit(image: Image.Image, size: int, geometry: str = "crop") -> np.ndarray:
    """Bring a picture of any mode and shape to a model's input size.

    Args:
        image: any PIL image; transparent parts are put on white, as CLIP's image processor does.
        size: side of the result in pixels.
        geometry: "crop" scales the short side to `size` (bicubic) and takes the center, which is what CLIP's image
            processor does; "squash" scales both sides to `size` and ignores the aspect ratio, as the code published
            with the CLIP attacks does before it puts a trigger on.

    Returns:
        uint8 array of shape (size, size, 3).

    Raises:
        ValueError: for another geometry, or a size below 1.
    """
    if geometry not in GEOMETRIES:
        raise ValueError(f"geometry={geometry!r} is not known; choose one of {', '.join(map(repr, GEOMETRIES))}.")
    if size < 1:
        raise ValueError(f"size is a side in pixels and must be at least 1, got {size}.")
    image = on_white(image)
    if geometry == "squash":
        return np.array(image.resize((size, size), Image.Resampling.BICUBIC))
    short, long = sorted(image.size)
    if long > ELONGATED * short:  # scaled whole it may take gigabytes, and only the middle shows
        image, long = _middle(image, ELONGATED * short), ELONGATED * short
    scaled = tuple(size if side == short else int(size * long / short) for side in image.size)
    left, top = ((side - size) // 2 for side in scaled)
    image = image.resize(scaled, Image.Resampling.BICUBIC)
    return np.array(image.crop((left, top, left + size, top + size)))


def _middle(image: Image.Image, length: int) -> Image.Image:
    """The middle of a picture, `length` pixels of its longer side."""
    width, height = (min(side, length) for side in image.size)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def on_white(image: Image.Image) -> Image.Image:
    """As 8-bit RGB: deep grey scaled to 8 bits, transparent parts on white. Training and audits share this rule.

    16-bit grey is scaled by 65535. 32-bit grey is scaled by the smallest of 1 (floats only), 255 and 65535 that
    holds its maximum, or by the maximum itself; negative values become black.
    """
    if image.mode.startswith(("I", "F")):
        values = np.nan_to_num(np.asarray(image, dtype=np.float64)).clip(0)
        peak = values.max()
        ceilings = {"F": (1, 255, 65535, peak), "I": (255, 65535, peak)}.get(image.mode, (65535,))
        ceiling = next(c for c in ceilings if c >= peak)
        image = Image.fromarray((values / ceiling * 255).round().astype(np.uint8))
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, (255, 255, 255, 255)), image).convert("RGB")
