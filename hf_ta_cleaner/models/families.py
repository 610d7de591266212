"""The only place that knows one dual encoder from another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal


if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Family:
    """What the package must know about a family of dual encoders.

    Attributes:
        model_type: `config.model_type` of its checkpoints.
        title: How people call it.
        scale: `model -> exp(logit_scale)`, the inverse temperature, a scalar with gradient.
        clamp: Keeps the temperature parameter in its legal range, in place, after an optimiser step.
        trimmable: Whether a text batch may be cut to its longest caption without changing an embedding.
        alignment: Which loss of `losses` aligns pictures with captions.
        bias: `model -> logit_bias`, a scalar with gradient, or None where the family has none.
        lora_targets: Regular expression of the linear layers that LoRA adapts: those of every attention and MLP block
            that are called as modules.
    """

    model_type: str
    title: str
    scale: Callable[[PreTrainedModel], torch.Tensor]
    clamp: Callable[[PreTrainedModel], None]
    trimmable: bool
    alignment: Literal["clip", "siglip"]
    bias: Callable[[PreTrainedModel], torch.Tensor | None]
    lora_targets: str

    def tokenize(self, tokenizer: Any, texts: Sequence[str], *, trim: bool = True) -> dict[str, torch.Tensor]:
        """Texts -> what the text tower takes, `(N, L)` each; cut to the tokenizer's length, the end token kept.

        With `trim`, L is the longest text where the family allows it, else the tokenizer's maximum. A tower that was
        trained on padded texts without a mask (SigLIP) must see the padding: it gets no mask, whatever the tokenizer
        makes.
        """
        trim = trim and self.trimmable
        tokens = tokenizer(
            list(texts), padding="longest" if trim else "max_length", truncation=True, return_tensors="pt"
        )
        names = ("input_ids", "attention_mask") if self.trimmable else ("input_ids",)
        return {name: tokens[name] for name in names if name in tokens}


def _clamp_clip(model: PreTrainedModel) -> None:
    """Radford et al. 2021, section 2.5: logits are never scaled by more than 100; here never by less than 1 either."""
    model.logit_scale.data.clamp_(0, 4.605170185988092)


def _clamp_siglip(model: PreTrainedModel) -> None:
    """SigLIP has no upper limit (its released models stand at about 117); a scale below 1 would be a broken run."""
    model.logit_scale.data.clamp_(min=0)


#: CLIP's and SigLIP's towers name their blocks alike. SigLIP's pooling head is left out: PyTorch's attention reads the
#: weight of its `out_proj` without calling it, so an adapter there would never be used.
_BLOCKS = r".*\.encoder\.layers\.\d+\.(self_attn\.(q|k|v|out)_proj|mlp\.fc[12])"

FAMILIES: dict[str, Family] = {
    "clip": Family(
        "clip",
        "CLIP",
        scale=lambda model: model.logit_scale.exp(),
        clamp=_clamp_clip,
        trimmable=True,
        alignment="clip",
        bias=lambda model: None,
        lora_targets=_BLOCKS,
    ),
    "siglip": Family(
        "siglip",
        "SigLIP",
        scale=lambda model: model.logit_scale.exp().squeeze(),
        clamp=_clamp_siglip,
        trimmable=False,
        alignment="siglip",
        bias=lambda model: model.logit_bias.squeeze(),
        lora_targets=_BLOCKS,
    ),
    "clip_resnet": Family(
        "clip_resnet",
        "CLIP with a ResNet",
        scale=lambda model: model.logit_scale.exp(),
        clamp=_clamp_clip,
        trimmable=True,
        alignment="clip",
        bias=lambda model: None,
        lora_targets=rf"{_BLOCKS}|.*\.attnpool\.[qkvc]_proj",
    ),
}


def bound_texts(model: PreTrainedModel, tokenizer: Any) -> None:
    """Limits a tokenizer to the texts that the model can read; the files of some checkpoints name no length."""
    tokenizer.model_max_length = min(tokenizer.model_max_length, model.config.text_config.max_position_embeddings)


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
