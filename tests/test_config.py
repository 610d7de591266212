"""The configuration: the published recipe by default, methods as named weights, and errors that help."""

from __future__ import annotations

import pytest
from transformers import HfArgumentParser

from hf_ta_cleaner.config import METHODS, TACleanerConfig
from hf_ta_cleaner.losses import LOSSES


@pytest.fixture
def config(tmp_path):
    return lambda **options: TACleanerConfig(output_dir=str(tmp_path), use_cpu=True, **options)


DEFAULTS = {
    "method": "ta-cleaner",
    "subtext_fraction": 0.25,
    "num_positive": 1,
    "num_negative": 1,
    "swaps": ("noun", "relation", "attribute"),
    "train_logit_scale": True,
    "trim_text": True,
    "learning_rate": 1e-5,
    "per_device_train_batch_size": 64,
    "num_train_epochs": 10,
    "warmup_steps": 50,
    "weight_decay": 0.1,
    "lr_scheduler_type": "cosine",
    "dataloader_drop_last": True,
    "remove_unused_columns": False,
    "save_strategy": "epoch",
    "save_total_limit": 2,
    "logging_steps": 10,
    "logging_nan_inf_filter": False,
    "report_to": [],
    "ddp_find_unused_parameters": False,
}


@pytest.mark.parametrize(
    ("on_cpu", "cores", "processes", "given", "workers"),
    [
        (True, 16, "1", None, 0),
        (True, 16, "1", 3, 3),
        (False, 16, "1", None, 8),
        (False, 16, "4", None, 3),
        (False, 2, "2", None, 1),
        (False, 16, "1", 0, 0),
    ],
)
def test_readers_beside_an_accelerator(monkeypatch, tmp_path, on_cpu, cores, processes, given, workers):
    monkeypatch.setattr("torch.accelerator.is_available", lambda: not on_cpu)
    monkeypatch.setattr("transformers.TrainingArguments.__post_init__", lambda self: None)
    monkeypatch.setattr(TACleanerConfig, "n_gpu", 0)
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", processes)
    assert TACleanerConfig(str(tmp_path), dataloader_num_workers=given).dataloader_num_workers == workers


@pytest.mark.parametrize("name", DEFAULTS)
def test_defaults(config, name):
    assert getattr(config(), name) == DEFAULTS[name]


@pytest.mark.parametrize(
    ("options", "clip", "inmodal", "subtext"),
    [
        ({}, 1, 1, 1),
        ({"method": "ta-cleaner"}, 1, 1, 1),
        ({"method": "cleanclip"}, 1, 1, 0),
        ({"method": "ft"}, 1, 0, 0),
        ({"method": "ft", "subtext_weight": 0.5}, 1, 0, 0.5),
        ({"inmodal_weight": 0}, 1, 0, 1),
        ({"method": "cleanclip", "clip_weight": 0.0, "inmodal_weight": 2.5}, 0, 2.5, 0),
        ({"clip_weight": 3}, 3, 1, 1),
    ],
)
def test_weights(config, options, clip, inmodal, subtext):
    assert config(**options).weights == {"clip": clip, "inmodal": inmodal, "subtext": subtext}


def test_every_method_weighs_every_loss():
    for weights in METHODS.values():
        assert weights.keys() == LOSSES.keys()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "cleanclp"}, "'cleanclp' is unknown; choose from ft, cleanclip, ta-cleaner"),
        ({"inmodal_weight": -1.0}, "inmodal_weight must not be negative, got -1.0"),
        ({"subtext_weight": float("nan")}, "subtext_weight"),
        ({"method": "ft", "clip_weight": 0}, "all weights are 0.*clip_weight=1"),
        ({"subtext_fraction": 25}, r"subtext_fraction must be in \[0, 1\], got 25. Did you mean 0.25"),
        ({"subtext_fraction": -0.1}, r"subtext_fraction must be in \[0, 1\], got -0.1"),
        ({"subtext_fraction": 0.0}, "subtext_fraction > 0.*subtext_weight=0"),
        ({"num_positive": 0}, "num_positive >= 1.*subtext_weight=0"),
        ({"num_negative": -1}, "num_negative >= 0"),
        ({"subtext_swap": "noun,verb"}, "verb unknown; choose from noun, relation, attribute"),
        ({"dataloader_drop_last": False}, "dataloader_drop_last"),
    ],
)
def test_errors(config, options, message):
    with pytest.raises(ValueError, match=message):
        config(**options)


@pytest.mark.parametrize(
    "options",
    [
        {"method": "cleanclip", "subtext_fraction": 0.0},
        {"method": "ft", "num_positive": 0},
        {"num_negative": 0},
        {"subtext_fraction": 1.0},
        {"clip_weight": 0.0},
    ],
)
def test_settings_that_are_fine(config, options):
    for name, value in options.items():
        assert getattr(config(**options), name) == value


@pytest.mark.parametrize(
    ("text", "swaps"),
    [("noun", ("noun",)), (" attribute , noun ", ("attribute", "noun")), ("relation,", ("relation",))],
)
def test_swaps(config, text, swaps):
    assert config(subtext_swap=text).swaps == swaps


def test_the_best_checkpoint_is_the_most_useful_one(config):
    args = config(load_best_model_at_end=True, eval_strategy="epoch")
    assert args.metric_for_best_model == "clean_utility" and args.greater_is_better is True
    args = config(load_best_model_at_end=True, eval_strategy="epoch", metric_for_best_model="recall@1")
    assert args.metric_for_best_model == "recall@1"
    assert config().metric_for_best_model is None


def test_flags_override_the_method(tmp_path):
    flags = ["--output_dir", str(tmp_path), "--use_cpu", "True", "--method", "cleanclip", "--subtext_weight", "0.5"]
    (args,) = HfArgumentParser(TACleanerConfig).parse_args_into_dataclasses(flags)
    assert args.weights == {"clip": 1, "inmodal": 1, "subtext": 0.5}
