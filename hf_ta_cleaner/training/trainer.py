"""The cleaning loop: one forward of each tower for all views, a weighted sum of losses, every term logged."""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import nn
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainerState
from transformers.trainer import TRAINER_STATE_NAME

from ..distributed import world_size
from ..evaluation.clean_utility import clean_utility
from ..losses import LOSSES, Views, suspect_distances
from ..models.acceleration import compile_blocks, group_texts, use_silu
from ..models.allocator import keep_freed_memory
from ..models.checkpoints import as_float32, load_model
from ..models.families import bound_texts, family_of
from ..models.lora import add_lora
from ..models.suspect import FINGERPRINT, Suspect
from ..seeding import numpy_rng
from ..views.adversarial_trigger import AdversarialTrigger
from ..views.collator import DataCollatorForTACleaner
from ..views.structured_noise import StructuredNoise
from .batches import CleaningBatches
from .config import TACleanerConfig
from .embedding import UNTOUCHED, Embedder, normalise, standardise
from .gradient_cache import cached_loss
from .publishing import HubPublishing


logger = logging.getLogger(__name__)

#: Share of the steps, from the start, that are rewound; in the rest the model settles where it is.
REWOUND = 0.5


class TrainingDiverged(RuntimeError):
    """The loss is no longer a finite number. The last checkpoint on disk is from before that."""


