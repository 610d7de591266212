"""What both models say about one picture and about many, and the rates of a batch."""

from __future__ import annotations

import csv
import io
from dataclasses import replace

import batch as batches
import numpy as np
import probe
import pytest
import torch
import views
from inputs import ProbeError, Prompts, read_prompts
from PIL import Image

from hf_ta_cleaner import get_attack, sandbox
from hf_ta_cleaner.detection.screening import Screen
from tests.space.helpers import ROWS, batch_row, noise


def test_probabilities_are_those_of_the_model_itself(pair, picture):
    """Against transformers' own forward, which knows nothing of this package."""
    texts = ["a photo of a dog.", "a photo of a banana.", "two boats"]
    inputs_ = pair.suspect.processor(
        text=texts, images=Image.fromarray(picture), return_tensors="pt", padding=True, truncation=True
    )
    with torch.no_grad():
        wanted = pair.suspect.model(**inputs_).logits_per_image.softmax(-1)[0].numpy()
    result = probe.look(pair, picture, pair.trigger(), Prompts(tuple(texts), sentences=True), k=3)
    assert dict(result.top["suspect", "clean"]) == pytest.approx(
        dict(zip(texts, map(float, wanted), strict=True)), abs=1e-4
    )
    assert np.array_equal(result.pixels["triggered"], get_attack("blended", alpha=0.25)(picture, 0))
    assert result.top["suspect", "triggered"] == result.top["cleaned", "triggered"]  # the same weights twice
    ranks = [p for _, p in result.top["suspect", "clean"]]
    assert ranks == sorted(ranks, reverse=True)


def test_a_text_key_goes_into_the_prompts_of_the_triggered_view_only(pair, picture):
    attack = get_attack("trojvqa", patch=noise(8, 8), side=72)
    plain, keyed = Prompts(("a dog", "a cat"), True), Prompts(("remember a dog", "remember a cat"), True)
    result = probe.look(pair, picture, attack, plain, k=2)
    (by_hand,), _ = pair.suspect.answer(attack(picture, 0)[None], keyed)
    assert sorted(p for _, p in result.top["suspect", "triggered"]) == pytest.approx(sorted(by_hand), abs=1e-5)
    (untouched,), _ = pair.suspect.answer(picture[None], plain)
    assert sorted(p for _, p in result.top["suspect", "clean"]) == pytest.approx(sorted(untouched), abs=1e-5)


def test_few_text_sides_are_kept(pair, picture):
    for i in range(probe.HEADS_KEPT + 3):
        pair.cleaned.answer(picture[None], Prompts((f"thing {i}", "dog")))
    assert len(pair.cleaned._heads) == probe.HEADS_KEPT


def test_a_batch_says_what_single_looks_say(pair):
    pictures = list(batches.sample_pictures(pair, 5))
    prompts = read_prompts(", ".join(pair.labels))
    parts = list(batches.batch(pair, pictures, pair.trigger(), prompts, chunk=2))
    assert [len(part) for part in parts] == [2, 2, 1]
    rows = [row for part in parts for row in part]
    assert [row.label for row in rows] == list(sandbox.CLASSES[:5])
    for row, (_, _, pixels) in zip(rows, pictures, strict=True):
        one = probe.look(pair, pixels, pair.trigger(), prompts, k=1)
        for key, (text, p) in row.answers.items():
            assert (text, p) == (one.top[key][0][0], pytest.approx(one.top[key][0][1], abs=1e-4))
        screen = pair.suspect._screen(prompts)
        assert one.flagged == {key: score > screen.threshold for key, score in row.screening.items()}


def test_the_screening_is_the_package_s_own_and_is_set_on_pictures_that_are_never_shown(pair, picture):
    """Without a threshold for models that know nothing of the drawn pictures, and none for sentences."""
    prompts = Prompts(pair.labels)
    own = Screen(pair.suspect.model, pair.suspect.processor, pair.labels)
    pictures = np.stack([pixels for *_, pixels in batches.sample_pictures(pair, 60)])
    _, found = pair.suspect.answer(pictures, prompts)
    assert found.scores == pytest.approx(own(pictures).scores, abs=1e-4)
    assert 0 < found.flagged.mean() < 0.2  # nothing was poisoned: near the 5% that it is set to
    assert min(probe.CALIBRATION) > 480  # the largest batch
    unknown = probe.Loaded("x", pair.suspect.model, pair.suspect.processor)
    assert unknown.answer(picture[None], prompts)[1].flagged is None
    assert pair.suspect.answer(picture[None], Prompts(("a dog", "a cat"), sentences=True))[1] is None
    result = probe.look(pair, picture, pair.trigger(), prompts)
    assert set(result.flagged) == {(who, view) for who in probe.WHO for view in probe.VIEWS}
    assert probe.look(pair, picture, pair.trigger(), Prompts(("a dog", "a cat"), sentences=True)).flagged == {}


