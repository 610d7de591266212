"""Scenes: what is where and how it looks. A scene is drawn, captioned (captions.py) and asked (truth.py)."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Literal

from PIL import Image

from ..seeding import rng
from .canvas import COLOURS, SUPERSAMPLING, TEXTURES, Paint, Pen, vary
from .drawings import DRAWINGS
from .grounds import GROUNDS


#: The classes of the world, in alphabetical order: the label ids of the evaluation split.
CLASSES: tuple[str, ...] = tuple(sorted(DRAWINGS))

#: The default side of a picture, in pixels: the input size of the sandbox checkpoint.
PICTURE_SIZE = 72

#: Extent of an object as a share of the picture's side. The gaps keep the words apart.
SIZES: dict[str, tuple[float, float]] = {"small": (0.30, 0.36), "medium": (0.44, 0.52), "large": (0.64, 0.92)}

#: Range of rotation in degrees for each pose, before a random sign.
POSES: dict[str, tuple[float, float]] = {
    "upright": (0, 8),
    "leaning": (25, 42),
    "lying": (84, 96),
    "upside down": (172, 180),
}
_POSE_WEIGHTS = {"upright": 80, "leaning": 10, "lying": 5, "upside down": 5}

Relation = Literal["left of", "right of", "above", "below"]


@dataclass(frozen=True)
class Thing:
    """One object. `x`, `y` are its centre and `extent` its width, as shares of the picture's side."""

    noun: str
    colour: str
    texture: str
    size: str
    pose: str
    x: float
    y: float
    extent: float
    angle: float
    mirror: bool
    outlined: bool
    shape_seed: int


@dataclass(frozen=True)
class Scene:
    """One picture before it is drawn. `things[0]` is the main object."""

    things: tuple[Thing, ...]
    ground: str
    seed: int

    def relation(self, a: int, b: int) -> Relation:
        """Where thing `a` is, seen from thing `b`. Scenes are laid out so that one axis clearly dominates."""
        dx, dy = self.things[a].x - self.things[b].x, self.things[a].y - self.things[b].y
        if abs(dx) > abs(dy):
            return "left of" if dx < 0 else "right of"
        return "above" if dy < 0 else "below"

    def draw(self, size: int = PICTURE_SIZE) -> Image.Image:
        """The picture, RGB, `size` x `size` pixels."""
        side = size * SUPERSAMPLING
        canvas = GROUNDS[self.ground].paint(side, Random(self.seed))
        for thing in self.things:
            r = Random(thing.shape_seed)
            paint = Paint(thing.colour, thing.texture, thing.outlined, r.random())
            centre = (thing.x * side, thing.y * side)
            DRAWINGS[thing.noun](Pen(canvas, centre, thing.extent * side / 2, thing.angle, thing.mirror, paint), r)
        return canvas.resize((size, size), Image.Resampling.BOX)


def _thing(
    r: Random, noun: str, size: str, x: float, y: float, shade: tuple[float, ...], poses: tuple[str, ...]
) -> Thing:
    colour = r.choice(list(COLOURS))
    pose = r.choices(poses, [_POSE_WEIGHTS[pose] for pose in poses])[0]
    angle = vary(r, *POSES[pose]) * r.choice((-1, 1))
    # An object of nearly the background's colour needs its outline to be seen at all.
    camouflaged = sum(abs(a - b) for a, b in zip(COLOURS[colour], shade, strict=True)) < 130
    return Thing(
        noun=noun,
        colour=colour,
        texture=r.choices(TEXTURES, (52, 16, 16, 16))[0],
        size=size,
        pose=pose,
        x=x,
        y=y,
        extent=vary(r, *SIZES[size]),
        angle=angle,
        mirror=r.random() < 0.5,
        outlined=camouflaged or r.random() < 0.5,
        shape_seed=r.getrandbits(32),
    )


def _shade(ground: str, seed: int) -> tuple[float, ...]:
    """The mean colour of a background."""
    return GROUNDS[ground].paint(16, Random(seed)).resize((1, 1), Image.Resampling.BOX).getpixel((0, 0))  # type: ignore[return-value]


def compose(
    *keys: int | str,
    second: float = 0.5,
    main_sizes: tuple[str, ...] = tuple(SIZES),
    poses: tuple[str, ...] = tuple(POSES),
    label: str | None = None,
) -> Scene:
    """The scene named by `keys`; the same keys give the same scene on every machine.

    Args:
        keys: Seed, split and index.
        second: Probability of a second object.
        main_sizes: Sizes the main object may have. With anything but all sizes, a second object is small, the main
            one beside it large, and the second never a banana: the evaluation split, where one must be the label.
        poses: Poses things may have.
        label: The main object's class; drawn at random when omitted.
    """
    r = rng("scene", *keys)
    seed = r.getrandbits(32)
    ground = r.choice(list(GROUNDS))
    shade = _shade(ground, seed)
    noun = label or r.choice(CLASSES)
    evaluation = tuple(main_sizes) != tuple(SIZES)
    if r.random() >= second:
        size = r.choice(main_sizes)
        reach = max(0.0, 0.5 - SIZES[size][1] / 2)
        x, y = 0.5 + vary(r, -reach, reach), 0.5 + vary(r, -reach, reach)
        return Scene((_thing(r, noun, size, x, y, shade, poses),), ground, seed)

    other = r.choice([c for c in CLASSES if c != noun and not (evaluation and c == "banana")])
    if evaluation:
        sizes = ("large", "small")  # side by side, one of the two must plainly be what the picture is of
    else:
        sizes = r.choice([("small", "small"), ("small", "medium"), ("medium", "small"), ("medium", "medium"),
                          ("large", "small"), ("small", "large")])  # fmt: skip
    # Lay the two out along one axis, with little offset on the other: the relation is never in doubt.
    widths = [0.66 if s == "large" else SIZES[s][1] for s in sizes]
    gap = 1 - sum(widths)
    first, middle = vary(r, 0, gap / 2), vary(r, 0, gap / 3)
    a = first + widths[0] / 2
    b = first + widths[0] + middle + widths[1] / 2
    if r.random() < 0.5:
        a, b = 1 - a, 1 - b
    cross = [0.5 + vary(r, -1, 1) * 0.35 * min(abs(a - b), 1 - w) for w in widths]
    cross[1] = cross[0] + max(-0.45 * abs(a - b), min(0.45 * abs(a - b), cross[1] - cross[0]))
    places = [(a, cross[0]), (b, cross[1])]
    if r.random() < 0.5:
        places = [(y, x) for x, y in places]
    things = []
    for n, s, (x, y), w in zip((noun, other), sizes, places, widths, strict=True):
        thing = _thing(r, n, s, x, y, shade, poses)
        if s == "large":
            thing = _resized(thing, w)
        things.append(thing)
    return Scene(tuple(things), ground, seed)


def _resized(thing: Thing, extent: float) -> Thing:
    return Thing(**{**thing.__dict__, "extent": extent})
