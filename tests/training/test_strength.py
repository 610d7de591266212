"""The search for the strength: which rung comes next, which one is chosen, what it costs, and that it can go on."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from hf_ta_cleaner.training.config import TACleanerConfig
from hf_ta_cleaner.training.strength import (
    RECORD,
    best_strength,
    clear,
    next_strength,
    strongest_within,
    train_strongest,
    with_strength,
)
from hf_ta_cleaner.training.trainer import TrainingDiverged


@pytest.fixture
def args(tmp_path):
    return TACleanerConfig(
        output_dir=str(tmp_path), method="ta-cleaner-plus", learning_rate=1e-3, use_cpu=True, repel_weight=6.0
    )


class FakeTrainer:
    """Its utility is a function of the learning rate; it writes a file where weights would lie."""

    def __init__(self, args, utility, log) -> None:
        self.args, self.utility, self.log = args, utility, log
        self.accelerator = SimpleNamespace(wait_for_everyone=lambda: None)
        self.trained, self.pairs_seen = False, 0

    def is_world_process_zero(self) -> bool:
        return True

    def train(self, resume_from_checkpoint=None) -> None:
        self.log.append(("train", round(self.args.learning_rate / 1e-3, 3), resume_from_checkpoint))
        if self.utility(self.args.learning_rate / 1e-3) is None:
            raise TrainingDiverged("the loss is nan")
        self.trained, self.pairs_seen = True, 640

    def evaluate(self) -> dict[str, float]:
        return {"eval_clean_utility": self.utility(self.args.learning_rate / 1e-3) if self.trained else 0.5}

    def save_model(self, folder) -> None:
        Path(folder).mkdir(parents=True, exist_ok=True)
        (Path(folder) / "model.safetensors").write_text(str(self.args.learning_rate))

    def save_state(self) -> None:
        pass

    def load_weights(self, folder) -> None:
        self.log.append(("load", Path(folder).name))


def search(args, utility, **options):
    log: list = []
    trainer, found = train_strongest(lambda settings: FakeTrainer(settings, utility, log), args, **options)
    return trainer, found, log


def test_strength_multiplies_rate_and_repelling(args):
    stronger = with_strength(args, 2.0)
    assert (stronger.learning_rate, stronger.repel_weight) == (2e-3, 12.0)
    assert (args.learning_rate, args.repel_weight) == (1e-3, 6.0)
    assert stronger.inmodal_weight == args.inmodal_weight
    for wrong in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="positive number or auto"):
            with_strength(args, wrong)


@pytest.mark.parametrize(
    ("utilities", "least", "strongest", "following"),
    [
        ({}, 0.5, None, 1.0),
        ({1.0: 0.6}, 0.5, 1.0, 2.0),
        ({1.0: 0.5, 2.0: 0.5}, 0.5, 2.0, 4.0),
        ({1.0: 0.6, 2.0: 0.4}, 0.5, 1.0, None),
        ({1.0: 0.4}, 0.5, None, 0.5),
        ({1.0: 0.4, 0.5: 0.45}, 0.5, None, 0.25),
        ({1.0: 0.4, 0.5: 0.45, 0.25: 0.44}, 0.5, None, None),
        ({1.0: 0.4, 0.5: 0.39}, 0.5, None, 2.0),
        ({1.0: 0.4, 0.5: 0.39, 2.0: 0.45}, 0.5, None, 4.0),
        ({1.0: 0.4, 0.5: 0.39, 2.0: 0.51}, 0.5, 2.0, 4.0),
        ({1.0: 0.4, 0.5: 0.39, 2.0: 0.51, 4.0: 0.45}, 0.5, 2.0, None),
        ({1.0: 0.4, 0.5: 0.39, 2.0: 0.4}, 0.5, None, None),
        ({1.0: 0.4, 0.5: 0.51}, 0.5, 0.5, None),
        ({1.0: 0.6, 2.0: 0.6, 4.0: 0.6, 8.0: 0.6}, 0.5, 8.0, None),
        ({1.0: 0.1, 0.5: 0.1, 0.25: 0.1, 0.125: 0.1}, 0.5, None, None),
    ],
)
def test_the_ladder_is_climbed_until_the_answer_changes(utilities, least, strongest, following):
    assert strongest_within(utilities, least) == strongest
    assert next_strength(utilities, least) == following


def test_the_strongest_inside_the_budget_is_chosen_and_the_rest_is_its_price(args, tmp_path):
    # The suspect has 0.5; strength costs a point each.
    trainer, found, log = search(args, lambda s: 0.5 - s / 100, budget=3.0)
    assert [step[1] for step in log if step[0] == "train"] == [1.0, 2.0, 4.0]
    assert found.chosen.strength == 2.0 and found.reference == 0.5
    assert log[-1] == ("load", "strength-2") and trainer.args.learning_rate == 2e-3
    cost = found.cost()
    assert cost["search_runs"] == 2 and cost["search_pairs_seen"] == 1280 and cost["pairs_seen"] == 640
    assert cost["strength"] == 2.0 and cost["search_seconds"] >= 0
    assert json.loads((tmp_path / RECORD).read_text())["trials"][2]["utility"] == pytest.approx(0.46)
    clear(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [RECORD]


def test_a_run_that_diverges_is_outside(args):
    _, found, log = search(args, lambda s: None if s > 0.3 else 0.5)
    assert [step[1] for step in log if step[0] == "train"] == [1.0, 0.5, 0.25]
    assert found.chosen.strength == 0.25


def test_where_none_is_inside_the_one_that_costs_least_is_taken_and_it_is_said(args, caplog):
    _, found, _ = search(args, lambda s: 0.4 - abs(s - 0.25))
    assert found.chosen.strength == 0.25
    assert "0.125, 0.25, 0.5, 1 keeps clean utility within 1 points (50.0% to 40.0%); 0.25 costs least" in caplog.text


def test_of_equals_the_strongest_is_taken():
    assert best_strength({1.0: 0.3, 0.5: 0.3, 2.0: 0.1}, 0.5) == 1.0
    assert best_strength({1.0: 0.3, 0.5: 0.6, 0.25: 0.7}, 0.5) == 0.5


def test_a_model_that_never_trains_is_an_error(args):
    with pytest.raises(TrainingDiverged, match=r"every strength down to 0.125.*learning_rate"):
        search(args, lambda s: None)
    with pytest.raises(ValueError, match="must not be negative"):
        search(args, lambda s: 0.5, budget=-1)


def test_an_interrupted_search_goes_on(args, tmp_path):
    class Stop(Exception):
        pass

    def stops(strength):
        if strength > 1:
            raise Stop
        return 0.5

    with pytest.raises(Stop):
        search(args, stops)
    checkpoint = tmp_path / "strength-2" / "checkpoint-7"
    checkpoint.mkdir(parents=True)
    (checkpoint / "trainer_state.json").write_text("{}")
    _, found, log = search(args, lambda s: 0.5 if s < 3 else 0.2, resume=True)
    assert log[:2] == [("train", 2.0, str(checkpoint)), ("train", 4.0, None)]
    assert found.chosen.strength == 2.0
    # All is known: nothing is trained again, but for weights that are no longer there.
    assert search(args, lambda s: 0.5, resume=True)[2] == [("load", "strength-2")]
    clear(tmp_path)
    assert [step[:2] for step in search(args, lambda s: 0.5, resume=True)[2]] == [("train", 2.0)]


@pytest.mark.parametrize("use_peft", [False, True])
def test_a_real_search(make_trainer, tiny_clip, cleaning_pairs, tmp_path, monkeypatch, use_peft):
    """On the tiny CLIP: every run begins at the suspect, and the chosen weights are those of its run."""
    seen = iter([0.5, 0.5, 0.1])
    monkeypatch.setattr("hf_ta_cleaner.training.trainer.clean_utility", lambda *a, **k: {"clean_utility": next(seen)})
    trainers = {}

    def make(settings):
        options = {"learning_rate": settings.learning_rate, "max_steps": 2, "use_peft": use_peft}
        options |= {"folder": Path(settings.output_dir).name, "eval_dataset": cleaning_pairs.select(range(8))}
        trainer = make_trainer(**options)
        trainers.setdefault(settings.learning_rate, []).append(trainer)
        return trainer

    args = TACleanerConfig(output_dir=str(tmp_path), learning_rate=1e-3, use_cpu=True)
    trainer, found = train_strongest(make, args)
    assert found.chosen.strength == 1.0 and [trial.strength for trial in found.trials] == [1.0, 2.0]
    assert found.chosen.pairs_seen == 16
    trained = trainers[1e-3][1]
    assert trainer is not trained and trainer.state.log_history == trained.state.log_history != []
    for (name, a), (_, b) in zip(trainer.model.named_parameters(), trained.model.named_parameters(), strict=True):
        assert torch.equal(a, b), name
    assert any(
        not torch.equal(a, b)
        for (_, a), (_, b) in zip(
            trained.model.named_parameters(), trainers[2e-3][0].model.named_parameters(), strict=True
        )
    )
