"""Drawings of things that carry people: by road, water and air."""

from __future__ import annotations

from random import Random

from ..canvas import Pen, arc, bezier, vary


def _wheel(pen: Pen, x: float, y: float, radius: float, hub: str) -> None:
    pen.ellipse(x, y, radius, radius, "ink", outline=False)
    pen.ellipse(x, y, radius * 0.48, radius * 0.48, hub, outline=False)


def car(pen: Pen, r: Random) -> None:
    """Side view, low and long: sedan, round beetle-like body, or hatchback; always two wheels."""
    style = r.choice(("sedan", "round", "hatchback"))
    wheel = vary(r, 0.21, 0.28)
    floor = vary(r, 0.38, 0.46)
    belt = vary(r, -0.08, 0.02)
    roof = belt - vary(r, 0.38, 0.5)
    if style == "round":
        pen.polygon(
            [
                (-0.94, floor),
                *bezier((-0.94, 0.1), (-0.9, belt - 0.1), (-0.6, belt)),
                *arc(0, belt, 0.62, 0.55, 180, 360),
                *bezier((0.6, belt), (0.9, belt - 0.05), (0.95, 0.15)),
                (0.95, floor),
            ]
        )
        pen.polygon([*arc(0, belt, 0.45, 0.4, 180, 262), (-0.06, belt)], "trim", outline=False)
        pen.polygon([*arc(0, belt, 0.45, 0.4, 278, 360), (0.06, belt)], "trim", outline=False)
    else:
        rear, hood = (-0.6, vary(r, 0.5, 0.58)) if style == "sedan" else (-0.9, vary(r, 0.4, 0.5))
        top_rear = rear + (0.24 if style == "sedan" else 0.1)
        top_front = hood - vary(r, 0.24, 0.32)
        pen.polygon(
            [
                (-0.96, floor),
                (-0.95, belt + 0.05),
                (rear, belt),
                (top_rear, roof),
                (top_front, roof),
                (hood, belt),
                (0.88, belt + 0.08),
                (0.96, belt + 0.2),
                (0.96, floor),
            ]
        )
        middle = vary(r, -0.2, 0.0)
        sill = belt + 0.02
        pen.polygon(
            [(rear + 0.16, sill), (top_rear + 0.09, roof + 0.1), (middle - 0.05, roof + 0.1), (middle - 0.05, sill)],
            "trim",
            outline=False,
        )
        pen.polygon(
            [(middle + 0.06, sill), (middle + 0.06, roof + 0.1), (top_front - 0.05, roof + 0.1), (hood - 0.14, sill)],
            "trim",
            outline=False,
        )
    if r.random() < 0.6:
        pen.rectangle(-0.96, floor - 0.1, 0.96, floor, "dark", outline=False)
    if r.random() < 0.6:
        pen.ellipse(0.87, belt + 0.2, 0.08, 0.08, "white", outline=False)
    spread = vary(r, 0.52, 0.6)
    hub = r.choice(("metal", "white", "light"))
    _wheel(pen, -spread, floor, wheel, hub)
    _wheel(pen, spread, floor, wheel, hub)


def bus(pen: Pen, r: Random) -> None:
    """Side view: a long tall box with a row of windows, a door and small wheels; one or two decks."""
    double = r.random() < 0.35
    half = vary(r, 0.72, 0.84) if double else 0.96
    top, floor = (vary(r, -0.9, -0.8), vary(r, 0.66, 0.74)) if double else (vary(r, -0.58, -0.5), vary(r, 0.4, 0.48))
    nose = vary(r, 0.03, 0.14)
    pen.polygon(
        [
            (-half, floor),
            (-half, top + 0.08),
            (-half + 0.08, top),
            (half - nose, top),
            (half, top + nose * 2),
            (half, floor),
        ]
    )
    rows = (top + 0.14, top + 0.74) if double else (top + 0.16,)
    height = vary(r, 0.28, 0.34)
    count = r.choice((3, 4)) if double else r.choice((4, 5))
    door = half - 0.36
    banded = r.random() < 0.8
    for row, y in enumerate(rows):
        end = door - 0.04 if row == len(rows) - 1 else half - 0.14
        step = (end + half - 0.1) / count
        if banded:
            pen.rectangle(-half + 0.03, y - 0.07, end, y + height + 0.07, "light", outline=False)
        for i in range(count):
            x = -half + 0.1 + i * step
            pen.rectangle(x, y, x + step - 0.09, y + height, "ink" if banded else "trim", outline=False)
    pen.rectangle(door, rows[-1], half - 0.1, floor - 0.06, "trim", outline=False)
    if r.random() < 0.5:
        pen.rectangle(-half, floor - 0.24, door - 0.06, floor - 0.14, r.choice(("light", "dark")), outline=False)
    wheel = vary(r, 0.16, 0.2)
    hub = r.choice(("metal", "white"))
    rear = -half + vary(r, 0.3, 0.42)
    _wheel(pen, rear, floor, wheel, hub)
    if not double and r.random() < 0.3:
        _wheel(pen, rear + 2.1 * wheel, floor, wheel, hub)
    _wheel(pen, door - 0.16, floor, wheel, hub)


