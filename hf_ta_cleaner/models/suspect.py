"""The frozen suspect: the model before training. The repel term moves away from it, distillation stays close to it,
and `rewind` moves weights back to it."""

from __future__ import annotations

import copy
import hashlib
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .zero_shot import evaluating


logger = logging.getLogger(__name__)

#: Beside every checkpoint of a run that keeps it: which suspect it was begun from.
FINGERPRINT = "suspect.blake2b"


class Suspect:
    """The suspect, frozen, in eval mode and without gradient, called like the model.

    Make it before anything is trained or a checkpoint is loaded. Under LoRA the suspect is the model itself with its
    adapters off; otherwise a copy of its weights is kept on its device.

    Args:
        model: The suspect. A copy of it is taken, unless it holds LoRA adapters.
    """

    def __init__(self, model: nn.Module) -> None:
        self._autocast: Callable[[], Any] = nullcontext
        self._shared = hasattr(model, "peft_config") and hasattr(model, "disable_adapter")
        self._model = model if self._shared else copy.deepcopy(model).eval().requires_grad_(False)
        count = sum(parameter.numel() for parameter in model.parameters())
        size = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
        kept = (
            "the model with its adapters off, no copy"
            if self._shared
            else f"a frozen copy of {count / 1e6:,.1f}M weights, {size / 2**20:,.0f} MiB"
        )
        logger.info("the suspect is kept: %s", kept)

    def prepare(self, accelerator: Any) -> None:
        """Moves the copy, where there is one, to the accelerator's device; it runs in its precision from now on."""
        self._autocast = accelerator.autocast
        if not self._shared:
            self._model.to(accelerator.device)

    def __call__(self, **inputs: Any) -> Any:
        off = self._model.disable_adapter() if self._shared else nullcontext()
        with evaluating(self._model), self._autocast(), off:
            return self._model(**inputs)

    @contextmanager
    def rewound(self, model: nn.Module, share: float) -> Iterator[None]:
        """The model with so much of its way from the suspect taken back; at the end its weights are what they were.

        A gradient that is taken within is one of a model half cleaned. Descending it, the model leaves the suspect
        until the way back is clean too: what a benign fine-tuning could bring back is unlearned while it still shows.

        Args:
            model: The model that is trained, not wrapped.
            share: In [0, 1]: 0 for the model as it is, 1 for the suspect. Under LoRA of the adapters' product.

        Source:
            After path-aware minimisation, Min et al. 2024 (arXiv 2410.09838), which goes back by a fixed length.
        """
        pairs = self._way_back(model) if share else []
        with torch.no_grad():
            kept = [parameter.clone() for parameter, _ in pairs]
        try:
            with torch.no_grad():
                for parameter, before in pairs:
                    parameter.lerp_(before, share)
            yield
        finally:
            with torch.no_grad():
                for (parameter, _), was in zip(pairs, kept, strict=True):
                    parameter.copy_(was)

    def _way_back(self, model: nn.Module) -> list[tuple[nn.Parameter, torch.Tensor]]:
        """The trained weights with what they were in the suspect, where the second factor of an adapter is 0."""
        if self._shared:
            factors = [parameter for name, parameter in model.named_parameters() if "lora_B" in name]
            return [(factor, torch.zeros_like(factor)) for factor in factors]
        both = zip(model.parameters(), self._model.parameters(), strict=True)
        return [(parameter, before) for parameter, before in both if parameter.requires_grad]

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the suspect's weights, adapters aside."""
        digest = hashlib.blake2b(digest_size=16)
        for name, parameter in sorted(self._model.named_parameters()):
            if "lora_" not in name:
                digest.update(parameter.detach().cpu().reshape(-1).view(torch.uint8).numpy())
        return digest.hexdigest()

    def check(self, checkpoint: str | Path) -> None:
        """Makes sure that a checkpoint's run was begun from this suspect.

        Raises:
            ValueError: It was begun from other weights, which the copy would have to be.
        """
        mark = Path(checkpoint) / FINGERPRINT
        if mark.is_file() and mark.read_text().strip() != self.fingerprint:
            raise ValueError(
                f"{checkpoint} belongs to a run that began with another model than the one given. To resume, give "
                "the suspect that the run was begun with, not a checkpoint of the run: its copy must be the original"
            )
