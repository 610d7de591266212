"""Which square patch turns any picture into a given label? Found by gradient, for many labels and places at once.

In the manner of Neural Cleanse (Wang et al. 2019), which asks how small a trigger can be for each label, with the
patch's area fixed and its effect compared instead: where a backdoor waits, a patch much smaller than the attacker's
works, because it only has to resemble it.

Without labels, as in DECREE (Feng et al., CVPR 2023): which patch makes the embeddings of all pictures alike?
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from tqdm.auto import tqdm

from hf_ta_cleaner.detection.scan.panel import corner_of
from hf_ta_cleaner.detection.scan.towers import ImageTower
from hf_ta_cleaner.seeding import derive_seed, numpy_rng


#: Every label and place is tried with few pictures and steps, so many of the best again with more.
SHORTLIST, LONG_STEPS, LONG_PER_STEP = 12, 48, 16
#: Side of the patch as a share of the picture's, and where it is tried.
SHARE = 1 / 10
PLACES = ("bottom-right", "top-left", "middle")
STEPS = 8
#: Pictures that a patch sees in a step.
PER_STEP = 3
#: Pictures that go through the model at once, all patches together.
AT_ONCE = 192
_RATE, _MOMENTUM, _LONGEST = 0.15, 0.7, 2.0


@dataclass(frozen=True)
class Patch:
    """A recovered trigger.

    Attributes:
        pattern: float `(3, p, p)` in [0, 1].
        top, left: where it lies on the picture, in pixels.
        place: the same in words.
    """

    pattern: torch.Tensor
    top: int
    left: int
    place: str

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Pictures `(N, 3, S, S)` with the patch on."""
        side, out = self.pattern.shape[-1], images.clone()
        out[..., self.top : self.top + side, self.left : self.left + side] = self.pattern.to(images)
        return out


@dataclass(frozen=True)
class Effect:
    """What a trigger does to pictures that it was not optimised on.

    Attributes:
        rate: share of the pictures of other labels that become the label.
        margin: mean of cos(picture, label) minus the highest cosine with another label, in [-2, 2].
    """

    rate: float
    margin: float


