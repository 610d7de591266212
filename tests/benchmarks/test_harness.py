"""The harness: steps that run once, in order, side by side; tables; blocks of a text."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from benchmarks.harness import steps as steps_module
from benchmarks.harness.steps import Runner, Step, chain, following, unique
from benchmarks.harness.tables import paired, percent, replace_block, table


def test_a_failing_step_names_its_log_and_the_others_go_on(tmp_path, monkeypatch, capsys):
    def run_command(command, stdout, **kwargs):
        folder = Path(command[-1])
        if "bad" in folder.name:
            return type("Done", (), {"returncode": 1})
        (folder / "done").write_text("")
        return type("Done", (), {"returncode": 0})

    monkeypatch.setattr(steps_module.subprocess, "run", run_command)
    steps = [Step(("clean.py", str(tmp_path / name)), "done", 1.0) for name in ("good", "bad", "fine")]
    with pytest.raises(SystemExit, match=r"bad failed; its output is in .*bad\.log"):
        Runner(1).run_all([[step] for step in steps])
    assert [step.is_done for step in steps] == [True, False, True]


def test_steps_run_once_when_what_they_need_is_done_and_side_by_side(tmp_path, monkeypatch):
    began, both = [], threading.Barrier(2, timeout=30)

    def run_command(command, **kwargs):
        folder = Path(command[-1])
        began.append(folder.name)
        if folder.name in ("ft", "par"):
            both.wait()  # passed by two at a time only
        (folder / "done").write_text("")
        return type("Done", (), {"returncode": int(folder.name == "poor")})

    monkeypatch.setattr(steps_module.subprocess, "run", run_command)
    names = ("suspect", "ft", "par", "poor", "behind it")
    suspect, ft, par, poor, behind = (Step(("clean.py", str(tmp_path / name)), "done", 1.0) for name in names)
    with pytest.raises(SystemExit, match="poor failed"):
        Runner(2).run_all([(suspect, ft), (suspect, par), (poor, behind)])
    assert sorted(began) == ["ft", "par", "poor", "suspect"]
    assert began.index("suspect") < min(began.index("ft"), began.index("par"))


def test_a_step_is_known_by_its_command_its_configuration_and_what_it_depends_on(tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text("learning_rate: 1")
    step = Step(("clean.py", "--config", str(config), str(tmp_path / "out")), "report.json", mark=("suspect",))
    before = step.identity
    assert before == ["suspect", "clean.py", "--config", str(config), str(tmp_path / "out"), "learning_rate: 1"]
    config.write_text("learning_rate: 2")
    assert step.identity != before


def test_chains_depend_on_what_went_before():
    one, two = following(Step(("a", "x"), "done"), Step(("b", "y"), "done"))
    assert one.mark == () and two.mark == ("a", "x")
    first, second = chain(("preset",), (("a", "x"), "done"), (("b", "y"), "done"))
    assert first.mark == ("preset",) and second.mark == ("preset", "a", "x")
    assert unique([(one, two), (one,)]) == [one, two]


def test_tables_and_blocks():
    assert table(["name", "rate"], [["a", "1.0"]], left={"name"}) == "| name | rate |\n| --- | ---: |\n| a | 1.0 |"
    assert percent(0.1234) == "12.3" and percent(None) == "" and percent(-0.0001) == "0.0"
    middle, (low, high) = paired([0.3, 0.5, 0.4], [0.1, 0.2, 0.3])
    assert middle == pytest.approx(0.2) and (low, high) == (
        pytest.approx(-0.0484, abs=1e-3),
        pytest.approx(0.4484, abs=1e-3),
    )
    assert paired([0.3], [0.1]) == (pytest.approx(0.2), None)
    text = "a\n<!-- x:begin -->\nold\n<!-- x:end -->\nb\n"
    assert replace_block(text, "x", "new") == "a\n<!-- x:begin -->\nnew\n<!-- x:end -->\nb\n"
    with pytest.raises(ValueError, match="<!-- y:begin -->"):
        replace_block(text, "y", "new")
