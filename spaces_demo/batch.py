"""Many pictures at once: what both models say, the rates that follow, and a table to take home."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from inputs import ProbeError, Prompts
from probe import VIEWS, WHO, Pair

from hf_ta_cleaner import Attack, sandbox
from hf_ta_cleaner.attacks import fit
from hf_ta_cleaner.metrics.attack_success_rate.attack_success_rate import AttackSuccessRate
from hf_ta_cleaner.metrics.zero_shot_accuracy.zero_shot_accuracy import ZeroShotAccuracy


MAX_BATCH = 64


@dataclass(frozen=True)
class Row:
    """One picture of a batch: its name, its label if known, and (text, probability) by (who, view)."""

    picture: str
    label: str | None
    answers: dict[tuple[str, str], tuple[str, float]]


def batch(
    pair: Pair,
    pictures: Iterable[tuple[str, str | None, np.ndarray]],
    attack: Attack,
    prompts: Prompts,
    chunk: int = 16,
) -> Iterator[list[Row]]:
    """Both models on many pictures, without and with the trigger, a chunk at a time."""
    waiting: list[tuple[str, str | None, np.ndarray]] = []
    for i, item in enumerate(pictures):
        waiting.append(item)
        if len(waiting) == chunk:
            yield _rows(pair, waiting, attack, prompts, i + 1 - chunk)
            waiting = []
    if waiting:
        yield _rows(pair, waiting, attack, prompts, i + 1 - len(waiting))


def _rows(pair: Pair, items: Sequence, attack: Attack, prompts: Prompts, first: int) -> list[Row]:
    clean = np.stack([pixels for *_, pixels in items])
    views = {"clean": clean, "triggered": attack.apply_batch(clean, range(first, first + len(items)))}
    answers = {
        (who, view): one.probabilities(images, prompts, attack if view == "triggered" else None)
        for who, one in pair.models.items()
        for view, images in views.items()
    }
    best = {key: (p.argmax(1), p.max(1)) for key, p in answers.items()}
    return [
        Row(name, label, {key: (prompts.texts[ids[i]], float(top[i])) for key, (ids, top) in best.items()})
        for i, (name, label, _) in enumerate(items)
    ]


def sample_pictures(pair: Pair, n: int) -> Iterator[tuple[str, str, np.ndarray]]:
    """The first `n` labelled pictures of the sandbox, drawn as they are asked for; classes take turns."""
    for i in range(n):
        label = sandbox.CLASSES[i % len(sandbox.CLASSES)]
        yield f"sandbox-{i:04d}", label, fit(sandbox.labelled_scene(i).draw(), pair.size)


def rates(rows: Sequence[Row], texts: Sequence[str], target: str) -> dict[str, dict[str, Any]]:
    """Accuracy and attack success of both models, as fractions with 95% intervals; None where nothing counts.

    A picture without a label counts as not showing the target, and not towards accuracy.

    Raises:
        ProbeError: the target is not among the texts.
    """
    ids = {text: i for i, text in enumerate(texts)}
    if target not in ids:
        raise ProbeError(
            f"The target {target!r} is not among the {len(texts)} labels. Add it, or name another target."
        )
    other = next(i for text, i in ids.items() if text != target)
    references = np.array([ids.get(row.label, other) for row in rows])
    known = np.array([row.label in ids for row in rows])
    results = {}
    for who in WHO:
        said = {view: np.array([ids[row.answers[who, view][0]] for row in rows])[:, None] for view in VIEWS}
        entry: dict[str, Any] = {"accuracy": None, "asr": None, "floor": None}
        if known.any():
            metric = ZeroShotAccuracy(keep_in_memory=True)
            found = metric.compute(
                predictions=said["clean"][known], references=references[known], k=(1,), num_classes=len(texts)
            )
            entry["accuracy"] = _rate(found["top1"], found["interval95"]["top1"], int(known.sum()))
        if (references != ids[target]).any():
            for key, view in (("asr", "triggered"), ("floor", "clean")):
                metric = AttackSuccessRate(keep_in_memory=True)
                found = metric.compute(
                    predictions=said[view], references=references, target=ids[target], k=(1,), num_classes=len(texts)
                )
                entry[key] = _rate(found["asr_top1"], found["interval95"]["asr_top1"], found["n"])
        results[who] = entry
    return results


def _rate(value: float, interval: Sequence[float], n: int) -> dict[str, Any]:
    return {"value": value, "interval95": [float(end) for end in interval], "n": n}


def to_csv(rows: Sequence[Row]) -> str:
    """One line a picture: name, label, and both models' answer with its probability, without and with the trigger."""
    text = io.StringIO()
    writer = csv.writer(text)
    names = [f"{who}_{view}" for who in WHO for view in VIEWS]
    writer.writerow(["picture", "label", *(column for name in names for column in (name, f"{name}_probability"))])
    for row in rows:
        cells = [row.picture, row.label or ""]
        for who in WHO:
            for view in VIEWS:
                said, p = row.answers[who, view]
                cells += [said, f"{p:.4f}"]
        # A spreadsheet must not take a visitor's text for a formula.
        writer.writerow([f"'{cell}" if cell[:1] in "=+-@\t\r" and cell else cell for cell in cells])
    return text.getvalue()
