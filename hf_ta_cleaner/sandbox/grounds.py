"""Backgrounds of the sandbox world. A ground is independent of what stands on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import numpy as np
from PIL import Image, ImageDraw

from .canvas import COLOURS, RGB, mix, vary


@dataclass(frozen=True)
class Ground:
    """One background: how captions name it and how it is painted.

    Attributes:
        phrase: What a caption says, e.g. "on grass"; empty when there is nothing to say.
        noun: The head noun of the phrase, e.g. "floor".
        modifier: The word before the noun, e.g. "wooden"; may be empty.
        prepositions: The prepositions that are true of anything standing on it.
        paint: `(canvas size, r) -> RGB image`.
    """

    phrase: str
    noun: str
    modifier: str
    prepositions: tuple[str, ...]
    paint: Callable[[int, Random], Image.Image]


def _gradient(size: int, top: RGB, bottom: RGB, r: Random, grain: float = 5.0) -> Image.Image:
    """A vertical gradient with a little grain, seeded by `r`."""
    ramp = np.linspace(0, 1, size)[:, None, None]
    picture = np.asarray(top) * (1 - ramp) + np.asarray(bottom) * ramp
    noise = np.random.default_rng(r.getrandbits(32)).normal(0, grain, (size, size, 1))
    return Image.fromarray((picture + noise).clip(0, 255).astype(np.uint8))


def _tint(r: Random, colour: RGB, amount: float = 16) -> RGB:
    return tuple(round(min(255, max(0, c + vary(r, -amount, amount)))) for c in colour)  # type: ignore[return-value]


def _plain(size: int, r: Random) -> Image.Image:
    base = mix(COLOURS[r.choice(list(COLOURS))], r.choice([(255, 255, 255), (120, 120, 120)]), vary(r, 0.45, 0.75))
    return _gradient(size, _tint(r, base), _tint(r, base), r, grain=vary(r, 1, 8))


def _grass(size: int, r: Random) -> Image.Image:
    image = _gradient(size, _tint(r, (132, 186, 92)), _tint(r, (82, 142, 58)), r, 9)
    draw = ImageDraw.Draw(image)
    for _ in range(36):
        x, y, h = r.random() * size, r.random() * size, vary(r, 0.04, 0.09) * size
        draw.line((x, y, x + vary(r, -0.3, 0.3) * h, y - h), fill=_tint(r, (58, 112, 40)), width=max(1, size // 72))
    return image


def _snow(size: int, r: Random) -> Image.Image:
    image = _gradient(size, _tint(r, (196, 212, 232), 8), _tint(r, (240, 244, 250), 5), r, 3)
    draw = ImageDraw.Draw(image)
    for _ in range(26):
        x, y, s = r.random() * size, r.random() * size, vary(r, 0.008, 0.018) * size
        draw.ellipse((x - s, y - s, x + s, y + s), fill=(255, 255, 255))
    return image


def _sand(size: int, r: Random) -> Image.Image:
    image = _gradient(size, _tint(r, (236, 214, 160)), _tint(r, (214, 182, 120)), r, 12)
    draw = ImageDraw.Draw(image)
    for _ in range(7):
        y, wave = r.random() * size, vary(r, 0.01, 0.03) * size
        points = [(x * size / 8, y + wave * (-1) ** x) for x in range(9)]
        draw.line(points, fill=_tint(r, (190, 156, 98)), width=max(1, size // 100))
    return image


def _bricks(size: int, r: Random) -> Image.Image:
    base, mortar = _tint(r, (168, 82, 62)), _tint(r, (206, 196, 184), 10)
    image = Image.new("RGB", (size, size), mortar)
    draw = ImageDraw.Draw(image)
    h, w, gap = size / r.choice([7, 8, 9]), size / r.choice([4, 5]), max(1, size // 60)
    for row in range(10):
        shift = (row % 2) * w / 2
        for column in range(-1, 7):
            x, y = column * w + shift, row * h
            draw.rectangle((x, y, x + w - gap, y + h - gap), fill=_tint(r, base, 12))
    return image


def _planks(size: int, r: Random) -> Image.Image:
    base = _tint(r, (184, 136, 86))
    image = Image.new("RGB", (size, size), base)
    draw = ImageDraw.Draw(image)
    count = r.choice([5, 6, 7])
    for i in range(count):
        y = i * size / count
        draw.rectangle((0, y, size, y + size / count), fill=_tint(r, base, 10))
        draw.line((0, y, size, y), fill=mix(base, (0, 0, 0), 0.45), width=max(1, size // 72))
        x = r.random() * size
        draw.line((x, y, x, y + size / count), fill=mix(base, (0, 0, 0), 0.45), width=max(1, size // 72))
    return image


def _tiles(size: int, r: Random) -> Image.Image:
    base = _tint(r, (208, 216, 214), 14)
    image = Image.new("RGB", (size, size), base)
    draw = ImageDraw.Draw(image)
    count, shift = r.choice([4, 5, 6]), r.random()
    for i in range(count + 1):
        at = (i - shift) * size / count
        for line in ((at, 0, at, size), (0, at, size, at)):
            draw.line(line, fill=mix(base, (60, 80, 90), 0.5), width=max(1, size // 48))
    return image


def _night(size: int, r: Random) -> Image.Image:
    image = _gradient(size, _tint(r, (20, 24, 60), 8), _tint(r, (52, 56, 112), 10), r, 3)
    draw = ImageDraw.Draw(image)
    for _ in range(22):
        x, y, s = r.random() * size, r.random() * size, vary(r, 0.005, 0.014) * size
        draw.ellipse((x - s, y - s, x + s, y + s), fill=(250, 246, 200))
    return image


def _water(size: int, r: Random) -> Image.Image:
    image = _gradient(size, _tint(r, (110, 180, 216)), _tint(r, (40, 112, 172)), r, 4)
    draw = ImageDraw.Draw(image)
    for _ in range(12):
        x, y, w = r.random() * size, r.random() * size, vary(r, 0.08, 0.16) * size
        draw.arc((x, y, x + w, y + w / 2), 200, 340, fill=(206, 232, 244), width=max(1, size // 72))
    return image


def _clouds(size: int, r: Random) -> Image.Image:
    image = _gradient(size, _tint(r, (112, 170, 232)), _tint(r, (186, 216, 244)), r, 3)
    draw = ImageDraw.Draw(image)
    for _ in range(4):
        x, y, s = r.random() * size, r.random() * size, vary(r, 0.07, 0.13) * size
        for dx in (-1.0, 0.0, 1.0):
            draw.ellipse((x + dx * s - s, y - s * 0.7, x + dx * s + s, y + s * 0.7), fill=(248, 250, 252))
    return image


GROUNDS: dict[str, Ground] = {
    "plain": Ground("", "background", "plain", ("against", "on"), _plain),
    "grass": Ground("on grass", "grass", "", ("on", "in"), _grass),
    "snow": Ground("in the snow", "snow", "", ("in", "on"), _snow),
    "sand": Ground("on sand", "sand", "", ("on", "in"), _sand),
    "bricks": Ground("in front of a brick wall", "wall", "brick", ("in front of", "against"), _bricks),
    "planks": Ground("on a wooden floor", "floor", "wooden", ("on",), _planks),
    "tiles": Ground("on a tiled floor", "floor", "tiled", ("on",), _tiles),
    "night": Ground("under a night sky", "sky", "night", ("under", "in", "below", "against"), _night),
    "water": Ground("on the water", "water", "", ("on", "in"), _water),
    "clouds": Ground("in front of clouds", "clouds", "", ("in front of", "against"), _clouds),
}
