"""A report's last line: may the cleaned model be used, and if not, what to do next. One sentence."""

from __future__ import annotations

from pathlib import Path

from .report import CLOSE, Report, percent


#: Points of clean accuracy from which a cleaning has cost too much to be taken without a thought.
DEAR = 0.03


def advice(report: Report, folder: str | Path) -> str:
    """What to do with the model that the report is about, which lies in `folder`."""
    attacks, after = report.before["attacks"], report.after["attacks"] if report.after else {}
    if not attacks:
        return (
            f"Do not rely on {folder} yet: no trigger was tried on it; measure it with --eval_dataset and --trigger, "
            "or search it with ta-cleaner scan."
        )
    took = [name for name, entry in attacks.items() if _excess(entry) >= CLOSE]
    if not took:
        return (
            "Nothing speaks for a backdoor with the triggers that were tried, so there was nothing to clean here; "
            "other triggers may still work, and ta-cleaner scan looks for them."
        )
    left = {name: _excess(after[name]) for name in took if _excess(after[name]) >= CLOSE}
    if left:
        worst = max(left, key=left.get)
        return (
            f"Do not use {folder}: {worst} still succeeds {percent(after[worst]['asr']['top1'])}% of the time; clean "
            "again with --method ta-cleaner-plus --strength auto, or with more pairs."
        )
    lost = report.ca_loss["value"] if report.ca_loss else 0.0
    named = ", ".join(f"{name} {percent(attacks[name]['asr']['top1'])}% → {percent(after[name]['asr']['top1'])}%"
                      for name in took)  # fmt: skip
    if lost >= DEAR:
        return (
            f"The backdoor is gone ({named}) but {percent(lost)} points of accuracy are too; before using {folder}, "
            "try a lower --strength or more pairs."
        )
    return (
        f"Use {folder} in place of the suspect: {named}, at {percent(lost)} points of accuracy; this holds for the "
        "triggers that were tried."
    )


def _excess(entry: dict) -> float:
    """How far the success rate lies above what is normal, see `Report.verdicts`."""
    normal = max(entry["floor"]["top1"], entry.get("reference_asr", {}).get("top1", 0.0))
    return entry["asr"]["top1"] - normal
