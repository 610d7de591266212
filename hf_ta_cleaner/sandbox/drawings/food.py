"""Drawings of things to eat: fruit, a carrot, a mushroom, a pizza, a cake.

Each function draws one object of its class inside the box [-1, 1] x [-1, 1]; `DRAWINGS` maps class names to them.
"""

from __future__ import annotations

from random import Random

from ..canvas import Pen, Point, arc, bezier, vary


def _mirrored(left: list[Point]) -> list[Point]:
    """Close a left half outline (given from top to bottom) with its mirror image."""
    return left + [(-x, y) for x, y in reversed(left)]


def _leaflet(pen: Pen, r: Random, x: float, y: float, size: float) -> None:
    """A small leaf that grows to the upper right from (x, y)."""
    tip = (x + size, y - size * vary(r, 0.25, 0.6))
    edge = bezier((x, y), (x + 0.2 * size, y - 0.9 * size), tip) + bezier(
        tip, (x + 0.9 * size, y + 0.2 * size), (x, y)
    )
    pen.polygon(edge, r.choice(["leaf", "trim", "dark", "light"]))


def banana(pen: Pen, r: Random) -> None:
    """One crescent, a bunch of two or three, or half peeled."""
    style = r.choice(["single", "single", "bunch", "peeled"])
    if style == "peeled":
        half = vary(r, 0.2, 0.26)
        bend = vary(r, 0.15, 0.4)
        flesh = bezier((-half, 0.2), (-half - 0.02, -0.7), (bend - 0.05, -0.97)) + bezier(
            (bend + 0.05, -0.97), (half + 0.2, -0.6), (half, 0.2)
        )
        pen.polygon(flesh, "white")
        skin = bezier((-half - 0.06, 0.0), (-half - 0.02, 0.6), (bend - 0.08, 0.94)) + bezier(
            (bend + 0.08, 0.94), (half + 0.2, 0.5), (half + 0.06, 0.0)
        )
        pen.polygon(skin)
        drop = vary(r, 0.35, 0.6)
        for side in (-1, 1):
            tip = (side * vary(r, 0.68, 0.82), drop)
            flap = bezier((side * 0.02, 0.1), (side * 0.45, -0.55), tip) + bezier(
                tip, (side * 0.42, 0.1), (side * half, 0.35)
            )
            pen.polygon(flap, "body" if side < 0 else "dark")
        pen.polygon([(-0.07, 0.1), (0.2, 0.1), (0.08, 0.62)], "light")
        pen.line([(bend, 0.9), (bend + 0.02, 0.92)], 0.12)
        return
    count = 1 if style == "single" else r.choice([2, 3])
    deep, thick = vary(r, 0.75, 1.15), vary(r, 0.62, 0.85)
    for i in range(count):
        lift = (0.3 / count + 0.04) * (count - 1 - i)
        left, right = (-0.86, -0.5), (0.84 - 0.14 * (count - 1 - i), -0.42 - 1.5 * lift)
        low = deep - 1.9 * lift + 0.15
        outer = bezier(left, (-0.72, low), (0.52, low + 0.1), right, steps=16)
        inner = bezier(
            (right[0] - 0.12, right[1] - 0.02),
            (0.3, low - thick - 0.1),
            (-0.4, low - thick - 0.1),
            (left[0] + 0.16, left[1] - 0.06),
            steps=16,
        )
        pen.polygon(outer + inner, "dark" if count == 3 and i == 1 else "body")
        pen.line([(right[0] - 0.07, right[1] + 0.02), (right[0] - 0.05, right[1] - 0.05)], 0.13)
        if i == count - 1:
            pen.line(bezier((-0.62, -0.1), (-0.42, low - 0.42), (0.2, low - 0.42), (0.6, -0.02)), 0.07, "dark")
    pen.polygon([(-0.9, -0.44), (-0.96, -0.78), (-0.76, -0.82), (-0.66, -0.5)], "ink" if r.random() < 0.6 else "dark")


