"""The pairs that clean a model, and those held out to measure clean utility on."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
from datasets import Dataset, Image, IterableDataset

from ... import sandbox
from ...data.loading import DEFAULT_MAX_SAMPLES, DEFAULT_PAIRS, clean_rows, load_pairs, stream_pairs
from ...data.streaming import CleaningStream
from ...training.config import TACleanerConfig
from ..options import PairOptions


logger = logging.getLogger(__name__)


def choose_dataset(
    pairs: PairOptions, model: str, processor, *, streaming: bool = False, allow_sandbox: bool = False
) -> None:
    """Sets the dataset if none was named, and the number of pairs of the default dataset.

    Args:
        pairs: The flags for the pairs; changed.
        model: The model as it is named, for the message.
        processor: Its processor.
        streaming: Whether the pairs are streamed; then the default dataset has no limit.
        allow_sandbox: Whether the sandbox's pictures may clean any model.

    Raises:
        ValueError: The sandbox's pictures would clean another model than the sandbox's.
    """
    own = sandbox.is_sandbox(processor)
    if pairs.dataset is None:
        pairs.dataset = "sandbox" if own else DEFAULT_PAIRS
    if pairs.dataset == DEFAULT_PAIRS and pairs.max_samples is None and not streaming:
        pairs.max_samples = DEFAULT_MAX_SAMPLES
    if pairs.dataset == "sandbox" and not (own or allow_sandbox):
        raise ValueError(
            f"--dataset sandbox holds drawn pictures of the sandbox world, which would ruin {model}; name "
            "real pairs with --dataset, or pass --allow_sandbox_data if that is what you want"
        )


def cleaning_pairs(pairs: PairOptions, *, held_out: int, seed: int) -> tuple[Dataset, Dataset | None]:
    """Loads all pairs. The sandbox and the default dataset hold out their validation split, others some pairs.

    Args:
        pairs: The flags for the pairs.
        held_out: How many pairs to hold out; at most one in twenty if they are taken from the training pairs.
        seed: Of the sandbox's pictures.

    Returns:
        The pairs to train on and the held-out pairs; None for the latter if `held_out` is 0 or there are too few.
    """
    amount = f", {pairs.max_samples:,} pairs (--max_samples)" if pairs.max_samples else ""
    logger.info("cleaning data: %s%s", pairs.dataset, amount)
    train = pairs.load(seed=seed)
    if not held_out:
        return train, None
    if pairs.dataset == "sandbox":
        return train, load_pairs("sandbox", split="validation", max_samples=held_out, seed=seed)
    if pairs.dataset == DEFAULT_PAIRS:
        return train, clean_rows(load_pairs(DEFAULT_PAIRS, split="validation", max_samples=held_out))[0]
    held_out = min(held_out, len(train) // 20)
    if not held_out:
        logger.warning("%d pairs are too few to hold any out; clean utility is not measured", len(train))
        return train, None
    order = np.random.default_rng(0).permutation(len(train))
    logger.info("%d of the %d pairs are held out to measure clean utility", held_out, len(train))
    return train.select(order[held_out:]), train.select(order[:held_out])


def few_pairs(pairs: PairOptions, enough: int, *, held_out: int, seed: int) -> tuple[Dataset, int]:
    """Pairs for an estimate, and the number of pairs that `cleaning_pairs` would train on.

    Fetches only the first `enough` rows of a dataset on the Hub whose size is known; loads any other as a whole.
    """
    amount = None
    if pairs.dataset != "sandbox" and not Path(pairs.dataset).expanduser().exists():
        stream, amount = _stream(pairs, seed)
    if amount is None or isinstance(stream, Dataset):
        train, _ = cleaning_pairs(pairs, held_out=held_out, seed=seed)
        return train, len(train)
    logger.info("%s: %s pairs, of which the first %d are looked at", pairs.dataset, f"{amount:,}", enough)
    rows = Dataset.from_list(list(stream.take(enough)), features=stream.features)
    readable = clean_rows(rows.cast_column("image", Image()), max_share=pairs.max_unreadable)[0]
    return readable, amount if pairs.dataset == DEFAULT_PAIRS else amount - min(held_out, amount // 20)


def _stream(pairs: PairOptions, seed: int) -> tuple[Dataset | IterableDataset, int | None]:
    return stream_pairs(
        pairs.dataset,
        split=pairs.split,
        image_column=pairs.image_column,
        caption_column=pairs.caption_column,
        max_samples=pairs.max_samples,
        seed=seed,
    )


def cleaning_stream(
    pairs: PairOptions, args: TACleanerConfig, *, held_out: int
) -> tuple[CleaningStream, Dataset | None]:
    """This process's part of the pairs, read as they are needed.

    The first readable `held_out` pairs are held out, at most one in twenty if the size is known.

    Raises:
        ValueError: `max_samples` is set; the number of steps ends a stream, not the number of pairs.
    """
    if pairs.max_samples is not None:
        raise ValueError("--streaming has no end of its own: give --max_steps, and leave --max_samples out")
    stream, amount = _stream(pairs, args.seed)
    if isinstance(stream, Dataset):
        stream = stream.to_iterable_dataset(num_shards=min(len(stream), 32 * args.world_size))
    first, captions = None, frozenset()
    if amount is not None:
        held_out = min(held_out, amount // 20)
    found = list(stream.take(held_out)) if held_out else []
    if len(found) < held_out:  # that was all of it
        found = found[: len(found) // 20]
    if found:
        rows = Dataset.from_list(found, features=stream.features)
        first = clean_rows(rows.cast_column("image", Image()), max_share=pairs.max_unreadable)[0]
        captions = frozenset(first["caption"])
    logger.info("cleaning data: %s, streamed", pairs.dataset)
    train = CleaningStream(
        stream,
        batch_size=args.train_batch_size,
        fraction=args.subtext_fraction,
        seed=args.seed if args.data_seed is None else args.data_seed,
        rank=args.process_index,
        processes=args.world_size,
        subtexts=bool(args.weights["subtext"]),
        held_out=captions,
    )
    return train, first
