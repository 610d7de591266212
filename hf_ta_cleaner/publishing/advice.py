"""The last line of a cleaning: may the cleaned model be used, and if not, what to do next."""

from __future__ import annotations

from pathlib import Path

from .report import Report, largest_loss, percent, utility_lost
from .report.verdict import FOUND, NEW, NO_SIGN, NOT_TAKEN, REDUCED, REMAINS, REMOVED, Verdict


#: The verdict of a scan that speaks against a model.
SUSPICIOUS = "suspicious"
#: A cleaning that loses at least this much accuracy or recall should be tried again before the model is used.
DEAR = 0.03


def advice(report: Report, folder: str | Path) -> str:
    """What to do with the model in `folder` that the report is about: one line."""
    judged = report.judge()
    if not judged and report.scan:
        return _by_scan(report.scan, folder)
    if not judged:
        return (
            f"Do not rely on {folder} yet: no trigger was tried on it; measure it with ta-cleaner audit --model "
            f"{folder} --eval_dataset PICTURES --trigger NAME --target CLASS, or search it with ta-cleaner scan."
        )
    open_ones = {name: one for name, one in judged.items() if not _is_settled(one)}
    if open_ones:
        return _clean_again(report, open_ones, folder)
    if all(one.state in (NOT_TAKEN, NO_SIGN) for one in judged.values()):
        if report.scan:
            return _by_scan(report.scan, folder)
        return (
            "Nothing speaks for a backdoor with the triggers that were tried, so there was nothing to clean here; "
            "other triggers may still work, and ta-cleaner scan looks for them."
        )
    return _removed(report, judged, folder)


def _is_settled(judged: Verdict) -> bool:
    """Nothing of the backdoor is left at any rank, or it never took."""
    return judged.state in (REMOVED, NOT_TAKEN, NO_SIGN) and not judged.traces


def _clean_again(report: Report, judged: dict[str, Verdict], folder: str | Path) -> str:
    """The advice where an attack still succeeds at top 1, leaves traces, or is not shown to be removed."""
    succeed = {name: one for name, one in judged.items() if one.state in (FOUND, REDUCED, REMAINS, NEW)}
    worst = max(succeed or judged, key=lambda name: judged[name].asr[-1] - judged[name].normal)
    start = f"Do not use {folder}" if succeed else f"Do not rely on {folder} yet"
    finding = f"under {worst} {judged[worst].finding} (ASR {judged[worst].rates})"
    return f"{start}: {finding}; {_stronger(report)}."


def _removed(report: Report, judged: dict[str, Verdict], folder: str | Path) -> str:
    """The advice where every backdoor that took is removed: it depends on a scan, and on what the cleaning loses."""
    removed = ", ".join(f"{name} {one.rates}" for name, one in judged.items() if one.state == REMOVED)
    finding = f"the backdoor is removed ({removed})"
    searched = report.scan["after"] if report.scan else None
    if searched and searched["verdict"] == SUSPICIOUS:
        return (
            f"Do not rely on {folder} yet: {finding}, but without knowing a trigger a scan finds that "
            f"{searched['evidence'][0]}; {_stronger(report)}, or scan with --reference."
        )
    lost = utility_lost(report) or "what the cleaning loses was not measured"
    if largest_loss(report) >= DEAR:
        return (
            f"Try a lower --strength or more pairs before you use {folder}: {finding}, but {lost}, and a loss of "
            f"{percent(DEAR)} points is much."
        )
    others = f"; a scan for others: {searched['verdict']}" if searched else ""
    return (
        f"Use {folder} in place of the suspect: {finding}, and {lost}; this holds for the triggers that were "
        f"tried{others}."
    )


def _by_scan(scan: dict, folder: str | Path) -> str:
    """The advice where no trigger is known: it rests on the scans before and after alone."""
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
        f"A scan finds nothing certain against the suspect ({before}), nor against {folder} ({after}); this is no "
        "proof, so try the triggers you fear with --trigger."
    )


def _stronger(report: Report) -> str:
    """How to clean again; another method only where it is not the one that was used."""
    if report.method == "ta-cleaner-plus":
        return "clean again with a higher --strength, or with more pairs"
    return "clean again with --method ta-cleaner-plus --strength auto, or with more pairs"
