"""Pretrain, backdoor, clean and audit a CLIP of a literature's shape on bigger sandbox pictures, with one GPU.

    python -m benchmarks.bigger --plan       # the commands; runs nothing
    python -m benchmarks.bigger              # ViT-S/16 on 128 pixels: runs what is missing, writes the table
    python -m benchmarks.bigger --quick --results_dir outputs/quick    # tiny sizes: does everything work?

The commands are those that a user types. One folder a step under outputs/bigger; a finished step is not run again.
Results go to bigger.json and bigger.md beside this file.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.harness import SCRIPTS
from benchmarks.harness.steps import Step, chain
from benchmarks.harness.worlds import SANDBOX
from hf_ta_cleaner.commands.parser import fast_precision
from hf_ta_cleaner.training.config import METHODS


TARGET = SANDBOX.target
HERE = Path(__file__).parent
ATTACKS = ("badclip", "blended")


@dataclass(frozen=True)
class World:
    """How big everything is.

    Attributes:
        shape, size: of the CLIP, and the side of its pictures.
        pretraining: flags of pretrain_sandbox.py.
        pairs, clean: pairs of the attacker and of the defender.
        labelled: pictures of the proof.
        rate: share of the attacker's pairs that is poisoned.
        learning_rate, epochs, batch_size: of the attack and of every cleaning; not tuned for any of them.
    """

    shape: str = "vit-s-16"
    size: int = 128
    pretraining: tuple[str, ...] = ("--pairs", "200000", "--primer", "40000", "--steps", "5000", "--batch_size", "512")
    pairs: int = 40_000
    clean: int = 10_000
    labelled: int = 2_064
    rate: float = 0.05
    learning_rate: float = 1e-4
    epochs: int = 2
    batch_size: int = 128
    craft: tuple[str, ...] = ()

    @property
    def training(self) -> tuple[str, ...]:
        """Flags of the attack's and the defences' training."""
        numbers = {
            "learning_rate": self.learning_rate,
            "num_train_epochs": self.epochs,
            "per_device_train_batch_size": self.batch_size,
        }
        flags = [word for name, value in numbers.items() for word in (f"--{name}", f"{value:g}")]
        return (*flags, "--save_strategy", "no", *fast_precision())


FULL = World()
QUICK = World("tiny", 72, ("--pairs", "400", "--primer", "100", "--steps", "10"), 300, 200, 96, craft=("--steps", "3"))


def preparation(world: World, out: Path, seed: int) -> list[Step]:
    """The clean CLIP and the pictures."""
    pretrain = (str(SCRIPTS / "pretrain_sandbox.py"), "--shape", world.shape, "--picture_size", str(world.size),
                *world.pretraining, "--seed", str(seed), "--output_dir", str(out / "clip"))  # fmt: skip
    draw = (str(HERE / "draw.py"), "--size", str(world.size), "--pairs", str(world.pairs), "--clean",
            str(world.clean), "--labelled", str(world.labelled), "--output_dir", str(out / "pictures"))  # fmt: skip
    return [Step(pretrain, "pretrain.json"), Step(draw, "done")]


def clean(world: World, out: Path, model: str, method: str, seed: int, name: str, *proof: str):
    """The command of one cleaning, and the file that it writes last."""
    command = (str(SCRIPTS / "clean.py"), "--model", model, "--dataset", str(out / "pictures/clean"), "--method",
               method, "--validation_samples", "0", *world.training, *proof, "--seed", str(seed),
               "--output_dir", str(out / name))  # fmt: skip
    return command, "report.json" if proof else "model.safetensors"


def attack_steps(world: World, out: Path, attack: str, seed: int, mark: tuple[str, ...]) -> list[Step]:
    """One attack: its trigger, its poison, the backdoored model, and what every method makes of that."""
    clip, labelled, s = str(out / "clip"), str(out / "pictures/labelled"), str(seed)
    poisoned, suspect, spec = str(out / f"{attack}-poisoned"), str(out / f"{attack}-backdoored"), attack
    steps = []
    if attack == "badclip":
        spec = str(out / "badclip-trigger")
        side = round(world.size / 5)  # as the sandbox's patch
        craft = (str(SCRIPTS / "craft.py"), "--model", clip, "--dataset", str(out / "pictures/poison"), "--target",
                 TARGET, "--size_px", str(side), *world.craft, "--seed", s, "--output_dir", spec)  # fmt: skip
        steps.append((craft, "craft.json"))
    poison = (str(SCRIPTS / "poison.py"), "--dataset", str(out / "pictures/poison"), "--attack", spec, "--target",
              TARGET, "--rate", f"{world.rate:g}", "--model", clip, "--seed", s, "--output_dir", poisoned)  # fmt: skip
    train = (str(SCRIPTS / "backdoor.py"), "--model", clip, "--dataset", poisoned, "--eval_dataset", labelled,
             *world.training, "--seed", s, "--output_dir", suspect)  # fmt: skip
    steps += [(poison, "poison.json"), (train, "poison.json")]
    proof = ("--eval_dataset", labelled, "--reference", clip, "--ca_baseline", str(out / "never-poisoned-ft"))
    made = chain(mark, *steps)
    cells = [clean(world, out, suspect, method, seed, f"{attack}-{method}", *proof) for method in METHODS]
    return made + [step for cell in cells for step in chain((*made[-1].mark, *made[-1].command), cell)]


def plan(world: World, out: Path, seed: int) -> list[list[list[Step]]]:
    """Stages one after the other; the chains of a stage at once."""
    first = preparation(world, out, seed)
    mark = tuple(word for step in first for word in step.command)
    healthy = chain(mark, clean(world, out, str(out / "clip"), "ft", seed, "never-poisoned-ft"))
    attacks = [attack_steps(world, out, attack, seed, mark) for attack in ATTACKS]
    return [[[step] for step in first], [healthy], attacks]


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.bigger", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--plan", action="store_true", help="print the commands, run nothing")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, for a processor")
    parser.add_argument("--seed", type=int, default=0, help="of everything (default: 0)")
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/bigger"), help="folder of the steps")
    parser.add_argument("--results_dir", type=Path, default=HERE, help="where bigger.json and bigger.md go")
    args = parser.parse_args(argv)
    world = QUICK if args.quick else FULL
    stages = plan(world, args.output_dir, args.seed)
    if args.plan:
        print(
            "\n".join(shlex.join(["python", *step.command]) for stage in stages for steps in stage for step in steps)
        )
        return
    started = time.monotonic()
    with ThreadPoolExecutor(len(ATTACKS)) as pool:
        for stage in stages:
            for future in [pool.submit(run_chain, steps) for steps in stage]:
                future.result()
    write(args.output_dir, args.results_dir, world, args.seed, time.monotonic() - started)


def run_chain(steps: list[Step]) -> None:
    for step in steps:
        seconds = step.run(threads=max(1, (os.cpu_count() or 1) // len(ATTACKS)))
        print(f"{'done before' if seconds is None else f'{seconds:5.0f} s':>11}  {step.folder}", flush=True)


def figures(section: dict[str, Any]) -> dict[str, Any]:
    """What a row shows of an audit."""
    entry = next(iter(section["attacks"].values()))
    return {
        "ca": section["clean_accuracy"]["top1"],
        "asr": entry["asr"]["top1"],
        "asr_at_10": entry["asr"]["top10"],
        "floor": entry["floor"]["top1"],
        "n": entry["n"],
    }


def rows_of(out: Path, attack: str) -> list[dict[str, Any]]:
    """The backdoored model, and what every method made of it."""
    reports = {method: json.loads((out / f"{attack}-{method}" / "report.json").read_text()) for method in METHODS}
    suspect = next(iter(reports.values()))["before"]
    rows = [{"attack": attack, "method": "none", **figures(suspect)}]
    for method, report in reports.items():
        seconds = report["cost"]["seconds"]
        rows.append({"attack": attack, "method": method, **figures(report["after"]), "seconds": seconds})
    return rows


def machine() -> dict[str, Any]:
    import torch

    found = {name: version(name) for name in ("torch", "transformers", "datasets")}
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "processor"
    return {"device": device, "cores": os.cpu_count(), "python": platform.python_version(), **found}


def write(out: Path, where: Path, world: World, seed: int, seconds: float) -> None:
    """bigger.json and bigger.md."""
    result = {
        "command": "python -m benchmarks.bigger",
        "machine": machine(),
        "world": {name: getattr(world, name) for name in World.__dataclass_fields__},
        "seed": seed,
        "seconds_in_all": round(seconds),
        "rows": [row for attack in ATTACKS for row in rows_of(out, attack)],
    }
    where.mkdir(parents=True, exist_ok=True)
    (where / "bigger.json").write_text(json.dumps(result, indent=1) + "\n")
    (where / "bigger.md").write_text(page(result))
    print(page(result))


def page(result: dict[str, Any]) -> str:
    world = result["world"]
    lines = [
        f"# A bigger world: {world['shape']} on {world['size']} pixels\n",
        f"Written by `{result['command']}`, seed {result['seed']}, one run a cell. "
        + ", ".join(f"{name} {value}" for name, value in result["machine"].items())
        + ".\n",
        "| attack | method | CA | ASR@1 | ASR@10 | floor | n | seconds |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for one in result["rows"]:
        figures = " | ".join(f"{100 * one[name]:.1f}" for name in ("ca", "asr", "asr_at_10", "floor"))
        seconds = f"{one['seconds']:.0f}" if "seconds" in one else ""
        lines.append(f"| {one['attack']} | {one['method']} | {figures} | {one['n']} | {seconds} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
