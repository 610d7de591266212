"""The tables of a report as rows of text, in per cent, and how a table is written in Markdown."""

from __future__ import annotations

from typing import Any

from .content import ReportContent
from .numbers import percent, with_interval
from .schema import RANKS
from .sentences import change


def main_table(report: ReportContent) -> str:
    """Clean accuracy, every attack at top 1 and the target classes, with 95% intervals, as Markdown."""
    sections = report.sections().values()
    names = ["before", "after"] if report.after else ["result"]
    compared = any("reference_asr" in entry for s in sections for entry in s["attacks"].values())
    extra = ["ASR@1 of the never-poisoned model", "excess"] if compared else []
    rows = [["", *names, "no-trigger floor", *extra, "n", "trigger seed"]]
    clean = [section["clean_accuracy"] for section in sections]
    cells = [with_interval(part["top1"], part["interval95"]["top1"]) for part in clean]
    rows.append(["clean accuracy", *cells, "", *("" for _ in extra), _numbers(clean, "n"), ""])
    for name in report.before["attacks"]:
        both = [section["attacks"][name] for section in sections]
        cells = [with_interval(part["asr"]["top1"], part["interval95"]["asr_top1"]) for part in both]
        cells.append(change(report, "attacks", name, "floor", "top1"))
        if compared:
            known = all("excess" in part for part in both)
            cells += [
                change(report, "attacks", name, key, "top1") if known else "" for key in ("reference_asr", "excess")
            ]
        rows.append([f"ASR@1 {name}", *cells, _numbers(both, "n"), _numbers(both, "seed")])
    for title, *cells, n in target_rows(report):
        rows.append([title, *cells, "", *("" for _ in extra), n, ""])
    return table(rows)


def target_rows(report: ReportContent) -> list[list[str]]:
    """Recall and precision of every target class on clean pictures: title, a cell for each section, n.

    Attacks with the same target share their rows. A cell is "-" where the rate is undefined, because no picture is of
    the class or because the model never names it. Reports without these rates give no rows.
    """
    classes: dict[str, list[dict[str, Any]]] = {}
    for name, entry in report.before["attacks"].items():
        parts = [section["attacks"][name].get("target_class") for section in report.sections().values()]
        if all(parts):
            classes.setdefault(entry.get("target") or report.target or name, parts)
    rows = []
    for target, parts in classes.items():
        for rate, count in (("recall", "n"), ("precision", "n_predicted")):
            cells = ["-" if p[rate] is None else with_interval(p[rate], p["interval95"][rate]) for p in parts]
            rows.append([f"{rate} of the target class {target}", *cells, _numbers(parts, count)])
    return rows


def recall_table(report: ReportContent) -> str:
    """Recall@1 on the held-out pairs, in both directions, as Markdown."""
    rows = [["recall@1, per cent", "before", "after"]]
    for key, title in (("image_to_text", "image to text"), ("text_to_image", "text to image")):
        rows.append([title, *(percent(report.retrieval[when][f"{key}_recall@1"]) for when in ("before", "after"))])
    return table(rows)


def extra_rows(report: ReportContent) -> list[list[str]]:
    """Linear probe and retrieval of the audit, in per cent: a title, then one figure for each section."""
    sections = report.sections().values()
    rows = []
    if all("linear_probe" in section for section in sections):
        parts = [section["linear_probe"] for section in sections]
        title = f"linear probe, {parts[0]['n_train']:,} training pictures"
        rows.append([title, *(with_interval(part["top1"], part["interval95"]["top1"]) for part in parts)])
    if all("retrieval" in section for section in sections):
        parts = [section["retrieval"] for section in sections]
        size = f"{parts[0]['images']:,} pictures, {parts[0]['texts']:,} texts"
        for key, title in (("image_to_text", "image to text"), ("text_to_image", "text to image")):
            for rank in ("top1", "top5", "top10"):
                cells = [with_interval(part[key][rank], part[key]["interval95"][rank]) for part in parts]
                rows.append([f"{title} recall@{rank[3:]} ({size})", *cells])
        for name in parts[0]["attacks"]:
            for rank in ("top1", "top5", "top10"):
                for key, title in (("asr", "retrieval ASR"), ("floor", "its floor")):
                    cells = [percent(part["attacks"][name][key][rank]) for part in parts]
                    rows.append([f"{name}: {title}@{rank[3:]}", *cells])
    return rows


def rank_table(report: ReportContent) -> str:
    """Every rate at every rank, "before → after", as Markdown."""
    rows = [["", *(f"top {rank[3:]}" for rank in RANKS)]]
    rows.append(["clean accuracy", *(change(report, "clean_accuracy", rank) for rank in RANKS)])
    kinds = {
        "asr": "ASR",
        "floor": "no-trigger floor",
        "asr_including_target": "ASR, target class counted",
        "reference_asr": "ASR, never-poisoned model",
        "accuracy_under_trigger": "accuracy under trigger",
    }
    for name in report.before["attacks"]:
        both = [section["attacks"][name] for section in report.sections().values()]
        for key, title in kinds.items():
            if all(key in entry for entry in both):
                rows.append([f"{name}: {title}", *(change(report, "attacks", name, key, rank) for rank in RANKS)])
        above = [[_above_floor(e["asr"][rank], e["floor"][rank]) for e in both] for rank in RANKS]
        rows.append([f"{name}: (ASR - floor) / (1 - floor)", *(" → ".join(values) for values in above)])
    return table(rows)


def _above_floor(asr: float, floor: float) -> str:
    return percent((asr - floor) / (1 - floor)) if floor < 1 else "-"


def _numbers(parts: list[dict[str, Any]], key: str) -> str:
    """One figure where before and after agree, else "before → after"."""
    return " → ".join(dict.fromkeys(str(part[key]) for part in parts))


def table(rows: list[list[str]]) -> str:
    """Rows as a Markdown table; the first row is its head."""
    rows = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    rule = ["---", *("---:" for _ in rows[0][1:])]
    return "\n".join(f"| {' | '.join(row)} |" for row in [rows[0], rule, *rows[1:]])
