"""The cost of a cleaning before it begins: pairs, steps, memory and time, measured on a few of its own steps."""

from __future__ import annotations

import copy
import math
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from transformers import TrainerCallback

from ..data.sampling import pairs_after
from .config import TACleanerConfig


#: Steps that are timed, after one that is not: the first also sets everything up.
TIMED_STEPS = 3


@dataclass(frozen=True)
class Estimate:
    """The cost of one run.

    Attributes:
        pairs, steps, pairs_seen: in the data, of the optimiser, and seen over all epochs and processes.
        weights, trained: parameters of the model, and those that are trained.
        memory: bytes, the most that was in use while the timed steps ran.
        memory_kind: what was measured.
        seconds_per_step: median of the timed steps.
        device: where they ran.
        runs: how many such runs there will be, at least and at most.
        search: optimiser steps that the search before the training takes as long as, about.
    """

    pairs: int
    steps: int
    pairs_seen: int
    weights: int
    trained: int
    memory: int
    memory_kind: str
    seconds_per_step: float
    device: str
    runs: tuple[int, int] = (1, 1)
    search: int = 0

    @property
    def seconds(self) -> float:
        """Expected seconds of one run's training."""
        return (self.steps + self.search) * self.seconds_per_step

    def text(self) -> str:
        """The estimate in a few lines."""
        least, most = (_duration(runs * self.seconds) for runs in self.runs)
        times = least if least == most else f"{least} to {most} ({self.runs[0]} to {self.runs[1]} runs)"
        search = f" after {self.search:,} of search" if self.search else ""
        return "\n".join(
            [
                f"pairs: {self.pairs:,}, seen {self.pairs_seen / self.pairs:.1f} times: {self.pairs_seen:,} in all",
                f"steps: {self.steps:,}{search} at {self.seconds_per_step:.2f} s (median of {TIMED_STEPS} timed ones)",
                f"weights: {self.weights / 1e6:,.1f} million, {self.trained / 1e6:,.1f} million of them trained",
                f"memory: {self.memory / 2**30:,.1f} GiB ({self.memory_kind})",
                f"expected time of the training on {self.device}: {times}; audits and saving come on top",
            ]
        )


def estimate(
    make_trainer: Callable[[TACleanerConfig, Any], Any],
    args: TACleanerConfig,
    pairs,
    amount: int | None = None,
    *,
    runs: tuple[int, int] = (1, 1),
) -> Estimate:
    """Run a few steps of the training in a folder that is thrown away, and scale their time.

    Args:
        make_trainer: (settings, pairs) -> a trainer of a copy of the model, which these steps change.
        args: the settings of the whole run.
        pairs: its training data, or the first `pairs_timed` of them, which are trained on.
        amount: how many there are; by default all of `pairs`.

    Raises:
        ValueError: what the trainer raises for data or settings it cannot work with.
    """
    batch, accumulation = args.train_batch_size * args.world_size, args.gradient_accumulation_steps
    amount = len(pairs) if amount is None else amount
    steps = steps_of(args, amount)
    few = min(steps, TIMED_STEPS + 1)
    clock = _Clock(args.device)
    if args.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(args.device)
    with tempfile.TemporaryDirectory() as folder:
        short = copy.copy(args)
        short.output_dir, short.max_steps, short.report_to = folder, few, []
        short.save_strategy = short.eval_strategy = "no"
        short.adversarial_search = 0  # counted, not run: a search step costs a training step without the optimiser
        short.push_to_hub = short.load_best_model_at_end = False
        trainer = make_trainer(short, pairs.select(range(min(len(pairs), batch * accumulation * few))))
        trainer.add_callback(clock)
        trainer.train()
    parameters = list(trainer.model.parameters())
    timed = clock.seconds[1:] or clock.seconds
    memory, kind = _memory(args.device)
    return Estimate(
        pairs=amount,
        steps=steps,
        pairs_seen=pairs_after(steps, amount, batch, accumulation),
        weights=sum(p.numel() for p in parameters),
        trained=sum(p.numel() for p in parameters if p.requires_grad),
        memory=memory,
        memory_kind=kind,
        seconds_per_step=statistics.median(timed),
        device=args.device.type,
        runs=runs,
        search=_search_steps(args),
    )


def pairs_timed(args: TACleanerConfig) -> int:
    """Pairs that the timed steps take, and a batch more in case some cannot be read."""
    batch = args.train_batch_size * args.world_size
    return batch * (args.gradient_accumulation_steps * (TIMED_STEPS + 1) + 1)


def steps_of(args: TACleanerConfig, pairs: int) -> int:
    """Optimiser steps of the whole run, as the trainer counts them: a batch that is not full is left out."""
    if args.max_steps > 0:
        return args.max_steps
    batches = pairs // (args.train_batch_size * args.world_size)
    return max(1, math.ceil(args.num_train_epochs * max(1, math.ceil(batches / args.gradient_accumulation_steps))))


def _search_steps(args: TACleanerConfig) -> int:
    """The search passes one batch of a process, where an optimiser step may gather several."""
    searches = args.adversarial_share
    return math.ceil(args.adversarial_search / args.gradient_accumulation_steps) if searches else 0


def _memory(device: torch.device) -> tuple[int, str]:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device), "the most allocated on the device"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024), "the most this process has held"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


class _Clock(TrainerCallback):
    """Seconds of every step, until the device has finished it."""

    def __init__(self, device: torch.device) -> None:
        self.seconds: list[float] = []
        self._device, self._began = device, 0.0

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()

    def on_step_begin(self, args, state, control, **kwargs) -> None:
        self._began = self._now()

    def on_step_end(self, args, state, control, **kwargs) -> None:
        self.seconds.append(self._now() - self._began)
