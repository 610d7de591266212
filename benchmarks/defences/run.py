"""Settles the strengths by the rule, runs the cells of a part, and gathers their numbers."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.defences import rule
from benchmarks.defences.plan import Cell, Planner
from benchmarks.defences.table import summary
from benchmarks.harness.steps import Runner, Step


def settle_strengths(planner: Planner, runner: Runner, methods: Iterable[str]) -> rule.Choice:
    """The rule's first stage: cleans the never-poisoned model and reads held-out accuracy."""
    recall: dict[str, dict[float, float]] = defaultdict(dict)

    def measure(method: str, strength: float) -> tuple[float, float]:
        step = rule_step(planner, method, strength)
        runner.run([step])
        report = json.loads((step.folder / step.done).read_text())
        recall[method][strength] = report["retrieval"]["after"]["recall@1"]
        return tuple(report[when]["clean_accuracy"]["top1"] for when in ("before", "after"))

    choice = rule.choose(measure, methods, runner.jobs)
    choice.recall = dict(recall)
    (planner.out / "rule.json").write_text(json.dumps(choice.to_dict(), indent=1) + "\n")
    return choice


def fix_strengths(planner: Planner, methods: Iterable[str], strength: float) -> rule.Choice:
    """All methods at one strength, without the rule; the file says so."""
    choice = rule.Choice(0.0, strengths=dict.fromkeys(methods, strength))
    content = {**choice.to_dict(), "reference": None}
    content["rule"] = f"All methods at strength {strength:g}. It was not settled by the rule."
    (planner.out / "rule.json").write_text(json.dumps(content, indent=1) + "\n")
    return choice


def rule_step(planner: Planner, method: str, strength: float) -> Step:
    folder = planner.out / "rule" / f"{method.replace(' ', '_')}-s{strength:g}"
    world = planner.world
    return planner.clean(world.model, method, 0, folder, strength=strength, flags=world.development, audits=1)


def run_part(cells: Sequence[Cell], runner: Runner, out: Path) -> None:
    """Common steps first, then those of the cells, each once; a cell is written when its report is there."""
    common = list(dict.fromkeys(step for cell in cells for step in cell.common))
    runner.run_all([step] for step in common)
    try:
        runner.run_all([step for step in cell.steps if step not in common] for cell in cells)
    finally:
        write_cells(cells, out)


def write_cells(cells: Iterable[Cell], out: Path) -> None:
    """One JSON for each cell whose report is there."""
    (out / "cells").mkdir(parents=True, exist_ok=True)
    for cell in cells:
        if not all(step.is_done for step in cell.steps):
            continue
        last = cell.steps[-1]
        content = summary(cell, json.loads((last.folder / "report.json").read_text()))
        (out / "cells" / f"{cell.name}.json").write_text(json.dumps(content, indent=1) + "\n")
