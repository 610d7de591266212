"""mmPoison: a poison without a trigger. Captions of one class get pictures of another; no pixel is changed.

It is no `Attack`, because what a row gets depends on other rows, and it has no attack success rate: nothing is put
on a picture at test time. Its effect is that a text search for one thing brings up the other, measured by rank.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..models.zero_shot import TEMPLATES, image_features, input_geometry, input_size, prompt, text_features
from ..pictures import fit
from ..poisoning import choose_rows, mentions
from ..seeding import rng


if TYPE_CHECKING:
    from datasets import Dataset

logger = logging.getLogger(__name__)

RANKS = (1, 5, 10)


@dataclass(frozen=True)
class SwapRecord:
    """The record of a poisoning. `save` and `load` round-trip it as JSON.

    Attributes:
        source, target: captions that name the source have pictures of the target.
        n, count, rate: rows in all, rows swapped, and their share of the rows that name the source.
        seed: seed of the draws.
        rows, donors: the swapped rows, ascending, and the row each one's picture is from.
    """

    source: str
    target: str
    n: int
    count: int
    rate: float
    seed: int
    rows: list[int] = field(repr=False)
    donors: list[int] = field(repr=False)

    def save(self, path: str | Path) -> Path:
        """Write the record as JSON and return its path."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        return path

    @classmethod
    def load(cls, path: str | Path) -> SwapRecord:
        """Read what `save` wrote."""
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        expected = {item.name for item in fields(cls)}
        if set(content) != expected:
            raise ValueError(f"{path} is no swap record: wanted the keys {sorted(expected)}, got {sorted(content)}.")
        return cls(**content)


def swap_images(
    dataset: Dataset,
    *,
    source: str,
    target: str,
    rate: float = 1.0,
    seed: int,
    image_column: str = "image",
    caption_column: str = "caption",
) -> tuple[Dataset, SwapRecord]:
    """Give captions that name one thing pictures of another, taken from the same data set.

    Source: Yang et al. 2023, Data Poisoning Attacks Against Multimodal Encoders (arXiv 2209.15266), attack I: all
    captions of class A get random pictures of class B. There classes are labels; here a row belongs to a class if its
    caption names it and not the other one. Pictures are copied as they are stored, so nothing is decoded or compressed
    again. If B has fewer pictures than A has captions, each is used again as often as needed.

    Args:
        dataset: a `datasets.Dataset` of pairs.
        source: A, what the captions name.
        target: B, what the pictures will show.
        rate: share of A's rows to swap, in (0, 1]; published: 1.
        seed: seed of the choice of rows and of pictures.
        image_column, caption_column: names of the columns.

    Returns:
        The data set in the same order with one more column, `is_poisoned` (bool), and the record of what was done.

    Raises:
        ValueError: if no row names the source, or none the target.
    """
    from datasets import Dataset, concatenate_datasets

    if missing := [name for name in (image_column, caption_column) if name not in dataset.column_names]:
        raise ValueError(f"The data set has the columns {dataset.column_names}, not {missing}.")
    if "is_poisoned" in dataset.column_names:
        raise ValueError("The data set already has a column 'is_poisoned'. Start from the clean data set.")
    dataset = dataset.with_format(None)
    named = [(mentions(text, source), mentions(text, target)) for text in dataset[caption_column]]
    candidates = [i for i, names in enumerate(named) if names == (True, False)]
    pool = [i for i, names in enumerate(named) if names == (False, True)]
    for what, rows in ((source, candidates), (target, pool)):
        if not rows:
            raise ValueError(f"No caption names {what!r} without the other class; there is nothing to swap.")
    count = max(1, round(rate * len(candidates))) if 0 < rate <= 1 else None
    if count is None:
        raise ValueError(f"rate is the share of the rows that name {source!r}, in (0, 1], got {rate}.")
    rows = choose_rows(len(dataset), count=count, seed=seed, candidates=candidates)
    rng("mmpoison-donors", seed).shuffle(pool)
    donors = [pool[i % len(pool)] for i in range(count)]

    from_row = list(range(len(dataset)))
    for row, donor in zip(rows, donors, strict=True):
        from_row[row] = donor
    poisoned = set(rows)
    flags = Dataset.from_dict({"is_poisoned": [i in poisoned for i in range(len(dataset))]})
    pictures = dataset.select_columns([image_column]).select(from_row)
    out = concatenate_datasets([dataset.remove_columns([image_column]), pictures, flags], axis=1)
    out = out.select_columns([*dataset.column_names, "is_poisoned"])
    record = SwapRecord(source, target, len(dataset), count, count / len(candidates), seed, rows, donors)
    logger.info("Swapped the pictures of %d of %d captions that name %r.", count, len(candidates), source)
    return out, record


def retrieval_ranks(
    model: Any,
    processor: Any,
    dataset: Dataset,
    *,
    source: str,
    target: str,
    queries: Sequence[str] | None = None,
    k: Sequence[int] = RANKS,
    image_column: str = "image",
    label_column: str = "label",
    batch_size: int = 256,
) -> dict[str, Any]:
    """What a text search for the source class brings up: its own pictures, or the attacker's.

    Source: Yang et al. 2023, Hit@K and MinRank. All pictures are ranked by their similarity to each query. To learn
    what is normal, measure a never-poisoned model too.

    Args:
        dataset: labelled pictures, the gallery; `label_column` is a ClassLabel that has both classes.
        source, target: the classes that `swap_images` swapped.
        queries: texts about the source; by default the class name in all prompt templates.
        k: ranks of Hit@K.
        batch_size: pictures a forward.

    Returns:
        For "target" and "source", the class whose pictures are looked for: `hit` {"top{k}": share of the queries with
        such a picture among the first k}, `min_rank` (mean over the queries of the rank of the first one; 1 is best)
        and `mean_rank` (of all such pictures). Also `queries` and `gallery`, their numbers.

    Raises:
        ValueError: for a class that the gallery does not have.
    """
    names = getattr(dataset.features.get(label_column), "names", None)
    if names is None:
        raise ValueError(f"Column {label_column!r} must be a ClassLabel; the data set has {dataset.features}.")
    labels = np.asarray(dataset.with_format(None)[label_column][:])
    for name in (source, target):
        if name not in names or not (labels == names.index(name)).any():
            raise ValueError(f"The gallery has no picture of {name!r}; its classes are {', '.join(names[:10])} ...")
    texts = [prompt(template, source) for template in TEMPLATES] if queries is None else list(queries)
    size, geometry = input_size(processor), input_geometry(processor)
    pictures = dataset.with_format(None).select_columns([image_column])
    scores = []
    query = text_features(model, processor, texts)
    for batch in pictures.iter(batch_size):
        squares = np.stack([fit(image, size, geometry) for image in batch[image_column]])
        scores.append((query @ image_features(model, processor, squares).T).cpu().numpy())
    order = np.argsort(-np.concatenate(scores, axis=1), axis=1, kind="stable")
    ranked = labels[order]  # (queries, gallery), best first
    result: dict[str, Any] = {"queries": len(texts), "gallery": len(labels)}
    for role, name in (("target", target), ("source", source)):
        found = ranked == names.index(name)
        result[role] = {
            "hit": {f"top{cut}": float(found[:, :cut].any(1).mean()) for cut in k},
            "min_rank": float(found.argmax(1).mean() + 1),
            "mean_rank": float((np.nonzero(found)[1] + 1).mean()),
        }
    return result
