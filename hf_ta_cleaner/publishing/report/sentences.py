"""Sentences about a report that the console, the text, the page, the model card and the Space share."""

from __future__ import annotations

from .content import ReportContent
from .numbers import listed, percent, with_interval


#: Stands under the result of a scan.
SCAN_NOTE = (
    "An optimised patch is also an adversarial patch, which every model has: compare before with after, not with 0. "
    "A scan that finds nothing is no proof: the documentation lists what it does not look for."
)

#: Stands beside the recall and the precision of the target class.
TARGET_NOTE = (
    "Recall and precision of the target class are measured on clean images. A cleaning that suppresses the class "
    "lowers its ASR and removes nothing."
)

_DIRECTIONS = {"image_to_text": "image-to-text", "text_to_image": "text-to-image"}


def scanned(report: ReportContent) -> str:
    """The scans before and after in one line: the verdicts, and the success rate of the best patch that was found."""
    parts = []
    for part in report.scan.values():
        best = part["best_patch"]
        rate = with_interval(best["rate"], best["interval95"])
        parts.append(f"{part['verdict']} (best patch: {rate}% of {best['n']} pictures become {best['label']!r})")
    return " → ".join(parts)


def change(report: ReportContent, *keys: str, unit: str = "") -> str:
    """The rate at these keys of a section, as "before → after"."""
    values = []
    for section in report.sections().values():
        for key in keys:
            section = section[key]
        values.append(percent(section) + unit)
    return " → ".join(values)


def recall_change(report: ReportContent) -> tuple[dict[str, tuple[float, float]], str]:
    """Recall@1 before and after by direction ("image_to_text", "text_to_image"), and the data it is measured on.

    The audit's captioned pictures come first, then the held-out pairs of the cleaning. Empty where neither exists.
    """
    if report.after is not None and all("retrieval" in section for section in report.sections().values()):
        parts = [section["retrieval"] for section in report.sections().values()]
        changes = {key: tuple(part[key]["top1"] for part in parts) for key in _DIRECTIONS}
        return changes, f"{parts[0]['images']:,} captioned pictures"
    if report.retrieval:
        parts = [report.retrieval[when] for when in ("before", "after")]
        changes = {key: tuple(part[f"{key}_recall@1"] for part in parts) for key in _DIRECTIONS}
        return changes, f"{report.retrieval['pairs']:,} held-out pairs"
    return {}, ""


def utility_lost(report: ReportContent) -> str:
    """What the cleaning loses, in accuracy and in recall, as a phrase without a full stop; "" where nothing is known.

    The loss of accuracy is given against the best baseline and, where that is another model, against the suspect.
    """
    parts = []
    if report.ca_loss:
        loss = report.ca_loss
        phrase = f"{percent(loss['value'])} points {_interval(loss)} of clean accuracy against the {loss['baseline']}"
        phrase += " model"
        if loss["baseline"] != "suspect" and (own := loss.get("against_suspect")):
            phrase += f" ({percent(own['value'])} points {_interval(own)} against the suspect itself)"
        elif loss["baseline"] != "suspect" and report.after and report.after["clean_accuracy"]:
            own = report.before["clean_accuracy"]["top1"] - report.after["clean_accuracy"]["top1"]
            phrase += f" ({percent(own)} points against the suspect itself)"
        parts.append(phrase)
    changes, data = recall_change(report)
    for key, (before, after) in changes.items():
        rates = f"{percent(before)}% → {percent(after)}%"
        parts.append(f"{percent(before - after)} points of {_DIRECTIONS[key]} recall@1 ({rates})")
    if not parts:
        return ""
    return f"the cleaning loses {listed(parts)}" + (f" on {data}" if data else "")


def largest_loss(report: ReportContent) -> float:
    """The largest loss that `utility_lost` names, a fraction; 0 where nothing is known."""
    losses = [report.ca_loss["value"]] if report.ca_loss else []
    losses += [before - after for before, after in recall_change(report)[0].values()]
    return max(losses, default=0.0)


def price(report: ReportContent) -> list[str]:
    """What the cleaning costs in accuracy, recall and work: a sentence each."""
    lines = [lost] if (lost := utility_lost(report)) else []
    if report.cost:
        cost = report.cost
        lines.append(f"cost: {cost['pairs_seen']:,} pairs seen, {cost['seconds']:,.0f} s on {cost['device']}")
    return lines


def summary(report: ReportContent) -> str:
    """The report in a few lines, for a console."""
    lines = []
    if report.before["clean_accuracy"]:
        lines.append(f"clean accuracy: {change(report, 'clean_accuracy', 'top1', unit='%')}")
    else:
        lines.append("clean accuracy and attacks: not measured, no labelled images were given")
    lines += [f"{name}: {sentence}" for name, sentence in report.verdicts().items()]
    if report.scan:
        lines.append(f"without a known trigger: {scanned(report)}")
    return "\n".join(lines + price(report))


def _interval(difference: dict) -> str:
    low, high = difference["interval95"]
    return f"[{percent(low)}, {percent(high)}]"
