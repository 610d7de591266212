"""Settles what a file does not say, its activation and its normalization, by the user's own pairs."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from transformers.activations import ACT2FN
from transformers.models.clip.modeling_clip import CLIPMLP

from ...distributed import share
from ...pictures import fit
from ..zero_shot import image_features, input_geometry, input_size, text_features
from .configs import ACTIVATIONS, NORMALIZATIONS
from .form import Form


if TYPE_CHECKING:
    from PIL.Image import Image
    from transformers import PreTrainedModel, ProcessorMixin


logger = logging.getLogger(__name__)

PAIRS = 256
#: Nats of contrastive loss by which a setting must beat another to count as better.
MARGIN = 0.02


def settle(
    model: PreTrainedModel, processor: ProcessorMixin, form: Form, images: Sequence[Image], captions: Sequence[str]
) -> Form:
    """Sets what the form assumed to what fits the pairs best, in place, and says so in the log.

    A model that reads its pictures or computes as it was trained to matches pairs better: of every activation and
    normalization that is open, the setting with the lowest contrastive loss is taken. Of those within `MARGIN` of it,
    what was assumed comes first, then the same activation, then the normalizations in their order.

    Args:
        model, processor: As `load_published` gives them.
        form: What was assumed.
        images, captions: N pairs, 2 <= N; `PAIRS` are enough.

    Returns:
        The form with nothing assumed.
    """
    if not form.assumed or len(captions) < 2:
        return form
    here = _current(model, processor)
    settings = _open(form, *here)
    unknown = " and ".join(form.assumed)
    logger.info("the file does not say its %s: trying %d settings on %d pairs", unknown, len(settings), len(captions))
    losses = contrastive_losses(model, processor, images, captions, settings)
    values = torch.tensor([losses[setting] for setting in settings], device=model.device)
    share([values])  # every process must take the same
    losses = dict(zip(settings, values.tolist(), strict=True))
    best, second = sorted(losses, key=losses.get)[:2]
    thin = losses[second] - losses[best] < MARGIN
    taken = next(setting for setting in settings if losses[setting] - losses[best] < MARGIN)
    _set(model, processor, *taken)
    listed = "; ".join(f"{activation} and {name}: {value:.3f}" for (activation, name), value in losses.items())
    logger.warning(
        "the file does not say its %s; by the contrastive loss of %d pairs: %s. Taken: %s and %s",
        unknown, len(captions), listed, *taken,
    )  # fmt: skip
    if thin:
        logger.warning(
            "the two best differ by %.3f only: set --activation and --normalization if you know them",
            losses[second] - losses[best],
        )  # fmt: skip
    return replace(form, assumed=())


def contrastive_losses(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    images: Sequence[Image],
    captions: Sequence[str],
    settings: Sequence[tuple[str, str]],
) -> dict[tuple[str, str], float]:
    """The contrastive loss in nats, mean of both directions, under each pair of activation and normalization.

    The model and the processor are left as they were.
    """
    size, geometry = input_size(processor), input_geometry(processor)
    pixels = np.stack([fit(image, size, geometry) for image in images])
    scale, pairs, losses = model.logit_scale.detach().exp().clamp(max=100), torch.arange(len(captions)), {}
    texts: dict[str, torch.Tensor] = {}
    pictures: dict[tuple[str, str], torch.Tensor] = {}
    for activation, normalization in settings:
        with _as(model, processor, activation, normalization):
            if activation not in texts:
                texts[activation] = text_features(model, processor, captions).cpu()
            seen = (activation if _has_activation(model.vision_model) else "", normalization)
            if seen not in pictures:
                pictures[seen] = image_features(model, processor, pixels, batch_size=64).cpu()
        logits = scale.cpu() * pictures[seen] @ texts[activation].T
        loss = (F.cross_entropy(logits, pairs) + F.cross_entropy(logits.T, pairs)) / 2
        losses[activation, normalization] = loss.item()
    return losses


def _open(form: Form, activation: str, normalization: str) -> list[tuple[str, str]]:
    """Every setting that the form leaves open, the likelier first: the current one, then those of its activation."""
    activations = ACTIVATIONS if "activation" in form.assumed else (activation,)
    normalizations = NORMALIZATIONS if "normalization" in form.assumed else (normalization,)
    settings = product(activations, normalizations)
    return sorted(settings, key=lambda pair: (pair != (activation, normalization), pair[0] != activation))


def _current(model: PreTrainedModel, processor: ProcessorMixin) -> tuple[str, str]:
    mean = tuple(processor.image_processor.image_mean)
    names = [name for name, (known, _) in NORMALIZATIONS.items() if known == mean]
    return model.config.text_config.hidden_act, names[0] if names else "its own"


def _has_activation(tower: torch.nn.Module) -> bool:
    return any(isinstance(module, CLIPMLP) for module in tower.modules())


def _set(model: PreTrainedModel, processor: ProcessorMixin, activation: str, normalization: str) -> None:
    for config in (model.config.text_config, model.config.vision_config):
        if hasattr(config, "hidden_act"):
            config.hidden_act = activation
    for module in model.modules():
        if isinstance(module, CLIPMLP):
            module.activation_fn = ACT2FN[activation]
    if normalization in NORMALIZATIONS:
        mean, std = NORMALIZATIONS[normalization]
        processor.image_processor.image_mean, processor.image_processor.image_std = list(mean), list(std)


@contextmanager
def _as(model: PreTrainedModel, processor: Any, activation: str, normalization: str) -> Iterator[None]:
    images = processor.image_processor
    before, kept = model.config.text_config.hidden_act, (images.image_mean, images.image_std)
    _set(model, processor, activation, normalization)
    try:
        yield
    finally:
        _set(model, processor, before, "")
        images.image_mean, images.image_std = kept
