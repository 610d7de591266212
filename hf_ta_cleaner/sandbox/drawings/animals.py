"""Drawings of animals: fish, duck, cat, rabbit, snail, butterfly, turtle, crab.

Each function draws one object of its class inside the box [-1, 1] x [-1, 1]; `DRAWINGS` maps class names to them.
"""

from __future__ import annotations

from random import Random

from ..canvas import Pen, arc, bezier, vary


def _eye(pen: Pen, x: float, y: float, size: float) -> None:
    """A white eye with a dark pupil: seen on bodies of every colour."""
    pen.ellipse(x, y, size, size, "white", outline=False)
    pen.ellipse(x, y, size * 0.62, size * 0.62, "ink", outline=False)


def fish(pen: Pen, r: Random) -> None:
    """Seen from the side, head to the left: slim, round or tall, with one of three tails."""
    style = r.choice(["slim", "slim", "round", "tall"])
    high = {"slim": vary(r, 0.3, 0.42), "round": vary(r, 0.5, 0.6), "tall": vary(r, 0.56, 0.66)}[style]
    tail = r.choice(["triangle", "fork", "fan"])
    spread = vary(r, 0.34, 0.5)
    fin = r.choice(["dark", "body", "trim"])
    if style == "tall":  # long swept fins above and below, as an angelfish has
        for side in (-1, 1):
            pen.polygon([(-0.4, side * 0.3), (0.35, side * 0.96), (0.4, side * 0.2)], fin)
    else:
        top = -high - vary(r, 0.16, 0.26)
        pen.polygon([(-0.4, -high * 0.7), (-0.12, top), (0.3, top + 0.06), (0.35, -high * 0.4)], fin)
        pen.polygon([(-0.05, high * 0.7), (0.25, high + 0.18), (0.3, high * 0.5)], fin)
    if tail == "triangle":
        pen.polygon([(0.4, 0), (0.94, -spread), (0.94, spread)], fin)
    elif tail == "fork":
        pen.polygon([(0.36, 0), (0.95, -spread - 0.06), (0.74, 0), (0.95, spread + 0.06)], fin)
    else:
        pen.polygon([(0.4, 0), *bezier((0.75, -spread), (1.1, 0), (0.75, spread))], fin)
    body = bezier((-0.96, 0.02), (-0.62, -high * 1.6), (0.2, -high * 1.3), (0.62, -0.07))
    pen.polygon(body + bezier((0.62, 0.07), (0.2, high * 1.3), (-0.62, high * 1.6), (-0.96, 0.02)))
    pen.line(arc(-0.62, 0.02, 0.24, high * 0.72, -55, 55, 8), 0.07, "dark")
    if r.random() < 0.6:
        pen.polygon([(-0.18, 0.05), (0.18, -0.08), (0.16, 0.26)], fin if fin != "body" else "dark")
    else:
        for x in (-0.08, 0.2):
            pen.line(arc(x, 0.0, 0.12, 0.17, -75, 75, 6), 0.07, "dark")
    _eye(pen, -0.6, -high * 0.28, vary(r, 0.1, 0.14))
    pen.line([(-0.9, 0.1), (-0.74, 0.12)], 0.06)


