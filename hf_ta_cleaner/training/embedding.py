"""A local batch through both towers, gathered over all processes: what the losses see."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import nn

from ..distributed import gather, rank
from ..losses import SubTexts, Views
from ..models.families import Family
from ..models.suspect import Suspect
from ..views.collator import also_true


class Embeddings(NamedTuple):
    """What the towers make of a batch of this process: `(pictures, D)` and `(texts, D)`, float32, unit length."""

    image: torch.Tensor
    text: torch.Tensor


@dataclass(frozen=True)
class Embedder:
    """Batches of `DataCollatorForTACleaner`, on the model's device, to the views of the global batch.

    Args:
        family: The model's family.
        image_processor: Its numbers turn uint8 pixels into what the model wants.
        augmented: Whether the batches hold second views.
        suspect: Embeds the first views once more, without gradient and untouched, as the model was before training.
    """

    family: Family
    image_processor: Any
    augmented: bool = False
    suspect: Suspect | None = None

    def __call__(self, model: nn.Module, inputs: dict[str, torch.Tensor], unwrapped: nn.Module | None = None) -> Views:
        """One forward of each tower for all views of the batch.

        Args:
            model: The dual encoder, wrapped or not.
            inputs: A batch of B pairs.
            unwrapped: The model itself, where `model` wraps it.

        Returns:
            The views of the global batch, in the order of the processes.
        """
        inputs = {**inputs, "pixel_values": normalise(inputs["pixel_values"], self.image_processor)}
        return self.views(self.towers(model, inputs), inputs, *self.heads(model if unwrapped is None else unwrapped))

    def towers(self, model: nn.Module, inputs: dict[str, torch.Tensor]) -> Embeddings:
        """One forward of each tower for the pictures (uint8, or already normalised) and texts of the inputs."""
        output = model(pixel_values=normalise(inputs["pixel_values"], self.image_processor), **_texts(inputs))
        return Embeddings(output.image_embeds.float(), output.text_embeds.float())

    def heads(self, unwrapped: nn.Module) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Scale and bias of the similarities, with gradient; the bias is None where the family has none."""
        bias = self.family.bias(unwrapped)
        return self.family.scale(unwrapped).float(), None if bias is None else bias.float()

    def views(
        self,
        local: Embeddings,
        inputs: dict[str, torch.Tensor],
        scale: torch.Tensor,
        bias: torch.Tensor | None,
        *,
        parts: int = 1,
    ) -> Views:
        """The views of the global batch, of this process's embeddings; the suspect's are made in so many parts."""
        views = 2 if self.augmented else 1
        b = len(local.image) // views
        image = local.image.split(b)
        text = local.text.split([b] * views + [len(local.text) - views * b])
        subtexts = _subtexts(text[views], inputs, b)
        image, text = [gather(x) for x in image], [gather(x) for x in text[:views]]
        image_aug, text_aug = (image[1], text[1]) if self.augmented else (None, None)
        before = self._before(inputs, b, parts) if self.suspect is not None else (None, None)
        return Views(image[0], text[0], scale, image_aug, text_aug, subtexts, bias, *before)

    def _before(self, inputs: dict[str, torch.Tensor], b: int, parts: int) -> tuple[torch.Tensor, torch.Tensor]:
        first = {name: inputs[name][:b] for name in _TOWERS if name in inputs}
        first["pixel_values"] = inputs.get(UNTOUCHED, first["pixel_values"])
        image, text = zip(*(self.towers(self.suspect, part) for part in split(first, parts)), strict=True)
        return gather(torch.cat(image)), gather(torch.cat(text))


#: Key of the first views without perturbations, for the suspect.
UNTOUCHED = "untouched_pixel_values"
#: What of a batch goes through the towers.
_TOWERS = ("pixel_values", "input_ids", "attention_mask")


def split(inputs: dict[str, torch.Tensor], parts: int) -> list[dict[str, torch.Tensor]]:
    """The pictures and texts of a batch in so many parts, each with about its share of both."""
    names = [name for name in _TOWERS if name in inputs]
    pieces = zip(*(inputs[name].tensor_split(parts) for name in names), strict=True)
    return [dict(zip(names, piece, strict=True)) for piece in pieces]


def _texts(inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: inputs[name] for name in _TOWERS[1:] if name in inputs}


def _subtexts(embeddings: torch.Tensor, inputs: dict[str, torch.Tensor], batch_size: int) -> SubTexts | None:
    if "chosen" not in inputs:
        return None
    k, p = inputs["positive_valid"].shape
    positive = embeddings[: k * p].view(k, p, -1)
    negative = embeddings[k * p :].view(k, -1, embeddings.shape[-1])
    words, captions = gather(inputs["positive_words"]), gather(inputs["caption_words"])
    return SubTexts(
        positive=gather(positive),
        negative=gather(negative),
        chosen=gather(inputs["chosen"] + rank() * batch_size),
        positive_valid=gather(inputs["positive_valid"]),
        negative_valid=gather(inputs["negative_valid"]),
        also_true=also_true(words, captions),
    )


def normalise(pixels: torch.Tensor, image_processor: Any) -> torch.Tensor:
    """uint8 pixels to the floats the model wants, by the processor's own numbers; floats stay as they are."""
    return pixels if pixels.dtype != torch.uint8 else standardise(pixels.float(), image_processor)


def standardise(pixels: torch.Tensor, image_processor: Any) -> torch.Tensor:
    """Floats in [0, 255], `(N, 3, H, W)`, to what the model wants. Works on the tensor itself, which is returned."""
    if image_processor.do_rescale:
        pixels *= image_processor.rescale_factor
    if image_processor.do_normalize:
        mean, std = (
            _constant(tuple(v), pixels.device) for v in (image_processor.image_mean, image_processor.image_std)
        )
        pixels -= mean
        pixels /= std
    return pixels


@lru_cache
def _constant(values: tuple[float, ...], device: torch.device) -> torch.Tensor:
    """One number a channel. Kept: to bring it to an accelerator anew would wait, in every step, for all that runs."""
    return torch.tensor(values, device=device).view(1, -1, 1, 1)
