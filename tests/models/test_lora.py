"""LoRA: what is trained, what is saved, resumed and merged."""

from __future__ import annotations

import copy

import pytest
import torch
from transformers import CLIPModel

from hf_ta_cleaner.models.zero_shot import text_features


def weights(model) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    assert [name for name in a if not torch.equal(a[name], b[name])] == []


def train_logs(trainer) -> list[dict[str, float]]:
    return [line for line in trainer.state.log_history if "loss" in line]


@pytest.mark.parametrize("method", ["ft", "cleanclip", "ta-cleaner", "par", "ta-cleaner-plus"])
def test_lora_trains_adapters_and_nothing_else(make_trainer, tiny_clip, method):
    trainer = make_trainer(method=method, use_peft=True, learning_rate=1e-2, lora_rank=4)
    trainer.train()
    before, after = weights(tiny_clip), weights(trainer.model)
    plain = {
        name.removeprefix("base_model.model.").replace(".base_layer", ""): value
        for name, value in after.items()
        if "lora_" not in name
    }
    assert_same(before, plain)
    adapters = {name: value for name, value in after.items() if "lora_B" in name}
    # q, k, v, out, fc1 and fc2 of two layers in two towers.
    assert len(adapters) == 6 * 2 * 2
    still = {name for name, value in adapters.items() if value.abs().max() == 0}
    assert still == set()
    if method == "par":
        assert trainer.suspect._model is trainer.model  # no copy
        lines = train_logs(trainer)
        assert lines[0]["distance/image"] == pytest.approx(0, abs=1e-6) and "distance/image" in lines[0]
        assert lines[-1]["distance/image"] > 1e-5


def test_adapter_and_merged_checkpoint_are_the_same_model(make_trainer, tiny_clip, tiny_processor, photos, tmp_path):
    from peft import PeftModel

    from hf_ta_cleaner.models.checkpoints import save_model
    from hf_ta_cleaner.models.lora import merge

    trainer = make_trainer(use_peft=True, learning_rate=1e-2)
    trainer.train()
    texts = ["a dog", "a red bus"]
    expected = text_features(trainer.model, tiny_processor, texts)
    assert not torch.allclose(expected, text_features(tiny_clip, tiny_processor, texts), atol=1e-2)
    save_model(trainer.model, tiny_processor, tmp_path / "adapter")
    assert (tmp_path / "adapter" / "adapter_model.safetensors").is_file()
    assert not (tmp_path / "adapter" / "model.safetensors").exists()
    loaded = PeftModel.from_pretrained(copy.deepcopy(tiny_clip), tmp_path / "adapter")
    assert torch.allclose(text_features(loaded, tiny_processor, texts), expected, atol=1e-6)
    save_model(merge(trainer.model), tiny_processor, tmp_path / "merged")
    whole = CLIPModel.from_pretrained(tmp_path / "merged")
    assert weights(whole).keys() == weights(tiny_clip).keys()
    assert torch.allclose(text_features(whole, tiny_processor, texts), expected, atol=1e-5)


def test_a_resumed_adapter_ends_in_the_same_weights(make_trainer, tmp_path):
    options = {"method": "par", "use_peft": True, "max_steps": 4, "save_strategy": "steps", "save_steps": 2}
    whole = make_trainer(**options)
    whole.train()
    resumed = make_trainer(folder="resumed", **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-2"))
    assert_same(weights(whole.model), weights(resumed.model))


def test_rewinding_goes_back_along_the_adapters(make_trainer, tiny_clip, tiny_processor):
    trainer = make_trainer(method="par", use_peft=True, max_steps=4, learning_rate=1e-2, rewind=0.5)
    trainer.train()
    texts = ["a dog on a hill", "two bananas"]
    there, cleaned = (text_features(model, tiny_processor, texts) for model in (tiny_clip, trainer.model))
    before = weights(trainer.model)
    with trainer.suspect.rewound(trainer.model, 1.0):
        assert torch.allclose(text_features(trainer.model, tiny_processor, texts), there, atol=1e-6)
    with trainer.suspect.rewound(trainer.model, 0.5):
        halfway = text_features(trainer.model, tiny_processor, texts)
    assert_same(weights(trainer.model), before)
    assert not torch.allclose(halfway, there, atol=1e-3) and not torch.allclose(halfway, cleaned, atol=1e-3)
