"""The plan of the defences: sizes, commands, worlds and command lines. Nothing is run."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest

from benchmarks.defences import __main__ as command
from benchmarks.defences import run, table
from benchmarks.defences.plan import (
    ABLATIONS,
    ATTACKERS,
    LORA,
    METHODS,
    PARTS,
    PLUS_ABLATIONS,
    ROWS,
    SIX,
    WHOLE,
    Planner,
    unique_steps,
)
from benchmarks.harness import steps as steps_of_harness
from benchmarks.harness.steps import Step
from benchmarks.photos.world import photos_world


def flag(step: Step, name: str) -> str:
    return step.command[step.command.index(name) + 1]


def test_sizes(planner):
    columns = len(METHODS) + 1
    counts = {part: len(planner.cells(part, 1)) for part in PARTS}
    assert counts["t1"] == 2 * columns and len(planner.cells("t1", 3)) == 3 * counts["t1"]
    assert counts["t2"] == 6 * columns
    assert counts["t3"] == 5 * columns + len(METHODS)  # the never-poisoned row is its own reference
    assert counts["whole"] == len(WHOLE) * columns
    # Five rungs; every chosen strength here is one of them.
    assert counts["frontier"] == 2 * len(METHODS) * 5 + 2 * 2 * 5  # two methods have two seeds more on BadCLIP
    assert counts["rebound"] == 2 * 2 * len(METHODS)
    assert counts["budget"] == 2 * 4 * 3
    assert counts["domain"] == 2 * len(METHODS)
    assert counts["adaptive"] == 2 * len(ATTACKERS) * 5
    assert counts["ablation"] == 2 * (len(ABLATIONS) + 1 + len(PLUS_ABLATIONS) + 3 + 2 + 2)
    assert counts["lora"] == 2 * len(LORA)
    assert counts["maps"] == len(WHOLE) + 2
    assert set(SIX) < set(ROWS)


@pytest.mark.parametrize("part", PARTS)
def test_every_command_can_be_parsed(planner, part):
    """By the command's own parser: no flag of the plan is unknown to it."""
    seen = set()
    for step in unique_steps(planner.cells(part, 1)):
        name = Path(step.command[0]).stem
        if name == "prepare" or (name, *step.command[1:12:2]) in seen:
            continue
        seen.add((name, *step.command[1:12:2]))
        module = importlib.import_module(f"hf_ta_cleaner.commands.{name}")
        parsed = module.make_parser().parse(step.command[1:])
        assert [str(part.output_dir) for part in parsed if hasattr(part, "output_dir")] == [str(step.folder)]


@pytest.mark.parametrize("part", PARTS)
def test_a_folder_belongs_to_one_command(planner, part):
    """Two steps with one folder would undo each other, within a part and between it and the first tier."""
    commands: dict[Path, tuple] = {}
    for step in unique_steps([*planner.cells("t1", 3), *planner.cells(part, 2)]):
        assert commands.setdefault(step.folder, step.command) == step.command
    names = [cell.name for cell in planner.cells(part, 2)]
    assert len(set(names)) == len(names)


def test_all_methods_get_the_same_data_and_their_own_strength(planner):
    cells = [cell for cell in planner.cells("t1", 1) if cell.row == "badclip" and cell.method != "none"]
    cleanings = [cell.steps[-1] for cell in cells]
    for name in ("--dataset", "--max_samples", "--seed", "--config", "--model", "--reference", "--ca_baseline"):
        assert len({flag(step, name) for step in cleanings}) == 1, name
    assert {c.method: float(flag(c.steps[-1], "--strength")) for c in cells} == {
        "ft": 1, "cleanclip": 2, "ta-cleaner": 1, "par": 0.5, "ta-cleaner-plus": 1
    }  # fmt: skip
    backdoors = {cell.steps[:-1] for cell in cells}
    assert len(backdoors) == 1  # made once, the patch first
    assert [Path(step.command[0]).name for step in backdoors.pop()] == ["craft.py", "poison.py", "backdoor.py"]


def test_parts_change_what_they_say(planner):
    rebound = planner.cells("rebound", 1)[1]
    cleaned, after = rebound.steps[-2:]
    assert flag(after, "--model") == str(cleaned.folder) and int(flag(after, "--max_steps")) >= 300
    assert flag(after, "--strength") == flag(cleaned, "--strength") == "2" and flag(after, "--method") == "ft"
    assert flag(after, "--dataset") == str(rebound.common[1].folder)
    budget = {cell.variant: cell.steps[-1] for cell in planner.cells("budget", 1)}
    assert [flag(step, "--max_samples") for step in budget.values()] == ["500", "2000", "5000", "20000"]
    assert len({flag(step, "--max_steps") for step in budget.values()}) == 1
    adaptive = {cell.variant: cell.steps for cell in planner.cells("adaptive", 1) if cell.method == "none"}
    rates = {name: float(flag(steps[-2], "--rate")) for name, steps in adaptive.items()}
    assert rates["four times the poison"] == 4 * rates["in-modal loss"]
    assert flag(adaptive["our own losses"][-1], "--method") == "ta-cleaner-plus"
    lora = planner.cells("lora", 1)[0].steps[-1]
    assert "--use_peft" in lora.command and "--merge_adapter" in lora.command
    control = next(c for c in planner.cells("t3", 1) if c.row == "never-poisoned")
    assert flag(control.steps[-1], "--model") == "sandbox" and "--reference" not in control.steps[-1].command


