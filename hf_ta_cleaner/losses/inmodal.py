"""CleanCLIP's in-modal loss: each image finds its own augmented view, and so does each caption."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .clip import matching
from .views import Views


if TYPE_CHECKING:
    import torch

CITATION = """@inproceedings{bansal2023cleanclip,
  title = {{CleanCLIP}: Mitigating Data Poisoning Attacks in Multimodal Contrastive Learning},
  author = {Bansal, Hritik and Singhi, Nishad and Yang, Yu and Yin, Fan and Grover, Aditya and Chang, Kai-Wei},
  booktitle = {IEEE/CVF International Conference on Computer Vision},
  year = {2023}
}"""


def inmodal_loss(views: Views) -> torch.Tensor:
    """InfoNCE inside each modality, from the original to the augmented view, with the model's own temperature.

        L_inmodal = 1/2 [CE(s I I'^t) + CE(s T T'^t)],  the diagonal as target

    Args:
        views: Uses `image`, `text`, `image_aug`, `text_aug`, all `(B, D)`, and `scale`.

    Returns:
        A scalar.

    Raises:
        ValueError: The batch carries no augmented views.

    Source:
        Bansal et al. 2023 (arXiv 2303.03323); one direction only, as published.
    """
    if views.image_aug is None or views.text_aug is None:
        raise ValueError(
            "the in-modal loss needs augmented views, but the batch has none; "
            "collate with augment=True or set inmodal_weight=0"
        )
    image = matching(views.image, views.image_aug, views.scale)
    text = matching(views.text, views.text_aug, views.scale)
    return (image + text) / 2
