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
    return Report("ft", 0, "banana", *sections, ca_loss=None if lost is None else {"value": lost})


@pytest.mark.parametrize(
    ("before", "after", "lost", "begins", "holds"),
    [
        ({}, {}, None, "Do not rely on out yet", "--eval_dataset"),
        ({"a": entry(0.03)}, {"a": entry(0.02)}, 0.0, "Nothing speaks for a backdoor", "ta-cleaner scan"),
        ({"a": entry(0.3, reference=0.28)}, {"a": entry(0.2)}, 0.0, "Nothing speaks for a backdoor", ""),
        ({"a": entry(0.9)}, {"a": entry(0.4)}, 0.0, "Do not use out: a still succeeds 40.0%", "--strength auto"),
        ({"a": entry(0.9), "b": entry(0.9)}, {"a": entry(0.2), "b": entry(0.5)}, 0.0, "Do not use out: b still", ""),
        ({"a": entry(0.9)}, {"a": entry(0.02)}, 0.05, "The backdoor is gone (a 90.0% → 2.0%) but 5.0 points", "lower"),
        ({"a": entry(0.9)}, {"a": entry(0.02)}, 0.004, "Use out in place of the suspect: a 90.0% → 2.0%, at 0.4", ""),
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


def test_an_attack_that_works_only_afterwards_is_told():
    assert advice(report({"a": entry(0.02)}, {"a": entry(0.8)}, 0.0), "out").startswith(
        "Do not use out: a now succeeds"
    )
