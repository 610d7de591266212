"""Which pairs come when: the trainer's data, its order, and how many it has seen."""

from __future__ import annotations

from accelerate.data_loader import prepare_data_loader
from torch.utils.data import DataLoader

from ..data.mapping import mapped
from ..data.resizing import resized_once
from ..data.sampling import CleaningPairs, CleaningSampler, pairs_after
from ..data.streaming import CleaningStream
from ..models.zero_shot import input_geometry, input_size
from ..subtexts import Parts, SubTextMap, Vocabulary
from .config import TACleanerConfig


class CleaningBatches:
    """The part of `TACleanerTrainer` that turns pairs into batches; `Trainer` calls it."""

    @staticmethod
    def _seed(args: TACleanerConfig) -> int:
        return args.seed if args.data_seed is None else args.data_seed

    def _prepare(
        self, dataset, args: TACleanerConfig, processor
    ) -> tuple[CleaningPairs | CleaningStream, Vocabulary | None]:
        """Checks the columns, and does once what need not be done in every epoch; `processor` is the model's."""
        if isinstance(dataset, CleaningStream):
            if args.resize_once:
                raise ValueError("resize_once keeps all pictures, and a stream keeps none; leave one of them out")
            return dataset, dataset.vocabulary() if self.weights["subtext"] else None
        columns = dataset.column_names
        if missing := [c for c in ("image", "caption") if c not in columns]:
            raise ValueError(
                f"train_dataset needs the columns image and caption; found {', '.join(columns)}, missing "
                f"{', '.join(missing)}. Rename them with dataset.rename_column, or load the data with load_pairs"
            )
        if args.resize_once:
            with args.main_process_first(desc="resizing pictures"):
                dataset = resized_once(dataset, input_size(processor), input_geometry(processor))
        pairs = dataset.select_columns(["image", "caption"])
        if not self.weights["subtext"]:
            return CleaningPairs(pairs), None
        if "parts" in columns:
            parts = dataset.select_columns("parts")
        else:
            with args.main_process_first(desc="reading captions"):
                captions = dataset.select_columns("caption")
                parts = mapped(captions, SubTextMap(), batched=True, remove_columns="caption", desc="Reading captions")
        return CleaningPairs(pairs, parts), Vocabulary.from_parts(parts["parts"])

    def get_train_dataloader(self) -> DataLoader:
        if not isinstance(self.train_dataset, CleaningStream):
            return super().get_train_dataloader()
        loader = DataLoader(
            self.train_dataset,
            self._train_batch_size,
            collate_fn=self.data_collator,
            num_workers=min(self.args.dataloader_num_workers, self.train_dataset.readers),
            pin_memory=self.args.dataloader_pin_memory,
            drop_last=True,
        )
        # The stream is split already: accelerate would send every batch through one process, or split it once more.
        return prepare_data_loader(
            loader,
            self.args.device,
            num_processes=1,
            process_index=0,
            put_on_device=True,
            dispatch_batches=False,
            non_blocking=self.args.accelerator_config.non_blocking,
        )

    def _get_train_sampler(self, train_dataset=None) -> CleaningSampler:
        pairs: CleaningPairs = train_dataset or self.train_dataset
        subtexts = self.weights["subtext"] > 0
        if subtexts:
            eligible = [Parts.from_row(row).eligible for row in pairs.parts["parts"]]
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
        batch, accumulation = self.args.train_batch_size * self.args.world_size, self.args.gradient_accumulation_steps
        if isinstance(self.train_dataset, CleaningStream):
            return self.state.global_step * accumulation * batch
        return pairs_after(self.state.global_step, len(self.train_dataset), batch, accumulation)
