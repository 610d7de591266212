"""The picture of a report: clean accuracy and every attack success rate, before and after. Needs matplotlib."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .content import ReportContent


if TYPE_CHECKING:
    from matplotlib.axes import Axes


# Okabe and Ito's palette: told apart with every common color vision, and in gray.
COLORS = {"before": "#D55E00", "after": "#0072B2"}
INK, SOFT, FAINT = "#222222", "#555555", "#8A8A8A"
LINES = {"floor": ("no-trigger floor", (0, (1.2, 0.9))), "reference_asr": ("never-poisoned model", "solid")}
WIDTH = 0.36
#: With more attacks than this the letters are smaller.
MANY = 5


def draw(report: ReportContent, path: str | Path) -> Path:
    """Bars with 95% intervals; lines for the no-trigger floor and the never-poisoned model. A PNG of 1200 x 600.

    Returns:
        The path.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    path = Path(path)
    attacks = list(report.before["attacks"])
    # A gap keeps apart the rate that should be high and those that should be low.
    places = [0.0, *(i + 1.6 for i in range(len(attacks)))]
    figure = Figure(figsize=(12, 6), dpi=100, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.065, 0.12, 0.915, 0.62))
    handles = {}
    for i, (name, section) in enumerate(report.sections().items()):
        shift = (i - (len(report.sections()) - 1) / 2) * (WIDTH + 0.04)
        handles |= _draw_section(axes, name, section, attacks, [place + shift for place in places])
    _dress(axes, places, attacks, sections=len(report.sections()))
    names = [name for name in ("before", "after", *(title for title, _ in LINES.values())) if name in handles]
    if report.after is None:
        names.remove("before")
    figure.text(0.02, 0.93, _title(report), fontsize=18, fontweight="bold", color=INK)
    figure.text(0.02, 0.88, _subtitle(report), fontsize=11.5, color=SOFT)
    place = {"loc": "upper right", "bbox_to_anchor": (0.985, 0.985), "ncols": 4}
    figure.legend([handles[name] for name in names], names, **place, frameon=False, fontsize=11.5, columnspacing=1.6)
    figure.savefig(path)
    return path


def _draw_section(
    axes: Axes, name: str, section: dict[str, Any], attacks: list[str], places: list[float]
) -> dict[str, Any]:
    """Bars and lines of one section, its accuracy first; the handles for the legend by their title."""
    handles = {}
    clean, entries = section["clean_accuracy"], [section["attacks"][attack] for attack in attacks]
    bars = [(clean["top1"], clean["interval95"]["top1"])]
    bars += [(entry["asr"]["top1"], entry["interval95"]["asr_top1"]) for entry in entries]
    for x, (rate, (low, high)) in zip(places, bars, strict=True):
        handles[name] = axes.bar(x, 100 * rate, WIDTH, color=COLORS[name], zorder=2)
        # Rounding may put an end of the interval a hair on the wrong side of the rate.
        ends = [[100 * max(0.0, rate - low)], [100 * max(0.0, high - rate)]]
        axes.errorbar(x, 100 * rate, ends, color=INK, lw=1.3, capsize=3.5, zorder=4)
        size = 10.5 if len(attacks) > MANY else 12
        axes.text(x, 100 * high + 1.5, f"{100 * rate:.1f}", ha="center", va="bottom", color=INK, fontsize=size)
    for x, entry in zip(places[1:], entries, strict=True):
        for key, (title, style) in LINES.items():
            if key in entry:
                left, right = x - WIDTH / 2 - 0.015, x + WIDTH / 2 + 0.015
                handles[title] = axes.hlines(100 * entry[key]["top1"], left, right, color=INK, lw=1.8, ls=style)
                handles[title].set_zorder(3)
    return handles


def _dress(axes: Axes, places: list[float], attacks: list[str], sections: int) -> None:
    """Ticks, labels, grid and headings."""
    axes.set_ylim(0, 107)
    axes.set_yticks(range(0, 101, 20), [f"{tick}%" for tick in range(0, 101, 20)])
    # A few bars stay as narrow as many, and in the middle.
    spare = max(0.0, 3.6 - places[-1]) / 2
    axes.set_xlim(-0.7 - spare, places[-1] + 0.7 + spare)
    axes.set_xticks(places, ["", *(textwrap.fill(attack, 13) for attack in attacks)])
    axes.tick_params(axis="x", length=0, pad=8, labelsize=11.5 if len(attacks) > MANY else 13, labelcolor=INK)
    axes.tick_params(axis="y", length=0, labelsize=11, labelcolor=FAINT)
    axes.grid(axis="y", color="#E6E6E6")
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(FAINT)
    headings = [("Clean accuracy", "higher is better"), ("Attack success rate", "lower is better")]
    for place, (heading, direction) in zip(places[:2], headings, strict=False):
        x = place - WIDTH / 2 - (sections - 1) / 2 * (WIDTH + 0.04)
        axes.text(x, 117, heading, fontsize=13, fontweight="bold", color=INK)
        axes.text(x, 111, direction, fontsize=11, color=SOFT)


def _title(report: ReportContent) -> str:
    return "Backdoor audit" if report.after is None else f"Before and after {report.method}"


def _subtitle(report: ReportContent) -> str:
    images = f"{report.before['clean_accuracy']['n']:,} images"
    model = report.model and (report.model if len(report.model) <= 50 else f"...{report.model[-47:]}")
    parts = [model, report.target and f"target: {report.target}", images, "top-1 with 95% intervals"]
    return "  ·  ".join(part for part in parts if part)
