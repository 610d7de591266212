"""Recall@k of ranked retrieval where a query may have several right answers, with its interval."""

from __future__ import annotations

import datasets
import evaluate
import numpy as np


_DESCRIPTION = """
Retrieval recall@k: the share of queries for which at least one right candidate is among the k best. A query may have
any number of right candidates, at least one: a picture with five captions, a caption that stands under two pictures.
Finding one of them is enough, and every query counts once, however many right candidates it has.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions (`list` of `list` of `int`): for every query candidate ids in order, best first, all of one length.
    references (`list` of `list` of `int`): for every query the ids of all right candidates, at least one.
    k (`list` of `int`): the ranks to report. Defaults to 1, 5 and 10.
    num_candidates (`int`, *optional*): how many candidates there are. A k beyond the length of the rankings is an
        error, unless the rankings are complete (as long as `num_candidates`); the recall is then 1.0 by definition.

Returns:
    recall_at_{k} (`float`): minimum 0, maximum 1. Higher is better.
    n (`int`): number of queries.
    interval95 (`dict`): for every `recall_at_{k}` the Wilson score interval [low, high], at 95 %.

Examples:

    Three pictures, each with two of the six captions. The first finds one of its own at once, the second at the second
    place, the third not among the best two.

        >>> recall = evaluate.load("retrieval_recall")
        >>> rankings = [[1, 4], [5, 2], [0, 3]]
        >>> result = recall.compute(predictions=rankings, references=[[0, 1], [2, 3], [4, 5]], k=[1, 2])
        >>> round(result["recall_at_1"], 3), round(result["recall_at_2"], 3), result["n"]
        (0.333, 0.667, 3)
        >>> [round(end, 3) for end in result["interval95"]["recall_at_1"]]
        [0.061, 0.792]

    The other way round every caption has one right picture.

        >>> recall.compute(predictions=[[0], [0], [1]], references=[[0], [1], [1]], k=[1])["n"]
        3
"""

_CITATION = """
@inproceedings{karpathy2015deep,
  title={Deep Visual-Semantic Alignments for Generating Image Descriptions},
  author={Karpathy, Andrej and Fei-Fei, Li},
  booktitle={IEEE Conference on Computer Vision and Pattern Recognition},
  year={2015}
}
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class RetrievalRecall(evaluate.Metric):
    def _info(self):
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features(
                {
                    "predictions": datasets.Sequence(datasets.Value("int64")),
                    "references": datasets.Sequence(datasets.Value("int64")),
                }
            ),
        )

    def _compute(self, predictions, references, k=(1, 5, 10), num_candidates=None):
        rankings = check_rankings(predictions, k, num_candidates)
        if empty := [i for i, right in enumerate(references) if len(right) == 0]:
            raise ValueError(
                f"{len(empty)} queries have no right candidate, number {empty[0]} first: no ranking could find one. "
                "Leave these queries out, or complete their references."
            )
        # The first place of a right candidate; the length of the ranking where there is none. Queries are taken one by
        # one because their numbers of right candidates differ.
        places = np.full(len(rankings), rankings.shape[1])
        for i, (ranking, right) in enumerate(zip(rankings, references, strict=True)):
            found = np.isin(ranking, right)
            if found.any():
                places[i] = found.argmax()
            elif rankings.shape[1] == num_candidates:
                raise ValueError(
                    f"Query {i}: none of its right candidates {list(right)[:5]} is among all {num_candidates}."
                )
        n, result, intervals = len(rankings), {}, {}
        for cut in k:
            hits = int((places < cut).sum())
            result[f"recall_at_{cut}"] = hits / n
            intervals[f"recall_at_{cut}"] = wilson_interval(hits, n)
        return {**result, "n": n, "interval95": intervals}


def check_rankings(predictions, k, total):
    """The rankings as an array (N, length); an error that names the trouble where they cannot answer for every k."""
    lengths = {len(ranking) for ranking in predictions}
    if not predictions or len(lengths) != 1 or 0 in lengths:
        raise ValueError(f"Wanted one ranking or more, all of one length, at least 1; got the lengths {lengths}.")
    rankings = np.asarray(predictions)
    length = rankings.shape[1]
    if (np.diff(np.sort(rankings, axis=1), axis=1) == 0).any():
        raise ValueError("A ranking names the same id twice; wanted distinct ids, best first.")
    if not k or min(k) < 1:
        raise ValueError(f"k must be one or more ranks of at least 1, got {k}.")
    if max(k) > length and length != total:
        raise ValueError(
            f"k={max(k)} needs rankings of at least {max(k)} ids, got {length}. Pass longer rankings or a smaller k; "
            "if they are complete, say how many ids there are (num_classes or num_candidates)."
        )
    return rankings


def wilson_interval(hits, n, z=1.959963984540054):
    """Wilson score interval of a proportion [low, high] (Wilson 1927), at 95 % for the default z."""
    rate, denominator = hits / n, 1 + z**2 / n
    center = (rate + z**2 / (2 * n)) / denominator
    half = z * np.sqrt(rate * (1 - rate) / n + z**2 / (4 * n**2)) / denominator
    return [float(max(0.0, center - half)) if hits else 0.0, float(min(1.0, center + half)) if hits < n else 1.0]
