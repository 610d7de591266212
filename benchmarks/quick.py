"""Three attacks x {ft, cleanclip, ta-cleaner} on the sandbox: backdoors rebuilt, cleaned, audited.

    make bench-quick                         # run what is missing, then write the table
    python -m benchmarks.quick --table       # only write the table from the cells that are there

One folder a step under outputs/bench, whose backdoored models `benchmarks.attacks.run` shares; a finished step is not
run again. The results are gathered in
benchmarks/quick.json, the table in benchmarks/quick.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm.auto import tqdm

from benchmarks.harness import SCRIPTS
from benchmarks.harness.steps import Step, chain
from benchmarks.harness.suspects import make_suspect
from benchmarks.harness.worlds import SANDBOX as WORLD
from hf_ta_cleaner.commands.parser import fast_precision


HERE = Path(__file__).parent
METHODS = ("ft", "cleanclip", "ta-cleaner")

#: Row of the table -> (preset, seeds).
ROWS = {
    "blended": ("blended", (0, 1, 2)),
    "badnet, 14 px, fixed place": ("badnet", (0,)),
    "badclip, 14 px": ("badclip", (0,)),
}

#: What stands between these in docs/results.md is written by this command.
MARKS = ("<!-- bench-quick -->", "<!-- /bench-quick -->")
CONFIG, CLEAN_PAIRS = SCRIPTS / "configs" / "sandbox_clean.yaml", "10000"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", action="store_true", help="only write the table")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="steps at a time (default: one a core)")
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/bench"), help="folder of the cells")
    args = parser.parse_args()
    if not args.table:
        run(args.output_dir, args.jobs)
    write(args.output_dir)


def run(out: Path, jobs: int) -> None:
    """Runs every step whose result is missing, `jobs` chains at a time.

    A model this small uses two cores better as two processes of one thread than as one of two.
    """
    cells = [(attack, seed) for attack, seeds in ROWS.values() for seed in seeds]
    healthy = [never_poisoned(out, seed) for seed in sorted({seed for _, seed in cells})]
    chains = [steps_of(out, attack, seed) for attack, seed in cells]
    steps = len(healthy) + sum(map(len, chains))
    threads = max(1, (os.cpu_count() or 1) // jobs)
    print(f"{steps} steps, a minute or two each on one core; {jobs} at a time")
    with tqdm(total=steps, desc="bench-quick") as bar, ThreadPoolExecutor(jobs) as pool:
        for stage in ([[step] for step in healthy], chains):
            for future in [pool.submit(run_chain, chain, threads, bar) for chain in stage]:
                future.result()


def run_chain(steps: list[Step], threads: int, bar: tqdm) -> None:
    for step in steps:
        if (seconds := step.run(threads)) is not None:
            tqdm.write(f"{seconds:5.0f} s  {step.folder}")
        bar.update()


def clean(model: str, method: str, seed: int, folder: Path, *flags: str) -> tuple[tuple[str, ...], str]:
    """The command of one cleaning, and the file it writes last."""
    command = (str(SCRIPTS / "clean.py"), "--model", model, "--method", method, "--dataset", "sandbox",
               "--max_samples", CLEAN_PAIRS, "--config", str(CONFIG), "--seed", str(seed), *fast_precision(), *flags,
               "--output_dir", str(folder))  # fmt: skip
    return command, "report.json"


def never_poisoned(out: Path, seed: int) -> Step:
    """The never-poisoned model after plain fine-tuning; it serves all rows of its seed."""
    return Step(*clean("sandbox", "ft", seed, out / f"never-poisoned-ft-{seed}"), mark=(CONFIG.read_text(),))


def steps_of(out: Path, attack: str, seed: int) -> list[Step]:
    """The steps of one row and seed: the backdoored model, and each method's cleaning of it."""
    suspect = make_suspect(out, attack, seed)
    model, made = str(suspect[-1].folder), (*suspect[-1].mark, *suspect[-1].command, CONFIG.read_text())
    proof = ("--eval_dataset", "sandbox", "--reference", "sandbox",
             "--ca_baseline", str(out / f"never-poisoned-ft-{seed}"))  # fmt: skip
    cleaned = [clean(model, method, seed, out / f"{attack}-{seed}-{method}", *proof) for method in METHODS]
    return [*suspect, *(step for own in cleaned for step in chain(made, own))]


def write(out: Path) -> None:
    """Gathers the reports that are there into quick.json and quick.md."""
    results = []
    for row, (attack, seeds) in ROWS.items():
        for seed in seeds:
            for method in METHODS:
                path = out / f"{attack}-{seed}-{method}" / "report.json"
                if path.exists():
                    results.append({"row": row, "seed": seed, **summary(json.loads(path.read_text()))})
    if not results:
        sys.exit(f"no finished cell in {out}; run without --table first")
    versions = json.loads(next(out.glob("*-ta-cleaner/report.json")).read_text())["versions"]
    machine = {"python": platform.python_version(), "cores": os.cpu_count(), "cpu": cpu_name(), **versions}
    (HERE / "quick.json").write_text(json.dumps({"machine": machine, "cells": results}, indent=1) + "\n")
    (HERE / "quick.md").write_text(table(results, machine))
    readme = HERE.parent / "docs" / "results.md"
    readme.write_text(with_headline(readme.read_text(encoding="utf-8"), results), encoding="utf-8")
    print(table(results, machine))


