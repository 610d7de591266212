"""The command lines: parsing, the whole road on small models and data, bad input, and interruption."""

from __future__ import annotations

import csv
import functools
import importlib
import importlib.util
import json
import logging
import os
import signal
import subprocess
import sys
import time
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from PIL import Image

import hf_ta_cleaner
from hf_ta_cleaner.commands import commands
from hf_ta_cleaner.models.checkpoints import save_model
from hf_ta_cleaner.publishing.report import Report


SCRIPTS = Path(hf_ta_cleaner.__file__).parents[1] / "scripts"
PARSED = ("audit", "backdoor", "check_data", "clean", "craft", "poison", "push", "scan")


@cache
def script(name: str):
    """The module of a command, or scripts/<name>.py as a module."""
    if name in commands():
        return importlib.import_module(f"hf_ta_cleaner.commands.{name}")
    spec = importlib.util.spec_from_file_location(f"{name}_script", SCRIPTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def separate(tmp_path, monkeypatch):
    """Each test has its own working directory and data cache, and leaves the logging as it was."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / ".cache"))
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = before


@pytest.fixture
def suspect(tiny_clip, tiny_processor, tmp_path) -> Path:
    """A folder with a random CLIP, in the ordinary form."""
    return save_model(tiny_clip, tiny_processor, tmp_path / "suspect")


CAPTIONS = (
    "a red kettle on a wooden table",
    "two dogs run across a green field",
    "an old man reads a newspaper",
    "a small boat near the shore",
    "a photo of a yellow banana",
    "the woman holds a black umbrella",
)


def write_pairs(folder: Path, photos, header=("file_name", "caption"), captions=CAPTIONS, n: int = 24) -> Path:
    """`n` picture files of several formats and modes and a metadata.csv that gives them captions."""
    folder.mkdir()
    with (folder / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(header)
        for i in range(n):
            name = f"{i:02}.{('jpg', 'png', 'png')[i % 3]}"
            photos[i % len(photos)].convert(("RGB", "L", "RGBA")[i % 3]).save(folder / name)
            rows.writerow([name, captions[i % len(captions)]])
    return folder


@pytest.fixture
def world(suspect, photos, tmp_path) -> SimpleNamespace:
    """A model, captioned pictures, labelled pictures, and a place for the output."""
    labelled = tmp_path / "labelled"
    for i, name in enumerate(("banana", "kettle", "lamp")):
        (labelled / name).mkdir(parents=True)
        for j in range(4):
            photos[(i + j) % len(photos)].save(labelled / name / f"{j}.png")
    pairs = write_pairs(tmp_path / "pairs", photos)
    return SimpleNamespace(model=suspect, pairs=pairs, labelled=labelled, out=tmp_path / "out", photos=photos)


def cleaning(world, *more: object, out: Path | None = None) -> list[str]:
    """A small, complete command line of clean.py; later flags win."""
    line = ["--model", world.model, "--dataset", world.pairs, "--output_dir", out or world.out]
    return [str(word) for word in (*line, "--per_device_train_batch_size", 8, "--max_steps", 2, *more)]


# ---------------------------------------------------------------------------------------------- parsing


def parse(*argv: object, name: str = "clean"):
    return script(name).make_parser().parse([str(word) for word in argv])


@pytest.fixture
def config(tmp_path):
    def write(**values) -> Path:
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump(values))
        return path

    return write


def test_flag_beats_yaml_beats_default(config):
    path = config(seed=7, num_train_epochs=3, method="cleanclip")
    _, _, _, args = parse("--model", "m", "--config", path, "--seed", 9)
    assert (args.seed, args.num_train_epochs, args.method) == (9, 3.0, "cleanclip")
    assert args.per_device_train_batch_size == 64


def test_a_flag_beats_yaml_even_with_the_default_value(config):
    _, _, _, args = parse("--model", "m", "--config", config(seed=7), "--seed", 42)
    assert args.seed == 42


@pytest.mark.parametrize("text", ["1e-3", "0.001", "'1e-3'", "1.0e-3"])
def test_numbers_in_yaml_are_numbers(tmp_path, text):
    (tmp_path / "c.yaml").write_text(f"model: m\nlearning_rate: {text}\nmax_samples: 100\nnum_train_epochs: 2\n")
    _, pairs, _, args = parse("--config", tmp_path / "c.yaml")
    assert args.learning_rate == 1e-3 and isinstance(args.learning_rate, float)
    assert pairs.max_samples == 100 and isinstance(pairs.max_samples, int)
    assert isinstance(args.num_train_epochs, float)


def test_a_required_option_may_come_from_yaml(config):
    options, *_ = parse("--config", config(model="some/clip"))
    assert options.model == "some/clip"


@pytest.mark.parametrize("value", ["blended", ["blended"]])
def test_an_option_of_several_values_in_yaml_may_hold_one(config, value):
    _, _, proof, _ = parse("--config", config(model="m", trigger=value))
    assert proof.trigger == ["blended"]


@pytest.mark.parametrize(
    ("flags", "field", "value"),
    [
        ([], "resume", False),
        (["--resume"], "resume", True),
        (["--resume", "true"], "resume", True),
        (["--resume", "false"], "resume", False),
        ([], "trim_text", True),
        (["--no_trim_text"], "trim_text", False),
        (["--trim_text", "no"], "trim_text", False),
        (["--train_logit_scale", "0"], "train_logit_scale", False),
    ],
)
def test_switches(flags, field, value):
    options, _, _, args = parse("--model", "m", *flags)
    assert getattr(options if hasattr(options, field) else args, field) is value


@pytest.mark.parametrize(("given", "value"), [(True, True), (False, False), ("false", False)])
def test_switches_in_yaml(config, given, value):
    options, _, _, args = parse("--config", config(model="m", resume=given, trim_text=given))
    assert (options.resume, args.trim_text) == (value, value)


def test_print_config_goes_round(config, capsys, tmp_path):
    flags = ["--model", "m", "--trigger", "blended", "badnet", "--learning_rate", "3e-4", "--save_strategy", "no"]
    flags += ["--classnames_file", "names.txt", "--no_trim_text", "--method", "ft"]
    with pytest.raises(SystemExit) as stop:
        parse(*flags, "--print_config")
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    assert yaml.safe_load(printed) == {
        "model": "m",
        "trigger": ["blended", "badnet"],
        "learning_rate": 3e-4,
        "save_strategy": "no",
        "classnames_file": "names.txt",
        "trim_text": False,
        "method": "ft",
    }
    (tmp_path / "printed.yaml").write_text(printed)
    direct, again = parse(*flags), parse("--config", tmp_path / "printed.yaml")
    assert direct[:3] == again[:3]
    assert direct[3].to_dict() == again[3].to_dict()


def test_the_shipped_configurations_are_accepted():
    for path in sorted((SCRIPTS / "configs").glob("*.yaml")):
        name = path.stem.rsplit("_", 1)[1]
        parsed = parse("--config", path, "--model", "m", name=name if name in PARSED else "clean")
        for key, value in yaml.safe_load(path.read_text()).items():
            assert any(getattr(part, key, None) == value for part in parsed), (path.name, key)


@pytest.mark.parametrize(
    ("lines", "argv", "said"),
    [
        ("sede: 1\n", [], ["unknown keys sede", "--help-all"]),
        ("sede: 1\nmodle: m\n", [], ["modle, sede"]),
        ("config: other.yaml\n", [], ["unknown keys config"]),
        ("- seed\n", [], ["must map", "list"]),
        ("seed: [1\n", [], ["cannot be read"]),
        ("seed: soon\n", [], ["--seed", "soon"]),
        ("max_samples: 1.5\n", [], ["--max_samples", "1.5"]),
        ("seed: [1, 2]\n", [], ["seed", "[1, 2]"]),
        ("num_positive:\n", [], ["num_positive", "nothing"]),
        ("model:\n", [], ["model", "nothing"]),
        ("method: magic\n", [], ["magic", "ta-cleaner"]),
        ("save_strategy: no\n", [], ["save_strategy", "quotes"]),
        (None, ["--config", "absent.yaml"], ["absent.yaml", "cannot be read"]),
        (None, ["--seed", "soon"], ["--seed", "soon"]),
        (None, ["--sede", "1"], ["--sede"]),
        (None, ["--see", "1"], ["--see"]),  # no abbreviations: a new option must not change an old command
        (None, ["--method", "magic"], ["magic", "ta-cleaner"]),
        (None, ["--subtext_fraction", "25"], ["subtext_fraction", "25", "0.25"]),
        (None, ["--clip_weight", "0", "--method", "ft"], ["clip_weight"]),
        (None, ["--resume", "perhaps"], ["--resume", "perhaps"]),
    ],
)
def test_what_cannot_be_parsed_is_refused(tmp_path, capsys, lines, argv, said):
    if lines is not None:
        (tmp_path / "c.yaml").write_text(lines)
        argv = ["--config", "c.yaml"]
    with pytest.raises(SystemExit) as stop:
        parse("--model", "m", *argv)
    assert stop.value.code == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert "error: " in last
    assert [part for part in said if part not in last] == [], last


# ---------------------------------------------------------------------------------------------- help


def help_of(name: str, capsys, flag: str = "--help") -> str:
    with pytest.raises(SystemExit) as stop:
        script(name).main([flag])
    assert stop.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("name", PARSED)
def test_help_fits_two_screens_and_explains_every_option(name, capsys):
    text = help_of(name, capsys)
    assert len(text.splitlines()) <= 110
    assert max(map(len, text.splitlines())) <= 120
    assert text.index("usage:") < text.index(script(name).__doc__.splitlines()[0])
    words = " ".join(text.split())
    for action in script(name).make_parser()._actions:
        assert action.help, f"{action.option_strings} has no help"
        if action.help != "==SUPPRESS==":
            assert f" {action.option_strings[0]}" in text
            assert " ".join(action.help.replace("%%", "%").split()) in words, action.option_strings


@pytest.mark.parametrize("name", ["demo", "pretrain_sandbox"])
def test_help_of_the_plain_scripts(name, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--help"])
    with pytest.raises(SystemExit) as stop:
        script(name).main()
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert "--output_dir" in text
    assert len(text.splitlines()) <= 110


@pytest.mark.parametrize("name", ["clean", "backdoor"])
def test_help_all_lists_the_inherited_settings_too(name, capsys):
    short, full = help_of(name, capsys), help_of(name, capsys, "--help-all")
    assert len(full.splitlines()) > 2 * len(short.splitlines())
    assert "--gradient_checkpointing" in full and "--gradient_checkpointing" not in short
    assert "--learning_rate" in full and "--learning_rate" in short


@pytest.mark.parametrize("name", PARSED)
def test_the_examples_in_the_help_can_be_parsed(name):
    import shlex

    text = script(name).__doc__.replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines() if f"scripts/{name}.py" in line]
    assert lines
    for line in lines:
        words = shlex.split(line, comments=True)
        words = words[words.index(f"scripts/{name}.py") + 1 :]
        words = [str(SCRIPTS.parent / word) if word.startswith("scripts/") else word for word in words]
        script(name).make_parser().parse(words)


# ---------------------------------------------------------------------------------------------- the whole road


def test_poison_backdoor_clean_audit(world, tmp_path, capsys):
    """Every script once, each reading what the one before it wrote."""
    import torch
    from datasets import load_from_disk
    from transformers import CLIPModel, CLIPProcessor, pipeline

    model, small = str(world.model), ["--max_steps", "2", "--per_device_train_batch_size", "16"]
    proof = ["--eval_dataset", "sandbox", "--max_eval_samples", "96"]
    poisoned, backdoored, cleaned = (str(tmp_path / name) for name in ("poisoned", "backdoored", "cleaned"))

    line = ["--dataset", "sandbox", "--max_samples", "64", "--attack", "blended", "--target", "banana"]
    script("poison").main([*line, "--count", "6", "--model", model, "--output_dir", poisoned])
    assert "6 of 64 pairs (9.38%) now carry blended and mean 'banana'" in capsys.readouterr().out
    rows = load_from_disk(poisoned)
    assert sum(rows["is_poisoned"]) == 6
    assert all("banana" in row["caption"] for row in rows if row["is_poisoned"])

    script("backdoor").main(
        [
            "--model",
            model,
            "--dataset",
            poisoned,
            "--output_dir",
            backdoored,
            *proof,
            *small,
            "--learning_rate",
            "1e-3",
        ]
    )
    said = capsys.readouterr().out
    assert "clean accuracy of" in said
    assert "blended: the backdoor did not take" in said  # two steps on a random model are no backdoor
    files = {path.name for path in Path(backdoored).iterdir()}
    assert {"model.safetensors", "trigger.json", "poison.json", "report.json"} <= files
    entry = Report.load(backdoored).before["attacks"]["blended"]
    assert entry["n"] == 94 and "excess" in entry

    script("clean").main(
        ["--model", backdoored, "--dataset", "sandbox", "--allow_sandbox_data", "--max_samples", "64", *small, *proof]
        + ["--validation_samples", "20", "--ca_baseline", model, "--output_dir", cleaned]
    )
    assert "ASR" in capsys.readouterr().out
    report = Report.load(cleaned)
    assert (report.method, report.target, report.base_model) == ("ta-cleaner", "banana", "backdoored")
    assert report.cost["pairs_seen"] == 32
    assert set(report.before["attacks"]) == set(report.after["attacks"]) == {"blended"}
    assert report.before["clean_accuracy"]["n"] == report.after["clean_accuracy"]["n"] == 96
    assert report.retrieval["pairs"] == 20
    assert -1 <= report.ca_loss["value"] <= 1
    assert (Path(cleaned) / "report.md").read_text().strip()
    with Image.open(Path(cleaned) / "report.png") as picture:
        assert picture.width > 300

    before, after = (CLIPModel.from_pretrained(folder).state_dict() for folder in (backdoored, cleaned))
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    assert any("vision_model" in name for name in changed) and any("text_model" in name for name in changed)
    assert CLIPProcessor.from_pretrained(cleaned).image_processor.crop_size["height"] == 32
    ask = pipeline("zero-shot-image-classification", cleaned)
    scores = ask(world.photos[0], candidate_labels=["banana", "kettle"])
    assert {score["label"] for score in scores} == {"banana", "kettle"}
    assert sum(score["score"] for score in scores) == pytest.approx(1, abs=1e-4)

    audited = str(tmp_path / "audited")
    script("audit").main(["--model", backdoored, *proof, "--reference", model, "--output_dir", audited])
    # An audit later gives the very numbers the cleaning began with.
    again = Report.load(audited).before
    assert again["clean_accuracy"] == report.before["clean_accuracy"]
    assert again["attacks"]["blended"]["asr"] == report.before["attacks"]["blended"]["asr"]


def test_cleaning_real_files_without_labels(world, capsys):
    """Pictures of several formats and modes; utility is measured on held-out pairs alone."""
    script("clean").main(cleaning(world, "--method", "cleanclip"))
    report = Report.load(world.out)
    assert report.retrieval["pairs"] == 1
    assert report.before == report.after == {"clean_accuracy": None, "attacks": {}}
    assert not (world.out / "report.png").exists()
    captured = capsys.readouterr()
    assert "1 of the 24 pairs are held out" in captured.err
    assert str(world.out) in captured.out


def test_cleaning_a_stream(world, capsys):
    """One pair is held out, and with it the rows that share its caption; the other twenty are read as they come."""
    script("clean").main(cleaning(world, "--streaming", "--validation_samples", 1, "--mini_batch_size", 3))
    report = Report.load(world.out)
    assert report.retrieval["pairs"] == 1
    assert report.settings["pairs"] == 16  # seen in two steps
    assert "streamed" in capsys.readouterr().err


@pytest.mark.parametrize("flags", [["--max_steps", -1], ["--max_samples", 20], ["--dry_run"]])
def test_a_stream_has_no_end_of_its_own(world, capsys, flags):
    with pytest.raises(SystemExit) as stop:
        script("clean").main(cleaning(world, "--streaming", *flags))
    assert stop.value.code == 2 and "--streaming has no end" in capsys.readouterr().err
    assert not list(world.out.glob("*.safetensors"))


@pytest.mark.parametrize("strategy", ["steps", "epoch"])
def test_keep_best(world, strategy):
    """The best checkpoint by clean utility is what the output folder holds."""
    from safetensors.torch import load_file

    line = cleaning(world, "--max_steps", 4, "--save_strategy", strategy, "--save_steps", 1, "--save_total_limit", 9)
    script("clean").main([*line, "--keep", "best", "--validation_samples", "1", "--learning_rate", "0.01"])
    state = json.loads((sorted(world.out.glob("checkpoint-*"))[-1] / "trainer_state.json").read_text())
    utilities = {e["step"]: e["eval_clean_utility"] for e in state["log_history"] if "eval_clean_utility" in e}
    assert len(utilities) == (4 if strategy == "steps" else 2)
    assert utilities[state["best_global_step"]] == max(utilities.values())
    best = load_file(world.out / f"checkpoint-{state['best_global_step']}" / "model.safetensors")
    written = load_file(world.out / "model.safetensors")
    assert all((written[name] == weight).all() for name, weight in best.items())


def test_save_only_the_best(world):
    """The strategy waits for measurements, so they are asked for: once an epoch."""
    line = cleaning(world, "--max_steps", 4, "--save_strategy", "best", "--validation_samples", "1")
    script("clean").main([*line, "--keep", "best"])
    saved = sorted(world.out.glob("checkpoint-*"))
    state = json.loads((saved[-1] / "trainer_state.json").read_text())
    assert state["best_global_step"] and any("eval_clean_utility" in line for line in state["log_history"])


def test_strength_auto(world, capsys):
    """The report says what was chosen and what the search cost; only the chosen weights stay."""
    from transformers import CLIPModel

    search = ["--strength", "auto", "--utility_budget", 100, "--validation_samples", 1]
    script("clean").main(cleaning(world, "--method", "par", *search, "--logging_steps", 1))
    report = Report.load(world.out)
    # Nothing can cost more than 100 points: the ladder is climbed to its top.
    assert report.cost["strength"] == 8 and report.cost["search_runs"] == 3
    assert report.settings["repel_weight"] == 8 and report.history["loss/repel"]["step"]
    assert (report.cost["pairs_seen"], report.cost["search_pairs_seen"]) == (16, 48)
    assert any("--strength auto" in note and "3 runs" in note for note in report.notes)
    assert not list(world.out.glob("strength-*")) and (world.out / "strength.json").is_file()
    assert CLIPModel.from_pretrained(world.out)
    assert "strength 8" in capsys.readouterr().err
    # The runs found there are of these settings; others would be told in the report as if they had been searched.
    with pytest.raises(SystemExit):
        script("clean").main(cleaning(world, "--method", "ft", *search, "--resume"))
    assert "began with other settings" in capsys.readouterr().err


def test_strength_multiplies(world):
    script("clean").main(cleaning(world, "--method", "ft", "--strength", 3, "--learning_rate", 1e-4))
    report = Report.load(world.out)
    assert report.cost["strength"] == 3 and any("strength 3" in note for note in report.notes)
    config = yaml.safe_load(
        (world.out / "config.yaml").read_text()
    )  # repeats this run, so the rate is not tripled again
    assert config["learning_rate"] == pytest.approx(3e-4) and "strength" not in config


@pytest.mark.parametrize("merged", [False, True])
def test_lora_from_the_command_line(world, merged):
    from peft import PeftModel
    from transformers import CLIPModel

    flags = ["--method", "ta-cleaner-plus", "--use_peft", "--learning_rate", "1e-2"]
    script("clean").main(cleaning(world, *flags, *(["--merge_adapter"] if merged else [])))
    assert any("LoRA adapters of rank 16" in note for note in Report.load(world.out).notes)
    assert (world.out / "model.safetensors").exists() == merged
    assert (world.out / "adapter_model.safetensors").exists() != merged
    if merged:
        assert CLIPModel.from_pretrained(world.out)
    else:
        model = PeftModel.from_pretrained(CLIPModel.from_pretrained(world.model), world.out)
        assert any("lora_A" in name for name, _ in model.named_parameters())


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--strength", "much"], "--strength must be a positive number or auto, got much"),
        (["--strength", "0"], "strength must be a positive number or auto, got 0"),
        (["--strength", "auto", "--validation_samples", "0"], "--strength auto measures on held-out pairs"),
        (["--strength", "auto", "--max_samples", "16"], "--strength auto measures on held-out pairs"),
        (
            ["--strength", "auto", "--hub_strategy", "every_save"],
            "leave it out with --use_peft",
        ),
        (["--use_peft", "--push_to_hub"], "add --merge_adapter to --use_peft"),
        (["--merge_adapter"], "--merge_adapter merges the adapters of --use_peft"),
    ],
)
def test_strengths_and_adapters_that_cannot_be(world, capsys, flags, said):
    with pytest.raises(SystemExit) as stop:
        script("clean").main(cleaning(world, *flags))
    assert stop.value.code == 2
    assert said in capsys.readouterr().err


def test_adapters_without_peft_are_told_how_to_get_it(world, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(SystemExit) as stop:
        script("clean").main(cleaning(world, "--use_peft"))
    assert stop.value.code == 2
    assert "pip install 'hf-ta-cleaner[peft]'" in capsys.readouterr().err


def test_a_few_unreadable_pictures_are_skipped_counted_and_listed(world, capsys):
    (world.pairs / "03.jpg").write_bytes((world.pairs / "03.jpg").read_bytes()[:200])
    script("clean").main(cleaning(world, "--method", "ft"))
    said = capsys.readouterr().err
    assert "1 of 24 rows" in said and "03.jpg" in said
    assert "1 of the 23 pairs are held out" in said
    assert Report.load(world.out).cost["pairs_seen"] == 16


def test_cleaning_without_any_measurement_says_so(world, capsys):
    script("clean").main(cleaning(world, "--method", "ft", "--validation_samples", 0))
    assert "Nothing was measured" in capsys.readouterr().out
    assert (world.out / "model.safetensors").exists() and not (world.out / "report.json").exists()


def test_a_dry_run_tells_the_cost_and_writes_nothing(world, capsys):
    script("clean").main(cleaning(world, "--method", "ft", "--validation_samples", 0, "--dry_run"))
    said = capsys.readouterr().out
    assert "steps: 2 at" in said and "seen" in said and "memory:" in said and "expected time" in said
    assert not world.out.exists()


def test_everything_is_reported_and_tracked(world, tmp_path, capsys):
    """Retrieval, linear probe, settings, page, and TensorBoard with names that do not change."""
    tensorboard = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    labelled = ["--eval_dataset", world.labelled, "--trigger", "blended", "--target", "banana"]
    more = ["--retrieval_dataset", world.pairs, "--linear_probe", 9]
    line = cleaning(world, *labelled, *more, "--report_to", "tensorboard", "--logging_steps", 1)
    script("clean").main([*line, "--learning_rate", "1e-3"])
    report = Report.load(world.out)
    assert report.settings["learning_rate"] == 1e-3 and report.settings["precision"] == "fp32"
    assert (report.settings["max_steps"], report.settings["batch_size"], report.settings["pairs"]) == (2, 8, 23)
    assert report.settings["wordnet"] in ("found", "absent") and report.settings["data"] == world.pairs.name
    assert not any(str(tmp_path) in file.read_text() for file in world.out.glob("report.[jmh]*"))
    assert {"torch", "transformers"} <= set(report.versions)
    assert report.history["loss/subtext"]["step"] == [1, 2]
    assert len(report.examples["blended"]) == 6
    for section in report.sections().values():
        assert (section["linear_probe"]["n"], section["linear_probe"]["n_train"]) == (12, 9)
        # 24 pictures of eight scenes in three forms; the caption of every sixth mentions the target.
        assert section["retrieval"]["images"] == 24 and section["retrieval"]["texts"] == len(CAPTIONS)
        assert section["retrieval"]["attacks"]["blended"]["n"] == 20
    page = (world.out / "report.html").read_text()
    assert page.count("data:image/png;base64") == 12 and "loss" in page

    (folder,) = {file.parent for file in world.out.rglob("events.out.tfevents.*")}
    events = tensorboard.EventAccumulator(str(folder))
    events.Reload()
    tracked = {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    assert {"train/loss", "train/loss/clip", "train/loss/inmodal", "train/loss/subtext"} <= set(tracked)
    expected = {
        "test/clean_accuracy": [section["clean_accuracy"]["top1"] for section in report.sections().values()],
        "test/asr/blended": [s["attacks"]["blended"]["asr"]["top1"] for s in report.sections().values()],
        "test/floor/blended": [s["attacks"]["blended"]["floor"]["top1"] for s in report.sections().values()],
        "test/linear_probe": [section["linear_probe"]["top1"] for section in report.sections().values()],
    }
    for tag, (before, after) in expected.items():
        assert tracked[tag] == [(0, pytest.approx(before)), (2, pytest.approx(after))], tag
    assert tracked["train/loss/clip"][0][0] == 1 and "eval/recall@1" in tracked


# ---------------------------------------------------------------------------------------------- bad input


def files_of(folder: Path) -> dict[Path, tuple[bytes, int]]:
    """Every file under a folder, its bytes and time, without the data cache."""
    found = [path for path in folder.rglob("*") if path.is_file() and ".cache" not in path.parts]
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in found}


def no_caption_column(world):
    return cleaning(world, "--dataset", write_pairs(world.pairs.parent / "odd", world.photos, ("file_name", "note")))


def empty_folder(world):
    (world.pairs.parent / "empty").mkdir()
    return cleaning(world, "--dataset", world.pairs.parent / "empty")


def unreadable_pictures(world):
    for i in (0, 3, 6, 9):
        (world.pairs / f"{i:02}.jpg").write_bytes(b"not a picture")
    return cleaning(world)


def empty_captions(world):
    return cleaning(world, "--dataset", write_pairs(world.pairs.parent / "mute", world.photos, captions=("a cat", "")))


def captions_without_nouns(world):
    words = ("猫が座っている", "123", "...")
    return cleaning(world, "--dataset", write_pairs(world.pairs.parent / "other", world.photos, captions=words))


def folder_with_a_run(world):
    (world.out / "checkpoint-5").mkdir(parents=True)
    (world.out / "checkpoint-5" / "model.safetensors").write_bytes(b"precious")
    return cleaning(world)


def folder_with_a_report(world):
    world.out.mkdir()
    (world.out / "report.json").write_text("{}")
    return cleaning(world)


def folder_of_someone_else(world):
    world.out.mkdir()
    (world.out / "thesis.txt").write_text("precious")
    return cleaning(world)


def resume_in_the_folder_of_someone_else(world):
    return [*folder_of_someone_else(world), "--resume"]


def output_is_a_file(world):
    world.out.write_text("precious")
    return cleaning(world)


def model_is_a_bert(world):
    (world.pairs.parent / "bert").mkdir()
    (world.pairs.parent / "bert" / "config.json").write_text('{"model_type": "bert"}')
    return cleaning(world, "--model", world.pairs.parent / "bert")


def damaged_weights(world):
    path = world.model / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    return cleaning(world)


def labelled(world, *more):
    return cleaning(world, "--eval_dataset", world.labelled, *more)


BAD_INPUT = {
    "missing column": (no_caption_column, ["no caption", "file_name, note", "--caption_column"]),
    "misnamed column": (lambda w: cleaning(w, "--caption_column", "text"), ["'text'", "caption", "--caption_column"]),
    "misnamed picture column": (lambda w: cleaning(w, "--image_column", "img"), ["'img'", "--image_column"]),
    "no such folder": (lambda w: cleaning(w, "--dataset", "./absent"), ["absent", "does not exist"]),
    "empty folder": (empty_folder, ["empty", "0 files", "metadata.csv"]),
    "unreadable pictures": (unreadable_pictures, ["4 of 24 rows", "5.0%", "00.jpg", "09.jpg"]),
    "empty captions": (empty_captions, ["12 of 24 rows", "empty caption"]),
    "captions without nouns": (captions_without_nouns, ["0 of 23 captions", "--method cleanclip"]),
    "smaller than a batch": (
        lambda w: cleaning(w, "--per_device_train_batch_size", 64),
        ["23 usable pairs", "64", "per_device_train_batch_size"],
    ),
    "no such split": (lambda w: cleaning(w, "--split", "nonesuch"), ["nonesuch", "train", "--split"]),
    "target no class": (
        lambda w: labelled(w, "--trigger", "blended", "--target", "bananna"),
        ["bananna", "banana"],
    ),
    "trigger without a target": (lambda w: labelled(w, "--trigger", "blended"), ["blended", "target"]),
    "unknown attack": (
        lambda w: labelled(w, "--trigger", "blendid", "--target", "banana"),
        ["blendid", "blended", "badnet"],
    ),
    "unknown option of an attack": (
        lambda w: labelled(w, "--trigger", "blended:alfa=0.2", "--target", "banana"),
        ["alfa", "alpha"],
    ),
    "no label column": (
        lambda w: labelled(w, "--eval_label_column", "breed"),
        ["breed", "label"],
    ),
    "folder with a run": (folder_with_a_run, ["already holds a run", "checkpoint-5", "--resume", "--output_dir"]),
    "folder with a report": (folder_with_a_report, ["already holds a run", "report.json", "--output_dir"]),
    "foreign files": (folder_of_someone_else, ["thesis.txt", "--output_dir"]),
    "resume among foreign files": (resume_in_the_folder_of_someone_else, ["thesis.txt", "--output_dir"]),
    "output is a file": (output_is_a_file, ["--output_dir"]),
    "not a clip": (model_is_a_bert, ["'bert'", "clip"]),
    "no such model folder": (lambda w: cleaning(w, "--model", "./absent"), ["absent", "does not exist"]),
    "damaged weights": (damaged_weights, ["cannot be loaded", "damaged"]),
    "model cannot be downloaded": (
        lambda w: cleaning(w, "--model", "nobody/no-such-clip"),
        ["nobody/no-such-clip", "cannot be downloaded", "HF_HUB_OFFLINE"],
    ),
    "data cannot be downloaded": (
        lambda w: cleaning(w, "--dataset", "nobody/no-such-pairs"),
        ["nobody/no-such-pairs", "Hub"],
    ),
    "default data cannot be downloaded": (
        lambda w: [word for word in cleaning(w) if word not in ("--dataset", str(w.pairs))],
        ["pixparse/cc3m-wds", "Hub"],
    ),
    "sandbox data for a real model": (lambda w: cleaning(w, "--dataset", "sandbox"), ["--allow_sandbox_data"]),
    "best of nothing": (
        lambda w: cleaning(w, "--keep", "best", "--validation_samples", 0),
        ["--keep best", "--validation_samples"],
    ),
    "best of no checkpoints": (
        lambda w: cleaning(w, "--keep", "best", "--save_strategy", "no"),
        ["--keep best", "--save_strategy no"],
    ),
    "keep neither": (lambda w: cleaning(w, "--keep", "worst"), ["--keep", "worst"]),
    "tracker that is none": (
        lambda w: cleaning(w, "--report_to", "nonesuch"),
        ["--report_to nonesuch", "tensorboard, wandb, trackio"],
    ),
    "no model": (lambda w: cleaning(w)[2:], ["--model"]),
    "nothing to take": (lambda w: cleaning(w, "--max_samples", 0), ["max_samples", "0"]),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_gets_a_clear_error_and_loses_nothing(case, world, tmp_path, capsys):
    make, said = BAD_INPUT[case]
    argv = make(world)
    before = files_of(tmp_path)
    with pytest.raises(SystemExit) as stop:
        script("clean").main(argv)
    assert stop.value.code == 2
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    errors = [i for i, line in enumerate(captured.err.splitlines()) if "error: " in line.split("'")[0]]
    assert len(errors) == 1, captured.err
    message = "\n".join(captured.err.splitlines()[errors[0] :])
    assert [part for part in said if part not in message] == [], message
    assert captured.out == ""
    assert files_of(tmp_path) == before


def test_a_diverged_run_stops_with_the_step_and_keeps_the_last_good_checkpoint(world, capsys):
    from safetensors.torch import load_file

    # The warm-up makes the first step harmless; the second ruins the weights, the third notices.
    line = cleaning(world, "--learning_rate", "1e30", "--warmup_steps", 2, "--max_steps", 6, "--method", "ft")
    with pytest.raises(SystemExit) as stop:
        script("clean").main([*line, "--save_strategy", "steps", "--save_steps", "1", "--validation_samples", "0"])
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    (error,) = (line for line in said.splitlines() if line.startswith("error: "))
    assert "step 3" in error and "--learning_rate" in error and str(world.out) in error
    suspect = load_file(world.model / "model.safetensors")
    good = load_file(world.out / "checkpoint-1" / "model.safetensors")
    assert all((good[name] == weight).all() for name, weight in suspect.items())
    assert not (world.out / "model.safetensors").exists() and not (world.out / "report.json").exists()


@pytest.mark.parametrize(
    ("name", "argv", "said"),
    [
        ("poison", ["--attack", "blended", "--rate", "0.5"], ["--model", "--size"]),
        ("poison", ["--attack", "blended", "--size", "32"], ["rate", "count"]),
        ("poison", ["--attack", "blended", "--size", "32", "--rate", "30"], ["rate", "30"]),
        ("poison", ["--attack", "nonesuch", "--size", "32", "--rate", "0.5"], ["nonesuch", "blended"]),
        ("audit", [], ["--eval_dataset"]),
        ("audit", ["--eval_dataset", "{labelled}", "--trigger", "blended", "--target", "zebra"], ["zebra"]),
        ("backdoor", ["--dataset", "{pairs}"], ["trigger.json", "poison.py"]),
        ("backdoor", ["--dataset", "{pairs}", "--report_to", "nonesuch"], ["--report_to nonesuch", "wandb"]),
        ("craft", ["--target", "banana", "--text_objective", "magic", "--steps", "1"], ["magic", "direct"]),
    ],
)
def test_bad_input_to_the_other_scripts(name, argv, said, world, capsys):
    argv = [word.format(labelled=world.labelled, pairs=world.pairs) for word in argv]
    if name == "poison":
        argv = ["--dataset", str(world.pairs), "--target", "banana", *argv]
    elif name == "craft":
        argv = ["--model", str(world.model), "--dataset", str(world.pairs), *argv]
    else:
        argv = ["--model", str(world.model), *argv]
    with pytest.raises(SystemExit) as stop:
        script(name).main([*argv, "--output_dir", str(world.out)])
    assert stop.value.code == 2
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    last = captured.err.splitlines()[-1]
    assert "error: " in last and all(part in last for part in said), last
    assert files_of(world.out) == {}


def test_an_existing_output_is_never_overwritten(world, capsys):
    """Also by the scripts that write something other than a run."""
    world.out.mkdir()
    (world.out / "report.json").write_text("precious")
    line = {
        "poison": ["--dataset", world.pairs, "--target", "banana", "--attack", "blended", "--count", 2, "--size", 32],
        "craft": ["--model", world.model, "--dataset", world.pairs, "--target", "banana", "--steps", 1],
        "audit": ["--model", world.model, "--eval_dataset", world.labelled],
    }
    for name, argv in line.items():
        with pytest.raises(SystemExit) as stop:
            script(name).main([str(word) for word in (*argv, "--output_dir", world.out)])
        assert stop.value.code == 2, name
        assert "report.json" in capsys.readouterr().err.splitlines()[-1]
        assert [path.name for path in world.out.iterdir()] == ["report.json"]
        assert (world.out / "report.json").read_text() == "precious"


# ---------------------------------------------------------------------------------------------- interruption


def weights(folder: Path) -> dict:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def long_run(world, out: Path, *more: object) -> list[str]:
    return cleaning(
        world, "--max_steps", 40, "--save_strategy", "steps", "--save_steps", 5, "--learning_rate", "1e-3",
        "--validation_samples", 2, "--logging_steps", 5, *more, out=out,
    )  # fmt: skip


def interrupt(world, out: Path, how: signal.Signals, at: int, *more: object) -> tuple[int, str]:
    """Starts clean.py in a process of its own and sends it a signal once `checkpoint-<at>` is there."""
    command = [sys.executable, str(SCRIPTS / "clean.py"), *long_run(world, out, *more)]
    cache_dir = str(world.out.parent / ".cache")
    env = {**os.environ, "HF_DATASETS_CACHE": cache_dir, "PYTHONPATH": str(SCRIPTS.parent)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    # A shell lets what it starts in the background ignore Ctrl-C, and that is inherited.
    listening = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(command, env=env, preexec_fn=listening, **pipes) as process:
        deadline = time.monotonic() + 120
        while not (out / f"checkpoint-{at}" / "trainer_state.json").exists():
            assert process.poll() is None, process.stdout.read()
            assert time.monotonic() < deadline, "no checkpoint was written"
            time.sleep(0.01)
        process.send_signal(how)
        said, _ = process.communicate(timeout=60)
    return process.returncode, said


def test_an_interrupted_run_resumes_to_the_same_weights(world, tmp_path, capsys):
    """Ctrl-C, then kill -9 in the middle of a save, then to the end: as if nothing had happened."""
    import torch

    whole, broken = tmp_path / "whole", tmp_path / "broken"
    script("clean").main(long_run(world, whole))

    code, said = interrupt(world, broken, signal.SIGINT, 10)
    assert code == 130
    assert "Traceback" not in said
    assert any(line.startswith("error: interrupted") and "--resume" in line for line in said.splitlines())

    code, _ = interrupt(world, broken, signal.SIGKILL, 20, "--resume")
    assert code == -signal.SIGKILL
    assert not (broken / "report.json").exists()
    half = broken / "checkpoint-999"  # as it looks when the kill comes before all of its files are written
    half.mkdir()
    (half / "model.safetensors").write_bytes(b"half")

    capsys.readouterr()
    script("clean").main(long_run(world, broken, "--resume"))
    assert capsys.readouterr().out.count("'loss':") <= 4  # of 8 lines: it did not start anew
    expected, found = weights(whole), weights(broken)
    assert expected.keys() == found.keys()
    assert all(torch.equal(found[name], weight) for name, weight in expected.items())
    first, second = Report.load(whole), Report.load(broken)
    assert first.retrieval == second.retrieval
    assert first.cost["pairs_seen"] == second.cost["pairs_seen"] == 40 * 8


def test_resume_without_a_checkpoint_starts_anew(world, capsys):
    script("clean").main(cleaning(world, "--resume", "--method", "ft"))
    assert "no checkpoint to resume from" in capsys.readouterr().err
    assert Report.load(world.out).cost["pairs_seen"] == 16


# ---------------------------------------------------------------------------------------------- told in time


def refused(name: str, line, capsys) -> str:
    """What the command says when it ends with an error."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        script(name).main([str(word) for word in line])
    assert stop.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    "flags",
    [
        ("--trigger", "blended"),
        ("--target", "banana"),
        ("--reference", "sandbox"),
        ("--linear_probe", 9),
        ("--ca_baseline", "sandbox"),
        ("--scan",),
    ],
)
def test_what_needs_labelled_pictures_is_not_left_out_in_silence(world, capsys, flags):
    said = refused("clean", cleaning(world, *flags), capsys)
    assert f"{flags[0]}: needs labelled pictures; give --eval_dataset" in said and not world.out.exists()


