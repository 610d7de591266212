"""The cleaning loop: one forward of each tower for all views, a weighted sum of losses, every term logged."""

from __future__ import annotations

import logging
import math
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import nn
from torch.utils.data import DataLoader
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainerState
from transformers.trainer import TRAINER_STATE_NAME

from ..data.sampling import CleaningSampler
from ..data.streaming import CleaningStream
from ..distributed import world_size
from ..evaluation.clean_utility import clean_utility
from ..losses import Views
from ..models.acceleration import compile_blocks, group_texts, use_silu
from ..models.allocator import keep_freed_memory
from ..models.checkpoints import as_float32, load_model
from ..models.families import bound_texts, family_of
from ..models.lora import add_lora
from ..models.resnet import batch_norms, freeze_batch_norm
from ..models.suspect import FINGERPRINT, Suspect
from ..publishing.publisher import HubPublisher
from ..publishing.report import Report
from ..seeding import numpy_rng
from .batches import CleaningBatches
from .config import TACleanerConfig
from .embedding import Embedder
from .gradient_cache import cached_loss
from .objective import Objective, Progress, TermLog
from .perturbations import Perturbations
from .runs import StepCallback


logger = logging.getLogger(__name__)


class TrainingDiverged(RuntimeError):
    """The loss or a weight is not finite. The checkpoints on disk are from before that."""


