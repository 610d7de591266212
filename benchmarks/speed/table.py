"""Measurements -> ratios and a markdown page. Every ratio is the better the higher it is."""

from __future__ import annotations

from statistics import median
from typing import Any


#: What is no way of the trainer's to take a step.
OTHERS = ("reference", "bare", "towers", "towers, compiled")


def ratios(sections: dict[str, Any]) -> dict[str, float]:
    """Name -> ratio of two figures of one run; what a machine's speed cancels out of."""
    found: dict[str, float] = {}
    for shape, content in sections.get("steps", {}).items():
        seconds = {(row["method"], row["way"]): median(row["seconds"]) for row in content["rows"]}
        for (method, way), own in seconds.items():
            reference, bare = seconds.get((method, "reference")), seconds.get((method, "bare"))
            if way not in OTHERS and reference:
                found[f"{shape}, {method}: {way} over reference style"] = reference / own
            if way == "fp32" and bare:
                found[f"{shape}, {method}: trainer over bare loop"] = bare / own
            if way == "fp32" and method == "ta-cleaner" and ("cleanclip", way) in seconds:
                found[f"{shape}: ta-cleaner over cleanclip"] = seconds["cleanclip", way] / own
            each = sections.get("parts", {}).get(shape, {}).get("each", {})
            if way == "fp32" and (alone := each.get(f"input of a pair, {method}")):
                found[f"{shape}, {method}: step over its input"] = own / content["batch"] / alone
    for name, points in sections.get("growth", {}).items():
        first, last = points[0], points[-1]
        if first is not last:
            per_first, per_last = first["seconds"] / first["n"], last["seconds"] / last["n"]
            found[f"{name}: time for each at {first['n']:,} over {last['n']:,}"] = per_first / per_last
            found[f"{name}: peak memory at {first['n']:,} over {last['n']:,}"] = first["peak_mb"] / last["peak_mb"]
    return found


def fallen(new: dict[str, float], committed: dict[str, float], tolerance: float) -> list[str]:
    """The ratios that are worse than the committed ones by more than the tolerance (a share), in words."""
    return [
        f"{name}: {new[name]:.2f}, committed {old:.2f}"
        for name, old in committed.items()
        if name in new and new[name] < (1 - tolerance) * old
    ]


def steps(shape: str, content: dict[str, Any], rate: dict[str, float]) -> str:
    """Pairs a second of every way, beside the reference style and the machine's own rate."""
    batch = content["batch"]
    seconds = {(row["method"], row["way"]): median(row["seconds"]) for row in content["rows"]}
    lines = [
        f"## A step, {shape}, batch {batch}\n",
        "| method | way | pairs/s | all rounds | x reference style | pictures/s through the tower | TFLOP/s | "
        "share of the matrix rate | peak MB |",
        "|---|---|---:|---|---:|---:|---:|---:|---:|",
    ]
    for row in content["rows"]:
        method, way = row["method"], row["way"]
        own = seconds[method, way]
        against = seconds.get((method, "reference"))
        rounds = ", ".join(f"{batch / s:.2f}" for s in row["seconds"])
        towers = ("", "", "")
        if row.get("flops"):
            done = row["flops"] / own
            share = f"{done / rate[row.get('precision', 'fp32')]:.0%}" if rate else ""
            towers = (f"{row['images'] / own:,.1f}", f"{done / 1e12:.2f}", share)
        peak = row.get("peak_gpu_mb", row["peak_mb"])
        lines.append(
            f"| {method} | {way} | {batch / own:,.2f} | {rounds} | {against / own if against else float('nan'):.2f} | "
            f"{' | '.join(towers)} | {peak:,.0f} |"
        )
    return "\n".join(lines)


def parts(shape: str, content: dict[str, Any]) -> str:
    lines = [
        f"## Parts alone, {shape}\n",
        f"Captions of {content['tokens']:.1f} tokens on average.\n",
        "| | ms | a second |",
        "|---|---:|---:|",
    ]
    lines += [f"| {name} | {1000 * s:.3f} | {1 / s:,.0f} |" for name, s in content["each"].items()]
    return "\n".join(lines)


def growth(name: str, points: list[dict[str, Any]]) -> str:
    decoded = any("decoded" in point for point in points)
    head = f"| {name} | seconds | ms for each | peak MB |" + (" decoded, times a picture |" if decoded else "")
    lines = [head, "|---:" * (5 if decoded else 4) + "|"]
    for point in points:
        memory = point.get("peak_gpu_mb", point["peak_mb"])
        line = (
            f"| {point['n']:,} | {point['seconds']:.2f} | {1000 * point['seconds'] / point['n']:.3f} | {memory:,.0f} |"
        )
        lines.append(line + (f" {point['decoded']:.2f} |" if decoded else ""))
    return "\n".join(lines)


def page(result: dict[str, Any]) -> str:
    """The whole page."""
    sections, rate = result["sections"], result.get("rate", {})
    blocks = [
        "# How fast is a cleaning step?",
        "Written by `python -m benchmarks.speed`; what is compared with what stands in "
        "benchmarks/speed/README.md. Ratios hold on one machine; a second of one is not a second of another.",
        "\n".join(f"- {name}: {value}" for name, value in result["machine"].items()),
    ]
    if rate:
        listed = ", ".join(
            f"{value / 1e12:.2f} TFLOP/s in {name}" for name, value in rate.items() if name in ("fp32", "bf16")
        )
        blocks.append(f"Products of large matrices: {listed}.")
    blocks += [steps(shape, content, rate) for shape, content in sections.get("steps", {}).items()]
    blocks += [parts(shape, content) for shape, content in sections.get("parts", {}).items()]
    if "growth" in sections:
        blocks += ["## What grows", *(growth(name, points) for name, points in sections["growth"].items() if points)]
    rows = [f"| {name} | {value:.2f} |" for name, value in result["ratios"].items()]
    blocks += ["## Ratios\n\n`--check` compares these; higher is better.\n", "\n".join(["| | |", "|---|---:|", *rows])]
    return "\n\n".join(blocks) + "\n"
