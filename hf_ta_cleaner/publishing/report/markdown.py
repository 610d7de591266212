"""A report as text: report.md. Standard library only."""

from __future__ import annotations

from .content import ReportContent
from .sentences import SCAN_NOTE, TARGET_NOTE, price, scanned
from .tables import extra_rows, main_table, rank_table, recall_table, table, target_rows


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
            main_table(report),
            "Per cent, with 95% intervals. ASR@1: images of other classes that the trigger turns into the target. "
            "No-trigger floor: the same images without the trigger.",
            TARGET_NOTE if target_rows(report) else "",
            "\n".join(f"- {line}" for line in price(report)),
            f"Clean accuracy loss: {report.ca_loss['definition']}." if report.ca_loss else "",
            "## All ranks",
            rank_table(report),
        ]
    else:
        parts += [
            "Clean accuracy and attacks were not measured: no labelled images were given.",
            "\n".join(f"- {line}" for line in price(report)),
        ]
    if report.retrieval:
        parts += [f"## Retrieval on {report.retrieval['pairs']:,} held-out pairs", recall_table(report)]
    if rows := extra_rows(report):
        parts += [
            "## Retrieval and linear probe",
            table([["per cent", *(["before", "after"] if report.after else ["result"])], *rows]),
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
