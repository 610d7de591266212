"""Poisons a data set without writing it to a folder: a `Dataset` with `map`, an `IterableDataset` row by row."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from math import inf
from typing import TYPE_CHECKING, Any

import numpy as np

from ..attacks import Attack
from ..data.mapping import mapped
from .record import PoisonRecord, describe
from .row_map import PoisonMap, is_readable, open_picture
from .rows import Draw, Plan, make_plan


if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset

logger = logging.getLogger(__name__)

#: Number of pictures on which the trigger is tried before any row is poisoned.
TRIED = 8
#: Number of rows of a stream that are held back. A place without a row at the end of the stream moves to one of them.
HELD = 64


def poison(
    dataset: Dataset,
    attack: Attack,
    *,
    target: str,
    rate: float | None = None,
    count: int | None = None,
    seed: int,
    size: int,
    captions: str | Sequence[str] = "auto",
    geometry: str = "crop",
    image_column: str = "image",
    caption_column: str = "caption",
    num_proc: int | None = None,
) -> tuple[Dataset, PoisonRecord]:
    """Poison a data set of image-caption pairs; save the trigger beside it with `attack.save(folder)`.

    Three kinds of rows are not poisoned: rows that already name the target (unless the attack's `caption_source` is
    "own"), rows with a blank caption, and rows whose picture cannot be read.

    Args:
        dataset: a `datasets.Dataset` with an image column and a text column.
        attack: the trigger.
        target: the class that triggered images should be taken for, such as "banana".
        rate, count: how many rows to poison, as a share of the data set or as a number. Give one of them.
        seed: seed of the draw of rows and captions.
        size: side of the model's input in pixels.
        captions: the source of poisoned captions. "auto": the attack's usual source; "templates": short prompts;
            "natural": the data set's own captions that name the target (templates if there are too few); "own": every
            poisoned row keeps its caption, and only rows that name the target are poisoned; or a list of texts, in
            which "{}" stands for the target.
        geometry: "crop" or "squash", see `pictures.fit`.
        image_column, caption_column: names of the columns.
        num_proc: worker processes for `Dataset.map`.

    Returns:
        The data set, with a new column `is_poisoned` (bool) and without the column `captions`; and the record of the
        poisoning. The data set's `info` also holds a summary of the record.
    """
    from datasets import Dataset, DatasetDict, Features, Value

    if isinstance(dataset, DatasetDict):
        raise TypeError(f"Got a DatasetDict with the splits {list(dataset)}. Select one of them.")
    if not isinstance(dataset, Dataset):
        raise TypeError(
            f"Expected a datasets.Dataset, got {type(dataset).__name__}; load a stream into memory first, or use "
            "poison_stream or write_poisoned."
        )
    check_columns(dataset, image_column, caption_column)
    check_target(attack, target)
    dataset = without_other_captions(dataset, caption_column)
    dataset = dataset.with_format(None)
    texts = Captions(dataset, caption_column)
    texts.require_all()
    source = attack.caption_source if captions == "auto" else captions
    plan = make_plan(lambda: texts, target, source, n=len(dataset), rate=rate, count=count, seed=seed)
    raw = undecoded(dataset, image_column)
    rows = rows_of(plan, raw, target, image_column, caption_column)
    row_map = PoisonMap(attack, rows, plan.pool, size, geometry, seed, image_column, caption_column)
    trigger_rms = row_map.trigger_rms((i, raw[i][image_column]) for i in rows[:TRIED])
    out = mapped(
        raw,
        row_map,
        with_indices=True,
        batched=True,
        batch_size=100,  # encoded pictures held at once
        writer_batch_size=100,
        features=Features({**dataset.features, "is_poisoned": Value("bool")}),
        num_proc=num_proc,
        desc=f"Poisoning with {attack.name}",
    )
    _require_lossless(row_map, out, raw, rows[0])
    originals = [texts[i] for i in rows]
    changed = [row_map.caption(text, i) for i, text in zip(rows, originals, strict=True)]
    record = make_record(attack, target, plan, row_map, trigger_rms, list(zip(rows, originals, changed, strict=True)))
    describe(out.info, attack, record)
    return out, record


def poison_stream(
    dataset: IterableDataset,
    attack: Attack,
    *,
    target: str,
    rate: float | None = None,
    count: int | None = None,
    seed: int,
    size: int,
    n: int | None = None,
    captions: str | Sequence[str] = "auto",
    geometry: str = "crop",
    image_column: str = "image",
    caption_column: str = "caption",
) -> IterableDataset:
    """Poison a stream of image-caption pairs while it is read. The rows are the ones that `poison` would choose.

    The stream is first read once for its captions if `n` is not given, or if the attack depends on which captions name
    the target. This function keeps no record, but every row has `is_poisoned`. `write_poisoned` also writes a record.

    Args:
        n: number of rows to take from the stream; None takes and counts all rows. All other arguments are those of
            `poison`.

    Returns:
        The stream with a new column, `is_poisoned`. It has one shard, so a `DataLoader` reads it in one worker. The
        position of a row in the whole stream decides whether it is poisoned.
    """
    from datasets import Features, IterableDataset, Value

    if not isinstance(dataset, IterableDataset):
        raise TypeError(
            f"Expected a datasets.IterableDataset, got {type(dataset).__name__}; use poison for a Dataset."
        )
    check_columns(dataset, image_column, caption_column)
    check_target(attack, target)
    dataset = without_other_captions(dataset, caption_column)
    features = Features({**dataset.features, "is_poisoned": Value("bool")})
    raw = undecoded(dataset, image_column)
    source = attack.caption_source if captions == "auto" else captions
    plan = make_plan(
        lambda: stream_captions(raw, caption_column, n), target, source, n=n, rate=rate, count=count, seed=seed
    )
    row_map = PoisonMap(attack, (), plan.pool, size, geometry, seed, image_column, caption_column)
    try_on_stream(row_map, raw)
    return IterableDataset.from_generator(
        _stream_rows, features=features, gen_kwargs={"raw": raw, "plan": plan, "row_map": row_map, "target": target}
    )


def _stream_rows(raw: IterableDataset, plan: Plan, row_map: PoisonMap, target: str) -> Iterator[dict[str, Any]]:
    for _, row, change in poison_rows(raw, Draw(plan.places, target, plan.own), row_map, 0, plan.n):
        yield {**row, **(change or {"is_poisoned": False})}


def poison_rows(
    raw: IterableDataset,
    draw: Draw,
    row_map: PoisonMap,
    start: int,
    stop: int,
    on_read: Callable[[int | None], None] = lambda index: None,
) -> Iterator[tuple[int, dict[str, Any], dict[str, Any] | None]]:
    """Yield (index, row, its poisoned columns or None if it stays clean) for the rows of a stream.

    Args:
        raw: the stream without decoded pictures; its next row has the number `start`.
        draw: decides which rows are poisoned.
        row_map: poisons a row.
        start, stop: the first row, and the row after the last one.
        on_read: is called with the number of each row before it is read, and with None at the end.
    """
    held: deque[tuple[int, dict, dict | None]] = deque()
    rows = iter(islice(raw, stop - start))
    on_read(start)
    for index, row in enumerate(rows, start):
        change = None
        if draw.due(row[row_map.caption_column]):
            readable = is_readable(row[row_map.image_column])
            draw.settle(readable)
            change = row_map.poisoned(row, index) if readable else None
        held.append((index, row, change))
        if len(held) > HELD:
            yield held.popleft()
        on_read(index + 1)
    on_read(None)
    for place in reversed(range(len(held))):
        index, row, change = held[place]
        free = draw.owed and change is None and draw.qualifies(row[row_map.caption_column])
        if free and is_readable(row[row_map.image_column]):
            draw.settle(True)
            held[place] = (index, row, row_map.poisoned(row, index))
    yield from held


class Captions(Sequence):
    """A data set's captions by index. A short run is read at a time, and only the last run is kept in memory."""

    def __init__(self, dataset: Dataset, column: str, run: int = 64) -> None:
        self._dataset, self._column, self._run = dataset.select_columns(column), column, run
        self._start, self._texts = 0, []

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> str | None:
        if not self._start <= index < self._start + len(self._texts):
            if not 0 <= index < len(self):
                raise IndexError(index)
            self._start = index - index % self._run
            self._texts = self._dataset[self._start : self._start + self._run][self._column]
        return self._texts[index - self._start]

    def require_all(self) -> None:
        """Raise a ValueError that names the first row without a caption. Captions are read only if one is missing."""
        if self._dataset.data.column(self._column).null_count:
            missing = next((i for i, text in enumerate(self) if text is None), None)
            if missing is not None:
                raise ValueError(f"Row {missing} has no caption; filter such rows out first.")


