"""Drawings of things found in a home."""

from __future__ import annotations

import math
from random import Random

from ..canvas import Pen, arc, bezier, vary


def umbrella(pen: Pen, r: Random) -> None:
    """An open canopy with a scalloped edge on a hooked stick."""
    half, edge = vary(r, 0.86, 0.96), vary(r, -0.1, 0.08)
    top = vary(r, -0.84, -0.76)
    ribs = r.choice((3, 4, 5))
    side = r.choice((-1, 1))
    hook = vary(r, 0.14, 0.2)
    handle = r.choice(("ink", "wood", "trim"))
    bend = arc(side * hook, 0.7, hook, hook, 90 + side * 90, 90 - side * 90)
    pen.line([(0, top - 0.1), (0, 0.7), *bend], 0.1, handle)
    step = 2 * half / ribs
    scallop = vary(r, 0.1, 0.18)
    rim = []
    for i in range(ribs):
        rim += arc(half - (i + 0.5) * step, edge, step / 2, scallop, 0, -180, 8)
    if r.random() < 0.65:
        crown = arc(0, edge, half, edge - top, 180, 360, 24)
    else:
        crown = [
            *bezier((-half, edge), (-half * 0.7, top * 0.5), (0, top)),
            *bezier((0, top), (half * 0.7, top * 0.5), (half, edge)),
        ]
    pen.polygon([*crown, *rim])
    for i in range(1, ribs):
        x = -half + i * step
        pen.line(bezier((0, top), (x * 0.9, top * 0.6), (x, edge), steps=6), 0.06, "dark")


def kettle(pen: Pen, r: Random) -> None:
    """A round or conical pot with a spout, a lid knob and a bow handle over the top (or at the back)."""
    bottom = vary(r, 0.72, 0.82)
    half = vary(r, 0.52, 0.6)
    top = vary(r, -0.2, -0.08)
    over = r.random() < 0.65
    tone = r.choice(("ink", "trim", "dark"))
    neck = half * vary(r, 0.5, 0.65)
    if over:
        bow = arc(0, top - 0.12, neck + 0.12, 0.56, 180, 360)
        pen.line([(-neck - 0.06, top + 0.12), *bow, (neck + 0.06, top + 0.12)], 0.13, tone)
    else:
        ear = bezier((-half - 0.1, top - 0.1), (-0.96, top), (-0.92, 0.45), (-half, 0.56))
        pen.line([(-neck, top + 0.1), *ear], 0.14, tone)
    lip = vary(r, -0.22, -0.1)
    below = bezier((half * 0.6, 0.62), (half + 0.2, 0.5), (0.72, lip))
    above = bezier((0.92, lip + 0.1), (0.84, 0.2), (half * 0.6, 0.18), steps=6)
    pen.polygon([*below, (0.96, lip - 0.04), *above])
    if r.random() < 0.6:
        pen.polygon(arc(0, 0.34, half, 0.5, 130, 410, 26))
        pen.rectangle(-half * 0.66, bottom - 0.06, half * 0.66, bottom + 0.04, "dark")
        lid = -0.1
    else:
        right = [(neck, top), *bezier((half, 0.2), (half + 0.06, 0.5), (half, bottom), steps=5)]
        pen.polygon([*right, *[(-x, y) for x, y in reversed(right)]])
        lid = top
    pen.polygon(arc(0, lid + 0.04, neck, 0.2, 180, 360, 12), "light")
    pen.ellipse(0, lid - 0.2, 0.1, 0.1, tone)


