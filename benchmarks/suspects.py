"""The backdoored sandbox models that the benchmarks share: made as the presets say, and made once."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from hf_ta_cleaner.commands.parser import begin_step, fast_precision
from hf_ta_cleaner.crafting.presets import SANDBOX


SCRIPTS = Path(__file__).parents[1] / "scripts"
TARGET = "banana"


@dataclass(frozen=True)
class Step:
    """One command of a benchmark.

    Attributes:
        command: the script and its options, the folder that it writes to last.
        done: the file in that folder that is written last.
        mark: whatever else its result depends on; another one makes it anew.
    """

    command: tuple[str, ...]
    done: str
    mark: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        return Path(self.command[-1])

    def run(self, threads: int = 1) -> float | None:
        """Runs it, its output in a log beside its folder.

        Returns:
            The seconds it took; None if it had been done before.

        Raises:
            RuntimeError: it failed; the message names the log.
        """
        if not begin_step(self.folder, [*self.mark, *self.command], self.done):
            return None
        log, started = self.folder.with_name(self.folder.name + ".log"), time.monotonic()
        with open(log, "w") as output:
            done = subprocess.run(
                [sys.executable, *self.command],
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"},
            )
        if done.returncode:
            raise RuntimeError(f"{' '.join(self.command)} failed; its output is in {log}")
        return time.monotonic() - started


def chain(mark: tuple[str, ...], *steps: tuple[tuple[str, ...], str]) -> list[Step]:
    """Steps that each depend on `mark` and on all that went before them."""
    out = []
    for command, done in steps:
        out.append(Step(command, done, mark))
        mark = (*mark, *command)
    return out


def make_suspect(
    out: Path, attack: str, seed: int, *, attacker: str = "", times: float = 1, flags: tuple[str, ...] = ()
) -> list[Step]:
    """The steps that make one backdoored model, `out/ATTACK-SEED[-ATTACKER]-backdoored`, by the attack's preset.

    Args:
        attacker: Name of one who does something else than the preset says; the crafted trigger is the same.
        times: This many times the preset's poison rate.
        flags: Further flags of backdoor.py.
    """
    preset, s = SANDBOX[attack], str(seed)
    name = "-".join(filter(None, (attack, s, attacker)))
    poisoned, suspect = str(out / f"{name}-poisoned"), str(out / f"{name}-backdoored")
    steps, spec = [], preset.attack
    if preset.craft:
        spec = str(out / f"{attack}-{s}-trigger")
        target = () if "ssba" in preset.craft else ("--target", TARGET)
        craft = (str(SCRIPTS / "craft.py"), "--model", "sandbox", "--dataset", "sandbox", *preset.craft, *target,
                 "--seed", s, "--output_dir", spec)  # fmt: skip
        steps.append((craft, "craft.json"))
    elif seed:
        spec += f"{',' if ':' in spec else ':'}seed={seed}"
    poison = (str(SCRIPTS / "poison.py"), "--dataset", "sandbox", "--max_samples", str(preset.pairs), "--attack", spec,
              "--target", TARGET, "--rate", f"{times * preset.rate:g}", "--model", "sandbox", "--seed", s,
              "--output_dir", poisoned)  # fmt: skip
    train = (str(SCRIPTS / "backdoor.py"), "--model", "sandbox", "--dataset", poisoned, "--eval_dataset", "sandbox",
             "--preset", "sandbox", *fast_precision(), *flags, "--seed", s, "--output_dir", suspect)  # fmt: skip
    # The record is copied beside the checkpoint when all else is there.
    return chain((repr(preset),), *steps, (poison, "poison.json"), (train, "poison.json"))
