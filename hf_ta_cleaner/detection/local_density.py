"""How far a picture's embedding lies from its neighbours: local-density scores within a batch of embeddings.

Huang et al., Detecting Backdoor Samples in Contrastive Language Image Pretraining, ICLR 2025 (arXiv 2502.01385):
backdoored pictures lie in sparse neighbourhoods of the embedding of a model that learned them, as long as few of them
share a batch.
"""

from __future__ import annotations

import torch


#: The paper's number of neighbours for a batch of about a thousand.
NEIGHBOURS = 16
_TINY = 1e-12


def neighbour_scores(features: torch.Tensor, k: int = NEIGHBOURS) -> dict[str, torch.Tensor]:
    """Three outlier scores of every row against the other rows; higher is more isolated.

    With d_k(x) the Euclidean distance from x to its k-th neighbour and N(x) its k neighbours:

    - `k_dist`: d_k(x).
    - `slof`: mean over o in N(x) of d_k(x) / d_k(o), the simplified local outlier factor (Schubert et al. 2014).
    - `dao`: mean over o in N(x) of LID(o) ln(d_k(x) / d_k(o)), the dimensionality-aware factor (Anderberg et al. 2024)
      in logarithms; LID is the maximum-likelihood estimate of the local intrinsic dimension from the k distances.

    Args:
        features: Unit embeddings `(N, D)`.
        k: Neighbours; less where there are fewer other rows.

    Returns:
        `(N,)` float32 each.

    Raises:
        ValueError: fewer than 3 rows, k below 1, or an embedding that is not finite.
    """
    if len(features) < 3 or k < 1:
        raise ValueError(f"Neighbours need at least 3 embeddings and k of at least 1, got {len(features)} and {k}.")
    if not torch.isfinite(features).all():
        raise ValueError("Embeddings contain NaN or infinity: the model's weights or its precision are broken.")
    k = min(k, len(features) - 1)
    # Exact distances: the product form loses the small ones, which are those of near-duplicates.
    distances = torch.cdist(features.float(), features.float(), compute_mode="donot_use_mm_for_euclid_dist")
    distances.fill_diagonal_(float("inf"))
    nearest, rows = distances.topk(k, largest=False)
    nearest = nearest.clamp_min(_TINY)
    radius = nearest[:, -1]
    ratios = radius[:, None] / radius[rows]
    dimension = -k / (nearest / radius[:, None]).log().sum(dim=1).clamp_max(-1e-4)
    return {
        "k_dist": radius,
        "slof": ratios.mean(dim=1),
        "dao": (dimension[rows] * ratios.log()).mean(dim=1),
    }