def test_minutes_learn_from_what_was_measured(planner):
    cells = planner.cells("t1", 1)
    steps = unique_steps(cells)
    whole = steps_of_harness.minutes(steps, steps, 1)
    assert whole == pytest.approx(sum(step.seconds for step in steps) / 60)
    assert steps_of_harness.minutes(steps, steps, 2) == pytest.approx(whole / 2)
    first = steps[0]
    first.folder.mkdir(parents=True)
    (first.folder / ".step").write_text("\n".join(first.identity) + "\n")
    (first.folder / first.done).write_text("{}")
    (first.folder / steps_of_harness.SECONDS).write_text(f"{3 * first.seconds}\n")
    assert first.is_done
    assert steps_of_harness.minutes(steps, steps, 1) == pytest.approx(3 * (whole - first.seconds / 60))
    (first.folder / ".step").write_text("another command\n")
    assert not first.is_done


def test_the_plan_is_printed_and_nothing_is_run(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(steps_of_harness.subprocess, "run", lambda *args, **kwargs: pytest.fail("a plan runs nothing"))
    command.main(["--part", "t1", "rebound", "--plan", "--output_dir", str(tmp_path / "out"), "--jobs", "2"])
    said = capsys.readouterr().out
    assert "first the rule for the strengths" in said and "t1: 36 cells" in said and "rebound: 20 cells" in said
    assert "badclip / 0 / ta-cleaner-plus" in said and "in all" in said
    assert not (tmp_path / "out").exists()


def test_rows_methods_and_one_strength(planner, tmp_path):
    line = ["--part", "t1", "whole", "--rows", "badclip", "blur", "--methods", "par", "--at", "0.5"]
    args = command.parse(line)
    assert [(c.row, c.method) for c in command.wanted(planner, "t1", args)][:2] == [
        ("badclip", "none"),
        ("badclip", "par"),
    ]
    assert {c.row for part in args.part for c in command.wanted(planner, part, args)} == {"badclip", "blur"}
    choice = run.fix_strengths(planner, METHODS, args.at)
    assert set(choice.strengths.values()) == {0.5}
    written = json.loads((tmp_path / "rule.json").read_text())
    text = table.to_markdown({"cells": [], "rule": written, "command": "", "machine": {}})
    assert "All methods at strength 0.5. It was not settled by the rule." in text


@pytest.mark.parametrize("attack", ["badclip", "color-cast"])
def test_the_world_of_photographs(attack, tmp_path):
    """Its own model, data, target and training; no flag is of the sandbox."""
    world = photos_world("photos/", tmp_path / "clip", tmp_path / "data")
    own = Planner(tmp_path, tmp_path / "bench", dict.fromkeys(METHODS, 1.0), world=world)
    cell = own.cell("t1", attack, 1, "ta-cleaner")
    for step in (*world.prepared, *cell.common, *cell.steps):
        assert "sandbox" not in step.command and "banana" not in step.command
    backdoor, cleaning = cell.steps[-2:]
    assert float(flag(backdoor, "--learning_rate")) == world.presets[attack].learning_rate
    assert flag(cleaning, "--dataset") == str(tmp_path / "data" / "clean")
    assert flag(cleaning, "--reference") == str(tmp_path / "clip")
    for step in cell.steps:
        name = Path(step.command[0]).stem
        importlib.import_module(f"hf_ta_cleaner.commands.{name}").make_parser().parse(step.command[1:])


@pytest.mark.parametrize("line", [[], ["--plan"], ["--part", "t9"], ["--part", "t1", "--seeds", "0"]])
def test_bad_command_lines(line, capsys):
    with pytest.raises(SystemExit) as stop:
        command.main(line)
    assert stop.value.code == 2


@pytest.mark.parametrize("part", PARTS)
def test_every_part_of_the_photographs_uses_their_own_pairs(part, tmp_path):
    world = photos_world("photos/", tmp_path / "clip", tmp_path / "data")
    own = Planner(tmp_path, tmp_path / "bench", dict.fromkeys((*METHODS, *LORA), 1.0), world=world)
    cells = own.cells(part, 1)
    assert cells
    for step in unique_steps(cells):
        assert not any("banana" in word for word in step.command) and "sandbox" not in step.command
        if step.command[0] == "benchmarks/defences/prepare.py":
            dataset = world.rebound if step.command[1].startswith("rebound") else world.clean
            assert (flag(step, "--dataset"), flag(step, "--target")) == (dataset, "frog")


def test_a_row_without_a_preset_is_left_out(tmp_path):
    world = photos_world("photos/", tmp_path / "clip", tmp_path / "data")
    own = Planner(tmp_path, tmp_path / "bench", dict.fromkeys(METHODS, 1.0), world=world)
    assert {cell.row for cell in own.cells("t3", 1)} == {"never-poisoned"}


def test_the_sandbox_is_prepared_by_the_command_it_always_was(planner):
    """Other words would make its finished steps run again."""
    step = planner.prepare("rebound", 0, 60)
    assert step.command == ("benchmarks/defences/prepare.py", "rebound", "--seed", "0", str(step.folder))