def duck(pen: Pen, r: Random) -> None:
    """Seen from the side, bill to the left: afloat or standing, with a short or a long neck."""
    head, lift = vary(r, 0.25, 0.33), vary(r, -0.62, -0.5)
    bill = r.choice(["trim", "ink", "trim"])
    standing = r.random() < 0.45
    belly = 0.62 if standing else 0.78
    x = vary(r, -0.48, -0.38)
    if standing:
        for foot in (-0.05, 0.28):
            pen.line([(foot, 0.55), (foot, 0.88)], 0.09, bill)
            pen.polygon([(foot + 0.08, 0.82), (foot + 0.06, 0.95), (foot - 0.28, 0.95)], bill)
    y = lift + 0.08
    if r.random() < 0.35:  # an open bill
        pen.polygon([(x - 0.1, y - 0.12), (-0.96, y - 0.14), (-0.94, y - 0.02), (x - 0.1, y + 0.02)], bill)
        pen.polygon([(x - 0.1, y + 0.02), (-0.88, y + 0.14), (-0.84, y + 0.24), (x - 0.1, y + 0.15)], bill)
    else:
        pen.polygon(
            [(x - 0.1, y - 0.15), *bezier((-0.82, y - 0.02), (-0.98, y), (-0.95, y + 0.12)), (x - 0.1, y + 0.15)], bill
        )
    tail = vary(r, -0.2, 0.05)
    body = [
        *bezier((x - 0.17, lift), (x - 0.1, -0.1), (-0.75, 0.1), (-0.72, 0.35)),
        *bezier((-0.72, 0.35), (-0.66, belly + 0.1), (0.62, belly + 0.2), (0.95, tail)),
        *bezier((0.95, tail), (0.7, 0.15), (0.1, 0.05), (x + 0.2, lift)),
    ]
    pen.polygon(body)
    pen.ellipse(x, lift, head * 1.05, head, r.choice(["body", "body", "dark"]))
    if r.random() < 0.3:
        pen.line([(x - 0.2, lift + head + 0.03), (x + 0.24, lift + head + 0.03)], 0.1, "white")
    wing = bezier((-0.3, 0.18), (0.1, 0.02), (0.62, 0.12)) + bezier(
        (0.62, 0.12), (0.35, 0.62), (-0.02, 0.55), (-0.3, 0.18)
    )
    pen.polygon(wing, r.choice(["dark", "light"]))
    _eye(pen, x - 0.06, lift - 0.06, 0.1)
    if not standing and r.random() < 0.6:
        wave = [(-0.9 + 0.18 * i, 0.86 + (0.05 if i % 2 else -0.04)) for i in range(11)]
        pen.line(wave, 0.1, "trim")


def _whiskers(pen: Pen, x: float, y: float, reach: float) -> None:
    for side in (-1, 1):
        for drop in (-0.1, 0.1):
            pen.line([(x + side * 0.16, y + drop * 0.4), (x + side * reach, y + drop)], 0.06, "ink")


def _cat_head(pen: Pen, x: float, y: float, size: float, r: Random) -> None:
    """A wide face with pointed ears, slit eyes and whiskers."""
    ear, inner = vary(r, 1.15, 1.4), r.choice(["light", "dark", "trim"])
    for side in (-1, 1):
        pen.polygon(
            [
                (x + side * size * 1.0, y - size * 0.1),
                (x + side * size * 0.9, y - size * ear),
                (x + side * size * 0.12, y - size * 0.62),
            ]
        )
        pen.polygon(
            [
                (x + side * size * 0.86, y - size * 0.4),
                (x + side * size * 0.8, y - size * (ear - 0.28)),
                (x + side * size * 0.38, y - size * 0.66),
            ],
            inner,
            outline=False,
        )
    pen.ellipse(x, y, size * 1.06, size * 0.86)
    for side in (-1, 1):
        pen.ellipse(x + side * size * 0.42, y - size * 0.12, size * 0.24, size * 0.22, "white", outline=False)
        pen.ellipse(x + side * size * 0.42, y - size * 0.12, size * 0.11, size * 0.22, "ink", outline=False)
    pen.ellipse(x, y + size * 0.4, size * 0.4, size * 0.24, "light", outline=False)
    pen.polygon(
        [(x - size * 0.15, y + size * 0.2), (x + size * 0.15, y + size * 0.2), (x, y + size * 0.4)],
        "ink",
        outline=False,
    )


def cat(pen: Pen, r: Random) -> None:
    """A face, a sitting cat with its tail around, or a walking cat with its tail up."""
    style = r.choice(["face", "sitting", "sitting", "walking", "walking"])
    if style == "face":
        _cat_head(pen, 0, 0.2, vary(r, 0.72, 0.78), r)
        _whiskers(pen, 0, 0.48, 0.95)
    elif style == "sitting":
        tail = vary(r, 0.2, 0.6)
        pen.line(bezier((0.2, 0.82), (1.0, 1.0), (0.95, 0.4), (0.72, 0.6 - tail)), 0.17, "dark")
        hip = vary(r, 0.46, 0.58)
        pen.polygon(bezier((-0.26, -0.2), (-hip, 0.3), (-hip, 0.95)) + bezier((hip, 0.95), (hip, 0.3), (0.26, -0.2)))
        pen.line([(-0.1, 0.5), (-0.1, 0.9)], 0.07, "dark")
        pen.line([(0.12, 0.5), (0.12, 0.9)], 0.07, "dark")
        _cat_head(pen, 0, -0.32, 0.47, r)
        _whiskers(pen, 0, -0.15, 0.72)
    else:
        tip = vary(r, 0.55, 0.92)
        pen.line(bezier((0.55, 0.2), (1.1, 0.1), (0.6, -0.5), (tip, -0.8)), 0.16, "dark")
        stride = vary(r, 0.0, 0.14)
        for x, tone in ((-0.28, "dark"), (0.36, "dark"), (-0.5, "body"), (0.58, "body")):
            lean = stride if tone == "dark" else -stride
            pen.polygon([(x - 0.11, 0.3), (x + 0.11, 0.3), (x + 0.09 + lean, 0.93), (x - 0.11 + lean, 0.93)], tone)
        pen.ellipse(0.04, 0.22, 0.68, vary(r, 0.27, 0.34))
        _cat_head(pen, -0.5, -0.22, 0.38, r)
        _whiskers(pen, -0.5, -0.06, 0.46)


