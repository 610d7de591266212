"""What is pushed comes back: one commit, nothing but what belongs to it, and the same model, report and trigger.

The client is the real one; the Hub is `hub_server.py`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from transformers import CLIPModel

from hf_ta_cleaner.attacks import get_attack
from hf_ta_cleaner.models.checkpoints import CheckpointError, load_model, save_model
from hf_ta_cleaner.poisoning import RECORD, poison, write_poisoned
from hf_ta_cleaner.publishing.hub import (
    from_pretrained,
    holds_backdoor,
    push_checkpoint,
    push_dataset,
    write_card,
)
from hf_ta_cleaner.publishing.hub_errors import HubError
from hf_ta_cleaner.publishing.settings import save_config
from tests.report_samples import a_report


SETTINGS = {"model": "openai/clip-vit-base-patch32", "dataset": "pixparse/cc3m-wds", "method": "ta-cleaner",
            "clip_weight": 1.0, "inmodal_weight": 1.0, "subtext_weight": 1.0, "hub_token": "hf_secret"}  # fmt: skip
CHECKPOINT = {"config.json", "model.safetensors", "preprocessor_config.json", "processor_config.json"}
CHECKPOINT |= {"tokenizer.json", "tokenizer_config.json", "README.md", "config.yaml", "report.json", "report.md"}
CHECKPOINT |= {"report.html"}


def same_weights(a, b):
    b = b.state_dict()
    return all(torch.equal(tensor, b[name]) for name, tensor in a.state_dict().items())


@pytest.fixture
def cleaned(tiny_clip, tiny_processor, tmp_path) -> Path:
    """The output folder of a cleaning, with what else a run leaves there."""
    folder = save_model(tiny_clip, tiny_processor, tmp_path / "cleaned")
    a_report().save(folder, plot=False)
    save_config(folder, SETTINGS)
    get_attack("blended").save(folder)  # clean.py keeps the suspect's trigger, for a later audit
    for name in ("checkpoint-2/model.safetensors", "training_args.bin", "run.json", "notes.txt", ".step"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("not for the Hub")
    return folder


@pytest.fixture
def poisoned(photos, tmp_path):
    """Poisoned pairs as poison.py writes them, and what was used."""
    from datasets import Dataset

    pairs = Dataset.from_dict({"image": photos * 3, "caption": [f"a small boat, number {i}" for i in range(24)]})
    attack = get_attack("blended")
    data, record = poison(pairs, attack, target="banana", count=3, size=32, seed=0)
    data.save_to_disk(tmp_path / "poisoned")
    attack.save(tmp_path / "poisoned")
    record.save(tmp_path / "poisoned" / RECORD)
    return tmp_path / "poisoned", data, attack


@pytest.fixture
def backdoored(tiny_clip, tiny_processor, poisoned, tmp_path) -> Path:
    folder = save_model(tiny_clip, tiny_processor, tmp_path / "backdoored")
    for name in ("trigger.json", "trigger.png", RECORD):
        if (poisoned[0] / name).exists():
            shutil.copy(poisoned[0] / name, folder / name)
    a_report(method="backdoor", after=None, ca_loss=None).save(folder, plot=False)
    return folder


def test_a_checkpoint_goes_in_one_commit_with_all_that_belongs_to_it_and_nothing_else(hub, cleaned):
    url = push_checkpoint(cleaned, "tester/clip-cleaned", private=True)
    repo = hub.repo("tester/clip-cleaned")
    assert url == f"{hub.endpoint}/tester/clip-cleaned" and repo.private
    commit, first = repo.history()
    assert first.title == "initial commit"
    assert set(commit.files) == CHECKPOINT | {".gitattributes"}
    for name in CHECKPOINT - {"config.yaml"}:
        assert commit.files[name].data == (cleaned / name).read_bytes()
    settings = yaml.safe_load(commit.files["config.yaml"].data)
    assert settings["method"] == "ta-cleaner" and "hub_token" not in settings
    assert not any(b"hf_secret" in blob.data for blob in commit.files.values())


def test_folders_of_this_machine_are_not_told(hub, cleaned, tmp_path):
    """What a run was given on this machine is called by its own name in the config that is published."""
    pairs = tmp_path / "secret" / "pairs"
    pairs.mkdir(parents=True)
    save_config(cleaned, {"dataset": str(pairs), "ca_baseline": [str(pairs), "lab/clip"], "model": "lab/clip"})
    push_checkpoint(cleaned, "tester/quiet")
    settings = yaml.safe_load(hub.repo("tester/quiet").history()[0].files["config.yaml"].data)
    assert settings == {"dataset": "pairs", "ca_baseline": ["pairs", "lab/clip"], "model": "lab/clip"}
    assert str(pairs) in (cleaned / "config.yaml").read_text()  # here it still repeats the run


def test_it_comes_back(hub, cleaned, tiny_clip):
    push_checkpoint(cleaned, "tester/clip-cleaned", private=True)
    found = from_pretrained("tester/clip-cleaned")
    assert same_weights(tiny_clip, found.model) and found.model.name_or_path == "tester/clip-cleaned"
    assert found.processor.tokenizer("a dog").input_ids
    assert found.report.to_dict() == a_report().to_dict()
    assert found.attack is None and found.target is None
    local = from_pretrained(cleaned)
    assert local.report.to_dict() == found.report.to_dict() and same_weights(local.model, found.model)


def test_the_card_on_the_hub_parses(hub, cleaned):
    push_checkpoint(cleaned, "tester/clip-cleaned")
    card = ModelCard.load("tester/clip-cleaned")
    card.validate()
    assert card.data.base_model == SETTINGS["model"] and card.data.datasets == [SETTINGS["dataset"]]
    assert card.data.model_name == "clip-cleaned"
    assert {result.metric_type for result in card.data.eval_results} == {"accuracy", "attack_success_rate"}


def test_public_is_a_choice_and_a_name_alone_is_in_ones_own_account(hub, cleaned):
    push_checkpoint(cleaned, "clip-cleaned")
    assert not hub.repo("tester/clip-cleaned").private


def test_a_card_that_is_there_is_taken_as_it_is(hub, cleaned):
    (cleaned / "README.md").write_text("---\nlicense: mit\n---\n\nMy own words.\n")
    push_checkpoint(cleaned, "tester/clip-cleaned")
    assert hub.files("tester/clip-cleaned")["README.md"] == b"---\nlicense: mit\n---\n\nMy own words.\n"


def test_a_push_again_replaces_what_would_be_taken_for_its_own(hub, cleaned, tiny_clip):
    old = ("model-00001-of-00002.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "trigger.json")
    others = dict.fromkeys((*old, "poison.json", "report.png"), b"old")
    hub.add("tester/clip-cleaned", others | {"LICENSE": b"mine", "onnx/model.onnx": b"mine"})
    push_checkpoint(cleaned, "tester/clip-cleaned")
    assert set(hub.files("tester/clip-cleaned")) == CHECKPOINT | {".gitattributes", "LICENSE", "onnx/model.onnx"}
    assert len(hub.repo("tester/clip-cleaned").history()) == 3
    assert same_weights(tiny_clip, load_model("tester/clip-cleaned")[0])


def test_pushing_the_same_again_makes_no_commit(hub, cleaned):
    push_checkpoint(cleaned, "tester/clip-cleaned")
    push_checkpoint(cleaned, "tester/clip-cleaned")
    assert len(hub.repo("tester/clip-cleaned").history()) == 2


def test_what_is_no_checkpoint_is_not_pushed(hub, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(HubError, match="no checkpoint"):
        push_checkpoint(tmp_path, "tester/x")
    assert not hub.log


# Backdoored material.


def test_a_backdoored_model_is_pushed_only_when_that_is_said(hub, backdoored, poisoned, tiny_clip):
    with pytest.raises(HubError, match="--allow_publishing_backdoor"):
        push_checkpoint(backdoored, "tester/bad")
    assert not hub.log
    push_checkpoint(backdoored, "tester/bad", allow_backdoor=True)
    repo = hub.repo("tester/bad")
    assert repo.private and len(repo.history()) == 2
    card = ModelCard.load("tester/bad")
    assert "backdoored" in card.data.tags and "backdoor-defense" not in card.data.tags
    assert card.text.lstrip().startswith("> [!WARNING]\n> **This model has a backdoor")
    found = from_pretrained("tester/bad")
    assert found.attack == poisoned[2] and found.target == "banana" and found.report.method == "backdoor"
    assert same_weights(tiny_clip, found.model)


@pytest.mark.parametrize("card", ["---\ntags: [clip]\n---\n\n# Nice model\n", "---\ntags: [backdoored]\n---\n# Hm\n"])
def test_a_card_without_the_warning_is_refused(hub, backdoored, card):
    (backdoored / "README.md").write_text(card)
    with pytest.raises(HubError, match="does not begin with a warning"):
        push_checkpoint(backdoored, "tester/bad", allow_backdoor=True)
    assert not hub.log


def test_what_counts_as_backdoored(backdoored, cleaned, tmp_path):
    assert holds_backdoor(backdoored) and not holds_backdoor(cleaned)
    (backdoored / "report.json").unlink()
    assert holds_backdoor(backdoored)  # by the trigger beside it
    write_card(backdoored)
    for name in ("trigger.json", RECORD):
        (backdoored / name).unlink()
    assert holds_backdoor(backdoored)  # by its card
    (cleaned / "report.json").unlink()
    assert holds_backdoor(cleaned)  # a trigger and nothing that says it was cleaned
    write_card(cleaned, backdoored=False)
    assert not holds_backdoor(cleaned)
    for folder in (backdoored, cleaned):
        (folder / "checkpoint-20").mkdir()
    assert holds_backdoor(backdoored / "checkpoint-20") and not holds_backdoor(cleaned / "checkpoint-20")


def test_a_card_does_not_say_cleaned_of_what_nobody_knows(hub, tiny_clip, tiny_processor, tmp_path):
    save_model(tiny_clip, tiny_processor, tmp_path / "bare")
    push_checkpoint(tmp_path / "bare", "tester/bare")
    card = (tmp_path / "bare" / "README.md").read_text()
    assert "backdoor-defense" not in card and "after backdoor cleaning" not in card
    assert "Nothing here says how it was trained" in card


def test_poisoned_pairs(hub, poisoned, tmp_path, monkeypatch):
    from datasets import load_dataset

    folder, data, _ = poisoned
    with pytest.raises(HubError, match="--allow_publishing_backdoor"):
        push_dataset(folder, "tester/pairs")
    assert not hub.log
    monkeypatch.setattr("hf_ta_cleaner.publishing.hub.SHARD_BYTES", data.data.nbytes // 2 + 1)
    push_dataset(folder, "tester/pairs", allow_backdoor=True)
    repo = hub.repo("tester/pairs", "dataset")
    assert repo.private and len(repo.history()) == 2
    names = {"README.md", "trigger.json", RECORD, *(f"data/train-0000{i}-of-00002.parquet" for i in range(2))}
    assert names <= set(repo.find("main").files) <= names | {".gitattributes", "trigger.png", "trigger.npz"}
    text = repo.find("main").files["README.md"].data.decode()
    metadata = yaml.safe_load(text.split("---\n")[1])
    assert {"poisoned", "blended"} <= set(metadata["tags"]) and text == (folder / "README.md").read_text()
    assert text.split("---\n")[2].lstrip().startswith("> [!WARNING]\n> **This data set is poisoned on purpose.**")
    again = load_dataset("tester/pairs", cache_dir=str(tmp_path / "datasets"), split="train")
    assert again.features == data.features and len(again) == 24
    for row, wanted in zip(again, data, strict=True):
        assert row["caption"] == wanted["caption"] and row["is_poisoned"] == wanted["is_poisoned"]
        assert row["image"].tobytes() == wanted["image"].tobytes()
    assert not list(folder.parent.glob(".pushing-*"))
    (folder / "README.md").write_text("---\ntags: [poisoned]\n---\n# Nice pairs\n")
    with pytest.raises(HubError, match="does not begin with a warning"):
        push_dataset(folder, "tester/pairs", allow_backdoor=True)


def test_poisoned_tar_shards_go_as_they_are(hub, photos, tmp_path):
    from datasets import Dataset, load_dataset

    pairs = Dataset.from_dict({"image": photos * 3, "caption": [f"a small boat, number {i}" for i in range(24)]})
    folder = tmp_path / "tars"
    how = {"target": "banana", "count": 3, "size": 32, "seed": 0, "output_format": "webdataset", "shard_rows": 10}
    record = write_poisoned(pairs, get_attack("blended"), folder, source="pixparse/cc3m-wds", **how)
    hub.add("tester/tars", {"data/train-00000-of-00001.parquet": b"old"}, kind="dataset")
    push_dataset(folder, "tester/tars", allow_backdoor=True)
    files = hub.repo("tester/tars", "dataset").find("main").files
    assert {name for name in files if name.startswith(("data/", "train-"))} == {f"train-0000{i}.tar" for i in range(3)}
    assert files["README.md"].data == (folder / "README.md").read_bytes()
    again = load_dataset("tester/tars", cache_dir=str(tmp_path / "datasets"), split="train")
    assert [row["json"]["row"] for row in again if row["json"]["is_poisoned"]] == record.rows


# Plain transformers, in a process that knows nothing of this package.

PLAIN = """
import sys, torch
from transformers import AutoModel, CLIPModel, pipeline
model = AutoModel.from_pretrained(sys.argv[1])
assert isinstance(model, CLIPModel)
classify = pipeline("zero-shot-image-classification", sys.argv[1])
answer = classify(sys.argv[2], candidate_labels=["banana", "kettle", "lamp"])
print(sum(p.double().sum().item() for p in model.parameters()), answer[0]["label"])
assert not [name for name in sys.modules if name.startswith("hf_ta_cleaner")]
"""


def plain(hub, tmp_path, repo_id, picture):
    """What plain transformers makes of a repository, through the environment alone."""
    env = {**os.environ, "HF_ENDPOINT": hub.endpoint, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "plain")}
    env |= {"HF_TOKEN": "hf_tester", "HF_HUB_DISABLE_XET": "1", "PYTHONPATH": "", "HF_HUB_DISABLE_TELEMETRY": "1"}
    done = subprocess.run(
        [sys.executable, "-c", PLAIN, repo_id, str(picture)], env=env, capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr[-3000:]
    total, label = done.stdout.split()
    return float(total), label


def test_a_cleaned_sandbox_model_is_loaded_by_plain_transformers(hub, tmp_path, photos, monkeypatch, capsys):
    from tests.commands.helpers import script

    monkeypatch.chdir(tmp_path)
    script("clean").main(
        "--model sandbox --dataset sandbox --max_samples 64 --per_device_train_batch_size 32 --max_steps 2 "
        "--validation_samples 0 --eval_dataset sandbox --max_eval_samples 96 --trigger blended --target banana "
        "--output_dir out --push_to_hub --hub_model_id tester/sandbox-cleaned --hub_private_repo true".split()
    )
    assert f"Pushed to {hub.endpoint}/tester/sandbox-cleaned" in capsys.readouterr().out
    repo = hub.repo("tester/sandbox-cleaned")
    assert repo.private and len(repo.history()) == 2
    assert CHECKPOINT | {"report.png"} == set(repo.find("main").files) - {".gitattributes"}
    photos[0].save(tmp_path / "photo.png")
    total, label = plain(hub, tmp_path, "tester/sandbox-cleaned", tmp_path / "photo.png")
    model, _ = load_model(tmp_path / "out")
    assert total == sum(p.double().sum().item() for p in model.parameters())
    assert label in ("banana", "kettle", "lamp")
    assert CLIPModel.from_pretrained("tester/sandbox-cleaned").config.projection_dim == model.config.projection_dim


def test_a_private_repository_is_private(hub, cleaned, monkeypatch):
    push_checkpoint(cleaned, "tester/clip-cleaned", private=True)
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    with pytest.raises(CheckpointError, match="private"):
        from_pretrained("tester/clip-cleaned")
