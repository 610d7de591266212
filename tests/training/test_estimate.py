"""The estimate counts steps as the trainer does, and times real ones."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch

from hf_ta_cleaner.training.config import TACleanerConfig
from hf_ta_cleaner.training.estimate import TIMED_STEPS, Estimate, estimate
from hf_ta_cleaner.training.trainer import TACleanerTrainer


@pytest.mark.parametrize("settings", [{"num_train_epochs": 3}, {"num_train_epochs": 1.5}, {"max_steps": 7}])
def test_steps_are_those_of_the_trainer(make_trainer, tiny_clip, tiny_processor, cleaning_pairs, tmp_path, settings):
    common = {"per_device_train_batch_size": 8, "use_cpu": True, "report_to": "none", "save_strategy": "no"}
    args = TACleanerConfig(str(tmp_path / "run"), method="cleanclip", disable_tqdm=True, **common, **settings)
    before = deepcopy(tiny_clip.state_dict())

    def make(short, few):
        return TACleanerTrainer(deepcopy(tiny_clip), short, few, processing_class=tiny_processor)

    cost = estimate(make, args, cleaning_pairs)
    trainer = make(args, cleaning_pairs)
    trainer.train()
    assert cost.steps == trainer.state.global_step and cost.pairs_seen == trainer.pairs_seen
    assert cost.pairs == 32 and cost.weights == sum(p.numel() for p in tiny_clip.parameters())
    assert cost.seconds_per_step > 0 and cost.memory > 50 * 2**20
    assert args.max_steps == settings.get("max_steps", -1) and args.output_dir == str(tmp_path / "run")
    assert all(torch.equal(value, before[name]) for name, value in tiny_clip.state_dict().items())


def test_the_text_adds_up():
    cost = Estimate(1000, 120, 3840, 2_000_000, 500_000, 3 * 2**30, "as given", 30.0, "cpu", runs=(2, 3))
    assert cost.seconds == 3600
    text = cost.text()
    assert "seen 3.8 times: 3,840 in all" in text and f"median of {TIMED_STEPS} timed" in text
    assert "2.0 million, 0.5 million" in text and "3.0 GiB (as given)" in text
    assert "on cpu: 2.0 h to 3.0 h (2 to 3 runs)" in text


@pytest.mark.parametrize(
    ("settings", "search"),
    [
        ({"method": "ta-cleaner-plus"}, 60),
        ({"method": "ta-cleaner-plus", "gradient_accumulation_steps": 8}, 8),
        ({"method": "ta-cleaner"}, 0),
    ],
)
def test_the_search_is_counted(tiny_clip, tiny_processor, cleaning_pairs, tmp_path, settings, search):
    common = {"per_device_train_batch_size": 4, "use_cpu": True, "report_to": "none", "max_steps": 1}
    args = TACleanerConfig(str(tmp_path / "run"), disable_tqdm=True, **common, **settings)

    def make(short, few):
        return TACleanerTrainer(deepcopy(tiny_clip), short, few, processing_class=tiny_processor)

    cost = estimate(make, args, cleaning_pairs)
    assert cost.search == search and cost.seconds == pytest.approx((1 + search) * cost.seconds_per_step)
    assert ("of search at" in cost.text()) == bool(search)
