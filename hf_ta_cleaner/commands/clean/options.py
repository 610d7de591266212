"""The flags that only `clean` has, and the checks of all its flags before anything expensive."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...training.config import TACleanerConfig
from ..options import EvalOptions, SuspectOptions


if TYPE_CHECKING:
    from ...models.published.form import Form, Kind

#: The flags of `EvalOptions` that need the pictures of --eval_dataset.
NEED_PICTURES = ("trigger", "target", "reference", "linear_probe", "retrieval_dataset")

logger = logging.getLogger(__name__)


@dataclass
class CleanOptions(SuspectOptions):
    """What to clean."""

    _argument_group_name = "model"

    save_as: str | None = field(
        default=None,
        metadata={"help": "also write it as open_clip, as pt, or not: transformers (default: as it came)"},
    )
    allow_sandbox_data: bool = field(
        default=False, metadata={"help": "clean another model than the sandbox's with the sandbox's drawn pictures"}
    )
    resume: bool = field(default=False, metadata={"help": "continue the interrupted run in --output_dir"})
    streaming: bool = field(
        default=False, metadata={"help": "read pairs as they are needed and keep none; needs --max_steps"}
    )
    strength: str = field(
        default="1", metadata={"help": "multiplies rate and repel weight; auto: strongest in the budget"}
    )
    utility_budget: float = field(
        default=1.0, metadata={"help": "points of held-out clean utility that --strength auto may spend"}
    )
    merge_adapter: bool = field(
        default=False, metadata={"help": "with --use_peft: save a whole model, the adapters merged into it"}
    )
    keep: str = field(default="last", metadata={"help": "last or best (by clean utility) checkpoint"})
    validation_samples: int = field(
        default=1000, metadata={"help": "held-out pairs to measure clean utility on; 0 for none"}
    )
    dry_run: bool = field(default=False, metadata={"help": "estimate time and memory from a few steps, and stop"})
    check_data: bool = field(
        default=True, metadata={"help": "look for poison in a sample of the cleaning pairs, and warn"}
    )
    scan: bool = field(default=False, metadata={"help": "also scan both models for unknown triggers"})
    ca_baseline: list[str] | None = field(
        default=None, metadata={"help": "further models to compare clean accuracy with, for the loss"}
    )


def prepare(options: CleanOptions, evaluation: EvalOptions, args: TACleanerConfig) -> str | None:
    """Checks the flags, claims the output folder and the repository, and finds the checkpoint to resume from.

    Returns:
        The folder of the checkpoint; None for a new run and for `--strength auto`, which resumes its own runs.

    Raises:
        ValueError: The flags contradict each other, or the output folder is in use.
    """
    from ...models.checkpoints import last_checkpoint, prepare_output_dir
    from ...publishing.hub import claim

    check_options(options, evaluation, args)
    if args.process_index == 0:
        prepare_output_dir(args.output_dir, resume=options.resume)
        if args.push_to_hub:
            name = Path(args.output_dir).resolve().name
            args.hub_model_id = claim(
                args.hub_model_id, default=name, private=args.hub_private_repo, token=args.hub_token
            )
    if not options.resume or options.strength == "auto":
        return None
    checkpoint = last_checkpoint(args.output_dir)
    if checkpoint is None:
        logger.warning("%s holds no checkpoint to resume from; starting anew", args.output_dir)
    return checkpoint


def check_options(options: CleanOptions, evaluation: EvalOptions, args: TACleanerConfig) -> None:
    """Checks that the flags agree and that what they need is installed.

    Raises:
        ValueError: They contradict each other, or a tracker is not installed.
    """
    from ...models.published.form import KINDS
    from ...publishing.tracking import check_trackers

    check_trackers(args.report_to)
    if evaluation.eval_dataset is None:
        wanting = [name for name in NEED_PICTURES if getattr(evaluation, name) is not None]
        wanting += [name for name in ("scan", "ca_baseline") if getattr(options, name)]
        if wanting:
            raise ValueError(
                f"{', '.join(f'--{name}' for name in wanting)}: needs labelled pictures; give --eval_dataset"
            )
    if options.utility_budget != CleanOptions.utility_budget and options.strength != "auto":
        raise ValueError("--utility_budget limits what --strength auto may lose; give --strength auto too")
    if options.streaming and (args.max_steps < 1 or options.dry_run):
        raise ValueError(
            "--streaming has no end of its own: give --max_steps, and leave out --dry_run, which counts the pairs"
        )
    if options.keep not in ("last", "best"):
        raise ValueError(f"--keep must be last or best, got {options.keep}")
    if options.strength != "auto":
        try:
            float(options.strength)
        except ValueError:
            raise ValueError(f"--strength must be a positive number or auto, got {options.strength}") from None
    elif not options.validation_samples:
        raise ValueError("--strength auto measures on held-out pairs; give --validation_samples")
    if options.save_as is not None and options.save_as not in KINDS:
        raise ValueError(f"--save_as must be one of {', '.join(KINDS)}, got {options.save_as}")
    if options.merge_adapter and not args.use_peft:
        raise ValueError("--merge_adapter merges the adapters of --use_peft, which was not given")
    if args.push_to_hub and args.use_peft and not options.merge_adapter:
        raise ValueError("--push_to_hub publishes whole models; add --merge_adapter to --use_peft")
    if args.hub_strategy == "every_save" and (args.use_peft or options.strength == "auto"):
        raise ValueError(
            "--hub_strategy every_save pushes the checkpoints of one run of a whole model; leave it out with "
            "--use_peft and with --strength auto"
        )


def settle_evaluation(options: CleanOptions, args: TACleanerConfig, *, has_utility: bool) -> None:
    """Sets when clean utility is measured: whenever a checkpoint is written, unless the flags say otherwise.

    Args:
        options: The flags of `clean`.
        args: The training settings; changed.
        has_utility: Whether there are held-out pairs to measure it on.

    Raises:
        ValueError: `--keep best` or `--save_strategy best` has nothing to choose by or from.
    """
    best_only = args.save_strategy == "best"
    if (options.keep == "best" or best_only) and not has_utility:
        raise ValueError(
            "--keep best and --save_strategy best need held-out pairs; give --validation_samples or more data"
        )
    if has_utility and (args.eval_strategy == "no" or (options.keep == "best" and not best_only)):
        # The save strategy "best" needs measurements but does not ask for them.
        args.eval_strategy, args.eval_steps = "epoch" if best_only else args.save_strategy, args.save_steps
    if options.keep == "best":
        if args.save_strategy == "no":
            raise ValueError("--keep best needs checkpoints to choose from; got --save_strategy no")
        args.load_best_model_at_end = True
    if options.keep == "best" or best_only:
        args.metric_for_best_model, args.greater_is_better = "clean_utility", True


def settle_form(options: CleanOptions, form: Form, model: Any, *, whole: bool) -> Kind:
    """In which form the cleaned model is written beside that of transformers.

    Args:
        whole: Whether a whole model is saved, and not adapters beside the suspect.

    Raises:
        ValueError: The model cannot be written so.
    """
    from ...models.published.saving import check_form

    kind = options.save_as or form.kind
    check_form(kind, model)
    if not whole and kind != "transformers":
        raise ValueError(
            f"--use_peft saves adapters, and a model that is written as {kind} is whole; add --merge_adapter, or "
            "convert the model first"
        )
    return kind
