"""Embeddings with known similarities, and random ones, for the tests of the losses."""

from __future__ import annotations

from math import exp, log

import torch
from torch.nn.functional import normalize

from hf_ta_cleaner.losses import SubTexts, Views


def pair_with(similarities: list[list[float]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Unit vectors a, b in float64 with `a @ b.T == similarities`: a is a basis, b holds a column each."""
    s = torch.tensor(similarities, dtype=torch.float64)
    n, m = s.shape
    a = torch.eye(n, n + m, dtype=torch.float64)
    b = torch.cat([s.T, torch.diag((1 - s.square().sum(0)).sqrt())], dim=1)
    return a, b


def scalar(x: float) -> torch.Tensor:
    return torch.tensor(x, dtype=torch.float64)


def ce(target: float, *others: float) -> float:
    return log(exp(target) + sum(exp(other) for other in others)) - target


def random_views(k=3, p=2, n=2, b=7, d=6, seed=0) -> Views:
    g = torch.Generator().manual_seed(seed)

    def unit(*shape: int) -> torch.Tensor:
        return normalize(torch.randn(*shape, d, generator=g, dtype=torch.float64), dim=-1)

    also_true = torch.rand(k, p, k, generator=g) < 0.3
    also_true |= torch.eye(k, dtype=torch.bool)[:, None, :]
    subtexts = SubTexts(
        positive=unit(k, p),
        negative=unit(k, n),
        chosen=torch.randperm(b, generator=g)[:k],
        positive_valid=torch.rand(k, p, generator=g) < 0.7,
        negative_valid=torch.rand(k, n, generator=g) < 0.7,
        also_true=also_true,
    )
    return Views(unit(b), unit(b), scalar(7), unit(b), unit(b), subtexts, scalar(-3), unit(b), unit(b))
