"""Publishing from the command lines and from the trainer, over the real client."""

from __future__ import annotations

import dataclasses
import json
import shutil

import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from transformers import TrainingArguments

from hf_ta_cleaner.models.checkpoints import load_model
from hf_ta_cleaner.publishing.hub import from_pretrained
from hf_ta_cleaner.publishing.hub_errors import HubError
from hf_ta_cleaner.publishing.report import Report
from hf_ta_cleaner.training.config import TACleanerConfig
from tests.commands.conftest import separate, suspect, world  # noqa: F401 (fixtures)
from tests.commands.helpers import cleaning, parse, script
from tests.report_samples import a_report


def words(line: str, **paths: object) -> list[str]:
    """A command line as a shell would split it, with {names} filled in."""
    return [word.format(**paths) for word in line.split()]


def refused(capsys, name: str, line: list[str], *said: str) -> None:
    with pytest.raises(SystemExit) as stop:
        script(name).main(line)
    assert stop.value.code == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert [part for part in said if part not in message] == [], message


def test_poison_backdoor_audit_push(hub, world, capsys):  # noqa: F811
    """The attacker's side: refused unless it is said, then private, tagged, warned about, and audited by others."""
    pairs, bad = world.out / "pairs", world.out / "bad"
    line = words(
        "--dataset {d} --attack blended --target banana --count 4 --model {m} --output_dir {o} --push_to_hub",
        d=world.pairs, m=world.model, o=pairs,
    )  # fmt: skip
    refused(capsys, "poison", line, "--allow_publishing_backdoor")
    assert not pairs.exists() and not hub.log
    script("poison").main([*line, "--allow_publishing_backdoor", "--hub_dataset_id", "tester/poisoned-pairs"])
    assert "Pushed to " in capsys.readouterr().out
    assert hub.repo("tester/poisoned-pairs", "dataset").private

    line = words(
        "--model {m} --dataset {d} --output_dir {o} --max_steps 1 --per_device_train_batch_size 8 --eval_dataset {e} "
        "--push_to_hub --hub_model_id tester/bad",
        d=pairs, m=world.model, o=bad, e=world.labelled,
    )  # fmt: skip
    refused(capsys, "backdoor", line, "--allow_publishing_backdoor")
    line.append("--allow_publishing_backdoor")
    refused(capsys, "backdoor", [*line, "--hub_strategy", "every_save"], "--hub_strategy")
    assert not bad.exists() and ("model", "tester/bad") not in hub.repos
    # The repository is claimed before the pictures are even looked for.
    early = [{"tester/bad": "other/bad", str(world.labelled): "no/such/pictures"}.get(word, word) for word in line]
    refused(capsys, "backdoor", early, "may not do this", "Nothing was computed yet")
    script("backdoor").main(line)
    repo = hub.repo("tester/bad")
    assert repo.private and len(repo.history()) == 2
    found = from_pretrained("tester/bad")
    assert found.attack.name == "blended" and found.target == "banana" and found.report.method == "backdoor"
    assert ModelCard.load("tester/bad").text.lstrip().startswith("> [!WARNING]")
    config = yaml.safe_load(hub.files("tester/bad")["config.yaml"])
    assert (
        config["dataset"] == pairs.name and "push_to_hub" not in config and "allow_publishing_backdoor" not in config
    )

    line = words("--eval_dataset {e} --trigger {b} --device cpu --push_report", e=world.labelled, b=bad)
    local = [*line, "--model", str(bad), "--output_dir", str(world.out / "no")]
    refused(capsys, "audit", local, "--push_report needs a model on the Hub", "--hub_model_id")
    script("audit").main([*line, "--model", "tester/bad", "--output_dir", str(world.out / "audit")])
    assert f"Pull request: {hub.endpoint}/tester/bad/discussions/1" in capsys.readouterr().out
    offered = [name for name in hub.files("tester/bad", "refs/pr/1") if name.startswith("audits/")]
    assert {name.split("/")[-1] for name in offered} == {"report.json", "report.md", "report.html", "report.png"}
    assert len(repo.history()) == 2

    shutil.copytree(bad, world.out / "copy")
    again = ["--folder", str(world.out / "copy"), "--repo_id", "tester/again"]
    refused(capsys, "push", again, "--allow_publishing_backdoor")
    script("push").main([*again, "--allow_publishing_backdoor"])
    script("push").main(["--folder", str(pairs), "--repo_id", "tester/more", "--allow_publishing_backdoor"])
    assert hub.repo("tester/again").private and hub.repo("tester/more", "dataset").private
    script("push").main(["--folder", str(bad), "--repo_id", "tester/bad", "--report_only"])
    assert len(repo.discussions) == 2 and len(repo.history()) == 2
    refused(capsys, "push", ["--folder", str(world.pairs), "--repo_id", "tester/x"], "holds none of config.json")


