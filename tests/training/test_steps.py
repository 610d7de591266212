"""Steps of the demo and the benchmarks: run once, run again when the command changes, never over foreign files."""

from __future__ import annotations

import pytest
import torch

from hf_ta_cleaner.commands.parser import begin_step, fast_precision
from hf_ta_cleaner.training.config import TACleanerConfig


def test_a_finished_step_is_not_repeated(tmp_path):
    folder = tmp_path / "step"
    assert begin_step(folder, ["clean.py", "--seed", "0"], "report.json")
    (folder / "report.json").write_text("{}")
    assert not begin_step(folder, ["clean.py", "--seed", "0"], "report.json")


@pytest.mark.parametrize("change", ["command", "unfinished"])
def test_an_outdated_or_unfinished_step_starts_clean(tmp_path, change):
    folder = tmp_path / "step"
    begin_step(folder, ["clean.py", "--seed", "0"], "report.json")
    (folder / "half").write_text("")
    if change == "command":
        (folder / "report.json").write_text("{}")
    seed = "1" if change == "command" else "0"
    assert begin_step(folder, ["clean.py", "--seed", seed], "report.json")
    assert not (folder / "half").exists() and not (folder / "report.json").exists()


def test_foreign_files_are_refused_and_kept(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match="was not made by this program"):
        begin_step(tmp_path, ["clean.py"], "report.json")
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_bf16_follows_the_processor(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for able, flags in (({"amx_bf16": True}, ["--bf16"]), ({"avx512_bf16": True}, []), ({"avx2": True}, [])):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda able=able: able)
        assert fast_precision() == flags


@pytest.mark.skipif(torch.accelerator.is_available(), reason="about machines without an accelerator")
def test_bf16_is_accepted_without_an_accelerator(tmp_path):
    args = TACleanerConfig(str(tmp_path), bf16=True)
    assert args.bf16 and args.device.type == "cpu"


def test_bf16_training_moves_fp32_weights(make_trainer):
    trainer = make_trainer(bf16=True, max_steps=2, learning_rate=1e-3, warmup_steps=0)
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    trainer.train()
    assert trainer.model.config._attn_implementation == "eager"
    for parameter in trainer.model.parameters():
        assert parameter.dtype == torch.float32
        assert torch.isfinite(parameter).all()
    assert not torch.equal(before["visual_projection.weight"], trainer.model.visual_projection.weight)
