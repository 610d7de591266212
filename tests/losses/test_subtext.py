"""The sub-text loss against numbers worked out by hand and against loops, and its masks."""

from __future__ import annotations

from math import isclose

import pytest
import torch

from hf_ta_cleaner.losses import SubTexts, Views, subtext_loss

from .embeddings import ce, pair_with, random_views, scalar


# --- sub-text: two chosen samples by hand ----------------------------------------------------------------------------

# A batch of 4, rows 1 and 3 chosen. Similarities of a text to (image of row 1, image of row 3), scale 1.
CHOSEN = (1, 3)
P = {(0, 0): (0.6, 0.1), (0, 1): (0.5, -0.2), (1, 0): (0.3, 0.7), (1, 1): (-0.1, 0.4)}  # (sample, slot)
N = {0: (0.2, 0.65), 1: (0.55, 0.15)}


def by_hand(*, valid=((True, True), (True, True)), negative_valid=(True, True), also_true=(), scale=1.0) -> Views:
    """The batch above; `also_true` lists the true [sample, slot, other sample]."""
    _, texts = pair_with([[*(p[i] for p in P.values()), *(n[i] for n in N.values())] for i in range(2)])
    dimensions = texts.shape[1]
    image = torch.zeros(4, dimensions, dtype=torch.float64)
    image[CHOSEN[0], 0] = image[CHOSEN[1], 1] = 1
    image[0, 2] = image[2, 3] = 1  # the rows that are not chosen lie near some texts; they must not count
    shared = torch.zeros(2, 2, 2, dtype=torch.bool)
    for place in ((0, 0, 0), (0, 1, 0), (1, 0, 1), (1, 1, 1), *also_true):  # own positives are true of their own
        shared[place] = True
    subtexts = SubTexts(
        positive=texts[:4].view(2, 2, -1),
        negative=texts[4:].view(2, 1, -1),
        chosen=torch.tensor(CHOSEN),
        positive_valid=torch.tensor(valid),
        negative_valid=torch.tensor(negative_valid)[:, None],
        also_true=shared,
    )
    text = torch.roll(image, 1, 0)
    return Views(image, text, scalar(scale), subtexts=subtexts)


