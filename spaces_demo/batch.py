"""Many pictures at once: what both models say, the rates that follow, and a table to take home."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from inputs import ProbeError, Prompts
from probe import VIEWS, WHO, Pair

from hf_ta_cleaner import Attack, sandbox
from hf_ta_cleaner.detection.screening import auroc, auroc_interval
from hf_ta_cleaner.metrics.attack_success_rate.attack_success_rate import AttackSuccessRate
from hf_ta_cleaner.metrics.zero_shot_accuracy.zero_shot_accuracy import ZeroShotAccuracy
from hf_ta_cleaner.pictures import fit


MAX_BATCH = 64
MIN_SCREENED = 10


@dataclass(frozen=True)
class Row:
    """One picture of a batch.

    Attributes:
        picture, label: its name, and what it shows if known.
        answers: (text, probability) by (who, view).
        screening: the screening's score by (who, view), higher is more suspect; empty where there is none.
    """

    picture: str
    label: str | None
    answers: dict[tuple[str, str], tuple[str, float]]
    screening: dict[tuple[str, str], float] = field(default_factory=dict)


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
        (who, view): one.answer(images, prompts, attack if view == "triggered" else None)
        for who, one in pair.models.items()
        for view, images in views.items()
    }
    best = {key: (p.argmax(1), p.max(1)) for key, (p, _) in answers.items()}
    scores = {key: screened.scores for key, (_, screened) in answers.items() if screened is not None}
    return [
        Row(
            name,
            label,
            {key: (prompts.texts[ids[i]], float(top[i])) for key, (ids, top) in best.items()},
            {key: float(values[i]) for key, values in scores.items()},
        )
        for i, (name, label, _) in enumerate(items)
    ]


def sample_pictures(pair: Pair, n: int) -> Iterator[tuple[str, str, np.ndarray]]:
    """The first `n` labelled pictures of the sandbox, drawn as they are asked for; classes take turns."""
    for i in range(n):
        label = sandbox.CLASSES[i % len(sandbox.CLASSES)]
        yield f"sandbox-{i:04d}", label, fit(sandbox.labelled_scene(i).draw(), pair.size)


def rates(rows: Sequence[Row], texts: Sequence[str], target: str) -> dict[str, dict[str, Any]]:
    """Accuracy, attack success and screening of both models, fractions with 95% intervals; None where nothing counts.

    The screening's figure is its AUROC: how often a triggered picture scores higher than one without trigger; it wants
    ten pictures. A picture without a label counts as not showing the target, and not towards accuracy.

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
        predicted = {view: np.array([ids[row.answers[who, view][0]] for row in rows])[:, None] for view in VIEWS}
        entry: dict[str, Any] = {"accuracy": None, "asr": None, "floor": None, "screening": None}
        if known.any():
            metric = ZeroShotAccuracy(keep_in_memory=True)
            result = metric.compute(
                predictions=predicted["clean"][known], references=references[known], k=(1,), num_classes=len(texts)
            )
            entry["accuracy"] = _rate(result["top1"], result["interval95"]["top1"], int(known.sum()))
        attacked = references != ids[target]
        if attacked.any():
            for key, view in (("asr", "triggered"), ("floor", "clean")):
                metric = AttackSuccessRate(keep_in_memory=True)
                result = metric.compute(
                    predictions=predicted[view],
                    references=references,
                    target=ids[target],
                    k=(1,),
                    num_classes=len(texts),
                )
                entry[key] = _rate(result["asr_top1"], result["interval95"]["asr_top1"], result["n"])
        if attacked.sum() >= MIN_SCREENED and all(row.screening for row in rows):
            clean, triggered = (np.array([row.screening[who, view] for row in rows])[attacked] for view in VIEWS)
            interval = auroc_interval(triggered, clean, rounds=500)
            entry["screening"] = _rate(auroc(triggered, clean), interval, int(attacked.sum()))
        results[who] = entry
    return results


def _rate(value: float, interval: Sequence[float], n: int) -> dict[str, Any]:
    return {"value": value, "interval95": [float(end) for end in interval], "n": n}


def to_csv(rows: Sequence[Row]) -> str:
    """One line a picture: name, label, and what both models say without and with the trigger.

    An answer has three columns: text, probability, and the picture's screening score, empty where there is none.
    """
    text = io.StringIO()
    writer = csv.writer(text)
    keys = [(who, view) for who in WHO for view in VIEWS]
    columns = (f"{who}_{view}{what}" for who, view in keys for what in ("", "_probability", "_screening"))
    writer.writerow(["picture", "label", *columns])
    for row in rows:
        cells = [_as_text(row.picture), _as_text(row.label or "")]
        for key in keys:
            answer, p = row.answers[key]
            score = row.screening.get(key)
            cells += [_as_text(answer), f"{p:.4f}", "" if score is None else f"{score:.4f}"]
        writer.writerow(cells)
    return text.getvalue()


def _as_text(cell: str) -> str:
    """A spreadsheet must not take a visitor's text for a formula."""
    return f"'{cell}" if cell and cell[0] in "=+-@\t\r" else cell
