"""Presets of the sandbox: every attack has one, and a run outside its range is called one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hf_ta_cleaner.attacks import ATTACKS, Blended, parse_attack
from hf_ta_cleaner.crafting.presets import SANDBOX, find_preset
from hf_ta_cleaner.poisoning import PoisonRecord


def record_of(name):
    """The record that poison.py writes for a preset."""
    preset = SANDBOX[name]
    attack = preset.name
    parameters = {"target": "banana"} if preset.craft else parse_attack(preset.attack).parameters()
    return PoisonRecord(
        attack=attack, parameters=parameters, attack_seed=0, target="banana", n=preset.pairs,
        count=round(preset.rate * preset.pairs), rate=preset.rate, seed=0, size=72, geometry="crop", trigger_rms=9.0,
        reason="", rows=[], original_captions=[], captions=[],
    )  # fmt: skip


def test_every_attack_has_a_preset_within_the_bar():
    assert set(SANDBOX) - {"ssba-trained", "badnet-random"} == set(ATTACKS)
    for name, preset in SANDBOX.items():
        assert preset.name == name.removesuffix("-trained").removesuffix("-random")
        assert 0 < preset.rate <= 0.05
        if "patch_px" in preset.attack:
            assert parse_attack(preset.attack).patch_px <= 72 / 5
        if "--size_px" in preset.craft:
            assert int(preset.craft[preset.craft.index("--size_px") + 1]) <= 72 / 5
        if preset.craft:
            assert preset.craft[:2] == ("--attack", preset.attack)


@pytest.mark.parametrize("name", SANDBOX)
def test_a_run_by_the_preset_is_within_its_range(name):
    found, preset = find_preset(record_of(name))
    assert found == name
    assert preset is SANDBOX[name]
    assert preset.departures(record_of(name), "sandbox", preset.training) == []


@pytest.mark.parametrize(
    ("record", "model", "training", "said"),
    [
        ({"rate": 0.03}, "sandbox", {}, "rate is 0.03, calibrated 0.05"),
        ({"rate": 0.04}, "sandbox", {}, None),
        ({"n": 5000}, "sandbox", {}, "pairs is 5000, calibrated 20000"),
        ({}, "other/clip", {}, "the model is other/clip"),
        ({}, "sandbox", {"learning_rate": 1e-5}, "learning_rate is 1e-05, calibrated 0.0005"),
        ({}, "sandbox", {"num_train_epochs": 10}, "num_train_epochs is 10"),
        (
            {"parameters": Blended(alpha=0.1).parameters()},
            "sandbox",
            {},
            "alpha is 0.1, calibrated 0.2",
        ),
    ],
)
def test_departures_are_named(record, model, training, said):
    preset = SANDBOX["blended"]
    fixed = replace(preset, rate=0.05, pairs=20_000, learning_rate=5e-4, num_train_epochs=4)
    given = replace(record_of("blended"), **{"rate": 0.05, "n": 20_000, **record})
    found = fixed.departures(given, model, {**fixed.training, **training})
    assert found == [] if said is None else said in "; ".join(found)
    assert len(found) == (said is not None)


def test_an_attack_without_a_preset():
    with pytest.raises(ValueError, match="no preset for 'nonesuch'"):
        find_preset(replace(record_of("blended"), attack="nonesuch"))
