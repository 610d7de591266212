"""Cleaning with LoRA adapters through peft: the suspect's own weights stay as they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .families import family_of


if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


def add_lora(model: PreTrainedModel, *, rank: int, alpha: float) -> PeftModel:
    """The model with trainable low-rank adapters in the attention and MLP blocks of both towers.

    Everything else is frozen, the temperature included: an adapter file has no place for it, and it changes neither a
    ranking nor a retrieval.

    Args:
        model: A dual encoder of a known family; adapters are put into it.
        rank: r of every adapter.
        alpha: An adapter's product is scaled by alpha / rank.

    Raises:
        ImportError: peft is not installed.

    Source:
        Hu et al. 2021 (arXiv 2106.09685).
    """
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise ImportError("LoRA needs peft, which is not installed; pip install 'hf-ta-cleaner[peft]'") from error
    targets = family_of(model).lora_targets
    return get_peft_model(model, LoraConfig(r=rank, lora_alpha=alpha, target_modules=targets))


def merge(model: PeftModel) -> PreTrainedModel:
    """The plain model with its adapters added into the weights; changes `model`."""
    return model.merge_and_unload()
