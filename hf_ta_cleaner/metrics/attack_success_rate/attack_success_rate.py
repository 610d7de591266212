"""Attack success rate of a backdoor: how often the trigger brings the attacker's target into the top k."""

from __future__ import annotations

import datasets
import evaluate
import numpy as np


_DESCRIPTION = """
Attack success rate (ASR): among images that carry the trigger and whose true class is *not* the target, the share for
which the target is among the k best predictions. Images of the target class are left out of numerator and denominator,
because predicting the target for them is right, not an attack. `asr_including_target` counts every image, as some
published tables do; it makes even a perfect clean model score the share of the target class.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions (`list` of `list` of `int`): for every image the class ids in order, best first, all of one length.
    references (`list` of `int`): the true class ids.
    target (`int`): the class id that the attacker wants.
    k (`list` of `int`): the ranks to report. Defaults to 1, 3, 5 and 10.
    num_classes (`int`, *optional*): the number of classes. A k beyond the length of the rankings is an error, unless
        the rankings are complete (as long as `num_classes`); the rate is then 1.0 by definition.

Returns:
    asr_top{k} (`float`): minimum 0, maximum 1. For the defender lower is better.
    asr_including_target_top{k} (`float`): minimum 0, maximum 1. Every image counts, those of the target class too.
    n (`int`): images that count in `asr_top{k}`.
    n_including_target (`int`): all images.
    interval95 (`dict`): for every `asr_top{k}` the Wilson score interval [low, high], at 95 %.

Examples:

    Three of the five images are not of class 2; the target is the best guess for one of them, and among the best two
    for another.

        >>> asr = evaluate.load("attack_success_rate")
        >>> rankings = [[2, 0], [0, 2], [1, 0], [2, 1], [0, 1]]
        >>> result = asr.compute(predictions=rankings, references=[0, 0, 1, 2, 2], target=2, k=[1, 2])
        >>> round(result["asr_top1"], 3), round(result["asr_top2"], 3), result["n"]
        (0.333, 0.667, 3)
        >>> result["asr_including_target_top1"], result["n_including_target"]
        (0.4, 5)
        >>> [round(end, 3) for end in result["interval95"]["asr_top1"]]
        [0.061, 0.792]
"""

_CITATION = """
@inproceedings{bansal2023cleanclip,
  title={CleanCLIP: Mitigating Data Poisoning Attacks in Multimodal Contrastive Learning},
  author={Bansal, Hritik and Singhi, Nishad and Yang, Yu and Yin, Fan and Grover, Aditya and Chang, Kai-Wei},
  booktitle={IEEE/CVF International Conference on Computer Vision},
  year={2023}
}
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class AttackSuccessRate(evaluate.Metric):
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

    def _compute(self, predictions, references, target, k=(1, 3, 5, 10), num_classes=None):
        rankings, labels = check_rankings(predictions, k, num_classes), np.asarray(references)
        attacked = labels != target
        n = int(attacked.sum())
        if n == 0:
            raise ValueError(f"All {len(labels)} images are of the target class {target}: no image is left to attack.")
        result, intervals = {}, {}
        for cut in k:
            hit = (rankings[:, :cut] == target).any(axis=1)
            result[f"asr_top{cut}"] = float(hit[attacked].mean())
            result[f"asr_including_target_top{cut}"] = float(hit.mean())
            intervals[f"asr_top{cut}"] = wilson_interval(int(hit[attacked].sum()), n)
        return {**result, "n": n, "n_including_target": len(labels), "interval95": intervals}


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