def with_headline(readme: str, results: list[dict]) -> str:
    """The page with this benchmark's short table between its two marks."""
    start, end = MARKS
    before, _, rest = readme.partition(start)
    _, _, after = rest.partition(end)
    return f"{before}{start}\n{headline(results)}{end}{after}"


def headline(results: list[dict]) -> str:
    """Markdown: one line per attack, ASR@1 before and after each method, and what the last cost; mean over seeds."""
    lines = [
        "| attack | seeds | ASR@1 backdoored | " + " | ".join(f"after {method}" for method in METHODS)
        + f" | never-poisoned model | CA loss of {METHODS[-1]} |",
        "|---|" + "---:|" * (len(METHODS) + 4),
    ]  # fmt: skip
    for row in ROWS:
        cells = {method: [c for c in results if c["row"] == row and c["method"] == method] for method in METHODS}
        if not all(cells.values()):
            continue

        def mean(method: str, key: str, cells: dict[str, list[dict]] = cells) -> str:
            return f"{100 * statistics.fmean(cell[key] for cell in cells[method]):.1f}"

        after = " | ".join(mean(method, "asr") for method in METHODS)
        last = METHODS[-1]
        lines.append(
            f"| {row} | {len(cells[last])} | {mean(last, 'asr_before')} | {after} "
            f"| {mean(last, 'never_poisoned_asr')} | {mean(last, 'ca_loss')} |"
        )
    return "\n".join(lines) + "\n"


def summary(report: dict) -> dict:
    """The numbers of one cell."""
    ((_, before),) = report["before"]["attacks"].items()
    ((_, after),) = report["after"]["attacks"].items()
    return {
        "method": report["method"],
        "n": after["n"],
        "asr_before": before["asr"]["top1"],
        "asr": after["asr"]["top1"],
        "asr_interval95": after["interval95"]["asr_top1"],
        "asr_top10": after["asr"]["top10"],
        "floor": after["floor"]["top1"],
        "never_poisoned_asr": after["reference_asr"]["top1"],
        "excess": after["excess"]["top1"],
        "ca_before": report["before"]["clean_accuracy"]["top1"],
        "ca": report["after"]["clean_accuracy"]["top1"],
        "ca_loss": report["ca_loss"]["value"],
        "ca_loss_interval95": report["ca_loss"]["interval95"],
        "seconds": report["cost"]["seconds"],
        "pairs_seen": report["cost"]["pairs_seen"],
    }


def table(results: list[dict], machine: dict) -> str:
    """Markdown: one line per attack and method, mean over the seeds, every seed's ASR beside it."""
    lines = [
        "| attack | seeds | method | ASR@1 before | ASR@1 after | each seed [95% interval] | floor | never-poisoned "
        "ASR@1 | CA before | CA after | CA loss [95% interval] | seconds |",
        "|---|---:|---|---:|---:|---|---:|---:|---:|---:|---|---:|",
    ]
    for row in ROWS:
        for method in METHODS:
            cells = [r for r in results if r["row"] == row and r["method"] == method]
            if not cells:
                continue

            def mean(key: str, cells: list[dict] = cells) -> str:
                return f"{100 * statistics.fmean(cell[key] for cell in cells):.1f}"

            each = "; ".join(
                "{:.1f} [{:.1f}, {:.1f}]".format(*(100 * v for v in (c["asr"], *c["asr_interval95"]))) for c in cells
            )
            lost = "; ".join(
                "{:.1f} [{:.1f}, {:.1f}]".format(*(100 * v for v in (c["ca_loss"], *c["ca_loss_interval95"])))
                for c in cells
            )
            seconds = f"{statistics.fmean(cell['seconds'] for cell in cells):.0f}"
            lines.append(
                f"| {row} | {len(cells)} | {method} | {mean('asr_before')} | {mean('asr')} | {each} "
                f"| {mean('floor')} | {mean('never_poisoned_asr')} | {mean('ca_before')} | {mean('ca')} "
                f"| {lost} | {seconds} |"
            )
    n = results[0]["n"]
    about = ", ".join(f"{key} {value}" for key, value in machine.items())
    return (
        "# Three attacks, three methods\n\n"
        f"`make bench-quick`. Sandbox CLIP, target {WORLD.target}, poisoned as hf_ta_cleaner/presets.py says, cleaned "
        f"with {CLEAN_PAIRS} clean pairs at one learning rate for all methods (scripts/configs/sandbox_clean.yaml). "
        f"Per cent; n = {n:,} triggered pictures for every ASR. CA loss: against the better of the suspect and the "
        "never-poisoned model after ft on the same pairs.\n\n" + "\n".join(lines) + f"\n\nMachine: {about}.\n"
    )


def cpu_name() -> str:
    """The processor's name, where the system tells it."""
    info = Path("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    return names[0] if names else platform.processor()


if __name__ == "__main__":
    main()
