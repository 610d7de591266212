"""The bigger world's commands are ones that the scripts take, and its page says what was found."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest

from benchmarks.bigger import __main__ as bigger
from hf_ta_cleaner.training.config import METHODS


def test_every_command_is_understood(tmp_path):
    stages = bigger.plan(bigger.FULL, tmp_path, seed=3)
    steps = [step for stage in stages for chain in stage for step in chain]
    assert len({step.folder for step in steps}) == len(steps) == 3 + 3 + 2 + 2 * len(METHODS)
    for step in steps:
        name = Path(step.command[0]).stem
        assert Path(step.command[0]).is_file()
        if name in ("pretrain_sandbox", "draw"):
            continue
        parser = importlib.import_module(f"hf_ta_cleaner.commands.{name}").make_parser()
        *_, last = parser.parse(list(step.command[1:]))
        assert parser.settings["seed"] == 3 and str(step.folder) == str(parser.settings["output_dir"]), last


def test_a_cleaning_waits_for_what_it_cleans(tmp_path):
    """What a step is made of is part of its mark: other pretraining makes everything anew."""
    (first, *_), (_, *_), (badclip, blended) = bigger.plan(bigger.FULL, tmp_path, seed=0)
    assert all(set(first[0].command) <= set(step.mark) for step in badclip + blended)
    assert all(set(badclip[2].command) <= set(step.mark) for step in badclip[3:])
    assert not any("badclip" in word for step in blended for word in step.mark)


def section(asr: float) -> dict:
    tops = {"top1": asr, "top10": min(1.0, asr + 0.1)}
    entry = {"asr": tops, "floor": {"top1": 0.01, "top10": 0.1}, "n": 90}
    return {"clean_accuracy": {"top1": 0.75}, "attacks": {"badnet": entry}}


def test_the_page_by_hand(tmp_path):
    for attack in bigger.ATTACKS:
        for i, method in enumerate(METHODS):
            report = {"before": section(0.9), "after": section(0.1 * i), "cost": {"seconds": 12.3}}
            (tmp_path / f"{attack}-{method}").mkdir()
            (tmp_path / f"{attack}-{method}" / "report.json").write_text(json.dumps(report))
    bigger.write(tmp_path, tmp_path / "results", bigger.QUICK, 0, 99.6)
    text = (tmp_path / "results" / "bigger.md").read_text()
    assert "| badclip | none | 75.0 | 90.0 | 100.0 | 1.0 | 90 |  |" in text
    assert "| blended | ta-cleaner | 75.0 | 20.0 | 30.0 | 1.0 | 90 | 12 |" in text
    result = json.loads((tmp_path / "results" / "bigger.json").read_text())
    assert text == bigger.page(result) and result["seconds_in_all"] == 100 and len(result["rows"]) == 12


def test_the_plan_runs_nothing(tmp_path, capsys):
    bigger.main(["--plan", "--output_dir", str(tmp_path / "out")])
    assert "--shape vit-s-16" in capsys.readouterr().out and not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_whole_road_in_small(tmp_path):
    bigger.main(["--quick", "--output_dir", str(tmp_path / "out"), "--results_dir", str(tmp_path / "results")])
    assert len(json.loads((tmp_path / "results" / "bigger.json").read_text())["rows"]) == 12