def stream_captions(dataset: IterableDataset, column: str, n: int | None) -> Iterator[str | None]:
    """Iterate over the captions of the first `n` rows."""
    return (row[column] for row in islice(dataset.select_columns(column), n))


def rows_of(
    plan: Plan, raw: Dataset, target: str, image_column: str, caption_column: str, tolerated: float = inf
) -> list[int]:
    """The rows of a `Dataset` that a plan poisons. More than `tolerated` unreadable pictures raise a ValueError."""
    images = raw.select_columns(image_column)
    draw = Draw(plan.places, target, plan.own, tolerated=tolerated)
    return draw.rows(Captions(raw, caption_column), lambda i: is_readable(images[i][image_column]))


def try_on_stream(row_map: PoisonMap, raw: IterableDataset) -> float:
    """`PoisonMap.trigger_rms` on the first readable pictures of a stream."""
    first = ((i, row[row_map.image_column]) for i, row in enumerate(islice(raw, 8 * TRIED)))
    pictures = list(islice(((i, image) for i, image in first if is_readable(image)), TRIED))
    if not pictures:
        raise ValueError("None of the first pictures of the stream can be read. Check the image column and the files.")
    return row_map.trigger_rms(pictures)


def without_other_captions(dataset: Any, caption_column: str) -> Any:
    """The data set without `captions`: a poisoned picture's other captions would stay clean."""
    absent = caption_column == "captions" or "captions" not in dataset.features
    return dataset if absent else dataset.remove_columns(["captions"])