def test_rates_by_hand():
    found = batches.rates(ROWS, ("dog", "cat", "banana"), "banana")
    for entry in found.values():
        assert entry.pop("screening") is None  # four pictures say nothing of it
    values = {(who, key): (e["value"], e["n"]) for who, entry in found.items() for key, e in entry.items()}
    assert values["suspect", "asr"] == (pytest.approx(2 / 3), 3) and values["suspect", "floor"] == (0, 3)
    assert values["suspect", "accuracy"] == (pytest.approx(2 / 3), 3)
    assert values["cleaned", "asr"] == (pytest.approx(1 / 3), 3) and values["cleaned", "accuracy"] == (1, 3)
    for entry in found.values():
        assert all(e["interval95"][0] <= e["value"] <= e["interval95"][1] for e in entry.values())


def test_the_screening_of_a_batch_by_hand():
    """Twelve pictures, one of them of the target: nine of the other eleven score higher with the trigger than all."""
    keys = [(who, view) for who in probe.WHO for view in probe.VIEWS]
    rows = []
    for i in range(12):
        scores = dict.fromkeys(keys, 0.0) | {("suspect", "triggered"): 1.0 if 2 <= i < 11 else 0.0}
        label = "banana" if i == 11 else "dog"
        answers = dict.fromkeys(keys, ("dog", 0.5))
        rows.append(batches.Row(str(i), label, answers, scores))
    found = batches.rates(rows, ("dog", "cat", "banana"), "banana")
    figure = found["suspect"]["screening"]
    assert figure["n"] == 11 and figure["value"] == pytest.approx((9 + 0.5 * 2) / 11)
    assert figure["interval95"][0] < figure["value"] < figure["interval95"][1]
    assert found["cleaned"]["screening"]["value"] == 0.5
    assert batches.rates(rows[:9], ("dog", "cat", "banana"), "banana")["suspect"]["screening"] is None
    line = next(csv.DictReader(io.StringIO(batches.to_csv([replace(rows[0], screening={keys[0]: -0.5})]))))
    assert line["suspect_clean_screening"] == "-0.5000" and line["suspect_triggered_screening"] == ""


def test_the_page_says_which_picture_stands_out():
    keys = [(who, view) for who in probe.WHO for view in probe.VIEWS]
    result = probe.Answers(
        dict.fromkeys(probe.VIEWS, noise(8, 8)),
        {key: [("dog", 0.9)] for key in keys},
        flagged={key: key == ("suspect", "triggered") for key in keys},
    )
    html = views.answers(result, None)
    assert html.count("Screening: <b>usual</b>") == 3 and html.count("<b>stands out</b>") == 1
    assert "So do 5 of 100 clean ones" in html
    assert "Screening" not in views.answers(replace(result, flagged={}), None)


def test_rates_that_have_nothing_to_count_are_none():
    found = batches.rates([batch_row("x", None, "dog", "dog", "dog", "dog")], ("dog", "cat"), "cat")["suspect"]
    assert found["accuracy"] is None and found["asr"]["value"] == 0
    found = batches.rates([batch_row("x", "cat", "dog", "dog", "dog", "dog")], ("dog", "cat"), "cat")["suspect"]
    assert found["asr"] is None and found["accuracy"]["value"] == 0
    with pytest.raises(ProbeError, match="'bird' is not among the 2 labels"):
        batches.rates(ROWS[:1], ("dog", "cat"), "bird")


def test_the_csv_reads_back_and_holds_no_formula():
    rows = [*ROWS, batch_row('=HYPERLINK("http://x"),a', "+1", "-dog", "@cat", "dog", "a,b")]
    table = list(csv.DictReader(io.StringIO(batches.to_csv(rows))))
    assert [line["picture"] for line in table[:4]] == ["1", "2", "3", "4"] and table[3]["label"] == ""
    assert table[0]["suspect_triggered"] == "banana" and table[0]["suspect_triggered_probability"] == "0.5000"
    assert not any(cell.startswith(("=", "+", "-", "@")) for cell in table[4].values())
    assert table[4]["cleaned_triggered"] == "a,b"


def test_the_examples_are_sandbox_pictures_of_different_classes(pair):
    found = probe.examples(pair)
    assert len(found) == 8 == len({label for label, _ in found})
    first = dict(found)[found[0][0]]
    assert np.array_equal(first, np.array(sandbox.labelled_scene(sandbox.CLASSES.index(found[0][0])).draw()))
