"""Cells -> matrix.json, matrix.md, the frontier's picture and the README's headline."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.defences.plan import ATTACKERS, CLEAN_PAIRS, COMPARED, LORA, METHODS, PAPER_ROW, ROWS, SIX, Cell
from benchmarks.harness.tables import mean, paired, percent, table


TITLES = {
    "t1": "BadCLIP and Blended",
    "t2": "The six attacks",
    "t3": "Other rows",
    "whole": "Triggers of whole pictures",
    "rebound": "Rebound: after {steps} further benign fine-tuning steps at the cleaning rate on fresh pairs",
    "budget": "Clean-data budget: the same number of steps on 500 to 20,000 pairs",
    "domain": "Cleaning data of a differently styled world",
    "adaptive": "Attackers who know the defence",
    "ablation": "What of ta-cleaner does it",
    "lora": "LoRA",
    "maps": "ta-cleaner-plus that also searches smooth changes of whole pictures",
}


def summary(cell: Cell, report: dict[str, Any]) -> dict[str, Any]:
    """The numbers of one cell from the report of its last step. Rates are fractions."""
    place = {"part": cell.part, "row": cell.row, "seed": cell.seed, "method": cell.method, "variant": cell.variant}
    section = report["before"] if cell.method == "none" else report["after"]
    ((_, entry),) = section["attacks"].items()
    numbers = {
        "n": entry["n"],
        "asr": entry["asr"]["top1"],
        "asr_interval95": entry["interval95"]["asr_top1"],
        "asr_top10": entry["asr"]["top10"],
        "floor": entry["floor"]["top1"],
        "ca": section["clean_accuracy"]["top1"],
        "asr_top3": entry["asr"]["top3"],
        "floor_top3": entry["floor"]["top3"],
        "floor_top10": entry["floor"]["top10"],
    }
    if "target_class" in entry:
        numbers["target_recall"] = entry["target_class"]["recall"]
    if "reference_asr" in entry:
        numbers["never_poisoned_top3"] = entry["reference_asr"]["top3"]
        numbers["never_poisoned_top10"] = entry["reference_asr"]["top10"]
        numbers |= {"never_poisoned_asr": entry["reference_asr"]["top1"], "excess": entry["excess"]["top1"]}
    if cell.method != "none":
        ((_, before),) = report["before"]["attacks"].items()
        numbers |= {
            "strength": cell.strength,
            "asr_before": before["asr"]["top1"],
            "ca_before": report["before"]["clean_accuracy"]["top1"],
            "recall": (report.get("retrieval") or {}).get("after"),
            "recall_before": (report.get("retrieval") or {}).get("before"),
            "pairs_seen": report["cost"]["pairs_seen"],
            "seconds": report["cost"]["seconds"],
            "device": report["cost"]["device"],
        }
    if "ca_loss" in report and cell.method != "none":
        numbers |= {"ca_loss": report["ca_loss"]["value"], "ca_loss_interval95": report["ca_loss"]["interval95"]}
    if cell.part == "rebound":
        numbers["rebound"] = numbers["asr"] - numbers["asr_before"]
    return place | numbers


def part_table(cells: Sequence[dict]) -> str:
    """Markdown: one line per row, variant and method; mean over the seeds, every seed's ASR beside it."""
    rebounds = any("rebound" in cell for cell in cells)
    head = ["attack", "variant", "method", "seeds", "strength", "ASR@1", "each seed [95% interval]", "ASR@10", "floor"]
    head += ["never-poisoned ASR@1", "excess", *(["rebound"] if rebounds else []), "CA", "CA loss [95% interval]"]
    head += ["pairs seen", "seconds"]
    if not any(cell["variant"] for cell in cells):
        head.remove("variant")
    lines = []
    for row, variant, method in _places(cells):
        here = sorted(
            (c for c in cells if (c["row"], c["variant"], c["method"]) == (row, variant, method)),
            key=lambda cell: cell["seed"],
        )
        each = "; ".join("{} [{}, {}]".format(*map(percent, (c["asr"], *c["asr_interval95"]))) for c in here)
        losses = "; ".join(
            "{} [{}, {}]".format(*map(percent, (c["ca_loss"], *c["ca_loss_interval95"])))
            for c in here
            if "ca_loss" in c
        )
        timed = [cell for cell in here if cell.get("device", "cpu") == "cpu"] or here
        seconds, pairs, strength = mean(timed, "seconds"), mean(here, "pairs_seen"), mean(here, "strength")
        values = {
            "attack": row,
            "variant": variant,
            "method": method,
            "seeds": str(len(here)),
            "strength": "" if strength is None else f"{strength:g}",
            "ASR@1": percent(mean(here, "asr")),
            "each seed [95% interval]": each,
            "ASR@10": percent(mean(here, "asr_top10")),
            "floor": percent(mean(here, "floor")),
            "never-poisoned ASR@1": percent(mean(here, "never_poisoned_asr")),
            "excess": percent(mean(here, "excess")),
            "rebound": percent(mean(here, "rebound")),
            "CA": percent(mean(here, "ca")),
            "CA loss [95% interval]": losses,
            "pairs seen": "" if pairs is None else f"{pairs:,.0f}",
            "seconds": ""
            if seconds is None
            else f"{seconds:.0f}{'' if timed[0].get('device', 'cpu') == 'cpu' else ' *'}",
        }
        lines.append([values[name] for name in head])
    left = {"attack", "variant", "method", "each seed [95% interval]", "CA loss [95% interval]"}
    return table(head, lines, left=left)


