"""Pairs that are never all here: a stream, split among processes and their readers.

What a map-style data set knows beforehand is found out on the way: whether a caption has sub-texts, whether a picture
can be read. Everything is decided by (seed, pass, process, reader, place), so a resumed run sees what it would have.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from itertools import count, islice
from typing import Any

import datasets
from datasets.distributed import split_dataset_by_node
from torch.utils.data import IterableDataset, get_worker_info

from ..seeding import derive_seed, rng
from ..subtexts import Vocabulary, parse


logger = logging.getLogger(__name__)

#: Captions that the vocabulary of a stream is made of: its first ones, on every process the same.
VOCABULARY_ROWS = 2000
#: Pairs held by each reader to draw from; shards are shuffled besides.
SHUFFLED = 1000


class CleaningStream(IterableDataset):
    """Endless examples of a stream in runs of `batch_size`, each with K = round(fraction * batch_size) chosen.

    Where `num_shards` of the stream is a multiple of the number of processes, each reads shards of its own; otherwise
    each reads everything and keeps its turn (`datasets.distributed.split_dataset_by_node`). A reader (worker) reads
    whole shards. Rows without a caption or a readable picture are passed over. Chosen are pairs with sub-texts first;
    where a run has too few, the rest are chosen without, and the loss masks them.

    Args:
        stream: A `datasets.IterableDataset` with the columns `image` and `caption`.
        subtexts: Whether sub-texts are wanted.
        held_out: Captions that are kept out: those that clean utility is measured on.

    Raises:
        ValueError: Columns are missing, or a pass gives a reader less than a batch.
    """

    def __init__(
        self,
        stream: datasets.IterableDataset,
        *,
        batch_size: int,
        fraction: float,
        seed: int,
        rank: int = 0,
        processes: int = 1,
        subtexts: bool = True,
        held_out: frozenset[str] = frozenset(),
    ) -> None:
        columns = stream.column_names or list(next(iter(stream), {}))
        if missing := [name for name in ("image", "caption") if name not in columns]:
            raise ValueError(
                f"train_dataset needs the columns image and caption; found {', '.join(columns)}, missing "
                f"{', '.join(missing)}. Rename them with rename_column, or open the data with stream_pairs"
            )
        if stream.num_shards % processes:
            logger.warning(
                "the stream has %d shards for %d processes: each reads all of them and keeps its turn. With a "
                "multiple of %d shards each would read only its own", stream.num_shards, processes, processes,
            )  # fmt: skip
        if isinstance((stream.features or {}).get("image"), datasets.Image):
            stream = stream.cast_column("image", datasets.Image(decode=False))
        self._texts = stream.select_columns(["caption"])
        self._stream, self._rank, self._processes = stream, rank, processes
        self._batch_size, self._chosen = batch_size, round(fraction * batch_size) if subtexts else 0
        self._seed, self._subtexts, self._held_out = seed, subtexts, held_out

    @property
    def readers(self) -> int:
        """How many worker processes can read at the same time."""
        return self._pass(0).num_shards

    def _pass(self, epoch: int) -> datasets.IterableDataset:
        """This process's part of a pass, in that pass's order, which all processes draw alike.

        Not by `set_epoch`: that number is shared among the workers of a loader, and one may be a pass ahead.
        """
        seed = derive_seed("stream order", self._seed, epoch) % 2**32
        shuffled = self._stream.shuffle(seed=seed, buffer_size=SHUFFLED)
        return split_dataset_by_node(shuffled, rank=self._rank, world_size=self._processes)

    def vocabulary(self) -> Vocabulary:
        """The words of the first captions."""
        captions = (row["caption"] for row in self._texts.take(VOCABULARY_ROWS))
        return Vocabulary.from_parts(parse(caption).to_row() for caption in captions if caption)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        worker = get_worker_info()
        if worker is not None and worker.id >= self.readers:
            return
        place = (self._rank, worker.id if worker is not None else 0)
        number = 0
        for epoch in count():
            rows = self._readable(self._pass(epoch))
            before = number
            while len(run := list(islice(rows, self._batch_size))) == self._batch_size:
                yield from self._keyed(run, epoch, place, number)
                number += 1
            if number == before:
                reader, fewer = "", "lower per_device_train_batch_size"
                if worker is not None:
                    reader = f", reader {worker.id + 1} of {worker.num_workers}"
                    fewer = "lower dataloader_num_workers or per_device_train_batch_size"
                raise ValueError(
                    f"a pass over the stream gives {len(run)} usable pairs to process {self._rank}{reader}, fewer "
                    f"than one batch of {self._batch_size}; give more data, or {fewer}"
                )

    def _readable(self, rows: datasets.IterableDataset) -> Iterator[dict[str, Any]]:
        feature, dropped = datasets.Image(), 0
        for row in rows:
            caption = row["caption"] or ""
            if caption in self._held_out:
                continue
            try:
                if not caption.strip():
                    raise ValueError("empty caption")
                image = row["image"]
                image = feature.decode_example(image) if isinstance(image, dict) else image
                image.load()
            except Exception as error:  # a damaged file can raise anything: each decoder has errors of its own
                dropped += 1
                if dropped & (dropped - 1) == 0:  # the first, second, fourth, ...
                    logger.warning("%d rows of the stream were passed over; the last: %s", dropped, error)
                continue
            yield {"image": image, "caption": caption}

    def _keyed(self, run: list[dict], epoch: int, place: tuple[int, int], number: int) -> Iterator[dict[str, Any]]:
        parts = [parse(row["caption"]) for row in run] if self._subtexts else []
        order = rng("stream", self._seed, epoch, *place, number).sample(range(len(run)), len(run))
        order.sort(key=lambda i: not (parts and parts[i].eligible))  # stable: at random within each kind
        chosen = set(order[: self._chosen])
        first = number * self._batch_size
        for i, row in enumerate(run):
            # A sample's number: unique over processes (40 bits from below) and readers (32 bits).
            sample_id = (place[0] << 40) + (place[1] << 32) + first + i
            extra = {"parts": parts[i].to_row()} if i in chosen else {}
            yield {**row, **extra, "sample_id": sample_id, "epoch": epoch, "chosen": i in chosen}
