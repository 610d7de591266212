"""Examples in, one stacked batch out: all views of a batch, drawn for this epoch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from .attacks.base import fit
from .augment import augment_image, augment_text
from .data import to_rgb
from .seeding import derive_seed, rng
from .subtexts import Parts, SubText, Vocabulary
from .zero_shot import input_size


#: Content words kept of a caption when asking whether another sample's positive is true of it too.
_CAPTION_WORDS = 48
_SUBTEXT_WORDS = 16


@dataclass
class DataCollatorForTACleaner:
    """Draws the views of each sample by (seed, epoch, sample) and stacks them.

    With B examples, K of them chosen, P positives and N negatives for each chosen one, the batch is

    - `pixel_values`: uint8 `(V*B, 3, H, W)`, V = 2 with augmentation, else 1; all originals first. Rescaling and
      normalisation happen on the device, in the trainer.
    - `input_ids`, `attention_mask`: int64 `(T, L)`, T = V*B + K*(P + N): captions, augmented captions, positives
      (sample by sample), negatives. L is the longest text of the batch, end token included.
    - with K > 0: `chosen` `(K,)`, `positive_valid` `(K, P)`, `negative_valid` `(K, N)`, and the content words as
      64-bit hashes, 0 for padding: `positive_words` `(K, P, 16)`, `caption_words` `(K, 48)`.

    Args:
        processor: The model's `CLIPProcessor`.
        augment: Whether to add the second views (CleanCLIP).
        vocabulary: Swap candidates for negatives; None gives no sub-texts.
        num_positive, num_negative: P and N.
        swap: The kinds of parts that may be falsified.
        seed: The run's data seed.
        trim: Whether to cut texts to the batch's longest; False pads to the tokenizer's maximum.
    """

    processor: Any
    augment: bool = True
    vocabulary: Vocabulary | None = None
    num_positive: int = 1
    num_negative: int = 1
    swap: Sequence[str] = ("noun", "relation", "attribute")
    seed: int = 0
    trim: bool = True

    def __post_init__(self) -> None:
        self._size = input_size(self.processor)

    def __call__(self, examples: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        images, second = [], []
        captions, rewritten = [], []
        for example in examples:
            key = (self.seed, example["epoch"], example["sample_id"])
            pixels = fit(to_rgb(example["image"]), self._size)
            images.append(pixels)
            captions.append(example["caption"])
            if self.augment:
                second.append(np.asarray(augment_image(Image.fromarray(pixels), rng("image view", *key))))
                rewritten.append(augment_text(example["caption"], rng("text view", *key)))
        batch: dict[str, torch.Tensor] = {}
        texts = captions + rewritten
        if self.vocabulary is not None:
            subtexts, batch = self._subtexts(examples)
            texts = texts + subtexts
        tokens = self.processor.tokenizer(
            texts, padding="longest" if self.trim else "max_length", truncation=True, return_tensors="pt"
        )
        pixels = torch.from_numpy(np.stack(images + second)).permute(0, 3, 1, 2).contiguous()
        return {
            "pixel_values": pixels,
            "input_ids": tokens["input_ids"],
            "attention_mask": tokens["attention_mask"],
            **batch,
        }

    def _subtexts(self, examples: Sequence[dict[str, Any]]) -> tuple[list[str], dict[str, torch.Tensor]]:
        """Texts of all slots, and who is valid in them; a slot without a sub-text repeats the caption, masked out."""
        chosen = [i for i, example in enumerate(examples) if example["chosen"]]
        if not chosen:
            return [], {}
        positives: list[str] = []
        negatives: list[str] = []
        positive_valid = torch.zeros(len(chosen), self.num_positive, dtype=torch.bool)
        negative_valid = torch.zeros(len(chosen), self.num_negative, dtype=torch.bool)
        positive_words = torch.zeros(len(chosen), self.num_positive, _SUBTEXT_WORDS, dtype=torch.int64)
        caption_words = torch.zeros(len(chosen), _CAPTION_WORDS, dtype=torch.int64)
        for k, i in enumerate(chosen):
            example = examples[i]
            parts = Parts.from_row(example["parts"])
            r = rng("sub-texts", self.seed, example["epoch"], example["sample_id"])
            true, false = self.vocabulary.sub_texts(parts, r, self.num_positive, self.num_negative, tuple(self.swap))
            positives += _padded(true, self.num_positive, example["caption"])
            negatives += _padded(false, self.num_negative, example["caption"])
            positive_valid[k, : len(true)] = True
            negative_valid[k, : len(false)] = True
            for p, positive in enumerate(true):
                _fill(positive_words[k, p], positive.words)
            _fill(caption_words[k], parts.words)
        return positives + negatives, {
            "chosen": torch.tensor(chosen),
            "positive_valid": positive_valid,
            "negative_valid": negative_valid,
            "positive_words": positive_words,
            "caption_words": caption_words,
        }


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
    found = (positive_words[..., None, :, None] == caption_words[None, None, :, None, :]).any(-1)  # (K, P, K, W)
    padding = (positive_words == 0)[:, :, None, :]
    return (found | padding).all(-1)
