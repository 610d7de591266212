"""Drawings of tools and musical instruments."""

from __future__ import annotations

from random import Random

from ..canvas import Pen, arc, bezier, vary


def hammer(pen: Pen, r: Random) -> None:
    """A handle under a cross-wise head: claw hammer, or a heavy mallet with two flat faces."""
    width = vary(r, 0.09, 0.12)
    head_tone, handle_tone = r.choice((("body", "dark"), ("body", "trim"), ("trim", "body"), ("dark", "body")))
    pen.polygon([(-width, -0.7), (width, -0.7), (width * 1.3, 0.97), (-width * 1.3, 0.97)], handle_tone)
    if r.random() < 0.5:
        pen.rectangle(-width * 1.4, vary(r, 0.3, 0.5), width * 1.4, 0.97, "ink")
    if r.random() < 0.65:
        top, deep = vary(r, -0.9, -0.84), vary(r, 0.3, 0.36)
        low = top + deep
        tip = vary(r, 0.0, 0.16)
        pen.polygon(
            [
                (-0.36, top + 0.05),
                *bezier((0.1, top), (0.5, top - 0.04), (0.82, low + tip), steps=8),
                *bezier((0.62, low + tip), (0.48, low - 0.06), (0.16, low), steps=6),
                (-0.36, low - 0.05),
            ],
            head_tone,
        )
        face = vary(r, 0.04, 0.09)
        pen.rectangle(-0.66, top - face, -0.36, low + face, head_tone)
    else:
        half, top = vary(r, 0.55, 0.68), -0.94
        low = top + vary(r, 0.42, 0.52)
        pen.rectangle(-half, top, half, low, head_tone)
        for side in (-1, 1):
            pen.rectangle(side * half - 0.07, top - 0.03, side * half + 0.07, low + 0.03, "ink")


def ladder(pen: Pen, r: Random) -> None:
    """Two rails with rungs between them: straight, tapering, or a standing step-ladder."""
    rail = vary(r, 0.11, 0.15)
    count = r.choice((4, 5, 6))
    step_ladder = r.random() < 0.35
    low = vary(r, 0.36, 0.48)
    high = low * vary(r, 0.55, 0.75) if step_ladder or r.random() < 0.4 else low
    shift = -0.2 if step_ladder else 0.0
    if step_ladder:
        count = min(count, 5)
        pen.line([(shift + 0.2, -0.84), (vary(r, 0.66, 0.84), 0.9)], rail, "dark")
        pen.line([(shift + 0.05, 0.36), (0.54, 0.36)], 0.08, "dark")
    rung_tone = r.choice(("body", "dark", "light"))
    for i in range(count):
        t = (i + 0.5) / count
        half = high + (low - high) * t
        y = -0.92 + 1.84 * t
        pen.line([(shift - half, y), (shift + half, y)], rail * 0.9, rung_tone)
    for side in (-1, 1):
        pen.line([(shift + side * high, -0.9), (shift + side * low, 0.9)], rail, "body")
    if step_ladder:
        pen.rectangle(shift - high - 0.1, -0.95, shift + high + 0.1, -0.8, "dark")


def guitar(pen: Pen, r: Random) -> None:
    """A waisted body with a sound hole and bridge, or a horned electric one; long neck and a head with pegs."""
    electric = r.random() < 0.35
    neck = vary(r, 0.07, 0.09)
    tone = r.choice(("ink", "dark", "trim"))
    if electric:
        horn = vary(r, -0.2, -0.1)
        half = vary(r, 0.42, 0.5)
        pen.polygon(
            [
                (-0.12, 0.12),
                *bezier((-0.12, 0.12), (-0.28, 0.05), (-0.4, horn), steps=5),
                *bezier((-0.52, 0.0), (-0.3, 0.36), (-half - 0.06, 0.56), (-0.3, 0.94)),
                *bezier((-0.3, 0.94), (0, 1.0), (0.3, 0.94), steps=5),
                *bezier((half + 0.06, 0.6), (0.3, 0.36), (0.52, 0.1), (0.36, horn + 0.12)),
                *bezier((0.26, 0.1), (0.2, 0.14), (0.12, 0.14), steps=3),
            ]
        )
        pen.polygon([(-0.18, 0.24), (0.2, 0.24), (0.3, 0.7), (0.0, 0.8), (-0.2, 0.5)], "trim", outline=False)
        for y in (0.36, 0.56):
            pen.rectangle(-0.16, y, 0.16, y + 0.08, "ink", outline=False)
    else:
        big, small = vary(r, 0.46, 0.54), vary(r, 0.34, 0.4)
        waist = small * 0.76
        right = [
            (0.0, -0.12),
            *bezier((0.0, -0.12), (small * 1.25, -0.16), (small * 1.2, 0.16), (waist, 0.3), steps=8),
            *bezier((waist, 0.3), (big * 1.32, 0.42), (big * 1.3, 0.98), (0.0, 0.97), steps=10),
        ]
        pen.polygon([*right, *[(-x, y) for x, y in reversed(right)]])
        pen.ellipse(0, 0.28, vary(r, 0.15, 0.19), 0.17, "ink", outline=False)
        pen.rectangle(-0.24, 0.66, 0.24, 0.76, "ink", outline=False)
    pen.rectangle(-neck, -0.7, neck, 0.2, tone)
    pen.line([(0, -0.66), (0, 0.7)], 0.06, "white" if tone != "trim" else "ink")
    head = vary(r, 0.13, 0.17)
    pen.polygon([(-neck, -0.66), (-head, -0.96), (head, -0.96), (neck, -0.66)], "body" if tone != "dark" else "trim")
    for side in (-1, 1):
        for y in (-0.9, -0.76):
            pen.ellipse(side * (head + 0.05), y, 0.06, 0.05, "ink", outline=False)


