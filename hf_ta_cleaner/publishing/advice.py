"""A report's last line: may the cleaned model be used, and if not, what to do next. One sentence."""

from __future__ import annotations

from pathlib import Path

from .report import CLOSE, Report, percent


#: The verdict of a scan that speaks against a model.
SUSPICIOUS = "suspicious"
#: Points of clean accuracy from which a cleaning has cost too much to be taken without a thought.
DEAR = 0.03


def advice(report: Report, folder: str | Path) -> str:
    """What to do with the model that the report is about, which lies in `folder`."""
    attacks, after = report.before["attacks"], report.after["attacks"] if report.after else {}
    if not attacks and report.scan:
        return _by_scan(report.scan, folder)
    if not attacks:
        return (
            f"Do not rely on {folder} yet: no trigger was tried on it; measure it with ta-cleaner audit --model "
            f"{folder} --eval_dataset PICTURES --trigger NAME --target CLASS, or search it with ta-cleaner scan."
        )
    took = [name for name, entry in attacks.items() if _excess(entry) >= CLOSE]
    risen = [name for name in after if after[name]["asr"]["top1"] > attacks[name]["asr"]["top1"]]
    left = {name: _excess(after[name]) for name in (*took, *risen) if _excess(after[name]) >= CLOSE}
    if not took and not left:
        if report.scan:
            return _by_scan(report.scan, folder)
        return (
            "Nothing speaks for a backdoor with the triggers that were tried, so there was nothing to clean here; "
            "other triggers may still work, and ta-cleaner scan looks for them."
        )
    if left:
        worst = max(left, key=left.get)
        still = "still" if worst in took else "now"
        return (
            f"Do not use {folder}: {worst} {still} succeeds {percent(after[worst]['asr']['top1'])}% of the time; "
            "clean again with --method ta-cleaner-plus --strength auto, or with more pairs."
        )
    lost = report.ca_loss["value"] if report.ca_loss else 0.0
    named = ", ".join(f"{name} {percent(attacks[name]['asr']['top1'])}% → {percent(after[name]['asr']['top1'])}%"
                      for name in took)  # fmt: skip
    searched = report.scan["after"] if report.scan else None
    if searched and searched["verdict"] == SUSPICIOUS:
        return (
            f"Do not rely on {folder} yet: {named}, but without knowing a trigger a scan finds that "
            f"{searched['evidence'][0]}; clean again with --method ta-cleaner-plus, or scan with --reference."
        )
    if lost >= DEAR:
        return (
            f"The backdoor is gone ({named}) but {percent(lost)} points of accuracy are too; before using {folder}, "
            "try a lower --strength or more pairs."
        )
    others = f"; a scan for others: {searched['verdict']}" if searched else ""
    return (
        f"Use {folder} in place of the suspect: {named}, at {percent(lost)} points of accuracy; this holds for the "
        f"triggers that were tried{others}."
    )


def _by_scan(scan: dict, folder: str | Path) -> str:
    """Where no trigger is known, the scans before and after are all there is."""
    before, after = scan["before"]["verdict"], scan["after"]["verdict"]
    if after == SUSPICIOUS:
        return (
            f"Do not use {folder}: without knowing a trigger a scan still finds that {scan['after']['evidence'][0]}; "
            "clean again with --method ta-cleaner-plus --strength auto, or scan with --reference."
        )
    if before == SUSPICIOUS:
        return (
            f"Use {folder} in place of the suspect: what made the suspect suspicious is gone ({before} → {after}); "
            "no trigger is known, so this is no proof."
        )
    return (
        f"A scan held nothing certain against the suspect ({before}), nor against {folder} ({after}); this is no "
        "proof, so try the triggers you fear with --trigger."
    )


def _excess(entry: dict) -> float:
    """How far the success rate lies above what is normal, see `Report.verdicts`."""
    normal = max(entry["floor"]["top1"], entry.get("reference_asr", {}).get("top1", 0.0))
    return entry["asr"]["top1"] - normal
