"""(model, labelled images, attacks) -> the rates of a report.

Every image is decoded and fitted once, and every trigger and model sees the same array. Pictures pass in batches and
only rankings are kept, so memory stays bounded. Several processes share the pictures evenly.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from hf_ta_cleaner.distributed import dealt
from hf_ta_cleaner.evaluation.inputs import by_name, check_labelled, fitted, target_id, target_of
from hf_ta_cleaner.evaluation.rankings import RankingKey, check_sizes, rank_pictures, text_heads
from hf_ta_cleaner.metrics.attack_success_rate.attack_success_rate import AttackSuccessRate, wilson_interval
from hf_ta_cleaner.metrics.zero_shot_accuracy.zero_shot_accuracy import ZeroShotAccuracy
from hf_ta_cleaner.models.zero_shot import TEMPLATES, Template, check_templates, input_geometry
from hf_ta_cleaner.seeding import numpy_rng


RANKS = (1, 3, 5, 10)
BIN = 0.01
"""Width of a bar in the histograms of similarities."""


@dataclasses.dataclass(frozen=True)
class Predictions:
    """The predictions that an audit counts, so that two audits can be compared image by image.

    Attributes:
        sample_ids: `(N,)`, rows of the dataset.
        labels: `(N,)`, true class ids.
        clean: `(N, min(10, C))`, ranked class ids of the images without a trigger.
        attacks: the same under every trigger, by name of the attack.
        targets: the target's class id, by name of the attack.
    """

    sample_ids: np.ndarray
    labels: np.ndarray
    clean: np.ndarray
    attacks: dict[str, np.ndarray]
    targets: dict[str, int]

    def correct(self, k: int = 1) -> np.ndarray:
        """`(N,)` booleans: the true class is in the top k of the clean image."""
        return (self.clean[:, :k] == self.labels[:, None]).any(axis=1)

    def hit(self, attack: str, k: int = 1) -> np.ndarray:
        """Booleans, one for each image not of the target class: the trigger put the target into the top k."""
        target = self.targets[attack]
        return (self.attacks[attack][:, :k] == target).any(axis=1)[self.labels != target]


def audit(
    model,
    processor,
    dataset,
    attacks: Sequence | Mapping[str, Any] = (),
    *,
    target: str | Mapping[str, str] | None = None,
    classnames: Sequence[str] | None = None,
    templates: Sequence[Template] = TEMPLATES,
    reference: tuple | None = None,
    image_column: str = "image",
    label_column: str = "label",
    batch_size: int = 256,
    geometry: str | None = None,
    max_samples: int | None = None,
    seed: int = 0,
    progress: bool = True,
    return_predictions: bool = False,
    cache_dir: str | Path | None = None,
) -> dict | tuple[dict, Predictions]:
    """Clean accuracy and, for every attack, success rate, floor, accuracy under the trigger and the target class.

    A dual-key attack (its `caption` changes the prompts) has its text key in every prompt, in the floor too. With
    several processes each calls this with the same arguments, takes its share and returns the whole result.

    Args:
        dataset: A `datasets.Dataset` with a column of images and one of class ids or class names.
        attacks: Objects with `name`, `seed`, `caption(text)` and `apply_batch(images, sample_ids)`, or by own names.
        target: The target's class name, for all attacks or by name; by default the attack's own.
        classnames: Names in the order of the ids; by default those of the dataset's `ClassLabel`.
        reference: `(model, processor)` that was never poisoned: adds `reference_asr` and `excess`.
        geometry: How an image is fitted before the trigger, see `pictures.fit`; by default as the processor does.
        max_samples: Audit a random subset of this size, chosen by `seed`.
        return_predictions: Also return the `Predictions`, for `paired_interval`.
        cache_dir: Where text heads are kept, see `ZeroShotHead.build`.

    Returns:
        The section that a report holds under "before" or "after": rates in [0, 1], see docs/report.md.

    Raises:
        ValueError: Unusable labels, class names or target, no image, or a trigger that changes nothing.
    """
    labels, classnames = check_labelled(dataset, image_column, label_column, classnames)
    sample_ids = _sample(len(labels), max_samples, seed)
    attacks, labels = by_name(attacks), labels[sample_ids]
    targets = _targets(attacks, target, labels, classnames)
    models = {"suspect": (model, processor)} | ({} if reference is None else {"reference": reference})
    size, own = check_sizes(models), dealt(sample_ids)
    heads = text_heads(models, attacks, classnames, check_templates(templates), cache_dir)
    batches = fitted(dataset, own, image_column, size, geometry or input_geometry(processor), batch_size)
    batches = tqdm(batches, total=math.ceil(len(own) / batch_size), desc="audit", disable=not progress)
    ranked = rank_pictures(models, heads, attacks, targets, batches, k=max(RANKS), batch_size=batch_size)
    section, predictions = _section(*ranked, attacks, targets, sample_ids, labels, classnames)
    return (section, predictions) if return_predictions else section


def _sample(n: int, max_samples: int | None, seed: int) -> np.ndarray:
    """Sorted ids of the rows to audit."""
    if max_samples is not None and max_samples < 1:
        raise ValueError(f"max_samples must be at least 1, or None for all images; got {max_samples}.")
    return np.sort(numpy_rng("audit", seed).permutation(n)[:max_samples])


def _targets(attacks: Mapping[str, Any], target, labels: np.ndarray, classnames: Sequence[str]) -> dict[str, int]:
    """The target's class id by attack; a ValueError where all images are of the target class."""
    targets = {name: target_id(target_of(name, attack, target), classnames) for name, attack in attacks.items()}
    for name, class_id in targets.items():
        if (labels == class_id).all():
            raise ValueError(
                f'Attack "{name}": all {len(labels)} images are of the target class "{classnames[class_id]}", so '
                "none is left to attack. Audit images of other classes too, or raise max_samples."
            )
    return targets