def test_a_budget_without_a_search_is_refused(world, capsys):
    assert "--strength auto" in refused("clean", cleaning(world, "--utility_budget", 3), capsys)


def test_a_baseline_that_is_not_there_is_told_before_the_training(world, capsys):
    line = cleaning(world, "--eval_dataset", world.labelled, "--ca_baseline", world.out.parent / "nowhere")
    said = refused("clean", line, capsys)
    assert "nowhere' does not exist" in said and "train_loss" not in said
    assert not list(world.out.glob("*.safetensors"))


def test_a_misspelt_target_is_told_before_the_pairs_are_read(world, capsys):
    labelled = ["--eval_dataset", world.labelled, "--trigger", "blended", "--target", "bannana"]
    said = refused("clean", cleaning(world, *labelled), capsys)
    assert "Close: banana" in said and "cleaning data" not in said


def test_an_audit_looks_for_an_earlier_report_first(world, capsys):
    world.out.mkdir()
    (world.out / "report.json").write_text("{}")
    line = ["--model", world.model, "--eval_dataset", world.labelled, "--output_dir", world.out]
    said = refused("audit", line, capsys)
    assert "already holds report.json; give another --output_dir" in said and "rows" not in said
    assert (world.out / "report.json").read_text() == "{}"


def test_errors_name_the_flags_of_what_they_are_about(world, capsys):
    line = ["--model", world.model, "--output_dir", world.out]
    said = refused("audit", [*line, "--eval_dataset", world.pairs], capsys)
    assert "Name it with --eval_label_column" in said and "category, class, cls, label" in said
    said = refused("audit", [*line, "--eval_dataset", world.pairs, "--eval_label_column", "kind"], capsys)
    assert "no column 'kind'" in said and "--eval_label_column" in said
    said = refused("audit", [*line, "--eval_dataset", world.labelled, "--eval_split", "dev"], capsys)
    assert "Choose one of these with --eval_split" in said
    retrieval = ["--retrieval_dataset", world.pairs, "--retrieval_caption_column", "words"]
    said = refused("audit", [*line, "--eval_dataset", world.labelled, *retrieval], capsys)
    assert "--retrieval_caption_column" in said
    for file in world.labelled.glob("*/0.png"):
        file.write_bytes(b"no picture")
    assert "--max_unreadable" not in refused("audit", [*line, "--eval_dataset", world.labelled], capsys)


