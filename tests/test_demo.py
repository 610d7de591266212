"""The demo: its command lines, and two trainings side by side."""

from __future__ import annotations

import importlib
import importlib.util
import subprocess
import time
from pathlib import Path

import pytest


ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def demo():
    spec = importlib.util.spec_from_file_location("demo_script", ROOT / "scripts" / "demo.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_command_is_accepted_and_its_input_was_made_before(demo, tmp_path):
    made = []
    for _, *commands in demo.story(tmp_path, "blended"):
        for command in commands:
            parser = importlib.import_module(f"hf_ta_cleaner.commands.{Path(command[0]).stem}").make_parser()
            parsed = parser.parse(command[1:])
            assert any(str(getattr(part, "output_dir", "")) == command[-1] for part in parsed)
            assert all(word in made for word in command[1:-1] if word.startswith(str(tmp_path)))
        made += [command[-1] for command in commands]
    models = ["poisoned", "backdoored", "ft", "never-poisoned-ft", "cleaned"]
    assert [Path(folder).name for folder in made] == [*models, "scan-backdoored", "scan-cleaned"]


def test_a_step_is_known_by_what_its_configuration_says(demo, tmp_path):
    config = tmp_path / "some.yaml"
    config.write_text("learning_rate: 1.0e-4\n")
    command = ["clean.py", "--config", str(config), "--output_dir", str(tmp_path / "out")]
    assert demo.begin(command)
    (tmp_path / "out" / "report.json").write_text("{}")
    assert not demo.begin(command)
    config.write_text("learning_rate: 2.0e-4\n")
    assert demo.begin(command)


def test_the_steps_of_a_training_are_read_off_its_log(demo, tmp_path):
    log = tmp_path / "log"
    log.write_text(
        "Map: 100%|##| 10000/10000 [00:03<00:00, 3000.00 examples/s]\n before: 100%|##| 9/9 [00:01<00:00, 8.00it/s]\n"
        "  0%|  | 0/312 [00:00<?, ?it/s]\r  1%|  | 4/312 [00:02<02:34, 2.00it/s]\r"
        "  2%|  | 5/312 [00:03<05:34, 1.09s/it]"
    )
    assert demo.training_steps(log) == (5, 312)
    log.write_text("nothing yet")
    assert demo.training_steps(log) == (0, 0)


def test_side_by_side(demo, tmp_path, monkeypatch, capsys):
    """Both run, each with its log; one that fails stops the other, and the demo with what it said."""
    monkeypatch.setattr(demo, "SCRIPTS", tmp_path)
    monkeypatch.setattr(demo, "fast_precision", list)
    (tmp_path / "good.py").write_text("print('it/s said')")
    (tmp_path / "slow.py").write_text("import time; time.sleep(60)")
    (tmp_path / "bad.py").write_text("raise SystemExit('no such dataset')")
    demo.run_side_by_side([["good.py", "--output_dir", str(tmp_path / name)] for name in "ab"])
    assert (tmp_path / "a.log").read_text() == (tmp_path / "b.log").read_text() == "it/s said\n"
    started = time.monotonic()
    with pytest.raises(SystemExit):
        demo.run_side_by_side([[f"{name}.py", "--output_dir", str(tmp_path / name)] for name in ("slow", "bad")])
    assert time.monotonic() - started < 30
    assert "no such dataset" in capsys.readouterr().err


def test_a_verdict_is_no_failure(demo, tmp_path, monkeypatch):
    """A scan tells its verdict by the exit code: 3 is suspicious. 2 is a wrong input, and stops the demo."""
    for name, code in (("suspicious", 3), ("wrong", 2)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "scan.py").write_text(f"raise SystemExit({code})")
    monkeypatch.setattr(demo, "SCRIPTS", tmp_path / "suspicious")
    demo.run(["scan.py", "--output_dir", str(tmp_path / "out")])
    demo.run_side_by_side([["scan.py", "--output_dir", str(tmp_path / name)] for name in "xy"])
    monkeypatch.setattr(demo, "SCRIPTS", tmp_path / "wrong")
    with pytest.raises(subprocess.CalledProcessError):
        demo.run(["scan.py", "--output_dir", str(tmp_path / "out")])
    with pytest.raises(SystemExit):
        demo.run_side_by_side([["scan.py", "--output_dir", str(tmp_path / name)] for name in "xy"])
