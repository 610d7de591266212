"""How fast is a cleaning step, against a reference-style one and a bare loop, and what is it made of?

    python -m benchmarks.speed --plan                  # what would run, and about how many minutes
    python -m benchmarks.speed                         # run it, write speed.json and speed.md
    python -m benchmarks.speed --only steps --shape vit-b-32 --methods cleanclip
    python -m benchmarks.speed --check --only growth   # run, compare the ratios with speed.json, write nothing
    python -m benchmarks.speed --profile cleanclip     # where the time of a step goes
    python -m benchmarks.speed --quick                 # a minute, tiny sizes: does everything work?

Every measurement is a process of its own; the ways to take a step alternate, in several rounds, so that all see the
same machine. A section that is finished is printed and written at once; what was not run stays as it was in the files.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.attacks.speed import cpu_name
from benchmarks.speed import HERE, table
from benchmarks.speed import plan as plans


ROOT = HERE.parent.parent
#: Instructions that decide how fast a matrix product is.
FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "amx_tile")


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.speed", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=plans.SECTIONS, default=list(plans.SECTIONS), help="sections")
    parser.add_argument("--shape", nargs="+", choices=["vit-b-32", "sandbox"], help="models (default: both)")
    parser.add_argument(
        "--methods", nargs="+", choices=plans.METHODS, default=list(plans.METHODS), help="default: all"
    )
    parser.add_argument("--rounds", type=int, help="rounds of the steps (default: 3)")
    parser.add_argument("--batch", type=int, help="pairs of a step (default: 32 for vit-b-32, 64 for sandbox)")
    parser.add_argument("--steps", type=int, help="timed steps of a round (default: 2 for vit-b-32, 20 for sandbox)")
    parser.add_argument("--warmup", type=int, default=1, help="steps before those (default: 1; with workers more)")
    parser.add_argument(
        "--accelerator", action="store_true", help="also with --torch_compile, --resize_once, and the towers alone"
    )
    parser.add_argument("--ways", nargs="+", metavar="WAY", help="only these ways (default: all)")
    parser.add_argument("--no_bf16", action="store_true", help="leave bfloat16 out, where it is very slow")
    parser.add_argument("--tf32", action="store_true", help="let a GPU multiply float32 in TF32, the reference too")
    parser.add_argument("--quick", action="store_true", help="tiny sizes; writes only to a given --output_dir")
    parser.add_argument("--plan", action="store_true", help="print what would run and the minutes, run nothing")
    parser.add_argument("--profile", metavar="METHOD", choices=plans.METHODS, help="profile one step of a method")
    parser.add_argument("--check", action="store_true", help="compare ratios with the committed ones, write nothing")
    parser.add_argument("--tolerance", type=float, default=0.15, help="share by which a ratio may fall in --check")
    parser.add_argument(
        "--output_dir", type=Path, help="folder of speed.json and speed.md (default: beside this file)"
    )
    args = parser.parse_args(argv)
    if args.check and not (HERE / "speed.json").is_file():
        parser.error("--check needs benchmarks/speed/speed.json; run python -m benchmarks.speed first")
    if not 0 <= args.tolerance < 1:
        parser.error(f"--tolerance must be in [0, 1), got {args.tolerance}")
    if args.output_dir is None and not (args.quick or args.check):
        args.output_dir = HERE
    return args


def make_plan(args: argparse.Namespace) -> plans.Plan:
    plan = (plans.quick if args.quick else plans.full)(not args.no_bf16)
    shapes = {s: v for s, v in plan.shapes.items() if args.quick or not args.shape or s in args.shape}
    shapes = {shape: (args.batch or batch, args.steps or steps) for shape, (batch, steps) in shapes.items()}
    return dataclasses.replace(
        plan,
        shapes=shapes,
        images={shape: plan.images[shape] for shape in shapes},
        rounds=args.rounds or plan.rounds,
        accelerator=args.accelerator,
        warmup=args.warmup,
        only=tuple(args.ways or ()),
    )


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    plan, methods, only = make_plan(args), tuple(args.methods), tuple(args.only)
    if not plan.ways():
        print(f"no way is called {' or '.join(args.ways)}; some want --accelerator", file=sys.stderr)
        return 2
    expected = plan.minutes(only, methods)
    print("\n".join(f"{name}: about {value:.0f} minutes" for name, value in expected.items()))
    print(f"in all about {sum(expected.values()):.0f} minutes on two idle cores", flush=True)
    if args.plan:
        return 0
    if args.profile:
        profile(plan, args)
        return 0
    result = _load(args.output_dir)
    result["machine"] = machine()
    result["rate"] = work({"kind": "rate", "n": plan.matrix, "rounds": 3}, args)
    sections: dict[str, Any] = result["sections"] if not args.check else {}
    runs = {"steps": run_steps, "parts": run_parts, "growth": run_growth}
    for name in only:
        runs[name](plan, methods, args, sections.setdefault(name, {}), result["rate"])
        result |= {"sections": sections, "ratios": table.ratios(sections)}
        if args.output_dir is not None and not args.check:
            args.output_dir.mkdir(parents=True, exist_ok=True)
            (args.output_dir / "speed.json").write_text(json.dumps(result, indent=1) + "\n")
            (args.output_dir / "speed.md").write_text(table.page(result))
    print("\n" + "\n".join(f"{value:6.2f}  {name}" for name, value in table.ratios(sections).items()))
    if args.check:
        return check(table.ratios(sections), args.tolerance)
    return 0


def check(new: dict[str, float], tolerance: float) -> int:
    """0 where no ratio fell; else they are named."""
    committed = json.loads((HERE / "speed.json").read_text())["ratios"]
    shared = [name for name in new if name in committed]
    if not shared:
        print("nothing to compare: speed.json has none of these ratios", file=sys.stderr)
        return 1
    bad = table.fallen(new, committed, tolerance)
    print("\n".join(bad) if bad else f"{len(shared)} ratios are at least {1 - tolerance:.0%} of the committed ones")
    return int(bool(bad))


def _load(folder: Path | None) -> dict[str, Any]:
    file = None if folder is None else folder / "speed.json"
    return json.loads(file.read_text()) if file is not None and file.is_file() else {"sections": {}, "ratios": {}}


def run_steps(plan: plans.Plan, methods, args, into: dict[str, Any], rate: dict[str, float]) -> None:
    for shape, (batch, _) in plan.shapes.items():
        rows: dict[tuple[str, str], dict[str, Any]] = {}
        for number in range(plan.rounds):
            for method, way, spec in plan.steps(shape, number, methods):
                found = work(spec, args)
                before = rows.get((method, way), {"seconds": [], "peak_mb": 0.0})
                seconds, peak = [*before["seconds"], found["seconds"]], max(before["peak_mb"], found["peak_mb"])
                rows[method, way] = {"method": method, "way": way, **found, "seconds": seconds, "peak_mb": peak}
                print(
                    f"  round {number + 1}: {shape} {method} {way}: {batch / found['seconds']:.2f} pairs/s", flush=True
                )
        before = into.get(shape, {})
        kept = before.get("rows", []) if before.get("batch") == batch else []
        rows = {(row["method"], row["way"]): row for row in kept} | rows
        into[shape] = {
            "batch": batch,
            "rows": sorted(rows.values(), key=lambda row: plans.METHODS.index(row["method"])),
        }
        print(table.steps(shape, into[shape], rate), flush=True)


def run_parts(plan: plans.Plan, methods, args, into: dict[str, Any], rate: dict[str, float]) -> None:
    for shape, (batch, _) in plan.shapes.items():
        spec = {"shape": shape, "batch": batch, "rounds": plan.part_rounds, "pictures": plan.images[shape]}
        into[shape] = work({"kind": "parts", **spec}, args)
        print(table.parts(shape, into[shape]), flush=True)


def run_growth(plan: plans.Plan, methods, args, into: dict[str, Any], rate: dict[str, float]) -> None:
    for name, specs in plan.growth().items():
        into[name] = [work(spec, args) for spec in specs]
        print(table.growth(name, into[name]) + "\n", flush=True)


def profile(plan: plans.Plan, args: argparse.Namespace) -> None:
    for shape in plan.shapes:
        for method, way, spec in plan.steps(shape, 0, (args.profile,)):
            print(
                f"\n{shape}, {method}, {way}\n{work({**spec, 'steps': 1, 'profile': True}, args)['profile']}",
                flush=True,
            )


def work(spec: dict[str, Any], args: argparse.Namespace) -> dict[str, Any]:
    """The result of one measurement, made in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    if args.tf32:
        environment["TORCH_ALLOW_TF32_CUBLAS_OVERRIDE"] = "1"
    command = [sys.executable, "-m", "benchmarks.speed.worker", json.dumps(spec)]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{json.dumps(spec)} failed:\n{done.stderr[-4000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    import torch

    info = Path("/proc/cpuinfo")
    words = set(info.read_text().split()) if info.exists() else set()
    found: dict[str, Any] = {
        "cpu": cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "instructions": ", ".join(flag for flag in FLAGS if flag in words) or "unknown",
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d"),
        **{name: version(name) for name in ("torch", "transformers", "accelerate", "datasets", "numpy", "pillow")},
    }
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    return found


if __name__ == "__main__":
    sys.exit(main())
