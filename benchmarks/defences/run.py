"""Runs steps and gathers cells. A finished step is never run again; a step knows the command that made it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path

from benchmarks.defences import rule
from benchmarks.defences.plan import HELD_OUT, ROOT, Cell, Planner, Step
from benchmarks.defences.table import summary
from hf_ta_cleaner.commands.parser import begin_step


SECONDS = ".seconds"


class Runner:
    """Runs commands in `jobs` processes of one share of the cores each.

    A model this small uses two cores better as two processes of one thread than as one of two.
    """

    def __init__(self, jobs: int) -> None:
        self.jobs = jobs
        self._running = threading.Lock()

    def run(self, steps: Sequence[Step]) -> None:
        """Runs a chain of steps, one after the other, those that are not done."""
        for step in steps:
            if not begin_step(step.folder, identity(step), step.done):
                continue
            log = step.folder.with_name(step.folder.name + ".log")
            script, started = ROOT / "scripts" / step.command[0], time.monotonic()
            if step.command[0] == "prepare.py":
                script = Path(__file__).with_name("prepare.py")
            threads = str(max(1, (os.cpu_count() or 1) // self.jobs))
            path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
            with open(log, "w") as output:
                done = subprocess.run(
                    [sys.executable, str(script), *step.command[1:]],
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env={
                        **os.environ,
                        "PYTHONPATH": path,
                        "OMP_NUM_THREADS": threads,
                        "TOKENIZERS_PARALLELISM": "false",
                    },
                )
            if done.returncode:
                raise RuntimeError(f"{' '.join(step.command)} failed; its output is in {log}")
            seconds = time.monotonic() - started
            (step.folder / SECONDS).write_text(f"{seconds:.0f}\n")
            with self._running:
                print(f"{seconds:6.0f} s  {step.folder}", flush=True)

    def run_all(self, chains: Iterable[Sequence[Step]]) -> None:
        """Runs every step of the chains once, as soon as the one before it is done, the first chain's first.

        What waits for a step that failed is left out; all else is run, and all failures are told at the end.
        """
        before: dict[Step, Step | None] = {}
        for chain in chains:
            for earlier, step in zip((None, *chain), chain, strict=False):
                before.setdefault(step, earlier)
        waiting, problems = list(before), []
        done: set[Step | None] = {None}
        running: dict[Future[None], Step] = {}
        with ThreadPoolExecutor(self.jobs) as pool:
            while waiting or running:
                ready = [step for step in waiting if before[step] in done][: self.jobs - len(running)]
                for step in ready:
                    waiting.remove(step)
                    running[pool.submit(self.run, [step])] = step
                if not running:
                    break
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    step = running.pop(future)
                    try:
                        future.result()
                        done.add(step)
                    except (RuntimeError, ValueError) as error:
                        problems.append(str(error))
        if problems:
            raise SystemExit("\n".join(problems))


def identity(step: Step) -> list[str]:
    """What a step is known by; the contents of its configuration files belong to it."""
    command = step.command
    configurations = [Path(command[i + 1]).read_text() for i, flag in enumerate(command) if flag == "--config"]
    return [*step.mark, *command, *configurations]


def is_done(step: Step) -> bool:
    mark = step.folder / ".step"
    text = "\n".join(identity(step)) + "\n"
    return (step.folder / step.done).is_file() and mark.is_file() and mark.read_text(encoding="utf-8") == text


def minutes(steps: Iterable[Step], known: Iterable[Step], jobs: int) -> float:
    """Expected minutes of the steps that are still to be run, by what the finished ones of `known` have taken."""
    measured = [(float((s.folder / SECONDS).read_text()), s.seconds) for s in known if (s.folder / SECONDS).is_file()]
    factor = sum(took for took, _ in measured) / sum(guess for _, guess in measured) if measured else 1.0
    return factor * sum(step.seconds for step in steps if not is_done(step)) / 60 / jobs


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


def rule_step(planner: Planner, method: str, strength: float) -> Step:
    folder = planner.out / "rule" / f"{method.replace(' ', '_')}-s{strength:g}"
    flags = ("--eval_dataset", "sandbox", "--eval_split", "train", "--max_eval_samples", str(HELD_OUT))
    return planner.clean("sandbox", method, 0, folder, strength=strength, flags=flags, audits=1)


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
        if not all(is_done(step) for step in cell.steps):
            continue
        last = cell.steps[-1]
        content = summary(cell, json.loads((last.folder / "report.json").read_text()))
        (out / "cells" / f"{cell.name}.json").write_text(json.dumps(content, indent=1) + "\n")
