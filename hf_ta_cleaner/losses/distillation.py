"""Distillation from the frozen suspect: embeddings stay those that it makes of the untouched input."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .repel import suspect_distances
from .views import Views


if TYPE_CHECKING:
    import torch

CITATION = """@inproceedings{schlarmann2024robust,
  title = {Robust {CLIP}: Unsupervised Adversarial Fine-Tuning of Vision Embeddings for Robust Large Vision-Language
           Models},
  author = {Schlarmann, Christian and Singh, Naman Deep and Croce, Francesco and Hein, Matthias},
  booktitle = {International Conference on Machine Learning},
  year = {2024}
}"""


def distillation_loss(views: Views) -> torch.Tensor:
    """The distance to the embeddings that the frozen suspect makes of the same pair, before anything was put on it.

        L_distill = 1/2 [S_img + S_txt],  S = 1/B sum_i |u_i - u0_i|^2

    u_i is the embedding of the picture as it is trained on, for example with an adversarial trigger. u0_i is the
    suspect's embedding of the picture without it. So the model unlearns a trigger and keeps the suspect's clean
    behaviour.

    Args:
        views: Uses `image`, `text`, `image_suspect`, `text_suspect`, all `(B, D)`.

    Returns:
        A scalar in [0, 4].

    Raises:
        ValueError: The batch carries no embeddings of the suspect.

    Source:
        For adversarial pictures and the image tower: Schlarmann et al. 2024 (arXiv 2402.12336), FARE.
    """
    return sum(suspect_distances(views)) / 2