class TACleanerTrainer(Trainer):
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

    Attributes:
        family: The kind of dual encoder: its loss, temperature and tokenization.
        objective: The weighted sum of the losses.
        batches: The training data, their order, and the number of pairs seen.
        perturbations: Structured noise and the adversarial trigger, which change some pictures of every batch.
        publisher: Pushes the model, its card and its report to the Hub.
        suspect: A frozen copy of the model before training; None if no setting needs it.

    Raises:
        ValueError: Columns are missing, the data is smaller than a batch, the model is of no known family, a resumed
            run that keeps the suspect began from another one, or `rewind` is used with DeepSpeed.
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
        model, processing_class = _loaded(model, processing_class)
        self.family = family_of(model)
        self.objective = Objective(args, self.family)
        self.batches = CleaningBatches(args, processing_class)
        self.publisher = HubPublisher(args, processing_class)
        self.perturbations = Perturbations(args, processing_class.image_processor, args.draw_seed)
        if train_dataset is not None:
            train_dataset = self.batches.prepare(train_dataset)
        model = _prepared(model, args, processing_class.tokenizer)
        self.suspect = Suspect(model) if args.keeps_suspect else None
        super().__init__(
            model=model,
            args=args,
            data_collator=self.batches.collator(self.family),
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
        self._term_log = TermLog(args.device)
        self._gathered = 0  # batches whose gradients the current step holds so far
        self.add_callback(StepCallback(self))

    # ------------------------------------------------------------------ loss
    def compute_loss(self, model: nn.Module, inputs: dict, return_outputs: bool = False, num_items_in_batch=None):
        """The weighted sum of the losses of a batch; with `return_outputs` also `{"terms": {name: loss}}`."""
        at, learns = self.progress, torch.is_grad_enabled()
        pairs = len(inputs["pixel_values"]) // (2 if self.data_collator.augment else 1)
        embedder = Embedder(
            self.family,
            self.processing_class.image_processor,
            augmented=self.data_collator.augment,
            suspect=self.suspect if self.objective.needs_suspect(at) else None,
        )
        unwrapped = self.accelerator.unwrap_model(model)
        figures: dict[str, torch.Tensor] = {}

        def objective(views: Views) -> torch.Tensor:
            loss, terms = self.objective(views, at)
            figures.update(terms)
            return loss

        if learns:
            inputs = self.perturbations(inputs, pairs, at.step, self._gathered)
        parts = math.ceil(pairs / (self.args.mini_batch_size or pairs)) if learns else 1
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
            self._term_log.add(figures)
        terms = {name.removeprefix("loss/"): term for name, term in figures.items() if name.startswith("loss/")}
        return (loss, {"terms": terms}) if return_outputs else loss

    @property
    def progress(self) -> Progress:
        """Steps done, and steps in all."""
        return Progress(self.state.global_step, self.state.max_steps)

    def training_step(self, model: nn.Module, inputs: dict, num_items_in_batch=None) -> torch.Tensor:
        """One forward and backward, at weights that may lie on the way back to the suspect (`rewind`)."""
        if self.perturbations.wants_search:
            self._search(model, self._prepare_inputs(inputs))
        share = 0.0
        if self.objective.rewinds(self.progress):
            share = self.args.rewind * numpy_rng("rewind", self.args.draw_seed, self.state.global_step).random()
        with self.suspect.rewound(self.accelerator.unwrap_model(model), share) if share else nullcontext():
            loss = super().training_step(model, inputs, num_items_in_batch)
        self._gathered += 1
        self.perturbations.ascend()
        # Reading the loss on an accelerator would stall its queue. There the check runs when logging and saving.
        if loss.device.type == "cpu":
            self._check_loss(loss.item(), self.state.global_step + 1)
        return loss

    def _search(self, model: nn.Module, inputs: dict) -> None:
        """Optimises the adversarial trigger alone on the first batch, against the suspect before training.

        Each search step is a training step, in parts and on all processes, but no weight moves.
        """
        self.perturbations.trigger.searching = True
        for _ in range(self.args.adversarial_search):
            with self.compute_loss_context_manager():
                loss = self.compute_loss(model, inputs)
            self.accelerator.backward(loss)
            self.perturbations.ascend()
            model.zero_grad()
        self.perturbations.trigger.searching = False
        self._term_log.clear()

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

    def get_train_dataloader(self) -> DataLoader:
        if isinstance(self.train_dataset, CleaningStream):
            return self.batches.stream_loader(self.train_dataset, self.data_collator, self._train_batch_size)
        return super().get_train_dataloader()

    def _get_train_sampler(self, train_dataset=None) -> CleaningSampler:
        return self.batches.make_sampler(train_dataset or self.train_dataset, self._train_batch_size)

    @property
    def pairs_seen(self) -> int:
        """Pairs trained on so far, over all processes. A pair counts each time it is seen."""
        return self.batches.pairs_seen(self.train_dataset, self.state.global_step)

    def init_hf_repo(self, token: str | None = None, private: bool | None = None) -> None:
        """Checks the token and creates the repository before any computation."""
        if self.is_world_process_zero():
            self.hub_model_id = self.publisher.claim(token, private)

    def create_model_card(self, report: Report | None = None) -> None:
        """Writes README.md, and the report if one is given, into the output folder."""
        self.publisher.write_card(self.model, self.hub_model_id, report)

    def push_to_hub(
        self,
        commit_message: str | None = None,
        token: str | None = None,
        private: bool | None = None,
        revision: None = None,
        report: Report | None = None,
    ) -> str | None:
        """Saves the model and pushes it with processor, card and report in one commit. Returns the address.

        Args:
            commit_message: (default: what was added.)
            token, private: In place of the settings'.
            revision: Only `Trainer.save_model` passes it; pushes go to main.
            report: What was measured; saved beside the model, and in the card.
        """
        if self.hub_model_id is None:
            self.init_hf_repo(token, private)
        if not self.is_world_process_zero():
            return None
        model = self.accelerator.unwrap_model(self.model)
        return self.publisher.push(model, self.hub_model_id, message=commit_message, token=token, report=report)

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        if self.args.hub_strategy != "end" and self.is_world_process_zero():
            self.publisher.push_progress(self.model, self.hub_model_id, checkpoint_folder, *self.progress)

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        """Saves as `Trainer` does, without the Hub token among the pickled settings."""
        token, self.args.hub_token = self.args.hub_token, None
        try:
            super()._save(output_dir, state_dict)
        finally:
            self.args.hub_token = token

    def _build_accelerator_args(self, **kwargs: Any) -> dict[str, Any]:
        """Drops the plugin that compiles the whole model. `compile_blocks` compiles its blocks one by one."""
        arguments = super()._build_accelerator_args(**kwargs)
        arguments.pop("dynamo_plugin", None)
        return arguments

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds the mean of every term since the last log line, and the temperature."""
        if "loss" in logs and self._term_log:
            logs |= self._term_log.take()
            logs["logit_scale"] = self.family.scale(self.accelerator.unwrap_model(self.model)).item()
            self._check_loss(logs["loss"], self.state.global_step)
        super().log(logs, start_time)

    def _save_checkpoint(self, model: nn.Module, trial) -> None:
        for total in self._term_log.sums():
            self._check_loss(total, self.state.global_step)
        self._check_weights()
        if self.args.should_save:
            folder = Path(self._get_output_dir(trial)) / f"checkpoint-{self.state.global_step}"
            folder.mkdir(parents=True, exist_ok=True)
            if self.suspect is not None:
                (folder / FINGERPRINT).write_text(self.suspect.fingerprint + "\n")
            self.perturbations.save(folder)
        super()._save_checkpoint(model, trial)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        if self.suspect is not None:
            self.suspect.check(resume_from_checkpoint)
        self.perturbations.load(resume_from_checkpoint, self.args.device)
        super()._load_from_checkpoint(resume_from_checkpoint, model)

    def load_weights(self, folder: str | Path) -> None:
        """Loads the weights (or adapters) that `save_model` wrote, and the log if `save_state` wrote one."""
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
        """Clean utility on held-out data (`clean_utility`). The main process measures it and sends it to all."""
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


def _loaded(model: PreTrainedModel | str, processor: Any) -> tuple[PreTrainedModel, Any]:
    """The model and its processor. Both are loaded if the model is an id or a folder."""
    if isinstance(model, str):
        model, own = load_model(model)
        processor = processor or own
    if processor is None:
        raise ValueError(
            "TACleanerTrainer needs the model's processor to read pictures and captions; "
            "give processing_class=CLIPProcessor.from_pretrained(...)"
        )
    return model, processor


def _prepared(model: PreTrainedModel, args: TACleanerConfig, tokenizer: Any) -> nn.Module:
    """The model as it is trained: float32 weights, a free or fixed temperature, adapters, faster blocks."""
    bound_texts(model, tokenizer)
    as_float32(model)
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
    use_silu(model)
    group_texts(model)
    if norms := len(batch_norms(model)):
        if args.freeze_batch_norm:
            freeze_batch_norm(model)
        else:
            logger.warning(
                "%d batch norms learn their statistics from the cleaning batches, augmented and perturbed views "
                "included, as in the published code; --freeze_batch_norm keeps the suspect's", norms,
            )  # fmt: skip
    return model
