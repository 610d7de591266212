"""The CLIP loss: each image finds its caption and each caption its image."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .views import Views


if TYPE_CHECKING:
    import torch

CITATION = """@inproceedings{radford2021learning,
  title = {Learning Transferable Visual Models From Natural Language Supervision},
  author = {Radford, Alec and Kim, Jong Wook and Hallacy, Chris and Ramesh, Aditya and Goh, Gabriel and Agarwal,
            Sandhini and Sastry, Girish and Askell, Amanda and Mishkin, Pamela and Clark, Jack and others},
  booktitle = {International Conference on Machine Learning},
  year = {2021}
}"""


#: Rows of similarities held at once: above it the rest is computed again in the backward, so that memory grows with
#: the batch and not with its square.
BLOCK = 1024


def clip_loss(views: Views) -> torch.Tensor:
    """Symmetric InfoNCE between images and captions.

        L_clip = 1/2 [CE(s I T^t) + CE(s T I^t)],  the diagonal as target

    Args:
        views: Uses `image`, `text` of shape `(B, D)` and `scale`.

    Returns:
        A scalar; ln B for embeddings that carry no information.

    Source:
        Radford et al. 2021 (arXiv 2103.00020), figure 3.
    """
    return symmetric(views.image, views.text, views.scale)


def symmetric(a: torch.Tensor, b: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Mean of the cross-entropies of matching `a` to `b` and `b` to `a`, both `(B, D)`."""
    import torch
    from torch.nn import functional as F

    if len(a) > BLOCK:
        return (matching(a, b, scale) + matching(b, a, scale)) / 2
    logits = scale * a @ b.T
    target = torch.arange(len(a), device=a.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def matching(a: torch.Tensor, b: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy of finding each row of `a` among those of `b`, both `(B, D)`, `BLOCK` rows at a time."""
    import torch
    from torch.nn import functional as F
    from torch.utils.checkpoint import checkpoint

    target = torch.arange(len(a), device=a.device)
    if len(a) <= BLOCK:
        return F.cross_entropy(scale * a @ b.T, target)

    def block(rows: torch.Tensor, b: torch.Tensor, scale: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(scale * rows @ b.T, target, reduction="sum")

    sums = [
        checkpoint(block, rows, b, scale, own, use_reentrant=False, preserve_rng_state=False)
        for rows, own in zip(a.split(BLOCK), target.split(BLOCK), strict=True)
    ]
    return sum(sums) / len(a)
