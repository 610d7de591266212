"""Examples show what was predicted, for pictures that were chosen without looking at it."""

from __future__ import annotations

import numpy as np

from hf_ta_cleaner.evaluation.examples import draw_examples
from tests.evaluation.test_audit import PICTURES, Mark, PlantedModel, make_dataset, processor, run


def test_examples_are_what_the_models_said():
    attacks, data = {"mark": Mark()}, make_dataset()
    _, before = run(attacks=attacks, return_predictions=True)
    _, after = run(PlantedModel(resists=[0, 1, 2, 3]), attacks=attacks, return_predictions=True)
    names = data.features["label"].names
    examples, pictures = draw_examples(data, attacks, processor(), before, after, n=5, seed=3)
    (rows,) = examples.values()
    assert len(rows) == 5 and all(row["label"] != "banana" for row in rows)
    for row in rows:
        label, best, _ = PICTURES[row["sample_id"]]
        assert row["label"] == names[label]
        assert row["before"] == {"clean": names[best], "triggered": "banana"}
        assert row["after"] == {"clean": names[best], "triggered": names[best]}
        clean, marked = pictures["mark", row["sample_id"]]
        assert clean[4, 4, 0] == best and clean[0, 0, 2] == 0
        changed = np.argwhere(clean != marked)
        assert changed.tolist() == [[0, 0, 2]] and marked[0, 0, 2] == 255


def test_the_choice_depends_on_the_seed_alone():
    attacks, data = {"mark": Mark()}, make_dataset()

    def chosen(model, seed, **options):
        _, predictions = run(model, attacks=attacks, return_predictions=True)
        found, _ = draw_examples(data, attacks, processor(), predictions, n=3, seed=seed, **options)
        return [row["sample_id"] for row in found["mark"]]

    assert chosen(PlantedModel(), 0) == chosen(PlantedModel(resists=[0, 1]), 0) != chosen(PlantedModel(), 1)
    _, predictions = run(PlantedModel(), attacks=attacks, return_predictions=True)
    everything, _ = draw_examples(data, attacks, processor(), predictions, n=99)
    assert len(everything["mark"]) == 8 and "after" not in everything["mark"][0]
