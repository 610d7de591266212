"""TA-Cleaner's sub-text alignment: an image agrees with true parts of its caption, not with falsified ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .views import SubTexts, Views


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

    The first denominator leaves out the other positives of k, and positives of other samples that are also true of
    k's caption. The second leaves out images of which p is also true. Negatives appear in the first only, because no
    image belongs to a false text.

    Args:
        views: Uses `image` `(B, D)`, `scale` and `subtexts` (see `SubTexts`).

    Returns:
        A scalar. It is 0, with gradient 0, if no slot of the batch holds a positive.

    Raises:
        ValueError: The batch carries no sub-texts.

    Source:
        After Xun et al. 2024 (arXiv 2409.17601), whose formula could not be read in full; the masks and the
        normalisation are this project's.
    """
    import torch

    if views.subtexts is None:
        raise ValueError(
            "the sub-text loss needs sub-texts, but the batch has none; "
            "map the dataset with SubTextMap() or set subtext_weight=0"
        )
    sub = views.subtexts
    k, p, _ = sub.positive.shape
    image = views.image[sub.chosen]  # (K, D)
    owner = torch.arange(k, device=image.device).repeat_interleave(p)  # (K*P,)
    valid = sub.positive_valid.flatten()  # (K*P,)
    terms = _image_to_text(image, sub, views.scale, owner) + _text_to_image(image, sub, views.scale, owner)
    return torch.where(valid, terms, 0).sum() / (2 * valid.sum().clamp(min=1))


def _image_to_text(image: torch.Tensor, sub: SubTexts, scale: torch.Tensor, owner: torch.Tensor) -> torch.Tensor:
    """`(K*P,)` cross-entropies. Row q: the image of q's owner against all positives and the owner's negatives."""
    import torch
    from torch.nn import functional as F

    positive = sub.positive.flatten(0, 1)  # (K*P, D)
    also_true = sub.also_true.flatten(0, 1)  # (K*P, K): positive q is also true of chosen j
    rows = torch.arange(len(owner), device=image.device)
    own = owner[None] == torch.arange(len(image), device=image.device)[:, None]
    out = (also_true.T | own | ~sub.positive_valid.flatten()[None])[owner]  # (K*P, K*P)
    out[rows, rows] = False
    to_positive = (scale * image @ positive.T)[owner]  # (K*P, K*P)
    to_negative = scale * torch.einsum("kd,knd->kn", image, sub.negative)  # (K, N)
    logits = torch.cat(
        [
            to_positive.masked_fill(out, -torch.inf),
            to_negative.masked_fill(~sub.negative_valid, -torch.inf)[owner],
        ],
        dim=1,
    )
    return F.cross_entropy(logits, rows, reduction="none")


def _text_to_image(image: torch.Tensor, sub: SubTexts, scale: torch.Tensor, owner: torch.Tensor) -> torch.Tensor:
    """`(K*P,)` cross-entropies. Row q: positive q against the chosen images, without those it is also true of."""
    import torch
    from torch.nn import functional as F

    to_image = scale * sub.positive.flatten(0, 1) @ image.T  # (K*P, K)
    out = sub.also_true.flatten(0, 1).clone()
    out[torch.arange(len(owner), device=image.device), owner] = False
    return F.cross_entropy(to_image.masked_fill(out, -torch.inf), owner, reduction="none")