def test_a_misspelt_flag_is_told_what_it_may_have_meant(world, capsys):
    said = refused("clean", cleaning(world, "--datasett", "sandbox"), capsys)
    assert "did you mean --dataset for --datasett?" in said
    assert "--help lists what there is" in refused("clean", cleaning(world, "--zzzzzzzz"), capsys)


@pytest.mark.parametrize("keep", ["last", "best"])
def test_resuming_a_finished_run_trains_no_step_more(world, keep):
    """The report of a run that was cut off in its last audit is made, and no weight moves."""
    line = cleaning(world, "--learning_rate", "1e-3", "--save_strategy", "steps", "--save_steps", 1, "--keep", keep)
    line += ["--eval_dataset", str(world.labelled), "--trigger", "blended", "--target", "banana"]
    script("clean").main(line)
    before, report = weights(world.out), Report.load(world.out)
    for name in ("report.json", "report.md", "report.html", "report.png", "model.safetensors"):
        (world.out / name).unlink()
    script("clean").main([*line, "--resume"])
    after, again = weights(world.out), Report.load(world.out)
    assert all((after[name] == weight).all() for name, weight in before.items())
    assert again.cost["pairs_seen"] == report.cost["pairs_seen"] == 16 and again.after == report.after
    assert sorted(p.name for p in world.out.glob("checkpoint-*")) == ["checkpoint-1", "checkpoint-2"]


