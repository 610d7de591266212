"""The one argument of every loss: the embeddings of all views of a global batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple


if TYPE_CHECKING:
    import torch


class SubTexts(NamedTuple):
    """Embeddings of the sub-texts of the K chosen samples, and who may stand in whose denominator.

    Attributes:
        positive: `(K, P, D)`, unit length: true smaller statements of each chosen sample.
        negative: `(K, N, D)`, unit length: statements made false by one swapped part.
        chosen: `(K,)` long: the row of each chosen sample in the batch.
        positive_valid: `(K, P)` bool: False where a caption had fewer than P positives (the slot is padding).
        negative_valid: `(K, N)` bool: the same for negatives.
        also_true: `(K, P, K)` bool: `[i, p, j]` says that positive p of chosen sample i is also true of the caption
            of chosen sample j, so it is neither a wrong text for image j nor j a wrong image for it.
    """

    positive: torch.Tensor
    negative: torch.Tensor
    chosen: torch.Tensor
    positive_valid: torch.Tensor
    negative_valid: torch.Tensor
    also_true: torch.Tensor


class Views(NamedTuple):
    """Embeddings of a global batch of B pairs in D dimensions. All have unit length.

    Attributes:
        image: `(B, D)`: the pictures.
        text: `(B, D)`: their captions.
        scale: scalar: exp(logit_scale), the inverse temperature.
        image_aug: `(B, D)` or None: a second, augmented view of each picture.
        text_aug: `(B, D)` or None: a second, augmented view of each caption.
        subtexts: sub-texts of the chosen samples, or None.
        bias: scalar: SigLIP's logit_bias, or None.
        image_suspect: `(B, D)` or None: the frozen suspect's embeddings of the same pictures, without adversarial
            trigger and structured noise, and without gradient.
        text_suspect: `(B, D)` or None: the same for the captions.
    """

    image: torch.Tensor
    text: torch.Tensor
    scale: torch.Tensor
    image_aug: torch.Tensor | None = None
    text_aug: torch.Tensor | None = None
    subtexts: SubTexts | None = None
    bias: torch.Tensor | None = None
    image_suspect: torch.Tensor | None = None
    text_suspect: torch.Tensor | None = None
