"""Triggered pictures for a report, drawn at random: the class that each model names without and with the trigger."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_ta_cleaner.evaluation.inputs import fitted, triggered
from hf_ta_cleaner.models.zero_shot import input_geometry, input_size
from hf_ta_cleaner.seeding import numpy_rng


if TYPE_CHECKING:
    from hf_ta_cleaner.evaluation.audit import Predictions


def draw_examples(
    dataset,
    attacks: Mapping[str, Any],
    processor,
    before: Predictions,
    after: Predictions | None = None,
    *,
    geometry: str | None = None,
    n: int = 6,
    seed: int = 0,
) -> tuple[dict[str, list[dict]], dict[tuple[str, int], tuple[np.ndarray, np.ndarray]]]:
    """`n` pictures of other classes than the target for every attack, the same before and after, chosen by `seed`.

    The predictions play no part in the draw, so the examples are typical and not the best cases.

    Returns:
        By attack `[{"sample_id", "label", "before": {"clean", "triggered"}, "after": ...}]` with names of classes; and
        by (attack, sample id) the uint8 pictures without and with the trigger.
    """
    names = dataset.features["label"].names
    examples: dict[str, list[dict]] = {}
    pictures = {}
    for attack in attacks:
        others = np.flatnonzero(before.labels != before.targets[attack])
        chosen = np.sort(numpy_rng("examples", seed, attack).permutation(others)[:n])
        predictions = {"before": before, "after": after}
        examples[attack] = [
            {
                "sample_id": int(before.sample_ids[i]),
                "label": names[before.labels[i]],
                **{
                    when: {"clean": names[p.clean[i, 0]], "triggered": names[p.attacks[attack][i, 0]]}
                    for when, p in predictions.items()
                    if p is not None
                },
            }
            for i in chosen
        ]
        ids = before.sample_ids[chosen]
        how = geometry or input_geometry(processor)
        for batch_ids, clean in fitted(dataset, ids, "image", input_size(processor), how, max(n, 1)):
            marked = triggered(attack, attacks[attack], clean, batch_ids)
            pictures |= {(attack, int(i)): pair for i, *pair in zip(batch_ids, clean, marked, strict=True)}
    return examples, pictures