def apple(pen: Pen, r: Random) -> None:
    """Whole, bitten, cut in half, or eaten down to the core."""
    style = r.choice(["whole", "whole", "bitten", "half", "core"])
    wide, base = vary(r, 0.82, 0.94), vary(r, 0.85, 0.92)
    narrow = vary(r, 0.55, 0.85)
    top = [
        *bezier((0, -0.4), (-0.2, -0.68), (-0.55, -0.62)),
        *bezier((-0.55, -0.62), (-0.95, -0.55), (-wide, 0.05)),
    ]
    outline = _mirrored(
        top + bezier((-wide, 0.05), (-wide * narrow - 0.1, 0.8), (-0.3, base)) + [(-0.12, base), (0, base - 0.1)]
    )
    pen_stem = bezier((0, -0.34), (0.0, -0.7), (vary(r, -0.2, 0.25), vary(r, -0.93, -0.85)))
    if style == "core":
        waist = vary(r, 0.22, 0.32)
        flesh = _mirrored(bezier((-0.62, -0.4), (-waist + 0.2, 0.15), (-0.6, 0.65)))
        pen.polygon(flesh, "white")
        pen.polygon(
            _mirrored(
                [*bezier((0, -0.42), (-0.3, -0.72), (-0.6, -0.6)), *bezier((-0.6, -0.6), (-0.9, -0.4), (-0.5, -0.22))]
            )
        )
        pen.polygon(_mirrored([(-0.5, 0.48), *bezier((-0.72, 0.5), (-0.66, 0.85), (-0.3, 0.92)), (0, 0.82)]))
        pen.ellipse(-0.09, 0.12, 0.07, 0.13, "ink")
        pen.ellipse(0.11, 0.16, 0.07, 0.13, "ink")
    elif style == "half":
        pen.polygon(outline)
        pen.polygon([(x * 0.82, (y - 0.12) * 0.82 + 0.12) for x, y in outline], "white", outline=False)
        pen.ellipse(-0.14, 0.15, 0.09, 0.19, "ink", 15)
        pen.ellipse(0.14, 0.15, 0.09, 0.19, "ink", -15)
    else:
        if style == "bitten":
            y, size = vary(r, -0.1, 0.2), vary(r, 0.28, 0.36)
            scallop = arc(wide + 0.02, y - size * 0.5, size, size * 0.75, -100, -215, 8)
            scallop += arc(wide + 0.02, y + size * 0.5, size, size * 0.75, -145, -260, 8)
            kept = [p for p in outline if not (p[0] > 0 and y - size * 1.2 < p[1] < y + size * 1.2 and p[0] > 0.3)]
            at = next(i for i, p in enumerate(kept) if p[0] > 0.3 and p[1] < y)
            outline = kept[:at] + scallop[::-1] + kept[at:]
        pen.polygon(outline)
        pen.line(arc(-0.12, 0.08, wide - 0.38, 0.5, 150, 225, 8), 0.13, "light")
        pen.polygon(bezier((-0.3, -0.5), (0, -0.28), (0.3, -0.5)), "dark", outline=False)
    pen.line(pen_stem, 0.12, r.choice(["ink", "wood", "ink"]))
    if r.random() < 0.55:
        _leaflet(pen, r, 0.06, -0.54, vary(r, 0.42, 0.56))


def pear(pen: Pen, r: Random) -> None:
    """A bulb with a slim neck; whole or cut in half."""
    neck, wide = vary(r, 0.2, 0.29), vary(r, 0.62, 0.78)
    lean = vary(r, -0.12, 0.12)
    waist = vary(r, -0.2, 0.0)
    left = [
        *bezier((0, -0.74), (-neck, -0.76), (-neck, -0.45)),
        *bezier((-neck, -0.45), (-neck, waist), (-wide * 0.75, 0.1)),
        *bezier((-wide * 0.75, 0.1), (-wide * 1.25, 0.5), (-wide * 0.8, 0.93), (-0.12, 0.93)),
    ]
    outline = [(x + lean * (0.4 - y), y) for x, y in _mirrored(left)]
    pen.polygon(outline)
    if r.random() < 0.3:
        pen.polygon([(x * 0.78, (y - 0.2) * 0.82 + 0.2) for x, y in outline], "white", outline=False)
        pen.ellipse(-0.1, 0.48, 0.08, 0.15, "ink", 20)
        pen.ellipse(0.12, 0.48, 0.08, 0.15, "ink", -20)
    else:
        pen.line(arc(0, 0.42, wide * 0.68, 0.32, 120, 205, 8), 0.12, "light")
        pen.line([(-0.07, 0.9), (0.07, 0.9)], 0.08, "ink")
    x = lean * 1.1
    pen.line(bezier((x, -0.7), (x, -0.85), (x + vary(r, -0.18, 0.18), -0.92)), 0.11, r.choice(["ink", "wood"]))
    if r.random() < 0.5:
        _leaflet(pen, r, x + 0.03, -0.7, vary(r, 0.35, 0.46))