def _section(
    rankings: dict[RankingKey, np.ndarray],
    similarities: Mapping[str, np.ndarray],
    attacks: Mapping[str, Any],
    targets: Mapping[str, int],
    sample_ids: np.ndarray,
    labels: np.ndarray,
    classnames: Sequence[str],
) -> tuple[dict, Predictions]:
    """The section of a report, and the predictions that its rates are counted from."""
    clean = rankings["suspect", None, None]
    section = {"clean_accuracy": _accuracy(clean, labels, len(classnames)), "attacks": {}}
    under_attack = {}
    for name, attack in attacks.items():
        key = name if ("suspect", name, name) in rankings else None
        under_attack[name] = rankings["suspect", key, name]
        section["attacks"][name] = {
            **_attack_entry(rankings, name, key, labels, targets[name], len(classnames)),
            "target_class": target_class_rates(clean[:, 0], labels, targets[name]),
            "similarity": histogram(similarities[name][labels != targets[name]]),
            "target": classnames[targets[name]],
            "seed": int(attack.seed),
            "trigger": _trigger(attack),
        }
    return section, Predictions(sample_ids, labels, clean, under_attack, dict(targets))


def target_class_rates(predicted: np.ndarray, labels: np.ndarray, target: int) -> dict:
    """Recall and precision of the target class on clean pictures, from the top-1 predictions `(N,)`.

    A cleaning that suppresses the class has a low success rate and has removed nothing; its recall shows that.

    Returns:
        `{"recall", "precision", "n", "n_predicted", "interval95"}`: `n` pictures are of the class, `n_predicted` are
        taken for it. A rate over no picture is None and has no interval; the others have Wilson's.
    """
    of_class, named = labels == target, predicted == target
    hits, n, n_predicted = int((of_class & named).sum()), int(of_class.sum()), int(named.sum())
    totals = {"recall": n, "precision": n_predicted}
    rates = {name: hits / total if total else None for name, total in totals.items()}
    intervals = {name: wilson_interval(hits, total) for name, total in totals.items() if total}
    return {**rates, "n": n, "n_predicted": n_predicted, "interval95": intervals}


def paired_interval(correct_a, correct_b, z: float = 1.959963984540054) -> tuple[float, list[float]]:
    """Difference of two rates on the same images, rate(a) - rate(b), and its interval (95 % for the default z).

    Args:
        correct_a, correct_b: `(N,)` booleans, one entry for the same image in both.

    Returns:
        The observed difference in [-1, 1] and [low, high], the adjusted Wald interval for paired proportions of
        Bonett and Price (2012), which holds its level for few images and for rates near 0 and 1.
    """
    a, b = np.asarray(correct_a, dtype=bool), np.asarray(correct_b, dtype=bool)
    if a.ndim != 1 or a.shape != b.shape or not len(a):
        raise ValueError(f"Wanted two non-empty arrays over the same images, got shapes {a.shape} and {b.shape}.")
    n = len(a)
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    p, q = (only_a + 1) / (n + 2), (only_b + 1) / (n + 2)
    half = z * math.sqrt((p + q - (p - q) ** 2) / (n + 2))
    return (only_a - only_b) / n, [max(-1.0, p - q - half), min(1.0, p - q + half)]


