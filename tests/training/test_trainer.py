"""The cleaning loop on a random CLIP and some photos: what a step computes, what is logged, measured and refused."""

from __future__ import annotations

from math import log
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Value

from hf_ta_cleaner.evaluation.clean_utility import clean_utility
from hf_ta_cleaner.losses import LOSSES, SubTexts, Views
from hf_ta_cleaner.models.zero_shot import image_features, text_features
from hf_ta_cleaner.pictures import fit
from hf_ta_cleaner.subtexts import Vocabulary
from hf_ta_cleaner.training.config import TACleanerConfig
from hf_ta_cleaner.training.trainer import TACleanerTrainer
from hf_ta_cleaner.views.collator import DataCollatorForTACleaner, also_true


def weights(model) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    assert [name for name in a if not torch.equal(a[name], b[name])] == []


def train_logs(trainer) -> list[dict[str, float]]:
    return [line for line in trainer.state.log_history if "loss" in line]


# --- What a step is --------------------------------------------------------------------------------------------------


def test_training_changes_both_towers(make_trainer, tiny_clip):
    trainer = make_trainer()
    trainer.train()
    before, after = weights(tiny_clip), weights(trainer.model)
    matrices = [name for name in before if before[name].ndim >= 2]
    assert [name for name in matrices if torch.equal(before[name], after[name])] == []
    assert before["logit_scale"] != after["logit_scale"]
    assert all(torch.isfinite(value).all() for value in after.values())


def test_the_first_step_by_hand(make_trainer, cleaning_pairs, tiny_clip, tiny_processor):
    """Eight pairs, all of them chosen, in one batch: every loss from embeddings that were made view by view."""
    rows = cleaning_pairs.select(range(8))
    trainer = make_trainer(rows, max_steps=1, subtext_fraction=1.0, num_positive=2, num_negative=2, seed=5)
    trainer.train()
    (got,) = train_logs(trainer)

    collate = DataCollatorForTACleaner(
        tiny_processor, vocabulary=Vocabulary.from_parts(rows["parts"]), num_positive=2, num_negative=2, seed=5
    )
    batch = collate([{**row, "sample_id": i, "epoch": 0, "chosen": True} for i, row in enumerate(rows)])
    originals = np.stack([fit(image, 32) for image in rows["image"]])
    texts = [
        tiny_processor.tokenizer.decode(ids[mask.bool()], skip_special_tokens=True)
        for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)
    ]
    text = text_features(tiny_clip, tiny_processor, texts)
    subtexts = SubTexts(
        positive=text[16:32].view(8, 2, -1),
        negative=text[32:48].view(8, 2, -1),
        chosen=torch.arange(8),
        positive_valid=batch["positive_valid"],
        negative_valid=batch["negative_valid"],
        also_true=also_true(batch["positive_words"], batch["caption_words"]),
    )
    views = Views(
        image_features(tiny_clip, tiny_processor, originals),
        text_features(tiny_clip, tiny_processor, rows["caption"][:]),
        tiny_clip.logit_scale.exp(),
        image_features(tiny_clip, tiny_processor, batch["pixel_values"][8:].permute(0, 2, 3, 1).numpy()),
        text[8:16],
        subtexts,
    )
    for name in ("clip", "inmodal", "subtext"):
        loss = LOSSES[name]
        assert got[f"loss/{name}"] == pytest.approx(loss(views).item(), rel=1e-4), name


def test_the_clip_term_is_the_models_own_loss(make_trainer, cleaning_pairs, tiny_clip, tiny_processor):
    rows = cleaning_pairs.select(range(8))
    trainer = make_trainer(rows, max_steps=1, method="ft")
    trainer.train()
    inputs = tiny_processor(images=rows["image"][:], text=rows["caption"][:], return_tensors="pt", padding=True)
    with torch.no_grad():
        expected = tiny_clip(**inputs, return_loss=True).loss.item()
    assert train_logs(trainer)[0]["loss"] == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("options", [{}, {"gradient_accumulation_steps": 2}, {"logging_steps": 3, "max_steps": 6}])
