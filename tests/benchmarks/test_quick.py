"""The committed tables say what their committed results say."""

from __future__ import annotations

import importlib
import importlib.util
import json
from pathlib import Path

import pytest


ROOT = Path(__file__).parents[2]
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
    readme = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    assert quick.with_headline(readme, content["cells"]) == readme
    assert quick.headline(content["cells"]) in readme
    for row, (_, seeds) in quick.ROWS.items():
        own = [cell for cell in content["cells"] if cell["row"] == row]
        assert len(own) == len(seeds) * len(quick.METHODS)
        # What the methods of one seed start from is one model.
        assert len({(cell["seed"], cell["asr_before"], cell["ca_before"]) for cell in own}) == len(seeds)


def test_every_step_of_the_quick_table_is_accepted_by_its_script(quick, tmp_path):
    """And no two rows share a folder, but for the never-poisoned models."""
    folders = []
    for attack, seeds in quick.ROWS.values():
        for seed in seeds:
            steps = [quick.never_poisoned(tmp_path, seed), *quick.steps_of(tmp_path, attack, seed)]
            assert [Path(step.command[0]).stem for step in steps][-3:] == ["clean"] * 3
            starts = {step.command[step.command.index("--model") + 1] for step in steps[-3:]}
            assert starts == {str(steps[-4].folder)} and steps[-4].folder.name.endswith("-backdoored")
            for step in steps:
                command = importlib.import_module(f"hf_ta_cleaner.commands.{Path(step.command[0]).stem}")
                parsed = command.make_parser().parse(list(step.command[1:]))
                assert any(str(getattr(part, "output_dir", "")) == step.command[-1] for part in parsed)
            folders += [step.folder for step in steps[1:]]
    assert len(set(folders)) == len(folders)
