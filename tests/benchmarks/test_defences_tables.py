"""The rule for the strengths, the cells, the tables and the README's headline, from reports written by hand."""

from __future__ import annotations

import json

import pytest

from benchmarks.defences import __main__ as command
from benchmarks.defences import run, table
from benchmarks.defences.plan import METHODS
from benchmarks.defences.rule import choose
from benchmarks.harness import ROOT
from benchmarks.harness.tables import replace_block


def test_the_rule():
    """By a table of accuracies: base 0.50; ft lifts it to 0.53, so everyone is held to 0.52."""
    accuracies = {
        "ft": {1.0: 0.53, 2.0: 0.525, 4.0: 0.50},
        "cleanclip": {1.0: 0.51, 0.5: 0.52},  # exactly one point below: still inside
        "ta-cleaner": {1.0: 0.60, 2.0: 0.58, 4.0: 0.55, 8.0: 0.53},
        "par": {1.0: 0.3, 0.5: 0.4, 0.25: 0.45, 0.125: 0.5},
    }
    asked = []

    def measure(method, strength):
        asked.append((method, strength))
        return 0.50, accuracies[method][strength]

    choice = choose(measure, ["par", "cleanclip", "ft", "ta-cleaner"], jobs=2)
    assert choice.reference == 0.53
    assert choice.strengths == {"ft": 2.0, "par": 0.125, "cleanclip": 0.5, "ta-cleaner": 8.0}
    assert sorted(asked) == sorted((m, s) for m, tried in accuracies.items() for s in tried)
    assert asked[0] == ("ft", 1.0)
    written = json.loads(json.dumps(choice.to_dict()))
    assert written["tried"]["cleanclip"] == {"0.5": 0.52, "1": 0.51} and "one point below" in written["rule"]


def test_a_base_that_ft_cannot_improve_is_the_reference():
    choice = choose(lambda method, s: (0.5, 0.495 if s <= 1 else 0.4), ["ft"])
    assert choice.reference == 0.5 and choice.strengths == {"ft": 1.0}


def report(asr: float, ca: float, before: float = 0.9) -> dict:
    def section(asr, ca):
        entry = {
            "n": 100,
            "asr": {"top1": asr, "top3": 1.0, "top10": 1.0},
            "floor": {"top1": 0.01, "top3": 0.02, "top10": 0.1},
            "interval95": {"asr_top1": [max(asr - 0.05, 0), asr + 0.05]},
            "reference_asr": {"top1": 0.02, "top3": 0.05, "top10": 0.1},
            "excess": {"top1": asr - 0.02},
        }
        return {"clean_accuracy": {"top1": ca}, "attacks": {"x": entry}}

    return {
        "before": section(before, 0.7),
        "after": section(asr, ca),
        "cost": {"pairs_seen": 1000, "seconds": 10.0, "device": "cpu"},
        "ca_loss": {"value": 0.7 - ca, "interval95": [0.69 - ca, 0.71 - ca]},
        "versions": {"torch": "2"},
    }


#: method -> ASR@1 by row and seed.
ASR = {
    "ft": {"badclip": (0.8, 0.9, 0.7), "blended": (0.4, 0.4, 0.4)},
    "cleanclip": {"badclip": (0.7, 0.8, 0.6), "blended": (0.2, 0.2, 0.2)},
    "ta-cleaner": {"badclip": (0.3, 0.3, 0.3), "blended": (0.02, 0.0, 0.01)},
    "par": {"badclip": (0.1, 0.2, 0.3), "blended": (0.0, 0.0, 0.0)},
    "ta-cleaner-plus": {"badclip": (0.05, 0.05, 0.05), "blended": (0.02, 0.02, 0.02)},
}


@pytest.fixture
def cells(planner) -> list[dict]:
    found = []
    for cell in planner.cells("t1", 3):
        asr = 0.9 if cell.method == "none" else ASR[cell.method][cell.row][cell.seed]
        found.append(table.summary(cell, report(asr, 0.68)))
    return found


