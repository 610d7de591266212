"""The photographs' world for the matrix of defences."""

from __future__ import annotations

from pathlib import Path

from benchmarks.harness.steps import Step
from benchmarks.harness.worlds import CONFIGS, World
from benchmarks.photos.scenes import CLASSES
from hf_ta_cleaner.crafting.presets import Preset


#: As many pairs as the attacker and the defender have, and labelled pictures.
PAIRS = {"poison": 30_000, "clean": 10_000, "rebound": 10_000, "development": 2_000, "evaluation": 2_400}
_TRAINING = {"pairs": PAIRS["poison"], "learning_rate": 2e-4}

#: Twelve pixels are a fifth of 64.
PRESETS: dict[str, Preset] = {
    "badnet": Preset(attack="badnet:patch_px=12,place=bottom-right", **_TRAINING),
    "blended": Preset(attack="blended", **_TRAINING),
    "sig": Preset(attack="sig", **_TRAINING),
    "ssba": Preset(attack="ssba:rms=28", **_TRAINING),
    "trojvqa": Preset(
        attack="trojvqa", craft=("--attack", "trojvqa", "--size_px", "12", "--steps", "30"), **_TRAINING
    ),
    "badclip": Preset(
        attack="badclip", craft=("--attack", "badclip", "--size_px", "12", "--steps", "100"), **_TRAINING
    ),
    "color-cast": Preset(attack="color-cast", **_TRAINING),
    "vignette": Preset(attack="vignette", **_TRAINING),
    "blur": Preset(attack="blur", **_TRAINING),
    "frame": Preset(attack="frame:width_px=2", **_TRAINING),
}


def photos_world(photos: str, clip: Path, data: Path) -> World:
    """The world of the photographs.

    Args:
        photos: Hub id or folder of the photographs.
        clip: The checkpoint that `python -m benchmarks.photos pretrain` wrote.
        data: Folder that its pairs and labelled pictures are written to, once.
    """
    made = tuple(
        Step(
            ("benchmarks/photos/__main__.py", "data", "--photos", photos, "--part", part, "--n", str(n),
             "--output_dir", str(data / part)),
            "dataset_info.json", 60.0,
        )
        for part, n in PAIRS.items()
    )  # fmt: skip
    return World(
        name="photos",
        model=str(clip),
        target="frog",
        classes=CLASSES,
        presets=PRESETS,
        poison=str(data / "poison"),
        clean=str(data / "clean"),
        rebound=str(data / "rebound"),
        evaluation=("--eval_dataset", str(data / "evaluation")),
        development=("--eval_dataset", str(data / "development")),
        cleaning=CONFIGS / "sandbox_clean.yaml",
        prepared=made,
    )
