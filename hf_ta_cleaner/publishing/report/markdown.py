"""A report as text: the Markdown page, its tables, and how figures are written. Standard library only."""

from __future__ import annotations

from typing import Any

from .content import ReportContent
from .numbers import percent, with_interval
from .schema import RANKS
from .sentences import SCAN_NOTE, change, price, scanned


def markdown(report: ReportContent) -> str:
    """The whole report for people: verdicts, before and after, all ranks, cost, notes. Per cent, one decimal."""
    head = {"Model": report.model, "Base model": report.base_model, "Method": report.method, "Target": report.target}
    head |= {"Data": report.dataset, "Seed": report.seed, "Created": report.created}
    parts = [
        "# Backdoor audit" if report.after is None else "# Backdoor cleaning report",
        "\n".join(f"- {name}: {value}" for name, value in head.items() if value is not None),
        "\n".join(f"- **{name}**: {verdict}" for name, verdict in report.verdicts().items()),
    ]
    if report.before["clean_accuracy"]:
        parts += [
            "## Result" if report.after is None else "## Before and after",
            _main_table(report),
            "Per cent, with 95% intervals. ASR@1: images of other classes that the trigger turns into the target. "
            "No-trigger floor: the same images without the trigger.",
            "\n".join(f"- {line}" for line in price(report)),
            "## All ranks",
            _rank_table(report),
        ]
    else:
        parts += [
            "Clean accuracy and attacks were not measured: no labelled images were given.",
            "\n".join(f"- {line}" for line in price(report)),
        ]
    if report.retrieval:
        parts += [f"## Retrieval on {report.retrieval['pairs']:,} held-out pairs", _recall_table(report)]
    if rows := extra_rows(report):
        parts += [
            "## Retrieval and linear probe",
            _table([["per cent", *(["before", "after"] if report.after else ["result"])], *rows]),
        ]
    if report.scan:
        parts += [
            "## Without a known trigger",
            f"{scanned(report)}.",
            "\n".join(f"- {when}: {sentence}" for when, part in report.scan.items() for sentence in part["evidence"]),
            SCAN_NOTE,
        ]
    if report.settings:
        parts += ["## Settings", "\n".join(f"- {name}: {value}" for name, value in report.settings.items())]
    if report.notes:
        parts += ["## Notes", "\n".join(f"- {note}" for note in report.notes)]
    if report.versions:
        parts.append("Made with " + ", ".join(f"{name} {version}" for name, version in report.versions.items()) + ".")
    return "\n\n".join(part for part in parts if part) + "\n"


def _main_table(report: ReportContent) -> str:
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
    return _table(rows)


def _recall_table(report: ReportContent) -> str:
    rows = [["recall@1, per cent", "before", "after"]]
    for key, title in (("image_to_text", "image to text"), ("text_to_image", "text to image")):
        rows.append([title, *(percent(report.retrieval[when][f"{key}_recall@1"]) for when in ("before", "after"))])
    return _table(rows)


def extra_rows(report: ReportContent) -> list[list[str]]:
    """What was measured beside zero-shot classification, in per cent: a title, then one figure for each section."""
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


def _rank_table(report: ReportContent) -> str:
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
    return _table(rows)


def _above_floor(asr: float, floor: float) -> str:
    return percent((asr - floor) / (1 - floor)) if floor < 1 else "-"


def _numbers(parts: list[dict[str, Any]], key: str) -> str:
    """One figure where before and after agree, as they should."""
    return " → ".join(dict.fromkeys(str(part[key]) for part in parts))


def _table(rows: list[list[str]]) -> str:
    rows = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    rule = ["---", *("---:" for _ in rows[0][1:])]
    return "\n".join(f"| {' | '.join(row)} |" for row in [rows[0], rule, *rows[1:]])
