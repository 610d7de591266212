"""What one run of `clean` holds: what was asked for, and what is loaded for it before anything is measured."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datasets import Dataset

from ...data.loading import to_rgb
from ...data.naming import public_name
from ...detection.scan import ScanBothTimes
from ...models.published.form import Form, Kind
from ...models.published.self_check import PAIRS, settle
from ...sandbox import is_sandbox
from ...training.config import TACleanerConfig
from ...training.estimate import steps_of
from ...training.runs import RunLog
from ...training.strength import with_strength
from ...training.trainer import TACleanerTrainer
from ..options import EvalOptions, PairOptions
from ..parser import RENAMED_SETTINGS
from .options import CleanOptions, prepare, settle_evaluation, settle_form
from .pairs import choose_dataset, cleaning_pairs, cleaning_stream


if TYPE_CHECKING:
    from ...data.streaming import CleaningStream
    from ...evaluation.full_audit import FullAudit

logger = logging.getLogger(__name__)


@dataclass
class CleaningRun:
    """A cleaning that is ready to start. `CleaningRun.prepare` makes it.

    Attributes:
        options, pairs, evaluation: The groups of flags.
        args: The training settings at strength 1.
        config: The training settings at the strength asked for; `args` itself with `--strength auto`.
        settings: The settings that differ from their defaults, as plain values.
        model, processor: The suspect. The training changes the model in place, unless the run is `automatic`.
        form: The form that the suspect came in.
        save_as: The form that the cleaned model is written in, beside that of transformers.
        train_data: The pairs to train on.
        held_out: The pairs that clean utility is measured on; None if there are none.
        auditor: Audits a model on the labelled pictures; None without `--eval_dataset`.
        scans: Scans both models, on the main process of a run with `--scan`; else None.
        log: Keeps the settings and the training time in `run.json`.
        checkpoint: The folder of the checkpoint to resume from; None for a new run.
        trainer: Trains the suspect; None for an `automatic` run, which makes one trainer for each strength.
    """

    options: CleanOptions
    pairs: PairOptions
    evaluation: EvalOptions
    args: TACleanerConfig
    config: TACleanerConfig
    settings: dict[str, Any]
    model: Any
    processor: Any
    form: Form
    save_as: Kind
    train_data: Dataset | CleaningStream
    held_out: Dataset | None
    auditor: FullAudit | None
    scans: ScanBothTimes | None
    log: RunLog
    checkpoint: str | None = None
    trainer: TACleanerTrainer | None = None

    @classmethod
    def prepare(
        cls,
        options: CleanOptions,
        pairs: PairOptions,
        evaluation: EvalOptions,
        args: TACleanerConfig,
        settings: dict[str, Any],
    ) -> CleaningRun:
        """Checks the flags, claims the output folder, loads model and data, and makes the trainer.

        Raises:
            ValueError: Flags contradict each other, the output folder is in use, or model or data do not fit.
            OSError: A file or a download fails.
        """
        checkpoint = prepare(options, evaluation, args)
        log = RunLog(
            args.output_dir, settings, resume=options.resume, write=args.process_index == 0, renamed=RENAMED_SETTINGS
        )
        config = at_strength(options, args)
        model, processor, form = options.load_suspect()
        save_as = settle_form(options, form, model, whole=options.merge_adapter or not args.use_peft)
        auditor = evaluation.auditor_of_run(options.model, args)
        train_data, held_out = load_pairs_for(options, pairs, args, processor)
        model.to(args.device)
        settle_by_pairs(model, processor, form, train_data if isinstance(train_data, Dataset) else held_out)
        if "learning_rate" not in settings and is_sandbox(processor):
            logger.warning(
                "the default learning rate of %g is for a real CLIP; the sandbox's model is small and needs a higher "
                "one, such as --learning_rate 3e-4", args.learning_rate,
            )  # fmt: skip
        settle_evaluation(options, config, has_utility=held_out is not None)
        scans = None
        if options.scan and args.process_index == 0:
            scans = ScanBothTimes.of(auditor, args.output_dir, reference_name=public_name(evaluation.reference))
        run = cls(
            options=options,
            pairs=pairs,
            evaluation=evaluation,
            args=args,
            config=config,
            settings=settings,
            model=model,
            processor=processor,
            form=form,
            save_as=save_as,
            train_data=train_data,
            held_out=held_out,
            auditor=auditor,
            scans=scans,
            log=log,
            checkpoint=checkpoint,
        )
        run.make_first_trainer()
        return run

    @property
    def automatic(self) -> bool:
        """Whether the run searches for its strength (`--strength auto`)."""
        return self.options.strength == "auto"

    @property
    def main_process(self) -> bool:
        """Whether this process writes files and prints results."""
        return self.args.process_index == 0

    @property
    def output(self) -> Path:
        return Path(self.args.output_dir)

    def make_trainer(self, config: TACleanerConfig, model: Any, callbacks: Sequence[Any] = ()) -> TACleanerTrainer:
        """A trainer of the model on this run's pairs."""
        return TACleanerTrainer(
            model,
            config,
            self.train_data,
            eval_dataset=self.held_out,
            processing_class=self.processor,
            callbacks=list(callbacks),
        )

    def make_first_trainer(self) -> None:
        """Makes a trainer now, so that what it cannot train is refused before anything is measured."""
        if not self.options.streaming:
            pairs, steps = len(self.train_data), steps_of(self.args, len(self.train_data))
            logger.info("%d pairs, %d steps; --dry_run estimates their time and memory", pairs, steps)
        if self.automatic:
            self.make_trainer(self.config, copy.deepcopy(self.model))
        else:
            self.trainer = self.make_trainer(self.config, self.model, [self.log])
        self.model.to(self.args.device)


def settle_by_pairs(model: Any, processor: Any, form: Form, pairs: Dataset | None) -> None:
    """Settles what the suspect's file does not say by some of the pairs, if there are any."""
    if not form.assumed or pairs is None:
        return
    few = pairs.select(range(min(PAIRS, len(pairs))))
    settle(model, processor, form, [to_rgb(image) for image in few["image"]], list(few["caption"]))


def at_strength(options: CleanOptions, args: TACleanerConfig) -> TACleanerConfig:
    """The training settings at `--strength`; with `auto`, the settings as they are.

    Raises:
        ValueError: The strength is not a positive number.
    """
    return args if options.strength == "auto" else with_strength(args, float(options.strength))


def load_pairs_for(
    options: CleanOptions, pairs: PairOptions, args: TACleanerConfig, processor: Any
) -> tuple[Dataset | CleaningStream, Dataset | None]:
    """The pairs to train on and those to hold out. Writes the chosen dataset into `pairs`.

    Raises:
        ValueError: `--strength auto` has no held-out pairs to measure on.
    """
    choose_dataset(
        pairs, options.model, processor, streaming=options.streaming, allow_sandbox=options.allow_sandbox_data
    )
    if options.streaming:
        train, held_out = cleaning_stream(pairs, args, held_out=options.validation_samples)
    else:
        train, held_out = cleaning_pairs(pairs, held_out=options.validation_samples, seed=args.seed)
    if options.strength == "auto" and held_out is None:
        raise ValueError("--strength auto measures on held-out pairs, and there are too few pairs to hold any out")
    return train, held_out
