"""Audit figures for the trackers of a training: TensorBoard, Weights & Biases, Trackio, under stable names."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import Trainer, TrainerCallback
from transformers.integrations import get_available_reporting_integrations

from .report import figures


TRACKERS = ("tensorboard", "wandb", "trackio")


def check_trackers(names: Sequence[str]) -> None:
    """Refuses a tracker whose package is not there; the trainer would, with a traceback, when the data are loaded.

    Raises:
        ValueError: one of the trackers cannot be used; the message says what to install.
    """
    there = get_available_reporting_integrations()
    if missing := [name for name in names if name not in there]:
        known = [name for name in missing if name in TRACKERS]
        remedy = f"pip install {' '.join(known)}" if known else f"choose from {', '.join(TRACKERS)}, none"
        raise ValueError(f"--report_to {' '.join(missing)} cannot be used here: {remedy}")


class AuditAround(TrainerCallback):
    """Logs an audit of before the training at step 0, and makes and logs one after it at the last step.

    Both happen while the trackers are open: they start in `on_train_begin` and some end in `on_train_end`, so this one
    takes the first place among the callbacks and logs after the former and before the latter.

    Args:
        trainer: The trainer to join.
        before: The section of a report that was measured before.
        measure: Gives the result of the audit after, whose first part is a section; every process calls it.

    Attributes:
        after: What `measure` gave, None before the end.
        ended: `time.perf_counter()` at the end of the training, without the audit.
    """

    def __init__(self, trainer: Trainer, before: dict[str, Any], measure: Callable[[], tuple]) -> None:
        self.trainer, self.before, self.measure = trainer, before, measure
        self.after: tuple | None = None
        self.ended: float | None = None
        trainer.callback_handler.callbacks.insert(0, self)

    def on_epoch_begin(self, args, state, control, **kwargs) -> None:
        if state.global_step == 0:  # a resumed run logged it when it began
            self.trainer.log(figures(self.before))

    def on_train_end(self, args, state, control, model=None, **kwargs) -> None:
        self.ended = time.perf_counter()
        # Of weights that are not finite the trainer itself complains, and knows the step.
        if all(torch.isfinite(parameter).all() for parameter in model.parameters()):
            self.after = self.measure()
            self.trainer.log(figures(self.after[0]))
