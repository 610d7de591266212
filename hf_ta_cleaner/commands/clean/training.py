"""The training of one run: once, or at several strengths for `--strength auto`."""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass
from typing import Any

from ...evaluation.audit import Predictions
from ...models.checkpoints import save_model
from ...models.lora import merge
from ...models.published.saving import save_as
from ...publishing.tracking import AuditAround
from ...training.runs import taken_over
from ...training.strength import clear, train_strongest
from ...training.trainer import TACleanerTrainer
from .measuring import Measurements
from .run import CleaningRun


@dataclass
class Cleaned:
    """A cleaned model and how it was made.

    Attributes:
        model: The cleaned model.
        trainer: The trainer that made it, with its settings and its history.
        cost: `pairs_seen`, `seconds`, `strength`, and after a search `search_*` (`Search.cost`).
        audited: The audit made at the end of the training, while the trackers are open; None if there was none.
    """

    model: Any
    trainer: TACleanerTrainer
    cost: dict[str, float]
    audited: tuple[dict, Predictions] | None = None


def train(run: CleaningRun, before: Measurements) -> Cleaned:
    """Cleans the model and merges its adapters with `--merge_adapter`.

    Raises:
        TrainingDiverged: The loss or the weights are not finite.
    """
    cleaned = train_at_strongest(run) if run.automatic else train_once(run, before)
    if run.options.merge_adapter:
        cleaned.model = merge(cleaned.model)
    return cleaned


def train_once(run: CleaningRun, before: Measurements) -> Cleaned:
    """One training at the strength of the run, continued from its checkpoint if there is one."""
    trainer, around = run.trainer, None

    def current_model() -> Any:
        return trainer.accelerator.unwrap_model(trainer.model)

    if taken_over(trainer, run.checkpoint):
        run.log.begin()
    else:
        if run.auditor:
            around = AuditAround(trainer, before.section, lambda: run.auditor(current_model(), run.processor))
        trainer.train(resume_from_checkpoint=run.checkpoint)
    seconds = run.log.seconds_until(around.ended if around else time.perf_counter())
    cost = {"pairs_seen": trainer.pairs_seen, "seconds": seconds, "strength": float(run.options.strength)}
    return Cleaned(current_model(), trainer, cost, around.after if around else None)


def train_at_strongest(run: CleaningRun) -> Cleaned:
    """Trainings at several strengths; keeps the strongest whose clean utility is within `--utility_budget`."""
    run.model.cpu()  # each training gets a copy of it
    run.log.begin()
    trainer, search = train_strongest(
        lambda config: run.make_trainer(config, copy.deepcopy(run.model)),
        run.config,
        budget=run.options.utility_budget,
        resume=run.options.resume,
    )
    return Cleaned(trainer.accelerator.unwrap_model(trainer.model), trainer, search.cost())


def save(run: CleaningRun, cleaned: Cleaned) -> None:
    """Writes the cleaned model into the output folder and removes the runs of a finished search."""
    if run.main_process:
        save_model(cleaned.model, run.processor, run.output)
        save_as(run.form, cleaned.model, run.processor, run.output, kind=run.save_as)
        if run.automatic:
            clear(run.output)
