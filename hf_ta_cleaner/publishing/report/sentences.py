"""Sentences about a report that the console, the page and the model card share."""

from __future__ import annotations

from .content import ReportContent
from .numbers import percent, with_interval


#: Under what a scan has found.
SCAN_NOTE = (
    "An optimised patch is also an adversarial patch, which every model has: compare before with after, not with 0. "
    "A scan that finds nothing is no proof: the documentation tells what it does not look for."
)


def scanned(report: ReportContent) -> str:
    """The scans before and after in a line: the verdicts, and how far the best patch that was found goes."""
    found = []
    for part in report.scan.values():
        best = part["best_patch"]
        rate = with_interval(best["rate"], best["interval95"])
        found.append(f"{part['verdict']} (best patch: {rate}% of {best['n']} pictures become {best['label']!r})")
    return " → ".join(found)


def change(report: ReportContent, *keys: str, unit: str = "") -> str:
    """The rate at these keys, as "before → after"."""
    values = []
    for section in report.sections().values():
        for key in keys:
            section = section[key]
        values.append(percent(section) + unit)
    return " → ".join(values)


def price(report: ReportContent) -> list[str]:
    """What the cleaning cost, in accuracy and in work: a sentence each."""
    lines = []
    if report.ca_loss:
        loss, (low, high) = report.ca_loss, report.ca_loss["interval95"]
        lines.append(
            f"clean accuracy loss: {percent(loss['value'])} points [{percent(low)}, {percent(high)}] "
            f"against the {loss['baseline']} model ({loss['definition']})"
        )
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
    if report.retrieval:
        recall = " → ".join(f"{percent(report.retrieval[when]['recall@1'])}%" for when in ("before", "after"))
        lines.append(f"retrieval recall@1 on {report.retrieval['pairs']:,} held-out pairs: {recall}")
    lines += [f"{name}: {verdict}" for name, verdict in report.verdicts().items()]
    if report.scan:
        lines.append(f"without a known trigger: {scanned(report)}")
    return "\n".join(lines + price(report))
