"""What a cleaning would cost, from a few timed steps."""

from __future__ import annotations

from ...training.config import TACleanerConfig
from ...training.estimate import Estimate, estimate, pairs_timed
from ...training.trainer import TACleanerTrainer
from ..options import EvalOptions, PairOptions
from .options import CleanOptions, check_options
from .pairs import choose_dataset, few_pairs
from .run import at_strength


def dry_run(options: CleanOptions, pairs: PairOptions, evaluation: EvalOptions, args: TACleanerConfig) -> Estimate:
    """Times a few steps on the model and estimates the whole run. Writes nothing.

    Raises:
        ValueError: The run itself would refuse the flags, the model or the data.
    """
    check_options(options, evaluation, args)
    config = at_strength(options, args)
    model, processor, _ = options.load_suspect()
    choose_dataset(
        pairs, options.model, processor, streaming=options.streaming, allow_sandbox=options.allow_sandbox_data
    )
    train, amount = few_pairs(pairs, pairs_timed(args), held_out=options.validation_samples, seed=args.seed)
    return estimate(
        lambda short, few: TACleanerTrainer(model, short, few, processing_class=processor),
        config,
        train,
        amount,
        runs=(2, 3) if options.strength == "auto" else (1, 1),  # what train_strongest usually takes
    )
