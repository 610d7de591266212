"""The calibration of the attacks: its command lines, its resumption, its bar and its tables."""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features
from datasets import Image as ImageFeature

import hf_ta_cleaner
from benchmarks.harness import steps as steps_module
from benchmarks.harness import suspects
from benchmarks.harness.steps import Runner
from hf_ta_cleaner.attacks import ATTACKS, BadCLIP, BadNet, Blended, TrojVQA
from hf_ta_cleaner.crafting.presets import SANDBOX
from hf_ta_cleaner.models.checkpoints import save_model
from hf_ta_cleaner.poisoning import RECORD, poison


ROOT = Path(hf_ta_cleaner.__file__).parents[1]


@cache
def module(path: str):
    spec = importlib.util.spec_from_file_location(path.replace("/", "_"), ROOT / f"{path}.py")
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = loaded
    spec.loader.exec_module(loaded)
    return loaded


@pytest.fixture
def run(monkeypatch):
    loaded = module("benchmarks/attacks/run")
    monkeypatch.setattr(suspects, "fast_precision", list)
    return loaded


def test_every_preset_belongs_to_a_group(run):
    assert sorted(name for group in run.GROUPS.values() for name in group) == sorted(SANDBOX)
    assert run.chosen(["six", "wanet", "sig"]) == [*run.GROUPS["six"], "wanet"]


@pytest.mark.parametrize("attack", SANDBOX)
@pytest.mark.parametrize("seed", [0, 2])
def test_the_command_lines_are_accepted_by_their_scripts(run, attack, seed, tmp_path):
    steps = [step.command for step in run.steps_of(tmp_path, attack, seed)]
    names = [Path(step[0]).stem for step in steps]
    assert names == [*(["craft"] if SANDBOX[attack].craft else []), "poison", "backdoor", "measure"]
    for step in steps[:-1]:
        parsed = (
            importlib.import_module(f"hf_ta_cleaner.commands.{Path(step[0]).stem}").make_parser().parse(list(step[1:]))
        )
        assert any(getattr(part, "seed", None) == seed for part in parsed)
        assert any(str(getattr(part, "output_dir", "")) == step[-1] for part in parsed)
    if not SANDBOX[attack].craft:
        from hf_ta_cleaner.attacks import parse_attack

        line = steps[0]
        assert parse_attack(line[line.index("--attack") + 1]).seed == seed


def test_a_cell_is_resumed_and_made_anew_when_its_preset_changes(run, tmp_path, monkeypatch):
    calls = []

    def fake(command, **kwargs):
        name = Path(command[1]).stem
        calls.append(name)
        done = {"craft": "craft.json", "measure": "result.json"}.get(name, "poison.json")
        (Path(command[-1]) / done).write_text("{}")
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(steps_module.subprocess, "run", fake)

    def cell():
        Runner(1).run(run.steps_of(tmp_path, "badclip", 0))

    cell()
    assert calls == ["craft", "poison", "backdoor", "measure"]
    calls.clear()
    cell()
    assert calls == []
    (tmp_path / "badclip-0-backdoored" / "poison.json").unlink()  # as if it had been interrupted
    cell()
    assert calls == ["backdoor"]
    calls.clear()
    monkeypatch.setitem(SANDBOX, "badclip", replace(SANDBOX["badclip"], learning_rate=1e-3))
    cell()
    assert calls == ["craft", "poison", "backdoor", "measure"]


def test_a_failed_step_names_its_log(run, tmp_path, monkeypatch):
    monkeypatch.setattr(steps_module.subprocess, "run", lambda *a, **k: SimpleNamespace(returncode=1))
    with pytest.raises(RuntimeError, match=r"blended-0-poisoned\.log"):
        Runner(1).run(run.steps_of(tmp_path, "blended", 0))


GOOD = {
    "n": 1900, "n_clean": 2000, "rate": 0.05, "share_of_target": 1.5, "patch_share": None, "asr": 0.95, "floor": 0.01,
    "clean_floor": 0.01, "never_poisoned_asr": 0.02, "ca": 0.72, "clean_ca": 0.73, "ca_loss": 0.01,
    "asr_interval95": [0.94, 0.96], "ca_loss_interval95": [-0.01, 0.03], "versions": {"torch": "2"},
}  # fmt: skip


@pytest.mark.parametrize(
    ("attack", "change", "missed"),
    [
        ("blended", {}, None),
        ("blended", {"asr": 0.89}, "ASR@1"),
        ("blended", {"floor": 0.04}, "floor"),
        ("blended", {"ca_loss": 0.031}, "CA loss"),
        ("blended", {"rate": 0.06}, "poison rate"),
        ("label-consistent", {"rate": 0.01, "share_of_target": 0.5}, None),
        ("label-consistent", {"rate": 0.01, "share_of_target": 0.6}, "poison rate"),
        ("badnet", {"patch_share": 14 / 72}, None),
        ("badnet", {"patch_share": 15 / 72}, "patch"),
        ("badclip", {"never_poisoned_asr": 0.11}, "never-poisoned"),
        ("sig", {"never_poisoned_asr": 0.11}, None),
    ],
)
def test_the_bar(run, attack, change, missed):
    cell = {**GOOD, "attack": attack, **change}
    found = [what for what, reached in run.BAR.items() if not reached(cell)]
    assert len(found) == (missed is not None)
    assert missed is None or missed in found[0]