def test_a_cell_holds_what_the_report_says(planner):
    cell = next(c for c in planner.cells("t1", 1) if c.method == "cleanclip")
    got = table.summary(cell, report(0.3, 0.65))
    expected = {"row": "badclip", "seed": 0, "method": "cleanclip", "asr": 0.3, "asr_before": 0.9, "floor": 0.01}
    expected |= {"never_poisoned_asr": 0.02, "ca": 0.65, "ca_before": 0.7, "strength": 2.0, "pairs_seen": 1000}
    assert {key: got[key] for key in expected} == expected
    assert got["excess"] == pytest.approx(0.28) and got["ca_loss"] == pytest.approx(0.05)
    none = table.summary(planner.cells("t1", 1)[0], report(0.3, 0.65))
    assert none["method"] == "none" and none["asr"] == 0.9 and "ca_loss" not in none
    back = table.summary(planner.cells("rebound", 1)[0], report(0.4, 0.65, before=0.1))
    assert back["rebound"] == pytest.approx(0.3)


def test_part_table(cells):
    lines = table.part_table(cells).splitlines()
    head = [name.strip() for name in lines[0].strip("|").split("|")]
    rows = [dict(zip(head, (v.strip() for v in line.strip("|").split("|")), strict=True)) for line in lines[2:]]
    assert [(r["attack"], r["method"]) for r in rows] == [
        (row, m) for row in ("badclip", "blended") for m in ("none", *METHODS)
    ]
    par = next(r for r in rows if (r["attack"], r["method"]) == ("badclip", "par"))
    assert (par["seeds"], par["ASR@1"], par["excess"], par["strength"]) == ("3", "20.0", "18.0", "0.5")
    assert par["each seed [95% interval]"].split("; ")[1] == "20.0 [15.0, 25.0]"
    assert "variant" not in head and "rebound" not in head


def test_headline_means_over_attacks_and_names_the_worst(cells):
    (line,) = [line for line in table.goals(cells) if line["method"] == "ta-cleaner"]
    assert line["asr"] == pytest.approx({"badclip": 0.3, "blended": 0.01}) and line["excess"] == pytest.approx(
        (0.28 - 0.01) / 2
    )
    assert line["worst"] == "badclip" and line["worst_excess"] == pytest.approx(0.28)
    # The same cell in a second part does not count twice.
    again = [{**cell, "part": "t2"} for cell in cells if cell["seed"] == 0]
    assert table.goals([*cells, *again]) == table.goals(cells)
    text = table.headline({"cells": cells})
    assert "| method | strength | ASR@1 badclip | ASR@1 blended | mean excess |" in text
    assert "| ta-cleaner | 1 | 30.0 | 1.0 | 13.5 | 28.0 (badclip) | 68.0 | 2.0 |" in text
    assert text.endswith("| (never poisoned) | | 2.0 | 2.0 | | | | |")


def test_paired_interval_over_seeds(cells):
    # 0.4, 0.5, 0.3: mean 0.4, standard deviation 0.1, t(2) = 4.303, so 0.4 +- 4.303 * 0.1 / sqrt(3).
    middle, (low, high) = table.paired((0.7, 0.8, 0.6), (0.3, 0.3, 0.3))
    assert middle == pytest.approx(0.4) and (low, high) == pytest.approx((0.4 - 0.24844, 0.4 + 0.24844), abs=1e-4)
    assert table.paired((0.5,), (0.25,)) == (0.25, None)
    said = table.comparison(cells, "badclip", "cleanclip", "ta-cleaner")
    assert said.endswith("40.0 points over 3 seeds, 95% interval [15.2, 64.8]")
    assert table.comparison(cells, "sig", "cleanclip", "ta-cleaner") is None