def bicycle(pen: Pen, r: Random) -> None:
    """Side view: two open rings joined by a frame, with handlebar and saddle."""
    radius = vary(r, 0.36, 0.43)
    x, y = 0.97 - radius - 0.03, vary(r, 0.22, 0.3)
    tyre = vary(r, 0.08, 0.11)
    rubber, spoked = r.choice(("ink", "dark")), r.random() < 0.35
    for side in (-x, x):
        pen.line([*arc(side, y, radius, radius, 0, 370, 26)], tyre, rubber)
        if spoked:
            pen.line([(side - radius + tyre, y), (side + radius - tyre, y)], 0.06, "metal")
            pen.line([(side, y - radius + tyre), (side, y + radius - tyre)], 0.06, "metal")
        else:
            pen.ellipse(side, y, 0.08, 0.08, "metal", outline=False)
    pedal, seat, head = (-0.08, y + 0.06), (-0.24, vary(r, -0.38, -0.28)), (0.36, vary(r, -0.42, -0.34))
    width = vary(r, 0.1, 0.14)
    step_through = r.random() < 0.4
    pen.line([(-x, y), seat, pedal, (-x, y)], width, "body")
    if step_through:
        pen.line(bezier((seat[0] + 0.06, 0.0), (0.05, 0.15), head), width, "body")
        pen.line([pedal, (0.12, 0.05), head], width, "body")
    else:
        pen.line([seat, head, pedal], width, "body")
    bar = head[1] - 0.28
    pen.line([(x, y), head, (0.3, bar)], width, "body")
    if r.random() < 0.5:
        pen.line(
            [(0.12, bar + 0.02), (0.3, bar), *bezier((0.46, bar), (0.62, bar + 0.04), (0.52, bar + 0.2), steps=5)],
            0.1,
            "ink",
        )
    else:
        pen.line([(0.08, bar - 0.06), (0.32, bar), (0.46, bar - 0.1)], 0.1, "ink")
    pen.line([seat, (seat[0] - 0.04, seat[1] - 0.14)], 0.1, "body")
    pen.ellipse(seat[0] - 0.06, seat[1] - 0.18, 0.22, 0.08, "ink", outline=False)
    pen.ellipse(pedal[0], pedal[1], 0.11, 0.11, "ink", outline=False)


def sailboat(pen: Pen, r: Random) -> None:
    """A shallow hull under a mast with one sail, two triangular sails, or one square sail."""
    style = r.choice(("one", "two", "two", "square"))
    deck = vary(r, 0.44, 0.52)
    keel = vary(r, 0.82, 0.94)
    mast = vary(r, -0.14, 0.06) if style != "square" else 0.0
    top = vary(r, -0.96, -0.88)
    hull_tone, sail_tone = r.choice((("body", "white"), ("body", "trim"), ("dark", "body"), ("trim", "body")))
    pen.line([(mast, top), (mast, deck)], 0.09, "wood" if r.random() < 0.5 else "ink")
    foot = deck - vary(r, 0.1, 0.18)
    if style == "square":
        half = vary(r, 0.55, 0.7)
        pen.polygon(
            [
                *bezier((-half, -0.74), (-half + 0.15, -0.25), (-half - 0.05, foot)),
                *bezier((half + 0.05, foot), (half - 0.05, -0.25), (half, -0.74)),
            ],
            sail_tone,
        )
        pen.polygon([(0, top), (0.36, top + 0.08), (0, top + 0.17)], hull_tone, outline=False)
    else:
        edge = vary(r, 0.66, 0.84)
        pen.polygon(
            [
                (mast + 0.06, top + 0.04),
                *bezier((mast + 0.06, top + 0.04), (edge * 0.6, -0.35), (edge, foot)),
                (mast + 0.06, foot),
            ],
            sail_tone,
        )
        if style == "two":
            pen.polygon(
                [(mast - 0.07, top + vary(r, 0.1, 0.3)), (mast - 0.07, foot), (-vary(r, 0.62, 0.8), foot)],
                r.choice((sail_tone, "light")),
            )
    bow, stern = vary(r, 0.9, 0.96), vary(r, 0.86, 0.95)
    if r.random() < 0.5:
        pen.polygon(
            [
                (-stern, deck),
                (bow, deck),
                *bezier((bow, deck), (0.72, keel), (0.3, keel)),
                *bezier((-0.4, keel), (-0.78, keel), (-stern, deck)),
            ],
            hull_tone,
        )
    else:
        pen.polygon([(-stern, deck), (bow, deck), (0.56, keel), (-0.66, keel)], hull_tone)


