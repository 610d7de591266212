"""Makes the towers of a model faster without changing what they compute, beyond rounding."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from transformers.activations import QuickGELUActivation
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.models.clip.modeling_clip import CLIPMLP


#: QuickGELU(x) = x * sigmoid(1.702 x) (Hendrycks & Gimpel 2016, arXiv 1606.08415, section 2).
_SLOPE = 1.702


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
