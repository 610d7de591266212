"""The short cleaning in the Space, and the audit of a pair without a report."""

from __future__ import annotations

import re

import live
import probe
import pytest
import torch
import views
from inputs import ProbeError


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(live, "PAIRS", 64)
    monkeypatch.setattr(live, "PICTURES", 12)
    cached = live.cleaning_pairs
    cached.cache_clear()
    yield
    cached.cache_clear()


def test_a_cleaning_shows_its_curves_and_leaves_the_suspect_alone(pair, small, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = {name: tensor.clone() for name, tensor in pair.suspect.model.state_dict().items()}
    run = live.Cleaning(pair, pair.trigger(), "banana", method="ta-cleaner", steps=3)
    points = list(run.points())
    losses = [(p.step, p.loss) for p in points if p.loss is not None]
    measured = [(p.step, p.asr, p.accuracy) for p in points if p.asr is not None]
    assert [step for step, _ in losses] == [1, 2, 3] and all(loss > 0 for _, loss in losses)
    assert [step for step, *_ in measured] == [0, 1, 2, 3]
    assert all(0 <= rate <= 1 for _, *rates in measured for rate in rates)
    assert all(torch.equal(before[name], tensor) for name, tensor in pair.suspect.model.state_dict().items())
    assert not list(tmp_path.glob("cleaning-*"))


def test_a_cleaning_stops_when_told_and_when_nobody_listens(pair, small):
    run = live.Cleaning(pair, pair.trigger(), "banana", method="ft", steps=100)
    points = []
    for point in run.points():
        points.append(point)
        if point.step >= 1:
            run.stop()
    assert run.stopped and points[-1].step < 100 and not run._thread.is_alive()
    run = live.Cleaning(pair, pair.trigger(), "banana", method="ft", steps=100)
    listening = run.points()
    next(listening)
    listening.close()
    assert not run._thread.is_alive()


def test_what_goes_wrong_in_a_cleaning_reaches_the_reader(pair, small, monkeypatch):
    monkeypatch.setattr(live, "cleaning_pairs", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        list(live.Cleaning(pair, pair.trigger(), "banana", method="ft", steps=2).points())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"method": "magic"}, "one of ta-cleaner"),
        ({"steps": 1000}, "1 to 150 steps"),
        ({"target": "zebra"}, "such as banana"),
    ],
)
def test_a_cleaning_refuses_nonsense(pair, changes, words):
    options = {"target": "banana", "method": "ft", "steps": 2} | changes
    with pytest.raises(ProbeError, match=words):
        live.Cleaning(pair, pair.trigger(), **options)


def test_a_pair_without_a_report_can_be_measured(pair):
    found = live.audit_pair(pair, pair.trigger(), "banana", n=48)
    assert found.before["attacks"]["blended"]["asr"] == found.after["attacks"]["blended"]["asr"]  # the same weights
    assert found.ca_loss["value"] == 0 and found.before["clean_accuracy"]["n"] == 48
    html = views.report(found)
    assert html.count('class="hc-rate"') == 4 and "Attack success of blended" in html
    assert re.search(
        r"The cleaning loses 0\.0 points \[-?\d\.\d, \d\.\d\] of clean accuracy against the suspect", html
    )
    # Seven rows of ranks, three of the target class, each with its head.
    assert html.count("<tr>") == 7 + 3 and "never-poisoned" not in html
    entry = found.before["attacks"]["blended"]
    entry["reference_asr"] = entry["floor"]
    assert views.report(found).count("<tr>") == 8 + 3 and "blended: ASR, never-poisoned" in views.report(found)
    stranger = probe.Pair(**{**vars(pair), "is_sandbox": False})
    with pytest.raises(ProbeError, match="came without a report"):
        live.audit_pair(stranger, pair.trigger(), "banana")
    with pytest.raises(ProbeError, match="Only models of the sandbox"):
        live.Cleaning(stranger, pair.trigger(), "banana", method="ft", steps=2)
