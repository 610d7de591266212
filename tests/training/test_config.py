"""The configuration: the published recipe by default, methods as named weights, and errors that help."""

from __future__ import annotations

import re

import pytest
from transformers import HfArgumentParser

from hf_ta_cleaner.losses import LOSSES, TAU
from hf_ta_cleaner.training.checks import BEFORE_METHOD, CHECKS, check
from hf_ta_cleaner.training.config import METHODS, TERMS, TACleanerConfig


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
    "repel_tau": TAU,
    "repel_share": 1.0,
    "image_noise": 0.0,
    "noise_sigma": 0.2,
    "image_erase": 0.0,
    "image_structured_noise": 0.0,
    "adversarial_patch": 0.0,
    "adversarial_blend": 0.0,
    "adversarial_step": 4,
    "adversarial_search": 60,
    "use_peft": False,
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
        (False, 16, "1", None, 15),
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


@pytest.mark.parametrize(
    ("given", "trackers"),
    [("none", []), ("wandb", ["wandb"]), ("wandb,trackio", ["wandb", "trackio"]), (["tensorboard"], ["tensorboard"])],
)
def test_several_trackers(config, given, trackers):
    assert config(report_to=given).report_to == trackers


@pytest.mark.parametrize("name", DEFAULTS)
def test_defaults(config, name):
    assert getattr(config(), name) == DEFAULTS[name]


@pytest.mark.parametrize(
    ("options", "clip", "inmodal", "subtext", "repel"),
    [
        ({}, 1, 1, 1, 0),
        ({"method": "ta-cleaner"}, 1, 1, 1, 0),
        ({"method": "cleanclip"}, 1, 1, 0, 0),
        ({"method": "ft"}, 1, 0, 0, 0),
        ({"method": "par"}, 1, 0, 0, 1),
        ({"method": "ft", "repel_weight": 6.0}, 1, 0, 0, 6),
        ({"repel_weight": 2.0}, 1, 1, 1, 2),
        ({"method": "ft", "subtext_weight": 0.5}, 1, 0, 0.5, 0),
        ({"inmodal_weight": 0}, 1, 0, 1, 0),
        ({"method": "cleanclip", "clip_weight": 0.0, "inmodal_weight": 2.5}, 0, 2.5, 0, 0),
        ({"clip_weight": 3}, 3, 1, 1, 0),
    ],
)
def test_weights(config, options, clip, inmodal, subtext, repel):
    assert config(**options).weights == {
        "clip": clip,
        "inmodal": inmodal,
        "subtext": subtext,
        "repel": repel,
        "distill": 0,
    }


def test_every_loss_has_a_weight():
    assert set(TERMS) == LOSSES.keys() - {"siglip"}  # which stands in for clip, with its weight


OFF = {"repel_weight": 0, "image_noise": 0, "image_erase": 0, "train_logit_scale": True}
OFF |= {"adversarial_patch": 0, "adversarial_blend": 0, "image_structured_noise": 0, "distill_weight": 0, "rewind": 0}


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("ft", OFF),
        ("cleanclip", OFF),
        ("ta-cleaner", OFF),
        ("par", {"image_noise": 0.5, "image_erase": 0.5, "train_logit_scale": False, "repel_share": 1}),
        (
            "ta-cleaner-plus",
            {
                "clip_weight": 1,
                "subtext_weight": 0,
                "distill_weight": 10,
                "rewind": 0.6,
                "train_logit_scale": False,
                "image_structured_noise": 0.35,
                "adversarial_patch": 0.25,
            },
        ),
    ],
)
def test_what_a_method_decides(config, method, settings):
    args = config(method=method)
    assert {name: getattr(args, name) for name in settings} == settings


def test_what_a_method_decides_can_be_decided_otherwise(config):
    chosen = {"image_noise": 0.1, "image_erase": 0.0, "train_logit_scale": True, "repel_share": 0.25}
    chosen |= {
        "adversarial_patch": 0.2,
        "adversarial_blend": 0.0,
        "image_structured_noise": 0.3,
        "distill_weight": 2.0,
        "rewind": 0.2,
        "clip_weight": 1,
    }
    for method in METHODS:
        args = config(method=method, **chosen)
        assert {name: getattr(args, name) for name in chosen} == chosen