def cherry(pen: Pen, r: Random) -> None:
    """Two cherries (seldom three) on stems that meet at the top."""
    size = vary(r, 0.34, 0.42)
    top = (vary(r, -0.1, 0.4), vary(r, -0.92, -0.82))
    spread = vary(r, 0.46, 0.53)
    balls = [(-spread, 0.5 + vary(r, -0.12, 0.06)), (spread, 0.5 + vary(r, -0.12, 0.06))]
    if r.random() < 0.2:
        size *= 0.84
        balls = [(-0.62, 0.35), (0.62, 0.35), (0, 0.62)]
    stem = r.choice(["ink", "leaf", "ink", "wood"])
    bulge = vary(r, 0.0, 0.4)
    for x, y in balls:
        pen.line(bezier(top, (x * (1 - bulge), -0.4), (x, y - size * 0.75)), 0.09, stem)
    for x, y in balls:
        pen.ellipse(x, y, size, size * vary(r, 0.92, 1.0))
        pen.ellipse(x - size * 0.36, y - size * 0.36, size * 0.26, size * 0.2, "white", -40, outline=False)
    if r.random() < 0.6:
        x, y = top
        edge = bezier(top, (x - 0.3, y - 0.15), (x - 0.85, y + 0.32)) + bezier(
            (x - 0.85, y + 0.32), (x - 0.25, y + 0.5), top
        )
        pen.polygon(edge, r.choice(["leaf", "trim", "dark", "light"]))
    else:
        pen.line([(top[0] - 0.14, top[1]), (top[0] + 0.14, top[1])], 0.14, stem)


def carrot(pen: Pen, r: Random) -> None:
    """A long cone with notches under a tuft of green."""
    wide, bend, shoulder = vary(r, 0.28, 0.42), vary(r, -0.22, 0.22), vary(r, -0.38, -0.25)
    blunt = r.random() < 0.3
    tuft = r.choice(["leaf", "trim", "dark", "trim"])
    feathery = r.random() < 0.5
    count = r.choice([3, 4, 5])
    for i in range(count):
        side = (i / (count - 1) - 0.5) * 2
        x, y = side * 0.52, -0.9 + 0.16 * abs(side)
        if feathery:
            pen.line(bezier((0, shoulder), (side * 0.1, -0.7), (x, y)), 0.13, tuft)
        else:
            wing = 0.14
            edge = bezier((0, shoulder), (x - wing * 1.6, (y + shoulder) / 2), (x, y)) + bezier(
                (x, y), (x + wing * 1.6, (y + shoulder) / 2), (0, shoulder)
            )
            pen.polygon(edge, tuft)
    end = 0.09 if blunt else 0.02
    left = bezier((-wide * 0.6, shoulder - 0.08), (-wide * 1.35, shoulder), (-wide * 0.8, 0.3), (bend - end, 0.97))
    right = bezier((bend + end, 0.97), (wide * 0.8, 0.3), (wide * 1.35, shoulder), (wide * 0.6, shoulder - 0.08))
    pen.polygon(left + right)
    for i in range(r.choice([2, 3, 4])):
        y = -0.12 + 0.23 * i
        side = -1 if i % 2 else 1
        half = wide * (0.85 - 0.75 * (y + 0.2))
        x = bend * max(0.0, y) ** 1.5
        pen.line([(x + side * half, y), (x + side * half * 0.1, y + 0.05)], 0.07, "ink")


