"""What a training step minimises: the weighted sum of the losses at its point of the run; the log of its terms."""

from __future__ import annotations

from collections import defaultdict
from functools import partial
from typing import NamedTuple

import torch

from ..losses import LOSSES, Views, suspect_distances
from ..models.families import Family
from .config import TACleanerConfig


#: Share of the steps, from the start, whose gradient is taken on the way back to the suspect (`rewind`). In the rest
#: the model settles.
REWOUND = 0.5


class Progress(NamedTuple):
    """A point of the run: steps done, and steps in all."""

    step: int
    steps: int


class Objective:
    """The weighted sum of the losses.

    Args:
        args: The settings; `weights`, `repel_*` and `rewind` decide.
        family: The model's family, which has its own alignment loss.
    """

    def __init__(self, args: TACleanerConfig, family: Family) -> None:
        self.weights = args.weights
        self._repel_share, self._rewind, self._device = args.repel_share, args.rewind, args.device.type
        self._losses = {
            **LOSSES,
            "clip": LOSSES[family.alignment],
            "repel": partial(LOSSES["repel"], tau=args.repel_tau),
        }

    def __call__(self, views: Views, at: Progress) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The loss, and what is logged of its terms, without gradient."""
        # The towers may run in half precision; a softmax over similarities times 100 should not.
        with torch.autocast(self._device, enabled=False):
            terms = {
                name: self._losses[name](views)
                for name, weight in self.weights.items()
                if weight and (name != "repel" or self.repels(at))
            }
            loss = sum(self.weight(name, at) * term for name, term in terms.items())
        figures = {f"loss/{name}": term.detach() for name, term in terms.items()}
        if views.image_suspect is not None:
            distances = [distance.detach() for distance in suspect_distances(views)]
            figures |= zip(("distance/image", "distance/text"), distances, strict=True)
        return loss, figures

    def weight(self, name: str, at: Progress) -> float:
        """The weight of a term.

        With `rewind` and distillation, the terms that captions teach by are 0 in the first part of the run and rise to
        their weights in the second. At 0 they stay in the graph, so that every parameter has a gradient to share.
        """
        if name in ("distill", "repel") or not (self._rewind and self.weights["distill"]):
            return self.weights[name]
        passed = at.step / max(1, at.steps)
        return self.weights[name] * max(0.0, (passed - REWOUND) / (1 - REWOUND))

    def repels(self, at: Progress) -> bool:
        """Whether the repel term acts. Its step number alone decides, so a resumed run does the same."""
        return bool(self.weights["repel"]) and at.step < self._repel_share * at.steps

    def rewinds(self, at: Progress) -> bool:
        """Whether this step's gradient is taken on the way back to the suspect."""
        return bool(self._rewind) and at.step < REWOUND * at.steps

    def needs_suspect(self, at: Progress) -> bool:
        """Whether a term compares with the suspect's embeddings."""
        return self.repels(at) or bool(self.weights["distill"])


class TermLog:
    """Means of the logged terms since the last log line.

    Args:
        device: Where the sums are kept, so that an accelerator need not wait for them.
    """

    def __init__(self, device: torch.device) -> None:
        self._sums: dict[str, torch.Tensor] = defaultdict(lambda: torch.zeros((), device=device))
        self._steps: dict[str, int] = defaultdict(int)

    def __bool__(self) -> bool:
        return bool(self._sums)

    def add(self, figures: dict[str, torch.Tensor]) -> None:
        for name, figure in figures.items():
            self._sums[name] += figure
            self._steps[name] += 1

    def take(self) -> dict[str, float]:
        """The means. The log is empty afterwards."""
        totals = torch.stack(list(self._sums.values())).tolist()
        means = {name: total / self._steps[name] for name, total in zip(self._sums, totals, strict=True)}
        self.clear()
        return means

    def sums(self) -> list[float]:
        return [total.item() for total in self._sums.values()]

    def clear(self) -> None:
        self._sums.clear()
        self._steps.clear()
