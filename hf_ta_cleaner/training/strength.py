"""How strongly to clean: the strongest setting whose clean utility stays within a budget, determined by training.

Strength s multiplies the learning rate and the weight of the repel term: both say how far a run leaves the suspect.
"""

from __future__ import annotations

import copy
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from ..models.checkpoints import last_checkpoint
from .config import TACleanerConfig
from .runs import taken_over
from .trainer import TACleanerTrainer, TrainingDiverged


logger = logging.getLogger(__name__)

LADDER = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
RECORD = "strength.json"


@dataclass(frozen=True)
class Trial:
    """One run from the suspect: its strength, the clean utility it ends with in [0, 1], and what it cost.

    A run that diverged has utility 0.
    """

    strength: float
    utility: float
    pairs_seen: int
    seconds: float
    diverged: bool = False


@dataclass
class Search:
    """What was tried, and what was chosen.

    Attributes:
        reference: Clean utility of the suspect, in [0, 1].
        budget: What cleaning may cost of it, in points (hundredths).
        trials: Every run, in the order they were made.
        chosen: The strongest inside the budget; where none is, the one that costs least.
    """

    reference: float
    budget: float
    trials: list[Trial] = field(default_factory=list)

    @property
    def utilities(self) -> dict[float, float]:
        return {trial.strength: trial.utility for trial in self.trials}

    @property
    def chosen(self) -> Trial:
        strength = best_strength(self.utilities, self.reference - self.budget / 100)
        return next(trial for trial in self.trials if trial.strength == strength)

    def cost(self) -> dict[str, float]:
        """The chosen run's cost, and beside it what the other runs cost: for a report."""
        others = [trial for trial in self.trials if trial is not self.chosen]
        return {
            "pairs_seen": self.chosen.pairs_seen,
            "seconds": self.chosen.seconds,
            "strength": self.chosen.strength,
            "search_runs": len(others),
            "search_pairs_seen": sum(trial.pairs_seen for trial in others),
            "search_seconds": sum(trial.seconds for trial in others),
        }


def with_strength(args: TACleanerConfig, strength: float) -> TACleanerConfig:
    """A copy of the settings with the learning rate and the repel weight multiplied by the strength.

    Raises:
        ValueError: The strength is not a positive number.
    """
    if not 0 < strength < float("inf"):
        raise ValueError(f"strength must be a positive number or auto, got {strength}; 1 is the setting as it stands")
    args = copy.copy(args)
    args.learning_rate *= strength
    args.repel_weight *= strength
    return args


def strongest_within(utilities: Mapping[float, float], least: float) -> float | None:
    """The highest strength whose utility is at least `least`; None where there is none."""
    return max((s for s, utility in utilities.items() if utility >= least - 1e-9), default=None)


def best_strength(utilities: Mapping[float, float], least: float) -> float:
    """The highest strength whose utility is at least `least`; where none is, the one that costs least utility."""
    within = strongest_within(utilities, least)
    return max(utilities, key=lambda s: (utilities[s], s)) if within is None else within


def next_strength(
    utilities: Mapping[float, float], least: float, ladder: Sequence[float] = LADDER, start: float = 1.0
) -> float | None:
    """The rung to try next, None at the end.

    From `start` up as long as the utility holds. Else down until it does, as long as a weaker run costs no more: a
    term that moves the model must be given the rate to settle it, so that weaker can be worse. Where already the first
    step down is worse, up as long as a stronger run costs less or holds.
    """
    if start not in utilities:
        return start

    def holds(strength: float) -> bool:
        return utilities[strength] >= least - 1e-9

    up = sorted(s for s in ladder if s > start)
    down = sorted((s for s in ladder if s < start), reverse=True)
    last = start
    if not holds(start):
        for rung in down:
            if rung not in utilities:
                return rung
            if holds(rung):
                return None
            if utilities[rung] < utilities[last]:
                break
            last = rung
        if last != start:
            return None
    for rung in up:
        if rung not in utilities:
            return rung
        if not holds(rung) and (holds(start) or utilities[rung] <= utilities[last]):
            return None
        last = rung
    return None