def mug(pen: Pen, r: Random) -> None:
    """A straight or tapered cup, wider opening seen from above, with a big ear on one side; sometimes steam."""
    steam = r.random() < 0.45
    top, bottom = (vary(r, -0.4, -0.3), vary(r, 0.76, 0.86)) if steam else (vary(r, -0.66, -0.55), vary(r, 0.68, 0.8))
    left, right = -0.82, vary(r, 0.3, 0.4)
    taper = r.choice((0.0, vary(r, 0.06, 0.16)))
    middle = (left + right) / 2
    half = (right - left) / 2
    reach = vary(r, 0.4, 0.5)
    y, tall = (top + bottom) / 2, (bottom - top) * vary(r, 0.26, 0.34)
    if r.random() < 0.65:
        pen.line(arc(right - 0.08, y, reach, tall, -95, 95), 0.17, "body")
    else:
        x = right + reach - 0.06
        pen.line([(right - 0.1, y - tall), (x, y - tall), (x, y + tall * 0.5), (right - 0.1, y + tall)], 0.17, "body")
    if r.random() < 0.7:
        base = arc(middle, bottom - 0.1, half - taper, 0.14, 0, 180)
    else:
        base = [(right - taper, bottom), (left + taper, bottom)]
    pen.polygon([(left, top), (right, top), *base])
    if r.random() < 0.4:
        inset = taper * 0.6
        pen.rectangle(left + inset, y + 0.02, right - inset, y + 0.22, r.choice(("trim", "light")), outline=False)
    pen.ellipse(middle, top, half, vary(r, 0.13, 0.18), "light")
    pen.ellipse(middle, top + 0.02, half - 0.1, 0.1, "ink", outline=False)
    if steam:
        for x in (middle - 0.2, middle + 0.2):
            wisp = bezier((x, top - 0.2), (x + 0.25, top - 0.32), (x - 0.25, top - 0.4), (x, top - 0.54))
            pen.line(wisp, 0.08, "white")


def bottle(pen: Pen, r: Random) -> None:
    """A tall body with sloping shoulders, a narrow neck, a cap and a label."""
    half = vary(r, 0.26, 0.36)
    neck = vary(r, 0.1, 0.13)
    shoulder, slope = vary(r, -0.25, 0.0), vary(r, 0.15, 0.4)
    lip = -0.82
    if r.random() < 0.6:
        right = [
            (neck, lip),
            *bezier((neck, shoulder - slope), (neck, shoulder), (half, shoulder - 0.04), (half, shoulder + 0.16)),
            *bezier((half, 0.86), (half, 0.97), (half - 0.1, 0.97), steps=4),
        ]
    else:
        right = [(neck, lip), (neck, shoulder - slope), (half, shoulder), (half, 0.97)]
    pen.polygon([*right, *[(-x, y) for x, y in reversed(right)]])
    pen.rectangle(-neck - 0.05, -0.96, neck + 0.05, -0.74, r.choice(("wood", "ink", "dark", "trim")))
    y, tall = vary(r, 0.12, 0.25), vary(r, 0.34, 0.48)
    label = r.random()
    if label < 0.6:
        pen.rectangle(-half + 0.02, y, half - 0.02, y + tall, "trim")
        if r.random() < 0.5:
            pen.ellipse(0, y + tall / 2, half * 0.45, tall * 0.3, "dark", outline=False)
    elif label < 0.85:
        pen.ellipse(0, y + tall / 2, half * 0.75, tall * 0.52, "trim")
    else:
        pen.line([(-half * 0.55, shoulder + 0.15), (-half * 0.55, 0.75)], 0.1, "light")


def lamp(pen: Pen, r: Random) -> None:
    """A table lamp with a cone shade on a foot, or a jointed desk lamp with a tilted hood."""
    tone = r.choice(("ink", "trim", "dark"))
    if r.random() < 0.65:
        tall = r.random() < 0.4
        brim = vary(r, 0.7, 0.84) if not tall else vary(r, 0.54, 0.64)
        crown = brim * vary(r, 0.4, 0.6)
        edge = vary(r, -0.1, 0.05) if not tall else vary(r, -0.3, -0.22)
        foot = vary(r, 0.34, 0.46)
        if tall or r.random() < 0.5:
            pen.line([(0, edge), (0, 0.86)], 0.11, tone)
        else:
            pen.ellipse(0, (edge + 0.86) / 2 + 0.04, vary(r, 0.22, 0.3), (0.86 - edge) / 2, tone)
        pen.line([(brim * 0.5, edge), (brim * 0.5, edge + 0.3)], 0.06, "ink")
        pen.ellipse(brim * 0.5, edge + 0.34, 0.07, 0.07, "ink", outline=False)
        pen.polygon([*arc(0, 0.95, foot, 0.16, 180, 360, 10)], tone)
        pen.polygon([(-crown, -0.96), (crown, -0.96), (brim, edge), (-brim, edge)])
        pen.line([(-brim + 0.04, edge - 0.05), (brim - 0.04, edge - 0.05)], 0.1, "light")
        return
    elbow = (vary(r, -0.62, -0.5), vary(r, -0.1, 0.05))
    head = (vary(r, 0.12, 0.22), vary(r, -0.72, -0.64))
    pen.line([(-0.1, 0.84), elbow, head], 0.12, tone)
    pen.ellipse(*elbow, 0.11, 0.11, "dark")
    pen.polygon(arc(-0.1, 0.95, vary(r, 0.44, 0.56), 0.2, 180, 360, 12), "dark")
    pen.ellipse(0.56, -0.22, 0.19, 0.19, "white")
    x, y = head
    outer = bezier((0.6, -0.8), (0.9, -0.6), (0.94, -0.36), steps=6)
    inner = bezier((0.22, 0.06), (0.04, -0.2), (x - 0.14, y + 0.12), steps=5)
    pen.polygon([(x + 0.1, y - 0.14), *outer, *inner])
    pen.line([(0.94, -0.36), (0.22, 0.06)], 0.08, "light")