def test_every_term_is_logged_and_they_sum_to_the_loss(make_trainer, options):
    trainer = make_trainer(clip_weight=0.5, inmodal_weight=2.0, subtext_weight=1.5, **options)
    trainer.train()
    lines = train_logs(trainer)
    assert len(lines) == options.get("max_steps", 3) / options.get("logging_steps", 1)
    for line in lines:
        assert {key for key in line if key.startswith("loss/")} == {"loss/clip", "loss/inmodal", "loss/subtext"}
        total = 0.5 * line["loss/clip"] + 2 * line["loss/inmodal"] + 1.5 * line["loss/subtext"]
        assert line["loss"] == pytest.approx(total, rel=1e-5)
    assert lines[-1]["logit_scale"] == pytest.approx(trainer.model.logit_scale.exp().item(), rel=1e-6)


@pytest.mark.parametrize(
    ("options", "terms", "pictures", "texts"),
    [
        ({"method": "ft"}, {"clip"}, 8, 8),
        ({"method": "cleanclip"}, {"clip", "inmodal"}, 16, 16),
        ({"method": "ta-cleaner"}, {"clip", "inmodal", "subtext"}, 16, 16 + 2 * 2),
        ({"inmodal_weight": 0}, {"clip", "subtext"}, 8, 8 + 2 * 2),
        ({"clip_weight": 0, "num_positive": 3, "num_negative": 0}, {"inmodal", "subtext"}, 16, 16 + 2 * 3),
        ({"method": "ft", "subtext_weight": 0.1, "subtext_fraction": 0.5, "num_negative": 2},
         {"clip", "subtext"}, 8, 8 + 4 * 3),
    ],
)  # fmt: skip
def test_a_term_without_weight_costs_nothing(make_trainer, options, terms, pictures, texts):
    trainer = make_trainer(**options)
    calls = []
    trainer.model.register_forward_pre_hook(
        lambda module, args, kwargs: calls.append((len(kwargs["pixel_values"]), len(kwargs["input_ids"]))),
        with_kwargs=True,
    )
    trainer.train()
    assert calls == [(pictures, texts)] * 3  # one forward of each tower a step
    assert {key.removeprefix("loss/") for key in train_logs(trainer)[0] if key.startswith("loss/")} == terms


def test_methods_without_sub_texts_need_no_parts(make_trainer, cleaning_pairs, tiny_clip):
    trainer = make_trainer(cleaning_pairs.remove_columns("parts"), method="cleanclip")
    trainer.train()
    other = make_trainer(method="cleanclip")
    other.train()
    assert_same(weights(trainer.model), weights(other.model))


def test_parts_are_made_where_they_are_missing(make_trainer, cleaning_pairs):
    trainer, other = make_trainer(cleaning_pairs.remove_columns("parts")), make_trainer()
    trainer.train()
    other.train()
    assert_same(weights(trainer.model), weights(other.model))