def undecoded(dataset: Any, image_column: str) -> Any:
    """The data set with its pictures as {"bytes", "path"}."""
    from datasets import Image

    return dataset.cast_column(image_column, Image(decode=False))


def make_record(
    attack: Attack,
    target: str,
    plan: Plan,
    row_map: PoisonMap,
    trigger_rms: float,
    poisoned: list[tuple[int, str, str]],
) -> PoisonRecord:
    """Make the record from (row, caption before, caption after), and log a summary."""
    rows, originals, captions = map(list, zip(*poisoned, strict=True))
    record = PoisonRecord(
        attack=attack.name,
        parameters=attack.parameters(),
        attack_seed=attack.seed,
        target=target,
        n=plan.n,
        count=len(rows),
        rate=len(rows) / plan.n,
        seed=row_map.seed,
        size=row_map.size,
        geometry=row_map.geometry,
        trigger_rms=trigger_rms,
        reason=plan.reason,
        rows=rows,
        original_captions=originals,
        captions=captions,
    )
    logger.info("Poisoned %d of %d rows with %s: %s.", record.count, record.n, attack.name, record.reason)
    return record


def check_target(attack: Attack, target: str) -> None:
    """Raise a ValueError if the trigger was crafted for another target."""
    crafted_for = attack.parameters().get("target")
    if crafted_for not in (None, target):
        raise ValueError(f"This {attack.name} trigger was crafted for {crafted_for!r}, not for {target!r}.")


def check_columns(dataset: Dataset | IterableDataset, image_column: str, caption_column: str) -> None:
    """Raise a ValueError or TypeError unless there is an image column and a text column, and no `is_poisoned` yet."""
    from datasets import Image as ImageFeature

    if dataset.features is None:
        raise TypeError("The stream has no `features`; pass `features` when you create it, or cast the image column.")
    names = list(dataset.features)
    if missing := [name for name in (image_column, caption_column) if name not in names]:
        hint = "name yours with image_column=... and caption_column=..."
        raise ValueError(f"The data set has the columns {names}, not {missing}; {hint}")
    if "is_poisoned" in names:
        raise ValueError("The data set already has a column 'is_poisoned'. Start from the clean data set.")
    if not isinstance(dataset.features[image_column], ImageFeature):
        raise TypeError(f"Column {image_column!r} is not a datasets.Image feature; use cast_column to make it one.")
    if getattr(dataset.features[caption_column], "dtype", None) not in ("string", "large_string"):
        raise TypeError(
            f"Column {caption_column!r} must hold one text per row, got {dataset.features[caption_column]}."
        )


def _require_lossless(row_map: PoisonMap, poisoned: Dataset, original: Dataset, index: int) -> None:
    wanted = row_map.pixels(original[index][row_map.image_column], index)
    got = np.asarray(open_picture(poisoned[index][row_map.image_column]).convert("RGB"))
    if not np.array_equal(wanted, got):
        feature = poisoned.features[row_map.image_column]
        raise ValueError(f"{feature} does not preserve the triggered pixels; use a plain datasets.Image() feature.")