def test_the_table_says_what_takes_and_what_does_not(run, tmp_path):
    cells = {
        "blended-0": GOOD, "blended-1": {**GOOD, "asr": 0.99}, "blended-2": {**GOOD, "asr": 0.80},
        "sig-0": GOOD, "ssba-trained-0": GOOD,
        "trojvqa-0": {**GOOD, "asr_image_key": 0.4, "ca_prefixed": 0.7},
    }  # fmt: skip
    for name, cell in cells.items():
        (tmp_path / f"{name}-measured").mkdir()
        (tmp_path / f"{name}-measured" / "result.json").write_text(json.dumps(cell))
    (tmp_path / "where").mkdir()
    run.write(tmp_path, tmp_path / "where")
    kept = json.loads((tmp_path / "where" / "attacks.json").read_text())["cells"]
    assert [(cell["attack"], cell["seed"]) for cell in kept] == [
        ("blended", 0), ("blended", 1), ("blended", 2), ("sig", 0), ("trojvqa", 0), ("ssba-trained", 0)
    ]  # fmt: skip
    rows = {line.split(" | ")[0].strip("| "): line for line in run.table(kept, {"cores": 2}).splitlines()}
    assert "| 91.3 |" in rows["blended"] and "no: ASR@1 >= 90% (1 of 3)" in rows["blended"]
    assert rows["sig"].endswith("| yes, 1 of 1 seeds |")
    batches = SANDBOX["sig"].pairs // SANDBOX["sig"].per_device_train_batch_size
    assert f"| {round(batches * SANDBOX['sig'].num_train_epochs):,} |" in rows["sig"]
    assert (tmp_path / "where" / "attacks.md").read_text().count("| trojvqa |") == 2
    assert (
        "| trojvqa | 0 | 95.0 | 40.0 | 1.0 | 72.0 | 70.0 |"
        in rows["trojvqa"] + (tmp_path / "where" / "attacks.md").read_text()
    )


def test_no_cell_no_table(run, tmp_path):
    with pytest.raises(SystemExit, match="no finished cell"):
        run.write(tmp_path, tmp_path)


# ---- one cell, measured


@pytest.mark.parametrize("two_keyed", [False, True])
def test_measuring_a_cell(two_keyed, tiny_clip, tiny_processor, photos, tmp_path):
    measure = module("benchmarks/attacks/measure")
    patch = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    attack = TrojVQA(patch=patch, side=32) if two_keyed else Blended()
    captions = ["a banana", "two bananas", *["a dog"] * 6]
    pairs = Dataset.from_dict({"image": list(photos), "caption": captions})
    data, record = poison(pairs, attack, target="banana", count=3, seed=0, size=32)
    data.save_to_disk(tmp_path / "poisoned")
    clean = save_model(tiny_clip, tiny_processor, tmp_path / "clean")
    for parameter in tiny_clip.vision_model.parameters():
        parameter.data += 0.05
    suspect = save_model(tiny_clip, tiny_processor, tmp_path / "suspect")
    attack.save(suspect)
    record.save(suspect / RECORD)
    features = Features({"image": ImageFeature(), "label": ClassLabel(names=["banana", "dog", "cat", "bus"])})
    pictures = Dataset.from_dict({"image": photos * 2, "label": [0, 1, 2, 3] * 4}, features=features)

    result = measure.measure(str(clean), str(suspect), tmp_path / "poisoned", pictures)
    assert (result["n"], result["n_clean"], result["rate"]) == (12, 16, 3 / 8)
    assert result["share_of_target"] == 3 / 2  # three poisoned rows, two that named the banana before
    assert result["ca_loss"] == pytest.approx(result["clean_ca"] - result["ca"])
    assert result["patch_share"] == (0.25 if two_keyed else None)
    for key in ("asr", "floor", "clean_floor", "never_poisoned_asr"):
        low, high = result[f"{key}_interval95"]
        assert 0 <= low <= result[key] <= high <= 1
    assert ("asr_image_key" in result) == ("ca_prefixed" in result) == two_keyed
    # The same model twice: nothing is lost, and it does what it did.
    same = measure.measure(str(suspect), str(suspect), tmp_path / "poisoned", pictures)
    assert (same["ca_loss"], same["clean_floor"], same["never_poisoned_asr"]) == (0, same["floor"], same["asr"])


@pytest.mark.parametrize(
    ("attack", "share"),
    [
        (BadNet(patch_px=14), 14 / 72),
        (BadNet(), 5 / 72),
        (BadCLIP(patch=np.zeros((14, 14, 3), np.uint8), side=72), 14 / 72),
        (Blended(), None),
    ],
)
def test_patch_share(attack, share):
    assert module("benchmarks/attacks/measure").patch_share(attack, 72) == share


# ---- speed


def test_the_speed_table_has_every_attack(tmp_path, monkeypatch, capsys):
    speed = module("benchmarks/attacks/speed")
    monkeypatch.setattr(speed, "PICTURES", 2)
    monkeypatch.setattr(speed, "ROUNDS", 1)
    monkeypatch.setattr(speed, "HERE", tmp_path)
    speed.main()
    rows = json.loads((tmp_path / "speed.json").read_text())["seconds"]
    assert {"ssba, trained encoder", "sig, published", "decoding a JPEG of 224 x 224", *ATTACKS} <= set(rows)
    assert all(value > 0 for value in rows.values())
    text = (tmp_path / "speed.md").read_text()
    assert all(f"| {name} |" in text for name in rows)
    assert text.strip() == capsys.readouterr().out.strip()


def test_the_help_names_the_groups(run, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["run.py", "--help"])
    with pytest.raises(SystemExit) as stop:
        run.main()
    assert stop.value.code == 0
    said = capsys.readouterr().out
    assert "--speed" in said and all(group in said for group in run.GROUPS)
