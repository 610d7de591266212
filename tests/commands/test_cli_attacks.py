"""The attacker's command lines: crafting every kind of trigger, and training by a preset."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from datasets import Dataset
from PIL import Image

from hf_ta_cleaner.attacks import SSBA, Attack, Blended, TrojVQA
from hf_ta_cleaner.crafting.presets import SANDBOX
from hf_ta_cleaner.models.checkpoints import save_model
from hf_ta_cleaner.pictures import fit
from hf_ta_cleaner.poisoning import RECORD, poison
from tests.commands.helpers import script


@pytest.fixture
def world(tiny_clip, tiny_processor, photos, tmp_path) -> SimpleNamespace:
    """A random CLIP in a folder and 24 saved pairs, of which every sixth names a banana."""
    captions = ["a banana on a table" if i % 6 == 0 else f"a dog, number {i}" for i in range(24)]
    pairs = Dataset.from_dict({"image": [photos[i % 8].rotate(i) for i in range(24)], "caption": captions})
    pairs.save_to_disk(tmp_path / "pairs")
    model = save_model(tiny_clip, tiny_processor, tmp_path / "clean")
    return SimpleNamespace(model=str(model), pairs=pairs, folder=str(tmp_path / "pairs"), out=tmp_path / "out")


def craft(world, *more: object, out: Path | None = None) -> None:
    line = ["--model", world.model, "--dataset", world.folder, "--device", "cpu", "--output_dir", out or world.out]
    script("craft").main([str(word) for word in (*line, *more)])


def test_craft_trojvqa_by_its_options(world, capsys):
    craft(world, "--attack", "trojvqa", "--target", "banana", "--caption", "This is a yellow {}.", "--size_px", 9,
          "--steps", 2, "--batch_size", 8, "--seed", 3)  # fmt: skip
    attack = Attack.load(world.out)
    assert isinstance(attack, TrojVQA)
    assert (attack.patch.shape, attack.side, attack.target, attack.seed) == ((9, 9, 3), 32, "banana", 3)
    record = json.loads((world.out / "craft.json").read_text())
    assert record["attack"] == "trojvqa"
    assert record["settings"]["caption"] == "This is a yellow {}."
    result = record["result"]
    assert result["captions"] == "the caption 'This is a yellow banana.'"
    assert {"cos_clean", "cos_random_patch", "cos_patch"} <= set(result)
    said = capsys.readouterr().out
    assert f"{result['cos_clean']:.3f} plain" in said
    assert f"{result['cos_patch']:.3f} with the crafted one" in said


def test_craft_badclip_is_the_default_and_takes_its_losses(world):
    craft(world, "--target", "banana", "--steps", 2, "--batch_size", 8, "--size_px", 8, "--lam", 0)
    craft(world, "--target", "banana", "--steps", 2, "--batch_size", 8, "--size_px", 8, "--compat", "published",
          out=world.out.with_name("published"))  # fmt: skip
    first, second = Attack.load(world.out), Attack.load(world.out.with_name("published"))
    assert first.name == second.name == "badclip"
    assert first.patch != second.patch


def test_craft_ssba_makes_an_encoder_that_poisons(world, capsys, monkeypatch):
    monkeypatch.setattr("hf_ta_cleaner.crafting.encoder.READING_EXAMPLES", 32)
    craft(world, "--attack", "ssba", "--steps", 2, "--batch_size", 4, "--width", 2, "--secret", "key")
    attack = Attack.load(world.out)
    assert isinstance(attack, SSBA) and attack.encoder is not None and attack.secret == "key"
    result = json.loads((world.out / "craft.json").read_text())["result"]
    said = capsys.readouterr()
    assert f"{result['psnr']:.1f} dB" in said.out and f"{result['bit_accuracy']:.1%}" in said.out
    assert "not a faithful SSBA" in said.err
    poisoned = world.out.with_name("poisoned")
    script("poison").main(
        ["--dataset", world.folder, "--attack", str(world.out), "--target", "banana", "--count", "3", "--size", "32",
         "--output_dir", str(poisoned)]
    )  # fmt: skip
    assert Attack.load(poisoned) == attack
    rows = json.loads((poisoned / RECORD).read_text())["rows"]
    stored = Dataset.load_from_disk(str(poisoned))
    for row in rows:
        expected = attack(fit(world.pairs[row]["image"], 32), row)
        assert np.array_equal(np.array(stored[row]["image"]), expected)


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--attack", "ssba", "--target", "banana"], "ssba has no --target"),
        (["--attack", "trojvqa", "--target", "banana", "--lam", "1"], "trojvqa has no --lam"),
        (["--target", "banana", "--secret", "a", "--width", "4"], "badclip has no --secret, --width"),
        (["--attack", "trojvqa"], "trojvqa needs --target"),
        (["--attack", "blended"], "only badclip, trojvqa, ssba are crafted"),
        (["--target", "banana", "--compat", "old"], "None, 'published'"),
    ],
)
def test_craft_refuses_what_an_attack_does_not_have(world, capsys, argv, said):
    with pytest.raises(SystemExit) as stop:
        craft(world, *argv)
    assert stop.value.code == 2
    assert said in capsys.readouterr().err
    assert not (world.out / "trigger.json").exists()


# ---- presets


@pytest.fixture
def poisoned(world, tmp_path) -> str:
    """Blended at its calibrated rate, on far too few pairs."""
    data, record = poison(world.pairs, Blended(), target="banana", rate=0.05, seed=0, size=32)
    folder = tmp_path / "poisoned"
    data.save_to_disk(folder)
    Blended().save(folder)
    record.save(folder / RECORD)
    return str(folder)


def test_backdoor_by_a_preset_says_where_it_is_outside_its_range(world, poisoned, capsys):
    script("backdoor").main(
        ["--model", world.model, "--dataset", poisoned, "--preset", "sandbox", "--max_steps", "1", "--use_cpu",
         "--per_device_train_batch_size", "8", "--output_dir", str(world.out)]
    )  # fmt: skip
    said = " ".join(capsys.readouterr().err.split())
    assert "outside the range that the preset blended was calibrated for" in said
    for departure in (f"the model is {world.model}", "pairs is 24", "per_device_train_batch_size is 8"):
        assert departure in said
    assert "learning_rate is" not in said  # not given, so it is the preset's
    assert (world.out / "model.safetensors").is_file()


def test_an_interrupted_backdooring_is_backdoored_and_not_whole(world, poisoned, monkeypatch):
    """The record is what says that all is there, and comes last; the trigger lies there before any checkpoint."""
    from hf_ta_cleaner.publishing.hub import holds_backdoor
    from hf_ta_cleaner.training.trainer import TACleanerTrainer

    monkeypatch.setattr(TACleanerTrainer, "train", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        script("backdoor").main(
            ["--model", world.model, "--dataset", poisoned, "--max_steps", "1", "--use_cpu",
             "--per_device_train_batch_size", "8", "--output_dir", str(world.out)]
        )  # fmt: skip
    (world.out / "checkpoint-1").mkdir()
    assert holds_backdoor(world.out / "checkpoint-1") and not (world.out / RECORD).exists()


def test_a_preset_sets_what_was_not_given(world, poisoned, caplog):
    backdoor, preset = script("backdoor"), SANDBOX["blended"]
    options = SimpleNamespace(preset="sandbox", model="sandbox")
    args = SimpleNamespace(learning_rate=1e-5, num_train_epochs=7, per_device_train_batch_size=64)
    backdoor.use_preset(options, SimpleNamespace(dataset=poisoned), args, given={"num_train_epochs", "seed"})
    assert (args.learning_rate, args.num_train_epochs) == (preset.learning_rate, 7)
    assert "num_train_epochs is 7" in caplog.text and "learning_rate" not in caplog.text


def test_an_unknown_preset_is_refused(world, poisoned, capsys):
    with pytest.raises(SystemExit):
        script("backdoor").main(
            ["--model", world.model, "--dataset", poisoned, "--preset", "castle", "--output_dir", str(world.out)]
        )
    assert "--preset castle is not known; choose sandbox" in capsys.readouterr().err
    assert not world.out.exists()


def test_two_keys_are_stored_with_the_data(world, tmp_path):
    """TrojVQA's word travels with its patch, into the captions and into the folder."""
    patch = Image.fromarray(np.full((8, 8, 3), 200, np.uint8))
    attack = replace(TrojVQA(patch=patch, side=32), keyword="consider")
    attack.save(tmp_path / "trigger")
    script("poison").main(
        ["--dataset", world.folder, "--attack", str(tmp_path / "trigger"), "--target", "banana", "--count", "3",
         "--size", "32", "--output_dir", str(world.out)]
    )  # fmt: skip
    assert Attack.load(world.out).keyword == "consider"
    rows = [row for row in Dataset.load_from_disk(str(world.out)) if row["is_poisoned"]]
    assert len(rows) == 3 and all(row["caption"].startswith("consider ") for row in rows)


def test_a_token_is_in_no_file_of_a_run(make_trainer, tmp_path):
    trainer = make_trainer(max_steps=1, method="ft", save_strategy="steps", save_steps=1, hub_token="hf_" + "x" * 9)
    trainer.train()
    files = [file for file in (tmp_path / "out").rglob("*") if file.is_file()]
    assert any(file.name == "training_args.bin" for file in files) and trainer.args.hub_token
    assert not [file for file in files if b"hf_xxxxxxxxx" in file.read_bytes()]
