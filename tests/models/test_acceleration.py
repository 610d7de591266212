"""The faster towers are the same towers."""

from __future__ import annotations

import copy

import pytest
import torch
from transformers import CLIPModel

from hf_ta_cleaner.models.acceleration import (
    GroupedTextModel,
    SiluMLP,
    compile_blocks,
    group_texts,
    text_groups,
    use_silu,
)


#: In double precision no gradient drowns in rounding.
PIXELS = torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
IDS = torch.randint(0, 500, (6, 9), generator=torch.Generator().manual_seed(1))


def embedded(model) -> torch.Tensor:
    output = model(pixel_values=PIXELS.to(model.dtype), input_ids=IDS)
    return torch.cat([output.image_embeds, output.text_embeds])


def gradients(model) -> dict[str, torch.Tensor]:
    model.zero_grad()
    (embedded(model) @ torch.arange(16.0).to(model.dtype)).square().sum().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def logged(trainer) -> list[float]:
    trainer.train()
    return [line["loss"] for line in trainer.state.log_history if "loss" in line]


# --- QuickGELU by way of SiLU ----------------------------------------------------------------------------------------


def test_embeddings_and_gradients_stay(tiny_clip):
    plain, fast = tiny_clip.double(), copy.deepcopy(tiny_clip)
    assert use_silu(fast) == 4 and use_silu(fast) == 0
    assert torch.allclose(embedded(plain), embedded(fast), atol=1e-12)
    wanted, got = gradients(plain), gradients(fast)
    assert wanted.keys() == got.keys() and any("mlp.fc1" in name for name in wanted)
    for name in wanted:
        assert torch.allclose(wanted[name], got[name], rtol=1e-7, atol=1e-12), name
    assert min(wanted[name].abs().max() for name in wanted if "mlp.fc" in name) > 1e-6


def test_it_is_still_a_clip(tiny_clip, tmp_path):
    before = tiny_clip.state_dict()
    fast = copy.deepcopy(tiny_clip)
    use_silu(fast)
    twin = copy.deepcopy(fast)  # with weights of its own
    with torch.no_grad():
        for module in twin.modules():
            if isinstance(module, SiluMLP):
                module.fc1.weight.zero_()
    assert not torch.allclose(embedded(fast), embedded(twin), atol=1e-3)
    assert all(torch.equal(value, before[name]) for name, value in fast.state_dict().items())
    fast.save_pretrained(tmp_path)
    loaded = CLIPModel.from_pretrained(tmp_path)
    assert not any(isinstance(module, SiluMLP) for module in loaded.modules())
    assert torch.allclose(embedded(loaded), embedded(tiny_clip), atol=1e-6)


def test_other_activations_and_adapted_layers_are_left_alone(tiny_clip, tiny_siglip):
    from hf_ta_cleaner.models.lora import add_lora

    other = copy.deepcopy(tiny_clip)
    for module in other.modules():
        if hasattr(module, "activation_fn"):
            module.activation_fn = torch.nn.GELU()
    assert use_silu(other) == use_silu(tiny_siglip) == 0
    adapted = add_lora(tiny_clip, rank=2, alpha=4.0)
    assert use_silu(adapted) == 0


def test_the_trainer_uses_it(make_trainer):
    trainer = make_trainer()
    assert sum(isinstance(module, SiluMLP) for module in trainer.model.modules()) == 4


# --- texts of like length together -----------------------------------------------------------------------------------


def padded_texts(lengths: list[int], model) -> dict[str, torch.Tensor]:
    """Texts of so many tokens, the end among them, padded on the right as CLIP's tokenizer does."""
    end, longest = model.config.text_config.eos_token_id, max(lengths)
    ids = torch.full((len(lengths), longest), end)
    generator = torch.Generator().manual_seed(2)
    for row, n in zip(ids, lengths, strict=True):
        row[: n - 1] = torch.randint(3, 500, (n - 1,), generator=generator)
    return {"input_ids": ids, "attention_mask": torch.arange(longest).lt(torch.tensor(lengths)[:, None]).long()}


#: Thirty-three, so that the groups are not equal; a few long ones, as captions are.
LENGTHS = [3 + 7 * i % 6 for i in range(30)] + [14, 12, 16]


