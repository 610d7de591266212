"""Drawings of plants: a cactus, a tree, a flower, a leaf.

Each function draws one object of its class inside the box [-1, 1] x [-1, 1]; `DRAWINGS` maps class names to them.
"""

from __future__ import annotations

import math
from random import Random

from ..canvas import Pen, arc, bezier, vary


def _pot(pen: Pen, top: float, half: float, tone: str) -> None:
    """A flower pot from `top` down to the floor of the box."""
    pen.polygon([(-half * 0.85, top), (half * 0.85, top), (half * 0.62, 0.95), (-half * 0.62, 0.95)], tone)
    pen.rectangle(-half, top - 0.02, half, top + 0.16, tone)


def cactus(pen: Pen, r: Random) -> None:
    """A column with bent arms, a ribbed ball in a pot, or stacked pads."""
    style = r.choice(["column", "column", "column", "ball", "pads"])
    spine = r.choice(["ink", "trim", "white"])
    potted = r.random() < 0.5
    base = 0.5 if potted else 0.88
    if style == "column":
        half = vary(r, 0.17, 0.24)
        for side in r.choice([(-1, 1), (-1, 1), (1,)]):
            x, low, high = side * vary(r, 0.58, 0.72), vary(r, -0.05, 0.25), vary(r, -0.6, -0.3)
            w = vary(r, 0.12, 0.16)
            joint = [
                (0, low - w),
                (x - side * w, low - w),
                *arc(x, high, w, w, 180 if side > 0 else 0, 360 if side > 0 else -180, 8),
            ]
            joint += [
                *bezier((x + side * w, low - w), (x + side * w, low + w), (x - side * w, low + w), steps=6),
                (0, low + w),
            ]
            pen.polygon(joint)
            pen.line([(x, high), (x, low - 0.08)], 0.06, spine)
        pen.polygon([(-half, base), *arc(0, -0.93 + half, half, half, 180, 360, 12), (half, base)])
        for x in (-half * 0.4, half * 0.4):
            pen.line([(x, -0.7), (x, base - 0.12)], 0.06, spine)
        if r.random() < 0.4:
            for y in (-0.45, -0.1, 0.25):
                pen.line([(-half - 0.1, y - 0.06), (-half + 0.05, y)], 0.06, "ink")
                pen.line([(half + 0.1, y - 0.06), (half - 0.05, y)], 0.06, "ink")
    elif style == "ball":
        potted, tall = True, vary(r, 0.5, 0.62)
        wide = vary(r, 0.55, 0.7)
        cy = 0.5 - tall * 0.85
        for i in range(9):
            a = math.radians(180 + i * 22.5)
            c, s = math.cos(a), math.sin(a)
            pen.line([(c * wide * 0.9, cy + s * tall * 0.9), (c * (wide + 0.16), cy + s * (tall + 0.16))], 0.07)
        pen.ellipse(0, cy, wide, tall)
        for k in (-0.6, 0.0, 0.6):
            pen.line(
                bezier((k * 0.3 * wide, cy - tall * 0.9), (k * 1.6 * wide, cy), (k * 0.3 * wide, cy + tall * 0.9)),
                0.07,
                spine,
            )
        if r.random() < 0.6:
            for tilt in (-50, 0, 50):
                pen.ellipse(math.sin(math.radians(tilt)) * 0.14, cy - tall - 0.06, 0.08, 0.17, "light", tilt)
    else:
        pads = [
            (0, base - 0.36, 0.34, 0.44, 0) if potted else (0, 0.38, 0.36, 0.54, 0),
            (-0.42, -0.3, 0.26, 0.38, -35),
            (0.4, -0.26, 0.24, 0.36, 38),
        ]
        if r.random() < 0.6:
            pads.append((0.02, -0.56, 0.24, 0.36, 4))
        for x, y, rx, ry, tilt in pads:
            pen.ellipse(x, y, rx, ry, "body", tilt)
            for dx, dy in ((-0.1, -0.14), (0.1, -0.02), (-0.06, 0.14)):
                pen.line([(x + dx - 0.05, y + dy - 0.05), (x + dx + 0.05, y + dy + 0.05)], 0.06, spine)
    if potted:
        _pot(pen, 0.46, 0.46, r.choice(["dark", "trim", "wood", "light"]))
    else:
        pen.ellipse(0, 0.88, 0.7, 0.09, r.choice(["trim", "dark", "wood"]))


