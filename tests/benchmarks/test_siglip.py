"""The SigLIP of the sandbox: what it is made of, and how its table is read off the reports."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import siglip
from hf_ta_cleaner import sandbox
from hf_ta_cleaner.models.checkpoints import load_model, save_model
from hf_ta_cleaner.models.families import family_of
from hf_ta_cleaner.models.zero_shot import image_features, input_geometry, text_features


def test_it_is_an_ordinary_siglip_with_the_sandboxs_blocks(tmp_path):
    save_model(*siglip.build(), tmp_path)
    model, processor = load_model(tmp_path)
    clip, its = load_model("sandbox")
    assert family_of(model).model_type == "siglip" and input_geometry(processor) == "squash"
    name = "vision_model.encoder.layers.0.self_attn.q_proj.weight"
    assert torch.equal(model.state_dict()[name], clip.state_dict()[name])
    text = sandbox.caption(sandbox.pair_scene("clean", 0))
    assert processor.tokenizer(text)["input_ids"] == its.tokenizer(text)["input_ids"]
    assert text_features(model, processor, [text]).shape == (1, 128)


def test_every_command_of_it_can_be_parsed():
    made, cells = siglip.plan(Path("out"))
    for step in (*made[1:], *cells):
        script, *flags = step.command
        command = importlib.import_module(f"hf_ta_cleaner.commands.{Path(script).stem}")
        command.make_parser().parse(flags)
    assert [step.folder.name for step in cells] == list(siglip.METHODS)


def test_the_table_is_what_the_reports_say():
    def section(asr: float, accuracy: float) -> dict:
        rates = {"asr": {"top1": asr, "top10": 0.5}, "interval95": {"asr_top1": [0.25, 0.75]}, "n": 2021}
        return {
            "clean_accuracy": {"top1": accuracy},
            "attacks": {"blended": {**rates, "reference_asr": {"top1": 0.125}}},
        }

    reports = {"ft": {"before": section(0.9, 0.8), "after": section(0.3, 0.7)}}
    last, before = (siglip.table(reports).strip().splitlines()[i] for i in (-1, -2))
    assert before == "| none | 90.0 [25.0, 75.0] | 50.0 | 12.5 | 80.0 |"
    assert last == "| ft | 30.0 [25.0, 75.0] | 50.0 | 12.5 | 70.0 |" and "2,021" in siglip.table(reports)


@pytest.mark.slow
def test_it_learns_to_see_as_the_sandboxs_clip_does(tmp_path, monkeypatch):
    """A hundred steps: pictures that it was not trained on lie where that CLIP puts them, nearly."""
    monkeypatch.setattr(siglip, "PAIRS", 4096)
    monkeypatch.setattr(siglip, "EPOCHS", 3)
    siglip.make(tmp_path)
    pictures = np.stack([np.asarray(image) for image in sandbox.labelled(96)["image"]])
    seen, known = (image_features(*load_model(name), pictures) for name in (tmp_path, "sandbox"))
    assert (seen * known).sum(1).mean() > 0.5