def rabbit(pen: Pen, r: Random) -> None:
    """A face, a sitting rabbit from the front, or a crouching one from the side; always long ears."""
    style = r.choice(["face", "front", "front", "side", "side"])
    inner = r.choice(["light", "trim", "dark"])
    if style == "side":
        pen.ellipse(0.76, 0.45, 0.19, 0.18, "white" if r.random() < 0.6 else "light")
        for tilt, tone in ((vary(r, 24, 36), "dark"), (vary(r, -4, 12), "body")):
            x = -0.42 + tilt / 85
            pen.ellipse(x, -0.52, 0.14, 0.44, tone, tilt)
        pen.ellipse(x, -0.52, 0.06, 0.3, inner, tilt, outline=False)
        pen.ellipse(0.2, 0.4, 0.58, vary(r, 0.44, 0.52))
        pen.ellipse(-0.48, 0.02, 0.36, 0.3)
        pen.line(arc(0.38, 0.56, 0.3, 0.3, 170, 300, 8), 0.07, "dark")
        pen.ellipse(0.3, 0.86, 0.36, 0.1, "light")
        pen.ellipse(-0.3, 0.85, 0.22, 0.1, "light")
        _eye(pen, -0.54, -0.06, 0.1)
        pen.ellipse(-0.82, 0.06, 0.07, 0.06, "ink", outline=False)
        return
    size, y = (0.56, 0.36) if style == "face" else (0.38, -0.02)
    bent = r.random() < 0.3
    for side in (-1, 1):
        tilt = side * vary(r, 4, 20)
        x, ear = side * size * 0.5, (y - size * 0.6 + 0.96) / 2
        mid = y - size * 0.6 - ear + 0.06
        x += ear * tilt / 60
        if bent and side > 0:  # one ear folds over
            fold = mid - ear * 0.35
            pen.polygon([(x - 0.2, y - size * 0.5), (x - 0.16, fold), (x + 0.14, fold), (x + 0.1, y - size * 0.5)])
            pen.polygon(
                [(x - 0.17, fold), (x + 0.02, fold - 0.14), (x + 0.5, fold + 0.36), (x + 0.16, fold + 0.3)], "dark"
            )
        else:
            pen.ellipse(x, mid, size * 0.3 + 0.03, ear, "body", tilt)
            pen.ellipse(x, mid + 0.05, size * 0.15, ear * 0.7, inner, tilt, outline=False)
    if style == "front":
        wide = vary(r, 0.44, 0.54)
        pen.ellipse(0, 0.6, wide, 0.36)
        pen.ellipse(0, 0.62, wide * 0.5, 0.26, "light", outline=False)
        for side in (-1, 1):
            pen.ellipse(side * 0.34, 0.87, 0.25, 0.1, "light")
    pen.ellipse(0, y, size, size * 0.88)
    for side in (-1, 1):
        _eye(pen, side * size * 0.42, y - size * 0.18, size * 0.2)
        pen.ellipse(side * size * 0.2, y + size * 0.4, size * 0.26, size * 0.2, "light", outline=False)
    pen.rectangle(-size * 0.15, y + size * 0.45, size * 0.15, y + size * 0.78, "white", outline=False)
    pen.ellipse(0, y + size * 0.2, size * 0.16, size * 0.12, "ink", outline=False)


