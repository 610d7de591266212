"""The settings of a run: a file that repeats it, and a list for the report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from ..data.naming import without_folders
from ..subtexts.wordnet import available


#: Name of the file that repeats a run: `--config FOLDER/config.yaml --output_dir ANOTHER`.
CONFIG = "config.yaml"

_WHERE_TO = frozenset(
    "output_dir resume push_to_hub hub_model_id hub_private_repo hub_token hub_strategy "
    "allow_publishing_backdoor".split()
)


def save_config(folder: str | Path, settings: Mapping[str, Any]) -> Path:
    """Write the settings of a run as a file for `--config`: all but where its output goes. No token is written."""
    kept = {name: value for name, value in settings.items() if name not in _WHERE_TO}
    path = Path(folder) / CONFIG
    path.write_text(yaml.safe_dump(kept, sort_keys=True, allow_unicode=True), encoding="utf-8")
    return path


def run_settings(args: Any, given: Mapping[str, Any], **data: Any) -> dict[str, Any]:
    """The settings in a report: the recipe, all other flags that were set, and facts about the machine and data.

    Args:
        args: The `TACleanerConfig` of the run, as it was used.
        given: What the command line and its configuration file set, `CommandParser.settings`.
        data: Facts about the data; None is left out.
    """
    elsewhere = {"method", "seed", "bf16", "fp16", "per_device_train_batch_size", "gradient_accumulation_steps"}
    elsewhere |= {"model", "dataset", "num_train_epochs" if args.max_steps > 0 else "max_steps"}
    found = {
        "batch_size": args.train_batch_size * args.gradient_accumulation_steps * args.world_size,
        "processes": args.world_size,
        "precision": "bf16" if args.bf16 else "fp16" if args.fp16 else "fp32",
        **data,
        "wordnet": "found" if available() else "absent",
    }
    left_out = elsewhere | _WHERE_TO
    settings = {name: value for name, value in {**given, **args.recipe}.items() if name not in left_out}
    return {name: without_folders(value) for name, value in {**settings, **found}.items() if value is not None}
