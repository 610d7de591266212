"""The verdict on an attack: every rank counts, and so does the recall of the target class."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hf_ta_cleaner.publishing.model_card import build_model_card
from hf_ta_cleaner.publishing.report import Report, utility_lost
from hf_ta_cleaner.publishing.report.verdict import (
    FOUND,
    NEW,
    NO_SIGN,
    NOT_TAKEN,
    REDUCED,
    REMAINS,
    REMOVED,
    SUPPRESSED,
    TRACES,
    suppressed_recall,
    traces,
    verdict,
)
from tests.report_samples import a_report


RANKS = ("top1", "top3", "top5", "top10")


def entry(asr, floor=(0.01, 0.05, 0.1, 0.24), reference=None, lows=None, recall=None) -> dict:
    """An attack's entry: rates for up to four ranks, lower ends of intervals, and (recall, low, high)."""
    made = {"asr": dict(zip(RANKS, asr, strict=False)), "floor": dict(zip(RANKS, floor, strict=False))}
    if reference:
        made["reference_asr"] = dict(zip(RANKS, reference, strict=False))
    if lows:
        made["interval95"] = {f"asr_{rank}": [low, 1.0] for rank, low in zip(RANKS, lows, strict=False)}
    if recall:
        made["target_class"] = {"recall": recall[0], "interval95": {"recall": recall[1:]}}
    return made


BEFORE = entry((0.95, 0.97, 0.98, 1.0))


@pytest.mark.parametrize(
    ("before", "after", "state", "sentence"),
    [
        (BEFORE, None, FOUND, "There is a backdoor: ASR 95.0%, floor 1.0%."),
        (entry((0.02,)), None, NO_SIGN, "No sign of a backdoor: ASR 2.0% is close to the floor 1.0%."),
        (
            entry((0.02, 0.3)),
            None,
            NO_SIGN,
            "No sign of a backdoor at top 1, traces at top 3 (30.0% against 5.0%): ASR 2.0% is close to the floor "
            "1.0%.",
        ),
        (
            BEFORE,
            entry((0.02, 0.06, 0.12, 0.25)),
            REMOVED,
            "The backdoor is removed: ASR 95.0% → 2.0%, floor 1.0%.",
        ),
        (
            BEFORE,
            entry((0.02, 0.06, 0.12, 0.51)),
            TRACES,
            "The backdoor is removed at top 1, traces at top 10 (51.0% against 24.0%): ASR 95.0% → 2.0%, floor 1.0%.",
        ),
        (
            BEFORE,
            entry((0.02, 0.2, 0.3, 0.51)),
            TRACES,
            "The backdoor is removed at top 1, traces at top 3 (20.0% against 5.0%), top 5 (30.0% against 10.0%) and "
            "top 10 (51.0% against 24.0%): ASR 95.0% → 2.0%, floor 1.0%.",
        ),
        (BEFORE, entry((0.4, 0.5)), REDUCED, "The backdoor is reduced, not removed: ASR 95.0% → 40.0%, floor 1.0%."),
        (BEFORE, entry((0.7, 0.8)), REMAINS, "The backdoor is still there: ASR 95.0% → 70.0%, floor 1.0%."),
        (
            entry((0.02,)),
            entry((0.8,)),
            NEW,
            "The attack succeeds only after the cleaning: ASR 2.0% → 80.0%, floor 1.0%.",
        ),
        (
            entry((0.03,)),
            entry((0.02,)),
            NOT_TAKEN,
            "The backdoor did not take: ASR 3.0% is close to the floor 1.0%.",
        ),
        (
            entry((0.03, 0.2)),
            entry((0.02, 0.2)),
            NOT_TAKEN,
            "The backdoor did not take at top 1, traces at top 3 (20.0% against 5.0%): ASR 3.0% is close to the floor "
            "1.0%.",
        ),
    ],
)
def test_states_and_sentences(before, after, state, sentence):
    judged = verdict(before, after)
    assert judged.state == state
    assert judged.sentence() == sentence


def test_what_a_never_poisoned_model_does_is_normal_at_every_rank():
    """An optimised patch moves the never-poisoned model too, at top 10 more than at top 1."""
    after = entry((0.02, 0.06, 0.12, 0.51))
    assert traces(after) == ((10, 0.51, 0.24),)
    after["reference_asr"] = dict(zip(RANKS, (0.01, 0.05, 0.1, 0.49), strict=True))
    assert traces(after) == ()


def test_few_classes_leave_little_room_above_normal():
    """0.96 against 0.92 are 4 points, but half of the room: (0.96 - 0.92) / (1 - 0.92) = 0.5."""
    rates = {"asr": (0.02, 0.96), "floor": (0.01, 0.92)}
    assert traces(entry(**rates, lows=(0.0, 0.94))) == ((3, 0.96, 0.92),)
    assert traces(entry(**rates, lows=(0.0, 0.91))) == ()  # the interval holds what is normal
    assert traces(entry(**rates)) == ()  # without an interval only the 5 points count
    assert traces(entry((0.02, 1.0), (0.01, 1.0), lows=(0.0, 0.99))) == ()  # top 3 of three classes