def test_the_temperature_is_frozen_where_no_term_knows_it(config):
    assert not config(method="ft", clip_weight=0, distill_weight=1.0).train_logit_scale
    assert config(method="ft", clip_weight=0, subtext_weight=1.0, distill_weight=1.0).train_logit_scale


ERRORS = [
    ({"method": "cleanclp"}, "'cleanclp' is unknown; choose from ft, cleanclip, ta-cleaner"),
    ({"inmodal_weight": -1.0}, "inmodal_weight must not be negative, got -1.0"),
    ({"subtext_weight": float("nan")}, "subtext_weight"),
    ({"method": "ft", "clip_weight": 0}, "are 0.*clip_weight=1"),
    ({"method": "par", "clip_weight": 0}, "hold the model together are 0.*clip_weight=1"),
    ({"repel_share": 50}, r"repel_share must be in \[0, 1\], got 50. Did you mean 0.5"),
    ({"rewind": 1.5}, r"rewind must be in \[0, 1\], got 1.5"),
    ({"image_noise": -1.0}, r"image_noise must be in \[0, 1\]"),
    ({"image_erase": 2.0}, r"image_erase must be in \[0, 1\]"),
    ({"image_structured_noise": -0.1}, r"image_structured_noise must be in \[0, 1\]"),
    ({"adversarial_patch": 50.0}, r"adversarial_patch must be in \[0, 1\], got 50.0. Did you mean 0.5"),
    ({"adversarial_patch": 0.7, "adversarial_blend": 0.4}, "together at most 1.*got 0.7, 0.4, 0, 4 and 60"),
    ({"adversarial_step": 0.0}, r"in \(0, 255\] grey levels"),
    ({"adversarial_search": -1}, "is a number of steps.*-1"),
    ({"repel_tau": 5.0}, r"repel_tau must be in \[0, 4\], got 5.0"),
    ({"noise_sigma": -0.1}, "noise_sigma must not be negative.*image_noise=0"),
    ({"lora_rank": 0}, "lora_rank must be at least 1"),
    ({"mini_batch_size": 0}, "mini_batch_size must be at least 1, got 0"),
    ({"mini_batch_size": 2, "optim": "adalomo"}, "adalomo moves weights within the backward.*adamw_torch"),
    ({"rewind": 0.5, "optim": "galore_adamw_layerwise"}, "galore_adamw_layerwise moves weights within"),
    ({"adversarial_patch": 0.5, "optim": "lomo"}, "lomo moves weights within"),
    ({"fsdp": True}, "no scalar parameter.*DDP.*mini_batch_size"),
    ({"use_peft": True, "train_logit_scale": True}, "exclude each other"),
    ({"num_positive": 0, "num_negative": 0}, "one of them above 0"),
    ({"subtext_fraction": 25}, r"subtext_fraction must be in \[0, 1\], got 25. Did you mean 0.25"),
    ({"subtext_fraction": -0.1}, r"subtext_fraction must be in \[0, 1\], got -0.1"),
    ({"subtext_fraction": 0.0}, "subtext_fraction > 0.*subtext_weight=0"),
    ({"num_positive": -1}, "num_positive >= 0.*subtext_weight=0"),
    ({"num_negative": -1}, "num_negative >= 0"),
    ({"subtext_swap": "noun,verb"}, "verb unknown; choose from noun, relation, attribute"),
    ({"dataloader_drop_last": False}, "dataloader_drop_last"),
    ({"hub_strategy": "checkpoint"}, "hub_strategy must be end or every_save.*got .*CHECKPOINT and None"),
    ({"hub_revision": "v1"}, "hub_revision is not used.*got .*END and v1"),
    ({"use_peft": True, "freeze_batch_norm": False}, "freeze_batch_norm=False and use_peft exclude each other"),
    ({"clip_weight": -1.0}, "clip_weight must not be negative, got -1.0"),
    ({"repel_weight": float("inf")}, "repel_weight must not be negative, got inf"),
    ({"distill_weight": -2.0}, "distill_weight must not be negative, got -2.0"),
    ({"adversarial_blend": 1.5}, r"adversarial_blend must be in \[0, 1\], got 1.5"),
    ({"adversarial_map": 20}, r"adversarial_map must be in \[0, 1\], got 20. Did you mean 0.2"),
    ({"adversarial_patch": 0.5, "adversarial_map": 0.6}, "together at most 1.*got 0.5, 0, 0.6, 4 and 60"),
    ({"adversarial_map": 0.5, "optim": "lomo"}, "lomo moves weights within"),
]


