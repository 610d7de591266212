"""Drawings of buildings: house, windmill, tent, castle.

Each function draws one object of its class inside the box [-1, 1] x [-1, 1]; `DRAWINGS` maps class names to them.
"""

from __future__ import annotations

import math
from random import Random

from ..canvas import Pen, Point, arc, bezier, vary


def _window(pen: Pen, x: float, y: float, half: float, glass: str) -> None:
    """A square window with a cross bar."""
    pen.rectangle(x - half, y - half, x + half, y + half, glass)
    pen.line([(x, y - half), (x, y + half)], 0.06)
    pen.line([(x - half, y), (x + half, y)], 0.06)


def house(pen: Pen, r: Random) -> None:
    """A gabled front, a long side under a sloping roof, or a flat-roofed block; door, windows, chimney."""
    style = r.choice(["gable", "gable", "side", "flat"])
    roof = r.choice(["dark", "trim", "ink", "trim"])
    glass, door = r.choice(["white", "white", "light"]), r.choice(["dark", "trim", "ink"])
    half = vary(r, 0.62, 0.8) if style != "side" else vary(r, 0.74, 0.84)
    eave = {"gable": vary(r, -0.2, 0.05), "side": vary(r, -0.15, 0.05), "flat": vary(r, -0.62, -0.4)}[style]
    side = r.choice([-1, 1])
    if style == "flat" or r.random() < 0.8:
        x = side * vary(r, 0.36, 0.48)
        top = eave - 0.32 if style == "flat" else -0.9
        pen.rectangle(x - 0.12, top, x + 0.12, eave, "dark" if roof != "dark" else "trim")
        if r.random() < 0.4:
            pen.rectangle(x - 0.17, top - 0.05, x + 0.17, top + 0.06, roof)
    pen.rectangle(-half, eave, half, 0.93)
    if style == "gable":
        over = half + vary(r, 0.08, 0.18)
        pen.polygon([(-over, eave + 0.04), (0, -0.95), (over, eave + 0.04)], roof)
        if r.random() < 0.4:
            pen.ellipse(0, (eave - 0.7) / 2, 0.13, 0.13, "white")
    elif style == "side":
        inset = vary(r, 0.1, 0.35)
        pen.polygon([(-0.97, eave + 0.04), (-0.97 + inset, -0.7), (0.97 - inset, -0.7), (0.97, eave + 0.04)], roof)
    else:
        pen.rectangle(-half - 0.1, eave - 0.08, half + 0.1, eave + 0.1, roof)
    middle = r.random() < 0.45
    x = 0.0 if middle else -side * half * 0.5
    tall = vary(r, 0.46, 0.6) if style != "flat" else 0.44
    w = vary(r, 0.13, 0.18)
    if r.random() < 0.3:
        pen.polygon([(x - w, 0.93), *arc(x, 0.93 - tall + w, w, w, 180, 360, 8), (x + w, 0.93)], door)
    else:
        pen.rectangle(x - w, 0.93 - tall, x + w, 0.93, door)
    size = vary(r, 0.14, 0.18)
    row = 0.42 if style != "flat" else 0.56
    for place in (-0.62, 0.62) if middle else (side * 0.42,):
        _window(pen, place * half, row, size, glass)
    if style == "flat":
        for place in r.choice([(-0.5, 0.5), (-0.6, 0.0, 0.6)]):
            _window(pen, place * half, eave + 0.42, size, glass)


