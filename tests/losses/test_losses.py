"""Each loss against numbers worked out by hand from its formula, then its invariances and its gradients."""

from __future__ import annotations

from math import exp, isclose, log, sqrt

import pytest
import torch
from torch.nn.functional import normalize

from hf_ta_cleaner.losses import (
    CITATIONS,
    LOSSES,
    SubTexts,
    Views,
    clip_loss,
    distillation_loss,
    inmodal_loss,
    repel_loss,
    siglip_loss,
    subtext_loss,
    suspect_distances,
)


def pair_with(similarities: list[list[float]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Unit vectors a, b in float64 with `a @ b.T == similarities`: a is a basis, b holds a column each."""
    s = torch.tensor(similarities, dtype=torch.float64)
    n, m = s.shape
    a = torch.eye(n, n + m, dtype=torch.float64)
    b = torch.cat([s.T, torch.diag((1 - s.square().sum(0)).sqrt())], dim=1)
    return a, b


def scalar(x: float) -> torch.Tensor:
    return torch.tensor(x, dtype=torch.float64)


# --- clip ------------------------------------------------------------------------------------------------------------


def test_clip_2x2_by_hand():
    image, text = pair_with([[0.8, 0.1], [0.3, 0.5]])
    # s = 2: logits [[1.6, 0.2], [0.6, 1.0]]; a cross-entropy is log(sum of exponentials) - the right logit.
    images_to_texts = (log(exp(1.6) + exp(0.2)) - 1.6 + log(exp(0.6) + exp(1.0)) - 1.0) / 2
    texts_to_images = (log(exp(1.6) + exp(0.6)) - 1.6 + log(exp(0.2) + exp(1.0)) - 1.0) / 2
    expected = (images_to_texts + texts_to_images) / 2
    assert isclose(clip_loss(Views(image, text, scalar(2))).item(), expected, rel_tol=1e-12)


def test_clip_3x3_by_hand():
    image, text = pair_with([[0.9, -0.2, 0.1], [0.0, 0.4, 0.3], [0.2, 0.5, -0.6]])
    rows = [(2.7, -0.6, 0.3), (0.0, 1.2, 0.9), (0.6, 1.5, -1.8)]  # s = 3
    columns = [(2.7, 0.0, 0.6), (-0.6, 1.2, 1.5), (0.3, 0.9, -1.8)]
    right = (2.7, 1.2, -1.8)
    expected = sum(
        log(sum(exp(x) for x in line)) - right[i] for lines in (rows, columns) for i, line in enumerate(lines)
    ) / (2 * 3)
    assert isclose(clip_loss(Views(image, text, scalar(3))).item(), expected, rel_tol=1e-12)


def test_clip_knows_nothing_and_everything():
    same = torch.tensor([[1.0, 0.0]] * 5, dtype=torch.float64)
    assert isclose(clip_loss(Views(same, same, scalar(100))).item(), log(5), rel_tol=1e-12)
    apart = torch.eye(5, dtype=torch.float64)
    assert clip_loss(Views(apart, apart, scalar(100))).item() < 1e-40


# --- in-modal --------------------------------------------------------------------------------------------------------


def test_inmodal_2x2_by_hand():
    image, image_aug = pair_with([[0.9, 0.2], [0.4, 0.6]])
    text, text_aug = pair_with([[0.5, -0.3], [0.1, 0.7]])
    # s = 2, from the original to the augmented view only: the softmax runs over the augmented ones.
    images = (log(exp(1.8) + exp(0.4)) - 1.8 + log(exp(0.8) + exp(1.2)) - 1.2) / 2
    texts = (log(exp(1.0) + exp(-0.6)) - 1.0 + log(exp(0.2) + exp(1.4)) - 1.4) / 2
    got = inmodal_loss(Views(image, text, scalar(2), image_aug, text_aug))
    assert isclose(got.item(), (images + texts) / 2, rel_tol=1e-12)


def test_inmodal_3x3_by_hand():
    image, image_aug = pair_with([[0.7, 0.1, 0.0], [0.2, 0.3, 0.6], [-0.4, 0.5, 0.2]])
    text, text_aug = pair_with([[0.2, 0.8, 0.0], [0.1, 0.4, -0.2], [0.6, 0.3, 0.9]])
    images = log(exp(0.7) + exp(0.1) + 1) - 0.7 + log(exp(0.2) + exp(0.3) + exp(0.6)) - 0.3
    images += log(exp(-0.4) + exp(0.5) + exp(0.2)) - 0.2
    texts = log(exp(0.2) + exp(0.8) + 1) - 0.2 + log(exp(0.1) + exp(0.4) + exp(-0.2)) - 0.4
    texts += log(exp(0.6) + exp(0.3) + exp(0.9)) - 0.9
    got = inmodal_loss(Views(image, text, scalar(1), image_aug, text_aug))
    assert isclose(got.item(), (images / 3 + texts / 3) / 2, rel_tol=1e-12)


# --- siglip ----------------------------------------------------------------------------------------------------------


def test_siglip_2x2_by_hand():
    image, text = pair_with([[0.8, 0.1], [0.3, 0.5]])
    # s = 2, b = -1: logits [[0.6, -0.8], [-0.4, 0.0]]; the diagonal is a yes, the rest a no.
    yes, no = (0.6, 0.0), (-0.8, -0.4)
    expected = (sum(log(1 + exp(-x)) for x in yes) + sum(log(1 + exp(x)) for x in no)) / 2
    assert isclose(siglip_loss(Views(image, text, scalar(2), bias=scalar(-1))).item(), expected, rel_tol=1e-12)


def test_siglip_is_transformers_loss(tiny_siglip):
    g = torch.Generator().manual_seed(0)
    inputs = {
        "pixel_values": torch.randn(3, 3, 32, 32, generator=g),
        "input_ids": torch.randint(0, 30, (3, 16), generator=g),
    }
    with torch.no_grad():
        output = tiny_siglip(**inputs, return_loss=True)
        views = Views(
            output.image_embeds, output.text_embeds, tiny_siglip.logit_scale.exp(), bias=tiny_siglip.logit_bias
        )
        assert siglip_loss(views).item() == pytest.approx(output.loss.item(), rel=1e-5)


# --- repel -----------------------------------------------------------------------------------------------------------


def moved(cosines: list[float]) -> tuple[torch.Tensor, torch.Tensor]:
    """Unit vectors u, u0 with these cosines between them."""
    u0 = torch.eye(len(cosines), 2 * len(cosines), dtype=torch.float64)
    c = torch.tensor(cosines, dtype=torch.float64)
    return torch.cat([torch.diag(c), torch.diag((1 - c.square()).sqrt())], 1), u0


def repelled(image_cosines: list[float], text_cosines: list[float]) -> Views:
    (image, image0), (text, text0) = moved(image_cosines), moved(text_cosines)
    return Views(image, text, scalar(1), image_suspect=image0, text_suspect=text0)


def test_retain_is_half_of_both_distances():
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


def ce(target: float, *others: float) -> float:
    return log(exp(target) + sum(exp(other) for other in others)) - target


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


# --- all of them -----------------------------------------------------------------------------------------------------


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


def test_the_pairs_of_this_file_are_unit_length():
    a, b = pair_with([[0.8, 0.1], [0.3, 0.5]])
    assert torch.allclose(torch.cat([a, b]).norm(dim=1), torch.ones(4, dtype=torch.float64))
    assert torch.allclose(a @ b.T, torch.tensor([[0.8, 0.1], [0.3, 0.5]], dtype=torch.float64))
    assert isclose(b[0, 2].item(), sqrt(1 - 0.64 - 0.09))