def mushroom(pen: Pen, r: Random) -> None:
    """A dome, a cone or a flat cap, spotted or with gills, on a stout pale stem."""
    style = r.choice(["dome", "dome", "cone", "flat"])
    rim = vary(r, 0.0, 0.18)
    rise = {"dome": 0.95, "cone": 0.95, "flat": 0.6}[style] + rim
    wide = 0.8 if style == "cone" else vary(r, 0.86, 0.96)
    stem, foot = vary(r, 0.2, 0.3), vary(r, 0.24, 0.42)
    edge = bezier((-stem, rim - 0.05), (-stem, 0.5), (-foot, 0.95)) + bezier(
        (foot, 0.95), (stem, 0.5), (stem, rim - 0.05)
    )
    pen.polygon(edge, r.choice(["white", "light", "trim"]))
    if r.random() < 0.5:
        pen.polygon(arc(0, rim, wide * 0.9, vary(r, 0.14, 0.22), 0, 180), "dark")
        if r.random() < 0.5:
            pen.polygon(
                [(-stem, rim + 0.2), (stem, rim + 0.2), (stem + 0.14, rim + 0.42), (-stem - 0.14, rim + 0.42)], "light"
            )
    if style == "cone":
        cap = bezier((-wide, rim + 0.05), (-0.35, -0.15), (-0.35, -0.95), (0, -0.95)) + bezier(
            (0, -0.95), (0.35, -0.95), (0.35, -0.15), (wide, rim + 0.05)
        )
    else:
        cap = arc(0, rim, wide, min(rise, 0.96 + rim), 180, 360, 24) + bezier(
            (wide, rim), (0.8, rim + 0.14), (0, rim + 0.08)
        )
        cap += bezier((0, rim + 0.08), (-0.8, rim + 0.14), (-wide, rim))
    pen.polygon(cap)
    if r.random() < 0.75:
        size = vary(r, 0.11, 0.16)
        high = rim - rise
        for x, y in r.choice(
            [[(-0.5, 0.3), (0, 0.6), (0.5, 0.3)], [(-0.58, 0.22), (-0.2, 0.66), (0.08, 0.25), (0.42, 0.5)]]
        ):
            squeeze = 0.5 if style == "cone" else 1.0
            pen.ellipse(
                x * squeeze, rim + (high - rim) * y, size * 1.1, size * (0.7 if style == "flat" else 0.95), "white"
            )


def pizza(pen: Pen, r: Random) -> None:
    """One slice with a crust, or a whole pie with a slice drawn out."""
    topping = r.choice(["ink", "trim", "dark"])
    if r.random() < 0.6:
        wide, top = vary(r, 0.66, 0.88), vary(r, -0.62, -0.5)
        tip = vary(r, -0.12, 0.12)
        pen.polygon([(-wide, top), (wide, top), (tip + 0.03, 0.96), (tip - 0.03, 0.96)])
        if r.random() < 0.3:  # cheese that drips
            pen.line([(-wide * 0.35, 0.3), (-wide * 0.35, 0.58)], 0.16, "light")
            pen.line([(wide * 0.5, 0.1), (wide * 0.5, 0.4)], 0.16, "light")
        high = vary(r, 0.2, 0.36)
        crust = bezier((-wide, top), (0, top - high * 1.6), (wide, top)) + bezier(
            (wide - 0.1, top + 0.22), (0, top - high * 1.2 + 0.22), (-wide + 0.1, top + 0.22)
        )
        pen.polygon(crust, r.choice(["wood", "dark", "light"]))
        size = vary(r, 0.15, 0.2)
        spots = [(-0.42, -0.1), (0.36, -0.08), (-0.02, 0.18), (0.02, 0.58)]
        for x, y in spots[: r.choice([3, 4])]:
            pen.ellipse(x * wide / 0.8 + tip * 0.5, y, size, size, topping)
        return
    gap, start = r.choice([45, 60]), r.choice([-100, -60, -20])
    span = (start + gap, start + 360)
    pen.polygon([(0, 0), *arc(0, 0, 0.95, 0.95, *span, 40)], r.choice(["wood", "dark", "light"]))
    pen.polygon([(0, 0), *arc(0, 0, 0.77, 0.77, *span, 40)], "body")
    cut = arc(0, 0, 0.95, 0.95, *span, 5 if gap == 60 else 7)
    for edge in cut[1:-1]:
        pen.line([(0, 0), edge], 0.06, "ink")
    size = vary(r, 0.11, 0.15)
    for x, y in arc(0, 0, 0.52, 0.52, span[0] + 26, span[1] - 26, 4 if gap == 60 else 6):
        pen.ellipse(x, y, size, size, topping)
    if r.random() < 0.5:  # the missing slice, pulled away a little
        shift = arc(0, 0, 0.16, 0.16, start + gap / 2, start + gap / 2 + 1, 1)[0]
        slice_ = [(0.0, 0.0), *arc(0, 0, 0.82, 0.82, start + 5, start + gap - 5, 6)]
        pen.polygon([(x + shift[0], y + shift[1]) for x, y in slice_])


