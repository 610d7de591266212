"""Groups of flags that several commands share: the pairs, and the pictures and triggers of an evaluation."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel, ProcessorMixin, TrainingArguments

    from ..evaluation.full_audit import FullAudit
    from ..models.published.form import Form


logger = logging.getLogger(__name__)


@dataclass
class SuspectOptions:
    """Which model, and what its files may not say."""

    model: str = field(
        metadata={"help": "Hub id, folder, weights file (.pt, ...), open_clip's ARCHITECTURE:TAG, or sandbox"}
    )
    allow_pickle: bool = field(
        default=False, metadata={"help": "allow full unpickling of a .bin or .pt (runs code from the file)"}
    )
    from_open_clip: bool = field(
        default=False, metadata={"help": "take open_clip's files where --model holds those of transformers too"}
    )
    activation: str | None = field(
        default=None, metadata={"help": "gelu or quick_gelu, where no config lies beside a weights file"}
    )
    normalization: str | None = field(
        default=None, metadata={"help": "openai, imagenet, inception or none, where its config is wrong or missing"}
    )

    def load_suspect(self) -> tuple[PreTrainedModel, ProcessorMixin, Form]:
        """The model, its processor and the form that it came in.

        Raises:
            ValueError: A flag has an unknown value, or the model cannot be loaded (`CheckpointError`).
        """
        from ..models.checkpoints import load_suspect

        return load_suspect(
            self.model,
            allow_pickle=self.allow_pickle,
            from_open_clip=self.from_open_clip,
            activation=self.activation,
            normalization=self.normalization,
        )


@dataclass
class PairOptions:
    """Which image-caption pairs."""

    _argument_group_name = "image-caption pairs"

    dataset: str | None = field(
        default=None, metadata={"help": "sandbox, Hub id, folder, table, zip, parquet or saved dataset (docs/data.md)"}
    )
    split: str | None = field(default=None, metadata={"help": "split to take (default: train)"})
    image_column: str | None = field(default=None, metadata={"help": "name of the picture column, if not found"})
    caption_column: str | None = field(default=None, metadata={"help": "name of the caption column, if not found"})
    max_samples: int | None = field(default=None, metadata={"help": "use at most this many pairs"})
    max_unreadable: float = field(default=0.05, metadata={"help": "share of unreadable rows to tolerate"})

    def load(self, split: str | None = None, max_samples: int | None = None, seed: int = 0) -> Dataset:
        """The readable pairs, with the columns `image` and `caption`; `split` and `max_samples` are defaults."""
        from ..data.loading import clean_rows, load_pairs

        if self.dataset is None:
            raise ValueError("no pairs were named; give --dataset")
        pairs = load_pairs(
            self.dataset,
            split=self.split or split,
            image_column=self.image_column,
            caption_column=self.caption_column,
            max_samples=max_samples if self.max_samples is None else self.max_samples,
            seed=seed,
        )
        processes = os.cpu_count() if len(pairs) > 10_000 else None
        return clean_rows(pairs, max_share=self.max_unreadable, num_proc=processes)[0]


@dataclass
class EvalOptions:
    """On which labelled pictures to evaluate, and against which triggers."""

    _argument_group_name = "evaluation (labelled pictures and triggers)"

    eval_dataset: str | None = field(
        default=None, metadata={"help": "sandbox, Hub id, folder of class folders, parquet or saved dataset"}
    )
    eval_split: str | None = field(default=None, metadata={"help": "split to take (default: validation, then test)"})
    eval_image_column: str | None = field(default=None, metadata={"help": "name of the picture column, if not found"})
    eval_label_column: str | None = field(default=None, metadata={"help": "name of the label column, if not found"})
    classnames_file: Path | None = field(
        default=None, metadata={"help": "class names: one a line, WordNet ids with names, or JSON"}
    )
    max_eval_samples: int | None = field(default=None, metadata={"help": "use at most this many pictures"})
    templates: str = field(
        default="built-in",
        metadata={"help": "built-in, open_clip, or a file, one a line, {} for the class"},
    )
    trigger: list[str] | None = field(
        default=None, metadata={"help": "attacks (name[:option=value,...]) or folders (default: the model's own)"}
    )
    target: str | None = field(default=None, metadata={"help": "the attacker's class (default: the trigger's own)"})
    reference: str | None = field(
        default=None, metadata={"help": "never-poisoned model: adds its ASR and the excess over it"}
    )
    geometry: str | None = field(default=None, metadata={"help": "crop or squash (default: as the processor does)"})
    linear_probe: int | None = field(
        default=None, metadata={"help": "also train a linear probe on this many labelled pictures of --probe_split"}
    )
    probe_split: str = field(default="train", metadata={"help": "split of --eval_dataset that the probe learns from"})
    retrieval_dataset: str | None = field(
        default=None, metadata={"help": "also measure image-text retrieval, on these captioned pictures"}
    )
    retrieval_split: str | None = field(
        default=None, metadata={"help": "split to take (default: test, then validation)"}
    )
    retrieval_caption_column: str | None = field(default=None, metadata={"help": "name of their column of captions"})
    max_retrieval_samples: int | None = field(default=None, metadata={"help": "use at most this many rows of them"})

    def load(self) -> Dataset | None:
        """The labelled pictures, with the columns `image` and `label`; None without `--eval_dataset`.

        Raises:
            ValueError: The classes are WordNet ids, or the data cannot be used (`DataError`).
        """
        from ..data.classnames import are_synsets

        if self.eval_dataset is None:
            return None
        pictures = self._labelled(self.eval_split, self.max_eval_samples)
        names = pictures.features["label"].names
        if are_synsets(names):
            raise ValueError(
                f"the classes of {self.eval_dataset} are WordNet ids ({names[0]}, ...), which say nothing in a "
                "prompt; map them to names with --classnames_file"
            )
        return pictures

    def _labelled(self, split: str | None, max_samples: int | None) -> Dataset:
        from ..data.loading import clean_rows, load_labelled

        with _flags_of("eval"):
            pictures = load_labelled(
                self.eval_dataset,
                split=split,
                image_column=self.eval_image_column,
                label_column=self.eval_label_column,
                classnames_file=self.classnames_file,
                max_samples=max_samples,
            )
            return clean_rows(pictures)[0]

    def auditor_of_run(self, suspect: str, args: TrainingArguments) -> FullAudit | None:
        """`auditor` with the batch size, the seed and the device of a training run."""
        return self.auditor(
            suspect,
            batch_size=args.per_device_eval_batch_size,
            seed=args.seed,
            device=args.device,
            progress=args.process_index == 0,
        )

    def auditor(
        self, suspect: str, *, batch_size: int, seed: int, device: Any, progress: bool = True
    ) -> FullAudit | None:
        """`(model, processor) -> (report section, predictions)` for these options; None without `--eval_dataset`.

        Loads the pictures and the reference model, and checks the triggers and their targets.

        Args:
            suspect: The model as it is named; a trigger may lie beside it.
            batch_size: Pictures per forward.
            seed: Of the choice of pictures.
            device: Where the reference model goes.
            progress: Whether to show a progress bar.

        Raises:
            ValueError: A trigger has no target, a target is not one of the classes, or the data cannot be used.
        """
        from ..data.loading import text_head_cache
        from ..evaluation.full_audit import FullAudit
        from ..evaluation.inputs import target_id, target_of
        from ..models.checkpoints import load_model
        from ..models.zero_shot import load_templates
        from ..poisoning import find_triggers

        pictures = self.load()
        if pictures is None:
            return None
        attacks, self.target = find_triggers(suspect, self.trigger, self.target)
        for name, attack in attacks.items():  # an error now, not after hours
            target_id(target_of(name, attack, self.target), pictures.features["label"].names)
        if not attacks:
            logger.warning(
                "no trigger was named with --trigger and none lies beside %s: only clean accuracy is measured, "
                "which says nothing about a backdoor",
                suspect,
            )
        reference = None
        if self.reference is not None:
            model, processor = load_model(self.reference)
            reference = (model.to(device), processor)
        return FullAudit(
            pictures,
            attacks,
            target=self.target,
            templates=load_templates(self.templates),
            reference=reference,
            captioned=self._captioned(),
            probe=self._labelled(self.probe_split, self.linear_probe) if self.linear_probe else None,
            geometry=self.geometry,
            batch_size=batch_size,
            seed=seed,
            cache_dir=text_head_cache(),
            progress=progress,
        )

    def _captioned(self) -> Dataset | None:
        from ..data.loading import clean_rows, load_captioned

        if self.retrieval_dataset is None:
            return None
        with _flags_of("retrieval"):
            captioned = load_captioned(
                self.retrieval_dataset,
                split=self.retrieval_split,
                caption_column=self.retrieval_caption_column,
                max_samples=self.max_retrieval_samples,
            )
            return clean_rows(captioned)[0]


@contextmanager
def _flags_of(group: str) -> Iterator[None]:
    """Rewrites the flag names in errors about data: `--split` becomes `--eval_split` for the group "eval"."""
    from ..data.loading import DataError

    try:
        yield
    except DataError as error:
        text = re.sub(r"--(split|image_column|caption_column|label_column)\b", rf"--{group}_\1", str(error))
        text = text.replace("Name it with --retrieval_image_column", "Rename one of them to image")
        raise DataError(text.replace(", or allow a larger share with --max_unreadable", "")) from error
