"""Linear probe: logistic regression on frozen image embeddings (Radford et al. 2021, section 3.2 and appendix A.3).

A cleaning may keep the zero-shot accuracy and still damage the image embeddings. A probe measures them without text.
"""

from __future__ import annotations

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from hf_ta_cleaner.distributed import dealt, undeal
from hf_ta_cleaner.evaluation.inputs import check_labelled, fitted
from hf_ta_cleaner.metrics.zero_shot_accuracy.zero_shot_accuracy import ZeroShotAccuracy
from hf_ta_cleaner.models.zero_shot import image_features, input_geometry, input_size
from hf_ta_cleaner.seeding import numpy_rng


DECAYS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
"""Weights of the L2 penalty that are tried on a held-out fifth of the training pictures."""


def linear_probe(
    model, processor, train, test, *, geometry: str | None = None, batch_size: int = 256, seed: int = 0
) -> dict:
    """Accuracy of a linear classifier of the image embeddings, trained on `train` and measured on `test`.

    Args:
        train, test: Labelled datasets with the columns `image` and `label` and the same classes.
        geometry: How a picture is fitted to the model's square, see `pictures.fit`; by default as its processor does.
        seed: Of the pictures held out to choose the penalty.

    Returns:
        `{"top1", "n", "interval95", "n_train", "weight_decay"}`, top1 in [0, 1].

    Raises:
        ValueError: Different classes, or too few pictures to hold any out.
    """
    (labels, names), (test_labels, test_names) = (check_labelled(part, "image", "label") for part in (train, test))
    if names != test_names:
        raise ValueError(f"The probe's {len(names)} training classes are not the {len(test_names)} that are measured.")
    features, test_features = (_embed(model, processor, part, geometry, batch_size) for part in (train, test))
    targets = torch.as_tensor(labels, device=features.device)
    order = torch.as_tensor(numpy_rng("linear-probe", seed).permutation(len(labels)), device=features.device)
    held_out, kept = order[: len(order) // 5], order[len(order) // 5 :]
    if not len(held_out):
        raise ValueError(
            f"Got {len(labels)} training pictures for the probe, wanted at least 5. Raise --linear_probe."
        )

    def accuracy(decay: float) -> float:
        predicted = fit_logistic(features[kept], targets[kept], len(names), decay)(features[held_out]).argmax(-1)
        return (predicted == targets[held_out]).float().mean().item()

    decay = max(reversed(DECAYS), key=accuracy)  # the stronger of equals
    logits = fit_logistic(features, targets, len(names), decay)(test_features)
    rankings = logits.argsort(dim=-1, descending=True, stable=True)[:, :1].cpu().numpy()
    metric = ZeroShotAccuracy(keep_in_memory=True)
    result = metric.compute(predictions=rankings, references=test_labels, k=[1])
    return {**result, "n_train": len(labels), "weight_decay": decay}


def fit_logistic(features: torch.Tensor, labels: torch.Tensor, classes: int, decay: float, steps: int = 200):
    """Multinomial logistic regression by L-BFGS from zero, on standardized features `(N, D)`.

    Minimizes the mean cross-entropy plus `decay`/2 times the squared weights (the bias is free).

    Returns:
        A function from features `(M, D)` to logits `(M, classes)`.
    """
    mean, deviation = features.mean(dim=0), features.std(dim=0, correction=0).clamp_min(1e-6)
    inputs = (features - mean) / deviation
    weight = torch.zeros(features.shape[1], classes, device=features.device, requires_grad=True)
    bias = torch.zeros(classes, device=features.device, requires_grad=True)
    solver = torch.optim.LBFGS(
        [weight, bias], max_iter=steps, tolerance_grad=1e-6, tolerance_change=1e-9, line_search_fn="strong_wolfe"
    )

    def closure() -> torch.Tensor:
        solver.zero_grad()
        loss = cross_entropy(inputs @ weight + bias, labels) + decay / 2 * weight.square().sum()
        loss.backward()
        return loss

    with torch.enable_grad():
        solver.step(closure)
    weight, bias = weight.detach(), bias.detach()
    return lambda new: (new - mean) / deviation @ weight + bias


def _embed(model, processor, dataset, geometry: str | None, batch_size: int) -> torch.Tensor:
    rows = dealt(np.arange(len(dataset)))
    how = geometry or input_geometry(processor)
    batches = fitted(dataset, rows, "image", input_size(processor), how, batch_size)
    parts = [image_features(model, processor, images, batch_size).cpu().numpy() for _, images in batches]
    whole = undeal({"features": np.concatenate(parts)} if parts else {})["features"]
    return torch.as_tensor(whole, device=next(model.parameters()).device)