def windmill(pen: Pen, r: Random) -> None:
    """A tapering tower with a cap and four large sails; lattice, solid or half sails at any turn."""
    foot, neck = vary(r, 0.36, 0.5), vary(r, 0.2, 0.27)
    hub = (0.0, vary(r, -0.22, -0.14))
    top = hub[1] - 0.1
    pen.polygon([(-neck, top), (neck, top), (foot, 0.95), (-foot, 0.95)])
    cap = r.choice(["dark", "trim"])
    if r.random() < 0.5:
        pen.polygon([(-neck - 0.08, top + 0.02), (0, top - 0.42), (neck + 0.08, top + 0.02)], cap)
    else:
        pen.polygon(arc(0, top + 0.02, neck + 0.06, 0.32, 180, 360, 12), cap)
    pen.polygon([(-0.13, 0.95), *arc(0, 0.66, 0.13, 0.13, 180, 360, 6), (0.13, 0.95)], "ink")
    if r.random() < 0.5:
        pen.rectangle(-0.09, 0.22, 0.09, 0.42, "white")
    reach, wide = 0.76, vary(r, 0.17, 0.24)
    turn = r.choice([45, 45, vary(r, 10, 80)])
    sail = r.choice(["white", "light", "trim"])
    kind = r.choice(["lattice", "half", "half", "kite"])

    def turned(angle: float, along: float, across: float) -> Point:
        c, s = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        return hub[0] + along * c - across * s, hub[1] + along * s + across * c

    for angle in (turn, turn + 90, turn + 180, turn + 270):
        if kind == "kite":
            shape = [(0.1, 0.0), (reach * 0.95, -wide * 0.65), (reach, wide * 0.65)]
        elif kind == "half":
            shape = [(0.2, 0.0), (reach, 0.0), (reach, wide), (0.2, wide)]
        else:
            shape = [(0.22, -wide * 0.6), (reach, -wide * 0.6), (reach, wide * 0.6), (0.22, wide * 0.6)]
        pen.polygon([turned(angle, *p) for p in shape], sail)
        if kind != "kite":
            pen.line([hub, turned(angle, reach, 0)], 0.07, "ink")
            low, high = (0.0, wide) if kind == "half" else (-wide * 0.6, wide * 0.6)
            pen.line([turned(angle, 0.48, low), turned(angle, 0.48, high)], 0.06, "ink")
    pen.ellipse(*hub, 0.1, 0.1, "ink")


def tent(pen: Pen, r: Random) -> None:
    """A ridge tent seen from the front or askew, a dome, or a tipi; always with an open flap."""
    style = r.choice(["front", "askew", "askew", "dome", "tipi"])
    inside = "ink"
    if style == "front":
        top, wide = vary(r, -0.75, -0.5), vary(r, 0.85, 0.95)
        for side in (-1, 1):
            pen.line([(0, top), (side * -0.12, top - 0.2)], 0.08, r.choice(["ink", "wood"]))
        pen.polygon([(-wide, 0.75), (0, top), (wide, 0.75)])
        pen.polygon([(-0.36, 0.75), (0, top + 0.3), (0.36, 0.75)], inside)
        for side in (-1, 1):
            pen.polygon([(0, top + 0.26), (side * 0.36, 0.75), (side * 0.58, 0.62)], "light")
    elif style == "askew":
        top, ridge = vary(r, -0.62, -0.42), vary(r, 0.35, 0.55)
        foot = vary(r, -0.42, -0.3)
        pen.polygon([(foot, top), (ridge, top + 0.02), (0.95, 0.6), (0.2, 0.72)], "dark")
        pen.polygon([(-0.95, 0.72), (foot, top), (0.2, 0.72)])
        mid = foot * 0.95
        pen.polygon([(mid - 0.27, 0.72), (foot, top + 0.34), (mid + 0.25, 0.72)], inside)
        pen.polygon([(foot, top + 0.3), (mid + 0.25, 0.72), (mid + 0.42, 0.6)], "light")
        pen.line([(foot, top + 0.04), (foot, top - 0.18)], 0.08, "ink")
        pen.line([(ridge, top + 0.02), (0.95, 0.3)], 0.06, "ink")
    elif style == "dome":
        high, wide = vary(r, 1.0, 1.25), vary(r, 0.86, 0.95)
        dome = bezier(
            (-wide, 0.7), (-wide * 0.85, 0.7 - high * 1.3), (wide * 0.85, 0.7 - high * 1.3), (wide, 0.7), steps=20
        )
        pen.polygon(dome)
        peak = 0.7 - high * 0.975
        pen.line(bezier((0, peak), (-wide * 0.75, peak + 0.25), (-wide * 0.75, 0.7)), 0.07, "trim")
        pen.line(bezier((0, peak), (wide * 0.75, peak + 0.25), (wide * 0.75, 0.7)), 0.07, "trim")
        pen.polygon(
            [
                *bezier((-0.4, 0.7), (-0.3, peak + 0.3), (0, peak + 0.25)),
                *bezier((0, peak + 0.25), (0.3, peak + 0.3), (0.4, 0.7)),
            ],
            inside,
        )
        pen.polygon([(0, peak + 0.25), (0.1, 0.7), (0.42, 0.7), (0.32, peak + 0.55)], "light")
    else:
        wide, top = vary(r, 0.66, 0.82), vary(r, -0.66, -0.5)
        poles = r.choice(["wood", "ink", "ink"])
        for side in (-1, 0, 1):
            pen.line([(side * -0.04, top + 0.1), (side * 0.24, -0.93)], 0.09, poles)
        pen.polygon([(-wide, 0.93), (-0.1, top), (0.1, top), (wide, 0.93)])
        pen.polygon([(-0.26, 0.93), (0, top + 0.65), (0.26, 0.93)], inside)
        pen.polygon([(0, top + 0.6), (0.26, 0.93), (0.46, 0.86)], "light")
        y = top + 0.42
        pen.line([(-0.1 - (wide - 0.1) * 0.25, y), (0.1 + (wide - 0.1) * 0.25, y)], 0.09, "trim")
        return
    if r.random() < 0.5:
        pen.line([(-0.95, 0.78), (0.95, 0.78)], 0.08, r.choice(["trim", "dark"]))