def _places(cells: Sequence[dict]) -> list[tuple[str, str, str]]:
    """(row, variant, method) in the order of the matrix; variants in the order they were planned."""
    rows, methods = list(ROWS), ["none", *METHODS, *LORA]
    variants = list(dict.fromkeys(["", *ATTACKERS, *(cell["variant"] for cell in cells)]))
    found = {(cell["row"], cell["variant"], cell["method"]) for cell in cells}
    return sorted(found, key=lambda p: (rows.index(p[0]), variants.index(p[1]), methods.index(p[2])))


def goals(cells: Sequence[dict]) -> list[dict[str, Any]]:
    """Per method over the six attacks: ASR by attack, mean and worst excess, mean CA loss. A row counts once, as its
    mean over seeds, whichever part it was run in; equal cells of two parts are one."""
    lines = []
    for method in ("none", *METHODS):
        rows = {}
        for row in SIX:
            here = {
                c["seed"]: c for c in cells if c["part"] in ("t1", "t2") and (c["row"], c["method"]) == (row, method)
            }
            if here:
                rows[row] = list(here.values())
        if not rows:
            continue
        excess = {row: mean(here, "excess") for row, here in rows.items()}
        worst = max(excess, key=lambda row: excess[row])
        losses = [loss for here in rows.values() if (loss := mean(here, "ca_loss")) is not None]
        lines.append(
            {
                "method": method,
                "asr": {row: mean(here, "asr") for row, here in rows.items()},
                "never_poisoned": {row: mean(here, "never_poisoned_asr") for row, here in rows.items()},
                "strength": mean([cell for here in rows.values() for cell in here], "strength"),
                "excess": statistics.fmean(excess.values()),
                "worst_excess": excess[worst],
                "worst": worst,
                "ca": statistics.fmean(mean(here, "ca") for here in rows.values()),
                "ca_loss": statistics.fmean(losses) if losses else None,
            }
        )
    return lines


def headline(matrix: dict[str, Any]) -> str:
    """The README's table: per method the ASR@1 of every attack that was run, and what the goals are set on."""
    lines = goals(matrix["cells"])
    if not lines:
        raise SystemExit("no cell of t1 or t2 is there yet; run --part t1 first")
    attacks = list(lines[0]["asr"])
    table = [
        f"| method | strength | {' | '.join(f'ASR@1 {row}' for row in attacks)} | mean excess | worst excess | CA "
        "| CA loss |",
        f"|---|{'---:|' * (len(attacks) + 2)}---|---:|---:|",
    ]
    for line in lines:
        strength = "" if line["strength"] is None else f"{line['strength']:g}"
        rates = " | ".join(percent(line["asr"].get(row)) for row in attacks)
        worst = f"{percent(line['worst_excess'])} ({line['worst']})"
        table.append(
            f"| {line['method']} | {strength} | {rates} | {percent(line['excess'])} | {worst} | {percent(line['ca'])} "
            f"| {percent(line['ca_loss'])} |"
        )
    normal = " | ".join(percent(lines[0]["never_poisoned"][row]) for row in attacks)
    return "\n".join([*table, f"| (never poisoned) | | {normal} | | | | |"])


