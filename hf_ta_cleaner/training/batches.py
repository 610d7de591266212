"""The trainer's data: checked columns, sampler, collator, stream loader, and the number of pairs seen."""

from __future__ import annotations

from typing import Any

from accelerate.data_loader import prepare_data_loader
from torch.utils.data import DataLoader

from ..data.mapping import mapped
from ..data.resizing import resized_once
from ..data.sampling import CleaningPairs, CleaningSampler, pairs_after
from ..data.streaming import CleaningStream
from ..models.families import Family
from ..models.zero_shot import input_geometry, input_size
from ..subtexts import Parts, SubTextMap, Vocabulary
from ..views.collator import DataCollatorForTACleaner
from .config import TACleanerConfig


class CleaningBatches:
    """Prepares the training data and builds the sampler, the collator and the loader of a stream.

    Args:
        args: The settings.
        processor: The model's processor.

    Attributes:
        vocabulary: The words that sub-texts are made of. None if the method needs none, and before `prepare`.
        sampler: The sampler of the training data. None before `make_sampler`, and for a stream.
    """

    def __init__(self, args: TACleanerConfig, processor: Any) -> None:
        self._args, self._processor = args, processor
        self._subtexts = args.weights["subtext"] > 0
        self.vocabulary: Vocabulary | None = None
        self.sampler: CleaningSampler | None = None

    def prepare(self, dataset) -> CleaningPairs | CleaningStream:
        """Checks the columns, resizes pictures if asked, and parses captions. Each of these is done once.

        Raises:
            ValueError: Columns are missing, or `resize_once` is set for a stream.
        """
        args = self._args
        if isinstance(dataset, CleaningStream):
            if args.resize_once:
                raise ValueError("resize_once keeps all pictures, and a stream keeps none; leave one of them out")
            self.vocabulary = dataset.vocabulary() if self._subtexts else None
            return dataset
        columns = dataset.column_names
        if missing := [c for c in ("image", "caption") if c not in columns]:
            raise ValueError(
                f"train_dataset needs the columns image and caption; found {', '.join(columns)}, missing "
                f"{', '.join(missing)}. Rename them with dataset.rename_column, or load the data with load_pairs"
            )
        if args.resize_once:
            with args.main_process_first(desc="resizing pictures"):
                dataset = resized_once(dataset, input_size(self._processor), input_geometry(self._processor))
        pairs = dataset.select_columns(["image", "caption"])
        if not self._subtexts:
            return CleaningPairs(pairs)
        if "parts" in columns:
            parts = dataset.select_columns("parts")
        else:
            with args.main_process_first(desc="reading captions"):
                captions = dataset.select_columns("caption")
                parts = mapped(captions, SubTextMap(), batched=True, remove_columns="caption", desc="Reading captions")
        self.vocabulary = Vocabulary.from_parts(parts["parts"])
        return CleaningPairs(pairs, parts)

    def make_sampler(self, pairs: CleaningPairs, batch_size: int) -> CleaningSampler:
        """The order of the pairs, and which of them get sub-texts.

        Raises:
            ValueError: The share of sub-texts rounds to none, or too few captions have parts.
        """
        args = self._args
        eligible = [False] * len(pairs)
        if self._subtexts:
            eligible = [Parts.from_row(row).eligible for row in pairs.parts["parts"]]
        self.sampler = CleaningSampler(
            eligible,
            batch_size=batch_size,
            fraction=args.subtext_fraction if self._subtexts else 0.0,
            seed=args.draw_seed,
            processes=args.world_size,
        )
        if self._subtexts and not round(args.subtext_fraction * batch_size):
            raise ValueError(
                f"subtext_fraction={args.subtext_fraction:g} of a batch of {batch_size} pairs rounds "
                "to none; raise it, or per_device_train_batch_size"
            )
        if self._subtexts and not self.sampler.chosen:
            raise ValueError(
                f"only {sum(eligible)} of {len(eligible)} captions have a noun to make sub-texts of, too few for one "
                "in every batch; use --method cleanclip, or data with English captions"
            )
        return self.sampler

    def collator(self, family: Family) -> DataCollatorForTACleaner:
        """The collator of the prepared data, for a model of the family."""
        args = self._args
        return DataCollatorForTACleaner(
            self._processor,
            family=family,
            augment=bool(args.inmodal_weight),
            vocabulary=self.vocabulary,
            num_positive=args.num_positive,
            num_negative=args.num_negative,
            swap=args.swaps,
            exclude=args.excluded,
            seed=args.draw_seed,
            trim=args.trim_text,
            noise=args.image_noise,
            erase=args.image_erase,
            noise_sigma=args.noise_sigma,
        )

    def stream_loader(self, stream: CleaningStream, collator: Any, batch_size: int) -> DataLoader:
        """The batches of a stream."""
        args = self._args
        loader = DataLoader(
            stream,
            batch_size,
            collate_fn=collator,
            num_workers=min(args.dataloader_num_workers, stream.readers),
            pin_memory=args.dataloader_pin_memory,
            drop_last=True,
        )
        # The stream is already split. Accelerate would send every batch through one process, or split it once more.
        return prepare_data_loader(
            loader,
            args.device,
            num_processes=1,
            process_index=0,
            put_on_device=True,
            dispatch_batches=False,
            non_blocking=args.accelerator_config.non_blocking,
        )

    def begin_epoch(self, epoch: int) -> None:
        if self.sampler is not None:
            self.sampler.set_epoch(epoch)

    def pairs_seen(self, dataset: CleaningPairs | CleaningStream, step: int) -> int:
        """Pairs trained on after so many steps, over all processes. A pair counts each time it is seen."""
        args = self._args
        batch, accumulation = args.train_batch_size * args.world_size, args.gradient_accumulation_steps
        if isinstance(dataset, CleaningStream):
            return step * accumulation * batch
        return pairs_after(step, len(dataset), batch, accumulation)
