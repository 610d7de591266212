"""`clean` at other strengths and with adapters."""

from __future__ import annotations

import sys

import pytest
import yaml

from hf_ta_cleaner.publishing.report import Report
from tests.commands.helpers import cleaning, script


def test_strength_auto(world, capsys):
    """The report says what was chosen and what the search cost; only the chosen weights stay."""
    from transformers import CLIPModel

    search = ["--strength", "auto", "--utility_budget", 100, "--validation_samples", 1]
    script("clean").main(cleaning(world, "--method", "par", *search, "--logging_steps", 1))
    report = Report.load(world.out)
    # Nothing can cost more than 100 points: the ladder is climbed to its top.
    assert report.cost["strength"] == 8 and report.cost["search_runs"] == 3
    assert report.settings["repel_weight"] == 8 and report.history["loss/repel"]["step"]
    assert (report.cost["pairs_seen"], report.cost["search_pairs_seen"]) == (16, 48)
    assert any("--strength auto" in note and "3 runs" in note for note in report.notes)
    assert not list(world.out.glob("strength-*")) and (world.out / "strength.json").is_file()
    assert CLIPModel.from_pretrained(world.out)
    assert "strength 8" in capsys.readouterr().err
    # The runs found there are of these settings; others would be told in the report as if they had been searched.
    with pytest.raises(SystemExit):
        script("clean").main(cleaning(world, "--method", "ft", *search, "--resume"))
    assert "began with other settings" in capsys.readouterr().err


def test_strength_multiplies(world):
    script("clean").main(cleaning(world, "--method", "ft", "--strength", 3, "--learning_rate", 1e-4))
    report = Report.load(world.out)
    assert report.cost["strength"] == 3 and any("strength 3" in note for note in report.notes)
    config = yaml.safe_load(
        (world.out / "config.yaml").read_text()
    )  # repeats this run, so the rate is not tripled again
    assert config["learning_rate"] == pytest.approx(3e-4) and "strength" not in config


@pytest.mark.parametrize("merged", [False, True])
def test_lora_from_the_command_line(world, merged):
    from peft import PeftModel
    from transformers import CLIPModel

    flags = ["--method", "ta-cleaner-plus", "--use_peft", "--learning_rate", "1e-2"]
    script("clean").main(cleaning(world, *flags, *(["--merge_adapter"] if merged else [])))
    assert any("LoRA adapters of rank 16" in note for note in Report.load(world.out).notes)
    assert (world.out / "model.safetensors").exists() == merged
    assert (world.out / "adapter_model.safetensors").exists() != merged
    if merged:
        assert CLIPModel.from_pretrained(world.out)
    else:
        model = PeftModel.from_pretrained(CLIPModel.from_pretrained(world.model), world.out)
        assert any("lora_A" in name for name, _ in model.named_parameters())


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--strength", "much"], "--strength must be a positive number or auto, got much"),
        (["--strength", "0"], "strength must be a positive number or auto, got 0"),
        (["--strength", "auto", "--validation_samples", "0"], "--strength auto measures on held-out pairs"),
        (["--strength", "auto", "--max_samples", "16"], "--strength auto measures on held-out pairs"),
        (
            ["--strength", "auto", "--hub_strategy", "every_save"],
            "leave it out with --use_peft",
        ),
        (["--use_peft", "--push_to_hub"], "add --merge_adapter to --use_peft"),
        (["--merge_adapter"], "--merge_adapter merges the adapters of --use_peft"),
    ],
)
def test_strengths_and_adapters_that_cannot_be(world, capsys, flags, said):
    with pytest.raises(SystemExit) as stop:
        script("clean").main(cleaning(world, *flags))
    assert stop.value.code == 2
    assert said in capsys.readouterr().err


def test_adapters_without_peft_are_told_how_to_get_it(world, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(SystemExit) as stop:
        script("clean").main(cleaning(world, "--use_peft"))
    assert stop.value.code == 2
    assert "pip install 'hf-ta-cleaner[peft]'" in capsys.readouterr().err