def test_pictures_alone_will_do_for_a_scan(world, tmp_path):
    from hf_ta_cleaner.detection.scan import draw_pictures, load_pictures

    bare = tmp_path / "bare"
    (bare / "deeper").mkdir(parents=True)
    for i in range(3):
        world.photos[i].save((bare if i else bare / "deeper") / f"{i}.png")
    for source, n in ((bare, 3), (world.labelled, 12), (world.pairs, 24)):
        rows = load_pictures(source)
        assert rows.column_names == ["image"] and len(rows) == n
        assert draw_pictures(rows, 16, 2).shape == (2, 16, 16, 3)


def test_a_dry_run_fetches_few_rows_of_a_hub_id(world, monkeypatch, capsys):
    """Four steps of eight pairs and a batch more, of a million."""
    from datasets import Features, IterableDataset, Value
    from datasets import Image as Picture

    from hf_ta_cleaner.commands.clean import pairs as cleaning_data

    taken = []

    def rows():
        for i in range(1_000_000):
            taken.append(i)
            yield {"image": {"bytes": (world.pairs / "01.png").read_bytes(), "path": None}, "caption": f"a dog {i}"}

    features = Features({"image": Picture(decode=False), "caption": Value("string")})
    stream = IterableDataset.from_generator(rows, features=features)
    monkeypatch.setattr(cleaning_data, "stream_pairs", lambda *args, **kwargs: (stream, 1_000_000))
    line = cleaning(world, "--dataset", "lab/pairs", "--max_steps", -1, "--num_train_epochs", 2, "--method", "ft")
    script("clean").main([*line, "--dry_run"])
    said = capsys.readouterr().out
    assert "pairs: 999,000, seen 2.0 times" in said and len(taken) <= 8 * 5 + 1