def test_clean_refuses_what_cannot_be_pushed_before_it_computes(hub, world, capsys):  # noqa: F811
    push = ["--push_to_hub", "--hub_model_id", "other/clip"]
    refused(capsys, "clean", cleaning(world, *push), "may not do this", "Run the same command again")
    assert list(world.out.iterdir()) == []
    script("clean").main(cleaning(world, "--push_to_hub", "--hub_model_id", "tester/clip", "--max_steps", 1))
    assert len(hub.repo("tester/clip").history()) == 2


def test_clean_whose_push_fails_keeps_everything_and_says_how_to_go_on(hub, world, capsys):  # noqa: F811
    hub.fault("POST", "/commit/", status=500, times=9)
    line = cleaning(world, "--push_to_hub", "--hub_model_id", "tester/clip", "--hub_token", "hf_tester")
    refused(capsys, "clean", line, "ta-cleaner push --folder", "Hub had an error of its own (500, simulated 500)")
    assert set(hub.files("tester/clip")) == {".gitattributes"}
    assert load_model(world.out) and Report.load(world.out)
    hub.faults.clear()
    script("push").main(["--folder", str(world.out), "--repo_id", "tester/clip"])
    files = hub.files("tester/clip")
    assert files["model.safetensors"] == (world.out / "model.safetensors").read_bytes()
    assert not [name for name, data in files.items() if b"hf_tester" in data]
    assert b"hf_tester" not in (world.out / "run.json").read_bytes()
    script("clean").make_parser().parse(["--config", str(world.out / "config.yaml")])  # it repeats the run


def test_a_checkpoint_for_every_epoch(hub, world, capsys):  # noqa: F811
    """Each in a commit of its own, whole and said to be unfinished; one that is not pushed does not stop the rest."""
    hub.fault("POST", "/commit/", status=500, times=1)
    epochs = ["--max_steps", -1, "--num_train_epochs", 3, "--validation_samples", 0]
    push = ["--push_to_hub", "--hub_model_id", "tester/clip", "--hub_strategy", "every_save"]
    script("clean").main(cleaning(world, *epochs, *push))
    titles = [commit.title for commit in hub.repo("tester/clip").history()]
    assert titles[1:] == ["Training, step 9 of 9", "Training, step 6 of 9", "initial commit"]
    *_, second, _ = hub.repo("tester/clip").history()
    assert {"config.json", "model.safetensors", "preprocessor_config.json", "tokenizer.json"} <= set(second.files)
    assert not [n for n in second.files if n.endswith((".bin", ".pt", ".pth")) or n.startswith("trainer_state")]
    card = second.files["README.md"].data.decode()
    assert "**Not finished**: step 6 of 9." in card and "Nothing was measured" in card
    assert load_model("tester/clip", revision=second.sha)
    assert "Not finished" not in hub.files("tester/clip")["README.md"].decode()


def test_clean_and_audit_import_open_clip(world, tiny_processor, capsys, monkeypatch):  # noqa: F811
    from safetensors.torch import save_file

    from tests.models.test_open_clip import OpenClip, model_cfg

    folder, vocabulary = world.out.parent / "open-clip", len(tiny_processor.tokenizer)
    folder.mkdir()
    save_file(dict(OpenClip(vocabulary).state_dict()), folder / "open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": model_cfg(vocabulary)}))
    tiny_processor.tokenizer.save_pretrained(folder)
    world.model = folder
    script("clean").main(cleaning(world, "--max_steps", 1))  # no other flag
    model, _ = load_model(world.out)
    assert model.config.vision_config.image_size == 48
    line = words("--model {m} --from_open_clip --eval_dataset {e} --device cpu", m=folder, e=world.labelled)
    script("audit").main(
        [*line, "--trigger", "badnet", "--target", "banana", "--output_dir", str(world.out / "audit")]
    )
    assert Report.load(world.out / "audit").before["attacks"]