def tree(pen: Pen, r: Random) -> None:
    """A conifer, a round crown, a cloud of leaves, or a palm."""
    style = r.choice(["conifer", "conifer", "round", "cloud", "cloud", "palm"])
    trunk = r.choice(["wood", "ink", "dark", "trim"])
    half = vary(r, 0.1, 0.16)
    if style == "conifer":
        tiers = r.choice([2, 3, 3, 4])
        wide, low = vary(r, 0.6, 0.82), vary(r, 0.5, 0.68)
        pen.rectangle(-half, low - 0.1, half, 0.95, trunk)
        step = (low + 0.96) / (tiers + 0.6)
        for i in range(tiers):
            w = wide * (1 - 0.62 * i / tiers)
            y = low - i * step
            top = max(-0.96, y - 1.6 * step)
            pen.polygon([(-w, y), (0, top), (w, y), (0, y + 0.06)], "dark" if i % 2 else "body")
        return
    if style == "palm":
        bend = vary(r, 0.05, 0.3)
        pen.polygon(
            bezier((-0.2, 0.95), (bend, 0.3), (-0.06, -0.4)) + bezier((0.08, -0.4), (bend + 0.22, 0.3), (0.12, 0.95)),
            trunk,
        )
        for side in (-1, 1):
            for x, y, lift in ((0.9, 0.1, -0.85), (0.8, -0.5, -1.1), (0.5, 0.42, -0.3)):
                tip = (side * x, y)
                frond = bezier((0, -0.5), (side * x * 0.6, lift), tip) + bezier(
                    tip, (side * x * 0.5, lift + 0.5), (0, -0.25)
                )
                pen.polygon(frond)
        for x in (-0.12, 0.1):
            pen.ellipse(x, -0.22, 0.12, 0.12, "ink")
        return
    low = vary(r, 0.1, 0.3)
    pen.polygon(
        [(-half, low - 0.3), (half, low - 0.3), (half, 0.8), (half * 1.9, 0.95), (-half * 1.9, 0.95), (-half, 0.8)],
        trunk,
    )
    if r.random() < 0.7:
        pen.line([(0, 0.62), (0.36, low - 0.1)], 0.11, trunk)
        pen.line([(0, 0.7), (-0.36, low - 0.1)], 0.11, trunk)
    wide, tall, mid = (vary(r, 0.5, 0.62), 0.6, -0.32) if style == "round" else (vary(r, 0.74, 0.86), 0.5, -0.38)
    bumps, turn = r.choice([6, 7, 8, 9]), r.random() * math.pi
    crown = []
    for i in range(73):  # a scalloped oval
        a = 2 * math.pi * i / 72
        swell = 0.86 + 0.24 * abs(math.sin(bumps * a / 2 + turn))
        crown.append((math.cos(a) * wide * swell, max(-0.97, mid + math.sin(a) * tall * swell)))
    pen.polygon(crown)
    for x, y in ((-0.5, 0.1), (-0.1, -0.4), (0.1, 0.3), (0.5, -0.15))[: r.choice([2, 4, 4])]:
        pen.line(arc(x * wide, mid + y * tall, 0.17, 0.13, 190, 370, 6), 0.07, "dark")