def train_strongest(
    make_trainer: Callable[[TACleanerConfig], TACleanerTrainer],
    args: TACleanerConfig,
    *,
    budget: float = 1.0,
    ladder: Sequence[float] = LADDER,
    resume: bool = False,
) -> tuple[TACleanerTrainer, Search]:
    """Cleans at several strengths, each a full run from the suspect, and keeps the strongest inside the budget.

    The first run has strength 1. While the held-out utility holds, the next one is twice as strong, else half as
    strong; the first that changes the answer ends the search, so that two or three runs are usual (`next_strength`
    says what happens where weaker is worse). A run that diverges is outside. Nothing is known of trigger or target.
    The runs lie under `args.output_dir` until `clear` is called.

    Args:
        make_trainer: Settings -> a trainer of a fresh copy of the suspect, with held-out data as `eval_dataset`.
        args: The settings at strength 1.
        budget: Points of clean utility that may be lost against the suspect.
        ladder: The strengths, in any order; 1 is among them.
        resume: Continue an interrupted search in `args.output_dir`.

    Returns:
        A trainer that holds the chosen weights, and the search.

    Raises:
        ValueError: The budget is negative or the trainer has no held-out data.
        TrainingDiverged: Every strength tried diverges.
    """
    if budget < 0:
        raise ValueError(f"the utility budget is in points and must not be negative, got {budget}")
    search = _read(Path(args.output_dir)) if resume else None
    search = search and Search(search.reference, budget, search.trials)
    trainer = None
    while True:
        if search is None:
            trainer = make_trainer(_settings(args, 1.0))
            search = Search(trainer.evaluate()["eval_clean_utility"], budget)
            logger.info("clean utility of the suspect: %.1f%%", 100 * search.reference)
        strength = next_strength(search.utilities, search.reference - budget / 100, ladder)
        if strength is None:
            break
        trainer, trial = _run(make_trainer, _settings(args, strength), strength, resume)
        search.trials.append(trial)
        lost = 100 * (search.reference - trial.utility)
        logger.info(
            "strength %g (rate %.2g): clean utility %.1f%%, %.1f points lost of %g allowed, %.0f s",
            strength, args.learning_rate * strength, 100 * trial.utility, lost, budget, trial.seconds,
        )  # fmt: skip
        if trainer.is_world_process_zero():
            _write(search, Path(args.output_dir))
    _judge(search, args)
    settings = _settings(args, search.chosen.strength)
    if not (any(Path(settings.output_dir).glob("*model*.safetensors"))):
        trainer, _ = _run(make_trainer, settings, search.chosen.strength, resume)
    elif trainer is None or trainer.args.output_dir != settings.output_dir:
        trainer = make_trainer(settings)
        trainer.load_weights(settings.output_dir)
    return trainer, search


def _judge(search: Search, args: TACleanerConfig) -> None:
    """Refuses a search in which everything diverged, and warns if no strength stays within the budget."""
    chosen, budget = search.chosen, search.budget
    if chosen.diverged:
        raise TrainingDiverged(
            f"the training diverges at every strength down to {min(search.utilities):g}; lower --learning_rate "
            f"(now {args.learning_rate:g}) or use fp32"
        )
    if chosen.utility < search.reference - budget / 100 - 1e-9:
        logger.warning(
            "no strength of %s keeps clean utility within %g points (%.1f%% to %.1f%%); %g costs least and is taken. "
            "Clean with more pairs, or allow more with --utility_budget",
            ", ".join(f"{s:g}" for s in sorted(search.utilities)), budget, 100 * search.reference,
            100 * chosen.utility, chosen.strength,
        )  # fmt: skip


def clear(folder: str | Path) -> None:
    """Removes the runs of a search, once the chosen weights are saved elsewhere; its record stays."""
    for path in Path(folder).glob("strength-*"):
        shutil.rmtree(path)


def _settings(args: TACleanerConfig, strength: float) -> TACleanerConfig:
    settings = with_strength(args, strength)
    settings.output_dir = str(Path(args.output_dir) / f"strength-{strength:g}")
    settings.push_to_hub = False  # only what is chosen is published, by the caller
    return settings


def _run(
    make_trainer: Callable[[TACleanerConfig], TACleanerTrainer],
    settings: TACleanerConfig,
    strength: float,
    resume: bool,
) -> tuple[TACleanerTrainer, Trial]:
    """One full run; its weights lie in its folder afterwards."""
    trainer = make_trainer(settings)
    started, diverged = time.perf_counter(), False
    try:
        checkpoint = last_checkpoint(settings.output_dir) if resume else None
        if not taken_over(trainer, checkpoint):
            trainer.train(resume_from_checkpoint=checkpoint)
        utility = trainer.evaluate()["eval_clean_utility"]
    except TrainingDiverged as error:
        logger.info("strength %g: %s", strength, error)
        utility, diverged = 0.0, True
    trainer.save_model(settings.output_dir)
    trainer.save_state()  # with the log, for the report
    trainer.accelerator.wait_for_everyone()
    return trainer, Trial(strength, utility, trainer.pairs_seen, time.perf_counter() - started, diverged)


def _read(folder: Path) -> Search | None:
    if not (folder / RECORD).is_file():
        return None
    content = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    return Search(content["reference"], content["budget"], [Trial(**trial) for trial in content["trials"]])


def _write(search: Search, folder: Path) -> None:
    staging = folder / f".{RECORD}"
    staging.write_text(json.dumps(asdict(search), indent=2) + "\n", encoding="utf-8")
    os.replace(staging, folder / RECORD)
