"""The image encoder of a model under scan: pictures in [0, 1] -> unit embeddings, with a gradient to the picture."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
import torch.nn.functional as F

from hf_ta_cleaner.models.families import family_of
from hf_ta_cleaner.models.zero_shot import evaluating, input_size


class ImageTower:
    """The picture tower of a dual encoder and its own normalisation.

    Args:
        model: a supported dual encoder, on its device.
        processor: says the size of a picture, its mean and its standard deviation.

    Raises:
        ValueError: the model is no supported dual encoder.
    """

    def __init__(self, model, processor) -> None:
        family = family_of(model)
        self.model, self.size = model, input_size(processor)
        parameter = next(model.parameters())
        self.device, self._dtype = parameter.device, parameter.dtype
        settings, shape = processor.image_processor, (3, 1, 1)
        mean, std = (settings.image_mean, settings.image_std) if settings.do_normalize else ((0.0,) * 3, (1.0,) * 3)
        self._mean, self._std = (torch.tensor(v, device=self.device).view(shape) for v in (mean, std))
        with torch.no_grad():
            self.scale = family.scale(model).detach().float().clamp(1, 100)

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """[0, 1] `(N, 3, S, S)` -> unit float32 `(N, D)`, with gradient."""
        output = self.model.get_image_features(pixel_values=((pixels - self._mean) / self._std).to(self._dtype))
        return F.normalize(getattr(output, "pooler_output", output).float(), dim=-1)

    @torch.no_grad()
    def embed(self, pixels: torch.Tensor, batch_size: int = 256) -> torch.Tensor:
        """The same in batches, without gradient."""
        return torch.cat([self(part) for part in pixels.split(batch_size)])

    def pixels(self, images: np.ndarray) -> torch.Tensor:
        """uint8 `(N, S, S, 3)` -> float `(N, 3, S, S)` in [0, 1] on the model's device."""
        return torch.as_tensor(images, device=self.device).permute(0, 3, 1, 2).float() / 255


@contextmanager
def frozen(model: torch.nn.Module) -> Iterator[None]:
    """Eval mode and no gradient for the weights, so that only a trigger is optimised; both put back afterwards."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        with evaluating(model), torch.enable_grad():
            yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