def test_grouped_texts_keep_embeddings_and_gradients(tiny_clip):
    plain, grouped = tiny_clip.double().train(), copy.deepcopy(tiny_clip)
    assert group_texts(grouped) == 1 and group_texts(grouped) == 0
    texts, found = padded_texts(LENGTHS, plain), []
    for model in (plain, grouped):
        embeddings = model(pixel_values=PIXELS, **texts).text_embeds
        (embeddings @ torch.randn(16, 3, generator=torch.Generator().manual_seed(3)).double()).pow(3).sum().backward()
        found.append((embeddings, {n: p.grad for n, p in model.named_parameters() if p.grad is not None}))
    (wanted, by_name), (got, its) = found
    assert torch.allclose(wanted, got, atol=1e-12) and by_name.keys() == its.keys()
    assert all(torch.allclose(by_name[name], its[name], rtol=1e-7, atol=1e-12) for name in by_name)
    assert (wanted[0] - wanted[1]).abs().max() > 1e-3  # in another order they would be other embeddings


def test_fewer_positions_go_through_the_tower_in_training_alone(tiny_clip):
    group_texts(tiny_clip)
    taken: list[torch.Size] = []
    tiny_clip.text_model.embeddings.register_forward_hook(lambda *call: taken.append(call[-1].shape[:2]))
    texts = padded_texts(LENGTHS, tiny_clip)
    tiny_clip.train()(pixel_values=PIXELS.float(), **texts)
    assert sorted(taken) == sorted((len(rows), longest) for rows, longest in text_groups(texts["attention_mask"]))
    assert len(taken) == 4 and sum(rows * n for rows, n in taken) < 0.6 * texts["input_ids"].numel()
    taken.clear()
    output = tiny_clip.eval()(pixel_values=PIXELS.float(), **texts)
    assert taken == [texts["input_ids"].shape] and output.text_model_output.last_hidden_state is not None


def test_texts_padded_on_the_left_are_left_whole(tiny_clip):
    plain, grouped = tiny_clip.train(), copy.deepcopy(tiny_clip)
    group_texts(grouped)
    texts = {name: value.flip(1) for name, value in padded_texts(LENGTHS, plain).items()}
    wanted, got = (model(pixel_values=PIXELS.float(), **texts).text_embeds for model in (plain, grouped))
    assert torch.equal(wanted, got)


def test_few_texts_are_one_group():
    assert [longest for _, longest in text_groups(torch.ones(15, 6))] == [6]
    assert [len(rows) for rows, _ in text_groups(torch.ones(16, 6))] == [8, 8]


def test_the_trainer_groups_texts_and_saves_a_clip(make_trainer, tmp_path):
    trainer = make_trainer()
    assert isinstance(trainer.model.text_model, GroupedTextModel)
    trainer.model.save_pretrained(tmp_path)
    assert not isinstance(CLIPModel.from_pretrained(tmp_path).text_model, GroupedTextModel)


# --- Compiled blocks -------------------------------------------------------------------------------------------------


def test_every_block_is_compiled_in_place(tiny_clip):
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    names, wanted = list(tiny_clip.state_dict()), embedded(tiny_clip)
    assert compile_blocks(tiny_clip, backend=backend) == 4
    assert torch.allclose(embedded(tiny_clip), wanted, atol=1e-6)
    assert len(graphs) == 2  # one of pictures and one of texts, for two layers each
    assert list(tiny_clip.state_dict()) == names


@pytest.mark.parametrize("settings", [{"method": "ta-cleaner"}, {"method": "par", "mini_batch_size": 4}])
def test_a_compiled_run_is_the_same_run(make_trainer, settings, tmp_path):
    plain = make_trainer(**settings)
    compiled = make_trainer(**settings, torch_compile=True, torch_compile_backend="eager")
    assert all(not hasattr(trainer.model, "_orig_mod") for trainer in (plain, compiled))
    assert any(module._compiled_call_impl is not None for module in compiled.model.modules())
    assert logged(compiled) == pytest.approx(logged(plain), rel=1e-4)
    compiled.save_model(str(tmp_path))
    assert torch.allclose(embedded(CLIPModel.from_pretrained(tmp_path)), embedded(plain.model.eval()), atol=1e-4)