class TACleanerTrainer(CleaningBatches, HubPublishing, Trainer):
    """Fine-tunes the backdoor out of a CLIP or SigLIP (CleanCLIP, arXiv 2303.03323; TA-Cleaner, arXiv 2409.17601;
    Perturb and Recover, arXiv 2412.00727).

        trainer = TACleanerTrainer("suspect/clip", args=TACleanerConfig("out"), train_dataset=pairs)
        trainer.train()

    Args:
        model: The suspect `CLIPModel` or `SiglipModel`, or a Hub id or folder of one. To resume a run, the same.
        args: The settings.
        train_dataset: Clean pairs with the columns `image` and `caption`. Where the method needs sub-texts and the
            column `parts` is missing, `SubTextMap` is applied. Or a `CleaningStream` of them, with `max_steps`.
        eval_dataset: Held-out data to measure clean utility on: with a `label` column zero-shot accuracy, else
            retrieval recall of `image` and `caption`.
        processing_class: The model's processor; loaded with the model when that is an id.
        callbacks: Passed on to `Trainer`.

    Raises:
        ValueError: Columns are missing, the data is smaller than a batch, the model is of no known family, or a
            resumed run that keeps the suspect was begun from another one. Or DeepSpeed is to rewind.
        ImportError: `use_peft` without peft.
    """

    _tag_names = ("clip", "backdoor-defense", "ta-cleaner")
    loss_is_scaled_for_ga = False  # the losses are means over the batch

    def __init__(
        self,
        model: PreTrainedModel | str,
        args: TACleanerConfig | None = None,
        train_dataset=None,
        eval_dataset=None,
        processing_class=None,
        callbacks: list[TrainerCallback] | None = None,
        **kwargs: Any,
    ) -> None:
        args = args if args is not None else TACleanerConfig(output_dir="outputs/ta-cleaner")
        if isinstance(model, str):
            model, loaded = load_model(model)
            processing_class = processing_class or loaded
        if processing_class is None:
            raise ValueError(
                "TACleanerTrainer needs the model's processor to read pictures and captions; "
                "give processing_class=CLIPProcessor.from_pretrained(...)"
            )
        self.family = family_of(model)
        bound_texts(model, processing_class.tokenizer)
        as_float32(model)
        self.weights = args.weights
        vocabulary = None
        if train_dataset is not None:
            train_dataset, vocabulary = self._prepare(train_dataset, args, processing_class)
        collator = DataCollatorForTACleaner(
            processing_class,
            family=self.family,
            augment=bool(self.weights["inmodal"]),
            vocabulary=vocabulary,
            num_positive=args.num_positive,
            num_negative=args.num_negative,
            swap=args.swaps,
            exclude=args.excluded,
            seed=self._seed(args),
            trim=args.trim_text,
            noise=args.image_noise,
            erase=args.image_erase,
            noise_sigma=args.noise_sigma,
        )
        if args.device.type == "cpu":
            keep_freed_memory()
        for parameter in (model.logit_scale, getattr(model, "logit_bias", None)):
            if parameter is not None:
                parameter.requires_grad_(args.train_logit_scale)
        if args.bf16 and args.device.type == "cpu":
            # In bfloat16 the backward of PyTorch's fused CPU attention takes longer than everything else together.
            model.set_attn_implementation("eager")
        if args.use_peft:
            model = add_lora(model, rank=args.lora_rank, alpha=args.lora_alpha)
        self.adversarial_trigger = None
        if args.adversarial_share:
            self.adversarial_trigger = AdversarialTrigger(
                patch=args.adversarial_patch,
                blend=args.adversarial_blend,
                maps=args.adversarial_map,
                step=args.adversarial_step,
                seed=self._seed(args),
            )
        use_silu(model)
        group_texts(model)
        self.structured_noise = (
            StructuredNoise(args.image_structured_noise, self._seed(args)) if args.image_structured_noise else None
        )
        wants_suspect = (self.weights["repel"] and args.repel_share) or self.weights["distill"] or args.rewind
        self.suspect = Suspect(model) if wants_suspect else None
        super().__init__(
            model=model,
            args=args,
            data_collator=collator,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            callbacks=callbacks,
            **kwargs,
        )
        if args.rewind and self.is_deepspeed_enabled:
            raise ValueError("rewind moves whole weights, and DeepSpeed may hold them in parts; use DDP, or rewind=0")
        if self.suspect is not None:
            self.suspect.prepare(self.accelerator)
        if args.torch_compile:
            compile_blocks(model, backend=args.torch_compile_backend, mode=args.torch_compile_mode)
        self._losses = {
            **LOSSES,
            "clip": LOSSES[self.family.alignment],
            "repel": partial(LOSSES["repel"], tau=args.repel_tau),
        }
        self._sums: dict[str, torch.Tensor] = defaultdict(lambda: torch.zeros((), device=args.device))
        self._steps_summed: dict[str, int] = defaultdict(int)
        self._gathered = 0  # batches of the step that have passed
        self._sampler = None  # made with the batches
        self.add_callback(_StepCallback(self))

    # ------------------------------------------------------------------ loss
    def compute_loss(self, model: nn.Module, inputs: dict, return_outputs: bool = False, num_items_in_batch=None):
        repelling = bool(self.weights["repel"]) and self._is_repelling()
        embedder = self._embedder(repelling)
        unwrapped = self.accelerator.unwrap_model(model)
        figures: dict[str, torch.Tensor] = {}

        def objective(views: Views) -> torch.Tensor:
            loss, found = self._objective(views, repelling)
            figures.update(found)
            return loss

        if torch.is_grad_enabled():
            inputs = self._attacked(inputs)
        parts = self._parts(inputs) if torch.is_grad_enabled() else 1
        if parts == 1:
            loss = objective(embedder(model, inputs, unwrapped))
        else:
            loss = cached_loss(
                embedder,
                model,
                inputs,
                unwrapped=unwrapped,
                parts=parts,
                objective=objective,
                backward=lambda part: self.accelerator.backward(part / self.current_gradient_accumulation_steps),
                no_sync=lambda: self.accelerator.no_sync(model),
            )
        if model.training:
            for name, figure in figures.items():
                self._sums[name] += figure
                self._steps_summed[name] += 1
        terms = {name.removeprefix("loss/"): term for name, term in figures.items() if name.startswith("loss/")}
        return (loss, {"terms": terms}) if return_outputs else loss

    def _embedder(self, repelling: bool) -> Embedder:
        return Embedder(
            self.family,
            self.processing_class.image_processor,
            augmented=self.data_collator.augment,
            suspect=self.suspect if repelling or self.weights["distill"] else None,
        )

    def _objective(self, views: Views, repelling: bool) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The weighted sum of the losses, and what is logged of them, without gradient."""
        # The towers may run in half precision; a softmax over similarities times 100 should not.
        with torch.autocast(self.args.device.type, enabled=False):
            terms = {
                name: self._losses[name](views)
                for name, weight in self.weights.items()
                if weight and (name != "repel" or repelling)
            }
            loss = sum(self._weight(name) * term for name, term in terms.items())
        figures = {f"loss/{name}": term.detach() for name, term in terms.items()}
        if views.image_suspect is not None:
            distances = [distance.detach() for distance in suspect_distances(views)]
            figures |= zip(("distance/image", "distance/text"), distances, strict=True)
        return loss, figures

    def _pairs(self, inputs: dict) -> int:
        return len(inputs["pixel_values"]) // (2 if self.data_collator.augment else 1)

    def _parts(self, inputs: dict) -> int:
        """In how many parts the batch passes the towers."""
        pairs = self._pairs(inputs)
        return math.ceil(pairs / (self.args.mini_batch_size or pairs))

    def _attacked(self, inputs: dict) -> dict:
        """The batch with disturbances over some of its first views, and the adversary on some."""
        if self.structured_noise is None and self.adversarial_trigger is None:
            return inputs
        pairs, pixels = self._pairs(inputs), inputs["pixel_values"]
        if self.structured_noise is not None and not (
            self.adversarial_trigger is not None and self.adversarial_trigger.searching
        ):
            pixels = self.structured_noise(pixels, pairs, self.state.global_step, self._gathered)
        if self.adversarial_trigger is not None:
            image_processor = self.processing_class.image_processor
            attack = partial(standardise, image_processor=image_processor)
            pixels = self.adversarial_trigger.attack(normalise(pixels, image_processor), pairs, attack, pixels)
        return {**inputs, "pixel_values": pixels, UNTOUCHED: inputs["pixel_values"][:pairs]}

    def _is_repelling(self) -> bool:
        """Whether this step is in the repelling part of the run: decided by its number, so exact after resuming."""
        return self.state.global_step < self.args.repel_share * self.state.max_steps

    def _weight(self, name: str) -> float:
        """A term's weight in this step. Beside a rewound retain term those that captions teach by rest, then rise to
        their weights; at 0 they are still a part of the graph, so that every parameter has a gradient to share."""
        if name in ("distill", "repel") or not (self.args.rewind and self.weights["distill"]):
            return self.weights[name]
        passed = self.state.global_step / max(1, self.state.max_steps)
        return self.weights[name] * max(0.0, (passed - REWOUND) / (1 - REWOUND))

    def _is_rewinding(self) -> bool:
        """Whether this step's gradient is taken on the way back to the suspect."""
        return bool(self.args.rewind) and self.state.global_step < REWOUND * self.state.max_steps

    def training_step(self, model: nn.Module, inputs: dict, num_items_in_batch=None) -> torch.Tensor:
        if self.adversarial_trigger is not None and self.adversarial_trigger.is_new:
            self._search(model, self._prepare_inputs(inputs))
        share = 0.0
        if self._is_rewinding():
            share = self.args.rewind * numpy_rng("rewind", self._seed(self.args), self.state.global_step).random()
        with self.suspect.rewound(self.accelerator.unwrap_model(model), share) if share else nullcontext():
            loss = super().training_step(model, inputs, num_items_in_batch)
        self._gathered += 1
        if self.adversarial_trigger is not None:
            self.adversarial_trigger.ascend()
        # On an accelerator a look at the loss would stall the queue: there it happens when logging and saving.
        if loss.device.type == "cpu":
            self._check_loss(loss.item(), self.state.global_step + 1)
        return loss

    def _search(self, model: nn.Module, inputs: dict) -> None:
        """Lets the adversary search against the model as it is, on the first batch: that is where a backdoor is.

        As a step of training, in parts and on all processes, but that no weight moves.
        """
        self.adversarial_trigger.searching = True
        for _ in range(self.args.adversarial_search):
            with self.compute_loss_context_manager():
                loss = self.compute_loss(model, inputs)
            self.accelerator.backward(loss)
            self.adversarial_trigger.ascend()
            model.zero_grad()
        self.adversarial_trigger.searching = False
        self._sums.clear()
        self._steps_summed.clear()

    def _check_loss(self, loss: float, step: int) -> None:
        if not math.isfinite(loss):
            self._diverged(f"the loss is {loss} at step {step}")

    def _check_weights(self) -> None:
        """A finite loss can have an infinite gradient, which shows in the weights before it shows in a loss."""
        if not all(torch.isfinite(parameter).all() for parameter in self.model.parameters()):
            self._diverged(f"the weights are no longer finite after step {self.state.global_step}")

    def _diverged(self, what: str) -> NoReturn:
        raise TrainingDiverged(
            f"{what}; lower --learning_rate (now {self.args.learning_rate:g}) or use fp32. Checkpoints in "
            f"{self.args.output_dir} are from before and intact "
            f"(best: {self.state.best_model_checkpoint or 'none yet'})"
        )

    # ------------------------------------------------------------------ hooks of Trainer
    def _build_accelerator_args(self, **kwargs: Any) -> dict[str, Any]:
        """Without what would compile the whole model: its blocks are compiled one by one."""
        arguments = super()._build_accelerator_args(**kwargs)
        arguments.pop("dynamo_plugin", None)
        return arguments

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds the mean of every term since the last line, and the temperature."""
        if "loss" in logs and self._sums:
            totals = torch.stack(list(self._sums.values())).tolist()
            logs |= {n: total / self._steps_summed[n] for n, total in zip(self._sums, totals, strict=True)}
            logs["logit_scale"] = self.family.scale(self.accelerator.unwrap_model(self.model)).item()
            self._sums.clear()
            self._steps_summed.clear()
            self._check_loss(logs["loss"], self.state.global_step)
        super().log(logs, start_time)

    def _save_checkpoint(self, model: nn.Module, trial) -> None:
        for total in self._sums.values():
            self._check_loss(total.item(), self.state.global_step)
        self._check_weights()
        if self.args.should_save:
            folder = Path(self._get_output_dir(trial)) / f"checkpoint-{self.state.global_step}"
            folder.mkdir(parents=True, exist_ok=True)
            if self.suspect is not None:
                (folder / FINGERPRINT).write_text(self.suspect.fingerprint + "\n")
            if self.adversarial_trigger is not None:
                self.adversarial_trigger.save(folder)
        super()._save_checkpoint(model, trial)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        if self.suspect is not None:
            self.suspect.check(resume_from_checkpoint)
        if self.adversarial_trigger is not None:
            self.adversarial_trigger.load(resume_from_checkpoint, self.args.device)
        super()._load_from_checkpoint(resume_from_checkpoint, model)

    def load_weights(self, folder: str | Path) -> None:
        """Takes over the weights (or adapters) that `save_model` wrote, and the log if `save_state` wrote it there."""
        super()._load_from_checkpoint(str(folder))
        state = Path(folder) / TRAINER_STATE_NAME
        if state.is_file():
            self.state = TrainerState.load_from_json(str(state))

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """Decay matrices only: no bias, norm, temperature, token, position or class embedding."""
        return [
            name
            for name, parameter in model.named_parameters()
            if parameter.ndim >= 2 and not ("embedding" in name and "patch_embedding" not in name)
        ]

    def evaluate(
        self, eval_dataset=None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Clean utility on held-out data, measured on the main process and told to all (see `clean_utility`)."""
        dataset = self.eval_dataset if eval_dataset is None else eval_dataset
        if dataset is None:
            raise ValueError("nothing to evaluate on; give the trainer an eval_dataset or evaluate(eval_dataset=...)")
        model = self.accelerator.unwrap_model(self.model)
        metrics: list[dict[str, float] | None] = [None]
        if self.is_world_process_zero():
            values = clean_utility(
                model, self.processing_class, dataset, batch_size=self.args.per_device_eval_batch_size
            )
            metrics = [{f"{metric_key_prefix}_{name}": value for name, value in values.items()}]
        if world_size() > 1:
            torch.distributed.broadcast_object_list(metrics)
        self.log(dict(metrics[0]))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics[0])
        return metrics[0]


class _StepCallback(TrainerCallback):
    """What must happen at fixed points of the loop: the sampler's epoch, a legal temperature, a finite end."""

    def __init__(self, trainer: TACleanerTrainer) -> None:
        self.trainer = trainer

    def on_epoch_begin(self, args, state, control, **kwargs) -> None:
        if self.trainer._sampler is not None:
            self.trainer._sampler.set_epoch(int(state.epoch))

    def on_optimizer_step(self, args, state, control, model=None, **kwargs) -> None:
        self.trainer._gathered = 0
        self.trainer.family.clamp(self.trainer.accelerator.unwrap_model(model))

    def on_train_end(self, args, state, control, **kwargs) -> None:
        self.trainer._check_weights()
