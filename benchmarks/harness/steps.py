"""Steps: commands that run once. A finished step is never run again, and a step knows the command that made it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.harness import ROOT
from hf_ta_cleaner.commands.parser import begin_step


#: File in a finished step's folder: the seconds that it took.
SECONDS = ".seconds"


@dataclass(frozen=True)
class Step:
    """One command.

    Attributes:
        command: The script, from the root of the repository, and its options; last the folder that it writes to.
        done: The file in that folder that is written last.
        seconds: What it is expected to take on one core.
        mark: Whatever else its result depends on.
        codes: Exit codes that are an answer and no failure.
    """

    command: tuple[str, ...]
    done: str
    seconds: float = 60.0
    mark: tuple[str, ...] = ()
    codes: tuple[int, ...] = (0,)

    @property
    def folder(self) -> Path:
        return Path(self.command[-1])

    @property
    def identity(self) -> list[str]:
        """What the step is known by. The contents of its configuration files belong to it."""
        files = [self.command[i + 1] for i, word in enumerate(self.command) if word == "--config"]
        return [*self.mark, *self.command, *(Path(file).read_text(encoding="utf-8") for file in files)]

    @property
    def is_done(self) -> bool:
        mark = self.folder / ".step"
        text = "\n".join(self.identity) + "\n"
        return (self.folder / self.done).is_file() and mark.is_file() and mark.read_text(encoding="utf-8") == text

    def run(self, threads: int = 1) -> float | None:
        """Runs it, its output in a log beside its folder.

        Returns:
            The seconds it took; None if it had been done before.

        Raises:
            RuntimeError: It failed; the message names the log.
        """
        if not begin_step(self.folder, self.identity, self.done):
            return None
        log, started = self.folder.with_name(self.folder.name + ".log"), time.monotonic()
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": str(threads)}
        with open(log, "w") as output:
            finished = subprocess.run(
                [sys.executable, str(ROOT / self.command[0]), *self.command[1:]],
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**environment, "TOKENIZERS_PARALLELISM": "false"},
            )
        if finished.returncode not in self.codes:
            raise RuntimeError(f"{' '.join(self.command)} failed; its output is in {log}")
        seconds = time.monotonic() - started
        (self.folder / SECONDS).write_text(f"{seconds:.0f}\n")
        return seconds


def following(*steps: Step) -> tuple[Step, ...]:
    """The steps, each depending on the one before it."""
    out = steps[:1]
    for step in steps[1:]:
        out += (replace(step, mark=(*out[-1].mark, *out[-1].command)),)
    return out


def chain(mark: tuple[str, ...], *steps: tuple[tuple[str, ...], str]) -> list[Step]:
    """Steps, from (command, done), that each depend on `mark` and on all that went before them."""
    out = []
    for command, done in steps:
        out.append(Step(command, done, mark=mark))
        mark = (*mark, *command)
    return out


def unique(chains: Iterable[Sequence[Step]]) -> list[Step]:
    """Every step once, where it comes first."""
    return list(dict.fromkeys(step for chain in chains for step in chain))


def minutes(steps: Iterable[Step], known: Iterable[Step], jobs: int) -> float:
    """Expected minutes of the steps that are not done, corrected by what the finished ones of `known` have taken."""
    measured = [(float((s.folder / SECONDS).read_text()), s.seconds) for s in known if (s.folder / SECONDS).is_file()]
    factor = sum(took for took, _ in measured) / sum(guess for _, guess in measured) if measured else 1.0
    return factor * sum(step.seconds for step in steps if not step.is_done) / 60 / jobs


class Runner:
    """Runs steps in `jobs` processes of one share of the cores each.

    A model this small uses two cores better as two processes of one thread than as one of two.
    """

    def __init__(self, jobs: int) -> None:
        self.jobs = jobs
        self._printing = threading.Lock()

    def run(self, steps: Iterable[Step]) -> None:
        """Runs a chain of steps one after the other, those that are not done."""
        for step in steps:
            seconds = step.run(max(1, (os.cpu_count() or 1) // self.jobs))
            if seconds is not None:
                with self._printing:
                    print(f"{seconds:6.0f} s  {step.folder}", flush=True)

    def run_all(self, chains: Iterable[Sequence[Step]]) -> None:
        """Runs every step of the chains once, as soon as the one before it is done, the first chain's first.

        A step that waits for one that failed is left out. All else is run, and all failures are told at the end.

        Raises:
            SystemExit: Steps failed.
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
