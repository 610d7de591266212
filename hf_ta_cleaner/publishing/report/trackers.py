"""Between a `Trainer`, a tracker and a report: training curves from a log, and headline figures for a tracker."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


#: A training curve keeps at most this many points.
POINTS = 200


def curves(log_history: list[dict[str, Any]]) -> dict[str, dict[str, list]]:
    """The training curves in a `Trainer`'s log: the loss, its terms, the temperature, the rate and the evaluations.

    A curve of fewer than two points is left out. A long curve keeps evenly spaced points, and always its last one.

    Args:
        log_history: `trainer.state.log_history`.

    Returns:
        Name -> `{"step": [...], "value": [...]}`, the `history` of a report.
    """
    history: dict[str, dict[str, list]] = {}
    for line in log_history:
        for name, value in line.items():
            wanted = name in ("loss", "logit_scale", "learning_rate") or name.startswith(("loss/", "eval_"))
            if wanted and isinstance(value, (int, float)) and math.isfinite(value):
                curve = history.setdefault(name, {"step": [], "value": []})
                curve["step"].append(line["step"])
                curve["value"].append(value)
    for curve in history.values():
        stride = -(-len(curve["step"]) // POINTS)
        for key, values in curve.items():
            curve[key] = values[::-1][::stride][::-1]
    return {name: curve for name, curve in history.items() if len(curve["step"]) > 1}


def figures(section: Mapping[str, Any]) -> dict[str, float]:
    """The headline figures of a section under the names that trackers show, see docs/report.md."""
    values = {}
    if section["clean_accuracy"]:
        values["test_clean_accuracy"] = section["clean_accuracy"]["top1"]
    for name, entry in section["attacks"].items():
        values |= {f"test_asr/{name}": entry["asr"]["top1"], f"test_floor/{name}": entry["floor"]["top1"]}
    if "linear_probe" in section:
        values["test_linear_probe"] = section["linear_probe"]["top1"]
    if "retrieval" in section:
        for direction in ("image_to_text", "text_to_image"):
            values[f"test_{direction}_recall@1"] = section["retrieval"][direction]["top1"]
        for name, entry in section["retrieval"]["attacks"].items():
            values[f"test_retrieval_asr/{name}"] = entry["asr"]["top1"]
    return values
