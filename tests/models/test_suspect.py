"""Repelling from the frozen suspect: on which inputs, how long, from which weights, also after resuming."""

from __future__ import annotations

import copy
import logging

import numpy as np
import pytest
import torch
from transformers import CLIPModel

from hf_ta_cleaner.models.suspect import FINGERPRINT, Suspect
from hf_ta_cleaner.models.zero_shot import image_features, text_features


def weights(model) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    assert [name for name in a if not torch.equal(a[name], b[name])] == []


def train_logs(trainer) -> list[dict[str, float]]:
    return [line for line in trainer.state.log_history if "loss" in line]


PLAIN = {"image_noise": 0.0, "image_erase": 0.0}


def test_par_repels_from_the_suspect_on_the_same_input(make_trainer, cleaning_pairs, tiny_clip, tiny_processor):
    """The distances of the second step, from the weights after the first, on pictures without noise."""
    rows = cleaning_pairs.select(range(8))  # every batch is all of it, so the order does not matter
    first = make_trainer(rows, method="par", max_steps=1, lr_scheduler_type="constant", **PLAIN)
    first.train()
    both = make_trainer(rows, method="par", max_steps=2, lr_scheduler_type="constant", folder="both", **PLAIN)
    both.train()
    lines = train_logs(both)
    assert lines[0]["distance/image"] == pytest.approx(0, abs=1e-6)  # the suspect itself
    from hf_ta_cleaner.pictures import fit

    pictures = np.stack([fit(image, 32) for image in rows["image"]])
    expected = {}
    for name, features, inputs in (("image", image_features, pictures), ("text", text_features, rows["caption"][:])):
        now, before = (features(model, tiny_processor, inputs) for model in (first.model, tiny_clip))
        expected[name] = (now - before).square().sum(1).mean().item()
        assert expected[name] > 1e-3
        assert lines[1][f"distance/{name}"] == pytest.approx(expected[name], rel=1e-3)
    assert lines[1]["loss/repel"] == pytest.approx(-sum(expected.values()) / 2, rel=1e-3)
    assert lines[1]["loss"] == pytest.approx(lines[1]["loss/clip"] + lines[1]["loss/repel"], rel=1e-4)
    assert torch.equal(both.model.logit_scale, tiny_clip.logit_scale)


def test_repelling_leads_further_away_and_stops_at_tau(make_trainer):
    def distance(**options):
        trainer = make_trainer(method="ft", max_steps=8, learning_rate=3e-3, **options)
        trainer.train()
        return [line.get("distance/image") for line in train_logs(trainer)]

    none, some = distance(repel_weight=1e-9), distance(repel_weight=20.0)
    assert some[-1] > 1.5 * none[-1]
    held = distance(repel_weight=20.0, repel_tau=0.05)
    assert max(held) < max(some)


def test_the_suspect_stays_as_it_was(make_trainer, tiny_clip):
    trainer = make_trainer(method="par")
    trainer.train()
    copied = trainer.suspect._model
    assert_same(weights(copied), weights(tiny_clip))
    assert not copied.training and not any(parameter.requires_grad for parameter in copied.parameters())
    assert not torch.equal(trainer.model.text_projection.weight, tiny_clip.text_projection.weight)
    assert trainer.model.training


def test_repel_then_recover(make_trainer, caplog):
    caplog.set_level(logging.INFO)
    trainer = make_trainer(method="ta-cleaner", max_steps=8, repel_share=0.5, repel_weight=2.0)
    assert "a frozen copy of" in caplog.text and "MiB" in caplog.text
    calls = []
    trainer.suspect._model.register_forward_pre_hook(
        lambda module, args, kwargs: calls.append((trainer.state.global_step, len(kwargs["pixel_values"]))),
        with_kwargs=True,
    )
    trainer.train()
    assert calls == [(step, 8) for step in range(4)]  # the first views only, and nothing while recovering
    lines = train_logs(trainer)
    assert ["loss/repel" in line for line in lines] == [True] * 4 + [False] * 4
    for line in lines:
        total = line["loss/clip"] + line["loss/inmodal"] + line["loss/subtext"] + 2 * line.get("loss/repel", 0)
        assert line["loss"] == pytest.approx(total, rel=1e-4)


def test_without_the_term_there_is_no_copy(make_trainer):
    assert make_trainer().suspect is None
    assert make_trainer(method="par", repel_weight=0.0).suspect is None
    assert make_trainer(method="par", repel_share=0.0).suspect is None