def candle(pen: Pen, r: Random) -> None:
    """A wax stick with a wick and a flame; on a saucer with a ring, on a stand, or bare and thick with drips."""
    style = r.choice(("saucer", "stand", "bare"))
    half = {"saucer": vary(r, 0.2, 0.26), "stand": vary(r, 0.17, 0.22), "bare": vary(r, 0.28, 0.36)}[style]
    top = vary(r, -0.3, -0.15)
    bottom = {"saucer": 0.74, "stand": 0.5, "bare": 0.95}[style]
    tone = r.choice(("dark", "metal", "trim"))
    if style == "saucer":
        pen.line(arc(0.72, 0.66, 0.17, 0.17, 0, 360), 0.09, tone)
    pen.rectangle(-half, top, half, bottom)
    drips = [(0.45, 0.08), (0.1, vary(r, 0.2, 0.36)), (-0.3, 0.1), (-1, vary(r, 0.2, 0.5))]
    edge = [(-half, top - 0.05), (half, top - 0.05), (half, top + vary(r, 0.1, 0.2))]
    pen.polygon([*edge, *[(half * x, top + y) for x, y in drips]], "light")
    if style == "saucer":
        pen.polygon([(-0.68, 0.68), (0.68, 0.68), (0.42, 0.93), (-0.42, 0.93)], tone)
    elif style == "stand":
        pen.rectangle(-half - 0.14, 0.44, half + 0.14, 0.58, tone)
        pen.polygon([(-0.1, 0.58), (0.1, 0.58), (0.44, 0.94), (-0.44, 0.94)], tone)
    pen.line([(0, top - 0.04), (0, top - 0.2)], 0.08, "ink")
    wide, low = vary(r, 0.18, 0.23), top - 0.12
    right = bezier((0, -0.97), (wide * 2.2, low - 0.22), (wide, low), (0, low))
    pen.polygon([*right, *[(-x, y) for x, y in reversed(right)]], "light")
    pen.ellipse(0, low - 0.18, wide * 0.5, 0.14, "white", outline=False)


def clock(pen: Pen, r: Random) -> None:
    """A face with hour marks and two hands; round wall clock, square clock, or alarm clock with two bells."""
    style = r.choice(("wall", "square", "alarm", "alarm"))
    y, size = (0.12, 0.72) if style == "alarm" else (0.0, 0.95 if style == "wall" else 0.86)
    if style == "alarm":
        for side in (-1, 1):
            pen.line([(side * 0.34, 0.6), (side * 0.56, 0.92)], 0.15, "dark")
            pen.ellipse(side * 0.5, -0.62, 0.34, 0.22, "dark", tilt=side * 40)
        pen.line([(0, -0.5), (0, -0.84)], 0.12, "ink")
    face_tone = r.choice(("white", "trim"))
    rim = vary(r, 0.18, 0.26)
    if style == "square":
        pen.rectangle(-size, -size, size, size)
        if r.random() < 0.5:
            pen.rectangle(-size + rim, -size + rim, size - rim, size - rim, "white")
        else:
            pen.ellipse(0, 0, size - rim * 0.7, size - rim * 0.7, "white")
    else:
        pen.ellipse(0, y, size, size)
        pen.ellipse(0, y, size - rim, size - rim, face_tone)
    ink = "ink" if style == "square" or face_tone == "white" else "body"
    far = size - rim - 0.11
    marks = r.choice((4, 8)) if style != "alarm" else 4
    for i in range(marks):
        a = 2 * math.pi * i / marks
        pen.ellipse(far * math.cos(a), y + far * math.sin(a), 0.055, 0.055, ink, outline=False)
    minute = vary(r, 0, 2 * math.pi)
    hour = minute + vary(r, 1.0, 5.2)
    pen.line([(0, y), (far * 0.85 * math.cos(minute), y + far * 0.85 * math.sin(minute))], 0.09, ink)
    pen.line([(0, y), (far * 0.55 * math.cos(hour), y + far * 0.55 * math.sin(hour))], 0.13, ink)