def drum(pen: Pen, r: Random) -> None:
    """A cylinder with a pale skin on top, hoops, zig-zag cords and usually two sticks."""
    half = vary(r, 0.7, 0.84)
    top, bottom = vary(r, -0.32, -0.2), vary(r, 0.5, 0.66)
    flat = vary(r, 0.2, 0.28)
    hoop = r.choice(("dark", "trim"))
    pen.polygon([(-half, top), (half, top), *arc(0, bottom, half, flat, 0, 180)])
    lower = arc(0, bottom - 0.02, half, flat, 0, 180)
    pen.line(lower, 0.13, hoop)
    count = r.choice((3, 4, 5))
    zigzag = []
    for i in range(2 * count + 1):
        x = -half + half * i / count
        bulge = flat * max(0.0, 1 - (x / half) ** 2) ** 0.5
        zigzag.append((x * 0.98, (top if i % 2 else bottom - 0.06) + bulge))
    pen.line(zigzag, 0.075, "trim" if hoop == "dark" else "ink")
    pen.ellipse(0, top, half + 0.04, flat + 0.04, hoop)
    pen.ellipse(0, top, half - 0.07, flat - 0.05, "white", outline=False)
    sticks = r.random()
    if sticks < 0.8:
        tone = r.choice(("wood", "ink", "dark"))
        crossed = sticks < 0.4
        for side in (-1, 1):
            tip, end = (
                ((-side * 0.14, top + 0.02), (side * 0.66, -0.86))
                if crossed
                else ((side * 0.2, top), (side * 0.84, -0.8))
            )
            pen.line([end, tip], 0.09, tone)
            pen.ellipse(*tip, 0.1, 0.09, tone, outline=False)


def bell(pen: Pen, r: Random) -> None:
    """A flaring bell with a clapper below: hanging from a ring, with a bow, or a hand bell with a grip."""
    style = r.choice(("ring", "grip", "bow"))
    top = {"ring": -0.66, "grip": -0.26, "bow": -0.6}[style]
    rim = vary(r, 0.56, 0.66)
    half, crown = vary(r, 0.72, 0.86), vary(r, 0.34, 0.44)
    if style == "grip":
        half *= 0.84
        pen.polygon(
            [(-0.09, top + 0.05), (-0.14, -0.9), *arc(0, -0.86, 0.14, 0.1, 180, 360, 6), (0.09, top + 0.05)],
            r.choice(("ink", "wood", "trim")),
        )
    elif style == "ring":
        pen.line(arc(0, top - 0.1, 0.15, 0.15, 0, 365, 18), 0.1, "ink")
    clapper = "trim" if r.random() < 0.5 else "ink"
    pen.ellipse(0, rim + 0.16, 0.18, 0.18, clapper)
    waist = crown + vary(r, 0.02, 0.1)
    right = [
        *bezier((0.0, top), (crown * 0.9, top), (crown, top + 0.3), steps=6),
        *bezier((waist, 0.1), (waist + 0.04, rim - 0.2), (half, rim - 0.1), steps=6),
        (half, rim + 0.08),
    ]
    pen.polygon([*right, *[(-x, y) for x, y in reversed(right)]])
    pen.polygon(
        [(-half, rim - 0.1), (half, rim - 0.1), (half + 0.06, rim + 0.1), (-half - 0.06, rim + 0.1)],
        r.choice(("dark", "light")),
    )
    if r.random() < 0.5:
        y = top + 0.34
        pen.rectangle(-crown, y, crown, y + 0.1, r.choice(("dark", "light")), outline=False)
    if style == "bow":
        for side in (-1, 1):
            pen.polygon([(0, top - 0.04), (side * 0.44, top - 0.3), (side * 0.46, top + 0.16)], "trim")
        pen.ellipse(0, top - 0.04, 0.12, 0.12, "dark")


DRAWINGS = {
    "hammer": hammer,
    "ladder": ladder,
    "guitar": guitar,
    "drum": drum,
    "bell": bell,
}
