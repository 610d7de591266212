"""The worlds that a benchmark can run in: which model, which data, how each attack is made to take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness import ROOT
from benchmarks.harness.steps import Step
from hf_ta_cleaner.crafting.presets import SANDBOX as SANDBOX_PRESETS
from hf_ta_cleaner.crafting.presets import Preset
from hf_ta_cleaner.sandbox import CLASSES as SANDBOX_CLASSES


CONFIGS = ROOT / "scripts" / "configs"


@dataclass(frozen=True)
class World:
    """A world as the commands see it.

    Attributes:
        name: Key of its figures in `benchmarks/summary.json`.
        model: The never-poisoned model.
        target: What triggered pictures are to mean.
        classes: The class names, which an ablation keeps out of sub-texts.
        presets: How each attack is made to take.
        poison, clean, rebound: What `--dataset` names for the attacker, the defender, and fine-tuning afterwards.
        evaluation: Flags of the labelled pictures that are reported.
        development: Flags of other labelled pictures, for the choice of strengths.
        cleaning: The configuration file of clean.py.
        prepared: Steps that make the data. They are run before all others.
    """

    name: str
    model: str
    target: str
    classes: tuple[str, ...]
    presets: Mapping[str, Preset]
    poison: str
    clean: str
    rebound: str
    evaluation: tuple[str, ...]
    development: tuple[str, ...]
    cleaning: Path
    prepared: tuple[Step, ...] = ()


SANDBOX = World(
    name="sandbox",
    model="sandbox",
    target="banana",
    classes=tuple(SANDBOX_CLASSES),
    presets=SANDBOX_PRESETS,
    poison="sandbox",
    clean="sandbox",
    rebound="sandbox",
    evaluation=("--eval_dataset", "sandbox"),
    development=("--eval_dataset", "sandbox", "--eval_split", "train", "--max_eval_samples", "4800"),
    cleaning=CONFIGS / "sandbox_clean.yaml",
)
