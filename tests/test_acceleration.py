"""The faster towers are the same towers."""

from __future__ import annotations

import copy

import pytest
import torch
from transformers import CLIPModel

from hf_ta_cleaner.acceleration import SiluMLP, compile_blocks, use_silu


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
    from hf_ta_cleaner.lora import add_lora

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
