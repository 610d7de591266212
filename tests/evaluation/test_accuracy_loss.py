"""Paired differences of rates, and the clean accuracy that a cleaning loses."""

from __future__ import annotations

import numpy as np
import pytest

from hf_ta_cleaner.evaluation.audit import clean_accuracy_loss, paired_interval


def test_paired_interval_by_hand():
    # 10 images: 3 right in a only, 1 in b only: (4 - 2) / 12 +- 1.96 sqrt((6/12 - (2/12)^2) / 12).
    a = [1, 1, 1, 0, 1, 1, 1, 1, 0, 0]
    b = [0, 0, 0, 1, 1, 1, 1, 1, 0, 0]
    difference, interval = paired_interval(a, b)
    assert difference == pytest.approx(0.2)
    assert interval == pytest.approx([2 / 12 - 0.388804, 2 / 12 + 0.388804], abs=1e-5)
    reverse, mirrored = paired_interval(b, a)
    assert reverse == -difference
    assert mirrored == pytest.approx([-interval[1], -interval[0]])


def test_paired_interval_is_narrower_than_an_unpaired_one_and_never_empty():
    a = np.arange(1000) < 700
    b = np.arange(1000) < 690
    difference, (low, high) = paired_interval(a, b)
    assert difference == pytest.approx(0.01)
    assert low < difference < high
    assert high - low < 0.02  # two independent samples of this size: 0.08
    same, (low, high) = paired_interval(a, a)
    assert same == 0 and low < 0 < high
    assert paired_interval([1, 1], [0, 0])[1][1] <= 1.0


@pytest.mark.parametrize(("a", "b"), [([1, 0], [1]), ([], []), ([[1]], [[1]])])
def test_paired_interval_wants_the_same_images(a, b):
    with pytest.raises(ValueError, match="same images"):
        paired_interval(a, b)


def test_clean_accuracy_loss_is_measured_against_the_best_baseline():
    cleaned = [1, 0, 0, 1]
    loss = clean_accuracy_loss(cleaned, {"suspect": [1, 1, 0, 0], "fine-tuned clean": [1, 1, 0, 1]})
    assert loss["value"] == 0.25
    assert loss["baseline"] == "fine-tuned clean"
    assert loss["interval95"][0] < 0.25 < loss["interval95"][1]
    assert "suspect, fine-tuned clean" in loss["definition"]
    assert loss["against_suspect"]["value"] == 0.0  # one lost, one won
    assert "against_suspect" not in clean_accuracy_loss(cleaned, {"suspect": [1, 1, 0, 1]})
    with pytest.raises(ValueError, match="at least one baseline"):
        clean_accuracy_loss(cleaned, {})