def test_a_resumed_run_repels_from_the_original(make_trainer, tmp_path, tiny_clip):
    options = {"method": "par", "max_steps": 6, "save_strategy": "steps", "save_steps": 2, "save_total_limit": None}
    whole = make_trainer(**options)
    whole.train()
    checkpoint = tmp_path / "out" / "checkpoint-2"
    assert len((checkpoint / FINGERPRINT).read_text().strip()) == 32
    resumed = make_trainer(folder="resumed", **options)
    resumed.train(resume_from_checkpoint=str(checkpoint))
    assert_same(weights(whole.model), weights(resumed.model))
    assert [line["distance/text"] for line in train_logs(resumed)] == [
        line["distance/text"] for line in train_logs(whole)
    ]
    half_cleaned = make_trainer(model=CLIPModel.from_pretrained(checkpoint), folder="wrong", **options)
    with pytest.raises(ValueError, match=r"began with another model.*give the suspect"):
        half_cleaned.train(resume_from_checkpoint=str(checkpoint))


def test_in_half_precision_the_copy_computes_as_the_model_does(make_trainer):
    trainer = make_trainer(method="par", bf16=True, max_steps=2, learning_rate=1e-2)
    trainer.train()
    lines = train_logs(trainer)
    assert lines[0]["distance/image"] == lines[0]["distance/text"] == 0
    assert lines[1]["distance/image"] > 1e-4


def test_dropout_does_not_touch_the_suspect(tiny_clip):
    model = copy.deepcopy(tiny_clip)
    model.text_model.config.attention_dropout = model.vision_model.config.attention_dropout = 0.5
    inputs = {"pixel_values": torch.randn(2, 3, 32, 32), "input_ids": torch.tensor([[512, 5, 513], [512, 9, 513]])}
    suspect = Suspect(model.train())
    first, second = suspect(**inputs), suspect(**inputs)
    assert torch.equal(first.text_embeds, second.text_embeds) and not first.text_embeds.requires_grad


# --- retaining -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"mini_batch_size": 3}, {"adversarial_patch": 0.5, "adversarial_search": 2}])
def test_the_model_sees_what_was_put_on_the_pictures_and_the_suspect_does_not(make_trainer, cleaning_pairs, options):
    rows = cleaning_pairs.select(range(8))
    trainer = make_trainer(rows, method="ft", distill_weight=5.0, image_structured_noise=0.5, max_steps=2, **options)
    seen: dict[str, list[torch.Tensor]] = {"model": [], "suspect": []}
    for name, model in (("model", trainer.model), ("suspect", trainer.suspect._model)):
        model.register_forward_pre_hook(
            lambda module, args, kwargs, name=name: seen[name].append(kwargs["pixel_values"].detach().clone()),
            with_kwargs=True,
        )
    trainer.train()
    from hf_ta_cleaner.pictures import fit
    from hf_ta_cleaner.training.embedding import normalise

    untouched = normalise(
        torch.from_numpy(np.stack([fit(image, 32) for image in rows["image"]]).transpose(0, 3, 1, 2).copy()),
        trainer.processing_class.image_processor,
    )

    def unlike(pictures: torch.Tensor) -> int:
        return sum(not any(torch.allclose(one, other) for other in untouched) for one in pictures)

    assert unlike(torch.cat(seen["suspect"])) == 0 and len(torch.cat(seen["suspect"])) % 8 == 0
    assert unlike(torch.cat(seen["model"])) >= 8
    assert all("loss/distill" in line and "distance/text" in line for line in train_logs(trainer))


def test_retaining_keeps_close_to_the_suspect(make_trainer):
    def distance(weight: float) -> float:
        trainer = make_trainer(method="ft", max_steps=8, learning_rate=3e-3, distill_weight=weight)
        trainer.train()
        return train_logs(trainer)[-1]["distance/image"]

    assert distance(50.0) < 0.5 * distance(1e-9)


def test_retaining_alone_is_an_objective(make_trainer):
    trainer = make_trainer(method="ft", clip_weight=0.0, distill_weight=1.0, image_structured_noise=0.5)
    trainer.train()
    line = train_logs(trainer)[-1]
    assert "loss/clip" not in line and line["loss"] == pytest.approx(line["loss/distill"], rel=1e-4)