def clean_accuracy_loss(cleaned, baselines: Mapping[str, Any]) -> dict:
    """What a cleaning costs: clean accuracy of the best baseline minus that of the cleaned model, on the same images.

    Args:
        cleaned: `(N,)` booleans, image classified correctly (`Predictions.correct`).
        baselines: the same for the models it is measured against, by name: "suspect", and where there is one the
            never-poisoned model after plain fine-tuning on the same pairs, so that an under-trained base does not
            make cleaning look free.

    Returns:
        `{"value", "interval95", "baseline", "definition"}`, the `ca_loss` of a report; where another model than the
        suspect is the best baseline also `against_suspect`, `{"value", "interval95"}` of the loss against the suspect.
    """
    if not baselines:
        raise ValueError('Wanted at least one baseline, such as {"suspect": correct}.')
    best = max(baselines, key=lambda name: np.mean(baselines[name]))
    value, interval = paired_interval(baselines[best], cleaned)
    definition = f"top-1 clean accuracy, max({', '.join(baselines)}) - cleaned, paired on the same images"
    loss = {"value": value, "interval95": interval, "baseline": best, "definition": definition}
    if "suspect" in baselines and best != "suspect":
        value, interval = paired_interval(baselines["suspect"], cleaned)
        loss["against_suspect"] = {"value": value, "interval95": interval}
    return loss


def histogram(cosines: np.ndarray) -> dict:
    """Counts of cosines in bins of width `BIN`: `{"start", "width", "counts"}`, empty bins at the ends left out."""
    places = np.floor(np.asarray(cosines, dtype=np.float64).clip(-1, 1) / BIN + 1e-6).astype(int)
    first = int(places.min())
    return {"start": round(first * BIN, 6), "width": BIN, "counts": np.bincount(places - first).tolist()}


def _top(result: dict, prefix: str = "") -> dict[str, float]:
    return {f"top{k}": result[f"{prefix}top{k}"] for k in RANKS}


def _accuracy(rankings: np.ndarray, labels: np.ndarray, num_classes: int) -> dict:
    metric = ZeroShotAccuracy(keep_in_memory=True)
    result = metric.compute(predictions=rankings, references=labels, k=RANKS, num_classes=num_classes)
    return {**_top(result), "n": result["n"], "interval95": result["interval95"]}


def _success(rankings: np.ndarray, labels: np.ndarray, target: int, num_classes: int) -> dict:
    metric = AttackSuccessRate(keep_in_memory=True)
    return metric.compute(predictions=rankings, references=labels, target=target, k=RANKS, num_classes=num_classes)


def _attack_entry(
    rankings: dict[RankingKey, np.ndarray], name: str, key: str | None, labels: np.ndarray, target: int, classes: int
) -> dict:
    """The rates of one attack; `key` is its name where it has a key in the prompts, else None."""

    def success(*which: str | None) -> dict:
        return _success(rankings[which], labels, target, classes)

    asr, floor = success("suspect", key, name), success("suspect", key, None)
    entry = {
        "asr": _top(asr, "asr_"),
        "asr_including_target": _top(asr, "asr_including_target_"),
        "floor": _top(floor, "asr_"),
        "accuracy_under_trigger": _top(_accuracy(rankings["suspect", key, name], labels, classes)),
        "n": asr["n"],
        "interval95": {**asr["interval95"], "floor_top1": floor["interval95"]["asr_top1"]},
    }
    if key is not None:
        entry["prompt_trigger"] = {
            "asr_plain_prompts": _top(success("suspect", None, name), "asr_"),
            "clean_accuracy": _top(_accuracy(rankings["suspect", key, None], labels, classes)),
        }
    if ("reference", key, name) in rankings:
        entry["reference_asr"] = _top(success("reference", key, name), "asr_")
        entry["excess"] = {rank: entry["asr"][rank] - entry["reference_asr"][rank] for rank in entry["asr"]}
        attacked = labels != target
        hits = [rankings[who, key, name][attacked, 0] == target for who in ("suspect", "reference")]
        entry["interval95"]["excess_top1"] = paired_interval(*hits)[1]
    return entry


def _trigger(attack) -> dict[str, Any]:
    """The attack's name and parameters as JSON values; a pattern is named by its hash."""
    params = dict(attack.parameters()) if hasattr(attack, "parameters") else {}
    if hasattr(attack, "patterns"):
        params |= {name: f"sha256:{pattern.sha256}" for name, pattern in attack.patterns().items()}
    return {"name": attack.name, "params": params}