def test_matched_on_the_frontier():
    def cell(method, strength, seed, ca, asr):
        place = {"part": "frontier", "row": "badclip", "method": method, "strength": strength, "seed": seed}
        return {**place, "ca": ca, "asr": asr}

    cells = [cell("a", 1, seed, 0.80, asr) for seed, asr in enumerate((0.7, 0.8, 0.6))]
    cells += [cell("b", 2, seed, 0.792, 0.3) for seed in range(3)]
    cells += [cell("b", 4, seed, 0.812, 0.1) for seed in range(3)]  # farther away, so not this one
    cells += [cell("a", 8, 0, 0.70, 0.2), cell("c", 2, 0, 0.80, 0.0)]  # nothing of b is within a point of it
    assert table.matched(cells, "badclip", "a", "b") == [
        "a at 1 (CA 80.0, ASR@1 70.0) minus b at 2 (CA 79.2, ASR@1 30.0): 40.0 points over 3 seeds, 95% interval "
        "[15.2, 64.8]"
    ]
    one = [c for c in cells if c["seed"] == 1]
    assert table.matched(one, "badclip", "a", "b")[0].endswith("50.0 points, one seed")
    assert table.matched(cells, "blended", "a", "b") == []
    assert table.matched([{**c, "part": "t1"} for c in cells], "badclip", "a", "b") == []


def test_the_readme_is_made_from_the_matrix(cells, tmp_path):
    readme, matrix = tmp_path / "README.md", tmp_path / "matrix.json"
    readme.write_text("# Title\n\n<!-- matrix:begin -->\nold\n<!-- matrix:end -->\n\nrest\n")
    matrix.write_text(json.dumps({"cells": cells}))
    command.write_readme(readme, matrix)
    text = readme.read_text()
    assert text.startswith("# Title\n\n") and text.endswith("\n\nrest\n") and "old" not in text
    assert table.headline({"cells": cells}) in text
    command.write_readme(readme, matrix)
    assert readme.read_text() == text
    readme.write_text("no markers\n")
    with pytest.raises(ValueError, match="needs a line"):
        command.write_readme(readme, matrix)
    assert readme.read_text() == "no markers\n"


def test_the_committed_tables_are_those_of_the_committed_matrix():
    folder = ROOT / "benchmarks" / "defences"
    matrix = json.loads((folder / "matrix.json").read_text())
    assert (folder / "matrix.md").read_text() == table.to_markdown(matrix)
    readme = (ROOT / "README.md").read_text()
    assert readme == replace_block(readme, "matrix", table.headline(matrix))
    assert matrix["rule"]["rule"] == choose(lambda m, s: (0.5, 0.5), ["ft"]).to_dict()["rule"]
    used = {
        (c["method"], c["strength"]) for c in matrix["cells"] if c["part"] in ("t1", "t2") and c["method"] != "none"
    }
    assert used == {(method, matrix["rule"]["strengths"][method]) for method in METHODS}


def test_cells_to_files_to_tables(planner, tmp_path, monkeypatch, capsys):
    """A finished step gives a cell, an unfinished one none; the tables are written from what is there."""
    frontier = [c for c in planner.cells("frontier", 1) if c.method in ("ft", "par")]
    t1 = planner.cells("t1", 1)
    for i, cell in enumerate([*t1[:4], *frontier]):
        for step in cell.steps:
            step.folder.mkdir(parents=True, exist_ok=True)
            (step.folder / ".step").write_text("\n".join(step.identity) + "\n")
            for name in (step.done, "report.json"):
                (step.folder / name).write_text(json.dumps(report(0.5 - 0.01 * i, 0.6 + 0.005 * i)))
    run.write_cells([*t1, *frontier], tmp_path)
    files = {path.stem for path in (tmp_path / "cells").glob("*.json")}
    assert {cell.name for cell in t1[:4]} < files and t1[-1].name not in files
    choice = choose(lambda m, s: (0.5, 0.5), METHODS)
    choice.recall = choice.tried
    (tmp_path / "rule.json").write_text(json.dumps(choice.to_dict()))
    monkeypatch.setattr(command, "HERE", tmp_path / "written")
    (tmp_path / "written").mkdir()
    command.write(tmp_path, command.HERE)
    matrix = json.loads((tmp_path / "written" / "matrix.json").read_text())
    assert len(matrix["cells"]) == len(files) and matrix["machine"]["torch"] == "2"
    text = (tmp_path / "written" / "matrix.md").read_text()
    assert "## BadCLIP and Blended" in text and "frontier.png" in text and "**8**" in text
    assert (tmp_path / "written" / "frontier.png").stat().st_size > 5000