def test_rewound_weights_are_on_the_way_back_and_come_back_to_the_bit(tiny_clip):
    model = copy.deepcopy(tiny_clip)
    suspect = Suspect(model)
    model.logit_scale.requires_grad_(False)  # not trained, so not moved
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += torch.randn_like(parameter)
    before, there = weights(model), weights(tiny_clip)
    with suspect.rewound(model, 0.25):
        now = weights(model)
    for name in before.keys() - {"logit_scale"}:
        assert torch.allclose(now[name], 0.75 * before[name] + 0.25 * there[name], atol=1e-6), name
        assert not torch.equal(now[name], before[name])
    assert torch.equal(now["logit_scale"], before["logit_scale"])
    assert_same(weights(model), before)
    with pytest.raises(KeyError), suspect.rewound(model, 1.0):
        raise KeyError("in the middle of a step")
    assert_same(weights(model), before)


def test_gradients_are_taken_on_the_way_back(make_trainer, cleaning_pairs, monkeypatch):
    """In the first half of the steps, elsewhere each time, and at the weights as they are in the second."""
    rows = cleaning_pairs.select(range(16))  # two batches
    settings = {"method": "ft", "max_steps": 8, "learning_rate": 1e-2, "lr_scheduler_type": "constant"}
    settings |= {"warmup_steps": 0, "gradient_accumulation_steps": 2}
    trainer = make_trainer(rows, **settings, rewind=0.9)
    start, ends, seen = weights(trainer.model), [], []
    compute, step = trainer.compute_loss, trainer.training_step

    def loss(model, *args, **kwargs):
        seen.append(weights(model))
        return compute(model, *args, **kwargs)

    def outside(model, *args, **kwargs):
        ends.append(weights(model))
        return step(model, *args, **kwargs)

    monkeypatch.setattr(trainer, "compute_loss", loss)
    monkeypatch.setattr(trainer, "training_step", outside)
    trainer.train()
    assert len(seen) == len(ends) == 16
    assert_same(seen[0], start)  # there is no way to go back yet
    name = "visual_projection.weight"
    shares = [
        ((end[name] - now[name]) / (end[name] - start[name])).median().item()
        for now, end in zip(seen[2:8], ends[2:8], strict=True)
    ]
    for first, second in zip(shares[::2], shares[1::2], strict=True):
        assert 0 < first < 0.9 and first == pytest.approx(second, abs=1e-3)  # one share a step
    assert len({round(share, 2) for share in shares}) == 3
    for now, end in zip(seen[8:], ends[8:], strict=True):
        assert_same(now, end)
    plain = make_trainer(rows, **settings, folder="plain")
    plain.train()
    assert not torch.allclose(plain.model.visual_projection.weight, trainer.model.visual_projection.weight, atol=1e-4)


def test_captions_rest_while_the_suspect_teaches_on_the_way_back(make_trainer, cleaning_pairs):
    """Their terms rest in the first half and rise in the second; without distillation they act in both."""
    rows = cleaning_pairs.select(range(8))
    settings = {"method": "ft", "clip_weight": 2.0, "rewind": 0.5, "max_steps": 4, "logging_steps": 1}
    trainer = make_trainer(rows, **settings, distill_weight=3.0, image_structured_noise=0.5)
    trainer.train()
    for step, line in enumerate(train_logs(trainer)):
        assert line["loss/distill"] > 1e-4
        expected = 3 * line["loss/distill"] + (0, 0, 0, 1)[step] * line["loss/clip"]  # 2 * (3/4 - 1/2) / (1/2)
        assert line["loss"] == pytest.approx(expected, rel=1e-3), step
    alone = make_trainer(rows, **settings, folder="alone")
    alone.train()
    assert all(line["loss"] == pytest.approx(2 * line["loss/clip"], rel=1e-4) for line in train_logs(alone))


def test_repelling_does_not_rest(make_trainer, cleaning_pairs):
    settings = {"method": "ft", "rewind": 0.5, "distill_weight": 3.0, "repel_weight": 2.0, "repel_share": 0.5}
    trainer = make_trainer(
        cleaning_pairs.select(range(8)), **settings, image_structured_noise=0.5, max_steps=4, logging_steps=1
    )
    trainer.train()
    for step, line in enumerate(train_logs(trainer)[:2]):
        expected = 3 * line["loss/distill"] + 2 * line["loss/repel"]
        assert line["loss"] == pytest.approx(expected, rel=1e-3), step


def test_deepspeed_cannot_rewind(make_trainer, monkeypatch):
    from transformers import Trainer

    made = Trainer.create_accelerator_and_postprocess

    def with_deepspeed(self):
        made(self)
        self.is_deepspeed_enabled = True

    monkeypatch.setattr(Trainer, "create_accelerator_and_postprocess", with_deepspeed)
    make_trainer(method="ft")
    with pytest.raises(ValueError, match="rewind=0"):
        make_trainer(method="ft", rewind=0.5, folder="other")
