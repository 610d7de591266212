"""The sandbox world as `datasets`: any size, the same pictures for the same seed, drawn in parallel, cached."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..seeding import code_digest
from .captions import caption
from .scene import CLASSES, PICTURE_SIZE, Scene, compose


if TYPE_CHECKING:
    from datasets import Dataset

#: Disjoint streams of pictures: one per part of the story, so that no two parts ever share a picture.
SPLITS = ("primer", "pretrain", "poison", "clean", "validation", "rebound")

#: In the evaluation split one object is the label: of medium size or large, and large wherever a small second one is.
_EVALUATION = {"second": 0.12, "main_sizes": ("medium", "large")}


def pair_scene(split: str, index: int, seed: int = 0) -> Scene:
    """The scene behind row `index` of `pairs(split, ..., seed)`; in the primer, one large upright thing."""
    if split == "primer":
        return compose(seed, split, index, second=0, main_sizes=("large",), poses=("upright",))
    return compose(seed, split, index)


def labelled_scene(index: int, seed: int = 0) -> Scene:
    """The scene behind row `index` of `labelled(..., seed)`; classes take turns."""
    return compose(seed, "evaluation", index, label=CLASSES[index % len(CLASSES)], **_EVALUATION)


def pairs(split: str = "clean", n: int = 5000, seed: int = 0, *, size: int = PICTURE_SIZE) -> Dataset:
    """`n` captioned pictures with the columns `image` (PNG, `size` x `size`) and `caption`.

    Raises:
        ValueError: The split does not exist or `n` is not positive.
    """
    if split not in SPLITS:
        raise ValueError(f"the sandbox has no split {split!r}; choose one of {', '.join(SPLITS)}")
    return _build(n, {"split": split, "seed": seed, "size": size}, labelled=False)


def labelled(n: int = 2000, seed: int = 0, *, size: int = PICTURE_SIZE) -> Dataset:
    """`n` pictures of the evaluation split with the columns `image` and `label` (ClassLabel over `CLASSES`)."""
    return _build(n, {"split": "evaluation", "seed": seed, "size": size}, labelled=True)


def _build(n: int, what: dict, *, labelled: bool) -> Dataset:
    from datasets import ClassLabel, Dataset, Features, Image, Value

    if n < 1:
        raise ValueError(f"a sandbox split needs at least one picture, got n={n}")
    second = ("label", ClassLabel(names=list(CLASSES))) if labelled else ("caption", Value("string"))
    processes = min(os.cpu_count() or 1, max(1, n // 500))
    return Dataset.from_generator(
        _rows,
        features=Features({"image": Image(), second[0]: second[1]}),
        gen_kwargs={
            "indices": list(range(n)),
            **what,
            "labelled": labelled,
            "world": code_digest(Path(__file__).parent),
        },
        num_proc=processes if processes > 1 else None,
    )


def _rows(indices: list[int], split: str, seed: int, size: int, labelled: bool, world: str) -> Iterator[dict]:
    """Generator for `Dataset.from_generator`; `world` only makes the cache notice a change in the drawing code."""
    for index in indices:
        scene = labelled_scene(index, seed) if labelled else pair_scene(split, index, seed)
        buffer = io.BytesIO()
        scene.draw(size).save(buffer, "PNG", compress_level=1)
        row: dict = {"image": {"bytes": buffer.getvalue(), "path": None}}
        row["label" if labelled else "caption"] = index % len(CLASSES) if labelled else caption(scene)
        yield row
