"""The only place that knows one dual encoder from another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Family:
    """What the package must know about a family of dual encoders.

    Attributes:
        model_type: `config.model_type` of its checkpoints.
        title: How people call it.
        scale: `model -> exp(logit_scale)`, the inverse temperature, with gradient.
        clamp: Keeps the temperature parameter in its legal range, in place, after an optimiser step.
        trimmable: Whether a text batch may be cut to its longest caption without changing an embedding.
    """

    model_type: str
    title: str
    scale: Callable[[PreTrainedModel], torch.Tensor]
    clamp: Callable[[PreTrainedModel], None]
    trimmable: bool


def _clamp_clip(model: PreTrainedModel) -> None:
    """Radford et al. 2021, section 2.5: logits are never scaled by more than 100; here never by less than 1 either."""
    model.logit_scale.data.clamp_(0, 4.605170185988092)


FAMILIES: dict[str, Family] = {
    "clip": Family("clip", "CLIP", lambda model: model.logit_scale.exp(), _clamp_clip, trimmable=True),
}


def family_of(model: PreTrainedModel) -> Family:
    """The family of a loaded model.

    Raises:
        ValueError: The model is none of the supported families.
    """
    model_type = getattr(model.config, "model_type", None)
    if model_type not in FAMILIES:
        supported = ", ".join(f"{f.title} (model_type {f.model_type!r})" for f in FAMILIES.values())
        raise ValueError(
            f"{type(model).__name__} has model_type {model_type!r}, which cannot be cleaned; supported: {supported}. "
            "Load an image-text dual encoder."
        )
    return FAMILIES[model_type]
