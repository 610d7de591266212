"""Three attacks x {ft, cleanclip, ta-cleaner} on the sandbox: backdoors rebuilt, cleaned, audited. Under an hour.

    make bench-quick                         # run what is missing, then write the table
    python benchmarks/quick.py --table       # only write the table from the cells that are there

One folder a cell under outputs/bench-quick; a finished cell is not run again. The results are gathered in
benchmarks/quick.json, the table in benchmarks/quick.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm.auto import tqdm

from hf_ta_cleaner.cli import begin_step, fast_precision


HERE = Path(__file__).parent
SCRIPTS = HERE.parent / "scripts"
METHODS = ("ft", "cleanclip", "ta-cleaner")

#: Row of the table -> (trigger, how it is made, seeds).
ROWS = {
    "blended": ("blended", (0, 1, 2)),
    "badnet, 14 px, fixed place": ("badnet:patch_px=14,place=middle", (0,)),
    "badnet-random, 14 px, anywhere": ("badnet:patch_px=14", (0,)),
    "badclip, 14 px": ("badclip", (0,)),
}

#: What stands between these in the README is written by this command.
MARKS = ("<!-- bench-quick -->", "<!-- /bench-quick -->")
RATE, POISON_PAIRS, CLEAN_PAIRS = "0.05", "20000", "5000"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", action="store_true", help="only write the table")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="steps at a time (default: one a core)")
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/bench-quick"), help="folder of the cells")
    args = parser.parse_args()
    if not args.table:
        run(args.output_dir, args.jobs)
    write(args.output_dir)


def run(out: Path, jobs: int) -> None:
    """Runs every command whose result is missing, `jobs` chains of commands at a time.

    A model this small uses two cores better as two processes of one thread than as one of two.
    """
    chains = [cells(out, row, spec, seed) for row, (spec, seeds) in ROWS.items() for seed in seeds]
    healthy = list({chain[0]: None for chain in chains})  # a never-poisoned model serves all rows of its seed
    steps = len({command for chain in chains for command in chain})
    print(f"{steps} steps, a minute or two each on one core; {jobs} at a time")
    with tqdm(total=steps, desc="bench-quick") as bar, ThreadPoolExecutor(jobs) as pool:
        for stage in ([[command] for command in healthy], [chain[1:] for chain in chains]):
            for future in [pool.submit(run_chain, chain, jobs, bar) for chain in stage]:
                future.result()


def run_chain(commands: list[tuple[str, ...]], jobs: int, bar: tqdm) -> None:
    """Runs the commands one after the other, each with its share of the cores and its output in a log."""
    threads = str(max(1, (os.cpu_count() or 1) // jobs))
    for command in commands:
        folder = Path(command[-1])
        if not begin_step(folder, [*command, *configs(command)], done_by(command)):
            bar.update()
            continue
        log = folder.with_name(folder.name + ".log")
        started = time.monotonic()
        with open(log, "w") as output:
            done = subprocess.run(
                [sys.executable, str(SCRIPTS / command[0]), *command[1:]],
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "OMP_NUM_THREADS": threads, "TOKENIZERS_PARALLELISM": "false"},
            )
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} failed; its output is in {log}")
        tqdm.write(f"{time.monotonic() - started:5.0f} s  {folder}")
        bar.update()


def configs(command: tuple[str, ...]) -> list[str]:
    """The contents of the command's configuration files: a change of them is a new result."""
    return [Path(command[i + 1]).read_text() for i, flag in enumerate(command) if flag == "--config"]


def done_by(command: tuple[str, ...]) -> str:
    """The file that says a step is finished."""
    return {"poison.py": "poison.json", "craft.py": "craft.json"}.get(command[0], "report.json")


def name_of(row: str, seed: int) -> str:
    return f"{row.split(',')[0]}-{seed}"


def cells(out: Path, row: str, spec: str, seed: int) -> list[tuple[str, ...]]:
    """The commands of one row and seed, the never-poisoned model first; each ends with its output folder."""
    name, s = name_of(row, seed), str(seed)
    fast = tuple(fast_precision())
    backdoor = ("--config", str(SCRIPTS / "configs/sandbox_backdoor.yaml"), *fast)
    clean = ("--dataset", "sandbox", "--config", str(SCRIPTS / "configs/sandbox_clean.yaml"), "--seed", s,
             "--max_samples", CLEAN_PAIRS, *fast)  # fmt: skip
    poisoned, suspect, healthy = out / f"{name}-poisoned", out / f"{name}-backdoored", out / f"never-poisoned-ft-{s}"
    steps = [("clean.py", "--model", "sandbox", "--method", "ft", *clean, "--output_dir", str(healthy))]
    if spec == "badclip":
        spec = str(out / f"{name}-trigger")
        steps.append(("craft.py", "--model", "sandbox", "--dataset", "sandbox", "--target", "banana", "--size_px",
                      "14", "--seed", s, "--output_dir", spec))  # fmt: skip
    elif seed:
        spec += f"{',' if ':' in spec else ':'}seed={seed}"
    steps += [
        ("poison.py", "--dataset", "sandbox", "--max_samples", POISON_PAIRS, "--attack", spec, "--target", "banana",
         "--rate", RATE, "--model", "sandbox", "--seed", s, "--output_dir", str(poisoned)),
        ("backdoor.py", "--model", "sandbox", "--dataset", str(poisoned), "--eval_dataset", "sandbox", *backdoor,
         "--seed", s, "--output_dir", str(suspect)),
    ]  # fmt: skip
    steps += [
        ("clean.py", "--model", str(suspect), "--method", method, *clean, "--eval_dataset", "sandbox", "--reference",
         "sandbox", "--ca_baseline", str(healthy), "--output_dir", str(out / f"{name}-{method}"))
        for method in METHODS
    ]  # fmt: skip
    return steps


def write(out: Path) -> None:
    """Gathers the reports that are there into quick.json and quick.md."""
    results = []
    for row, (_, seeds) in ROWS.items():
        for seed in seeds:
            for method in METHODS:
                path = out / f"{name_of(row, seed)}-{method}" / "report.json"
                if path.exists():
                    results.append({"row": row, "seed": seed, **summary(json.loads(path.read_text()))})
    if not results:
        sys.exit(f"no finished cell in {out}; run without --table first")
    versions = json.loads(next(out.glob("*/report.json")).read_text())["versions"]
    machine = {"python": platform.python_version(), "cores": os.cpu_count(), "cpu": cpu_name(), **versions}
    (HERE / "quick.json").write_text(json.dumps({"machine": machine, "cells": results}, indent=1) + "\n")
    (HERE / "quick.md").write_text(table(results, machine))
    readme = HERE.parent / "README.md"
    readme.write_text(with_headline(readme.read_text(encoding="utf-8"), results), encoding="utf-8")
    print(table(results, machine))


def with_headline(readme: str, results: list[dict]) -> str:
    """The README with this benchmark's short table between its two marks."""
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
        f"`make bench-quick`. Sandbox CLIP, target banana, {RATE} of {POISON_PAIRS} pairs poisoned, cleaned with "
        f"{CLEAN_PAIRS} clean pairs at one learning rate for all methods (scripts/configs/sandbox_clean.yaml). "
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