CASES = {
    # Every positive against the other sample's two positives and the own negative; own other positive left out.
    "all valid": (
        {},
        [
            (ce(0.6, 0.3, -0.1, 0.2), ce(0.6, 0.1)),
            (ce(0.5, 0.3, -0.1, 0.2), ce(0.5, -0.2)),
            (ce(0.7, 0.1, -0.2, 0.15), ce(0.7, 0.3)),
            (ce(0.4, 0.1, -0.2, 0.15), ce(0.4, -0.1)),
        ],
    ),
    # Positive (0, 0) is also true of sample 1: no wrong text for image 1, and image 1 no wrong image for it.
    "also true": (
        {"also_true": [(0, 0, 1)]},
        [
            (ce(0.6, 0.3, -0.1, 0.2), ce(0.6)),
            (ce(0.5, 0.3, -0.1, 0.2), ce(0.5, -0.2)),
            (ce(0.7, -0.2, 0.15), ce(0.7, 0.3)),
            (ce(0.4, -0.2, 0.15), ce(0.4, -0.1)),
        ],
    ),
    # The same from the other side.
    "also true, the other way": (
        {"also_true": [(1, 1, 0)]},
        [
            (ce(0.6, 0.3, 0.2), ce(0.6, 0.1)),
            (ce(0.5, 0.3, 0.2), ce(0.5, -0.2)),
            (ce(0.7, 0.1, -0.2, 0.15), ce(0.7, 0.3)),
            (ce(0.4, 0.1, -0.2, 0.15), ce(0.4)),
        ],
    ),
    # Slot (0, 1) is padding: it is no row and in nobody's denominator, and the mean is over three.
    "invalid positive": (
        {"valid": ((True, False), (True, True))},
        [
            (ce(0.6, 0.3, -0.1, 0.2), ce(0.6, 0.1)),
            (ce(0.7, 0.1, 0.15), ce(0.7, 0.3)),
            (ce(0.4, 0.1, 0.15), ce(0.4, -0.1)),
        ],
    ),
    # Sample 1 has no negative.
    "invalid negative": (
        {"negative_valid": (True, False)},
        [
            (ce(0.6, 0.3, -0.1, 0.2), ce(0.6, 0.1)),
            (ce(0.5, 0.3, -0.1, 0.2), ce(0.5, -0.2)),
            (ce(0.7, 0.1, -0.2), ce(0.7, 0.3)),
            (ce(0.4, 0.1, -0.2), ce(0.4, -0.1)),
        ],
    ),
    # A chosen sample without any positive: its image still is a wrong image for the others.
    "sample without positives": (
        {"valid": ((True, True), (False, False))},
        [(ce(0.6, 0.2), ce(0.6, 0.1)), (ce(0.5, 0.2), ce(0.5, -0.2))],
    ),
    "scale": (
        {"scale": 4.0, "valid": ((True, False), (True, False))},
        [(ce(2.4, 1.2, 0.8), ce(2.4, 0.4)), (ce(2.8, 0.4, 0.6), ce(2.8, 1.2))],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_subtext_by_hand(name):
    options, rows = CASES[name]
    expected = sum((to_text + to_image) / 2 for to_text, to_image in rows) / len(rows)
    assert isclose(subtext_loss(by_hand(**options)).item(), expected, rel_tol=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_own_positives_are_left_out_even_where_their_words_do_not_show_it(name):
    views = by_hand(**CASES[name][0])
    also_true = views.subtexts.also_true.clone()
    also_true[range(2), :, range(2)] = False
    unmarked = views._replace(subtexts=views.subtexts._replace(also_true=also_true))
    assert torch.equal(subtext_loss(unmarked), subtext_loss(views))


def test_negatives_stand_only_against_their_own_image():
    views = by_hand()
    negative = views.subtexts.negative.clone().requires_grad_()
    subtext_loss(views._replace(subtexts=views.subtexts._replace(negative=negative))).backward()
    # The gradient lies along the owner's image: no text-to-image term, and no other image, ever meets it.
    for k, row in enumerate(CHOSEN):
        along = views.image[row] * negative.grad[k, 0].dot(views.image[row])
        assert torch.allclose(negative.grad[k, 0], along) and along.norm() > 0.01


def test_a_lone_image_never_meets_the_texts():
    views = by_hand()
    image = views.image.clone().requires_grad_()
    subtext_loss(views._replace(image=image)).backward()
    assert image.grad[[0, 2]].abs().max() == 0
    assert image.grad[[1, 3]].norm(dim=1).min() > 0.01


# --- sub-text: any shape against loops -------------------------------------------------------------------------------


def subtext_in_loops(views: Views) -> float:
    """The formula of the specification, one number at a time."""
    sub, s = views.subtexts, views.scale.item()
    k, p, _ = sub.positive.shape
    terms = []
    for i in range(k):
        image = views.image[sub.chosen[i]]
        for q in range(p):
            if not sub.positive_valid[i, q]:
                continue
            target = s * image.dot(sub.positive[i, q]).item()
            wrong_texts = [
                s * image.dot(sub.positive[j, r]).item()
                for j in range(k)
                for r in range(p)
                if j != i and sub.positive_valid[j, r] and not sub.also_true[j, r, i]
            ]
            wrong_texts += [
                s * image.dot(sub.negative[i, r]).item()
                for r in range(sub.negative.shape[1])
                if sub.negative_valid[i, r]
            ]
            wrong_images = [
                s * views.image[sub.chosen[j]].dot(sub.positive[i, q]).item()
                for j in range(k)
                if j != i and not sub.also_true[i, q, j]
            ]
            terms.append((ce(target, *wrong_texts) + ce(target, *wrong_images)) / 2)
    return sum(terms) / len(terms)


@pytest.mark.parametrize("shape", [(3, 2, 2), (4, 1, 1), (1, 3, 2), (5, 2, 0), (2, 1, 4)])
@pytest.mark.parametrize("seed", [0, 1])
def test_subtext_of_any_shape(shape, seed):
    k, p, n = shape
    views = random_views(k=k, p=p, n=n, seed=seed)
    assert isclose(subtext_loss(views).item(), subtext_in_loops(views), rel_tol=1e-10)


@pytest.mark.parametrize("k", [3, 0])
def test_no_valid_slot_gives_zero_with_zero_gradient(k):
    views = random_views(k=k)
    leaves = [x.clone().requires_grad_() for x in (views.image, views.subtexts.positive, views.subtexts.negative)]
    subtexts = views.subtexts._replace(
        positive=leaves[1], negative=leaves[2], positive_valid=torch.zeros(k, 2, dtype=torch.bool)
    )
    loss = subtext_loss(views._replace(image=leaves[0], subtexts=subtexts))
    assert loss.item() == 0
    loss.backward()
    for leaf in leaves:
        assert torch.equal(leaf.grad, torch.zeros_like(leaf))


def test_padding_and_masked_texts_have_no_gradient_and_no_say():
    views = random_views(seed=3)
    positive = views.subtexts.positive.clone().requires_grad_()
    negative = views.subtexts.negative.clone().requires_grad_()
    subtexts = views.subtexts._replace(positive=positive, negative=negative)
    subtext_loss(views._replace(subtexts=subtexts)).backward()
    assert torch.isfinite(positive.grad).all() and torch.isfinite(negative.grad).all()
    assert not views.subtexts.positive_valid.all() and not views.subtexts.negative_valid.all()
    assert positive.grad[~views.subtexts.positive_valid].abs().max() == 0
    assert negative.grad[~views.subtexts.negative_valid].abs().max() == 0
    assert positive.grad[views.subtexts.positive_valid].norm(dim=-1).min() > 0


def test_the_order_of_the_chosen_and_of_their_slots_does_not_matter():
    views = random_views(seed=6)
    sub = views.subtexts
    order, slots = torch.tensor([2, 0, 1]), torch.tensor([1, 0])
    other = SubTexts(
        positive=sub.positive[order][:, slots],
        negative=sub.negative[order][:, slots],
        chosen=sub.chosen[order],
        positive_valid=sub.positive_valid[order][:, slots],
        negative_valid=sub.negative_valid[order][:, slots],
        also_true=sub.also_true[order][:, slots][:, :, order],
    )
    assert isclose(subtext_loss(views).item(), subtext_loss(views._replace(subtexts=other)).item(), rel_tol=1e-12)