def comparison(cells: Sequence[dict], row: str, a: str, b: str) -> str | None:
    """A sentence on the difference of ASR@1 of two methods on one attack, paired over seeds."""
    by_seed = [
        {c["seed"]: c["asr"] for c in cells if c["part"] in ("t1", "t2") and (c["row"], c["method"]) == (row, m)}
        for m in (a, b)
    ]
    seeds = sorted(by_seed[0].keys() & by_seed[1].keys())
    if not seeds:
        return None
    middle, interval = paired(*([of[seed] for seed in seeds] for of in by_seed))
    text = f"{row}: ASR@1 of {a} minus {b} {percent(middle)} points over {len(seeds)} seeds"
    return text + (f", 95% interval [{percent(interval[0])}, {percent(interval[1])}]" if interval else "")


def matched(cells: Sequence[dict], row: str, a: str, b: str, within: float = 0.01) -> list[str]:
    """Two methods along the frontier at like clean accuracy: sentences.

    Every strength of `a` beside the one of `b` with the nearest mean accuracy over the seeds that both have, where it
    is at most `within` away; ASR@1 paired over these seeds.
    """

    def by_strength(method: str) -> dict[float, dict[int, dict]]:
        found: dict[float, dict[int, dict]] = {}
        for cell in cells:
            if (cell["part"], cell["row"], cell["method"]) == ("frontier", row, method):
                found.setdefault(cell["strength"], {})[cell["seed"]] = cell
        return found

    others, sentences = by_strength(b), []
    for strength, mine in sorted(by_strength(a).items()):
        pairs = {}
        for other, theirs in others.items():
            if seeds := sorted(mine.keys() & theirs.keys()):
                pairs[other] = [[of[seed] for seed in seeds] for of in (mine, theirs)]
        gaps = {other: abs(mean(x, "ca") - mean(y, "ca")) for other, (x, y) in pairs.items()}
        if not gaps or min(gaps.values()) > within:
            continue
        other = min(gaps, key=lambda s: (gaps[s], s))
        x, y = pairs[other]
        middle, interval = paired([c["asr"] for c in x], [c["asr"] for c in y])
        text = f"{a} at {strength:g} (CA {percent(mean(x, 'ca'))}, ASR@1 {percent(mean(x, 'asr'))}) minus {b} at "
        text += f"{other:g} (CA {percent(mean(y, 'ca'))}, ASR@1 {percent(mean(y, 'asr'))}): {percent(middle)} points"
        text += f" over {len(x)} seeds" if len(x) > 1 else ", one seed"
        text += f", 95% interval [{percent(interval[0])}, {percent(interval[1])}]" if interval else ""
        sentences.append(text)
    return sentences


