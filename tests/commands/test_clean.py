"""`clean`, and the commands before and after it, on a small model and small data."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from hf_ta_cleaner.publishing.report import Report
from tests.commands.helpers import CAPTIONS, cleaning, script


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