def test_trimming_texts_changes_no_loss(make_trainer):
    losses, widths = [], []
    for trim in (True, False):
        trainer = make_trainer(max_steps=1, trim_text=trim)
        trainer.model.text_model.register_forward_pre_hook(
            lambda module, args, kwargs: widths.append(kwargs["input_ids"].shape[1]), with_kwargs=True
        )
        trainer.train()
        losses.append(train_logs(trainer)[0]["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert widths[0] < 40 and widths[1] == 77


# --- Temperature and weight decay ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("start", "end"), [(5.0, log(100)), (-1.0, 0.0)])
@pytest.mark.parametrize("trained", [True, False])
def test_the_temperature_stays_legal(make_trainer, tiny_clip, start, end, trained):
    tiny_clip.logit_scale.data.fill_(start)
    trainer = make_trainer(model=tiny_clip, max_steps=1, train_logit_scale=trained)
    trainer.train()
    assert trainer.model.logit_scale.item() == pytest.approx(end, abs=2e-3)
    assert 0 <= trainer.model.logit_scale.item() <= log(100) + 1e-6


def test_a_frozen_temperature_does_not_move(make_trainer, tiny_clip):
    trainer = make_trainer(train_logit_scale=False)
    trainer.train()
    assert torch.equal(trainer.model.logit_scale, tiny_clip.logit_scale)
    assert not torch.equal(trainer.model.text_projection.weight, tiny_clip.text_projection.weight)


def test_only_matrices_decay(make_trainer):
    trainer = make_trainer(weight_decay=0.3)
    trainer.create_optimizer()
    decay = {id(p): group["weight_decay"] for group in trainer.optimizer.param_groups for p in group["params"]}
    matrices = ("_proj.weight", "fc1.weight", "fc2.weight", "patch_embedding.weight", "_projection.weight")
    seen = {name: decay[id(parameter)] for name, parameter in trainer.model.named_parameters()}
    assert seen == {name: 0.3 if name.endswith(matrices) else 0.0 for name in seen}
    for name in ("logit_scale", "text_model.embeddings.token_embedding.weight", "text_model.final_layer_norm.weight"):
        assert seen[name] == 0


# --- Evaluation ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def labelled(photos) -> Dataset:
    data = Dataset.from_dict({"image": photos, "label": [0, 1, 2, 0, 1, 2, 0, 1]})
    return data.cast_column("label", ClassLabel(names=["dog", "cat", "bus"]))


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("labelled", {"clean_utility", "clean_accuracy"}),
        ("captioned", {"clean_utility", "recall@1", "image_to_text_recall@1", "text_to_image_recall@1"}),
    ],
)
def test_evaluate_measures_clean_utility(make_trainer, cleaning_pairs, labelled, tiny_processor, kind, names):
    data = labelled if kind == "labelled" else cleaning_pairs.select(range(8))
    trainer = make_trainer(eval_dataset=data, eval_strategy="steps", eval_steps=2)
    metrics = trainer.evaluate()
    assert {f"eval_{name}" for name in names} <= metrics.keys()
    assert all(0 <= metrics[f"eval_{name}"] <= 1 for name in names)
    expected = clean_utility(trainer.model, tiny_processor, data)
    assert metrics == {f"eval_{name}": expected[name] for name in names}
    assert trainer.evaluate(metric_key_prefix="test")["test_clean_utility"] == expected["clean_utility"]
    trainer.train()
    assert 2 in [line["step"] for line in trainer.state.log_history if "eval_clean_utility" in line]


def test_evaluate_needs_data_that_it_can_use(make_trainer, cleaning_pairs, labelled):
    trainer = make_trainer()
    with pytest.raises(ValueError, match="eval_dataset"):
        trainer.evaluate()
    with pytest.raises(ValueError, match=r"label \(ClassLabel\) or caption; found image \(Image\)"):
        trainer.evaluate(labelled.select_columns("image"))
    with pytest.raises(ValueError, match=r"label \(Value\)"):
        trainer.evaluate(labelled.cast_column("label", Value("int64")))


# --- Refusals --------------------------------------------------------------------------------------------------------


def test_missing_columns_are_named(make_trainer, cleaning_pairs):
    with pytest.raises(ValueError, match=r"found image, txt, missing caption.*rename_column"):
        make_trainer(cleaning_pairs.rename_column("caption", "txt").remove_columns("parts"))


def test_data_smaller_than_a_batch(make_trainer, cleaning_pairs):
    with pytest.raises(ValueError, match=r"7 usable pairs.*per_device_train_batch_size to at most 7"):
        make_trainer(cleaning_pairs.select(range(7))).train()


def test_captions_without_nouns(make_trainer, cleaning_pairs):
    rows = cleaning_pairs.select_columns("image").add_column("caption", ["!!!"] * 31 + ["a dog"])
    with pytest.raises(ValueError, match=r"only 1 of 32 captions.*cleanclip"):
        make_trainer(rows).train()


def test_a_fraction_that_rounds_to_nobody(make_trainer):
    with pytest.raises(ValueError, match=r"subtext_fraction.*0\.05.*8"):
        make_trainer(subtext_fraction=0.05).train()


def test_other_models_and_missing_processors(make_trainer, tiny_clip, cleaning_pairs, tmp_path):
    with pytest.raises(ValueError, match=r"'blip'.*supported: CLIP"):
        make_trainer(model=SimpleNamespace(config=SimpleNamespace(model_type="blip")))
    with pytest.raises(ValueError, match="processing_class=CLIPProcessor"):
        TACleanerTrainer(tiny_clip, TACleanerConfig(str(tmp_path), use_cpu=True), cleaning_pairs)