def snail(pen: Pen, r: Random) -> None:
    """A coiled shell on a flat foot, with two eye stalks, head to the left."""
    skin = r.choice(["light", "dark", "trim", "light"])
    size = vary(r, 0.54, 0.64)
    cx, cy = 0.2, 0.72 - size
    neck = vary(r, -0.3, 0.0)
    for dx in (-0.18, 0.1):
        x, y = -0.68 + dx, neck - vary(r, 0.42, 0.55)
        pen.line([(-0.66 + dx * 0.3, neck), (x, y)], 0.08, skin)
        pen.ellipse(x, y, 0.1, 0.1, "ink")
    foot = [
        *bezier((-0.92, neck + 0.05), (-0.9, neck - 0.25), (-0.48, neck - 0.2), (-0.44, neck + 0.1)),
        *bezier((-0.42, neck + 0.3), (-0.4, 0.55), (0.0, 0.58)),
        *bezier((0.5, 0.6), (0.8, 0.62), (0.97, 0.9)),
        *bezier((0.9, 0.93), (-0.1, 0.93), (-0.6, 0.92)),
        *bezier((-0.6, 0.92), (-0.9, 0.75), (-0.92, neck + 0.05)),
    ]
    pen.polygon(foot, skin)
    pen.ellipse(cx, cy, size, size * vary(r, 0.94, 1.04))
    turns, tone = vary(r, 1.6, 2.3), r.choice(["ink", "trim", "ink"])
    spiral = []
    for i in range(41):
        share = i / 40
        spiral += arc(
            cx, cy, size * (0.1 + 0.82 * share), size * (0.1 + 0.82 * share), 60 + 360 * turns * (share - 1), 0, 1
        )[:1]
    pen.line(spiral, 0.09, tone)
    if r.random() < 0.6:
        pen.line(arc(-0.72, neck + 0.22, 0.14, 0.1, 40, 150, 6), 0.06, "ink")


def butterfly(pen: Pen, r: Random) -> None:
    """Four wings spread to both sides of a thin body with two feelers."""
    style = r.choice(["round", "round", "pointed", "tailed"])
    spot = r.choice(["trim", "dark", "white", "light"])
    wide, low = vary(r, 0.78, 0.87), vary(r, 0.55, 0.75)
    lower = r.choice(["body", "dark", "light"])
    for s in (-1, 1):
        if style == "tailed":
            edge = [
                (0, 0),
                *bezier((0, 0), (s * 0.8, -0.1), (s * 0.72, 0.42)),
                (s * 0.58, 0.94),
                (s * 0.4, 0.6),
                (0, 0.3),
            ]
        else:
            edge = bezier((0, -0.02), (s * wide * 1.15, -0.12), (s * wide * 0.85, low * 1.45), (0, 0.3), steps=16)
        pen.polygon(edge, lower)
        if style == "round":
            edge = bezier(
                (0, 0.12), (s * wide * 0.5, -1.35), (s * wide * 1.65, -0.85), (s * wide * 0.8, 0.0), steps=16
            ) + [(0, 0.14)]
        else:
            edge = [
                (0, 0.1),
                *bezier((0, -0.3), (s * 0.35, -0.85), (s * 0.95, -0.86)),
                *bezier((s * 0.95, -0.86), (s * 0.9, -0.1), (s * 0.5, 0.06)),
            ]
        pen.polygon(edge)
        pen.ellipse(s * 0.56, -0.4, 0.16, 0.15, spot)
        pen.ellipse(s * 0.4, 0.32, 0.12, 0.12, spot)
        pen.line(bezier((s * 0.03, -0.4), (s * 0.08, -0.75), (s * 0.3, -0.9)), 0.06)
    pen.ellipse(0, 0.08, vary(r, 0.08, 0.12), 0.5, "ink")
    pen.ellipse(0, -0.42, 0.12, 0.12, "ink")


