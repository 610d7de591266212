"""Every setting of a cleaning run, with its default and its reason."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from accelerate.utils import str_to_bool
from transformers import TrainingArguments


#: Name of a method -> weights of its terms, as in the papers.
METHODS: dict[str, dict[str, float]] = {
    "ft": {"clip": 1.0, "inmodal": 0.0, "subtext": 0.0},
    "cleanclip": {"clip": 1.0, "inmodal": 1.0, "subtext": 0.0},
    "ta-cleaner": {"clip": 1.0, "inmodal": 1.0, "subtext": 1.0},
}

SWAPPABLE = ("noun", "relation", "attribute")


@dataclass
class TACleanerConfig(TrainingArguments):
    r"""Arguments of [`TACleanerTrainer`].

    > The objective

    Args:
        method: A named set of weights: `ft`, `cleanclip` or `ta-cleaner`.
        clip_weight, inmodal_weight, subtext_weight: Weights of the terms; each overrides the method's. 0 switches a
            term off, and what it alone needs is not computed.
        subtext_fraction: Share of the pairs that get sub-texts, chosen anew each epoch. In [0, 1].
        num_positive, num_negative: True and false sub-texts for each chosen pair.
        subtext_swap: Which parts a false sub-text may swap: noun, relation, attribute.
        train_logit_scale: Whether the temperature is trained; it is kept in [1, 100] either way.

    > The data

    Args:
        trim_text: Cut every text batch to its longest caption, which changes no embedding; False pads to 77.

    Defaults that differ from `TrainingArguments`: `learning_rate` 1e-5, `per_device_train_batch_size` 64,
    `num_train_epochs` 10, `warmup_steps` 50, cosine decay and `weight_decay` 0.1 (the CleanCLIP recipe);
    `dataloader_drop_last` (a contrastive batch must be whole, so it cannot be switched off); `remove_unused_columns`
    off (the collator reads pictures); `save_strategy` epoch, `save_total_limit` 2, `metric_for_best_model`
    clean_utility where a best model is kept, `dataloader_num_workers` 0 on a CPU and a
    share of the cores beside an accelerator, `logging_steps` 10, `logging_nan_inf_filter` off (a diverged run must
    be seen), `report_to` none, `hub_strategy` end, `ddp_find_unused_parameters` off (all weights are used).
    """

    _argument_group_name = "cleaning (the objective and its optimisation)"

    method: Literal["ft", "cleanclip", "ta-cleaner"] = field(
        default="ta-cleaner", metadata={"help": "named set of weights: ft, cleanclip or ta-cleaner"}
    )
    clip_weight: float | None = field(
        default=None, metadata={"help": "weight of the CLIP loss (default: the method's)"}
    )
    inmodal_weight: float | None = field(
        default=None, metadata={"help": "weight of CleanCLIP's in-modal loss (default: the method's)"}
    )
    subtext_weight: float | None = field(
        default=None, metadata={"help": "weight of the sub-text loss (default: the method's)"}
    )
    subtext_fraction: float = field(
        default=0.25, metadata={"help": "share of the pairs given sub-texts, chosen anew each epoch"}
    )
    num_positive: int = field(default=1, metadata={"help": "true sub-texts for each chosen pair"})
    num_negative: int = field(default=1, metadata={"help": "false sub-texts for each chosen pair"})
    subtext_swap: str = field(
        default=",".join(SWAPPABLE), metadata={"help": "parts a false sub-text may swap, comma-separated"}
    )
    train_logit_scale: bool = field(default=True, metadata={"help": "train the temperature"})
    trim_text: bool = field(default=True, metadata={"help": "cut text batches to their longest caption (exact)"})

    output_dir: str | None = field(
        default=None, metadata={"help": "where checkpoint and report go; never overwritten unasked"}
    )
    seed: int = field(default=0, metadata={"help": "of the order, the views and the sub-texts"})
    max_steps: int = field(default=-1, metadata={"help": "stop after so many steps, whatever the epochs"})
    eval_strategy: str = field(default="no", metadata={"help": "when to measure clean utility: no, steps, epoch"})
    bf16: bool = field(default=False, metadata={"help": "bfloat16 mixed precision"})
    fp16: bool = field(default=False, metadata={"help": "float16 mixed precision (accelerators only)"})
    dataloader_pin_memory: bool = field(
        default_factory=torch.cuda.is_available, metadata={"help": "pinned host memory for copies to an accelerator"}
    )
    dataloader_num_workers: int | None = field(
        default=None, metadata={"help": "processes that read pictures (default: a share of the cores; 0 on a CPU)"}
    )
    learning_rate: float = field(default=1e-5, metadata={"help": "peak learning rate"})
    per_device_train_batch_size: int = field(default=64, metadata={"help": "pairs per step and process"})
    per_device_eval_batch_size: int = field(default=256, metadata={"help": "pictures per evaluation batch"})
    num_train_epochs: float = field(default=10.0, metadata={"help": "passes over the cleaning data"})
    warmup_steps: float = field(default=50, metadata={"help": "steps of linear warm-up"})
    weight_decay: float = field(default=0.1, metadata={"help": "on matrices only, never on norms or embeddings"})
    lr_scheduler_type: str = field(default="cosine", metadata={"help": "decay after the warm-up"})
    dataloader_drop_last: bool = field(default=True, metadata={"help": "leave out an incomplete last batch"})
    remove_unused_columns: bool = field(default=False, metadata={"help": "kept off: the collator reads all columns"})
    save_strategy: str = field(default="epoch", metadata={"help": "when to write a checkpoint to resume from"})
    save_total_limit: int | None = field(default=2, metadata={"help": "checkpoints kept"})
    logging_steps: float = field(default=10, metadata={"help": "steps between log lines"})
    logging_nan_inf_filter: bool = field(default=False, metadata={"help": "kept off: a diverged run must be seen"})
    report_to: None | str | list[str] = field(  # noqa: RUF036 (HfArgumentParser needs this order)
        default="none", metadata={"help": "tensorboard, wandb, trackio, none"}
    )
    push_to_hub: bool = field(
        default=False, metadata={"help": "push checkpoint, card, report and config in one commit at the end"}
    )
    hub_model_id: str | None = field(
        default=None, metadata={"help": "where to: owner/name (default: the output folder's name in your account)"}
    )
    hub_private_repo: bool | None = field(
        default=None, metadata={"help": "true or false: make a new repository private (default: your account's)"}
    )
    hub_strategy: str = field(
        default="end", metadata={"help": "end, or every_save: also each saved checkpoint, in a commit of its own"}
    )
    ddp_find_unused_parameters: bool | None = field(default=False, metadata={"help": "all weights are used"})

    def __post_init__(self) -> None:
        if self.metric_for_best_model is None and (self.load_best_model_at_end or self.save_strategy == "best"):
            self.metric_for_best_model = "clean_utility"
        # Trainer refuses --bf16 on a processor unless it is told that it is meant to run there.
        wants_cpu = bool(str_to_bool(os.environ.get("ACCELERATE_USE_CPU", "0")))
        self.use_cpu = self.use_cpu or wants_cpu or not torch.accelerator.is_available()
        if self.dataloader_num_workers is None:  # beside an accelerator the cores have nothing else to do
            share = (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
            self.dataloader_num_workers = 0 if self.use_cpu else min(8, max(1, share - 1))
        super().__post_init__()
        if self.hub_strategy not in ("end", "every_save") or self.hub_revision is not None:
            raise ValueError(
                "hub_strategy must be end or every_save, and hub_revision is not used (pushes go to main); got "
                f"{self.hub_strategy!s} and {self.hub_revision}. The state to resume from stays in output_dir"
            )
        if self.n_gpu > 1:  # several GPUs are for `accelerate launch`: one process each, the loss over all of them
            self._n_gpu = 1
        if self.method not in METHODS:
            raise ValueError(f"method {self.method!r} is unknown; choose from {', '.join(METHODS)}")
        for name, weight in self.weights.items():
            if not 0 <= weight < float("inf"):
                raise ValueError(f"{name}_weight must not be negative, got {weight}; 0 switches the term off")
        if not any(self.weights.values()):
            raise ValueError("all weights are 0, so there is nothing to train; set clip_weight=1")
        if not 0 <= self.subtext_fraction <= 1:
            raise ValueError(
                f"subtext_fraction must be in [0, 1], got {self.subtext_fraction}. "
                f"Did you mean {self.subtext_fraction / 100:g}?"
            )
        if self.weights["subtext"] and (self.num_positive < 1 or self.num_negative < 0 or not self.subtext_fraction):
            raise ValueError(
                "the sub-text term needs num_positive >= 1, num_negative >= 0 and subtext_fraction > 0, got "
                f"{self.num_positive}, {self.num_negative} and {self.subtext_fraction}; "
                "set subtext_weight=0 to do without"
            )
        if not self.dataloader_drop_last:
            raise ValueError(
                "dataloader_drop_last must stay on, got False: an incomplete batch has fewer negatives and no chosen "
                "pair. Leave the setting out; every epoch skips other pairs"
            )
        if unknown := [part for part in self.swaps if part not in SWAPPABLE]:
            raise ValueError(f"subtext_swap: {', '.join(unknown)} unknown; choose from {', '.join(SWAPPABLE)}")

    @property
    def swaps(self) -> tuple[str, ...]:
        """The parts a false sub-text may swap."""
        return tuple(part.strip() for part in self.subtext_swap.split(",") if part.strip())

    @property
    def weights(self) -> dict[str, float]:
        """Weight of every term: the method's, unless overridden."""
        own = {"clip": self.clip_weight, "inmodal": self.inmodal_weight, "subtext": self.subtext_weight}
        return {name: METHODS[self.method][name] if weight is None else weight for name, weight in own.items()}

    @property
    def recipe(self) -> dict[str, Any]:
        """The settings that decide the weights of a run, as plain values under their own names."""
        names = (
            "method subtext_fraction num_positive num_negative subtext_swap train_logit_scale learning_rate "
            "num_train_epochs max_steps warmup_steps weight_decay lr_scheduler_type per_device_train_batch_size "
            "gradient_accumulation_steps seed bf16 fp16"
        ).split()
        own = {name: getattr(self, name) for name in names}
        weights = {f"{name}_weight": weight for name, weight in self.weights.items()}
        return {name: getattr(value, "value", value) for name, value in {**own, **weights}.items()}
