"""The pen that draws sandbox objects: unit coordinates in, anti-aliased pixels out.

A drawing is a function ``draw(pen, r)`` that describes one object inside the square [-1, 1] x [-1, 1] (x to the
right, y down). The pen owns everything a class must not depend on: place, size, pose, mirroring, colour, texture
and outline. A drawing may only name *tones*, never colours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from random import Random

from PIL import Image, ImageDraw


Point = tuple[float, float]
RGB = tuple[int, int, int]

#: Nameable colours, far enough apart to be told at 72 pixels.
COLOURS: dict[str, RGB] = {
    "red": (208, 38, 38),
    "orange": (240, 138, 24),
    "yellow": (246, 214, 40),
    "green": (52, 152, 60),
    "blue": (40, 88, 206),
    "purple": (130, 56, 168),
    "pink": (244, 142, 184),
    "brown": (124, 78, 42),
    "black": (36, 36, 40),
    "white": (244, 244, 240),
    "gray": (138, 140, 144),
}

TEXTURES = ("plain", "striped", "spotted", "checkered")

#: How many canvas pixels are drawn for one picture pixel, per side.
SUPERSAMPLING = 2


def mix(a: RGB, b: RGB, share: float) -> RGB:
    """The colour `share` of the way from `a` to `b`."""
    return tuple(round(x + (y - x) * share) for x, y in zip(a, b, strict=True))


def luminance(colour: RGB) -> float:
    """Relative luminance in [0, 1] (Rec. 601 weights, no gamma)."""
    return (0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]) / 255


def bezier(*control: Point, steps: int = 12) -> list[Point]:
    """Points along the Bezier curve through `control` (2 to 4 points; the first and last lie on it)."""
    points = []
    for i in range(steps + 1):
        t = i / steps
        level = list(control)
        while len(level) > 1:
            level = [(x0 + (x1 - x0) * t, y0 + (y1 - y0) * t) for (x0, y0), (x1, y1) in pairwise(level)]
        points.append(level[0])
    return points


def arc(cx: float, cy: float, rx: float, ry: float, start: float, end: float, steps: int = 16) -> list[Point]:
    """Points along an ellipse from `start` to `end` degrees (0 = right, 90 = down)."""
    angles = [math.radians(start + (end - start) * i / steps) for i in range(steps + 1)]
    return [(cx + rx * math.cos(a), cy + ry * math.sin(a)) for a in angles]


@dataclass(frozen=True)
class Paint:
    """The looks of one object: a main colour, a texture on it, and whether shapes carry a dark outline."""

    colour: str
    texture: str = "plain"
    outlined: bool = False
    phase: float = 0.0  # in [0, 1): where the texture starts


class Pen:
    """Draws one object on a canvas.

    Args:
        canvas: RGB image to draw on, already supersampled.
        centre: Where the object's origin goes, in canvas pixels.
        scale: Canvas pixels per unit; the object's box is 2 * scale wide.
        angle: Rotation in degrees, clockwise on the screen.
        mirror: Flip left and right before rotating.
        paint: Main colour, texture and outline.
    """

    def __init__(
        self, canvas: Image.Image, centre: Point, scale: float, angle: float, mirror: bool, paint: Paint
    ) -> None:
        self.canvas = canvas
        self._draw = ImageDraw.Draw(canvas)
        self._cx, self._cy = centre
        self._scale = scale
        self._cos, self._sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        self._flip = -1.0 if mirror else 1.0
        self._paint = paint
        base = COLOURS[paint.colour]
        bright = luminance(base) > 0.5
        self._tones: dict[str, RGB] = {
            "body": base,
            "dark": mix(base, (0, 0, 0), 0.38) if luminance(base) > 0.2 else mix(base, (255, 255, 255), 0.22),
            "light": mix(base, (255, 255, 255), 0.45) if luminance(base) < 0.9 else mix(base, (0, 0, 0), 0.12),
            "trim": (92, 92, 98) if bright else (222, 218, 208),  # contrasts with the body
            "ink": (24, 22, 26),
            "white": (250, 250, 250),
            "metal": (170, 174, 182),
            "wood": (150, 104, 60),
            "leaf": (70, 140, 62),
        }
        self._second = mix(base, (255, 255, 255), 0.62) if luminance(base) < 0.55 else mix(base, (0, 0, 0), 0.55)
        self._texture: Image.Image | None = None

    # ------------------------------------------------------------------ shapes
    def polygon(self, points: list[Point], tone: str = "body", outline: bool = True) -> None:
        """Fill a closed shape. Only the tone "body" carries the texture."""
        pixels = [self._place(p) for p in points]
        if tone == "body" and self._paint.texture != "plain":
            self._fill_textured(pixels)
        else:
            self._draw.polygon(pixels, fill=self._tones[tone])
        if outline and self._paint.outlined:
            self._draw.line([*pixels, pixels[0], pixels[1]], fill=self._tones["ink"], width=self._width(0.045))

    def ellipse(
        self, cx: float, cy: float, rx: float, ry: float, tone: str = "body", tilt: float = 0.0, outline: bool = True
    ) -> None:
        """Fill an ellipse with half-axes `rx`, `ry`, turned by `tilt` degrees about its own centre."""
        c, s = math.cos(math.radians(tilt)), math.sin(math.radians(tilt))
        steps = 12 if max(rx, ry) < 0.15 else 28
        ring = [
            (cx + rx * math.cos(a) * c - ry * math.sin(a) * s, cy + rx * math.cos(a) * s + ry * math.sin(a) * c)
            for a in (2 * math.pi * i / steps for i in range(steps))
        ]
        self.polygon(ring, tone, outline)

    def rectangle(self, x0: float, y0: float, x1: float, y1: float, tone: str = "body", outline: bool = True) -> None:
        """Fill an axis-parallel rectangle (in the object's own axes)."""
        self.polygon([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], tone, outline)

    def line(self, points: list[Point], width: float, tone: str = "ink") -> None:
        """Stroke an open path, `width` in units, with round joints."""
        pixels = [self._place(p) for p in points]
        stroke = self._width(width)
        self._draw.line(pixels, fill=self._tones[tone], width=stroke, joint="curve")
        if stroke > 3:
            for x, y in (pixels[0], pixels[-1]):
                half = stroke / 2 - 0.5
                self._draw.ellipse((x - half, y - half, x + half, y + half), fill=self._tones[tone])

    # ------------------------------------------------------------------ inside
    def _place(self, point: Point) -> Point:
        x, y = point[0] * self._flip * self._scale, point[1] * self._scale
        return self._cx + x * self._cos - y * self._sin, self._cy + x * self._sin + y * self._cos

    def _width(self, units: float) -> int:
        return max(1, round(units * self._scale))

    def _fill_textured(self, pixels: list[Point]) -> None:
        xs, ys = zip(*pixels, strict=True)
        box = (
            max(0, math.floor(min(xs))),
            max(0, math.floor(min(ys))),
            min(self.canvas.width, math.ceil(max(xs)) + 1),
            min(self.canvas.height, math.ceil(max(ys)) + 1),
        )
        if box[0] >= box[2] or box[1] >= box[3]:
            return
        mask = Image.new("L", (box[2] - box[0], box[3] - box[1]))
        ImageDraw.Draw(mask).polygon([(x - box[0], y - box[1]) for x, y in pixels], fill=255)
        if self._texture is None:
            self._texture = self._make_texture()
        self.canvas.paste(self._texture.crop(box), box[:2], mask)

    def _make_texture(self) -> Image.Image:
        """The object's texture over the whole canvas, turned with the object."""
        cell = 0.30 * self._scale
        tile = Image.new("RGB", self.canvas.size, self._tones["body"])
        draw = ImageDraw.Draw(tile)
        reach = 1.6 * self._scale
        start = -reach + self._paint.phase * 2 * cell
        count = int(2 * reach / cell) + 2

        def turned(x: float, y: float) -> Point:
            return self._cx + x * self._cos - y * self._sin, self._cy + x * self._sin + y * self._cos

        def block(x: float, y: float, w: float, h: float) -> None:
            draw.polygon([turned(x, y), turned(x + w, y), turned(x + w, y + h), turned(x, y + h)], fill=self._second)

        if self._paint.texture == "striped":
            for i in range(0, count, 2):
                block(start + i * cell, -reach, cell, 2 * reach)
        elif self._paint.texture == "checkered":
            for i in range(count):
                for j in range(i % 2, count, 2):
                    block(start + i * cell, start + j * cell, cell, cell)
        else:  # spotted
            radius = 0.36 * cell
            for i in range(count):
                for j in range(i % 2, count, 2):
                    x, y = turned(start + i * cell, start + j * cell)
                    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=self._second)
        return tile


def vary(r: Random, low: float, high: float) -> float:
    """A uniform draw: the one way drawings vary their proportions."""
    return low + (high - low) * r.random()
