"""What is put on the pictures of a batch: structured noise, and a trigger that is learnt against the model."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch

from ..views.adversarial_trigger import AdversarialTrigger
from ..views.structured_noise import StructuredNoise
from .config import TACleanerConfig
from .embedding import UNTOUCHED, normalise, standardise


class Perturbations:
    """Changes the first view of some pictures of every batch.

    Args:
        args: The settings; the shares decide what there is.
        image_processor: Its numbers turn uint8 pixels into what the model wants.
        seed: Seed of all draws.

    Attributes:
        noise: Structured noise, or None.
        trigger: The adversarial trigger, or None.
    """

    def __init__(self, args: TACleanerConfig, image_processor: Any, seed: int) -> None:
        self._image_processor = image_processor
        self.noise: StructuredNoise | None = None
        self.trigger: AdversarialTrigger | None = None
        if args.image_structured_noise:
            self.noise = StructuredNoise(args.image_structured_noise, seed)
        if args.adversarial_share:
            self.trigger = AdversarialTrigger(
                patch=args.adversarial_patch,
                blend=args.adversarial_blend,
                maps=args.adversarial_map,
                step=args.adversarial_step,
                seed=seed,
            )

    def __call__(self, inputs: dict[str, torch.Tensor], pairs: int, step: int, part: int) -> dict[str, torch.Tensor]:
        """The batch with changed pictures, and the first views as they were under `UNTOUCHED`.

        Args:
            inputs: A batch on the model's device.
            pairs: Only the first so many pictures are changed: the first views.
            step: Number of the training step.
            part: Number of the batch among those whose gradients the step gathers.
        """
        if self.noise is None and self.trigger is None:
            return inputs
        pixels = inputs["pixel_values"]
        if self.noise is not None and not self.searching:
            pixels = self.noise(pixels, pairs, step, part)
        if self.trigger is not None:
            finish = partial(standardise, image_processor=self._image_processor)
            pixels = self.trigger.attack(normalise(pixels, self._image_processor), pairs, finish, pixels)
        return {**inputs, "pixel_values": pixels, UNTOUCHED: inputs["pixel_values"][:pairs]}

    @property
    def searching(self) -> bool:
        """Whether the trigger alone moves, before the training."""
        return self.trigger is not None and self.trigger.searching

    @property
    def wants_search(self) -> bool:
        """Whether there is a trigger that has attacked nothing yet."""
        return self.trigger is not None and self.trigger.is_new

    def ascend(self) -> None:
        """Moves the trigger up the loss, by the gradient that the last backward left."""
        if self.trigger is not None:
            self.trigger.ascend()

    def save(self, folder: str | Path) -> None:
        if self.trigger is not None:
            self.trigger.save(folder)

    def load(self, folder: str | Path, device: torch.device) -> None:
        if self.trigger is not None:
            self.trigger.load(folder, device)
