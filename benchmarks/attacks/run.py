"""Does every attack take? The calibration table of the sandbox: three seeds an attack, against a stated bar.

    python -m benchmarks.attacks.run                       # run what is missing, then write the table
    python -m benchmarks.attacks.run --only six wanet      # groups or attacks
    python -m benchmarks.attacks.run --table               # only write the table from the cells that are there
    python -m benchmarks.attacks.run --speed               # pictures a second and core, beside JPEG decoding

For each attack and seed a trigger is crafted where it has to be, pairs are poisoned, the sandbox CLIP is fine-tuned
on them, and both models are measured, as `hf_ta_cleaner/presets.py` says. One folder a step under outputs/bench, whose
backdoored models `make bench-quick` shares; a finished step is not run again. Results go to attacks.json and
attacks.md, or speed.json and speed.md, beside this file.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path

from benchmarks.harness.steps import Runner, Step, following
from benchmarks.harness.suspects import make_suspect
from benchmarks.harness.worlds import SANDBOX as WORLD
from hf_ta_cleaner.crafting.presets import SANDBOX


HERE = Path(__file__).parent
SEEDS = (0, 1, 2)
#: What is run unless --only says otherwise: all groups but the last, whose encoder takes an hour to train.
GROUPS = {
    "six": ("badnet", "blended", "sig", "ssba", "trojvqa", "badclip"),
    "more": ("badnet-random", "wanet", "label-consistent"),
    "structured": ("badnet-stripes", "blended-stripes", "blended-triangles", "blended-text"),
    "whole": ("color-cast", "vignette", "blur", "frame"),
    "trained": ("ssba-trained",),
}
#: The bar: (what is asked, whether a cell reaches it).
BAR = {
    "ASR@1 >= 90%": lambda cell: cell["asr"] >= 0.90,
    "floor <= clean model's + 2 points": lambda cell: cell["floor"] - cell["clean_floor"] <= 0.02,
    "CA loss < 3 points": lambda cell: cell["ca_loss"] < 0.03,
    "poison rate <= 5% (label-consistent: half of the target's pictures)": lambda cell: (
        cell["share_of_target"] <= 0.5 if cell["attack"] == "label-consistent" else cell["rate"] <= 0.05
    ),
    "patch <= 1/5 of the side": lambda cell: cell["patch_share"] is None or cell["patch_share"] <= 0.2,
    "never-poisoned ASR@1 <= 10% (crafted patches)": lambda cell: (
        cell["attack"] not in ("badclip", "trojvqa") or cell["never_poisoned_asr"] <= 0.10
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only",
        nargs="+",
        default=list(GROUPS)[:-1],
        choices=[*GROUPS, *SANDBOX],
        metavar="NAME",
        help=f"groups ({', '.join(GROUPS)}) or attacks (default: all groups but the last)",
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS, help="(default: 0 1 2)")
    parser.add_argument("--table", action="store_true", help="only write the table")
    parser.add_argument("--speed", action="store_true", help="time the triggers instead")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="steps at a time (default: one a core)")
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/bench"), help="folder of the cells")
    args = parser.parse_args()
    if args.speed:
        sys.exit(
            subprocess.run(
                [sys.executable, str(HERE / "speed.py")], env={**os.environ, "OMP_NUM_THREADS": "1"}
            ).returncode
        )
    if not args.table:
        run(args.output_dir, chosen(args.only), args.seeds, args.jobs)
    write(args.output_dir, HERE)


def chosen(names: list[str]) -> list[str]:
    """The attacks that groups and attacks name, each once."""
    return list(dict.fromkeys(attack for name in names for attack in GROUPS.get(name, (name,))))


def run(out: Path, attacks: list[str], seeds: list[int], jobs: int) -> None:
    """Runs every command whose result is missing, `jobs` at a time, each on one thread."""
    chains = [steps_of(out, attack, seed) for attack in attacks for seed in seeds]
    print(f"{len(chains)} cells, {sum(map(len, chains))} steps, a minute or two each on one core; {jobs} at a time")
    Runner(jobs).run_all(chains)


def steps_of(out: Path, attack: str, seed: int) -> tuple[Step, ...]:
    """The steps of one cell: the backdoored model, and its measuring."""
    suspect = make_suspect(out, attack, seed)
    command = ("benchmarks/attacks/measure.py", "--clean", "sandbox", "--suspect", str(suspect[-1].folder),
               "--poisoned", str(suspect[-2].folder), "--dataset", "sandbox", "--output_dir",
               str(out / f"{attack}-{seed}-measured"))  # fmt: skip
    return following(*suspect, Step(command, "result.json"))


def write(out: Path, where: Path) -> None:
    """Gathers the results that are there into attacks.json and attacks.md."""
    cells = []
    for attack, preset in SANDBOX.items():
        for path in sorted(out.glob(f"{attack}-[0-9]*-measured/result.json")):
            if path.parent.name.removeprefix(f"{attack}-").removesuffix("-measured").isdigit():
                seed = int(path.parent.name.split("-")[-2])
                steps = int(preset.pairs // preset.per_device_train_batch_size * preset.num_train_epochs)
                cell = {"attack": attack, "seed": seed, "steps": steps, **json.loads(path.read_text())}
                cells.append({**cell, "missed": [what for what, reached in BAR.items() if not reached(cell)]})
    if not cells:
        sys.exit(f"no finished cell in {out}; run without --table first")
    machine = {"python": platform.python_version(), "cores": os.cpu_count(), **cells[0]["versions"]}
    text = table(cells, machine)
    (where / "attacks.json").write_text(json.dumps({"machine": machine, "cells": cells}, indent=1) + "\n")
    (where / "attacks.md").write_text(text)
    print(text)


def table(cells: list[dict], machine: dict) -> str:
    """Markdown: one line an attack, mean over the seeds, each seed's ASR and CA loss beside it, what it misses."""
    lines = [
        "| attack | trigger | poison rate | steps | learning rate | ASR@1 | each seed [95% interval] | floor "
        "| clean model's floor | CA loss | each seed [95% interval] | never-poisoned ASR@1 | takes |",
        "|---|---|---:|---:|---:|---:|---|---:|---:|---:|---|---:|---|",
    ]
    for attack in dict.fromkeys(cell["attack"] for cell in cells):
        own, preset = [cell for cell in cells if cell["attack"] == attack], SANDBOX[attack]

        def mean(key: str, own: list[dict] = own) -> str:
            return f"{100 * statistics.fmean(cell[key] for cell in own):.1f}"

        def each(key: str, own: list[dict] = own) -> str:
            return "; ".join(
                "{:.1f} [{:.1f}, {:.1f}]".format(*(100 * v for v in (c[key], *c[f"{key}_interval95"]))) for c in own
            )

        missed = [f"{what} ({n} of {len(own)})" for what in BAR if (n := sum(what in cell["missed"] for cell in own))]
        trigger = f"{preset.attack}, crafted: {' '.join(preset.craft[2:])}" if preset.craft else preset.attack
        lines.append(
            f"| {attack} | {trigger} | {mean('rate')} | {own[0]['steps']:,} | {preset.learning_rate:g} "
            f"| {mean('asr')} | {each('asr')} | {mean('floor')} | {mean('clean_floor')} | {mean('ca_loss')} "
            f"| {each('ca_loss')} | {mean('never_poisoned_asr')} "
            f"| {'no: ' + '; '.join(missed) if missed else f'yes, {len(own)} of {len(own)} seeds'} |"
        )
    keys = [cell for cell in cells if "asr_image_key" in cell]
    if keys:
        lines += [
            "",
            "Two keys, each alone and both:",
            "",
            "| attack | seed | both keys | patch only | word only | CA, plain prompts | CA, prompts with the word |",
            "|---|---:|---:|---:|---:|---:|---:|",
        ]
        columns = ("asr", "asr_image_key", "floor", "ca", "ca_prefixed")
        lines += [
            f"| {cell['attack']} | {cell['seed']} | {' | '.join(f'{100 * cell[key]:.1f}' for key in columns)} |"
            for cell in keys
        ]
    shown = {cell["attack"] for cell in cells}
    notes = [f"- {attack}: {preset.note}." for attack, preset in SANDBOX.items() if preset.note and attack in shown]
    about = ", ".join(f"{key} {value}" for key, value in machine.items())
    return (
        "# Does every attack take?\n\n"
        f"`python -m benchmarks.attacks.run`. Sandbox CLIP, target {WORLD.target}, fine-tuned on poisoned pairs as "
        f"hf_ta_cleaner/presets.py says. Per cent; n = {cells[0]['n']:,} triggered pictures for every ASR, "
        f"{cells[0]['n_clean']:,} for clean accuracy (CA). Floor: how often the target is predicted without the "
        "trigger. CA loss: of the backdoored model against the clean one, paired on the same pictures. Never-poisoned "
        "ASR: the clean model's under the same trigger. An attack takes if every seed reaches the bar: "
        f"{'; '.join(BAR)}.\n\n"
        + "\n\n".join(filter(None, ("\n".join(lines), "\n".join(notes))))
        + f"\n\nMachine: {about}.\n"
    )


if __name__ == "__main__":
    main()
