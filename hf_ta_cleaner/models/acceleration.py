"""Makes the towers of a model faster without changing what they compute, beyond rounding."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from transformers.activations import QuickGELUActivation
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.clip.modeling_clip import CLIPMLP, CLIPTextModel


#: QuickGELU(x) = x * sigmoid(1.702 x) (Hendrycks & Gimpel 2016, arXiv 1606.08415, section 2).
_SLOPE = 1.702
#: Groups of texts, and the fewest texts of one: products of smaller matrices are slower by more than they save.
_GROUPS, _FEWEST = 4, 8


class SiluMLP(CLIPMLP):
    """CLIP's MLP with QuickGELU, by way of SiLU: silu(1.702 x) / 1.702 is the same function.

    PyTorch has one kernel for SiLU and one for its gradient, and none for QuickGELU, whose seven passes over the
    widest tensor of the network are a third of a training step on a CPU. Both factors go into the weights, which are
    far smaller than what they are multiplied with.
    """

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """`(..., D)` -> `(..., D)`."""
        wide = F.linear(hidden_states, _SLOPE * self.fc1.weight, _SLOPE * self.fc1.bias)
        return F.linear(F.silu(wide), self.fc2.weight / _SLOPE, self.fc2.bias)


def use_silu(model: nn.Module) -> int:
    """Turns the MLPs of a CLIP with QuickGELU into `SiluMLP`, in place; weights, names and results stay.

    Those whose layers are not plain (LoRA, quantised) are left alone, as is any other activation.

    Returns:
        How many were turned.
    """
    turned = 0
    for module in model.modules():
        plain = type(module) is CLIPMLP and type(module.fc1) is type(module.fc2) is nn.Linear
        if plain and isinstance(module.activation_fn, QuickGELUActivation):
            module.__class__ = SiluMLP
            turned += 1
    return turned


class GroupedTextModel(CLIPTextModel):
    """CLIP's text tower that, in training, takes texts of like length together and pads each group to its own longest.

    One long caption pads a whole batch otherwise: of 24 positions, some eleven hold a token. A text does not see what
    follows it, so its embedding stays. On a CPU alone: an accelerator would have to wait for the lengths.
    """

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        **kwargs,
    ) -> BaseModelOutputWithPooling:
        """`(T, L)` -> pooled `(T, D)`; without `last_hidden_state` where the texts were grouped."""
        forward = super().forward
        plain = position_ids is None and input_ids is not None and attention_mask is not None
        groups = text_groups(attention_mask) if self.training and plain and input_ids.device.type == "cpu" else []
        if len(groups) < 2 or not attention_mask[:, 0].all():  # padded on the left
            return forward(input_ids, attention_mask, position_ids, **kwargs)
        pooled = [
            forward(input_ids[rows, :longest], attention_mask[rows, :longest], **kwargs).pooler_output
            for rows, longest in groups
        ]
        back = torch.cat([rows for rows, _ in groups]).argsort()
        return BaseModelOutputWithPooling(pooler_output=torch.cat(pooled)[back])


def text_groups(attention_mask: torch.Tensor) -> list[tuple[torch.Tensor, int]]:
    """Texts of like length: the rows of each group, and its longest; from a mask `(T, L)`, padded on the right."""
    lengths = attention_mask.sum(dim=1)
    groups = lengths.argsort(stable=True).tensor_split(max(1, min(_GROUPS, len(lengths) // _FEWEST)))
    return [(rows, int(lengths[rows[-1]])) for rows in groups]


def group_texts(model: nn.Module) -> int:
    """Turns the text tower of a CLIP into a `GroupedTextModel`, in place; weights, names and results stay.

    Returns:
        How many were turned.
    """
    towers = [module for module in model.modules() if type(module) is CLIPTextModel]
    for tower in towers:
        tower.__class__ = GroupedTextModel
    return len(towers)


def compile_blocks(model: nn.Module, **options) -> int:
    """Compiles every transformer block in place (`torch.compile`), each kind once for all of its layers.

    A block is what repeats: the whole model would take as many times longer to compile as it has layers. Texts of
    another length make one more version, for all lengths.

    Args:
        options: Of `torch.compile`, such as `backend` and `mode`.

    Returns:
        How many blocks were found.
    """
    blocks = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    for block in blocks:
        block.compile(**options)
    return len(blocks)
