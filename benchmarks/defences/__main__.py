"""Attacks x defences on the sandbox, in parts that are useful alone.

    python -m benchmarks.defences --part t1            # run what is missing of a part, then write the tables
    python -m benchmarks.defences --part t1 t2 --plan  # print the cells and the expected minutes, run nothing
    python -m benchmarks.defences --table              # only write the tables from the cells that are there
    python -m benchmarks.defences --readme             # put the headline table into README.md
    python -m benchmarks.defences --world photos --photos uoft-cs/cifar10 --clip out/clip --part t1 t2 whole

First the strength of every method is settled by the rule in benchmarks/defences/rule.py. A finished step is not run
again, so an interrupted run goes on; the backdoored models are those of `make bench-quick`. Cells lie in
OUTPUT_DIR/cells, one JSON each; matrix.json, matrix.md and frontier.png are written beside this file, those of the
photographs into benchmarks/photos.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from pathlib import Path

from benchmarks.defences import run, table
from benchmarks.defences.plan import METHODS, PARTS, SEEDS, Cell, Planner, methods_of, unique_steps
from benchmarks.harness import ROOT
from benchmarks.harness.steps import Runner, minutes
from benchmarks.harness.tables import replace_block
from benchmarks.harness.worlds import SANDBOX, World
from hf_ta_cleaner.commands.parser import fast_precision


HERE = Path(__file__).parent


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.defences",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--part", nargs="+", choices=list(PARTS), default=[], help="what to run")
    parser.add_argument("--seeds", type=int, help="seeds 0 to N-1 (default: 3 for t1, 1 for the others)")
    parser.add_argument("--plan", action="store_true", help="print cells and minutes, run nothing")
    parser.add_argument("--table", action="store_true", help="only write the tables")
    parser.add_argument("--readme", action="store_true", help="write the headline table into README.md")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="steps at a time (default: one a core)")
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/bench-defences"), help="folder of the steps")
    parser.add_argument(
        "--suspects", type=Path, default=Path("outputs/bench"), help="folder of the backdoored models, shared"
    )
    parser.add_argument("--rows", nargs="+", metavar="ATTACK", help="only these attacks of the parts")
    parser.add_argument("--methods", nargs="+", metavar="METHOD", help="only these methods, and none")
    parser.add_argument("--at", type=float, metavar="STRENGTH", help="all methods at this strength, without the rule")
    parser.add_argument("--world", choices=["sandbox", "photos"], default="sandbox", help="where (default: sandbox)")
    parser.add_argument("--photos", help="with --world photos: Hub id or folder of the photographs")
    parser.add_argument("--clip", type=Path, help="with --world photos: the CLIP that benchmarks.photos has trained")
    args = parser.parse_args(argv)
    if not (args.part or args.table or args.readme):
        parser.error("nothing to do; give --part, --table or --readme")
    if args.plan and not args.part:
        parser.error("--plan needs --part")
    if args.seeds is not None and args.seeds < 1:
        parser.error("--seeds must be at least 1")
    if args.world == "photos":
        if args.part and not (args.photos and args.clip):
            parser.error("--world photos needs --photos and --clip")
        if args.readme:
            parser.error("--readme is of the sandbox; benchmarks.summary writes what the README says of both worlds")
        for name in ("output_dir", "suspects"):
            if getattr(args, name) == parser.get_default(name):
                setattr(args, name, Path("outputs/bench-photos") / ("" if name == "output_dir" else "suspects"))
    return args


def world_of(args: argparse.Namespace) -> World:
    """The world that the flags name."""
    if args.world == "sandbox":
        return SANDBOX
    from benchmarks.photos.world import photos_world

    return photos_world(args.photos or "", args.clip or Path(), args.output_dir / "data")


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    out = args.output_dir
    rule_file = out / "rule.json"
    strengths = json.loads(rule_file.read_text())["strengths"] if rule_file.is_file() else {}
    world = world_of(args)
    planner = Planner(out, args.suspects, strengths, tuple(fast_precision()), world=world)
    parts = {part: wanted(planner, part, args) for part in args.part}
    if args.plan:
        print(describe(planner, parts, args.jobs))
        return
    if args.part:
        out.mkdir(parents=True, exist_ok=True)
        runner = Runner(args.jobs)
        runner.run_all([step] for step in world.prepared)
        if args.at is None:
            expected = rule_minutes(planner, args.part, args.jobs)
            print(f"the rule for the strengths: about {expected:.0f} minutes, if it is not done")
            choice = run.settle_strengths(planner, runner, {**dict.fromkeys(strengths), **methods_of(args.part)})
        else:
            choice = run.fix_strengths(planner, methods_of(args.part), args.at)
        planner = Planner(out, args.suspects, choice.strengths, planner.fast, world=world)
        for part in args.part:
            cells = wanted(planner, part, args)
            left = minutes(unique_steps(cells), unique_steps(cells), args.jobs)
            print(f"{part}: {len(cells)} cells, about {left:.0f} minutes with {args.jobs} jobs", flush=True)
            run.run_part(cells, runner, out)
    if args.part or args.table:
        write(out, HERE if args.world == "sandbox" else ROOT / "benchmarks" / "photos")
    if args.readme:
        write_readme(ROOT / "README.md", HERE / "matrix.json")


def wanted(planner: Planner, part: str, args: argparse.Namespace) -> list[Cell]:
    """The cells of a part that the flags ask for."""
    cells = planner.cells(part, args.seeds or SEEDS.get(part, 1))
    cells = [cell for cell in cells if not args.rows or cell.row in args.rows]
    return [cell for cell in cells if not args.methods or cell.method in ("none", *args.methods)]


def rule_minutes(planner: Planner, parts: list[str], jobs: int) -> float:
    """Three runs for every method: the usual length of the search."""
    steps = [run.rule_step(planner, method, s) for method in methods_of(parts) for s in (1.0, 2.0, 4.0)]
    return minutes(steps, steps, jobs)


def describe(planner: Planner, parts: dict[str, list[Cell]], jobs: int) -> str:
    """The cells of the parts with their minutes; a step that several need counts where it comes first."""
    lines = []
    if not set(METHODS) <= set(planner.strengths):
        first = rule_minutes(planner, list(parts), jobs)
        lines.append(f"first the rule for the strengths, about {first:.0f} minutes; until then all are shown at 1")
    seen: set = set()
    known = unique_steps([cell for cells in parts.values() for cell in cells])
    total = 0.0
    for part, cells in parts.items():
        fresh = [step for step in unique_steps(cells) if step not in seen]
        left = minutes(fresh, known, jobs)
        total += left
        lines.append(f"{part}: {len(cells)} cells, {left:.0f} minutes with {jobs} jobs")
        for cell in cells:
            own = [step for step in (*cell.common, *cell.steps) if step not in seen]
            seen.update(own)
            state = "done" if all(step.is_done for step in cell.steps) else ""
            took = minutes(own, known, 1)
            title = " / ".join(str(v) for v in (cell.row, cell.seed, cell.method, cell.variant) if v != "")
            lines.append(f"  {title:<72} strength {cell.strength:<5g} {state or f'{took:5.1f} min of one core'}")
    return "\n".join([*lines, f"in all {total:.0f} minutes"])


def write(out: Path, where: Path) -> None:
    """matrix.json, matrix.md and the frontier from all cells that are there."""
    files = sorted((out / "cells").glob("*.json"))
    if not files:
        sys.exit(f"no finished cell in {out}; run --part t1 first")
    cells = [json.loads(file.read_text()) for file in files]
    versions: dict[str, list[str]] = {}  # several where several machines have run steps
    for file in sorted(out.glob("*/report.json")):
        for name, version in json.loads(file.read_text())["versions"].items():
            versions.setdefault(name, []).append(version)
    command = f"python -m benchmarks.defences {'' if where == HERE else '--world photos '}--part "
    matrix = {
        "command": command + " ".join(dict.fromkeys(c["part"] for c in cells)),
        "machine": {
            "python": platform.python_version(),
            "cores": os.cpu_count(),
            **{name: " and ".join(dict.fromkeys(found)) for name, found in versions.items()},
        },
        "rule": json.loads((out / "rule.json").read_text()),
        "cells": cells,
    }
    (where / "matrix.json").write_text(json.dumps(matrix, indent=1) + "\n")
    (where / "matrix.md").write_text(table.to_markdown(matrix))
    if any(cell["part"] == "frontier" for cell in cells):
        table.draw_frontier(cells, where / "frontier.png")
    print(table.to_markdown(matrix))


def write_readme(readme: Path, matrix: Path) -> None:
    """Makes the README's headline table anew from matrix.json."""
    if not matrix.is_file():
        sys.exit(f"{matrix} is not there; run a part first")
    headline = table.headline(json.loads(matrix.read_text()))
    readme.write_text(replace_block(readme.read_text(encoding="utf-8"), "matrix", headline), encoding="utf-8")


if __name__ == "__main__":
    main()
