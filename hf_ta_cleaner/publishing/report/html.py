"""A report as one page that needs no other file: bars, triggered pictures, training curves, histograms.

Shapes are computed here and drawn as inline SVG and CSS by template.html; colors are CSS variables, so that the
page follows the reader's light or dark setting. There is no script in it.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .content import ReportContent
from .numbers import percent
from .schema import RANKS
from .sentences import SCAN_NOTE, TARGET_NOTE, price
from .tables import extra_rows, target_rows
from .verdict import FOUND, NEW, NO_SIGN, REMAINS, REMOVED


TEMPLATE = Path(__file__).with_name("template.html")
WIDTH, HEIGHT = 320, 170
LEFT, RIGHT, TOP, BOTTOM = 46, 8, 8, 24
"""Size of a chart and its margins, in units of its viewBox."""

CURVES = {
    "loss": "weighted sum of the terms",
    "loss/clip": "CLIP loss",
    "loss/inmodal": "in-modal loss",
    "loss/subtext": "sub-text loss",
    "loss/repel": "repelling loss",
    "loss/distill": "distillation loss",
    "logit_scale": "exp(logit_scale)",
    "learning_rate": "learning rate",
    "eval_clean_accuracy": "clean accuracy, held out",
    "eval_recall@1": "retrieval recall@1, held out",
}
HIDDEN = {"eval_clean_utility", "eval_image_to_text_recall@1", "eval_text_to_image_recall@1"}


def render(report: ReportContent, pictures: Mapping[tuple[str, int], Any] | None = None) -> str:
    """The page; `pictures` as in `Report.to_html`."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["percent"] = percent
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    return template.render(
        report=report,
        title="Backdoor audit" if report.after is None else f"Before and after {report.method}",
        facts=_facts(report),
        verdicts=_verdicts(report),
        price=price(report),
        bars=_bars(report),
        scan=_scans(report),
        scan_note=SCAN_NOTE,
        examples=_examples(report, pictures or {}),
        histograms=[chart for name in report.before["attacks"] if (chart := _histogram(report, name))],
        curves=[
            {"name": CURVES.get(name, name), **_curve(curve["step"], curve["value"])}
            for name, curve in sorted((report.history or {}).items(), key=_order)
            if name not in HIDDEN
        ],
        ranks=RANKS,
        sections=report.sections(),
        extra=extra_rows(report),
        target_rows=target_rows(report),
        target_note=TARGET_NOTE,
        box=(WIDTH, HEIGHT, LEFT, WIDTH - RIGHT, TOP, HEIGHT - BOTTOM),
    )


def _verdicts(report: ReportContent) -> list[tuple[str, str, str]]:
    """For each attack its name, its sentence, and the CSS class of its colour."""
    colors = dict.fromkeys((REMOVED, NO_SIGN), "removed") | dict.fromkeys((REMAINS, FOUND, NEW), "there")
    return [
        (name, judged.sentence(), "" if judged.traces else colors.get(judged.state, ""))
        for name, judged in report.judge().items()
    ]


def _order(item: tuple[str, Any]) -> int:
    names = list(CURVES)
    return names.index(item[0]) if item[0] in names else len(names)


def _facts(report: ReportContent) -> dict[str, Any]:
    clean = report.before["clean_accuracy"]
    facts = {
        "model": report.model,
        "base model": report.base_model,
        "method": report.method,
        "target": report.target,
        "data": report.dataset,
        "pictures": f"{clean['n']:,}" if clean else None,
        "seed": report.seed,
        "made": (report.created or "")[:16].replace("T", " ") or None,
    }
    return {name: value for name, value in facts.items() if value is not None}


def _bars(report: ReportContent) -> list[dict[str, Any]]:
    """Clean accuracy, then every attack: title, and one bar for each section."""
    if not report.before["clean_accuracy"]:
        return []
    groups = []
    for attack in (None, *report.before["attacks"]):
        bars = []
        for name, section in report.sections().items():
            entry = section["attacks"][attack] if attack else section["clean_accuracy"]
            rate = entry["asr"]["top1"] if attack else entry["top1"]
            low, high = entry["interval95"]["asr_top1" if attack else "top1"]
            marks = {"floor": entry["floor"]["top1"]} if attack else {}
            if "reference_asr" in entry:
                marks["reference"] = entry["reference_asr"]["top1"]
            bars.append({"name": name, "rate": rate, "low": low, "high": high, "marks": marks, "n": entry["n"]})
        direction = "lower is better" if attack else "higher is better"
        title = f"Attack success rate, {attack}" if attack else "Clean accuracy"
        groups.append({"title": title, "wanted": direction, "bars": bars, "n": bars[0]["n"]})
    return groups


