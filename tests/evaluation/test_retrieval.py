"""Rankings and many-to-one matches, by hand."""

from __future__ import annotations

import pytest
import torch

from hf_ta_cleaner.evaluation.retrieval import matches, rank, recall


def unit(*degrees: float) -> torch.Tensor:
    angles = torch.tensor(degrees).deg2rad()
    return torch.stack([angles.cos(), angles.sin()], dim=1)


def test_rank_by_hand():
    # Of the gallery at 0, 50 and 100 degrees, 60 is nearest to 50, then 100, then 0; 5 to 0, then 50, then 100.
    queries, gallery = unit(60, 5), unit(0, 50, 100)
    assert rank(queries, gallery, 3).tolist() == [[1, 2, 0], [0, 1, 2]]
    assert rank(queries, gallery, 2, chunk=1).tolist() == [[1, 2], [0, 1]]
    assert rank(queries, gallery, 9).shape == (2, 3)
    assert rank(unit(10), unit(20, 20), 1).tolist() == [[0]]
    with pytest.raises(ValueError, match="NaN"):
        rank(queries * float("nan"), gallery, 1)


def test_matches_of_pictures_with_several_captions_and_captions_of_several_pictures():
    texts, texts_of, images_of = matches([["a dog", "a cat"], ["a bus"], ["a cat", "a dog", "a dog"]])
    assert texts == ["a dog", "a cat", "a bus"]
    assert texts_of == [[0, 1], [2], [0, 1]]
    assert images_of == [[0, 2], [0, 2], [1]]
    with pytest.raises(ValueError, match="1 pictures have no caption, number 1 first"):
        matches([["a dog"], []])


def test_recall_counts_a_query_once():
    rankings = rank(unit(60, 5), unit(0, 50, 100), 3)
    found = recall(rankings, [[1, 2], [2]], (1, 2, 5), 3)
    assert (found["top1"], found["top2"], found["top5"], found["n"]) == (1 / 2, 1 / 2, 1.0, 2)
    assert found["interval95"]["top1"] == pytest.approx([0.0945, 0.9055], abs=1e-4)
