"""The evaluation of the scan: its plan keeps clear of the calibration, its figures are as by hand, it resumes."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.harness.steps import Step
from benchmarks.scan import __main__ as bench
from benchmarks.scan.measure import precision_at
from benchmarks.scan.plan import ATTACKS, FIRST_SEED, SIX, Cell, all_cells, unique
from benchmarks.scan.table import judged, markdown, rate
from hf_ta_cleaner.commands import commands
from hf_ta_cleaner.detection.scan import NOTHING, SUSPICIOUS, UNSURE, Thresholds
from hf_ta_cleaner.detection.screening import auroc, auroc_interval


def test_the_plan_is_what_the_readme_says():
    cells = all_cells(Path("out"))
    kinds = [cell.kind for cell in cells]
    assert (kinds.count("clean"), kinds.count("backdoored"), kinds.count("data")) == (20, 30, 18)
    assert len({cell.name for cell in cells}) == len(cells)
    assert all(cell.seed >= FIRST_SEED == 10 for cell in cells)
    assert {cell.attack for cell in cells if cell.kind == "backdoored"} == set(ATTACKS) >= set(SIX)
    assert len({s.folder for s in unique(cells)}) == len(unique(cells))  # no two steps write to one folder


def test_its_commands_parse():
    parsers: dict = {}
    for s in unique(all_cells(Path("out"))):
        if (name := Path(s.command[0]).stem) in commands():
            if name not in parsers:
                parsers[name] = importlib.import_module(f"hf_ta_cleaner.commands.{name}").make_parser()
            parsers[name].parse_args(s.command[1:])
    assert set(parsers) == {"craft", "poison", "backdoor", "clean", "scan"}


def test_figures_as_by_hand():
    assert auroc([3, 1], [2, 0]) == pytest.approx(3 / 4)
    assert auroc([1, 1], [1, 1]) == 0.5
    low, high = auroc_interval(np.arange(20) + 3, np.arange(20))
    assert 0 < low < auroc(np.arange(20) + 3, np.arange(20)) < high < 1
    scores, poisoned = np.array([5, 4, 3, 2, 1.0]), np.array([True, False, True, False, False])
    assert precision_at(scores, poisoned) == 0.5
    assert rate(9, 10).startswith("9 of 10, 90% [60, 98]") and rate(0, 0) == "none"


def test_a_finished_step_is_not_run_again(tmp_path, monkeypatch, capsys):
    code = "import pathlib, sys; p = pathlib.Path(sys.argv[-1]); (p / 'done').write_text('x'); sys.exit(3)"
    (tmp_path / "script.py").write_text(code)
    script = str(tmp_path / "script.py")
    steps = [Step((script, str(tmp_path / name)), "done", 120.0, codes=(0, 3)) for name in ("shared", "own")]
    cells = [Cell("a", "clean", "", 0.0, "", 10, tuple(steps)), Cell("b", "clean", "", 0.0, "", 11, (steps[0],))]
    assert bench.describe(cells, 2).endswith("2 cells, 2 steps; left: about 4 minutes of one core, 2 with 2 jobs")
    bench.run(cells, 2)
    assert bench.describe(cells, 2).endswith("left: about 0 minutes of one core, 0 with 2 jobs")
    monkeypatch.setattr(sys, "executable", "no-such-program")
    bench.run(cells, 2)  # nothing is left to start
    with pytest.raises(SystemExit):
        bench.main(["--only", "no-such-cell", "--plan"])
    assert "no cell is called no-such-cell" in capsys.readouterr().err


def test_a_measured_cell_needs_its_model_no_longer(tmp_path):
    cell = next(cell for cell in all_cells(tmp_path) if cell.kind == "backdoored")
    assert not cell.is_measured
    for s in cell.steps:
        if s.done in ("scan.json", "result.json"):
            assert not cell.is_measured
            s.folder.mkdir()
            (s.folder / s.done).touch()
    assert cell.is_measured and not all(s.is_done for s in cell.steps)
    assert bench.describe([cell], 1).splitlines()[0].endswith("done")
    bench.run([cell], 1)
    assert not any(s.folder.exists() for s in cell.steps if s.done == "model.safetensors")


def test_the_table_counts():
    def scanned(verdict: str, strength: float, target=None) -> dict:
        found = {"verdict": verdict, "strength": strength, "target": target, "best_patch": 0.5, "seconds": 1.0}
        found["device"] = "cpu"
        return {"alone": found, "referred": found}

    clean = [{"kind": "clean", **scanned("nothing found", 0.2 + i / 10)} for i in range(4)]
    screening = {"auroc": 0.9, "interval95": [0.8, 1.0], "caught": 0.5, "false_alarms": 0.05, "n": 500}
    common = {"kind": "backdoored", "attack": "blended", "rate": 0.05, "target": "car", "screening": screening}
    bad = [
        {**common, "took": True, "asr": 0.9, **scanned("suspicious", 2.0, "car")},
        {**common, "took": True, "asr": 0.9, **scanned("suspicious", 1.5, "bus")},
        {**common, "took": False, "asr": 0.1, **scanned("nothing found", 0.1)},
    ]
    text = markdown([*clean, *bad])
    line = next(line for line in text.splitlines() if line.startswith("| without a reference"))
    assert (
        "2 of 2, 100%" in line
        and "0 of 4, 0%" in line
        and "1 of 2, 50%" in line
        and "| 1.000 [1.000, 1.000] |" in line
    )
    assert "10.0%, did not take: not counted" in text
    assert "7 models made and scanned on a CPU, in fp32." in text


def test_a_scan_is_judged_by_one_set_of_thresholds():
    """Whatever its own verdict is: it was scanned when they were others."""
    panel = [{"trigger": "blend", "label": "ant", "rate": 0.30, "reference_rate": 0.05}]
    patches = [{"label": "bee", "rate": 0.60, "reference_rate": 0.30}]
    patches.append({"label": "ant", "rate": 0.2, "reference_rate": 0.1})
    scan = SimpleNamespace(panel=panel, patches=patches, labels=9, reference="sandbox", verdict="nothing found")
    assert judged(scan) == {"verdict": SUSPICIOUS, "target": "bee", "strength": pytest.approx(0.3 / 0.28)}
    assert judged(scan, Thresholds(patch_excess=0.4))["verdict"] == NOTHING
    found = judged(scan, Thresholds(patch_excess=0.4, panel_excess=0.2))
    assert (found["verdict"], found["target"], found["strength"]) == (SUSPICIOUS, "ant", pytest.approx(1.25))
    scan.reference = None
    for row in (*panel, *patches):
        del row["reference_rate"]
    assert judged(scan, Thresholds(patch_alone=0.7, patch_unsure=0.6))["verdict"] == UNSURE


def test_the_committed_table_is_that_of_the_cells_and_the_texts_agree():
    rows = json.loads((bench.HERE / "scan.json").read_text())["cells"]
    assert markdown(rows) == (bench.HERE / "scan.md").read_text()
    clean, bad = ([row for row in rows if row["kind"] == kind] for kind in ("clean", "backdoored"))
    bad = [row for row in bad if row["took"]]
    found, alarms = (sum(row["referred"]["verdict"] == SUSPICIOUS for row in group) for group in (bad, clean))
    alone = [sum(row["alone"]["verdict"] == SUSPICIOUS for row in group) for group in (bad, clean)]
    assert f"without, {alone[0]} and {alone[1]}" in (bench.HERE.parents[1] / "docs" / "scan.md").read_text()
    assert f"Without a reference {alone[0]} of {len(bad)}" in (bench.HERE / "README.md").read_text()
    said = f"{found} of {len(bad)} backdoored"
    for text in (bench.HERE / "README.md", bench.HERE.parents[1] / "docs" / "scan.md"):
        content = " ".join(text.read_text().split())
        assert said in content and f"{alarms} of {len(clean)} clean ones is suspected" in content
