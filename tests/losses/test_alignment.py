"""The CLIP, SigLIP and in-modal losses against numbers worked out by hand from their formulas."""

from __future__ import annotations

from math import exp, isclose, log, sqrt

import pytest
import torch

from hf_ta_cleaner.losses import Views, clip_loss, inmodal_loss, siglip_loss

from .embeddings import pair_with, scalar


def test_the_pairs_are_unit_length():
    a, b = pair_with([[0.8, 0.1], [0.3, 0.5]])
    assert torch.allclose(torch.cat([a, b]).norm(dim=1), torch.ones(4, dtype=torch.float64))
    assert torch.allclose(a @ b.T, torch.tensor([[0.8, 0.1], [0.3, 0.5]], dtype=torch.float64))
    assert isclose(b[0, 2].item(), sqrt(1 - 0.64 - 0.09))


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
