"""Which pairs make a batch, and which of them are chosen for sub-texts in this epoch.

The choice is part of the sample's key, not of any object's state: a resumed run and every worker see the same one.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from datasets import Image
from torch.utils.data import Dataset, Sampler

from ..seeding import numpy_rng


logger = logging.getLogger(__name__)


class SampleKey(NamedTuple):
    """What the collator needs to draw a sample's views: its row, the epoch, and whether it is chosen."""

    index: int
    epoch: int
    chosen: bool


def chosen_per_batch(eligible: int, batches: int, batch_size: int, fraction: float) -> int:
    """K: chosen samples in every batch of every process, the same in all of an epoch's `batches`.

    K = round(fraction * batch_size), lowered when fewer samples are eligible than the batches ask for.
    """
    return min(round(fraction * batch_size), eligible // max(1, batches))


def pairs_after(steps: int, pairs: int, batch: int, accumulation: int = 1) -> int:
    """Pairs trained on in so many steps of the optimiser, each time that one is seen.

    Args:
        pairs: In the data; what does not fill a batch is left out of an epoch.
        batch: Pairs in a batch of all processes.
        accumulation: Batches that a step gathers; the last step of an epoch gathers those that are left.
    """
    batches = max(1, pairs // batch)
    epochs, rest = divmod(steps, math.ceil(batches / accumulation))
    return (epochs * batches + min(rest * accumulation, batches)) * batch


class CleaningSampler(Sampler[SampleKey]):
    """Shuffles anew each epoch such that each run of `batch_size` samples holds exactly K chosen ones.

    Chosen samples stand at evenly spaced places of a batch, so that one batch of 64 on one process and two of 32 on
    two processes hold the same samples with the same choice, whenever fraction * 32 is whole.

    Args:
        eligible: One bool per row of the dataset: can its caption give a positive sub-text?
        batch_size: Samples per batch and process.
        fraction: Share f of the samples chosen each epoch; 0 switches the choice off.
        seed: The run's data seed.
        processes: How many processes share a step; their batches are consecutive in the order.

    Raises:
        ValueError: `fraction` is outside [0, 1], or the dataset is smaller than a batch.
    """

    def __init__(
        self, eligible: Sequence[bool], *, batch_size: int, fraction: float, seed: int, processes: int = 1
    ) -> None:
        if not 0 <= fraction <= 1:
            raise ValueError(f"subtext_fraction must be in [0, 1], got {fraction}. Did you mean {fraction / 100:g}?")
        self._eligible = np.asarray(eligible, dtype=bool)
        total, needed = len(self._eligible), batch_size * processes
        if total < needed:
            raise ValueError(
                f"the data has {total} usable pairs, fewer than one batch of {needed}; "
                f"give more data or set per_device_train_batch_size to at most {max(1, total // processes)}"
            )
        self.batch_size, self._processes, self._seed, self.epoch = batch_size, processes, seed, 0
        self.chosen = chosen_per_batch(int(self._eligible.sum()), total // needed * processes, batch_size, fraction)
        if fraction and self.chosen < round(fraction * batch_size):
            logger.warning(
                "only %d of %d captions can give sub-texts: %d instead of %d samples a batch are chosen",
                self._eligible.sum(), total, self.chosen, round(fraction * batch_size),
            )  # fmt: skip

    def __len__(self) -> int:
        return len(self._eligible)

    def set_epoch(self, epoch: int) -> None:
        """Called before each epoch; the order and the choice depend on it and on the seed alone."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[SampleKey]:
        epoch = self.epoch  # the whole order is of the epoch it was begun in
        r = numpy_rng("sampler", self._seed, epoch)
        order = r.permutation(len(self))
        k, b = self.chosen * self._processes, self.batch_size * self._processes
        batches = len(order) // b
        # The first K * batches eligible rows of the shuffled order are this epoch's chosen ones.
        ranks = np.flatnonzero(self._eligible[order])[: k * batches]
        chosen, rest = order[ranks], np.delete(order, ranks)
        place = np.arange(b)
        is_chosen = (place + 1) * k // b > place * k // b  # K evenly spaced places of B
        pattern = np.concatenate([np.tile(is_chosen, batches), np.zeros(len(order) - b * batches, dtype=bool)])
        rows = np.empty(len(order), dtype=np.int64)
        rows[pattern], rows[~pattern] = chosen, rest
        for index, flag in zip(rows.tolist(), pattern.tolist(), strict=True):
            yield SampleKey(index, epoch, flag)


class CleaningPairs(Dataset):
    """A `datasets.Dataset` read by `SampleKey`: each example also carries its row, epoch and choice.

    Plain integers work too, as epoch 0 and not chosen: an example looks the same to code that knows no keys. Pictures
    are left encoded: the collator decodes one after the other, so that a large batch of large ones is never held.

    Args:
        dataset: Columns `image` and `caption`, and whatever else an example is to carry.
        parts: The column `parts` beside it, row by row; chosen examples carry theirs.
    """

    def __init__(self, dataset, parts=None) -> None:
        if dataset.format["type"] is None and dataset.features.get("image") == Image():
            dataset = dataset.cast_column("image", Image(decode=False))
        self.dataset, self.parts = dataset, parts

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: SampleKey | int) -> dict:
        index, epoch, chosen = key if isinstance(key, tuple) else (key, 0, False)
        parts = self.parts[index] if chosen and self.parts is not None else {}
        return {**self.dataset[index], **parts, "sample_id": index, "epoch": epoch, "chosen": chosen}
