"""Drawings of things people wear."""

from __future__ import annotations

from random import Random

from ..canvas import Pen, arc, bezier, vary


def hat(pen: Pen, r: Random) -> None:
    """A crown with a band over a wide brim: top hat, round sun hat, or creased fedora."""
    style = r.choice(("top", "sun", "fedora"))
    band = r.choice(("trim", "ink", "white"))
    if style == "top":
        half, flare = vary(r, 0.46, 0.56), vary(r, 0.0, 0.1)
        top, edge = vary(r, -0.82, -0.66), vary(r, 0.5, 0.6)
        pen.ellipse(0, edge, vary(r, 0.88, 0.96), vary(r, 0.18, 0.24))
        pen.polygon([(-half - flare, top), (half + flare, top), *arc(0, edge, half, 0.1, 0, 180, 8)])
        y = edge - vary(r, 0.28, 0.34)
        pen.polygon([*arc(0, y, half + 0.02, 0.1, 180, 0, 8), *arc(0, edge, half, 0.1, 0, 180, 8)], band)
        pen.ellipse(0, top, half + flare, 0.13, "light")
        return
    edge = vary(r, 0.3, 0.4)
    half = vary(r, 0.5, 0.58)
    tall = edge + vary(r, 0.55, 0.75)
    if style == "sun":
        pen.ellipse(0, edge, 0.96, vary(r, 0.24, 0.32))
        crown = arc(0, edge, half, tall, 180, 360)
    else:
        dip, peak = vary(r, 0.04, 0.12), vary(r, 0.1, 0.2)
        pen.polygon(
            [
                *bezier((-0.96, edge - peak), (-0.4, edge + 0.0), (0.4, edge), (0.96, edge - peak)),
                *bezier((0.9, edge + 0.06), (0.4, edge + 0.32), (-0.4, edge + 0.32), (-0.9, edge + 0.06)),
            ]
        )
        crown = [
            (-half, edge),
            *bezier(
                (-half * 0.9, edge - tall * 0.6), (-half * 0.8, edge - tall - 0.14), (0, edge - tall + dip), steps=8
            ),
            *bezier(
                (0, edge - tall + dip), (half * 0.8, edge - tall - 0.14), (half * 0.9, edge - tall * 0.6), steps=8
            ),
            (half, edge),
        ]
    pen.polygon([*crown, *arc(0, edge, half, 0.12, 0, 180, 8)])
    y = edge - vary(r, 0.24, 0.3)
    shrink = half * 0.97
    pen.polygon([*arc(0, y, shrink, 0.1, 180, 0, 8), *arc(0, edge, half, 0.12, 0, 180, 8)], band)
    if r.random() < 0.4:
        x = half * 0.6
        pen.polygon(
            [
                (x, y + 0.12),
                *bezier((x, y + 0.12), (x - 0.05, y - 0.4), (x + 0.3, y - 0.56), steps=5),
                (x + 0.22, y + 0.06),
            ],
            "light",
        )


def boot(pen: Pen, r: Random) -> None:
    """Side view of a shaft over a foot with sole and heel: rubber boot, laced boot, or heeled boot."""
    style = r.choice(("rubber", "laced", "heeled"))
    left, right = vary(r, -0.62, -0.54), vary(r, 0.06, 0.16)
    top = vary(r, -0.94, -0.84)
    sole = 0.78
    toe = vary(r, 0.78, 0.9)
    instep = vary(r, 0.1, 0.24)
    if style == "heeled":
        instep -= 0.1
        pen.polygon([(left + 0.02, 0.5), (right - 0.1, 0.66), (left + 0.3, 0.94), (left + 0.04, 0.94)], "dark")
        foot = [
            *bezier((right - 0.04, instep), (0.3, 0.55), (0.8, 0.6), (toe, 0.92)),
            (0.24, 0.94),
            *bezier((0.24, 0.94), (0.0, 0.66), (left + 0.02, 0.62), steps=6),
        ]
    else:
        foot = [*bezier((right, instep), (0.4, 0.36), (toe, 0.3), (toe, sole)), (left, sole)]
    pen.polygon(
        [(left, top), (right + 0.04, top), *foot, *bezier((left, 0.5), (left + 0.1, 0.1), (left, top), steps=6)]
    )
    if style != "heeled":
        tone = r.choice(("ink", "dark", "trim"))
        pen.rectangle(left - 0.03, sole - 0.04, toe + 0.04, sole + 0.08, tone)
        pen.rectangle(left - 0.03, sole + 0.06, left + 0.42, 0.95, tone)
        if r.random() < 0.6:
            pen.rectangle(0.24, sole + 0.06, toe, 0.93, tone)
    cuff = vary(r, 0.14, 0.24)
    pen.rectangle(left - 0.05, top, right + 0.08, top + cuff, r.choice(("light", "trim", "dark")))
    if style == "laced":
        for i in range(r.choice((3, 4))):
            y = top + cuff + 0.14 + i * 0.22
            pen.line([(right - 0.3, y), (right + 0.02, y + 0.04)], 0.08, "trim")
    elif style == "rubber" and r.random() < 0.6:
        pen.line(bezier((left + 0.04, instep + 0.1), (-0.2, instep + 0.3), (right, instep), steps=6), 0.07, "dark")


