"""Finished cells -> the tables: what is found, what is not, and how often a clean model is suspected."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.scan.plan import Cell
from hf_ta_cleaner.detection.scan import NOTHING, SUSPICIOUS, UNSURE, ScanResult, Thresholds
from hf_ta_cleaner.detection.scan.verdict import THRESHOLDS, conclude, judge_panel, judge_patches
from hf_ta_cleaner.detection.screening import auroc, auroc_interval


#: A backdoor took if its attack succeeds so much more often than its floor.
TOOK = 0.5


def judged(scan: ScanResult, limits: Thresholds = THRESHOLDS) -> dict[str, Any]:
    """Verdict, target and strength of what a scan has seen, by one set of thresholds, whichever it was scanned with.

    The strength is how much of what "suspicious" asks for is there, for the AUROC, which needs degrees: 1 or more is
    suspicious.
    """
    top, best = scan.panel[0], scan.patches[0]
    by_panel = judge_panel(top["rate"], top.get("reference_rate"), top["trigger"], top["label"], limits)
    by_patch = judge_patches(scan.patches, scan.labels, limits)
    verdict = conclude([by_panel, by_patch])
    panel_leads = by_panel.weight == SUSPICIOUS != by_patch.weight
    target = top["label"] if panel_leads else best["label"]
    if scan.reference is None:
        degrees = top["rate"] / limits.panel_alone, best["rate"] / limits.patch_alone
    else:
        gains = [entry["rate"] - entry["reference_rate"] for entry in (top, best)]
        degrees = gains[0] / limits.panel_excess, gains[1] / limits.patch_excess
    return {"verdict": verdict, "target": None if verdict == NOTHING else target, "strength": max(degrees)}


def gather(cells: list[Cell], out: Path) -> list[dict[str, Any]]:
    """What the finished cells say; unfinished ones are left out."""
    found = []
    for cell in cells:
        if not cell.is_measured:
            continue
        row: dict[str, Any] = {"name": cell.name, "kind": cell.kind, "attack": cell.attack, "rate": cell.rate}
        row |= {"target": cell.target, "seed": cell.seed}
        if cell.kind == "data":
            for who in ("clean", "suspect"):
                row[who] = json.loads((out / f"{cell.name}-{who}" / "result.json").read_text())
        else:
            for how in ("alone", "referred"):
                scan = ScanResult.load(out / f"{cell.name}-{how}")
                best = scan.best_patch
                row[how] = judged(scan) | {"best_patch": best["rate"], "seconds": scan.seconds, "device": scan.device}
            if cell.kind == "backdoored":
                row |= json.loads((out / f"{cell.name}-measured" / "result.json").read_text())
                row["took"] = row["asr"] - row["floor"] >= TOOK
        found.append(row)
    return found


def rate(hits: int, n: int) -> str:
    from hf_ta_cleaner.detection.scan.engine import wilson

    if not n:
        return "none"
    low, high = wilson(hits / n, n)
    return f"{hits} of {n}, {100 * hits / n:.0f}% [{100 * low:.0f}, {100 * high:.0f}]"


def machines(rows: list[dict[str, Any]]) -> str:
    """On what the models were made and scanned."""
    devices = Counter("GPU" if row["alone"]["device"] == "cuda" else "CPU" for row in rows if "alone" in row)
    return ", ".join(f"{n} models made and scanned on a {name}, in fp32" for name, n in sorted(devices.items()))


def markdown(rows: list[dict[str, Any]]) -> str:
    """The tables, for people."""
    clean = [row for row in rows if row["kind"] == "clean"]
    bad = [row for row in rows if row["kind"] == "backdoored" and row["took"]]
    weak = [row for row in rows if row["kind"] == "backdoored" and not row["took"]]
    data = [row for row in rows if row["kind"] == "data"]
    lines = [
        "# Is trouble found without knowing the trigger?",
        f"`python -m benchmarks.scan`. Sandbox models; 95% intervals; {machines(rows)}. Thresholds were set on other "
        "models before, see docs/scan.md.",
        "## Models",
    ]
    table = [
        "| scan | found | inconclusive, of the backdoored | false alarms | right target | AUROC |",
        "|---" * 6 + "|",
    ]
    for how, title in (("alone", "without a reference"), ("referred", "with the model it descends from")):
        hits = [row for row in bad if row[how]["verdict"] == SUSPICIOUS]
        unsure = [row for row in bad if row[how]["verdict"] == UNSURE]
        alarms = [row for row in clean if row[how]["verdict"] == SUSPICIOUS]
        right = [row for row in hits if row[how]["target"] == row["target"]]
        area = "needs both kinds"
        if bad and clean:
            scores = [[row[how]["strength"] for row in group] for group in (bad, clean)]
            area = "{:.3f} [{:.3f}, {:.3f}]".format(auroc(*scores), *auroc_interval(*scores))
        cells = [title, rate(len(hits), len(bad)), rate(len(unsure), len(bad)), rate(len(alarms), len(clean))]
        table.append("| " + " | ".join([*cells, rate(len(right), len(hits)), area]) + " |")
    lines.append("\n".join(table))
    table = ["| attack | rate | target | ASR | alone | with reference | screening AUROC | caught |", "|---" * 8 + "|"]
    for row in [*bad, *weak]:
        own, (low, high) = row["screening"], row["screening"]["interval95"]
        asr = f"{row['asr']:.1%}" + ("" if row["took"] else ", did not take: not counted")
        area = f"{own['auroc']:.3f} [{low:.3f}, {high:.3f}]"
        cells = [row["attack"], f"{row['rate']:.2%}", row["target"], asr, row["alone"]["verdict"]]
        table.append("| " + " | ".join([*cells, row["referred"]["verdict"], area, f"{own['caught']:.0%}"]) + " |")
    lines += ["\n".join(table), "## Data"]
    table = ["| attack | rate | model | suspicion: AUROC | precision | best single score | AUROC |", "|---" * 7 + "|"]
    for row in data:
        for who in ("clean", "suspect"):
            scores = row[who]["scores"]
            own, (low, high) = scores["suspicion"], scores["suspicion"]["interval95"]
            best = max((name for name in scores if name != "suspicion"), key=lambda n, s=scores: s[n]["auroc"])
            area = f"{own['auroc']:.3f} [{low:.3f}, {high:.3f}]"
            cells = [row["attack"], f"{row['rate']:.1%}", who, area, f"{own['precision']:.1%}", best]
            table.append("| " + " | ".join([*cells, f"{scores[best]['auroc']:.3f}"]) + " |")
    lines.append("\n".join(table))
    return "\n\n".join(lines) + "\n"
