"""(model, labelled images, attacks) -> the figures of a report: what each trigger achieves and what is normal.

Every image is decoded and fitted once; every trigger, and every model, then sees the same array. Pictures pass in
batches and only ranks are kept, so memory does not grow with them; several processes share them out evenly.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from hf_ta_cleaner.distributed import dealt, undeal
from hf_ta_cleaner.evaluation.inputs import (
    by_name,
    changes_prompts,
    check_labelled,
    fitted,
    target_id,
    target_of,
    triggered,
)
from hf_ta_cleaner.metrics.attack_success_rate.attack_success_rate import AttackSuccessRate
from hf_ta_cleaner.metrics.zero_shot_accuracy.zero_shot_accuracy import ZeroShotAccuracy
from hf_ta_cleaner.models.zero_shot import (
    TEMPLATES,
    Template,
    ZeroShotHead,
    check_templates,
    image_features,
    input_geometry,
    input_size,
    topk_predictions,
)
from hf_ta_cleaner.seeding import numpy_rng


RANKS = (1, 3, 5, 10)
BIN = 0.01
"""Width of a bar in the histograms of similarities."""


@dataclasses.dataclass(frozen=True)
class Predictions:
    """What an audit's rates were counted from, so that two audits can be compared image by image.

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
    """Clean accuracy and, for every attack, success rate, no-trigger floor and accuracy under the trigger.

    A dual-key attack (one whose `caption` changes the prompts) is measured with its text key in every class prompt,
    in the floor too; `prompt_trigger` then holds the image key alone (plain prompts) and the text key alone.

    Args:
        dataset: a `datasets.Dataset` with a column of images and one of class ids (or of class names).
        attacks: objects with `name`, `seed`, `caption(text)` and `apply_batch(images, sample_ids)`; a mapping gives
            them names of your own, such as two seeds of one trigger.
        target: the target's class name, for all attacks or by name of the attack; by default the attack's own.
        classnames: names in the order of the ids; by default those of the dataset's `ClassLabel`.
        reference: `(model, processor)` that was never poisoned: adds `reference_asr` and `excess`. An optimized patch
            is also an adversarial patch, and only the excess is the backdoor's.
        geometry: how an image is fitted to the model's square, before the trigger, see `pictures.fit`; by default as
            the processor does it.
        max_samples: audit a random subset of this size, chosen by `seed`.
        return_predictions: also return the `Predictions`, for `paired_interval`.
        cache_dir: where text heads are kept, see `ZeroShotHead.build`.

    With several processes every one calls this with the same arguments and its own copy of the model: each takes its
    share of the pictures, and each returns the whole result.

    Returns:
        The section that a report holds under "before" or "after": rates in [0, 1], see docs/report.md.

    Raises:
        ValueError: for a target that is no class, a missing column, labels outside the classes, class names that are
            not distinct, no image (left), or a trigger that changes nothing.
    """
    if max_samples is not None and max_samples < 1:
        raise ValueError(f"max_samples must be at least 1, or None for all images; got {max_samples}.")
    templates = check_templates(templates)
    labels, classnames = check_labelled(dataset, image_column, label_column, classnames)
    sample_ids = np.sort(numpy_rng("audit", seed).permutation(len(labels))[:max_samples])
    labels = labels[sample_ids]
    attacks = by_name(attacks)
    targets = {name: target_id(target_of(name, attack, target), classnames) for name, attack in attacks.items()}
    for name, wanted in targets.items():
        if (labels == wanted).all():
            raise ValueError(
                f'Attack "{name}": all {len(labels)} images are of the target class "{classnames[wanted]}", so '
                "none is left to attack. Audit images of other classes too, or raise max_samples."
            )

    size, geometry = input_size(processor), geometry or input_geometry(processor)
    models = {"suspect": (model, processor)}
    if reference is not None:
        models["reference"] = reference
        if input_size(reference[1]) != size:
            raise ValueError(
                f"The reference model takes {input_size(reference[1])}-pixel images and the audited one {size}-pixel "
                "ones; they cannot see the same trigger. Pass the never-poisoned checkpoint of the same architecture."
            )
    two_keyed = [name for name, attack in attacks.items() if changes_prompts(attack, classnames, templates)]
    heads = {}
    for who, (network, its_processor) in models.items():
        for name in (None, *two_keyed):
            prefix = attacks[name].caption if name else None
            heads[who, name] = ZeroShotHead.build(
                network, its_processor, classnames, templates, prefix, cache_dir=cache_dir
            )

    # Ranked predictions by (model, attack whose prompts are used or None, attack on the image or None); by attack
    # alone the cosines of triggered images with the target; and which images a trigger changes.
    found: dict[Any, list[np.ndarray]] = {}
    own = dealt(sample_ids)
    batches = fitted(dataset, own, image_column, size, geometry, batch_size)
    total = math.ceil(len(own) / batch_size)
    for ids, batch in tqdm(batches, total=total, desc="audit", disable=not progress):
        for view in (None, *attacks):
            pixels = batch if view is None else triggered(view, attacks[view], batch, ids)
            if view is not None and view not in two_keyed:
                found.setdefault(("changed", view), []).append((pixels != batch).any(axis=(1, 2, 3)))
            prompts = (None, *two_keyed) if view is None else (None, view) if view in two_keyed else (None,)
            for who, (network, its_processor) in models.items():
                features = image_features(network, its_processor, pixels, batch_size)
                for key in prompts:
                    logits = heads[who, key].logits(features)
                    found.setdefault((who, key, view), []).append(topk_predictions(logits, max(RANKS)).cpu().numpy())
                    if who == "suspect" and view is not None and key == (view if view in two_keyed else None):
                        found.setdefault(view, []).append(logits[:, targets[view]].float().cpu().numpy())
    rankings = undeal({key: np.concatenate(parts) for key, parts in found.items()})
    for name in attacks:
        if name not in two_keyed and not rankings.pop(("changed", name)).any():
            raise ValueError(
                f'Attack "{name}" changes neither the images nor the prompts: there is nothing to measure.'
            )
    similarities = {name: rankings.pop(name) for name in attacks}

    num_classes = len(classnames)
    section = {"clean_accuracy": _accuracy(rankings["suspect", None, None], labels, num_classes), "attacks": {}}
    for name, attack in attacks.items():
        section["attacks"][name] = {
            **_attack_entry(rankings, name, labels, targets[name], num_classes, name in two_keyed),
            "similarity": histogram(similarities[name][labels != targets[name]]),
            "target": classnames[targets[name]],
            "seed": int(attack.seed),
            "trigger": _trigger(attack),
        }
    if not return_predictions:
        return section
    under_attack = {name: rankings["suspect", name if name in two_keyed else None, name] for name in attacks}
    return section, Predictions(sample_ids, labels, rankings["suspect", None, None], under_attack, targets)


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
    """What a cleaning cost: clean accuracy of the best baseline minus that of the cleaned model, on the same images.

    Args:
        cleaned: `(N,)` booleans, image classified correctly (`Predictions.correct`).
        baselines: the same for the models it is measured against, by name: "suspect", and where there is one the
            never-poisoned model after plain fine-tuning on the same pairs, so that an under-trained base does not
            make cleaning look free.

    Returns:
        `{"value", "interval95", "baseline", "definition"}`, the `ca_loss` of a report.
    """
    if not baselines:
        raise ValueError('Wanted at least one baseline, such as {"suspect": correct}.')
    best = max(baselines, key=lambda name: np.mean(baselines[name]))
    value, interval = paired_interval(baselines[best], cleaned)
    definition = f"top-1 clean accuracy, max({', '.join(baselines)}) - cleaned, paired on the same images"
    return {"value": value, "interval95": interval, "baseline": best, "definition": definition}


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
    rankings: dict, name: str, labels: np.ndarray, target: int, num_classes: int, two_keyed: bool
) -> dict:
    key = name if two_keyed else None

    def success(*which: str | None) -> dict:
        return _success(rankings[which], labels, target, num_classes)

    asr, floor = success("suspect", key, name), success("suspect", key, None)
    entry = {
        "asr": _top(asr, "asr_"),
        "asr_including_target": _top(asr, "asr_including_target_"),
        "floor": _top(floor, "asr_"),
        "accuracy_under_trigger": _top(_accuracy(rankings["suspect", key, name], labels, num_classes)),
        "n": asr["n"],
        "interval95": {**asr["interval95"], "floor_top1": floor["interval95"]["asr_top1"]},
    }
    if two_keyed:
        entry["prompt_trigger"] = {
            "asr_plain_prompts": _top(success("suspect", None, name), "asr_"),
            "clean_accuracy": _top(_accuracy(rankings["suspect", key, None], labels, num_classes)),
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
