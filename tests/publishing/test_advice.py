"""One sentence for every way a cleaning can end."""

from __future__ import annotations

import pytest

from hf_ta_cleaner.publishing.advice import advice
from hf_ta_cleaner.publishing.report import Report


def entry(asr: float, floor: float = 0.01, reference: float | None = None) -> dict:
    known = {} if reference is None else {"reference_asr": {"top1": reference}}
    return {"asr": {"top1": asr}, "floor": {"top1": floor}, **known}


def report(before: dict, after: dict, lost: float | None = None) -> Report:
    sections = [{"clean_accuracy": None, "attacks": attacks} for attacks in (before, after)]
    loss = {"value": lost, "interval95": [-0.01, 0.06], "baseline": "suspect", "definition": "top-1"}
    return Report("ft", 0, "banana", *sections, ca_loss=None if lost is None else loss)


@pytest.mark.parametrize(
    ("before", "after", "lost", "begins", "holds"),
    [
        ({}, {}, None, "Do not rely on out yet", "--eval_dataset"),
        ({"a": entry(0.03)}, {"a": entry(0.02)}, 0.0, "Nothing speaks for a backdoor", "ta-cleaner scan"),
        ({"a": entry(0.3, reference=0.28)}, {"a": entry(0.2)}, 0.0, "Nothing speaks for a backdoor", ""),
        (
            {"a": entry(0.9)},
            {"a": entry(0.4)},
            0.0,
            "Do not use out: under a the backdoor is reduced, not removed (ASR 90.0% → 40.0%)",
            "--strength auto",
        ),
        (
            {"a": entry(0.9), "b": entry(0.9)},
            {"a": entry(0.2), "b": entry(0.5)},
            0.0,
            "Do not use out: under b the backdoor is still there (ASR 90.0% → 50.0%)",
            "",
        ),
        (
            {"a": entry(0.9)},
            {"a": entry(0.02)},
            0.05,
            "Try a lower --strength or more pairs before you use out: the backdoor is removed (a 90.0% → 2.0%), but "
            "the cleaning loses 5.0 points [-1.0, 6.0] of clean accuracy",
            "a loss of 3.0 points is much",
        ),
        (
            {"a": entry(0.9)},
            {"a": entry(0.02)},
            0.004,
            "Use out in place of the suspect: the backdoor is removed (a 90.0% → 2.0%), and the cleaning loses 0.4",
            "the triggers that were tried",
        ),
        (
            {"a": entry(0.9)},
            {"a": entry(0.02)},
            None,
            "Use out in place of the suspect: the backdoor is removed (a 90.0% → 2.0%), and what the cleaning loses",
            "was not measured",
        ),
    ],
)
def test_what_to_do(before, after, lost, begins, holds):
    text = advice(report(before, after, lost), "out")
    assert text.startswith(begins) and holds in text and text.endswith(".") and "\n" not in text


def scans(before: str, after: str) -> dict:
    return {
        "before": {"verdict": before, "evidence": ["a"]},
        "after": {"verdict": after, "evidence": ["a patch moves all"]},
    }


def test_what_a_scan_has_found_is_not_passed_over():
    took, gone, never = {"a": entry(0.9)}, {"a": entry(0.02)}, {"a": entry(0.02)}
    for before, after in ((never, never), (took, gone)):
        for lost in (0.0, 0.2):
            found = report(before, after, lost)
            found.scan = scans("suspicious", "suspicious")
            text = advice(found, "out")
            assert text.startswith(("Do not use out", "Do not rely on out")) and "a patch moves all" in text


def test_an_attack_that_works_only_afterwards_is_named():
    text = advice(report({"a": entry(0.02)}, {"a": entry(0.8)}, 0.0), "out")
    assert text.startswith("Do not use out: under a the attack succeeds only after the cleaning (ASR 2.0% → 80.0%)")


def test_traces_at_other_ranks_forbid_to_rely_on_the_model():
    left = entry(0.02)
    left["asr"]["top10"], left["floor"]["top10"] = 0.51, 0.24
    made = report({"a": entry(0.9)}, {"a": left}, 0.0)
    assert advice(made, "out") == (
        "Do not rely on out yet: under a the backdoor is removed at top 1, traces at top 10 (51.0% against 24.0%) "
        "(ASR 90.0% → 2.0%); clean again with --method ta-cleaner-plus --strength auto, or with more pairs."
    )
    assert made.judge()["a"].finding in advice(made, "out") and made.judge()["a"].finding[4:] in made.verdicts()["a"]
    made.method = "ta-cleaner-plus"
    assert advice(made, "out").endswith("clean again with a higher --strength, or with more pairs.")


def test_lost_recall_counts_like_lost_accuracy():
    made = report({"a": entry(0.9)}, {"a": entry(0.02)}, 0.014)
    rates = [(0.742, 0.70), (0.666, 0.70)]
    before, after = ({"image_to_text_recall@1": i, "text_to_image_recall@1": t, "recall@1": 0.7} for i, t in rates)
    made.retrieval = {"pairs": 500, "before": before, "after": after}
    text = advice(made, "out")
    assert text.startswith("Try a lower --strength or more pairs before you use out")
    assert (
        "loses 1.4 points [-1.0, 6.0] of clean accuracy against the suspect model, 7.6 points of image-to-text "
        "recall@1 (74.2% → 66.6%) and 0.0 points of text-to-image recall@1 (70.0% → 70.0%) on 500 held-out pairs"
    ) in text
