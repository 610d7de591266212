"""What a report says about how a model was trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .wordnet import available


if TYPE_CHECKING:
    from .config import TACleanerConfig


def run_settings(args: TACleanerConfig, given: Mapping[str, Any], **data: Any) -> dict[str, Any]:
    """The main settings of a run, whatever else was set, and what it found on its machine.

    Args:
        args: The settings as they were used.
        given: What the command line and its configuration file set, `CommandParser.settings`.
        data: What is to be said about the data; None is left out.
    """
    rate, epochs = args.learning_rate, args.num_train_epochs
    main = {
        "learning_rate": rate,
        **({"max_steps": args.max_steps} if args.max_steps > 0 else {"num_train_epochs": epochs}),
        "batch_size": args.train_batch_size * args.gradient_accumulation_steps * args.world_size,
        "processes": args.world_size,
        "precision": "bf16" if args.bf16 else "fp16" if args.fp16 else "fp32",
        "warmup_steps": args.warmup_steps,
        "weight_decay": args.weight_decay,
        "lr_scheduler_type": getattr(args.lr_scheduler_type, "value", args.lr_scheduler_type),
        **{f"{name}_weight": weight for name, weight in args.weights.items()},
        **data,
        "wordnet": "found" if available() else "absent",
    }
    shown = {
        name: value for name, value in given.items() if name not in ("output_dir", "model", "dataset", "bf16", "fp16")
    }
    return {name: value for name, value in {**shown, **main}.items() if value is not None}
