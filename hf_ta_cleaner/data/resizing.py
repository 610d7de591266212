"""Pictures are decoded once and kept at the model's input size. An epoch then only copies them."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from typing import Any

import datasets
from PIL import Image

from ..pictures import fit
from .loading import to_rgb
from .mapping import mapped


@dataclass(frozen=True)
class Resize:
    """For `Dataset.map(batched=True)`: every `image`, of {"bytes", "path"}, at `size` x `size` and not compressed.

    `geometry` is that of `pictures.fit`. The pictures are PPM, a line of text and the pixels: every reader knows it,
    and reading it is about as fast as a copy.
    """

    size: int
    geometry: str = "crop"

    def __call__(self, batch: dict[str, list]) -> dict[str, list]:
        return {"image": [self._resized(image) for image in batch["image"]]}

    def _resized(self, image: dict[str, Any]) -> dict[str, Any]:
        square = fit(to_rgb(datasets.Image().decode_example(image)), self.size, self.geometry)
        buffer = io.BytesIO()
        Image.fromarray(square).save(buffer, "PPM")
        return {"bytes": buffer.getvalue(), "path": None}


def resized_once(pairs: datasets.Dataset, size: int, geometry: str = "crop") -> datasets.Dataset:
    """The pairs with pictures of the model's input size, pixel for pixel as the collator would make them.

    They lie in the cache of `datasets`, 3 * size * size bytes each, and are found there by the next run.
    """
    encoded = pairs.cast_column("image", datasets.Image(decode=False))
    processes = min(os.cpu_count() or 1, max(1, len(pairs) // 1000))
    done = mapped(
        encoded,
        Resize(size, geometry),
        batched=True,
        batch_size=100,
        writer_batch_size=100,
        features=encoded.features,
        num_proc=processes if processes > 1 else None,
        desc="Resizing pictures",
    )
    return done.cast_column("image", datasets.Image())
