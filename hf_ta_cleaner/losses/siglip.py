"""SigLIP's loss: every picture and every caption are a yes or a no."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .clip import BLOCK
from .views import Views


if TYPE_CHECKING:
    import torch

CITATION = """@inproceedings{zhai2023sigmoid,
  title = {Sigmoid Loss for Language Image Pre-Training},
  author = {Zhai, Xiaohua and Mustafa, Basil and Kolesnikov, Alexander and Beyer, Lucas},
  booktitle = {IEEE/CVF International Conference on Computer Vision},
  year = {2023}
}"""


def siglip_loss(views: Views) -> torch.Tensor:
    """Pairwise logistic loss over all picture-caption combinations of the global batch.

        L_siglip = -1/B sum_ij log sigmoid(z_ij (s I_i . T_j + b)),  z_ij = 1 for i = j, else -1

    It stands where `clip_loss` stands for a CLIP; its weight is `clip_weight` too.

    Args:
        views: Uses `image`, `text` of shape `(B, D)`, `scale` and `bias`.

    Returns:
        A scalar: the sum over captions, the mean over pictures.

    Raises:
        ValueError: The batch carries no bias.

    Source:
        Zhai et al. 2023 (arXiv 2303.15343), algorithm 1.
    """
    import torch
    from torch.nn import functional as F
    from torch.utils.checkpoint import checkpoint

    if views.bias is None:
        raise ValueError("SigLIP's loss needs the model's logit_bias, but there is none; a CLIP trains with clip_loss")

    def block(image: torch.Tensor, text: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor, start: int):
        logits = scale * image @ text.T + bias
        sign = -torch.ones_like(logits)
        sign.diagonal(start).fill_(1)  # row i of the block belongs to text start + i
        return -F.logsigmoid(sign * logits).sum()

    b, given = len(views.image), (views.text, views.scale, views.bias)
    if b <= BLOCK:
        return block(views.image, *given, 0) / b
    blocks = zip(views.image.split(BLOCK), range(0, b, BLOCK), strict=True)
    saving = {"use_reentrant": False, "preserve_rng_state": False}
    return sum(checkpoint(block, rows, *given, start, **saving) for rows, start in blocks) / b
