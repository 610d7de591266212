"""Results as HTML."""

from __future__ import annotations

import re

import batch as batches
import live
import probe
import views

from hf_ta_cleaner import ATTACKS
from tests.space.helpers import ROWS, noise


def test_triggers_are_told_in_a_line():
    assert set(views.ABOUT) <= set(ATTACKS)
    assert all(len(line) <= 44 for line in views.ABOUT.values())  # a phone's width
    assert views.about("nope") == "Trigger nope."


def test_texts_from_outside_are_escaped_and_cut():
    evil = "<img src=x onerror=alert(1)>"
    top = {(who, view): [(evil, 0.9), ("x" * 500, 0.1)] for who in probe.WHO for view in probe.VIEWS}
    pixels = dict.fromkeys(probe.VIEWS, noise(8, 8))
    html = views.answers(probe.Answers(pixels, top, (evil,)), evil) + views.message(evil, "error")
    html += views.batch_result(batches.rates(ROWS, ("dog", "cat", "banana"), "banana"), 4, evil, evil)
    html += views.thumbnails([(evil, noise(8, 8))])
    assert "<img src=x" not in html and "x" * 100 not in html
    assert all(re.search(r'alt="', tag) for tag in re.findall(r"<img [^>]*>", html))


def test_the_verdict_tells_flip_from_no_flip():
    said = {("suspect", "clean"): "dog", ("suspect", "triggered"): "banana"}
    said |= {("cleaned", "clean"): "dog", ("cleaned", "triggered"): "dog"}
    result = probe.Answers({}, {key: [(text, 0.9)] for key, text in said.items()})
    html = views.verdict(result)
    assert 'data-suspect="flipped"' in html and 'data-cleaned="same"' in html
    assert "turns the suspect model’s answer from <b>dog</b> to <b>banana</b>" in html
    assert "The cleaned model stays with <b>dog</b>." in html
    assert "poisoned with" not in views.verdict(result, "badnet")  # it did flip, whatever it was poisoned with
    result = probe.Answers({}, {key: [("dog", 0.9)] for key in said})
    assert "Both models stay with <b>dog</b>." in views.verdict(result)
    assert "The suspect was poisoned with badnet; other triggers" in views.verdict(result, "badnet")


def test_the_curves_say_in_words_what_they_draw():
    points = [live.Point(0, None, 0.9, 0.7), live.Point(1, 2.0), live.Point(2, 1.0, 0.25, 0.75)]
    html = views.curves(points, 4, "Cleaning.")
    assert "attack success 25.0%, accuracy 75.0%" in html and "loss 1.00" in html
    assert 'value="2"' in html and html.count("<polyline") == 3
    assert views.curves([], 4, "Starting.").count("<polyline") == 0
