"""The cleaning loop: one forward of each tower for all views, a weighted sum of losses, every term logged."""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import nn
from transformers import PreTrainedModel, Trainer, TrainerCallback

from .allocator import keep_freed_memory
from .checkpoints import load_model, save_model
from .collator import DataCollatorForTACleaner, also_true
from .config import TACleanerConfig
from .distributed import gather, world_size
from .families import family_of
from .hub import claim, push_checkpoint, write_card
from .hub_errors import HubError
from .losses import LOSSES, SubTexts, Views
from .report import Report
from .sampling import CleaningPairs, CleaningSampler
from .subtexts import Parts, SubTextMap, Vocabulary
from .utility import clean_utility


logger = logging.getLogger(__name__)


class TrainingDiverged(RuntimeError):
    """The loss is no longer a finite number. The last checkpoint on disk is from before that."""


class TACleanerTrainer(Trainer):
    """Fine-tunes the backdoor out of a CLIP (CleanCLIP, arXiv 2303.03323; TA-Cleaner, arXiv 2409.17601).

        trainer = TACleanerTrainer("suspect/clip", args=TACleanerConfig("out"), train_dataset=pairs)
        trainer.train()

    Args:
        model: The suspect `CLIPModel`, or a Hub id or folder of one.
        args: The settings.
        train_dataset: Clean pairs with the columns `image` and `caption`. Where the method needs sub-texts and the
            column `parts` is missing, `SubTextMap` is applied.
        eval_dataset: Held-out data to measure clean utility on: with a `label` column zero-shot accuracy, else
            retrieval recall of `image` and `caption`.
        processing_class: The model's `CLIPProcessor`; loaded with the model when that is an id.
        callbacks: Passed on to `Trainer`.

    Raises:
        ValueError: Columns are missing, the data is smaller than a batch, the model is no CLIP.
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
        self.weights = args.weights
        vocabulary = None
        if train_dataset is not None:
            train_dataset, vocabulary = self._prepare(train_dataset, args)
        collator = DataCollatorForTACleaner(
            processing_class,
            augment=bool(self.weights["inmodal"]),
            vocabulary=vocabulary,
            num_positive=args.num_positive,
            num_negative=args.num_negative,
            swap=args.swaps,
            seed=self._seed(args),
            trim=args.trim_text and self.family.trimmable,
        )
        model.logit_scale.requires_grad_(args.train_logit_scale)
        if args.device.type == "cpu":
            keep_freed_memory()
        if args.bf16 and args.device.type == "cpu":
            # In bfloat16 the backward of PyTorch's fused CPU attention takes longer than everything else together.
            model.set_attn_implementation("eager")
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
        self._sums: dict[str, torch.Tensor] = defaultdict(lambda: torch.zeros((), device=args.device))
        self._steps_summed = 0
        self._sampler: CleaningSampler | None = None
        self.add_callback(_StepCallback(self))

    # ------------------------------------------------------------------ data
    @staticmethod
    def _seed(args: TACleanerConfig) -> int:
        return args.seed if args.data_seed is None else args.data_seed

    def _prepare(self, dataset, args: TACleanerConfig) -> tuple[CleaningPairs, Vocabulary | None]:
        """Checks the columns and parses the captions, once."""
        columns = dataset.column_names
        if missing := [c for c in ("image", "caption") if c not in columns]:
            raise ValueError(
                f"train_dataset needs the columns image and caption; found {', '.join(columns)}, missing "
                f"{', '.join(missing)}. Rename them with dataset.rename_column, or load the data with load_pairs"
            )
        if not self.weights["subtext"]:
            return CleaningPairs(dataset.select_columns(["image", "caption"])), None
        if "parts" not in columns:
            with args.main_process_first(desc="reading captions"):
                dataset = dataset.map(SubTextMap(), batched=True, desc="Reading captions")
        rows = dataset["parts"]
        return CleaningPairs(dataset.select_columns(["image", "caption", "parts"])), Vocabulary.from_parts(rows)

    def _get_train_sampler(self, train_dataset=None) -> CleaningSampler:
        pairs: CleaningPairs = train_dataset or self.train_dataset
        subtexts = self.weights["subtext"] > 0
        if subtexts:
            eligible = [Parts.from_row(row).eligible for row in pairs.dataset["parts"]]
        else:
            eligible = [False] * len(pairs)
        self._sampler = CleaningSampler(
            eligible,
            batch_size=self._train_batch_size,
            fraction=self.args.subtext_fraction if subtexts else 0.0,
            seed=self._seed(self.args),
            processes=self.args.world_size,
        )
        if subtexts and not round(self.args.subtext_fraction * self._train_batch_size):
            raise ValueError(
                f"subtext_fraction={self.args.subtext_fraction:g} of a batch of {self._train_batch_size} pairs rounds "
                "to none; raise it, or per_device_train_batch_size"
            )
        if subtexts and not self._sampler.chosen:
            raise ValueError(
                f"only {sum(eligible)} of {len(eligible)} captions have a noun to make sub-texts of, too few for one "
                "in every batch; use --method cleanclip, or data with English captions"
            )
        return self._sampler

    @property
    def pairs_seen(self) -> int:
        """Pairs trained on so far, over all processes; a pair counts once each time it is seen."""
        batch = self.args.train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size
        return self.state.global_step * batch

    # ------------------------------------------------------------------ loss
    def compute_loss(self, model: nn.Module, inputs: dict, return_outputs: bool = False, num_items_in_batch=None):
        views = self._embed(model, inputs)
        # The towers may run in half precision; a softmax over similarities times 100 should not.
        with torch.autocast(self.args.device.type, enabled=False):
            terms = {name: LOSSES[name](views) for name, weight in self.weights.items() if weight}
            loss = sum(self.weights[name] * term for name, term in terms.items())
        if model.training:
            for name, term in terms.items():
                self._sums[name] += term.detach()
            self._steps_summed += 1
        return (loss, {"terms": terms}) if return_outputs else loss

    def _embed(self, model: nn.Module, inputs: dict) -> Views:
        """Local batch -> one forward -> views of the global batch."""
        output = model(
            pixel_values=self._normalise(inputs["pixel_values"]),
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
        )
        views = 2 if self.data_collator.augment else 1
        b = len(inputs["pixel_values"]) // views
        image = list(output.image_embeds.float().split(b))
        text = list(output.text_embeds.float().split([b] * views + [len(output.text_embeds) - views * b]))
        scale = self.family.scale(self.accelerator.unwrap_model(model)).float()
        image, text[:views] = [gather(x) for x in image], [gather(x) for x in text[:views]]
        image_aug, text_aug = (image[1], text[1]) if views == 2 else (None, None)
        return Views(image[0], text[0], scale, image_aug, text_aug, self._subtexts(text[views], inputs, b))

    def _subtexts(self, embeddings: torch.Tensor, inputs: dict, batch_size: int) -> SubTexts | None:
        if "chosen" not in inputs:
            return None
        k, p = inputs["positive_valid"].shape
        positive = embeddings[: k * p].view(k, p, -1)
        negative = embeddings[k * p :].view(k, -1, embeddings.shape[-1])
        rank = self.args.process_index if world_size() > 1 else 0
        words, captions = gather(inputs["positive_words"]), gather(inputs["caption_words"])
        return SubTexts(
            positive=gather(positive),
            negative=gather(negative),
            chosen=gather(inputs["chosen"] + rank * batch_size),
            positive_valid=gather(inputs["positive_valid"]),
            negative_valid=gather(inputs["negative_valid"]),
            also_true=also_true(words, captions),
        )

    def _normalise(self, pixels: torch.Tensor) -> torch.Tensor:
        """uint8 pixels -> the floats the model wants, on the device, with the processor's own numbers."""
        settings = self.processing_class.image_processor
        pixels = pixels.float()
        if settings.do_rescale:
            pixels = pixels * settings.rescale_factor
        if settings.do_normalize:
            mean, std = (
                torch.tensor(v, device=pixels.device).view(1, 3, 1, 1)
                for v in (settings.image_mean, settings.image_std)
            )
            pixels = (pixels - mean) / std
        return pixels

    def training_step(self, model: nn.Module, inputs: dict, num_items_in_batch=None) -> torch.Tensor:
        loss = super().training_step(model, inputs, num_items_in_batch)
        # On an accelerator a look at the loss would stall the queue: there it happens when logging and saving.
        if loss.device.type == "cpu":
            self._check_loss(loss.item(), self.state.global_step + 1)
        return loss

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
    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds the mean of every term since the last line, and the temperature."""
        if "loss" in logs and self._steps_summed:
            means = torch.stack([self._sums[name] for name in self._sums]) / self._steps_summed
            logs |= {f"loss/{name}": value for name, value in zip(self._sums, means.tolist(), strict=True)}
            logs["logit_scale"] = self.family.scale(self.accelerator.unwrap_model(self.model)).item()
            self._sums.clear()
            self._steps_summed = 0
            self._check_loss(logs["loss"], self.state.global_step)
        super().log(logs, start_time)

    def _save_checkpoint(self, model: nn.Module, trial) -> None:
        for total in self._sums.values():
            self._check_loss(total.item(), self.state.global_step)
        self._check_weights()
        super()._save_checkpoint(model, trial)

    # ------------------------------------------------------------------ Hub
    # Trainer would push the whole folder, its arguments pickled, under a card that knows nothing of the report.
    def init_hf_repo(self, token: str | None = None, private: bool | None = None) -> None:
        """Makes sure of the repository and the token before anything is computed."""
        if self.is_world_process_zero():
            self.hub_model_id = claim(
                self.args.hub_model_id,
                default=Path(self.args.output_dir).resolve().name,
                private=self.args.hub_private_repo if private is None else private,
                token=token or self.args.hub_token,
            )

    def create_model_card(self, report: Report | None = None, progress: str | None = None, folder=None) -> None:
        """Writes README.md (and `report`, if given) into the output folder, or into `folder`."""
        folder = Path(folder or self.args.output_dir)
        if report is not None:
            report.save(folder, overwrite=True)
        settings = {**self.args.recipe, "model": self.model.name_or_path}
        write_card(folder, settings=settings, repo_id=self.hub_model_id, progress=progress)

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
        save_model(self.accelerator.unwrap_model(self.model), self.processing_class, self.args.output_dir)
        self.create_model_card(report)
        message = {"message": commit_message} if commit_message else {}
        return push_checkpoint(self.args.output_dir, self.hub_model_id, token=token or self.args.hub_token, **message)

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """One commit for a saved checkpoint, if that is asked for; a push that fails does not stop the training."""
        if self.args.hub_strategy == "end" or not self.is_world_process_zero():
            return
        self.processing_class.image_processor.save_pretrained(checkpoint_folder)
        step = f"step {self.state.global_step} of {self.state.max_steps}"
        try:
            self.create_model_card(progress=f"**Not finished**: {step}.", folder=checkpoint_folder)
            push_checkpoint(
                checkpoint_folder, self.hub_model_id, token=self.args.hub_token, message=f"Training, {step}"
            )
        except HubError as error:
            logger.warning("%s", error)

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
        self.trainer.family.clamp(self.trainer.accelerator.unwrap_model(model))

    def on_train_end(self, args, state, control, **kwargs) -> None:
        self.trainer._check_weights()
