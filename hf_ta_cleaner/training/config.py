"""Every setting of a cleaning run, with its default and its reason."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import torch
from accelerate.utils import str_to_bool
from transformers import TrainingArguments

from .checks import BEFORE_METHOD, CHECKS, SWAPPABLE, check, check_no_fsdp


@dataclass(frozen=True)
class Method:
    """The settings that a named method decides. A setting that is given overrides the method's value."""

    clip_weight: float = 1.0
    inmodal_weight: float = 0.0
    subtext_weight: float = 0.0
    repel_weight: float = 0.0
    distill_weight: float = 0.0
    repel_share: float = 1.0
    rewind: float = 0.0
    image_noise: float = 0.0
    image_erase: float = 0.0
    image_structured_noise: float = 0.0
    adversarial_patch: float = 0.0
    adversarial_blend: float = 0.0
    adversarial_map: float = 0.0
    train_logit_scale: bool = True
    freeze_batch_norm: bool = False


#: The methods: the first four as in their papers, `ta-cleaner-plus` is this project's recipe (docs/methods.md).
METHODS: dict[str, Method] = {
    "ft": Method(),
    "cleanclip": Method(inmodal_weight=1.0),
    "ta-cleaner": Method(inmodal_weight=1.0, subtext_weight=1.0),
    "par": Method(repel_weight=1.0, image_noise=0.5, image_erase=0.5, train_logit_scale=False),
    "ta-cleaner-plus": Method(
        distill_weight=10.0,
        rewind=0.6,
        image_structured_noise=0.35,
        adversarial_patch=0.25,
        train_logit_scale=False,
        freeze_batch_norm=True,
    ),
}

#: Terms of the objective; the weight of each is the setting `<term>_weight`.
TERMS = ("clip", "inmodal", "subtext", "repel", "distill")
#: Terms that contain the temperature. Without them nothing trains it.
SCALED = ("clip", "inmodal", "subtext")


