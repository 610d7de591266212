"""Finds trouble without knowing the trigger, and says how often: 20 clean models, 30 backdoored, 18 sets of pairs.

    python -m benchmarks.scan --plan          # cells and minutes; runs nothing
    python -m benchmarks.scan                 # runs what is missing, then writes the tables
    python -m benchmarks.scan --only clean-ft-40000-10 badnet-10 data-badnet-0.01
    python -m benchmarks.scan --table         # only writes the tables, from the cells that are there

One folder a step under outputs/bench-scan; a finished step is not run again, nor any of a cell whose scan.json and
result.json are all there, so that cells can be made on several machines and models be deleted. Results go to scan.json
and scan.md beside this file.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from pathlib import Path

from benchmarks.harness.steps import Runner, minutes
from benchmarks.scan.plan import Cell, all_cells, unique
from benchmarks.scan.table import gather, markdown


HERE = Path(__file__).parent


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scan", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--plan", action="store_true", help="print cells and minutes, run nothing")
    parser.add_argument("--table", action="store_true", help="only write the tables")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these cells, or those whose name begins so")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="cells at a time (default: one a core)")
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/bench-scan"), help="folder of the steps")
    parser.add_argument("--results_dir", type=Path, default=HERE, help="where scan.json and scan.md go")
    args = parser.parse_args(argv)
    cells = all_cells(args.output_dir)
    if args.only:
        cells = [cell for cell in cells if cell.name.startswith(tuple(args.only))]
        if not cells:
            parser.error(f"no cell is called {' or '.join(args.only)}; --plan lists them")
    if args.plan:
        print(describe(cells, args.jobs))
        return
    if not args.table:
        print(describe(cells, args.jobs).splitlines()[-1], flush=True)
        run(cells, args.jobs)
    write(gather(cells, args.output_dir), args.results_dir)


def describe(cells: list[Cell], jobs: int) -> str:
    """Every cell with its minutes of one core, a shared step where it comes first; the sum on the last line."""
    lines, seen, total = [], set(), 0.0
    for cell in cells:
        own = [s for s in cell.steps if s not in seen and not cell.is_measured]
        seen.update(own)
        left = minutes(own, (), 1)
        total += left
        lines.append(f"{cell.name:<44}{f'{left:5.1f} min' if left else 'done':>12}")
    count = f"{len(cells)} cells, {len(unique(cells))} steps"
    return "\n".join(
        [*lines, f"{count}; left: about {total:.0f} minutes of one core, {total / jobs:.0f} with {jobs} jobs"]
    )


def run(cells: list[Cell], jobs: int) -> None:
    """Runs what is missing. A cell whose figures are all there needs no model."""
    Runner(jobs).run_all(cell.steps for cell in cells if not cell.is_measured)


def write(rows: list[dict], where: Path) -> None:
    """scan.json and scan.md."""
    if not rows:
        sys.exit("no cell is finished; run without --table first")
    machine = {"python": platform.python_version(), "cores": os.cpu_count()}
    where.mkdir(parents=True, exist_ok=True)
    content = {"command": "python -m benchmarks.scan", "machine": machine, "cells": rows}
    (where / "scan.json").write_text(json.dumps(content, indent=1) + "\n")
    (where / "scan.md").write_text(markdown(rows))
    print(markdown(rows))


if __name__ == "__main__":
    main()
