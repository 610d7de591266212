"""Examples in, one stacked batch out: all views of a batch, drawn for this epoch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import datasets
import numpy as np
import torch
from PIL import Image

from ..data.loading import to_rgb
from ..models.families import FAMILIES, Family
from ..models.zero_shot import input_geometry, input_size
from ..pictures import fit
from ..seeding import derive_seed, numpy_rng, rng
from ..subtexts import Parts, SubText, Vocabulary
from .augment import add_noise, augment_image, augment_text, erase


#: Content words kept of a caption when asking whether another sample's positive is true of it too.
_CAPTION_WORDS = 48
_SUBTEXT_WORDS = 16
#: Sub-texts drawn for each one wanted where some words are excluded.
_TRIES = 8
#: Pairs of words compared at once when asking it: for the 1,024 chosen of a batch of 4,096 all would be 800 MB.
_COMPARED = 2**25


@dataclass
class DataCollatorForTACleaner:
    """Draws the views of each sample by (seed, epoch, sample) and stacks them.

    With B examples, K of them chosen, P positives (at least 1: the caption, where none is wanted) and N negatives for
    each chosen one, the batch is

    - `pixel_values`: uint8 `(V*B, 3, H, W)`, V = 2 with augmentation, else 1; all originals first. Rescaling and
      normalisation happen on the device, in the trainer.
    - `input_ids` and, for a CLIP, `attention_mask`: int64 `(T, L)`, T = V*B + K*(P + N): captions, augmented captions,
      positives (sample by sample), negatives. L is the longest text of the batch, end token included.
    - with K > 0: `chosen` `(K,)`, `positive_valid` `(K, P)`, `negative_valid` `(K, N)`, and the content words as
      64-bit hashes, 0 for padding: `positive_words` `(K, P, 16)`, `caption_words` `(K, 48)`.

    Args:
        processor: The model's processor.
        augment: Whether to add the second views (CleanCLIP).
        vocabulary: Swap candidates for negatives; None gives no sub-texts.
        num_positive, num_negative: P and N.
        swap: The kinds of parts that may be falsified.
        seed: The run's data seed.
        trim: Whether to cut texts to the batch's longest, where the family allows it; False pads to the maximum.
        noise, erase: Shares of the pictures whose first view gets noise, or an erased square.
        noise_sigma: Standard deviation of the noise, of pixels in [0, 1].
        family: The model's family, which says how texts are padded.
        exclude: Words that no sub-text may hold.
    """

    processor: Any
    augment: bool = True
    vocabulary: Vocabulary | None = None
    num_positive: int = 1
    num_negative: int = 1
    swap: Sequence[str] = ("noun", "relation", "attribute")
    seed: int = 0
    trim: bool = True
    noise: float = 0.0
    erase: float = 0.0
    noise_sigma: float = 0.2
    family: Family = FAMILIES["clip"]
    exclude: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        self._size, self._geometry = input_size(self.processor), input_geometry(self.processor)

    def __call__(self, examples: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        b = len(examples)
        # One array for all views, filled picture by picture: no list of them, no second copy of a large batch.
        pictures = np.empty((2 * b if self.augment else b, 3, self._size, self._size), dtype=np.uint8)
        captions, rewritten = [], []
        for i, example in enumerate(examples):
            key = (self.seed, example["epoch"], example["sample_id"])
            pixels = fit(to_rgb(_decoded(example["image"])), self._size, self._geometry)
            pictures[i] = self._perturbed(pixels, key).transpose(2, 0, 1)
            captions.append(example["caption"])
            if self.augment:
                second = augment_image(Image.fromarray(pixels), rng("image view", *key))
                pictures[b + i] = np.asarray(second).transpose(2, 0, 1)
                rewritten.append(augment_text(example["caption"], rng("text view", *key)))
        batch: dict[str, torch.Tensor] = {}
        texts = captions + rewritten
        if self.vocabulary is not None:
            subtexts, batch = self._subtexts(examples)
            texts = texts + subtexts
        tokens = self.family.tokenize(self.processor.tokenizer, texts, trim=self.trim)
        return {"pixel_values": torch.from_numpy(pictures), **tokens, **batch}

    def _perturbed(self, pixels: np.ndarray, key: tuple[int, ...]) -> np.ndarray:
        """The first view of a picture, uint8 `(H, W, 3)`. Every draw has a generator of its own."""
        if rng("noise", *key).random() < self.noise:
            pixels = add_noise(pixels, numpy_rng("noise", *key), self.noise_sigma)
        if rng("erase", *key).random() < self.erase:
            pixels = erase(pixels, numpy_rng("erase", *key))
        return pixels

    def _draw(self, parts: Parts, r: Random) -> tuple[list[SubText], list[SubText]]:
        """True and false sub-texts of one caption; where words are excluded, the first of many that do without."""
        many = _TRIES if self.exclude else 1
        true, false = self.vocabulary.sub_texts(
            parts, r, many * self.num_positive, many * self.num_negative, tuple(self.swap)
        )
        if self.exclude:
            true = _without(true, self.exclude, self.num_positive)
            false = _without(false, self.exclude, self.num_negative)
        return true, false

    def _subtexts(self, examples: Sequence[dict[str, Any]]) -> tuple[list[str], dict[str, torch.Tensor]]:
        """Texts of all slots, and who is valid in them; a slot without a sub-text repeats the caption, masked out."""
        chosen = [i for i, example in enumerate(examples) if example["chosen"]]
        if not chosen:
            return [], {}
        p = max(1, self.num_positive)
        positives: list[str] = []
        negatives: list[str] = []
        positive_valid = torch.zeros(len(chosen), p, dtype=torch.bool)
        negative_valid = torch.zeros(len(chosen), self.num_negative, dtype=torch.bool)
        positive_words = torch.zeros(len(chosen), p, _SUBTEXT_WORDS, dtype=torch.int64)
        caption_words = torch.zeros(len(chosen), _CAPTION_WORDS, dtype=torch.int64)
        for k, i in enumerate(chosen):
            example = examples[i]
            parts = Parts.from_row(example["parts"])
            r = rng("sub-texts", self.seed, example["epoch"], example["sample_id"])
            true, false = self._draw(parts, r)
            if not self.num_positive:
                true = [SubText(example["caption"], parts.words)]
            positives += _padded(true, p, example["caption"])
            negatives += _padded(false, self.num_negative, example["caption"])
            positive_valid[k, : len(true)] = True
            negative_valid[k, : len(false)] = True
            for j, positive in enumerate(true):
                _fill(positive_words[k, j], positive.words)
            _fill(caption_words[k], parts.words)
        return positives + negatives, {
            "chosen": torch.tensor(chosen),
            "positive_valid": positive_valid,
            "negative_valid": negative_valid,
            "positive_words": positive_words,
            "caption_words": caption_words,
        }


def _decoded(image: Image.Image | dict[str, Any]) -> Image.Image:
    """The picture, of {"bytes", "path"} as `datasets` itself decodes it, or as it is."""
    return datasets.Image().decode_example(image) if isinstance(image, dict) else image


def _without(subtexts: Sequence[SubText], words: frozenset[str], count: int) -> list[SubText]:
    return [subtext for subtext in subtexts if words.isdisjoint(subtext.words)][:count]


def _padded(subtexts: Sequence[SubText], count: int, caption: str) -> list[str]:
    return [subtext.text for subtext in subtexts] + [caption] * (count - len(subtexts))


def _fill(row: torch.Tensor, words: frozenset[str]) -> None:
    """Writes the words' hashes into a zero row. Words beyond its length are dropped: fewer texts count as shared."""
    hashes = [derive_seed(word) >> 1 or 1 for word in sorted(words)][: len(row)]
    row[: len(hashes)] = torch.tensor(hashes, dtype=torch.int64)


def also_true(positive_words: torch.Tensor, caption_words: torch.Tensor) -> torch.Tensor:
    """Which positives are true of which captions, judged by their words.

    Args:
        positive_words: int64 `(K, P, W)` hashes, 0 for padding.
        caption_words: int64 `(K, V)`.

    Returns:
        Bool `(K, P, K)`: every content word of positive `[i, p]` occurs in caption `j`.
    """
    k, p, w = positive_words.shape
    rows = max(1, _COMPARED // max(1, p * w * caption_words.numel()))
    blocks = [_also_true(block, caption_words) for block in positive_words.split(rows)]
    return torch.cat(blocks) if blocks else torch.zeros(k, p, k, dtype=torch.bool, device=positive_words.device)


def _also_true(positive_words: torch.Tensor, caption_words: torch.Tensor) -> torch.Tensor:
    occurs = (positive_words[..., None, :, None] == caption_words[None, None, :, None, :]).any(-1)  # (K, P, K, W)
    padding = (positive_words == 0)[:, :, None, :]
    return (occurs | padding).all(-1)
