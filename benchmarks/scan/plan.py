"""Which models the evaluation makes and scans, and by which commands. Nothing is run here.

None of them is among the five that the thresholds were set on: seeds begin at 10 here and are below it there.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness import steps
from benchmarks.harness.steps import Step
from hf_ta_cleaner.crafting.presets import SANDBOX


MEASURE = "benchmarks/scan/measure.py"
FIRST_SEED = 10
#: Presets that are not scanned: one whose encoder takes an hour to train, one that is there to compare with badnet,
#: and those that came after the evaluation.
NOT_SCANNED = ("ssba-trained", "badnet-random", "color-cast", "vignette", "blur", "frame")
ATTACKS = tuple(name for name in SANDBOX if name not in NOT_SCANNED)
SIX = ("badnet", "blended", "sig", "ssba", "trojvqa", "badclip")
TARGETS = ("banana", "guitar", "car")
LOW_RATE = 0.01
DATA_RATES = (0.003, 0.01, 0.05)
DATA_PAIRS = 10_000
#: Fine-tunings that put no backdoor in: (method, pairs, epochs, learning rate); the first is the attacker's own.
CLEAN = (
    ("ft", 40_000, 1, 2e-4),
    ("ft", 10_000, 3, 3e-4),
    ("cleanclip", 10_000, 3, 3e-4),
    ("ta-cleaner", 10_000, 3, 3e-4),
)
CLEAN_SEEDS = 5
#: Files that hold figures; all else is what they are measured on.
RESULTS = ("scan.json", "result.json")
#: Minutes of one core that a command takes, about; `--plan` adds them up.
MINUTES = {"craft": 1.0, "poison": 1.0, "backdoor": 4.5, "clean": 4.0, "measure": 0.7, "scan": 0.7, "data": 1.0}


@dataclass(frozen=True)
class Cell:
    """One model, or one data set: its name, what it is, and the steps that make and measure it, in order."""

    name: str
    kind: str
    attack: str
    rate: float
    target: str
    seed: int
    steps: tuple[Step, ...]

    @property
    def is_measured(self) -> bool:
        """Whether all figures are there. What they were measured on may be gone, or have been made elsewhere."""
        results = [s for s in self.steps if s.done in RESULTS]
        return bool(results) and all((s.folder / s.done).is_file() for s in results)


def step(name: str, *options: str, output: Path, done: str, kind: str | None = None, **more) -> Step:
    command = (f"scripts/{name}.py", *map(str, options), "--output_dir", str(output))
    return Step(command, done, 60 * MINUTES[kind or name], **more)


def scans(out: Path, name: str, model: str) -> tuple[Step, Step]:
    """The scan of a model, alone and with the sandbox's own as a reference."""
    shared = ("--model", model, "--dataset", "sandbox", "--seed", "0")
    codes = {"codes": (0, 3, 4)}
    return (
        step("scan", *shared, output=out / f"{name}-alone", done="scan.json", **codes),
        step("scan", *shared, "--reference", "sandbox", output=out / f"{name}-referred", done="scan.json", **codes),
    )


def clean_cells(out: Path) -> list[Cell]:
    """Twenty models without a backdoor."""
    cells = []
    for method, pairs, epochs, rate in CLEAN:
        for seed in range(FIRST_SEED, FIRST_SEED + CLEAN_SEEDS):
            name = f"clean-{method}-{pairs}-{seed}"
            model = out / f"{name}-model"
            tune = step(
                "clean", "--model", "sandbox", "--dataset", "sandbox", "--method", method, "--max_samples", pairs,
                "--num_train_epochs", epochs, "--learning_rate", rate, "--per_device_train_batch_size", 64,
                "--save_strategy", "no", "--bf16", "false", "--validation_samples", 0, "--no_check_data",
                "--seed", seed, output=model, done="model.safetensors",
            )  # fmt: skip
            cells.append(Cell(name, "clean", method, 0.0, "", seed, (tune, *scans(out, name, str(model)))))
    return cells