@pytest.mark.parametrize(("options", "message"), ERRORS)
def test_errors(config, options, message):
    with pytest.raises(ValueError, match=message):
        config(**options)


def test_deepspeed_takes_no_mini_batches(config):
    args = config(mini_batch_size=2)
    check(args, CHECKS)
    args.deepspeed = "zero2.json"  # set afterwards: as an argument it needs the library
    with pytest.raises(ValueError, match="mini_batch_size does not work with deepspeed"):
        check(args, CHECKS)


def test_fsdp_of_the_launcher_is_refused(config, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(ValueError, match="FSDP takes no scalar parameter"):
        config()


def test_every_check_has_a_case(config):
    """Each row of the tables is the first that some case above breaks."""
    messages = []
    for options, _ in ERRORS:
        with pytest.raises(ValueError) as raised:
            config(**options)
        messages.append(str(raised.value))
    templates = [re.sub(r"\\\{.*?\\\}", ".*", re.escape(message)) for _, message in (*BEFORE_METHOD, *CHECKS)]
    without = [t for t in templates if not any(re.fullmatch(t, message) for message in messages)]
    assert len(without) == 1 and "deepspeed" in without[0]  # which the test above checks


@pytest.mark.parametrize(
    ("options", "first"),
    [
        ({"hub_strategy": "checkpoint", "method": "cleanclp"}, "hub_strategy"),
        ({"method": "cleanclp", "clip_weight": -1.0}, "'cleanclp' is unknown"),
        ({"clip_weight": -1.0, "repel_share": 50}, "clip_weight"),
        ({"repel_share": 50, "image_noise": 2.0}, "repel_share must be.*got 50. Did you mean 0.5"),
        ({"image_erase": 2.0, "lora_rank": 0}, "image_erase"),
        ({"lora_rank": 0, "dataloader_drop_last": False}, "lora_rank"),
    ],
)
def test_the_first_error_in_the_order_of_the_table_is_raised(config, options, first):
    with pytest.raises(ValueError, match=first):
        config(**options)


@pytest.mark.parametrize(
    "options",
    [
        {"method": "cleanclip", "subtext_fraction": 0.0},
        {"method": "ft", "num_positive": 0},
        {"num_negative": 0},
        {"num_positive": 0},
        {"subtext_fraction": 1.0},
        {"clip_weight": 0.0},
    ],
)
def test_settings_that_are_fine(config, options):
    for name, value in options.items():
        assert getattr(config(**options), name) == value


@pytest.mark.parametrize(
    ("on_cpu", "given", "wanted"),
    [(True, None, None), (False, None, {"non_blocking": True}), (False, {"split_batches": False}, None)],
)
def test_copies_to_an_accelerator_do_not_wait(monkeypatch, tmp_path, on_cpu, given, wanted):
    monkeypatch.setattr("torch.accelerator.is_available", lambda: not on_cpu)
    monkeypatch.setattr("transformers.TrainingArguments.__post_init__", lambda self: None)
    monkeypatch.setattr(TACleanerConfig, "n_gpu", 0)
    args = TACleanerConfig(str(tmp_path), dataloader_pin_memory=True, accelerator_config=given)
    assert args.accelerator_config == (wanted if given is None else given)


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
    assert args.weights == {"clip": 1, "inmodal": 1, "subtext": 0.5, "repel": 0, "distill": 0}


@pytest.mark.parametrize("method", METHODS)
def test_lora_leaves_the_temperature_alone(config, method):
    assert config(method=method, use_peft=True).train_logit_scale is False
