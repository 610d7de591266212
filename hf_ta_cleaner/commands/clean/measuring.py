"""What is measured on the suspect before the training and on the cleaned model after it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ...data.naming import public_name
from ...detection.pair_check import warn_of_poison
from ...evaluation.audit import Predictions
from ...evaluation.clean_utility import clean_utility
from ...models.checkpoints import load_model
from .run import CleaningRun


@dataclass
class Measurements:
    """What was measured on one model. Each is None if the run does not measure it.

    Attributes:
        section: The model's section of the report (`FullAudit`).
        predictions: The predictions that the section is made of.
        utility: The metrics of `clean_utility`, on the main process only.
    """

    section: dict[str, Any] | None = None
    predictions: Predictions | None = None
    utility: dict[str, float] | None = None


def check_data(run: CleaningRun) -> None:
    """Warns if a sample of the cleaning pairs looks poisoned. Of a stream, the held-out pairs are the sample."""
    sample = run.held_out if run.options.streaming else run.train_data
    if run.main_process and run.options.check_data and sample is not None:
        warn_of_poison(run.model, run.processor, sample, seed=run.args.seed)


def measure_before(run: CleaningRun) -> tuple[Measurements, dict[str, np.ndarray]]:
    """Measures the suspect. Every process calls this, because the processes share the pictures of the audit.

    Returns:
        The suspect's measurements, and what `correct_by_baseline` returns.
    """
    measured, baselines = Measurements(), {}
    if run.auditor:
        measured.section, measured.predictions = run.auditor(run.model, run.processor)
        baselines = correct_by_baseline(run, measured.predictions)
    _scan_and_measure_utility(run, measured, "before", run.model, public_name(run.options.model))
    return measured, baselines


def measure_after(run: CleaningRun, model: Any, audited: tuple[dict, Predictions] | None = None) -> Measurements:
    """Measures the cleaned model. Every process calls this.

    Args:
        run: The run that cleaned it.
        model: The cleaned model.
        audited: Its audit, if the training has already made it.
    """
    measured = Measurements()
    if run.auditor:
        measured.section, measured.predictions = audited or run.auditor(model, run.processor)
    _scan_and_measure_utility(run, measured, "after", model, public_name(run.output))
    return measured


def _scan_and_measure_utility(run: CleaningRun, measured: Measurements, when: str, model: Any, name: str) -> None:
    if run.scans:
        run.scans(when, model, run.processor, name)
    if run.main_process and run.held_out is not None:
        batch_size = run.args.per_device_eval_batch_size
        measured.utility = clean_utility(model, run.processor, run.held_out, batch_size=batch_size)


def correct_by_baseline(run: CleaningRun, suspect: Predictions) -> dict[str, np.ndarray]:
    """For each model that clean accuracy is compared with, the pictures that it classifies correctly.

    Returns:
        "suspect" and the public name of every `--ca_baseline` -> `(N,)` booleans, top-1.
    """
    correct = {"suspect": suspect.correct(1)}
    for name in run.options.ca_baseline or []:
        short = public_name(name)
        correct[name if short in correct else short] = classified_correctly(run, name)
    return correct


def classified_correctly(run: CleaningRun, name: str) -> np.ndarray:
    """`(N,)` booleans: which pictures the named model classifies correctly. The model is not kept in memory."""
    model, processor = load_model(name)
    return run.auditor.accuracy(model.to(run.args.device), processor).correct(1)