def backdoored_cells(out: Path) -> list[Cell]:
    """Every attack with two targets at its preset's rate, and the six with a third at a low one."""
    wanted = [(attack, SANDBOX[attack].rate, TARGETS[i], FIRST_SEED + i) for attack in ATTACKS for i in (0, 1)]
    wanted += [(attack, LOW_RATE, TARGETS[2], FIRST_SEED + 2) for attack in SIX]
    return [backdoored(out, *cell) for cell in wanted]


def trigger(out: Path, attack: str, target: str, seed: int) -> tuple[str, tuple[Step, ...]]:
    """The attack as poison.py takes it, and the steps that craft it first."""
    preset = SANDBOX[attack]
    if not preset.craft:
        return f"{preset.attack}{',' if ':' in preset.attack else ':'}seed={seed}", ()
    folder = out / f"{attack}-{seed}-trigger"
    made = step("craft", "--model", "sandbox", "--dataset", "sandbox", *preset.craft, "--target", target, "--seed",
                seed, output=folder, done="craft.json")  # fmt: skip
    return str(folder), (made,)


def backdoored(out: Path, attack: str, rate: float, target: str, seed: int) -> Cell:
    """One model with a backdoor: made, scanned twice, its attack and the screening measured."""
    preset, name = SANDBOX[attack], f"{attack}-{seed}"
    spec, crafted = trigger(out, attack, target, seed)
    poisoned, model = out / f"{name}-poisoned", out / f"{name}-model"
    chain = (
        *crafted,
        step("poison", "--dataset", "sandbox", "--max_samples", preset.pairs, "--attack", spec, "--target", target,
             "--rate", rate, "--model", "sandbox", "--seed", seed, output=poisoned, done="poison.json"),
        step("backdoor", "--model", "sandbox", "--dataset", poisoned, "--preset", "sandbox", "--bf16", "false",
             "--seed", seed, output=model, done="poison.json"),
        Step((MEASURE, "attack", "--model", str(model), "--output_dir", str(out / f"{name}-measured")),
             "result.json", 60 * MINUTES["measure"]),
        *scans(out, name, str(model)),
    )  # fmt: skip
    return Cell(name, "backdoored", attack, rate, target, seed, chain)


def data_cells(out: Path) -> list[Cell]:
    """The six attacks at three rates, each scored by the clean model and by the one that learned the attack."""
    cells = []
    for attack in SIX:
        model = backdoored(out, attack, SANDBOX[attack].rate, TARGETS[0], FIRST_SEED)
        spec, _ = trigger(out, attack, TARGETS[0], FIRST_SEED)
        made = tuple(s for s in model.steps if s.command[0] != MEASURE and s.done != "scan.json")
        for rate in DATA_RATES:
            name = f"data-{attack}-{rate:g}"
            poisoned = out / f"{name}-poisoned"
            scored = [
                step("poison", "--dataset", "sandbox", "--split", "clean", "--max_samples", DATA_PAIRS, "--attack",
                     spec, "--target", TARGETS[0], "--rate", rate, "--model", "sandbox", "--seed", FIRST_SEED + 3,
                     output=poisoned, done="poison.json")
            ]  # fmt: skip
            for who, checkpoint in (("clean", "sandbox"), ("suspect", str(out / f"{attack}-{FIRST_SEED}-model"))):
                scored.append(
                    Step((MEASURE, "data", "--model", checkpoint, "--poisoned", str(poisoned),
                          "--output_dir", str(out / f"{name}-{who}")), "result.json", 60 * MINUTES["data"])
                )  # fmt: skip
            cells.append(Cell(name, "data", attack, rate, TARGETS[0], FIRST_SEED + 3, (*made, *scored)))
    return cells


def all_cells(out: Path) -> list[Cell]:
    return [*clean_cells(out), *backdoored_cells(out), *data_cells(out)]


def unique(cells: list[Cell]) -> list[Step]:
    """Every step once, where it comes first."""
    return steps.unique(cell.steps for cell in cells)
