"""The repel term and distillation, which compare with the frozen suspect, against numbers worked out by hand."""

from __future__ import annotations

from math import isclose

import pytest
import torch

from hf_ta_cleaner.losses import Views, distillation_loss, repel_loss, suspect_distances

from .embeddings import scalar


def moved(cosines: list[float]) -> tuple[torch.Tensor, torch.Tensor]:
    """Unit vectors u, u0 with these cosines between them."""
    u0 = torch.eye(len(cosines), 2 * len(cosines), dtype=torch.float64)
    c = torch.tensor(cosines, dtype=torch.float64)
    return torch.cat([torch.diag(c), torch.diag((1 - c.square()).sqrt())], 1), u0


def repelled(image_cosines: list[float], text_cosines: list[float]) -> Views:
    (image, image0), (text, text0) = moved(image_cosines), moved(text_cosines)
    return Views(image, text, scalar(1), image_suspect=image0, text_suspect=text0)


def test_distillation_is_half_of_both_distances():
    assert isclose(distillation_loss(repelled([0.8, -0.4], [0.5, 0.0])).item(), (1.6 + 1.5) / 2, rel_tol=1e-12)
    assert isclose(distillation_loss(repelled([1.0, 1.0], [1.0, 1.0])).item(), 0, abs_tol=1e-12)
    with pytest.raises(ValueError, match="distill_weight=0"):
        distillation_loss(Views(*moved([0.5]), scalar(1)))


def test_repel_by_hand():
    # S = mean of 2 - 2 cos: images (0.4 + 2.8) / 2 = 1.6, texts (1.0 + 2.0) / 2 = 1.5, both below 2.15.
    views = repelled([0.8, -0.4], [0.5, 0.0])
    assert [s.item() for s in suspect_distances(views)] == pytest.approx([1.6, 1.5], rel=1e-12)
    assert isclose(repel_loss(views).item(), -(1.6 + 1.5) / 2, rel_tol=1e-12)
    # S sums over the dimensions: right angles are 2, opposite directions 4.
    assert [s.item() for s in suspect_distances(repelled([0.0, 0.0], [-1.0, -1.0]))] == pytest.approx([2, 4])


@pytest.mark.parametrize(
    ("tau", "expected"),
    [(2.15, -(2.1 + 0.2) / 2), (2.0, -0.2 / 2), (0.1, 0.0), (4.0, -(2.1 + 0.2) / 2)],
)
def test_beyond_tau_a_tower_is_let_go(tau, expected):
    views = repelled([-0.1, 0.0], [0.9, 0.9])  # S: 2.1 and 0.2
    image, text = (x.clone().requires_grad_() for x in (views.image, views.text))
    loss = repel_loss(views._replace(image=image, text=text), tau)
    assert loss.item() == pytest.approx(expected, abs=1e-12)
    loss.backward()
    assert (image.grad.abs().max() > 0) == (tau >= 2.1)
    assert (text.grad.abs().max() > 0) == (tau >= 0.2)


def test_repel_goes_away_from_the_suspect():
    views = repelled([0.9, 0.7], [0.8, 0.6])
    image = views.image.clone().requires_grad_()
    repel_loss(views._replace(image=image)).backward()
    closer = (image.grad * (views.image_suspect - views.image)).sum(-1)
    assert (closer > 0).all()  # descending the loss leads away
