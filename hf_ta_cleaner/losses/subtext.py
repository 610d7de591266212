"""TA-Cleaner's sub-text alignment: an image agrees with true parts of its caption, not with falsified ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .views import Views


if TYPE_CHECKING:
    import torch

CITATION = """@article{xun2024tacleaner,
  title = {{TA-Cleaner}: A Fine-grained Text Alignment Backdoor Defense Strategy for Multimodal Contrastive Learning},
  author = {Xun, Yuan and Liang, Siyuan and Jia, Xiaojun and Liu, Xinwei and Cao, Xiaochun},
  journal = {arXiv preprint arXiv:2409.17601},
  year = {2024}
}"""


def subtext_loss(views: Views) -> torch.Tensor:
    """InfoNCE between the chosen images and their positive sub-texts, negatives in the image's denominator.

    For every valid positive p of chosen sample k, with all positives P_j of the chosen and k's own negatives N_k:

        L_subtext = mean over p of 1/2 [ CE(s I_k -> {P_j} u N_k, target p) + CE(s p -> {I_j, j chosen}, target I_k) ]

    Other positives of k, and positives of others that are also true of k's caption, are left out of the first
    denominator; images of which p is also true are left out of the second. Negatives stand in the first only: no
    image belongs to a false text.

    Args:
        views: Uses `image` `(B, D)`, `scale` and `subtexts` (see `SubTexts`).

    Returns:
        A scalar; 0 (with gradient 0) when no slot of the batch holds a positive.

    Raises:
        ValueError: The batch carries no sub-texts.

    Source:
        After Xun et al. 2024 (arXiv 2409.17601), whose formula could not be read in full; the masks and the
        normalisation are this project's.
    """
    import torch
    from torch.nn import functional as F

    if views.subtexts is None:
        raise ValueError(
            "the sub-text loss needs sub-texts, but the batch has none; "
            "map the dataset with SubTextMap() or set subtext_weight=0"
        )
    sub = views.subtexts
    k, p, _ = sub.positive.shape
    image = views.image[sub.chosen]  # (K, D)
    positive = sub.positive.flatten(0, 1)  # (K*P, D)
    valid = sub.positive_valid.flatten()  # (K*P,)
    owner = torch.arange(k, device=image.device).repeat_interleave(p)  # (K*P,)
    rows = torch.arange(k * p, device=image.device)
    also_true = sub.also_true.flatten(0, 1)  # (K*P, K): positive q is also true of chosen j

    # Image to text. Row q: the image of q's owner against all positives and the owner's own negatives.
    to_positive = views.scale * image @ positive.T  # (K, K*P)
    out = also_true.T | (owner[None] == torch.arange(k, device=image.device)[:, None]) | ~valid[None]  # (K, K*P)
    to_positive = to_positive[owner]
    out = out[owner]
    out[rows, rows] = False
    to_negative = views.scale * torch.einsum("kd,knd->kn", image, sub.negative)  # (K, N)
    logits = torch.cat(
        [
            to_positive.masked_fill(out, -torch.inf),
            to_negative.masked_fill(~sub.negative_valid, -torch.inf)[owner],
        ],
        dim=1,
    )
    image_to_text = F.cross_entropy(logits, rows, reduction="none")

    # Text to image. Row q: positive q against all chosen images, those it is also true of left out.
    to_image = views.scale * positive @ image.T  # (K*P, K)
    out = also_true.clone()
    out[rows, owner] = False
    text_to_image = F.cross_entropy(to_image.masked_fill(out, -torch.inf), owner, reduction="none")

    return torch.where(valid, image_to_text + text_to_image, 0).sum() / (2 * valid.sum().clamp(min=1))
