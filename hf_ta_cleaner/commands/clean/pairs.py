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
    """Settles which pairs are taken where none were named, and how many of the default ones.

    Args:
        pairs: what was asked for; written on.
        model: how the model is called.

    Raises:
        ValueError: for the sandbox's pictures and another model than the sandbox's, unless that was asked for.
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
    """All pairs at once: of the sandbox and the default data the validation split is held out, else a part.

    Args:
        pairs: which.
        held_out: how many to hold out; at most one in twenty where they are taken from the data themselves.
        seed: of the sandbox's pictures.

    Returns:
        Pairs to train on, and the others: None if none were wanted, or there are too few for any.
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
    """Some of the pairs that `cleaning_pairs` would train on, and how many those are: for an estimate.

    Of a Hub id whose size is known only the first `enough` rows are fetched; of all else, everything.
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
    """Pairs as they are needed: this process's part of them. The first readable `held_out` ones are held out, at most
    one in twenty where the data are known to be few.

    Raises:
        ValueError: with `max_samples`, because a stream ends with the steps and not with the pairs.
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
