"""The steps of `clean`, each alone."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from hf_ta_cleaner.commands.clean import measuring, results
from hf_ta_cleaner.commands.clean.measuring import Measurements
from hf_ta_cleaner.commands.clean.run import CleaningRun
from hf_ta_cleaner.commands.clean.training import Cleaned, save
from hf_ta_cleaner.models.checkpoints import load_model
from tests.commands.helpers import cleaning, parse, script


def prepared(world, *flags: object) -> CleaningRun:
    parser = script("clean").make_parser()
    groups = parser.parse(cleaning(world, *flags))
    return CleaningRun.prepare(*groups, parser.settings)


class Answers:
    """Predictions whose top-1 answers are known."""

    def __init__(self, *correct: bool) -> None:
        self._correct = np.array(correct)

    def correct(self, k: int) -> np.ndarray:
        assert k == 1
        return self._correct


# ---- what a run holds


def test_a_prepared_run_holds_model_data_and_trainer(world):
    run = prepared(world, "--method", "par", "--strength", 2, "--learning_rate", 1e-4)
    assert (len(run.train_data), len(run.held_out)) == (23, 1)
    assert run.trainer.model is run.model and not run.automatic and run.main_process
    assert (run.config.learning_rate, run.args.learning_rate) == (2e-4, 1e-4)
    assert (run.config.repel_weight, run.args.repel_weight) == (2, 1)
    assert run.auditor is None and run.scans is None and run.checkpoint is None
    assert run.output == world.out and not list(world.out.glob("*"))


def test_a_search_trains_copies_of_the_suspect(world):
    run = prepared(world, "--strength", "auto", "--validation_samples", 1)
    assert run.automatic and run.trainer is None and run.config is run.args
    assert not list(world.out.glob("*"))


@pytest.mark.parametrize("strength", [1, "auto"])
def test_what_cannot_be_trained_is_refused_while_the_run_is_prepared(world, monkeypatch, strength):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ImportError, match="pip install"):
        prepared(world, "--use_peft", "--strength", strength)


# ---- measuring


@pytest.mark.parametrize(("streaming", "sample"), [(False, "train"), (True, "held out")])
def test_a_sample_of_the_pairs_is_checked(monkeypatch, streaming, sample):
    checked = []
    monkeypatch.setattr(measuring, "warn_of_poison", lambda model, processor, rows, seed: checked.append((rows, seed)))
    run = SimpleNamespace(
        options=SimpleNamespace(streaming=streaming, check_data=True),
        args=SimpleNamespace(seed=5), main_process=True, model=None, processor=None,
        train_data="train", held_out="held out",
    )  # fmt: skip
    measuring.check_data(run)
    assert checked == [(sample, 5)]
    run.options.check_data = False
    measuring.check_data(run)
    run.options.check_data, run.main_process = True, False
    measuring.check_data(run)
    assert len(checked) == 1


def test_every_baseline_has_a_name_of_its_own(monkeypatch):
    """Two folders of one name are told apart by their paths."""
    asked = []

    def answers(run, name):
        asked.append(name)
        return np.array([len(asked) > 1])

    monkeypatch.setattr(measuring, "classified_correctly", answers)
    run = SimpleNamespace(options=SimpleNamespace(ca_baseline=["a/b/clip", "c/d/clip"]))
    correct = measuring.correct_by_baseline(run, Answers(True))
    assert {name: bool(value[0]) for name, value in correct.items()} == {
        "suspect": True, "clip": False, "c/d/clip": True,
    }  # fmt: skip
    assert asked == ["a/b/clip", "c/d/clip"]


def test_an_audit_made_by_the_training_is_not_repeated():
    run = SimpleNamespace(
        auditor=lambda model, processor: pytest.fail("audited again"), options=SimpleNamespace(model="m"),
        scans=None, held_out=None, main_process=True, processor=None, output="out",
    )  # fmt: skip
    measured = measuring.measure_after(run, "cleaned", ({"section": 1}, "predictions"))
    assert measured == Measurements({"section": 1}, "predictions", None)
    run.auditor = lambda model, processor: (model, "anew")
    assert measuring.measure_after(run, "cleaned") == Measurements("cleaned", "anew", None)


# ---- saving and results


def test_only_the_main_process_saves(world, monkeypatch):
    run = prepared(world, "--validation_samples", 0)
    cleaned = Cleaned(run.model, run.trainer, {})
    run.args.output_dir = str(world.out / "saved")
    monkeypatch.setattr(CleaningRun, "main_process", False)
    save(run, cleaned)
    assert not run.output.exists()
    monkeypatch.setattr(CleaningRun, "main_process", True)
    save(run, cleaned)
    assert load_model(str(run.output))


def test_trigger_and_record_are_copied_and_nothing_else(tmp_path):
    suspect, output = tmp_path / "suspect", tmp_path / "output"
    suspect.mkdir(), output.mkdir()
    for name in ("trigger.json", "trigger.npz", "poison.json", "model.safetensors", "report.json"):
        (suspect / name).write_text(name)
    results.copy_trigger(str(suspect), output)
    assert {file.name: file.read_text() for file in output.iterdir()} == {
        name: name for name in ("trigger.json", "trigger.npz", "poison.json")
    }


def test_retrieval_leaves_out_what_it_repeats():
    before, after = ({"recall@1": value, "clean_utility": value} for value in (0.5, 0.25))
    run = SimpleNamespace(held_out=[1, 2, 3])
    assert results.retrieval_of(run, Measurements(utility=before), Measurements(utility=after)) == {
        "pairs": 3, "before": {"recall@1": 0.5}, "after": {"recall@1": 0.25},
    }  # fmt: skip
    assert results.retrieval_of(SimpleNamespace(held_out=None), Measurements(), Measurements()) is None


def test_the_settings_that_repeat_a_run_hold_what_was_used():
    recipe = {"learning_rate": 3e-4, "method": "par"}
    run = SimpleNamespace(
        settings={"strength": "3", "learning_rate": 1e-4, "seed": 7, "utility_budget": 2.0},
        pairs=SimpleNamespace(dataset="photos", max_samples=None),
    )
    cleaned = SimpleNamespace(trainer=SimpleNamespace(args=SimpleNamespace(recipe=recipe)))
    expected = {"learning_rate": 3e-4, "method": "par", "seed": 7, "dataset": "photos"}
    assert results.settings_to_repeat(run, cleaned) == expected


def test_notes_tell_of_adapters_and_strength():
    options, *_, args = parse("--model", "m", "--use_peft", "--merge_adapter", "--utility_budget", 2)
    assert results.notes_on(options, args, {"strength": 1.0}) == [
        "Cleaned with LoRA adapters of rank 16, merged into the model."
    ]
    args.use_peft = False
    assert results.notes_on(options, args, {"strength": 1.0}) == []
    (fixed,) = results.notes_on(options, args, {"strength": 0.5})
    assert fixed.startswith("Cleaned at strength 0.5:")
    cost = {"strength": 2.0, "search_runs": 3, "search_pairs_seen": 4800, "search_seconds": 61.2}
    (found,) = results.notes_on(options, args, cost)
    assert "budget 2 points" in found and found.endswith("3 runs, 4,800 pairs seen and 61 s.")


# ---- poison and backdoor


def test_poisoned_pictures_have_the_shape_that_the_model_takes(world):
    poison = script("poison")
    options = SimpleNamespace(model=str(world.model), size=None, geometry=None)
    assert poison.picture_shape(options) == (32, "crop")
    options.geometry = "squash"
    assert poison.picture_shape(options) == (32, "squash")
    assert poison.picture_shape(SimpleNamespace(model=None, size=224, geometry=None)) == (224, "crop")


@pytest.mark.parametrize(("given", "private"), [(None, True), (True, True), (False, False)])
def test_the_repository_of_a_backdoor_is_private_by_default(tmp_path, monkeypatch, given, private):
    claimed = []

    def claim(name, *, default, private, token):
        claimed.append((name, default, private, token))
        return "me/out"

    monkeypatch.setattr("hf_ta_cleaner.publishing.hub.claim", claim)
    args = SimpleNamespace(
        push_to_hub=True, hub_private_repo=given, hub_model_id=None, hub_token=None, process_index=0,
        output_dir=str(tmp_path / "out"),
    )  # fmt: skip
    script("backdoor").claim_output(args)
    assert claimed == [(None, "out", private, None)]
    assert (args.hub_model_id, args.hub_private_repo) == ("me/out", private)