# The trainer's own push.


def test_the_trainer_pushes_one_commit_with_the_report(hub, make_trainer, tiny_processor):
    trainer = make_trainer(folder="clip", push_to_hub=True, hub_private_repo=True, save_strategy="steps", save_steps=2)
    repo = hub.repo("tester/clip")
    assert trainer.hub_model_id == "tester/clip" and repo.private and len(repo.history()) == 1
    trainer.train()
    assert len(repo.history()) == 1  # by default at the end, and the end is when it is asked for
    url = trainer.push_to_hub(report=a_report())
    assert url == f"{hub.endpoint}/tester/clip" and len(repo.history()) == 2
    found = from_pretrained("tester/clip")
    assert torch.equal(found.model.logit_scale, trainer.model.logit_scale.cpu())
    assert found.report.to_dict() == a_report().to_dict()
    card = ModelCard.load("tester/clip")
    assert card.data.eval_results and "- Objective: ta-cleaner: 1 clip + 1 inmodal + 1 subtext" in card.text
    assert not [name for name in repo.find("main").files if name.endswith(".bin") or "/" in name]
    trainer.save_model(trainer.args.output_dir)  # which pushes, as in any Trainer
    assert len(repo.history()) == 2  # but there is nothing new


def test_a_trainer_without_rights_fails_when_it_is_made(hub, make_trainer):
    with pytest.raises(HubError, match="not valid"):
        make_trainer(push_to_hub=True, hub_token="hf_wrong")


@pytest.mark.parametrize("values", [{"hub_strategy": "checkpoint"}, {"hub_revision": "v1"}])
def test_what_the_trainer_does_not_push(tmp_path, values):
    with pytest.raises(ValueError, match="hub_strategy must be end or every_save, and hub_revision is not used"):
        TACleanerConfig(str(tmp_path), **values)


def test_the_recipe_goes_through_yaml_and_back():
    _, _, _, args = parse("--model", "m", "--method", "cleanclip", "--learning_rate", "3e-4", "--bf16")
    recipe = yaml.safe_load(yaml.safe_dump(args.recipe))
    assert recipe == args.recipe
    assert (recipe["clip_weight"], recipe["subtext_weight"], recipe["learning_rate"]) == (1.0, 0.0, 3e-4)
    assert recipe["lr_scheduler_type"] == "cosine" and recipe["bf16"] is True


def test_the_recipe_holds_every_setting_of_ours():
    """Those that decide the weights: all but what changes no embedding."""
    everything = ("--subtext_weight", 2, "--repel_weight", 6, "--image_noise", 0.25, "--use_peft", "--lora_rank", 4)
    args = parse("--model", "m", "--method", "ta-cleaner-plus", *everything)[3]
    own = {f.name for f in dataclasses.fields(TACleanerConfig)} - {
        f.name for f in dataclasses.fields(TrainingArguments)
    }
    assert own - set(args.recipe) == {"trim_text", "mini_batch_size", "resize_once"}
    assert args.recipe["adversarial_patch"] == 0.25 and args.recipe["lora_rank"] == 4
    off = parse("--model", "m", "--method", "ft")[3].recipe
    assert not [
        name
        for name in off
        if name.startswith(("lora_", "repel_s", "repel_t", "subtext_s", "noise_", "adversarial_s"))
    ]


def test_a_search_for_the_strength_publishes_what_it_chose(hub, world):  # noqa: F811
    line = cleaning(world, "--strength", "auto", "--utility_budget", 0, "--validation_samples", 8, "--max_steps", 1)
    script("clean").main([*line, "--push_to_hub", "--hub_model_id", "tester/clip"])
    assert len(hub.repo("tester/clip").history()) == 2
    files = hub.files("tester/clip")
    assert files["model.safetensors"] == (world.out / "model.safetensors").read_bytes()
    config = yaml.safe_load(files["config.yaml"])
    assert "strength" not in config and "utility_budget" not in config
    report = Report.load(world.out)
    chosen = report.cost["strength"]
    assert report.settings["learning_rate"] == config["learning_rate"] and "hub_model_id" not in report.settings
    assert config["learning_rate"] == pytest.approx(1e-5 * chosen)
