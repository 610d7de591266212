"""Bad input: every error says what to do, and nothing is lost."""

from __future__ import annotations

import pytest

from tests.commands.helpers import cleaning, files_of, refused, script, write_pairs


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
