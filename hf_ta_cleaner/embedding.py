"""A local batch through both towers, gathered over all processes: what the losses see."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from .collator import also_true
from .distributed import gather, world_size
from .families import Family
from .losses import SubTexts, Views
from .suspect import Suspect


def embed(
    model: nn.Module,
    inputs: dict[str, torch.Tensor],
    family: Family,
    image_processor: Any,
    *,
    unwrapped: nn.Module | None = None,
    augmented: bool = False,
    suspect: Suspect | None = None,
) -> Views:
    """One forward of each tower for all views of the batch.

    Args:
        model: The dual encoder, wrapped or not.
        inputs: A batch of `DataCollatorForTACleaner`, B pairs, on the model's device.
        family: The model's family.
        image_processor: Its numbers turn uint8 pixels into what the model wants.
        unwrapped: The model itself, where `model` wraps it.
        augmented: Whether the batch holds second views.
        suspect: Embeds the first views once more, without gradient, as the model was before training.

    Returns:
        The views of the global batch, in the order of the processes.
    """
    pixels = normalise(inputs["pixel_values"], image_processor)
    texts = {name: inputs[name] for name in ("input_ids", "attention_mask") if name in inputs}
    output = model(pixel_values=pixels, **texts)
    views = 2 if augmented else 1
    b = len(pixels) // views
    image = list(output.image_embeds.float().split(b))
    text = list(output.text_embeds.float().split([b] * views + [len(output.text_embeds) - views * b]))
    subtexts = _subtexts(text[views], inputs, b)
    image, text = [gather(x) for x in image], [gather(x) for x in text[:views]]
    image_aug, text_aug = (image[1], text[1]) if augmented else (None, None)
    before: tuple[torch.Tensor | None, torch.Tensor | None] = (None, None)
    if suspect is not None:
        frozen = suspect(pixel_values=pixels[:b], **{name: values[:b] for name, values in texts.items()})
        before = gather(frozen.image_embeds.float()), gather(frozen.text_embeds.float())
    inner = model if unwrapped is None else unwrapped
    bias = family.bias(inner)
    return Views(
        image[0],
        text[0],
        family.scale(inner).float(),
        image_aug,
        text_aug,
        subtexts,
        None if bias is None else bias.float(),
        *before,
    )


def _subtexts(embeddings: torch.Tensor, inputs: dict[str, torch.Tensor], batch_size: int) -> SubTexts | None:
    if "chosen" not in inputs:
        return None
    k, p = inputs["positive_valid"].shape
    positive = embeddings[: k * p].view(k, p, -1)
    negative = embeddings[k * p :].view(k, -1, embeddings.shape[-1])
    rank = torch.distributed.get_rank() if world_size() > 1 else 0
    words, captions = gather(inputs["positive_words"]), gather(inputs["caption_words"])
    return SubTexts(
        positive=gather(positive),
        negative=gather(negative),
        chosen=gather(inputs["chosen"] + rank * batch_size),
        positive_valid=gather(inputs["positive_valid"]),
        negative_valid=gather(inputs["negative_valid"]),
        also_true=also_true(words, captions),
    )


def normalise(pixels: torch.Tensor, image_processor: Any) -> torch.Tensor:
    """uint8 pixels -> the floats the model wants, on the device, with the processor's own numbers."""
    pixels = pixels.float()
    if image_processor.do_rescale:
        pixels = pixels * image_processor.rescale_factor
    if image_processor.do_normalize:
        mean, std = (
            torch.tensor(v, device=pixels.device).view(1, 3, 1, 1)
            for v in (image_processor.image_mean, image_processor.image_std)
        )
        pixels = (pixels - mean) / std
    return pixels