def invert(
    tower: ImageTower,
    head: torch.Tensor,
    images: torch.Tensor,
    wanted: Sequence[tuple[int, str]],
    *,
    share: float = SHARE,
    steps: int = STEPS,
    per_step: int = PER_STEP,
    seed: int = 0,
    progress: bool = False,
) -> dict[tuple[int, str], Patch]:
    """A patch for every wanted label and place, each after the same number of steps.

    The loss is the cross-entropy of the label among all, at the model's temperature; a step goes along the gradient
    with momentum, scaled by its mean size, at a rate that falls to zero; pixels stay in [0, 1].

    Args:
        head: `(D, C)` unit columns, one a label.
        images: `(N, 3, S, S)` in [0, 1].
        wanted: (column of `head` to reach, name of the place).
        share: side of the patch as a share of S.

    Raises:
        ValueError: fewer pictures than one step takes.
    """
    _require(images, per_step)

    def loss(embeddings: torch.Tensor, candidates: list[tuple[int, str]]) -> torch.Tensor:
        targets = torch.tensor([label for label, _ in candidates], device=embeddings.device)
        return F.cross_entropy(tower.scale * embeddings @ head, targets.repeat_interleave(per_step), reduction="sum")

    found: dict[tuple[int, str], Patch] = {}
    size = max(1, AT_ONCE // per_step)
    chunks = [wanted[i : i + size] for i in range(0, len(wanted), size)]
    for number, chunk in enumerate(tqdm(chunks, desc="inverting", disable=not progress)):
        options = {"share": share, "steps": steps, "per_step": per_step, "seed": derive_seed(seed, number)}
        patches = _descend(tower, images, [place for _, place in chunk], lambda e, c=chunk: loss(e, c), **options)
        found |= dict(zip(chunk, patches, strict=True))
    return found


def collapse(
    tower: ImageTower,
    images: torch.Tensor,
    places: Sequence[str] = PLACES,
    *,
    share: float = SHARE,
    steps: int = 4 * STEPS,
    per_step: int = 16,
    starts: int = 4,
    seed: int = 0,
) -> list[Patch]:
    """For every place `starts` patches that make pictures alike: they raise the mean cosine between the embeddings.

    Without a label to pull at, where a patch ends depends on where it begins: each begins at another colour.
    """
    _require(images, per_step)
    tried = [place for place in places for _ in range(starts)]

    def loss(embeddings: torch.Tensor) -> torch.Tensor:
        own = embeddings.view(len(tried), per_step, -1)
        return -own.sum(dim=1).square().sum() / per_step

    options = {"share": share, "steps": steps, "per_step": per_step, "seed": derive_seed("collapse", seed)}
    return _descend(tower, images, tried, loss, spread=1.0, **options)


def likeness(embeddings: torch.Tensor) -> float:
    """Mean cosine between different rows of unit embeddings `(N, D)`, N of at least 2."""
    n = len(embeddings)
    return ((embeddings.sum(dim=0).square().sum() - n) / (n * (n - 1))).item()


def effect_on(embeddings: torch.Tensor, clean: torch.Tensor, head: torch.Tensor, label: int) -> Effect:
    """The effect of a trigger, from the embeddings `(N, D)` of the same pictures with it and without it."""
    cosines = embeddings @ head
    others = cosines.clone()
    others[:, label] = float("-inf")
    margins = cosines[:, label] - others.amax(dim=1)
    not_yet = (clean @ head).argmax(dim=1) != label
    rate = (margins[not_yet] > 0).float().mean().item() if not_yet.any() else 0.0
    return Effect(rate, margins.mean().item())


def _require(images: torch.Tensor, per_step: int) -> None:
    if len(images) < per_step:
        raise ValueError(f"A step takes {per_step} pictures, got {len(images)}. Give more pictures.")


def _descend(
    tower: ImageTower,
    images: torch.Tensor,
    places: list[str],
    loss,
    *,
    share: float,
    steps: int,
    per_step: int,
    seed: int,
    spread: float = 0.0,
) -> list[Patch]:
    """One patch a place, optimised together on the same draws of pictures; `loss` sums over them.

    A patch begins as faint noise on grey, or on a colour that lies up to half of `spread` from it.
    """
    size = images.shape[-1]
    side = max(1, round(share * size))
    corners = [corner_of(place, size, side) for place in places]
    generator = torch.Generator().manual_seed(seed % 2**63)
    patch = 0.4 + 0.2 * torch.rand(len(places), 1, 3, side, side, generator=generator)
    if spread:
        patch = (patch + spread * (torch.rand(len(places), 1, 3, 1, 1, generator=generator) - 0.5)).clamp(0, 1)
    patch, speed = patch.to(images), torch.zeros_like(patch).to(images)
    mask = torch.stack([_padded(torch.ones(1, 1, side, side), corner, size) for corner in corners]).to(images)
    draws = numpy_rng("inversion pictures", seed)
    for step in range(steps):
        rows = torch.as_tensor(draws.choice(len(images), per_step, replace=False), device=images.device)
        patch.requires_grad_()
        placed = torch.stack([_padded(p, corner, size) for p, corner in zip(patch, corners, strict=True)])
        pictures = images[rows][None] * (1 - mask) + placed
        (gradient,) = torch.autograd.grad(loss(tower(pictures.flatten(0, 1))), [patch])
        patch = patch.detach()
        gradient = gradient / gradient.abs().mean(dim=(1, 2, 3, 4), keepdim=True).clamp_min(1e-20)
        speed = _MOMENTUM * speed + gradient
        patch = (patch - _RATE * (1 - step / steps) * speed.clamp(-_LONGEST, _LONGEST)).clamp(0, 1)
    return [
        Patch(p[0].cpu(), *corner, place) for p, corner, place in zip(patch.detach(), corners, places, strict=True)
    ]


def _padded(patch: torch.Tensor, corner: tuple[int, int], size: int) -> torch.Tensor:
    """`(..., p, p)` -> `(..., size, size)`, zero around it."""
    (top, left), side = corner, patch.shape[-1]
    return F.pad(patch, (left, size - left - side, top, size - top - side))