def shirt(pen: Pen, r: Random) -> None:
    """A flat torso with two sleeves, short or long, and a crew neck, V neck, or collar with buttons."""
    half = vary(r, 0.44, 0.54)
    top, hem = vary(r, -0.84, -0.74), vary(r, 0.82, 0.94)
    neck = vary(r, 0.2, 0.26)
    long = r.random() < 0.35
    flare = vary(r, -0.04, 0.06)
    for side in (-1, 1):
        if long:
            reach = vary(r, 0.84, 0.9)
            sleeve = [
                (side * 0.3, top + 0.02),
                (side * (half + 0.02), top + 0.1),
                (side * (reach + 0.06), 0.48),
                (side * (reach - 0.2), 0.6),
                (side * half * 0.8, 0.0),
            ]
            cuff = [
                (side * (reach + 0.07), 0.4),
                (side * (reach + 0.08), 0.56),
                (side * (reach - 0.2), 0.68),
                (side * (reach - 0.22), 0.52),
            ]
        else:
            sleeve = [
                (side * 0.3, top + 0.02),
                (side * (half + 0.04), top + 0.1),
                (side * 0.95, -0.28),
                (side * 0.72, -0.02),
                (side * half * 0.8, -0.2),
            ]
            cuff = [(side * 0.97, -0.3), (side * 0.73, 0.0), (side * 0.64, -0.08), (side * 0.88, -0.4)]
        pen.polygon(sleeve)
        pen.polygon(cuff, "dark")
    style = r.choice(("crew", "vee", "collar"))
    if style == "vee":
        opening = [(neck, top), (0, top + vary(r, 0.32, 0.42)), (-neck, top)]
    else:
        opening = arc(0, top, neck, vary(r, 0.14, 0.2), 0, 180, 8)
    pen.polygon(
        [
            (-half, top + 0.1),
            *opening[::-1],
            (half, top + 0.1),
            (half * 0.92, 0.0),
            (half + flare, hem),
            (-half - flare, hem),
            (-half * 0.92, 0.0),
        ]
    )
    if style == "collar":
        for side in (-1, 1):
            pen.polygon(
                [
                    (side * neck, top - 0.1),
                    (0, top + 0.18),
                    (side * 0.24, top + 0.42),
                    (side * (neck + 0.16), top + 0.08),
                ],
                "light",
            )
        pen.line([(0, top + 0.2), (0, hem)], 0.06, "dark")
        for i in range(r.choice((3, 4))):
            pen.ellipse(0, -0.3 + i * 0.32, 0.07, 0.07, "trim", outline=False)
    else:
        pen.line(opening, 0.11, "dark" if style == "crew" else "trim")
        if r.random() < 0.4:
            pen.rectangle(0.08, -0.22, 0.34, 0.08, "dark")
        elif r.random() < 0.4:
            pen.ellipse(0, 0.12, 0.24, 0.24, "trim")


DRAWINGS = {
    "hat": hat,
    "boot": boot,
    "shirt": shirt,
}