def turtle(pen: Pen, r: Random) -> None:
    """From the side under a domed shell, or from above with four flippers."""
    skin = r.choice(["light", "dark", "trim"])
    plate = r.choice(["ink", "dark", "ink"])
    if r.random() < 0.5:
        high, base = vary(r, 0.72, 0.95), 0.42
        head = vary(r, -0.05, 0.2)
        for x in (-0.34, 0.42):
            pen.polygon([(x - 0.15, 0.35), (x + 0.15, 0.35), (x + 0.13, 0.82), (x - 0.18, 0.82)], skin)
        pen.polygon([(0.6, 0.3), (0.96, 0.52), (0.55, 0.52)], skin)
        pen.polygon([(-0.45, 0.22), (-0.7, head - 0.12), (-0.74, head + 0.14), (-0.5, 0.5)], skin)
        pen.ellipse(-0.75, head, 0.21, 0.18, skin)
        pen.ellipse(-0.8, head - 0.04, 0.07, 0.07, "ink" if skin == "light" else "white", outline=False)
        pen.polygon(arc(0.1, base, 0.66, high, 180, 360, 20))
        pen.line(
            [
                (-0.2, base - high * 0.15),
                (-0.08, base - high * 0.55),
                (0.28, base - high * 0.55),
                (0.4, base - high * 0.15),
            ],
            0.07,
            plate,
        )
        pen.line([(-0.08, base - high * 0.55), (-0.2, base - high * 0.8)], 0.07, plate)
        pen.line([(0.28, base - high * 0.55), (0.4, base - high * 0.8)], 0.07, plate)
        pen.rectangle(-0.6, base - 0.07, 0.8, base + 0.09, "dark" if skin != "dark" else "light")
        return
    sea = r.random() < 0.5
    for side in (-1, 1):
        if sea:
            tip = (side * 0.93, vary(r, -0.1, 0.15))
            pen.polygon(
                bezier((side * 0.25, -0.5), (side * 0.85, -0.75), tip)
                + bezier(tip, (side * 0.6, -0.25), (side * 0.4, -0.1)),
                skin,
            )
            pen.polygon([(side * 0.25, 0.5), (side * 0.66, 0.8), (side * 0.5, 0.94), (side * 0.15, 0.7)], skin)
        else:
            pen.ellipse(side * 0.6, -0.36, 0.3, 0.17, skin, -side * 38)
            pen.ellipse(side * 0.56, 0.52, 0.28, 0.16, skin, side * 42)
    pen.polygon([(-0.09, 0.6), (0.09, 0.6), (0, 0.96)], skin)
    pen.ellipse(0, -0.72, 0.2, 0.24, skin)
    for side in (-1, 1):
        pen.ellipse(side * 0.11, -0.8, 0.06, 0.06, "ink" if skin == "light" else "white", outline=False)
    wide = vary(r, 0.5, 0.6)
    pen.ellipse(0, 0.08, wide, vary(r, 0.62, 0.68))
    hexagon = arc(0, 0.08, wide * 0.5, 0.32, 30, 390, 6)
    pen.line(hexagon, 0.07, plate)
    for x, y in hexagon[:-1]:
        pen.line([(x, y), (x * 1.75, (y - 0.08) * 1.75 + 0.08)], 0.07, plate)


def crab(pen: Pen, r: Random) -> None:
    """A wide body, two open claws raised, bent legs on both sides, eyes on stalks."""
    wide, high = vary(r, 0.44, 0.56), vary(r, 0.28, 0.4)
    cy = vary(r, 0.22, 0.32)
    claw, limb = vary(r, 0.24, 0.3), r.choice(["body", "dark", "dark"])
    legs = r.choice([2, 3, 3])
    up = vary(r, -0.6, -0.4)
    for s in (-1, 1):
        for i in range(legs):
            y = cy + 0.02 + i * 0.14
            knee = (s * (wide + 0.27 - 0.07 * i), y - 0.06 + 0.05 * i)
            pen.line([(s * wide * 0.7, y), knee, (s * (wide + 0.36 - 0.13 * i), min(0.92, y + 0.34))], 0.1, "dark")
        x = s * vary(r, 0.62, 0.68)
        pen.line([(s * wide * 0.8, cy - 0.08), (s * (wide + 0.3), cy - 0.3), (x, up + 0.2)], 0.14, "dark")
        # A disc with a wedge cut out: the open pincer, facing up and inwards.
        gape = vary(r, 22, 36)
        mid = -90 - s * vary(r, 10, 30)
        pen.polygon([(x, up + 0.06), *arc(x, up, claw, claw * 1.2, mid + gape, mid + 360 - gape, 18)], limb)
        stalk = s * vary(r, 0.16, 0.22)
        pen.line([(stalk, cy - high * 0.7), (stalk, cy - high - 0.14)], 0.08, "dark")
    if r.random() < 0.5:
        pen.ellipse(0, cy, wide, high)
    else:
        pen.polygon(
            [
                (-wide, cy - high * 0.3),
                *bezier((-wide * 0.9, cy - high), (0, cy - high * 1.25), (wide * 0.9, cy - high)),
                (wide, cy - high * 0.3),
                (wide * 0.55, cy + high),
                (-wide * 0.55, cy + high),
            ]
        )
    for s in (-1, 1):
        _eye(pen, s * 0.19, cy - high - 0.16, 0.12)
    pen.line(arc(0, cy, wide * 0.45, high * 0.5, 25, 155, 8), 0.07, "ink")


DRAWINGS = {
    "fish": fish,
    "duck": duck,
    "cat": cat,
    "rabbit": rabbit,
    "snail": snail,
    "butterfly": butterfly,
    "turtle": turtle,
    "crab": crab,
}
