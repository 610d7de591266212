"""Top-k accuracy of ranked zero-shot predictions, with its interval."""

from __future__ import annotations

import datasets
import evaluate
import numpy as np


_DESCRIPTION = """
Zero-shot accuracy: the share of images whose true class is among the k best predictions, with the Wilson score
interval, because a rate without its n says little.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions (`list` of `list` of `int`): for every image the class ids in order, best first, all of one length.
    references (`list` of `int`): the true class ids.
    k (`list` of `int`): the ranks to report. Defaults to 1, 3, 5 and 10.
    num_classes (`int`, *optional*): the number of classes. A k beyond the length of the rankings is an error, unless
        the rankings are complete (as long as `num_classes`); the accuracy is then 1.0 by definition.

Returns:
    top{k} (`float`): minimum 0, maximum 1. Higher is better.
    n (`int`): number of images.
    interval95 (`dict`): for every `top{k}` the Wilson score interval [low, high], at 95 %.

Examples:

    The first two images are right at once, the third at the second guess.

        >>> accuracy = evaluate.load("zero_shot_accuracy")
        >>> rankings = [[0, 1], [1, 2], [0, 2], [0, 1]]
        >>> result = accuracy.compute(predictions=rankings, references=[0, 1, 2, 2], k=[1, 2])
        >>> result["top1"], result["top2"], result["n"]
        (0.5, 0.75, 4)
        >>> [round(end, 3) for end in result["interval95"]["top1"]]
        [0.15, 0.85]
"""

_CITATION = """
@inproceedings{radford2021learning,
  title={Learning Transferable Visual Models From Natural Language Supervision},
  author={Radford, Alec and Kim, Jong Wook and Hallacy, Chris and others},
  booktitle={International Conference on Machine Learning},
  year={2021}
}
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class ZeroShotAccuracy(evaluate.Metric):
    def _info(self):
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features(
                {
                    "predictions": datasets.Sequence(datasets.Value("int64")),
                    "references": datasets.Value("int64"),
                }
            ),
        )

    def _compute(self, predictions, references, k=(1, 3, 5, 10), num_classes=None):
        rankings, labels = check_rankings(predictions, k, num_classes), np.asarray(references)
        n = len(labels)
        result, intervals = {}, {}
        for cut in k:
            hit = (rankings[:, :cut] == labels[:, None]).any(axis=1)
            result[f"top{cut}"] = float(hit.mean())
            intervals[f"top{cut}"] = wilson_interval(int(hit.sum()), n)
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