def _icing(x0: float, x1: float, top: float, low: float, drips: int) -> list[Point]:
    """A band of icing with a scalloped lower edge."""
    width = (x1 - x0) / drips
    edge: list[Point] = [(x0, top), (x1, top)]
    for i in range(drips):
        edge += arc(x1 - (i + 0.5) * width, (top + low) / 2, width / 2, (low - top) / 2, 0, 180, 6)
    return edge


def cake(pen: Pen, r: Random) -> None:
    """A round cake of one to three tiers with icing and candles or a cherry, or one layered slice."""
    icing = r.choice(["white", "light", "trim"])
    if r.random() < 0.3:
        high, mid = vary(r, -0.4, -0.2), vary(r, 0.1, 0.2)
        low, back = vary(r, 0.7, 0.85), vary(r, -0.62, -0.4)
        pen.polygon(
            [(-0.93, high + 0.05), (0.25, back - 0.1), (0.93, high + 0.02), (0.93, high + 0.22), (-0.93, high + 0.22)],
            icing,
        )
        pen.rectangle(-0.93, high + 0.2, 0.93, low)
        pen.rectangle(-0.93, mid, 0.93, mid + 0.17, icing)
        pen.polygon(_icing(-0.93, 0.93, high + 0.12, high + 0.46, r.choice([4, 5])), icing)
        pen.ellipse(0.25, back - 0.16, 0.19, 0.19, r.choice(["ink", "dark", "body"]))
        pen.line(bezier((0.25, back - 0.3), (0.3, back - 0.34), (0.45, -0.92)), 0.08)
        return
    tiers = r.choice([1, 1, 2, 2, 3])
    candles = r.choice([1, 3, 4]) if r.random() < 0.75 else 0
    base, top = 0.8, (-0.3 if candles else -0.55)
    if tiers == 1:
        top += 0.18
    step = (base - top) / tiers
    pen.ellipse(0, base + 0.02, 0.97, 0.14, r.choice(["trim", "metal", "dark"]))
    half = 0.0
    for i in range(tiers):
        half = (0.84, 0.6, 0.38)[i] if tiers > 1 else vary(r, 0.72, 0.86)
        y1, y0 = base - i * step, base - (i + 1) * step
        pen.polygon([(-half, y0), (half, y0), *arc(0, y1, half, 0.1, 0, 180, 10)])
        pen.polygon(_icing(-half, half, y0, y0 + step * vary(r, 0.5, 0.75), r.choice([3, 4, 5])), icing)
        pen.ellipse(0, y0, half, 0.13, icing)
    y = base - tiers * step
    for i in range(candles):
        x = 0.0 if candles == 1 else (i / (candles - 1) - 0.5) * half * 1.4
        pen.rectangle(x - 0.055, y - 0.34, x + 0.055, y + 0.03, r.choice(["ink", "dark"]), outline=False)
        pen.ellipse(x, y - 0.43, 0.08, 0.11, "light" if icing != "light" else "white")
    if not candles:
        pen.ellipse(0, y - 0.16, 0.18, 0.18, r.choice(["ink", "dark", "body"]))
        pen.line(bezier((0, y - 0.3), (0.02, y - 0.4), (0.15, max(-0.95, y - 0.48))), 0.08)


DRAWINGS = {
    "banana": banana,
    "apple": apple,
    "pear": pear,
    "cherry": cherry,
    "carrot": carrot,
    "mushroom": mushroom,
    "pizza": pizza,
    "cake": cake,
}