def key(pen: Pen, r: Random) -> None:
    """A long shank with a holed bow at one end and square teeth at the other."""
    bow = vary(r, 0.32, 0.42)
    x = -0.96 + bow
    width = vary(r, 0.15, 0.2)
    end = 0.96
    teeth = r.choice((2, 2, 3))
    each = vary(r, 0.11, 0.14)
    for i in range(teeth):
        right = end - i * (each + 0.1) - r.choice((0.0, 0.02))
        pen.rectangle(right - each, 0.0, right, width / 2 + vary(r, 0.2, 0.34))
    hole = bow * vary(r, 0.42, 0.56)
    pen.rectangle(x + hole, -width / 2, end, width / 2)
    style = r.choice(("ring", "diamond", "clover"))
    # The bow is drawn as strokes around its hole, so the background shows through.
    if style == "ring":
        middle = (bow + hole) / 2
        pen.line(arc(x, 0, middle, middle, 0, 365, 26), bow - hole, "body")
    elif style == "diamond":
        inner = bow - 0.1
        pen.line([(x - inner, 0), (x, -inner), (x + inner, 0), (x, inner), (x - inner, 0), (x, -inner)], 0.2, "body")
    else:
        lobe = bow * 0.5
        for cx, cy in ((x - bow + lobe, 0), (x + lobe * 0.7, -lobe * 1.0), (x + lobe * 0.7, lobe * 1.0)):
            pen.line(arc(cx, cy, lobe * 0.72, lobe * 0.72, 0, 370, 18), 0.13, "body")
    pen.rectangle(x + bow + 0.02, -width / 2 - 0.08, x + bow + 0.14, width / 2 + 0.08, "dark")


def book(pen: Pen, r: Random) -> None:
    """An open book with lines of text, or a closed one in perspective with its page block showing."""
    if r.random() < 0.5:
        top, bottom = vary(r, -0.56, -0.46), vary(r, 0.5, 0.6)
        lift = vary(r, 0.1, 0.2)
        fold, low = bottom + lift, bottom + 0.06
        cover = [(-0.96, top - 0.02), (0, top + lift), (0.96, top - 0.02), (0.96, low), (0, fold + 0.08), (-0.96, low)]
        pen.polygon(cover)
        for side in (-1, 1):
            upper = bezier((0, top + lift), (side * 0.35, top - lift), (side * 0.84, top - 0.02), steps=6)
            lower = bezier((side * 0.84, bottom - 0.06), (side * 0.35, bottom - lift), (0, fold - 0.04), steps=6)
            pen.polygon([*upper, *lower], "white")
            for i in range(r.choice((3, 4))):
                y = top + 0.2 + i * 0.21
                pen.line([(side * 0.18, y), (side * vary(r, 0.5, 0.7), y - 0.05)], 0.07, "ink")
        pen.line([(0, top + lift), (0, fold)], 0.08, "dark")
        return
    half, top, bottom = vary(r, 0.56, 0.66), -0.94, vary(r, 0.58, 0.66)
    shift = vary(r, 0.16, 0.24)
    deep = vary(r, 0.24, 0.3)
    right, low = half + shift, bottom + deep
    pen.polygon([(-half, top), (-half, bottom), (shift - half, low), (right, low), (right, low - 0.09)], "dark")
    pages = [(right - 0.04, top + deep), (right - 0.04, low - 0.08), (shift - half + 0.04, low - 0.08)]
    pen.polygon([(half, top + 0.05), *pages, (-half + 0.04, bottom)], "white")
    pen.rectangle(-half, top, half, bottom)
    pen.rectangle(-half, top, -half + 0.16, bottom, "dark")
    if r.random() < 0.7:
        pen.rectangle(-half + 0.3, top + 0.2, half - 0.16, top + vary(r, 0.44, 0.6), "trim")
    else:
        pen.ellipse(0.08, (top + bottom) / 2, 0.3, 0.34, "trim")
    if r.random() < 0.5:
        ribbon = [(0.1, bottom), (0.26, bottom), (0.3, bottom + 0.34), (0.2, bottom + 0.26), (0.12, bottom + 0.34)]
        pen.polygon(ribbon, "ink", outline=False)