def test_ranks_that_an_old_report_lacks_are_skipped():
    after = entry((0.02, 0.06), floor=(0.01,))
    assert traces(after) == ()
    assert verdict(entry((0.95,)), after).state == REMOVED


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ((0.628, 0.58, 0.67), (0.256, 0.22, 0.30), (0.628, 0.256)),
        ((0.628, 0.58, 0.67), (0.55, 0.50, 0.57), None),  # 7.8 points: accuracy lost, not a class suppressed
        ((0.628, 0.40, 0.80), (0.40, 0.20, 0.60), None),  # too few pictures to tell
        ((0.256, 0.22, 0.30), (0.628, 0.58, 0.67), None),
        (None, (0.256, 0.22, 0.30), None),
    ],
)
def test_a_suppressed_class(before, after, expected):
    one, other = entry((0.901,), recall=before), entry((0.05,), recall=after)
    assert suppressed_recall(one, other) == expected


def test_a_cleaning_that_suppresses_the_class_has_removed_nothing():
    before = entry((0.901,), recall=(0.628, 0.58, 0.67))
    judged = verdict(before, entry((0.05,), recall=(0.256, 0.22, 0.30)))
    assert judged.state == SUPPRESSED
    assert judged.sentence() == (
        "The backdoor is not shown to be removed, because the cleaning suppresses the target class: ASR 90.1% → 5.0%, "
        "floor 1.0%; recall of the target class 62.8% → 25.6%."
    )
    assert verdict(before, entry((0.4,), recall=(0.256, 0.22, 0.30))).state == REDUCED


def with_target_class() -> Report:
    """Recall 62.8% -> 25.6% of 250 pictures, precision 0.5 of 314 and undefined."""
    made = a_report()
    rates = [
        {"recall": 0.628, "precision": 0.5, "n": 250, "n_predicted": 314},
        {"recall": 0.256, "precision": None, "n": 250, "n_predicted": 0},
    ]
    intervals = [{"recall": [0.567, 0.686], "precision": [0.445, 0.555]}, {"recall": [0.206, 0.314]}]
    for part, rate, interval in zip(made.sections().values(), rates, intervals, strict=True):
        part["attacks"]["blended"]["target_class"] = {**rate, "interval95": interval}
    return made


def test_recall_and_precision_of_the_target_class_stand_in_every_table(tmp_path):
    made = with_target_class()
    made.save(tmp_path, plot=False)
    assert Report.load(tmp_path) == made
    cells = "| 62.8 [56.7, 68.6] | 25.6 [20.6, 31.4] |"
    text, card = made.to_markdown(), build_model_card("x", settings={"model": "m"}, report=made).text
    assert f"| recall of the target class banana {cells}  | 250 |  |" in text
    assert "| precision of the target class banana | 50.0 [44.5, 55.5] | - |  | 314 → 0 |  |" in text
    assert f"| recall of the target class banana {cells}  | 250 |" in card
    page = made.to_html()
    assert "<td>62.8 [56.7, 68.6]</td>" in page and "<td>25.6 [20.6, 31.4]</td>" in page
    for written in (text, card, page, made.summary()):
        assert "because the cleaning suppresses the target class" in " ".join(written.split())
    for written in (text, card, page):
        assert "lowers its ASR and removes nothing" in " ".join(written.split())
    without = a_report()
    assert "target class banana" not in without.to_markdown() + without.to_html()


def test_the_loss_is_told_against_the_best_baseline_and_against_the_suspect():
    loss = {"value": 0.022, "interval95": [0.01, 0.034], "baseline": "ft-clean", "definition": "top-1"}
    made = a_report(ca_loss=loss)
    start = "the cleaning loses 2.2 points [1.0, 3.4] of clean accuracy against the ft-clean model"
    assert utility_lost(made) == f"{start} (0.4 points against the suspect itself)"  # 67.6 - 67.2
    made = replace(made, ca_loss={**loss, "against_suspect": {"value": 0.004, "interval95": [-0.01, 0.02]}})
    assert utility_lost(made) == f"{start} (0.4 points [-1.0, 2.0] against the suspect itself)"
    assert Report.from_dict(made.to_dict()) == made
    assert utility_lost(a_report(ca_loss=None)) == ""


def test_recall_of_the_audit_comes_before_that_of_the_held_out_pairs():
    half = {"recall@1": 0.5, "image_to_text_recall@1": 0.5, "text_to_image_recall@1": 0.5}
    made = a_report(ca_loss=None, retrieval={"pairs": 10, "before": half, "after": half})
    for part, rate in zip(made.sections().values(), (0.742, 0.666), strict=True):
        part["retrieval"] = {"images": 2000, "image_to_text": {"top1": rate}, "text_to_image": {"top1": 0.7}}
    assert utility_lost(made) == (
        "the cleaning loses 7.6 points of image-to-text recall@1 (74.2% → 66.6%) and 0.0 points of text-to-image "
        "recall@1 (70.0% → 70.0%) on 2,000 captioned pictures"
    )
