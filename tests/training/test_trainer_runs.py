"""A run from its start to its end: divergence, checkpoints, resuming, workers, seeds and the best checkpoint."""

from __future__ import annotations

import copy

import pytest
import torch
from transformers import CLIPModel, CLIPProcessor, TrainerCallback

from hf_ta_cleaner.data.sampling import pairs_after
from hf_ta_cleaner.training.config import TACleanerConfig
from hf_ta_cleaner.training.estimate import steps_of
from hf_ta_cleaner.training.trainer import TACleanerTrainer, TrainingDiverged
from hf_ta_cleaner.views.structured_noise import StructuredNoise


def weights(model) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    assert [name for name in a if not torch.equal(a[name], b[name])] == []


def train_logs(trainer) -> list[dict[str, float]]:
    return [line for line in trainer.state.log_history if "loss" in line]


# --- Divergence ------------------------------------------------------------------------------------------------------


class Break(TrainerCallback):
    """Puts a NaN into the weights at the end of a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args, state, control, model=None, **kwargs) -> None:
        if state.global_step == self.step:
            model.visual_projection.weight.data[0, 0] = float("nan")


@pytest.mark.parametrize(("broken_after", "message"), [(3, "loss is nan at step 4"), (4, "weights .* after step 4")])
@pytest.mark.parametrize("logging_steps", [1, 100])
def test_a_diverged_run_stops_and_leaves_good_checkpoints(
    make_trainer, tmp_path, broken_after, message, logging_steps
):
    trainer = make_trainer(
        max_steps=8,
        save_strategy="steps",
        save_steps=2,
        logging_steps=logging_steps,
        callbacks=[Break(broken_after)],
    )
    with pytest.raises(TrainingDiverged, match=message):
        trainer.train()
    folders = sorted(path.name for path in (tmp_path / "out").glob("checkpoint-*"))
    assert folders == ["checkpoint-2"]
    restored = CLIPModel.from_pretrained(tmp_path / "out" / "checkpoint-2")
    assert all(torch.isfinite(parameter).all() for parameter in restored.parameters())


def test_a_run_that_breaks_in_its_last_step_does_not_pass_for_a_good_one(make_trainer):
    with pytest.raises(TrainingDiverged, match=r"weights .* after step 3"):
        make_trainer(max_steps=3, callbacks=[Break(3)]).train()


def test_a_diverged_loss_is_named_with_the_rate(make_trainer):
    with pytest.raises(TrainingDiverged, match=r"learning_rate.*1e\+30"):
        make_trainer(learning_rate=1e30, max_grad_norm=0.0, max_steps=4).train()


# --- Saving and resuming ---------------------------------------------------------------------------------------------


def test_the_saved_folder_is_an_ordinary_checkpoint(make_trainer, tmp_path, photos):
    trainer = make_trainer(save_strategy="steps", save_steps=3)
    trainer.train()
    trainer.save_model(str(tmp_path / "cleaned"))
    for folder in (tmp_path / "cleaned", tmp_path / "out" / "checkpoint-3"):
        assert_same(weights(trainer.model), weights(CLIPModel.from_pretrained(folder)))
        processor = CLIPProcessor.from_pretrained(folder)
        inputs = processor(images=photos[0], text=["a dog"], return_tensors="pt")
        assert inputs["pixel_values"].shape == (1, 3, 32, 32)


def test_a_folder_will_do_for_a_model(tiny_clip, tiny_processor, cleaning_pairs, tmp_path):
    tiny_clip.save_pretrained(tmp_path / "suspect")
    tiny_processor.save_pretrained(tmp_path / "suspect")
    args = TACleanerConfig(str(tmp_path / "out"), use_cpu=True, max_steps=1, per_device_train_batch_size=8)
    trainer = TACleanerTrainer(str(tmp_path / "suspect"), args, cleaning_pairs)
    assert_same(weights(trainer.model), weights(tiny_clip))
    assert trainer.processing_class.tokenizer.get_vocab() == tiny_processor.tokenizer.get_vocab()


def test_a_resumed_run_ends_in_the_same_weights(make_trainer, tmp_path, tiny_clip):
    options = {"max_steps": 10, "save_strategy": "steps", "save_steps": 2, "save_total_limit": None}
    whole = make_trainer(**options)
    whole.train()
    # Four steps an epoch: 4 and 8 lie between two epochs, 6 in the middle of one.
    for step, workers in ((4, 0), (6, 2), (8, 0)):
        other = copy.deepcopy(tiny_clip)
        for parameter in other.parameters():
            parameter.data.zero_()
        resumed = make_trainer(model=other, folder=f"resumed-{step}", dataloader_num_workers=workers, **options)
        resumed.train(resume_from_checkpoint=str(tmp_path / "out" / f"checkpoint-{step}"))
        assert_same(weights(whole.model), weights(resumed.model))
        rest = [line["loss"] for line in train_logs(whole)][step:]
        assert [line["loss"] for line in train_logs(resumed)][step:] == rest


def test_workers_change_no_weight(make_trainer):
    runs = [make_trainer(max_steps=6, dataloader_num_workers=workers) for workers in (0, 2)]
    for trainer in runs:
        trainer.train()
    assert_same(*(weights(trainer.model) for trainer in runs))
    assert len({line["loss/subtext"] for line in train_logs(runs[0])}) == 6


def test_every_epoch_brings_new_pairs_and_views(make_trainer, cleaning_pairs):
    options = {"max_steps": 3, "subtext_fraction": 1.0, "learning_rate": 0.0, "weight_decay": 0.0}
    trainer = make_trainer(cleaning_pairs.select(range(8)), **options)
    trainer.train()
    # The weights stand still and each batch is the whole dataset, all of it chosen: only new views can move a loss.
    lines = train_logs(trainer)
    assert len({round(line["loss/clip"], 4) for line in lines}) == 1
    assert len({round(line["loss/inmodal"], 4) for line in lines}) == 3
    assert len({round(line["loss/subtext"], 4) for line in lines}) == 3


def test_seeds(make_trainer):
    def final(**options):
        trainer = make_trainer(max_steps=2, **options)
        trainer.train()
        return trainer.model.text_projection.weight

    assert torch.equal(final(seed=1), final(seed=1))
    assert not torch.equal(final(seed=1), final(seed=2))
    assert torch.equal(final(seed=1, data_seed=7), final(seed=2, data_seed=7))


def test_the_best_checkpoint_is_kept_and_loaded(make_trainer, tmp_path, cleaning_pairs, monkeypatch):
    utility = iter([0.2, 0.9, 0.3, 0.4])
    monkeypatch.setattr(
        "hf_ta_cleaner.training.trainer.clean_utility", lambda *args, **kwargs: {"clean_utility": next(utility)}
    )
    trainer = make_trainer(
        eval_dataset=cleaning_pairs.select(range(8)),
        max_steps=8,
        eval_strategy="steps",
        eval_steps=2,
        save_strategy="steps",
        save_steps=2,
        save_total_limit=1,
        load_best_model_at_end=True,
    )
    trainer.train()
    assert trainer.state.best_metric == 0.9
    assert [path.name for path in (tmp_path / "out").glob("checkpoint-*")] == ["checkpoint-4"]
    assert_same(weights(trainer.model), weights(CLIPModel.from_pretrained(tmp_path / "out" / "checkpoint-4")))


def test_pairs_seen(make_trainer):
    trainer = make_trainer(max_steps=3, gradient_accumulation_steps=2)
    assert trainer.pairs_seen == 0
    trainer.train()
    assert trainer.pairs_seen == 3 * 8 * 2


@pytest.mark.parametrize("batch", [8, 6])
def test_pairs_seen_where_an_epochs_last_step_gathers_fewer(make_trainer, cleaning_pairs, batch):
    """Counted as they pass, over two epochs."""
    seen = []
    rows = cleaning_pairs.select(range(24))
    trainer = make_trainer(
        rows, max_steps=-1, num_train_epochs=2, per_device_train_batch_size=batch, gradient_accumulation_steps=3
    )
    step = trainer.training_step
    trainer.training_step = lambda model, inputs, *rest: seen.append(batch) or step(model, inputs, *rest)
    trainer.train()
    assert trainer.pairs_seen == sum(seen) == 2 * (24 // batch) * batch
    args = trainer.args
    assert pairs_after(steps_of(args, 24), 24, batch, 3) == sum(seen)


def test_batches_of_one_step_are_disturbed_differently(make_trainer, monkeypatch):
    drawn = []
    trainer = make_trainer(max_steps=2, gradient_accumulation_steps=2, method="ft", image_structured_noise=0.5)
    plain = StructuredNoise.__call__
    monkeypatch.setattr(
        StructuredNoise, "__call__", lambda self, im, b, *key: drawn.append(key) or plain(self, im, b, *key)
    )
    trainer.train()
    assert drawn == [(0, 0), (0, 1), (1, 0), (1, 1)]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_in_half_precision_are_made_whole(make_trainer, tiny_clip, dtype, caplog):
    model = copy.deepcopy(tiny_clip).to(dtype)
    trainer = make_trainer(max_steps=1, method="ft", model=model)
    assert {p.dtype for p in trainer.model.parameters()} == {torch.float32} and "float32" in caplog.text
    trainer.train()