@dataclass
class TACleanerConfig(TrainingArguments):
    r"""Arguments of [`TACleanerTrainer`].

    > The objective

    Args:
        method: A named set of weights and views: `ft`, `cleanclip`, `ta-cleaner`, `par` or `ta-cleaner-plus`. Settings
            that are None take the method's value.
        clip_weight, inmodal_weight, subtext_weight, repel_weight, distill_weight: Weights of the terms; each overrides
            the method's. 0 switches a term off and skips its computation. `clip_weight` is also the weight of the
            sigmoid loss, which replaces the CLIP loss in a SigLIP.
        subtext_fraction: Share of the pairs that get sub-texts, chosen anew each epoch. In [0, 1].
        num_positive, num_negative: True and false sub-texts for each chosen pair. With
            `num_positive` 0 the caption itself is the true text, and the negatives act alone.
        subtext_swap: Which parts a false sub-text may swap: noun, relation, attribute.
        subtext_exclude: Words (lemmas) that no sub-text may hold, comma-separated. Class names
            here measure what sub-texts contribute without them.
        repel_tau: Squared distance from the frozen suspect, in [0, 4]. Beyond it the repel term of a tower is off.
        repel_share: Share of the steps, from the start, with the repel term. In the rest the other terms recover.
        rewind: Path-aware minimisation (Min et al. 2024, arXiv 2410.09838), in the first half of the steps. The
            gradient is taken at weights moved back towards the suspect, by a share of the way drawn in [0, `rewind`]
            for each step (`models/suspect.py`). So the model also unlearns what a later fine-tuning could restore.
            With distillation, the terms clip, inmodal and subtext have weight 0 in that half, are still computed, and
            rise to their weights in the second. In [0, 1]; 0 switches it off.
        train_logit_scale: Whether the temperature (and SigLIP's bias) is trained. It stays in its legal range either
            way. Always off if only distill and repel have a weight, because neither contains it.
        freeze_batch_norm: Whether the batch norms of a ResNet use and keep the suspect's running statistics. Otherwise
            they use and learn the statistics of every batch, perturbed and augmented views included. Off for the
            published methods, as in their code. On for `ta-cleaner-plus`: its views are far from clean pictures, and
            its distillation compares with the suspect in eval mode. Always on with adapters.

    > Memory

    Args:
        mini_batch_size: Number of pairs that pass the towers at a time. The loss is still that of the whole batch
            (GradCache, Gao et al. 2021, arXiv 2101.06983), with the same gradient up to rounding, for one more
            forward. None for all pairs at once. Batch norms that are not frozen see the parts instead of the batch,
            and then the gradient differs.

    > The data

    Args:
        resize_once: Decode every picture once, before training, and keep it in the cache of `datasets` at the model's
            input size, 3 * S * S bytes each (150 KB at 224). The pixels are the same, and the cores do less work in
            every epoch. Not for a stream.
        trim_text: Cut every text batch to its longest caption, which changes no embedding; False pads to 77.
        image_noise: Share of the pictures that get Gaussian noise, drawn anew each epoch. In [0, 1].
        noise_sigma: Its standard deviation, of pixels in [0, 1].
        image_erase: Share of the pictures in which a square of 0.5-1% of the area is erased. In [0, 1].
        image_structured_noise: Share of the pictures that get structured noise, waves or grain, drawn anew in every
            batch (`views/structured_noise.py`). In [0, 1].
        adversarial_patch: Share of the pictures with a universal adversarial patch, a sixth to a third of a side wide,
            drawn anew in every batch. Training optimises its pixels to raise the loss, while the weights unlearn it
            (`views/adversarial_trigger.py`). In [0, 1].
        adversarial_blend: Share of the pictures blended, with opacity up to a fifth, with a universal adversarial
            picture that covers the whole of them. In [0, 1].
        adversarial_map: Share of the pictures under a universal adversarial change of colours, tone, light, sharpness
            and shape (`views/global_map.py`). In [0, 1]; the three shares together are at most 1.
        adversarial_step: Grey levels that the pixels of patch and blend move in a training step. Few, so that the
            model unlearns a trigger before the search moves on.
        adversarial_search: Steps that optimise the trigger alone before the training, by 32 grey levels each, on all
            pictures of the first batch. A backdoor is strongest in the suspect before training.

    > LoRA

    Args:
        use_peft: Train low-rank adapters (Hu et al. 2021, arXiv 2106.09685) of the attention and MLP blocks of both
            towers. The model's own weights, temperature included, stay frozen. Needs a higher learning rate.
        lora_rank, lora_alpha: Rank of the adapters, and their scale: an adapter is multiplied by alpha / rank.

    Defaults that differ from `TrainingArguments`: `learning_rate` 1e-5, `per_device_train_batch_size` 64,
    `num_train_epochs` 10, `warmup_steps` 50, cosine decay and `weight_decay` 0.1 (the CleanCLIP recipe);
    `dataloader_drop_last` (a contrastive batch must be whole, so it cannot be switched off); `remove_unused_columns`
    off (the collator reads pictures); `save_strategy` epoch, `save_total_limit` 2, `metric_for_best_model`
    clean_utility if a best model is kept, `dataloader_num_workers` 0 on a CPU and a share of
    the cores with an accelerator, `logging_steps` 10, `logging_nan_inf_filter` off (a diverged run must
    be seen), `report_to` none, `hub_strategy` end, `ddp_find_unused_parameters` off (all weights are used),
    `ddp_broadcast_buffers` off (the buffers are constants, and sharing them would cost a message in every forward).
    """

    _argument_group_name = "cleaning (the objective and its optimisation)"

    method: Literal["ft", "cleanclip", "ta-cleaner", "par", "ta-cleaner-plus"] = field(
        default="ta-cleaner",
        metadata={"help": "sets the next fifteen settings, unless they are given"},
    )
    clip_weight: float | None = field(default=None, metadata={"help": "weight of the CLIP (or SigLIP) loss"})
    inmodal_weight: float | None = field(default=None, metadata={"help": "weight of CleanCLIP's in-modal loss"})
    subtext_weight: float | None = field(default=None, metadata={"help": "weight of the sub-text loss"})
    repel_weight: float | None = field(
        default=None, metadata={"help": "weight of PAR's repel term: distance from the frozen suspect"}
    )
    distill_weight: float | None = field(
        default=None, metadata={"help": "weight of distillation from the frozen suspect, on unperturbed pairs"}
    )
    repel_share: float | None = field(
        default=None, metadata={"help": "share of the steps, from the start, with the repel term"}
    )
    rewind: float | None = field(
        default=None,
        metadata={"help": "path-aware minimisation: gradients at weights up to this share back"},
    )
    image_noise: float | None = field(default=None, metadata={"help": "share of the pictures given Gaussian noise"})
    image_erase: float | None = field(default=None, metadata={"help": "share of the pictures with a square erased"})
    image_structured_noise: float | None = field(
        default=None, metadata={"help": "share of the pictures with structured noise (waves or grain)"}
    )
    adversarial_patch: float | None = field(
        default=None, metadata={"help": "share of the pictures with a universal adversarial patch"}
    )
    adversarial_blend: float | None = field(
        default=None, metadata={"help": "share blended with a universal adversarial picture"}
    )
    adversarial_map: float | None = field(
        default=None, metadata={"help": "share under an adversarial change of colours, light and shape"}
    )
    train_logit_scale: bool | None = field(default=None, metadata={"help": "whether the temperature is trained"})
    freeze_batch_norm: bool | None = field(
        default=None, metadata={"help": "keep the running statistics of a ResNet's batch norms"}
    )
    repel_tau: float = field(default=2.15, metadata={"help": "squared distance at which the repel term stops"})
    noise_sigma: float = field(default=0.2, metadata={"help": "standard deviation of the noise, pixels in [0, 1]"})
    adversarial_step: float = field(default=4.0, metadata={"help": "grey levels that its pixels move per step"})
    adversarial_search: int = field(default=60, metadata={"help": "steps that optimise the trigger before training"})
    subtext_fraction: float = field(
        default=0.25, metadata={"help": "share of the pairs that get sub-texts, chosen anew each epoch"}
    )
    num_positive: int = field(default=1, metadata={"help": "true sub-texts per chosen pair; 0: its caption"})
    num_negative: int = field(default=1, metadata={"help": "false sub-texts per chosen pair"})
    subtext_swap: str = field(default=",".join(SWAPPABLE), metadata={"help": "parts a false one may swap"})
    subtext_exclude: str = field(
        default="", metadata={"help": "words that no sub-text may hold, comma-separated (for ablations)"}
    )
    mini_batch_size: int | None = field(
        default=None, metadata={"help": "pairs per forward of the towers: less memory, the same gradient"}
    )
    resize_once: bool = field(
        default=False, metadata={"help": "decode pictures once and keep them at the input size, on disk (exact)"}
    )
    trim_text: bool = field(default=True, metadata={"help": "cut text batches to their longest caption (exact)"})
    use_peft: bool = field(default=False, metadata={"help": "train LoRA adapters only (needs a higher rate)"})
    lora_rank: int = field(default=16, metadata={"help": "rank of the adapters"})
    lora_alpha: float = field(default=32.0, metadata={"help": "adapters are scaled by this over the rank"})

    output_dir: str | None = field(
        default=None, metadata={"help": "where checkpoint and report go; never overwritten unasked"}
    )
    seed: int = field(default=0, metadata={"help": "of the order, the views and the sub-texts"})
    max_steps: int = field(default=-1, metadata={"help": "stop after this many steps, whatever the epochs"})
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
        default="none", metadata={"help": "tensorboard, wandb, trackio, or several of them with commas"}
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
        default="end", metadata={"help": "end, or every_save: also each saved checkpoint, a commit each"}
    )
    ddp_find_unused_parameters: bool | None = field(default=False, metadata={"help": "all weights are used"})
    ddp_broadcast_buffers: bool | None = field(default=False, metadata={"help": "the buffers are constants"})

    def __post_init__(self) -> None:
        self._settle_machine()
        check_no_fsdp(self)
        super().__post_init__()
        if self.n_gpu > 1:  # several GPUs are for `accelerate launch`: one process each, the loss over all of them
            self._n_gpu = 1
        check(self, BEFORE_METHOD)
        self._take_over_method()
        check(self, CHECKS)

    def _settle_machine(self) -> None:
        """Fills what depends on this machine and on how the program was launched."""
        if self.metric_for_best_model is None and (self.load_best_model_at_end or self.save_strategy == "best"):
            self.metric_for_best_model = "clean_utility"
        # Trainer refuses --bf16 on a CPU unless use_cpu is set.
        wants_cpu = bool(str_to_bool(os.environ.get("ACCELERATE_USE_CPU", "0")))
        self.use_cpu = self.use_cpu or wants_cpu or not torch.accelerator.is_available()
        if self.dataloader_num_workers is None:  # with an accelerator the cores are otherwise idle
            share = (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
            self.dataloader_num_workers = 0 if self.use_cpu else min(16, max(1, share - 1))
        if isinstance(self.report_to, str):
            self.report_to = self.report_to.split(",")
        if self.accelerator_config is None and self.dataloader_pin_memory and not self.use_cpu:
            # By default every copy of a batch to the device waits for the previous step.
            self.accelerator_config = {"non_blocking": True}

    def _take_over_method(self) -> None:
        """Fills settings that are None with the method's values. Freezes a temperature that no term contains."""
        if self.use_peft:
            self.train_logit_scale, self.freeze_batch_norm = False, True
        for item in fields(Method):
            if getattr(self, item.name) is None:
                setattr(self, item.name, getattr(METHODS[self.method], item.name))
        if not any(self.weights[name] for name in SCALED):
            self.train_logit_scale = False

    @staticmethod
    def methods() -> tuple[str, ...]:
        """The names that `method` may have."""
        return tuple(METHODS)

    @property
    def swaps(self) -> tuple[str, ...]:
        """The parts a false sub-text may swap."""
        return tuple(part.strip() for part in self.subtext_swap.split(",") if part.strip())

    @property
    def excluded(self) -> frozenset[str]:
        """The words that no sub-text may hold."""
        return frozenset(word for name in self.subtext_exclude.split(",") for word in name.split())

    @property
    def draw_seed(self) -> int:
        """Seed of the order, the views and the sub-texts: `data_seed` where it is given."""
        return self.seed if self.data_seed is None else self.data_seed

    @property
    def adversarial_share(self) -> float:
        """Share of the pictures that carry the adversarial trigger, in any of its three forms."""
        return self.adversarial_patch + self.adversarial_blend + self.adversarial_map

    @property
    def keeps_suspect(self) -> bool:
        """Whether a term or `rewind` needs a frozen copy of the suspect."""
        return bool((self.repel_weight and self.repel_share) or self.distill_weight or self.rewind)

    @property
    def weights(self) -> dict[str, float]:
        """Weight of every term."""
        return {name: getattr(self, f"{name}_weight") for name in TERMS}

    @property
    def recipe(self) -> dict[str, Any]:
        """The settings that decide the weights of a run, as plain values under their own names."""
        names = (
            "method rewind image_noise image_erase image_structured_noise adversarial_patch adversarial_blend "
            "adversarial_map train_logit_scale freeze_batch_norm use_peft learning_rate num_train_epochs max_steps "
            "warmup_steps weight_decay lr_scheduler_type per_device_train_batch_size gradient_accumulation_steps "
            "seed bf16 fp16"
        )
        parts = {  # of these only the settings of what is switched on
            "subtext_fraction num_positive num_negative subtext_swap subtext_exclude": self.weights["subtext"],
            "repel_tau repel_share": self.weights["repel"],
            "noise_sigma": self.image_noise,
            "adversarial_step adversarial_search": self.adversarial_share,
            "lora_rank lora_alpha": self.use_peft,
        }
        names = " ".join([names, *(part for part, used in parts.items() if used)]).split()
        own = {name: getattr(self, name) for name in names}
        weights = {f"{name}_weight": weight for name, weight in self.weights.items()}
        return {name: getattr(value, "value", value) for name, value in {**own, **weights}.items()}
