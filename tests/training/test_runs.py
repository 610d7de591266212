"""A run remembers its settings and its time across an interruption."""

from __future__ import annotations

import json
import time

import pytest

from hf_ta_cleaner.training.runs import RUN, RunLog


def begin(folder, settings, **options) -> RunLog:
    log = RunLog(folder, settings, **options)
    log.on_train_begin(None, None, None)
    return log


def test_time_adds_up_over_the_parts_of_a_run(tmp_path):
    first = begin(tmp_path, {"seed": 1})
    time.sleep(0.05)
    first.on_save(None, None, None)
    saved = json.loads((tmp_path / RUN).read_text())["seconds"]
    assert 0.05 <= saved <= first.seconds
    second = begin(tmp_path, {"seed": 1}, resume=True)
    assert saved <= second.seconds < saved + 1
    assert begin(tmp_path, {"seed": 1}).seconds < 0.05  # a new run begins at nothing


@pytest.mark.parametrize(
    ("then", "now", "told"),
    [
        ({"learning_rate": 1e-5}, {"learning_rate": 1e-4}, "learning_rate: 1e-05 then, 0.0001 now"),
        ({}, {"method": "ft"}, "method: default then, ft now"),
        ({"max_samples": 5}, {}, "max_samples: 5 then, default now"),
    ],
)
def test_a_run_is_not_continued_with_other_settings(tmp_path, then, now, told):
    begin(tmp_path, then)
    before = (tmp_path / RUN).read_text()
    with pytest.raises(ValueError, match=r"began with other settings") as raised:
        RunLog(tmp_path, now, resume=True)
    assert told in str(raised.value) and "--output_dir" in str(raised.value)
    assert (tmp_path / RUN).read_text() == before


def test_what_changes_no_weight_may_change(tmp_path):
    begin(tmp_path, {"seed": 1, "logging_steps": 5, "output_dir": "a"})
    RunLog(tmp_path, {"seed": 1, "logging_steps": 9, "output_dir": "b", "resume": True}, resume=True)


def test_only_the_main_process_writes_and_nothing_before_the_first_step(tmp_path):
    RunLog(tmp_path, {"seed": 1})
    assert list(tmp_path.iterdir()) == []
    begin(tmp_path, {"seed": 1}, write=False).on_save(None, None, None)
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_began_under_an_earlier_name_is_continued(tmp_path):
    begin(tmp_path, {"old_name": 3.0, "seed": 1})
    RunLog(tmp_path, {"new_name": 3.0, "seed": 1}, resume=True, renamed={"old_name": "new_name"})
    with pytest.raises(ValueError, match=r"new_name: 3.0 then, 4.0 now"):
        RunLog(tmp_path, {"new_name": 4.0, "seed": 1}, resume=True, renamed={"old_name": "new_name"})
