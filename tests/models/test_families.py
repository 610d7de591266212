"""CLIP and SigLIP: padding, losses, temperatures, and a SigLIP from a folder to its report."""

from __future__ import annotations

import copy
import json
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModel, AutoProcessor, SiglipModel

from hf_ta_cleaner.models.checkpoints import load_model
from hf_ta_cleaner.models.families import FAMILIES, family_of
from hf_ta_cleaner.models.zero_shot import text_features


def weights(model) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    assert [name for name in a if not torch.equal(a[name], b[name])] == []


def train_logs(trainer) -> list[dict[str, float]]:
    return [line for line in trainer.state.log_history if "loss" in line]


PLAIN = {"image_noise": 0.0, "image_erase": 0.0}


def test_siglip_texts_are_padded_and_never_masked(siglip_processor, tiny_siglip):
    tokens = FAMILIES["siglip"].tokenize(siglip_processor.tokenizer, ["a dog", "a red bus"])
    assert set(tokens) == {"input_ids"} and tokens["input_ids"].shape == (2, 16)
    pad = siglip_processor.tokenizer.pad_token_id
    assert (tokens["input_ids"][:, -1] == pad).all()
    with torch.no_grad():
        expected = tiny_siglip.get_text_features(input_ids=tokens["input_ids"]).pooler_output
    got = text_features(tiny_siglip, siglip_processor, ["a dog", "a red bus"], batch_size=1)
    assert torch.allclose(got, torch.nn.functional.normalize(expected, dim=-1), atol=1e-6)


def test_a_tokenizer_without_a_length_is_given_the_models(tiny_siglip, siglip_processor, tmp_path):
    tiny_siglip.save_pretrained(tmp_path)
    siglip_processor.save_pretrained(tmp_path)
    file = tmp_path / "tokenizer_config.json"
    settings = json.loads(file.read_text())
    assert settings.pop("model_max_length") == 16
    file.write_text(json.dumps(settings))
    nameless = AutoProcessor.from_pretrained(tmp_path)
    assert nameless.tokenizer.model_max_length > 16
    texts = ["a dog", "a red bus " * 20]
    expected = text_features(tiny_siglip, siglip_processor, texts)
    assert load_model(tmp_path)[1].tokenizer.model_max_length == 16
    assert torch.equal(text_features(tiny_siglip, nameless, texts), expected)


def test_clip_texts_are_cut_and_masked(tiny_processor):
    tokens = FAMILIES["clip"].tokenize(tiny_processor.tokenizer, ["a dog", "a"])
    assert tokens["input_ids"].shape[1] < 10 and tokens["attention_mask"].sum(1).tolist() != [0, 0]
    assert FAMILIES["clip"].tokenize(tiny_processor.tokenizer, ["a"], trim=False)["input_ids"].shape[1] == 77


@pytest.mark.parametrize("method", ["ft", "ta-cleaner", "par", "ta-cleaner-plus"])
def test_siglip_is_cleaned_with_its_own_loss(make_trainer, cleaning_pairs, tiny_siglip, siglip_processor, method):
    rows = cleaning_pairs.select(range(8))
    trainer = make_trainer(
        rows, method=method, model=copy.deepcopy(tiny_siglip), processor=siglip_processor, max_steps=2, **PLAIN
    )
    widths = []
    trainer.model.text_model.register_forward_pre_hook(
        lambda module, args, kwargs: widths.append((kwargs["input_ids"].shape[1], kwargs.get("attention_mask"))),
        with_kwargs=True,
    )
    trainer.train()
    tokens = siglip_processor.tokenizer(
        rows["caption"][:], padding="max_length", truncation=True, return_tensors="pt"
    )["input_ids"]
    pixels = siglip_processor.image_processor(rows["image"][:], return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        expected = tiny_siglip(pixel_values=pixels, input_ids=tokens, return_loss=True).loss.item()
    # The processor squashes, training crops: the same loss up to what that changes.
    if method != "ta-cleaner-plus":  # whose pictures are attacked
        assert train_logs(trainer)[0]["loss/clip"] == pytest.approx(expected, rel=0.05)
    assert widths and all(width == (16, None) for width in widths)
    before, after = weights(tiny_siglip), weights(trainer.model)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    temperature = {"logit_scale", "logit_bias"}
    assert (temperature <= moved) == (method not in ("par", "ta-cleaner-plus"))
    assert {name for name in before if before[name].ndim >= 2} <= moved


def test_siglips_temperature_may_stand_above_clips_limit(tiny_siglip):
    family = family_of(tiny_siglip)
    family.clamp(tiny_siglip)
    assert tiny_siglip.logit_scale.item() == pytest.approx(4.77)
    tiny_siglip.logit_scale.data.fill_(-0.5)
    family.clamp(tiny_siglip)
    assert tiny_siglip.logit_scale.item() == 0
    assert family.scale(tiny_siglip).shape == family.bias(tiny_siglip).shape == ()


def test_lora_on_siglip_reaches_what_it_adapts(make_trainer, tiny_siglip, siglip_processor):
    trainer = make_trainer(
        method="cleanclip", model=tiny_siglip, processor=siglip_processor, use_peft=True, learning_rate=1e-2
    )
    trainer.train()
    adapters = {name: value for name, value in weights(trainer.model).items() if "lora_B" in name}
    assert len(adapters) == 6 * 2 * 2 and all(value.abs().max() > 0 for value in adapters.values())


def test_siglip_from_folder_to_audit(tiny_siglip, siglip_processor, photos, tmp_path, capsys):
    """The whole command on a folder of a SigLIP: loaded, cleaned, audited, reported, loaded again."""
    from datasets import ClassLabel, Dataset

    from hf_ta_cleaner.commands import clean
    from hf_ta_cleaner.publishing.report import Report

    tiny_siglip.save_pretrained(tmp_path / "suspect")
    siglip_processor.save_pretrained(tmp_path / "suspect")
    Dataset.from_dict({"image": photos * 3, "caption": [f"a red dog and a bus {i}" for i in range(24)]}).save_to_disk(
        tmp_path / "pairs"
    )
    labelled = Dataset.from_dict({"image": photos, "label": [0, 1] * 4})
    labelled.cast_column("label", ClassLabel(names=["dog", "bus"])).save_to_disk(tmp_path / "labelled")
    line = f"--model {tmp_path}/suspect --dataset {tmp_path}/pairs --eval_dataset {tmp_path}/labelled --target bus "
    line += "--trigger blended --method ta-cleaner-plus --max_steps 2 --per_device_train_batch_size 8 "
    line += f"--output_dir {tmp_path}/out"
    clean.main(line.split())
    report = Report.load(tmp_path / "out")
    assert report.before["attacks"]["blended"]["n"] == 4
    assert isinstance(AutoModel.from_pretrained(tmp_path / "out"), SiglipModel)
    tokenizer = AutoProcessor.from_pretrained(tmp_path / "out").tokenizer
    assert tokenizer.get_vocab() == siglip_processor.tokenizer.get_vocab()


def test_families_without_a_place_in_the_table_are_named():
    with pytest.raises(ValueError, match=r"'blip'.*CLIP \(model_type 'clip'\), SigLIP"):
        family_of(SimpleNamespace(config=SimpleNamespace(model_type="blip")))
