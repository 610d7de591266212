"""Properties that every loss has: order of the pairs, gradients, large scales, errors, sources."""

from __future__ import annotations

from math import isclose

import pytest
import torch

from hf_ta_cleaner.losses import CITATIONS, LOSSES, Views

from .embeddings import random_views


def permuted(views: Views, order: torch.Tensor) -> Views:
    """The same pairs in another order."""
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order))
    names = ("image", "text", "image_aug", "text_aug", "image_suspect", "text_suspect")
    subtexts = views.subtexts._replace(chosen=place[views.subtexts.chosen])
    return views._replace(subtexts=subtexts, **{name: getattr(views, name)[order] for name in names})


@pytest.mark.parametrize("name", LOSSES)
def test_the_order_of_the_pairs_does_not_matter(name):
    views = random_views(seed=5)
    order = torch.tensor([4, 2, 6, 0, 1, 5, 3])
    image = views.image.clone().requires_grad_()
    loss = LOSSES[name](views._replace(image=image))
    loss.backward()
    other = permuted(views, order)
    other_image = other.image.clone().requires_grad_()
    other_loss = LOSSES[name](other._replace(image=other_image))
    other_loss.backward()
    assert isclose(loss.item(), other_loss.item(), rel_tol=1e-12)
    assert torch.allclose(image.grad[order], other_image.grad, atol=1e-12)


@pytest.mark.parametrize("name", LOSSES)
def test_gradients(name):
    views = random_views(seed=8)

    def loss(image, text, scale, image_aug, text_aug, positive, negative):
        subtexts = views.subtexts._replace(positive=positive, negative=negative)
        return LOSSES[name](Views(image, text, scale, image_aug, text_aug, subtexts, *views[6:]))

    inputs = [*views[:5], views.subtexts.positive, views.subtexts.negative]
    assert torch.autograd.gradcheck(loss, [x.clone().requires_grad_() for x in inputs])


@pytest.mark.parametrize("name", LOSSES)
def test_large_scales_stay_finite(name):
    views = random_views(seed=9)
    image = views.image.float().requires_grad_()
    parts = [x.float() for x in (views.text, views.scale / 7 * 100, views.image_aug, views.text_aug)]
    subtexts = views.subtexts._replace(
        positive=views.subtexts.positive.float(), negative=views.subtexts.negative.float()
    )
    rest = [x.float() for x in views[6:]]
    LOSSES[name](Views(image, *parts, subtexts, *rest)).backward()
    assert torch.isfinite(image.grad).all()


@pytest.mark.parametrize(
    ("name", "missing", "advice"),
    [
        ("inmodal", {"image_aug": None}, "inmodal_weight=0"),
        ("inmodal", {"text_aug": None}, "inmodal_weight=0"),
        ("subtext", {"subtexts": None}, "subtext_weight=0"),
        ("repel", {"image_suspect": None}, "repel_weight=0"),
        ("repel", {"text_suspect": None}, "repel_weight=0"),
        ("siglip", {"bias": None}, "logit_bias"),
    ],
)
def test_missing_views_are_named(name, missing, advice):
    with pytest.raises(ValueError, match=advice):
        LOSSES[name](random_views()._replace(**missing))


def test_every_loss_names_its_source():
    assert LOSSES.keys() == CITATIONS.keys()
    assert all(bibtex.startswith("@") and "title" in bibtex for bibtex in CITATIONS.values())
