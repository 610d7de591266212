"""A valid report with made-up figures, for what is written about reports and published with them."""

from __future__ import annotations

from typing import Any

from hf_ta_cleaner.publishing.report import Report


def ranks(top1: float) -> dict[str, float]:
    return {"top1": top1, "top3": 0.97, "top5": 0.98, "top10": 1.0}


def section(clean: float, asr: float, attack: str = "blended") -> dict[str, Any]:
    rates = {"asr": ranks(asr), "asr_including_target": ranks(asr), "floor": ranks(0.004)}
    rates |= {"accuracy_under_trigger": ranks(0.3), "n": 980, "seed": 5, "target": "banana"}
    rates["interval95"] = {"asr_top1": [max(0.0, asr - 0.01), min(1.0, asr + 0.01)]}
    rates["trigger"] = {"name": attack, "params": {"alpha": 0.2}}
    accuracy = {**ranks(clean), "n": 1000, "interval95": {"top1": [clean - 0.02, clean + 0.02]}}
    return {"clean_accuracy": accuracy, "attacks": {attack: rates}}


def a_report(**values: Any) -> Report:
    """Blended, 94.1% before and 0.9% after; clean accuracy 67.6% and 67.2%."""
    return Report(
        **{
            "method": "ta-cleaner",
            "seed": 0,
            "target": "banana",
            "before": section(0.676, 0.941),
            "after": section(0.672, 0.009),
            "cost": {"pairs_seen": 20000, "seconds": 312.4, "device": "cuda"},
            "ca_loss": {"value": 0.004, "interval95": [-0.01, 0.02], "baseline": "suspect", "definition": "top-1"},
            "dataset": "ethz/food101",
            "versions": {"torch": "2.13.0", "transformers": "5.23.0"},
            "created": "2026-01-02T03:04:05+00:00",
            **values,
        }
    )