def chair(pen: Pen, r: Random) -> None:
    """A seat on legs with a tall slatted or solid back, seen from the side at an angle or from the front."""
    leg = vary(r, 0.12, 0.15)
    if r.random() < 0.55:
        # Three-quarter view: the back rises on the left, the seat is a slanted board.
        seat = vary(r, 0.1, 0.2)
        back, front = vary(r, -0.64, -0.56), vary(r, 0.32, 0.42)
        shift = vary(r, 0.3, 0.38)
        for x, y in ((back + 0.06, 0.74), (front, 0.74), (front + shift - 0.06, 0.92), (back + shift, 0.92)):
            pen.line([(x, seat), (x, y)], leg, "dark")
        if r.random() < 0.5:
            pen.polygon([(back, -0.95), (back + shift, -0.78), (back + shift, seat + 0.2), (back, seat)], "light")
        else:
            for x, y in ((back + 0.03, -0.9), (back + shift, -0.73)):
                pen.line([(x, y), (x, seat + 0.1)], leg, "dark")
            for i in range(r.choice((2, 3))):
                y = -0.92 + i * 0.34
                pen.polygon([(back, y), (back + shift, y + 0.17), (back + shift, y + 0.35), (back, y + 0.18)], "body")
        near = [(front + shift, seat + 0.22), (back + shift, seat + 0.22)]
        pen.polygon([(back, seat), (front, seat), *near])
        pen.polygon([*near, (back + shift, seat + 0.34), (front + shift, seat + 0.34)], "dark")
        return
    half = vary(r, 0.44, 0.54)
    seat = vary(r, 0.12, 0.2)
    wide = half + vary(r, 0.06, 0.14)
    for side in (-1, 1):
        pen.line([(side * half * 0.8, seat), (side * half * 0.8, 0.74)], leg, "dark")
        pen.line([(side * half, -0.88), (side * half, seat)], leg, "body")
        pen.line([(side * (wide - 0.06), seat + 0.12), (side * wide, 0.9)], leg, "body")
    style = r.random()
    if style < 0.35:
        pen.polygon([(-half, seat), (-half, -0.7), *arc(0, -0.7, half, 0.25, 180, 360, 10), (half, seat)])
        pen.rectangle(-half * 0.6, -0.6, half * 0.6, -0.16, "light")
    elif style < 0.7:
        for i in range(r.choice((2, 3))):
            pen.rectangle(-half, -0.92 + i * 0.34, half, -0.72 + i * 0.34, "body")
    else:
        pen.rectangle(-half - 0.04, -0.95, half + 0.04, -0.74, "body")
        for x in (-half * 0.4, half * 0.4):
            pen.line([(x, -0.8), (x, seat)], 0.1, "body")
    pen.polygon([(-half, seat - 0.06), (half, seat - 0.06), (wide, seat + 0.16), (-wide, seat + 0.16)], "light")
    pen.rectangle(-wide, seat + 0.16, wide, seat + 0.28, "dark")


DRAWINGS = {
    "umbrella": umbrella,
    "kettle": kettle,
    "mug": mug,
    "bottle": bottle,
    "lamp": lamp,
    "candle": candle,
    "clock": clock,
    "key": key,
    "book": book,
    "chair": chair,
}