def _battlement(x0: float, x1: float, top: float, base: float, teeth: int) -> list[Point]:
    """A wall with `teeth` merlons on it."""
    width = (x1 - x0) / (2 * teeth - 1)
    points: list[Point] = [(x0, base)]
    for i in range(2 * teeth - 1):
        y = top if i % 2 == 0 else top + 0.16
        points += [(x0 + i * width, y), (x0 + (i + 1) * width, y)]
    return [*points, (x1, base)]


def castle(pen: Pen, r: Random) -> None:
    """A crenellated wall with a gate between two towers, or a keep; flat or pointed towers, flags."""
    roof, flag = r.choice(["trim", "dark", "dark"]), r.choice(["trim", "dark", "light"])
    pointed = r.random() < 0.45
    keep = r.random() < 0.45
    width, tall = vary(r, 0.38, 0.48), vary(r, -0.62, -0.35)
    wall = vary(r, 0.02, 0.2)
    if keep:
        top = vary(r, -0.74, -0.6)
        pen.polygon(_battlement(-0.34, 0.34, top, 0.6, 3), "dark")
        pen.line([(0, top + 0.05), (0, -0.95)], 0.06)
        pen.polygon([(0.02, -0.97), (0.36, -0.87), (0.02, -0.76)], flag)
        if tall < top + 0.35:
            tall = top + 0.35
    pen.polygon(_battlement(-0.6, 0.6, wall, 0.93, 4))
    for side in (-1, 1):
        outer, inner = side * 0.93, side * (0.93 - width)
        left, right = min(outer, inner), max(outer, inner)
        mid = (left + right) / 2
        if pointed:
            pen.rectangle(left + 0.04, tall + 0.1, right - 0.04, 0.93)
            pen.polygon([(left, tall + 0.14), (mid, max(-0.96, tall - 0.42)), (right, tall + 0.14)], roof)
        else:
            pen.polygon(_battlement(left, right, tall, 0.93, r.choice([2, 3])))
            if not keep:
                pen.line([(mid, tall + 0.15), (mid, tall - 0.32)], 0.06)
                pen.polygon([(mid, tall - 0.34), (mid + side * -0.28, tall - 0.24), (mid, tall - 0.13)], flag)
        y = tall + 0.42
        pen.polygon([(mid - 0.07, y + 0.2), *arc(mid, y, 0.07, 0.08, 180, 360, 6), (mid + 0.07, y + 0.2)], "ink")
    gate = vary(r, 0.2, 0.26)
    pen.polygon([(-gate, 0.93), *arc(0, 0.62, gate, gate * 0.95, 180, 360, 10), (gate, 0.93)], "ink")
    if r.random() < 0.5:
        for x in (-0.08, 0.08):
            pen.line([(x, 0.5), (x, 0.9)], 0.06, "trim")


DRAWINGS = {"house": house, "windmill": windmill, "tent": tent, "castle": castle}