def _scans(report: ReportContent) -> list[dict[str, Any]]:
    """The scans before and after: a bar for the best patch, and the evidence."""
    found = []
    for name, part in (report.scan or {}).items():
        best = part["best_patch"]
        low, high = best["interval95"]
        bar = {"name": name, "rate": best["rate"], "low": low, "high": high, "marks": {}, "n": best["n"]}
        found.append({**bar, "verdict": part["verdict"], "evidence": part["evidence"]})
    return found


def _examples(report: ReportContent, pictures: Mapping[tuple[str, int], Any]) -> dict[str, list[dict[str, Any]]]:
    found = {}
    for attack, rows in (report.examples or {}).items():
        target = report.before["attacks"][attack].get("target", report.target)
        found[attack] = [
            {
                **row,
                "target": target,
                "pictures": [as_data_uri(image) for image in pictures.get((attack, row["sample_id"]), ())],
            }
            for row in rows
        ]
    return found


def as_data_uri(image: Any) -> str:
    """A uint8 array `(H, W, 3)` as a data URI: PNG where it is small, to show every pixel of a trigger; else JPEG."""
    from PIL import Image

    picture, buffer = Image.fromarray(image), io.BytesIO()
    kind = "png" if max(picture.size) <= 128 else "jpeg"
    picture.save(buffer, kind, **({"quality": 90} if kind == "jpeg" else {"optimize": True}))
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _histogram(report: ReportContent, attack: str) -> dict[str, Any] | None:
    """Cosines of triggered pictures with the target's caption, before and after, over the same bins."""
    parts = {name: section["attacks"][attack].get("similarity") for name, section in report.sections().items()}
    if not all(parts.values()):
        return None
    width = next(iter(parts.values()))["width"]
    starts = {name: round(part["start"] / width) for name, part in parts.items()}
    first = min(starts.values())
    last = max(starts[name] + len(part["counts"]) for name, part in parts.items())
    step = max(1, -(-(last - first) // 40))  # forty bars are enough
    first -= first % step
    shares = {}
    for name, part in parts.items():
        bins = [0.0] * (-(-(last - first) // step))
        for i, count in enumerate(part["counts"]):
            bins[(starts[name] + i - first) // step] += count / sum(part["counts"])
        shares[name] = bins
    peak = max(max(bins) for bins in shares.values())
    low, high = first * width, (first + step * len(next(iter(shares.values())))) * width
    x, y = _scale(low, high, LEFT, WIDTH - RIGHT), _scale(0, peak * 1.05, HEIGHT - BOTTOM, TOP)
    paths = {}
    for name, bins in shares.items():
        line = [f"M{x(low):.1f} {y(0):.1f}"]
        for i, share in enumerate(bins):
            left, right = low + i * step * width, low + (i + 1) * step * width
            line.append(f"L{x(left):.1f} {y(share):.1f}L{x(right):.1f} {y(share):.1f}")
        paths[name] = "".join(line) + f"L{x(high):.1f} {y(0):.1f}Z"
    return {
        "name": attack,
        "target": report.before["attacks"][attack].get("target", report.target),
        "paths": paths,
        "xticks": [(round(x(tick), 1), _number(tick)) for tick in ticks(low, high, 5)],
        "yticks": [(round(y(tick), 1), f"{100 * tick:g}%") for tick in ticks(0, peak * 1.05, 4)],
    }


def _curve(steps: Sequence[float], values: Sequence[float]) -> dict[str, Any]:
    low, high = min(values), max(values)
    margin = 0.06 * (high - low) or abs(high) * 0.1 or 1.0
    low, high = low - margin, high + margin
    x, y = _scale(steps[0], steps[-1], LEFT, WIDTH - RIGHT), _scale(low, high, HEIGHT - BOTTOM, TOP)
    points = [f"{x(step):.1f} {y(value):.1f}" for step, value in zip(steps, values, strict=True)]
    return {
        "path": "M" + "L".join(points),
        "end": points[-1].split(),
        "last": _number(values[-1], 4),
        "xticks": [(round(x(tick), 1), f"{tick:,.0f}") for tick in ticks(steps[0], steps[-1], 4)],
        "yticks": [(round(y(tick), 1), _number(tick)) for tick in ticks(low, high, 4)],
    }


def _scale(low: float, high: float, start: float, end: float):
    """A linear map of [low, high] to [start, end]."""
    return lambda value: start + (value - low) / ((high - low) or 1) * (end - start)


def ticks(low: float, high: float, count: int) -> list[float]:
    """About `count` round numbers in [low, high]."""
    rough = (high - low) / count
    if rough <= 0:
        return [low]
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * unit for unit in (1, 2, 2.5, 5, 10) if power * unit >= 0.9 * rough)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [i * step for i in range(first, last + 1)]


def _number(value: float, digits: int = 3) -> str:
    return f"{value + 0.0:.{digits}g}" if value else "0"
