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
    """What a named method decides. Each is a setting of the same name, which wins where it is given."""

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
#: Those that the temperature is a part of; without them it is trained by nothing.
SCALED = ("clip", "inmodal", "subtext")


@dataclass
class TACleanerConfig(TrainingArguments):
    r"""Arguments of [`TACleanerTrainer`].

    > The objective

    Args:
        method: A named set of weights and views: `ft`, `cleanclip`, `ta-cleaner`, `par` or `ta-cleaner-plus`. Settings
            that are None take the method's value.
        clip_weight, inmodal_weight, subtext_weight, repel_weight, distill_weight: Weights of the terms; each overrides
            the method's. 0 switches a term off, and what it alone needs is not computed. `clip_weight` is also the
            weight of the sigmoid loss that takes the CLIP loss's place in a SigLIP.
        subtext_fraction: Share of the pairs that get sub-texts, chosen anew each epoch. In [0, 1].
        num_positive, num_negative: True and false sub-texts for each chosen pair. Without positives
            (`num_positive` 0) the caption itself is the true text, so that the negatives act alone.
        subtext_swap: Which parts a false sub-text may swap: noun, relation, attribute.
        subtext_exclude: Words (lemmas) that no sub-text may hold, comma-separated: class names, to see what sub-texts
            do without them.
        repel_tau: Squared distance from the frozen suspect, in [0, 4], beyond which a tower is no longer repelled.
        repel_share: Share of the steps, from the start, in which the repel term acts; in the rest the others recover.
        rewind: In the first half of the steps the gradient is taken at weights moved back towards the suspect, by a
            share of the way that is drawn anew in [0, `rewind`] (`suspect.py`): what a later fine-tuning could bring
            back is unlearned too. With distillation the terms that captions teach by (clip, inmodal,
            subtext) rest meanwhile, at the cost of a step like the others, and then rise to their weights. In [0, 1];
            0 for the weights as they are and all terms, in all steps.
        train_logit_scale: Whether the temperature (and SigLIP's bias) is trained; it is kept in its legal range
            either way. Off where no term has it in it: distill and repel alone.
        freeze_batch_norm: Of a ResNet: whether its batch norms use the running statistics of the suspect, and keep
            them. Otherwise they use and learn the statistics of every batch, disturbed and augmented views included.
            Off for the published methods, whose code trains so; on for `ta-cleaner-plus`, whose views are far from
            clean pictures and whose retain term compares with the suspect as it is used. Always on with adapters.

    > Memory

    Args:
        mini_batch_size: So many pairs pass the towers at a time, while the loss is that of the whole batch (GradCache,
            Gao et al. 2021, arXiv 2101.06983): the same gradient up to rounding, for one more forward. None for all.
            Batch norms that are not frozen see the parts and not the batch: then the gradient is another.

    > The data

    Args:
        resize_once: Decode every picture once, before training, and keep it in the cache of `datasets` at the model's
            input size, 3 * S * S bytes each (150 KB at 224): the same pixels, and the cores have time for a faster
            accelerator. Not for a stream.
        trim_text: Cut every text batch to its longest caption, which changes no embedding; False pads to 77.
        image_noise: Share of the pictures that get Gaussian noise, drawn anew each epoch. In [0, 1].
        noise_sigma: Its standard deviation, of pixels in [0, 1].
        image_erase: Share of the pictures in which a square of 0.5-1% of the area is erased. In [0, 1].
        image_structured_noise: Share of the pictures that lie under waves or grain, drawn anew in every batch
            (`views/structured_noise.py`). In [0, 1].
        adversarial_patch: Share of the pictures that carry a window, a third to a sixth of a side wide, of a picture
            that is learnt while the model is trained, to raise its loss: patches of any place, searched for and
            unlearned at once (`views/adversarial_trigger.py`). In [0, 1], drawn anew in every batch.
        adversarial_blend: Share that are blended, up to a fifth, with another such picture.
        adversarial_map: Share that pass through a smooth change of the whole picture (colours, tone, light, sharpness,
            a slight warp) which is learnt in the same way (`global_map.py`). All three together at most 1.
        adversarial_step: Grey levels that the pixels of both move in a step of training: few, so that what the search
            found is unlearned before it is lost.
        adversarial_search: Steps of 32 grey levels in which only they move, on all pictures of the first batch, before
            the training: the suspect as it came shows a backdoor most clearly.

    > LoRA

    Args:
        use_peft: Train low-rank adapters (Hu et al. 2021, arXiv 2106.09685) of the attention and MLP blocks of both
            towers and leave the model's own weights, temperature included, as they are. Wants a higher rate.
        lora_rank, lora_alpha: Rank of the adapters, and their scale: they are multiplied by alpha / rank.

    Defaults that differ from `TrainingArguments`: `learning_rate` 1e-5, `per_device_train_batch_size` 64,
    `num_train_epochs` 10, `warmup_steps` 50, cosine decay and `weight_decay` 0.1 (the CleanCLIP recipe);
    `dataloader_drop_last` (a contrastive batch must be whole, so it cannot be switched off); `remove_unused_columns`
    off (the collator reads pictures); `save_strategy` epoch, `save_total_limit` 2, `metric_for_best_model`
    clean_utility where a best model is kept, `dataloader_num_workers` 0 on a CPU and a
    share of the cores beside an accelerator, `logging_steps` 10, `logging_nan_inf_filter` off (a diverged run must
    be seen), `report_to` none, `hub_strategy` end, `ddp_find_unused_parameters` off (all weights are used),
    `ddp_broadcast_buffers` off (the buffers are constants, and to share them would cost a message in every forward).
    """

    _argument_group_name = "cleaning (the objective and its optimisation)"

    method: Literal["ft", "cleanclip", "ta-cleaner", "par", "ta-cleaner-plus"] = field(
        default="ta-cleaner",
        metadata={"help": "decides the next fifteen, where they are not given"},
    )
    clip_weight: float | None = field(default=None, metadata={"help": "weight of the CLIP (or SigLIP) loss"})
    inmodal_weight: float | None = field(default=None, metadata={"help": "weight of CleanCLIP's in-modal loss"})
    subtext_weight: float | None = field(default=None, metadata={"help": "weight of the sub-text loss"})
    repel_weight: float | None = field(
        default=None, metadata={"help": "weight of PAR's repelling from a frozen copy of the suspect"}
    )
    distill_weight: float | None = field(
        default=None, metadata={"help": "weight of staying close to the suspect's embeddings of the untouched pair"}
    )
    repel_share: float | None = field(
        default=None, metadata={"help": "share of the steps, from the start, in which it acts"}
    )
    rewind: float | None = field(
        default=None, metadata={"help": "take gradients up to this share of the way back to the suspect, at first"}
    )
    image_noise: float | None = field(default=None, metadata={"help": "share of the pictures given Gaussian noise"})
    image_erase: float | None = field(default=None, metadata={"help": "share of the pictures with a square erased"})
    image_structured_noise: float | None = field(
        default=None, metadata={"help": "share of the pictures under waves or grain"}
    )
    adversarial_patch: float | None = field(
        default=None, metadata={"help": "share of the pictures that carry a patch which is learnt against the model"}
    )
    adversarial_blend: float | None = field(
        default=None, metadata={"help": "share blended with a picture learnt in the same way"}
    )
    adversarial_map: float | None = field(
        default=None, metadata={"help": "share under a smooth change of the whole picture that is learnt"}
    )
    train_logit_scale: bool | None = field(default=None, metadata={"help": "whether the temperature is trained"})
    freeze_batch_norm: bool | None = field(
        default=None, metadata={"help": "keep the running statistics of a ResNet's batch norms"}
    )
    repel_tau: float = field(default=2.15, metadata={"help": "squared distance that ends the repelling"})
    noise_sigma: float = field(default=0.2, metadata={"help": "standard deviation of the noise, pixels in [0, 1]"})
    adversarial_step: float = field(default=4.0, metadata={"help": "grey levels that learnt pixels move in a step"})
    adversarial_search: int = field(default=60, metadata={"help": "steps that they are learnt for before training"})
    subtext_fraction: float = field(
        default=0.25, metadata={"help": "share of the pairs given sub-texts, chosen anew each epoch"}
    )
    num_positive: int = field(default=1, metadata={"help": "true sub-texts a chosen pair; 0 for its caption alone"})
    num_negative: int = field(default=1, metadata={"help": "false sub-texts for each chosen pair"})
    subtext_swap: str = field(default=",".join(SWAPPABLE), metadata={"help": "parts a false one swaps, with commas"})
    subtext_exclude: str = field(
        default="", metadata={"help": "words that no sub-text may hold, comma-separated (for ablations)"}
    )
    mini_batch_size: int | None = field(
        default=None, metadata={"help": "pairs that pass the towers at a time: less memory, the same gradient"}
    )
    resize_once: bool = field(
        default=False, metadata={"help": "decode pictures once and keep them at the input size, on disk (exact)"}
    )
    trim_text: bool = field(default=True, metadata={"help": "cut text batches to their longest caption (exact)"})
    use_peft: bool = field(default=False, metadata={"help": "train LoRA adapters only (wants a higher rate)"})
    lora_rank: int = field(default=16, metadata={"help": "rank of the adapters"})
    lora_alpha: float = field(default=32.0, metadata={"help": "adapters are scaled by this over the rank"})

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
        # Trainer refuses --bf16 on a processor unless it is told that it is meant to run there.
        wants_cpu = bool(str_to_bool(os.environ.get("ACCELERATE_USE_CPU", "0")))
        self.use_cpu = self.use_cpu or wants_cpu or not torch.accelerator.is_available()
        if self.dataloader_num_workers is None:  # beside an accelerator the cores have nothing else to do
            share = (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
            self.dataloader_num_workers = 0 if self.use_cpu else min(16, max(1, share - 1))
        if isinstance(self.report_to, str):
            self.report_to = self.report_to.split(",")
        if self.accelerator_config is None and self.dataloader_pin_memory and not self.use_cpu:
            # By default every copy of a batch to the device would wait for the step before it.
            self.accelerator_config = {"non_blocking": True}

    def _take_over_method(self) -> None:
        """Fills what was not given with the method's values. Without a term that has it, the temperature rests."""
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
        """Share of the pictures that carry something learnt against the model."""
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
