"""The committed tables say what their committed results say."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest


ROOT = Path(__file__).parent.parent
BENCHMARKS = ROOT / "benchmarks"


@pytest.fixture(scope="module")
def quick():
    spec = importlib.util.spec_from_file_location("benchmark_quick", BENCHMARKS / "quick.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def cell(row: str, method: str, seed: int, asr: float) -> dict:
    rates = dict.fromkeys(("floor", "never_poisoned_asr", "excess", "ca_before", "ca", "asr_top10"), 0.125)
    pairs = {key: [0.0, 0.25] for key in ("asr_interval95", "ca_loss_interval95")}
    named = {"row": row, "method": method, "seed": seed, "asr_before": 0.9, "asr": asr, "ca_loss": 0.02}
    return {**named, **rates, **pairs, "n": 100, "seconds": 60, "pairs_seen": 20_000}


def test_the_headline_is_the_mean_over_the_seeds(quick):
    results = [
        cell("blended", method, seed, asr + 0.1 * seed)
        for method, asr in zip(quick.METHODS, (0.5, 0.3, 0.0), strict=True)
        for seed in (0, 1)
    ]
    last = quick.headline(results).splitlines()[-1]
    assert last == "| blended | 2 | 90.0 | 55.0 | 35.0 | 5.0 | 12.5 | 2.0 |"


def test_a_row_without_all_methods_is_left_out(quick):
    assert "blended" not in quick.headline([cell("blended", "ft", 0, 0.5)])


def test_the_readme_keeps_everything_else(quick):
    start, end = quick.MARKS
    text = quick.with_headline(f"above\n{start}\nold\n{end}\nbelow\n", [])
    assert text.startswith(f"above\n{start}\n| attack") and text.endswith(f"{end}\nbelow\n") and "old" not in text


@pytest.mark.skipif(not (BENCHMARKS / "quick.json").exists(), reason="benchmarks/quick.json has not been made yet")
def test_the_committed_tables_are_those_of_the_results(quick):
    content = json.loads((BENCHMARKS / "quick.json").read_text(encoding="utf-8"))
    assert (BENCHMARKS / "quick.md").read_text(encoding="utf-8") == quick.table(content["cells"], content["machine"])
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert quick.with_headline(readme, content["cells"]) == readme
    assert quick.headline(content["cells"]) in readme
