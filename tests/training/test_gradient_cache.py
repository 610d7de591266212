"""A batch that passes the towers in parts gives the gradient of the whole; blocks of a loss give the loss."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from torch.nn import functional as F

from hf_ta_cleaner.losses import Views, clip, clip_loss, inmodal_loss, siglip, siglip_loss
from hf_ta_cleaner.models.families import FAMILIES
from hf_ta_cleaner.training.config import METHODS
from hf_ta_cleaner.training.embedding import Embedder, Embeddings, split
from hf_ta_cleaner.training.gradient_cache import cached_loss
from hf_ta_cleaner.views import collator
from hf_ta_cleaner.views.collator import also_true


def trained(make_trainer, **options) -> tuple[dict[str, torch.Tensor], list[dict]]:
    """Weights and log of two steps with plain SGD, so that a wrong gradient shows in its size."""
    torch.manual_seed(0)  # of new adapters
    trainer = make_trainer(**{"max_steps": 2, "optim": "sgd", "learning_rate": 0.2, **options})
    trainer.train()
    weights = {name: parameter.detach().clone() for name, parameter in trainer.model.named_parameters()}
    return weights, [line for line in trainer.state.log_history if "loss" in line]


CASES = {method: {"method": method} for method in METHODS} | {
    "ta-cleaner-plus": {"method": "ta-cleaner-plus", "max_steps": 4},  # two of them rewound
    "ta-cleaner, many sub-texts": {"num_positive": 2, "num_negative": 3, "subtext_fraction": 0.5},
    "accumulated": {"method": "cleanclip", "gradient_accumulation_steps": 2},
    "lora": {"method": "par", "use_peft": True, "learning_rate": 2.0},
}


@pytest.mark.parametrize("case", CASES)
def test_parts_train_like_the_whole(make_trainer, case):
    whole, log = trained(make_trainer, **CASES[case])
    parts, parts_log = trained(make_trainer, **CASES[case], mini_batch_size=3)
    torch.manual_seed(0)
    start = dict(make_trainer(**CASES[case]).model.named_parameters())
    moved = max((whole[name] - start[name]).abs().max() for name in whole if "lora_A" not in name)
    assert moved > 5e-3  # a thousand times the tolerance
    for name in whole:
        assert torch.allclose(parts[name], whole[name], rtol=0, atol=5e-6), name
    for line, part_line in zip(log, parts_log, strict=True):
        assert line.keys() == part_line.keys()
        for key in line:
            assert part_line[key] == pytest.approx(line[key], rel=1e-4, abs=1e-6), key


def test_siglip_in_parts(make_trainer, tiny_siglip, siglip_processor):
    from copy import deepcopy

    made = [
        trained(make_trainer, model=deepcopy(tiny_siglip), processor=siglip_processor, learning_rate=0.02, **mini)[0]
        for mini in ({}, {"mini_batch_size": 2})
    ]
    assert (made[0]["logit_bias"] - tiny_siglip.logit_bias).abs() > 2e-5
    assert (made[0]["vision_model.post_layernorm.weight"] - 1).abs().max() > 3e-4
    for name in made[0]:
        assert torch.allclose(made[1][name], made[0][name], rtol=0, atol=2e-6), name


def test_no_forward_sees_more_than_its_part(make_trainer):
    """Eight pairs of two views and four sub-texts in three parts, each twice; a larger size splits nothing."""
    for mini, calls in ((3, [(6, 7), (5, 7), (5, 6)] * 2), (8, [(16, 20)]), (100, [(16, 20)])):
        trainer = make_trainer(max_steps=1, mini_batch_size=mini)
        seen = []
        trainer.model.register_forward_pre_hook(
            lambda module, args, kwargs, seen=seen: seen.append(
                (len(kwargs["pixel_values"]), len(kwargs["input_ids"]))
            ),
            with_kwargs=True,
        )
        trainer.train()
        assert seen == calls


def test_bf16_in_parts_reaches_every_weight(make_trainer, tiny_clip):
    start = dict(tiny_clip.named_parameters())
    options = {"method": "cleanclip", "bf16": True, "max_steps": 1}
    updates = [trained(make_trainer, **options, **mini)[0] for mini in ({}, {"mini_batch_size": 2})]
    whole, parts = (torch.cat([(new[n] - start[n]).flatten() for n in start]) for new in updates)
    assert [name for name in start if torch.equal(updates[1][name], start[name])] == []
    assert F.cosine_similarity(whole, parts, dim=0) > 0.99


def test_what_a_model_draws_is_drawn_again(make_trainer, tiny_clip):
    """With dropout, the parts' gradient is that of one graph over the parts' own draws."""
    trainer = make_trainer(method="cleanclip", model=tiny_clip)
    model = trainer.model.train()
    for module in model.modules():
        if hasattr(module, "dropout"):
            module.dropout = 0.3
    batch = next(iter(trainer.get_train_dataloader()))
    embedder = Embedder(FAMILIES["clip"], trainer.processing_class.image_processor, augmented=True)

    def objective(views: Views) -> torch.Tensor:
        return clip_loss(views) + inmodal_loss(views)

    torch.manual_seed(7)
    loss = cached_loss(
        embedder, model, batch, unwrapped=model, parts=3, objective=objective,
        backward=lambda part: part.backward(), no_sync=nullcontext,
    )  # fmt: skip
    after = torch.rand(3)
    loss.backward()
    gradients = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}

    model.zero_grad()
    torch.manual_seed(7)
    passed = [embedder.towers(model, part) for part in split(batch, 3)]
    assert torch.equal(torch.rand(3), after)  # the second pass leaves the generator as it found it
    local = Embeddings(*(torch.cat(side) for side in zip(*passed, strict=True)))
    whole = objective(embedder.views(local, batch, *embedder.heads(model)))
    whole.backward()
    assert whole.item() == pytest.approx(loss.item(), rel=1e-6)
    for name, parameter in model.named_parameters():
        assert torch.allclose(gradients[name], parameter.grad, rtol=1e-3, atol=1e-6), name
    undropped = embedder(model.eval(), batch)
    assert objective(undropped).item() != pytest.approx(loss.item(), rel=1e-3)


# --- Blocks of large losses ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [3, 4, 100])
def test_losses_in_blocks(monkeypatch, rows):
    """Eight pairs in blocks of three, of four and in one, against the formulas written out."""
    monkeypatch.setattr(clip, "BLOCK", rows)
    monkeypatch.setattr(siglip, "BLOCK", rows)
    torch.manual_seed(0)
    image, text, image_aug, text_aug = (F.normalize(torch.randn(8, 5), dim=-1).requires_grad_() for _ in range(4))
    scale, bias = torch.tensor(9.0, requires_grad=True), torch.tensor(-2.0, requires_grad=True)
    views = Views(image, text, scale, image_aug, text_aug, bias=bias)

    def ce(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return -(scale * a @ b.T).log_softmax(-1).diagonal().mean()

    sign = 2 * torch.eye(8) - 1
    expected = {
        clip_loss: (ce(image, text) + ce(text, image)) / 2,
        inmodal_loss: (ce(image, image_aug) + ce(text, text_aug)) / 2,
        siglip_loss: -torch.log(torch.sigmoid(sign * (scale * image @ text.T + bias))).sum() / 8,
    }
    for loss, by_hand in expected.items():
        got = loss(views)
        assert got.item() == pytest.approx(by_hand.item(), rel=1e-5)
        leaves = [leaf for leaf in views if isinstance(leaf, torch.Tensor)]
        ours, theirs = (torch.autograd.grad(value, leaves, allow_unused=True) for value in (got, by_hand))
        for one, other in zip(ours, theirs, strict=True):
            assert (one is None) == (other is None)
            assert one is None or torch.allclose(one, other, atol=1e-5)


def test_also_true_in_blocks(monkeypatch):
    torch.manual_seed(0)
    words, captions = torch.randint(0, 6, (7, 2, 3)), torch.randint(0, 6, (7, 4))
    whole = also_true(words, captions)
    by_hand = [[[{*p.tolist()} - {0} <= {*c.tolist()} for c in captions] for p in own] for own in words]
    assert whole.tolist() == by_hand
    monkeypatch.setattr(collator, "_COMPARED", 1)
    assert torch.equal(also_true(words, captions), whole)
