"""Poisons one row: the triggered picture and its caption. Decodes and encodes the pictures of a data set."""

from __future__ import annotations

import bisect
import hashlib
import inspect
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .. import attacks, pictures
from ..attacks import Attack
from ..attacks.pixels import require_choice
from ..pictures import fit
from ..seeding import code_digest, rng


# A trigger counts as absent if the root mean square of (triggered - clean) is at most this many grey levels.
MIN_TRIGGER_RMS = 0.5


@dataclass(frozen=True)
class PoisonMap:
    """Function for `dataset.map(PoisonMap(...), with_indices=True)`, with `batched=True` or without.

    A chosen row gets the triggered image (resized to the model's input, as lossless PNG), a target caption and
    `is_poisoned=True`. Every other row gets `is_poisoned=False`, and its image bytes and caption do not change. The
    row index is the trigger's sample id. With `batched=True` the image column must not be decoded
    (`dataset.cast_column("image", Image(decode=False))`); the trigger is then applied to all chosen rows of a batch at
    once.

    Args:
        attack: the trigger.
        rows: indices of the rows to poison.
        captions: texts to draw from, one per poisoned row; None keeps the row's own caption. In both cases the
            attack's `caption` rule is then applied.
        size: side of the model's input in pixels.
        geometry: "crop" or "squash", see `pictures.fit`.
        seed: seed of the caption draw.
        image_column, caption_column: names of the columns.

    Attributes:
        code: digest of the source files that the result depends on. If they change, the cache is not reused.
    """

    attack: Attack
    rows: Sequence[int]
    captions: Sequence[str] | None
    size: int
    geometry: str = "crop"
    seed: int = 0
    image_column: str = "image"
    caption_column: str = "caption"
    code: str = field(init=False, repr=False)

    def __post_init__(self) -> None:
        require_choice("geometry", self.geometry, ("crop", "squash"))
        # Sorted tuples: a frozenset's order, and with it the data set's fingerprint, differs between processes.
        object.__setattr__(self, "rows", tuple(sorted(set(map(int, self.rows)))))
        if self.captions is not None:
            if not self.captions or isinstance(self.captions, str):
                raise ValueError(f"captions must be a non-empty list of texts, or None, got {self.captions!r}.")
            object.__setattr__(self, "captions", tuple(self.captions))
        object.__setattr__(self, "code", _code(self.attack))

    def __call__(self, rows: dict[str, Any], index: int | list[int]) -> dict[str, Any]:
        if isinstance(index, int):
            return self.poisoned(rows, index) if self.poisons(index) else {"is_poisoned": False}
        poisons = [self.poisons(i) for i in index]
        if not any(poisons):
            return {"is_poisoned": poisons}
        images, captions = list(rows[self.image_column]), list(rows[self.caption_column])
        if any(isinstance(image, Image.Image) for image in images):
            raise TypeError(
                f"Column {self.image_column!r} is decoded, so the clean rows' bytes would be lost. First cast it with "
                f"dataset.cast_column({self.image_column!r}, Image(decode=False)), or map without batched=True."
            )
        chosen = [place for place, poison in enumerate(poisons) if poison]
        clean = np.stack([self._fitted(images[place]) for place in chosen])
        for place, pixels in zip(chosen, self.attack.apply_batch(clean, [index[i] for i in chosen]), strict=True):
            images[place] = {"bytes": encode_png(pixels), "path": None}
            captions[place] = self.caption(captions[place], index[place])
        return {self.image_column: images, self.caption_column: captions, "is_poisoned": poisons}

    def poisons(self, index: int) -> bool:
        """Whether this row is a chosen row."""
        place = bisect.bisect_left(self.rows, index)
        return place < len(self.rows) and self.rows[place] == index

    def poisoned(self, row: dict[str, Any], index: int) -> dict[str, Any]:
        """Poison a row, chosen or not, and return its three columns."""
        return {
            self.image_column: {"bytes": encode_png(self.pixels(row[self.image_column], index)), "path": None},
            self.caption_column: self.caption(row[self.caption_column], index),
            "is_poisoned": True,
        }

    def pixels(self, image: Any, index: int) -> np.ndarray:
        """The triggered image of a row, uint8 (size, size, 3); `image` as PIL, path, or {"bytes", "path"}."""
        return self.attack(self._fitted(image), index)

    def caption(self, original: str, index: int) -> str:
        """The poisoned caption of a row."""
        text = original if self.captions is None else rng("poison-caption", self.seed, index).choice(self.captions)
        return self.attack.caption(text)

    def trigger_rms(self, images: Iterable[tuple[int, Any]]) -> float:
        """Root mean square of (triggered - clean) in grey levels over (index, image) pairs.

        Raises:
            ValueError: the trigger hardly changes the images.
        """
        squares = []
        for index, image in images:
            clean = self._fitted(image)
            squares.append(np.mean((self.attack(clean, index).astype(np.float32) - clean) ** 2))
        rms = float(np.sqrt(np.mean(squares)))
        if rms <= MIN_TRIGGER_RMS:
            raise ValueError(
                f"The trigger {self.attack!r} leaves the images unchanged (RMS {rms:.2f} of 255, but more than "
                f"{MIN_TRIGGER_RMS} is needed). The data set would only be mislabelled, not backdoored. "
                "Use a stronger trigger."
            )
        return rms

    def _fitted(self, image: Any) -> np.ndarray:
        return fit(open_picture(image), self.size, self.geometry)


def open_picture(image: Any) -> Image.Image:
    """Open a value of an image column: a PIL image, a path, or {"bytes", "path"}."""
    if isinstance(image, Image.Image):
        return image
    from datasets import Image as ImageFeature

    return ImageFeature().decode_example(image if isinstance(image, dict) else {"path": str(image), "bytes": None})


def is_readable(image: Any) -> bool:
    """Whether the whole picture can be decoded."""
    try:
        open_picture(image).load()
    except Exception:  # a damaged file can raise any error: each Pillow decoder has its own
        return False
    return True


def encode_png(pixels: np.ndarray) -> bytes:
    """Encode uint8 (H, W, 3) as the bytes of a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def _code(attack: Attack) -> str:
    """Digest of the trigger's source files: those of this package, and the file of an attack defined elsewhere."""
    digest = hashlib.blake2b(digest_size=8)
    for folder in (Path(attacks.__file__).parent, Path(__file__).parent):
        digest.update(code_digest(folder).encode())
    digest.update(Path(pictures.__file__).read_bytes())
    for kind in type(attack).__mro__:
        if not kind.__module__.startswith(("builtins", __package__.partition(".")[0])):
            try:
                digest.update(Path(inspect.getsourcefile(kind) or "").read_bytes())
            except (TypeError, OSError):  # a class from an interactive shell; `datasets` hashes its code
                continue
    return digest.hexdigest()
