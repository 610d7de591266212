"""Interrupted and finished runs of `clean` that are resumed."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hf_ta_cleaner.publishing.report import Report
from tests.commands.helpers import SCRIPTS, cleaning, script, weights


def long_run(world, out: Path, *more: object) -> list[str]:
    return cleaning(
        world, "--max_steps", 40, "--save_strategy", "steps", "--save_steps", 5, "--learning_rate", "1e-3",
        "--validation_samples", 2, "--logging_steps", 5, *more, out=out,
    )  # fmt: skip


def interrupt(world, out: Path, how: signal.Signals, at: int, *more: object) -> tuple[int, str]:
    """Starts clean.py in a process of its own and sends it a signal once `checkpoint-<at>` is there."""
    command = [sys.executable, str(SCRIPTS / "clean.py"), *long_run(world, out, *more)]
    cache_dir = str(world.out.parent / ".cache")
    env = {**os.environ, "HF_DATASETS_CACHE": cache_dir, "PYTHONPATH": str(SCRIPTS.parent)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    # A shell lets what it starts in the background ignore Ctrl-C, and that is inherited.
    listening = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(command, env=env, preexec_fn=listening, **pipes) as process:
        deadline = time.monotonic() + 120
        while not (out / f"checkpoint-{at}" / "trainer_state.json").exists():
            assert process.poll() is None, process.stdout.read()
            assert time.monotonic() < deadline, "no checkpoint was written"
            time.sleep(0.01)
        process.send_signal(how)
        said, _ = process.communicate(timeout=60)
    return process.returncode, said


def test_an_interrupted_run_resumes_to_the_same_weights(world, tmp_path, capsys):
    """Ctrl-C, then kill -9 in the middle of a save, then to the end: as if nothing had happened."""
    import torch

    whole, broken = tmp_path / "whole", tmp_path / "broken"
    script("clean").main(long_run(world, whole))

    code, said = interrupt(world, broken, signal.SIGINT, 10)
    assert code == 130
    assert "Traceback" not in said
    assert any(line.startswith("error: interrupted") and "--resume" in line for line in said.splitlines())

    code, _ = interrupt(world, broken, signal.SIGKILL, 20, "--resume")
    assert code == -signal.SIGKILL
    assert not (broken / "report.json").exists()
    half = broken / "checkpoint-999"  # as it looks when the kill comes before all of its files are written
    half.mkdir()
    (half / "model.safetensors").write_bytes(b"half")

    capsys.readouterr()
    script("clean").main(long_run(world, broken, "--resume"))
    assert capsys.readouterr().out.count("'loss':") <= 4  # of 8 lines: it did not start anew
    expected, found = weights(whole), weights(broken)
    assert expected.keys() == found.keys()
    assert all(torch.equal(found[name], weight) for name, weight in expected.items())
    first, second = Report.load(whole), Report.load(broken)
    assert first.retrieval == second.retrieval
    assert first.cost["pairs_seen"] == second.cost["pairs_seen"] == 40 * 8


def test_resume_without_a_checkpoint_starts_anew(world, capsys):
    script("clean").main(cleaning(world, "--resume", "--method", "ft"))
    assert "no checkpoint to resume from" in capsys.readouterr().err
    assert Report.load(world.out).cost["pairs_seen"] == 16


@pytest.mark.parametrize("keep", ["last", "best"])
def test_resuming_a_finished_run_trains_no_step_more(world, keep):
    """The report of a run that was cut off in its last audit is made, and no weight moves."""
    line = cleaning(world, "--learning_rate", "1e-3", "--save_strategy", "steps", "--save_steps", 1, "--keep", keep)
    line += ["--eval_dataset", str(world.labelled), "--trigger", "blended", "--target", "banana"]
    script("clean").main(line)
    before, report = weights(world.out), Report.load(world.out)
    for name in ("report.json", "report.md", "report.html", "report.png", "model.safetensors"):
        (world.out / name).unlink()
    script("clean").main([*line, "--resume"])
    after, again = weights(world.out), Report.load(world.out)
    assert all((after[name] == weight).all() for name, weight in before.items())
    assert again.cost["pairs_seen"] == report.cost["pairs_seen"] == 16 and again.after == report.after
    assert sorted(p.name for p in world.out.glob("checkpoint-*")) == ["checkpoint-1", "checkpoint-2"]


def test_a_run_of_an_earlier_version_resumes_under_its_own_flags(world):
    """`run.json` has the earlier name of a setting; the command line may give the earlier name or the name now."""
    line = cleaning(world, "--validation_samples", 0, "--save_strategy", "steps", "--save_steps", 1)
    script("clean").main([*line, "--method", "ft", "--image_structured_noise", "0.5"])
    run = json.loads((world.out / "run.json").read_text())
    run["settings"]["image_disturb"] = run["settings"].pop("image_structured_noise")
    before = weights(world.out)
    for name in ("image_disturb", "image_structured_noise"):
        (world.out / "run.json").write_text(json.dumps(run))
        (world.out / "model.safetensors").unlink()
        script("clean").main([*line, "--method", "ft", f"--{name}", "0.5", "--resume"])
        assert all((weights(world.out)[key] == value).all() for key, value in before.items())
