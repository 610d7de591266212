"""Audits around a training are logged while the trackers listen, with the numbers they gave."""

from __future__ import annotations

import pytest
from transformers import TrainerCallback

from hf_ta_cleaner.publishing.tracking import AuditAround, check_trackers


class Tracker(TrainerCallback):
    """Listens between the begin and the end of the training, as the strictest of the real ones do."""

    def __init__(self):
        self.open, self.heard = False, []

    def on_train_begin(self, args, state, control, **kwargs):
        self.open = True

    def on_train_end(self, args, state, control, **kwargs):
        self.open = False

    def on_log(self, args, state, control, logs=None, **kwargs):
        assert self.open, f"nobody hears {logs}"
        self.heard.append((state.global_step, dict(logs)))


def section(accuracy: float) -> dict:
    return {
        "clean_accuracy": {"top1": accuracy},
        "attacks": {"blended": {"asr": {"top1": 0.9}, "floor": {"top1": 0.1}}},
    }


def test_trackers_hear_both_audits(make_trainer):
    tracker = Tracker()
    trainer = make_trainer(callbacks=[tracker])
    asked = []
    around = AuditAround(
        trainer, section(0.5), lambda: asked.append(trainer.state.global_step) or (section(0.4), "more")
    )
    trainer.train()
    audits = [(step, logs) for step, logs in tracker.heard if "test_clean_accuracy" in logs]
    assert [(step, logs["test_clean_accuracy"]) for step, logs in audits] == [(0, 0.5), (3, 0.4)]
    assert audits[1][1]["test_asr/blended"] == 0.9 and audits[1][1]["test_floor/blended"] == 0.1
    assert asked == [3] and around.after == (section(0.4), "more") and around.ended is not None
    assert {"loss/clip", "loss/inmodal", "loss/subtext"} <= {name for _, logs in tracker.heard for name in logs}


def test_a_tracker_that_is_not_installed_is_refused_with_the_remedy(monkeypatch):
    monkeypatch.setattr(
        "hf_ta_cleaner.publishing.tracking.get_available_reporting_integrations", lambda: ["tensorboard"]
    )
    check_trackers([])
    check_trackers(["tensorboard"])
    with pytest.raises(ValueError, match="--report_to wandb trackio cannot be used here: pip install wandb trackio"):
        check_trackers(["tensorboard", "wandb", "trackio"])


def test_ruined_weights_are_the_trainers_to_report(make_trainer):
    from hf_ta_cleaner.training.trainer import TrainingDiverged

    trainer = make_trainer(max_steps=1, learning_rate=1e38, optim="sgd", max_grad_norm=1e30)
    around = AuditAround(trainer, section(0.5), lambda: pytest.fail("asked a broken model"))
    with pytest.raises(TrainingDiverged, match=r"after step 1|at step"):
        trainer.train()
    assert around.after is None
