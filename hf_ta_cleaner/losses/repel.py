"""Perturb and Recover's repelling term: embeddings leave those of the frozen suspect model, up to a distance."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .views import Views


if TYPE_CHECKING:
    import torch

CITATION = """@article{singh2024perturb,
  title = {Perturb and Recover: Fine-tuning for Effective Backdoor Removal from {CLIP}},
  author = {Singh, Naman Deep and Croce, Francesco and Hein, Matthias},
  journal = {arXiv preprint arXiv:2412.00727},
  year = {2024}
}"""

#: The published threshold, used there for every attack and model.
TAU = 2.15


def repel_loss(views: Views, tau: float = TAU) -> torch.Tensor:
    """Minus the distance to the suspect's embeddings of the same input, as long as it is at most tau.

        L_repel = -1/2 [S_img 1(S_img <= tau) + S_txt 1(S_txt <= tau)],  S = 1/B sum_i |u_i - u0_i|^2

    Beyond tau a side is constant, hence without gradient: from there on the other terms only recover.

    Args:
        views: Uses `image`, `text`, `image_suspect`, `text_suspect`, all `(B, D)`.
        tau: Threshold, in [0, 4]: S = 2 - 2 cos is 0 at the suspect, 2 at right angles to it, 4 opposite.

    Returns:
        A scalar in [-tau, 0].

    Raises:
        ValueError: The batch carries no embeddings of the suspect.

    Source:
        Singh et al. 2024 (arXiv 2412.00727), Perturb and Recover (PAR).
    """
    import torch

    return -sum(torch.where(s <= tau, s, torch.zeros_like(s)) for s in suspect_distances(views)) / 2


def suspect_distances(views: Views) -> tuple[torch.Tensor, torch.Tensor]:
    """(S_img, S_txt): batch means of the squared distance to the suspect's embeddings, each in [0, 4]."""
    if views.image_suspect is None or views.text_suspect is None:
        raise ValueError(
            "the repel and distillation losses need the frozen suspect's embeddings, but the batch has none; "
            "train with TACleanerTrainer, which makes them, or set repel_weight=0 and distill_weight=0"
        )
    return (
        (views.image - views.image_suspect).square().sum(-1).mean(),
        (views.text - views.text_suspect).square().sum(-1).mean(),
    )