def flower(pen: Pen, r: Random) -> None:
    """A daisy with round, pointed or heart-like petals, or a tulip, on a leafy stem."""
    stem = r.choice(["leaf", "dark", "ink", "trim"])
    tulip = r.random() < 0.25
    cy = vary(r, -0.42, -0.34)
    bend = vary(r, -0.2, 0.2)
    pen.line(bezier((0, cy), (bend, 0.4), (0, 0.93)), 0.11, stem)
    for side in r.choice([(-1,), (1,), (-1, 1), (-1, 1)]):
        y, tip = vary(r, 0.65, 0.85), (side * vary(r, 0.45, 0.6), vary(r, 0.15, 0.4))
        pen.polygon(bezier((0, y), (side * 0.1, y - 0.5), tip) + bezier(tip, (side * 0.55, y), (0, y)), stem)
    if tulip:
        wide, low = vary(r, 0.42, 0.52), 0.12
        cup = [
            *bezier((0, low), (-wide * 1.3, low), (-wide, -0.9)),
            (-wide * 0.42, -0.48),
            (0, -0.96),
            (wide * 0.42, -0.48),
        ]
        pen.polygon(cup + bezier((wide, -0.9), (wide * 1.3, low), (0, low)))
        pen.line(bezier((-wide * 0.42, -0.5), (-wide * 0.4, -0.1), (-0.06, 0.04)), 0.07, "dark")
        pen.line(bezier((wide * 0.42, -0.5), (wide * 0.4, -0.1), (0.06, 0.04)), 0.07, "dark")
        return
    count = r.choice([5, 5, 6, 7, 8])
    reach, heart = vary(r, 0.54, 0.58), vary(r, 0.17, 0.24)
    shape = r.choice(["round", "round", "pointed"])
    turn = r.random() * 360
    for i in range(count):
        angle = turn + 360 * i / count
        a = math.radians(angle)
        c, s = math.cos(a), math.sin(a)
        if shape == "round":
            long = reach * 0.48
            side = min(long, reach * 1.75 / count)
            pen.ellipse(c * (reach - long), cy + s * (reach - long), long, side, "body", angle)
        else:
            w = reach * 1.45 / count
            pen.polygon(
                [
                    (c * 0.1 - s * w * 0.3, cy + s * 0.1 + c * w * 0.3),
                    (c * reach * 0.6 - s * w, cy + s * reach * 0.6 + c * w),
                    (c * reach, cy + s * reach),
                    (c * reach * 0.6 + s * w, cy + s * reach * 0.6 - c * w),
                    (c * 0.1 + s * w * 0.3, cy + s * 0.1 - c * w * 0.3),
                ]
            )
    pen.ellipse(0, cy, heart, heart, r.choice(["trim", "dark", "ink", "white"]))


def leaf(pen: Pen, r: Random) -> None:
    """One leaf with a midrib and side veins: oval, heart-shaped, lobed like oak or pointed like maple."""
    style = r.choice(["oval", "oval", "heart", "oak", "maple"])
    vein = r.choice(["ink", "trim", "trim", "dark"])
    stalk = vary(r, -0.2, 0.2)
    pen.line(bezier((0, 0.4), (0, 0.7), (stalk, 0.95)), 0.1, r.choice([vein, "ink"]))
    if style == "maple":
        right = [(0.0, -0.95), (0.14, -0.52), (0.34, -0.62), (0.3, -0.22), (0.62, -0.5), (0.68, -0.3), (0.94, -0.28)]
        right += [(0.78, 0.02), (0.86, 0.14), (0.44, 0.38), (0.5, 0.52), (0.0, 0.5)]
        w, h = vary(r, 0.85, 1.0), vary(r, 0.9, 1.0)
        right = [(x * w, y * h) for x, y in right]
        pen.polygon(right + [(-x, y) for x, y in reversed(right)])
        pen.line([(0, 0.55), (0, -0.65 * h)], 0.08, vein)
        for side in (-1, 1):
            pen.line([(0, 0.42), (side * 0.6 * w, -0.18)], 0.07, vein)
            pen.line([(0, 0.44), (side * 0.5 * w, 0.22)], 0.07, vein)
        return
    low = 0.55
    if style == "heart":
        wide = vary(r, 0.72, 0.9)
        right = bezier((0, -0.95), (wide * 0.55, -0.6), (wide, -0.25), (wide, 0.1)) + bezier(
            (wide, 0.1), (wide * 0.95, 0.8), (0.1, 0.72), (0, 0.36)
        )
    elif style == "oak":
        wide = vary(r, 0.5, 0.62)
        right = arc(0, -0.7, 0.3, 0.26, -90, 20, 6)
        for y, w in ((-0.32, 1.0), (0.08, 1.05), (0.42, 0.7)):
            right += arc(wide * w - 0.16, y, 0.18, 0.17, -80, 80, 6) + [(wide * w * 0.5, y + 0.19)]
        right.append((0.0, low + 0.1))
    else:
        wide, belly = vary(r, 0.4, 0.75), vary(r, -0.3, 0.3)
        right = bezier((0, -0.95), (wide * 1.3, belly - 0.4), (wide * 1.3, belly + 0.4), (0, low + 0.1), steps=20)
    pen.polygon(right + [(-x, y) for x, y in reversed(right)])
    pen.line([(0, 0.62), (0, -0.72)], 0.08, vein)
    for y in (-0.25, 0.08, 0.38)[: r.choice([2, 3, 3])]:
        for side in (-1, 1):
            span = wide * (0.45 if y > 0.3 else 0.62)
            pen.line([(0, y), (side * span, y - 0.24)], 0.07, vein)


DRAWINGS = {"cactus": cactus, "tree": tree, "flower": flower, "leaf": leaf}