def airplane(pen: Pen, r: Random) -> None:
    """Seen from above with swept wings and tail, or from the side with windows and fin."""
    if r.random() < 0.6:
        slim = vary(r, 0.12, 0.16)
        sweep = vary(r, 0.2, 0.5)
        root = vary(r, -0.22, -0.1)
        chord, tip = vary(r, 0.34, 0.44), vary(r, 0.12, 0.2)
        span = vary(r, 0.88, 0.95)
        for side in (-1, 1):
            pen.polygon([(0, root), (side * span, root + sweep), (side * span, root + sweep + tip), (0, root + chord)])
            pen.polygon([(0, 0.58), (side * 0.42, 0.74), (side * 0.42, 0.9), (0, 0.82)], "dark")
            if r.random() < 0.75:
                pen.ellipse(side * 0.45, root + sweep * 0.5, 0.08, 0.16, "trim")
        pen.polygon(
            [
                *arc(0, -0.62, slim, 0.34, 180, 360),
                *bezier((slim, 0.3), (slim, 0.7), (0.04, 0.95)),
                *bezier((-0.04, 0.95), (-slim, 0.7), (-slim, 0.3)),
            ],
            r.choice(("body", "light")),
        )
        pen.polygon([*arc(0, -0.68, slim * 0.7, 0.13, 180, 360)], "ink", outline=False)
        return
    y = vary(r, -0.06, 0.06)
    girth = vary(r, 0.18, 0.23)
    pen.polygon([(-0.92, y - 0.7), (-0.7, y - 0.7), (-0.38, y - 0.05), (-0.78, y)], "dark")
    pen.polygon([(-0.96, y - girth * 0.8), (0.6, y - girth), *arc(0.6, y, 0.36, girth, 270, 450), (-0.45, y + girth)])
    lean = vary(r, 0.3, 0.45)
    pen.polygon([(0.28, y + 0.06), (-0.1, y + 0.06), (-0.1 - lean, y + 0.66), (0.1 - lean, y + 0.66)], "trim")
    pen.polygon([(0.24, y - girth), (-0.02, y - girth), (-0.26, y - 0.5), (-0.1, y - 0.5)], "trim")
    pen.polygon([(-0.66, y - 0.06), (-0.4, y - 0.06), (-0.78, y + 0.22), (-0.94, y + 0.22)], "trim")
    for i in range(r.choice((3, 4))):
        pen.ellipse(0.42 - i * 0.24, y - 0.06, 0.06, 0.06, "ink", outline=False)
    pen.polygon([(0.62, y - girth), (0.84, y - girth * 0.7), (0.9, y - 0.04), (0.66, y - 0.04)], "ink", outline=False)


def rocket(pen: Pen, r: Random) -> None:
    """An upright hull with a pointed nose, side fins, portholes and a flame."""
    half = vary(r, 0.24, 0.34)
    base = vary(r, 0.5, 0.6)
    flame = r.random() < 0.75
    if not flame:
        base += 0.22
    shoulder = vary(r, -0.5, -0.35)
    fin_tone = r.choice(("dark", "trim"))
    reach, drop = vary(r, 0.3, 0.42), vary(r, 0.08, 0.15)
    if flame:
        pen.polygon(
            [
                (-half * 0.75, base),
                (-half * 0.6, 0.82),
                (-0.1, 0.74),
                (0, 0.97),
                (0.1, 0.74),
                (half * 0.6, 0.82),
                (half * 0.75, base),
            ],
            r.choice(("light", "white", "trim")),
        )
    straight = r.random() < 0.5
    for side in (-1, 1):
        outer = side * (half + reach)
        if straight:
            pen.polygon(
                [
                    (side * half * 0.7, base - 0.5),
                    (outer, base - 0.08),
                    (outer, base + drop),
                    (side * half * 0.7, base),
                ],
                fin_tone,
            )
        else:
            pen.polygon(
                [
                    *bezier((side * half * 0.7, base - 0.46), (outer, base - 0.4), (outer, base + drop)),
                    *bezier((outer, base + drop), (side * half, base - 0.05), (side * half * 0.6, base), steps=4),
                ],
                fin_tone,
            )
    bottom = half * vary(r, 0.72, 1.0)
    pen.polygon(
        [
            *bezier((-bottom, base), (-half * 1.1, 0), (-half, shoulder)),
            *bezier((-half, shoulder), (-half * 0.85, -0.75), (0, -0.97)),
            *bezier((0, -0.97), (half * 0.85, -0.75), (half, shoulder)),
            *bezier((half, shoulder), (half * 1.1, 0), (bottom, base)),
        ]
    )
    if r.random() < 0.7:
        cut = half * 0.94
        pen.polygon(
            [
                *bezier((-cut, shoulder - 0.06), (-half * 0.74, -0.8), (0, -0.97)),
                *bezier((0, -0.97), (half * 0.74, -0.8), (cut, shoulder - 0.06)),
            ],
            fin_tone,
        )
    for i in range(r.choice((1, 1, 2))):
        y = shoulder + 0.26 + i * 0.42
        pen.ellipse(0, y, half * 0.6, half * 0.6, "ink", outline=False)
        pen.ellipse(0, y, half * 0.4, half * 0.4, "white", outline=False)


DRAWINGS = {
    "car": car,
    "bus": bus,
    "bicycle": bicycle,
    "sailboat": sailboat,
    "airplane": airplane,
    "rocket": rocket,
}