def to_markdown(matrix: dict[str, Any]) -> str:
    """matrix.md."""
    cells, rule = matrix["cells"], matrix["rule"]
    parts = [
        "# Defences on the sandbox",
        f"`{matrix['command']}`. Target banana, {CLEAN_PAIRS:,} clean pairs unless said otherwise, the same for every "
        "method. Per cent; CA loss against the better of the suspect and the never-poisoned model after ft on the "
        "same pairs; excess over the never-poisoned model under the same trigger. Seconds are of one CPU core, or, "
        "with *, of a GPU that 16 runs shared, where none of the seeds was run on a CPU (fp32 on both).",
        f"## The strength of each method\n\n{rule['rule']}"
        if not rule["tried"]
        else f"## The strength of each method\n\n{rule['rule']}\n\nR = {percent(rule['reference'])}%. "
        "Accuracy by strength, and retrieval recall at the chosen one, in per cent:\n\n"
        + "\n".join(
            f"- {method}: **{strength:g}** ("
            + ", ".join(f"{s}: {percent(value)}" for s, value in rule["tried"][method].items())
            + f"; recall@1 {percent(rule['recall'][method][f'{strength:g}'])})"
            for method, strength in rule["strengths"].items()
        ),
    ]
    if goals(cells):
        sentences = [
            comparison(cells, row, a, b)
            for row in ("badclip", "blended")
            for a, b in (("cleanclip", "ta-cleaner"), ("par", "ta-cleaner-plus"))
        ]
        parts.append("## Means over the attacks\n\n" + headline(matrix))
        parts.append("\n".join(f"- {sentence}" for sentence in sentences if sentence))
    for part, title in TITLES.items():
        here = [cell for cell in cells if cell["part"] == part]
        if here:
            parts.append(f"## {title.format(steps=300)}\n\n{part_table(here)}")
    if any(cell["part"] == "frontier" for cell in cells):
        parts.append("## Clean accuracy against attack success\n\n![frontier](frontier.png)\n")
        if found := matched(cells, PAPER_ROW, *COMPARED):
            title = f"At like accuracy (within a point of the mean), {PAPER_ROW}, where both were measured:"
            parts.append("\n".join([title, "", *(f"- {sentence}" for sentence in found)]))
        parts.append(part_table([{**c, "variant": f"s{c['strength']:g}"} for c in cells if c["part"] == "frontier"]))
    about = ", ".join(f"{key} {value}" for key, value in matrix["machine"].items())
    return "\n\n".join(part for part in parts if part) + f"\n\nMachine: {about}.\n"


def _labels(strengths: Sequence[float], points: Sequence[Sequence[float]]) -> dict[tuple[float, ...], str]:
    """What is written at which point; neighbours too close for a label each share one."""
    labels: dict[tuple[float, ...], str] = {}
    for strength, point in zip(strengths, points, strict=True):
        near = next((p for p in labels if abs(p[0] - point[0]) < 0.3 and abs(p[1] - point[1]) < 3), None)
        labels[near or tuple(point)] = f"{labels[near]}, {strength:g}" if near else f"{strength:g}"
    return labels


def draw_frontier(cells: Iterable[dict], path: Path) -> Path:
    """CA against ASR, a line per method along its ladder of strengths, a panel per attack."""
    from matplotlib.figure import Figure

    cells = [cell for cell in cells if cell["part"] == "frontier"]
    rows = [row for row in ROWS if any(cell["row"] == row for cell in cells)]
    figure = Figure(figsize=(5.5 * len(rows), 4.5), layout="constrained")
    for axes, row in zip(figure.subplots(1, len(rows), squeeze=False)[0], rows, strict=True):
        for method in METHODS:
            here = [cell for cell in cells if (cell["row"], cell["method"]) == (row, method)]
            strengths = sorted({cell["strength"] for cell in here})
            points = [
                [100 * mean([c for c in here if c["strength"] == s], key) for key in ("ca", "asr")] for s in strengths
            ]
            left = method in ("par", "ta-cleaner")  # of the line, so that labels of neighbours do not meet
            if points:
                counts = [len([cell for cell in here if cell["strength"] == s]) for s in strengths]
                seeds = "-".join(str(n) for n in sorted({min(counts), max(counts)}))
                seeds += " seed" if max(counts) == 1 else " seeds"
                (line,) = axes.plot(*zip(*points, strict=True), marker="o", label=f"{method}, {seeds}")
                for place, label in _labels(strengths, points).items():
                    where = {"xytext": (-4 if left else 4, 3), "textcoords": "offset points"}
                    where["ha"] = "right" if left else "left"
                    axes.annotate(label, place, fontsize=7, color=line.get_color(), **where)
        axes.set(title=row, xlabel="clean accuracy, %", ylabel="ASR@1, %", ylim=(-3, 107))
        axes.legend(fontsize=8)
    figure.savefig(path, dpi=120)
    return path
