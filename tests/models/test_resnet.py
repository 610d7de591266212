"""The ResNet of CLIP: equal to the published module, saved and loaded like any model, statistics kept or learned."""

from __future__ import annotations

import copy
import logging
import subprocess
import sys
import zlib

import numpy as np
import pytest
import torch
from transformers import AutoModel, CLIPTextConfig, pipeline

from hf_ta_cleaner.models.checkpoints import load_model, save_model
from hf_ta_cleaner.models.families import family_of
from hf_ta_cleaner.models.lora import add_lora
from hf_ta_cleaner.models.resnet import (
    CLIPResNetConfig,
    CLIPResNetModel,
    CLIPResNetVisionConfig,
    CLIPResNetVisionModel,
    batch_norms,
    freeze_batch_norm,
)
from hf_ta_cleaner.publishing.hub import write_card


def draw(model):
    """Weights from each tensor's name alone, so that any two modules with these names get the same."""
    for name, tensor in model.state_dict().items():
        values = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(tuple(tensor.shape))
        if name.endswith("running_var"):
            values = 0.5 + abs(values)
        elif tensor.ndim > 1:
            values = values / np.sqrt(tensor[0].numel())
        elif tensor.ndim == 1:
            values = 0.2 * values + (name.endswith("weight"))
        tensor.copy_(torch.from_numpy(np.asarray(values)))
    return model


def picture(side):
    return torch.from_numpy(np.random.default_rng(0).standard_normal((2, 3, side, side)).astype(np.float32))


#: (layers, stem width, heads, outputs, side) -> what open_clip's ModifiedResNet made of `draw` and `picture`.
PUBLISHED = {
    ((1, 2, 1, 1), 8, 4, 6, 64): [
        [-0.307881, 0.535734, -0.525958, 0.120616, -0.61285, -0.364846],
        [-0.310363, 0.538257, -0.521763, 0.120026, -0.611386, -0.362045],
    ],
    ((2, 1, 1, 2), 10, 5, 6, 96): [
        [-0.358256, 1.985151, 0.558669, -0.479891, 0.068334, 0.40151],
        [-0.37236, 2.004968, 0.557667, -0.491087, 0.073947, 0.392066],
    ],
}


@pytest.mark.parametrize("sizes", PUBLISHED)
def test_embeddings_are_those_of_the_published_module(sizes):
    layers, width, heads, outputs, side = sizes
    config = CLIPResNetVisionConfig(
        stem_width=width, layers=layers, num_attention_heads=heads, projection_dim=outputs, image_size=side
    )
    model = draw(CLIPResNetVisionModel(config)).eval()
    with torch.no_grad():
        output = model(picture(side))
    assert output.last_hidden_state.shape == (2, (side // 32) ** 2, 32 * width)
    assert np.abs(output.pooler_output.numpy() - np.array(PUBLISHED[sizes])).max() < 1e-5


@pytest.fixture
def tiny_resnet(tiny_processor):
    """A randomly initialised CLIPResNetModel with 32-pixel input and 16 dimensions, the same in every test."""
    return make_resnet(len(tiny_processor.tokenizer))


def make_resnet(vocabulary):
    text = CLIPTextConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        vocab_size=vocabulary,
        bos_token_id=vocabulary - 2,
        eos_token_id=vocabulary - 1,
        pad_token_id=vocabulary - 1,
    )
    vision = CLIPResNetVisionConfig(
        stem_width=4, layers=[1, 1, 1, 1], num_attention_heads=2, image_size=32, projection_dim=16
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return CLIPResNetModel(CLIPResNetConfig(text_config=text, vision_config=vision, projection_dim=16)).eval()


def test_rn50_has_the_published_number_of_weights():
    """102,007,137, as counted on OpenAI's RN50; built without memory."""
    with torch.device("meta"):
        model = CLIPResNetModel(CLIPResNetConfig(text_config=CLIPTextConfig(projection_dim=1024)))
    assert sum(parameter.numel() for parameter in model.parameters()) == 102_007_137


def test_outputs_are_like_those_of_a_clip_model(tiny_resnet, tiny_clip):
    ids, pixels = torch.randint(5, 400, (3, 7)), torch.randn(3, 3, 32, 32)
    ids[:, -1] = tiny_resnet.config.text_config.eos_token_id
    for model in (tiny_resnet, tiny_clip):
        with torch.no_grad():
            output = model(input_ids=ids, pixel_values=pixels, return_loss=True)
            image, text = (
                torch.nn.functional.normalize(features.pooler_output, dim=-1)
                for features in (model.get_image_features(pixels), model.get_text_features(ids))
            )
        logits = model.logit_scale.exp() * image @ text.T
        loss = -(logits.log_softmax(0).diag().mean() + logits.log_softmax(1).diag().mean()) / 2
        assert torch.allclose(output.logits_per_image, logits, atol=1e-5)
        assert torch.allclose(output.logits_per_text, logits.T, atol=1e-5)
        assert torch.allclose(output.image_embeds, image) and torch.allclose(output.text_embeds, text)
        assert torch.allclose(output.loss, loss)


def test_a_saved_model_loads_like_any_other(tiny_resnet, tiny_processor, tmp_path):
    draw(tiny_resnet)
    folder = save_model(tiny_resnet, tiny_processor, tmp_path / "saved")
    model, _ = load_model(folder)
    assert type(model) is CLIPResNetModel and not model.training
    for name, tensor in tiny_resnet.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name]), name
    assert type(AutoModel.from_pretrained(folder)) is CLIPResNetModel


def test_plain_transformers_needs_one_import(tiny_resnet, tiny_processor, tmp_path):
    folder = save_model(tiny_resnet, tiny_processor, tmp_path / "saved")
    code = """if True:
        import sys
        from transformers import AutoModel
        try:
            AutoModel.from_pretrained(sys.argv[1])
        except ValueError as error:
            print("clip_resnet" in str(error))
        import hf_ta_cleaner.models.resnet
        print(type(AutoModel.from_pretrained(sys.argv[1])).__name__)
    """
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "CLIPResNetModel"]


def test_adapters_go_on_the_text_tower_and_the_attention_pool(tiny_resnet):
    family = family_of(tiny_resnet)
    assert family.title == "CLIP with a ResNet"
    before = copy.deepcopy(tiny_resnet)
    model = add_lora(tiny_resnet, rank=2, alpha=4)
    adapted = {name.split(".lora_A")[0] for name, _ in model.named_parameters() if "lora_A" in name}
    pool = {name.split("attnpool.")[1] for name in adapted if "attnpool" in name}
    assert pool == {"q_proj", "k_proj", "v_proj", "c_proj"}
    assert len(adapted) == 4 + 2 * 6
    pixels = torch.randn(2, 3, 32, 32)
    model.get_image_features(pixels).pooler_output.sum().backward()
    assert all(p.grad is not None for n, p in model.named_parameters() if "attnpool" in n and "lora_B" in n)
    with torch.no_grad():
        features = model.get_image_features(pixels).pooler_output
        assert torch.allclose(features, before.get_image_features(pixels).pooler_output, atol=1e-6)


def statistics(model):
    return {n: b.clone() for n, b in model.named_buffers() if n.endswith(("running_mean", "running_var"))}


def moved(before, model):
    return [name for name, value in statistics(model).items() if not torch.equal(value, before[name])]


def test_frozen_batch_norms_compute_in_training_as_in_use(tiny_resnet):
    draw(tiny_resnet)
    pixels, before = torch.randn(4, 3, 32, 32), statistics(tiny_resnet)
    with torch.no_grad():
        wanted = tiny_resnet.get_image_features(pixels).pooler_output
        learned = copy.deepcopy(tiny_resnet).train()
        assert not torch.allclose(learned.get_image_features(pixels).pooler_output, wanted, atol=1e-2)
    assert len(moved(before, learned)) == len(before)
    count = len(batch_norms(tiny_resnet))
    assert freeze_batch_norm(tiny_resnet) == count == 3 + 4 * 4 and not batch_norms(tiny_resnet)
    got = tiny_resnet.train().get_image_features(pixels).pooler_output
    assert torch.allclose(got, wanted, atol=1e-6) and not moved(before, tiny_resnet)
    got.sum().backward()
    assert tiny_resnet.vision_model.bn1.weight.grad.abs().sum() > 0  # gain and bias are trained


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({"method": "cleanclip"}, False),
        ({"method": "cleanclip", "freeze_batch_norm": True}, True),
        ({"method": "ta-cleaner-plus", "adversarial_search": 2}, True),
        ({"method": "ft", "use_peft": True}, True),
    ],
)
def test_what_training_does_with_the_statistics(make_trainer, tiny_resnet, settings, kept, caplog):
    before = statistics(tiny_resnet)
    with caplog.at_level(logging.WARNING):
        trainer = make_trainer(model=tiny_resnet, max_steps=2, **settings)
    trainer.train()
    trained = trainer.accelerator.unwrap_model(trainer.model)
    trained = trained.base_model.model if settings.get("use_peft") else trained
    assert (not moved(before, trained)) is kept
    assert ("19 batch norms learn their statistics" in caplog.text) is not kept


def test_the_pipeline_and_the_card_of_a_resnet(tiny_resnet, tiny_processor, tmp_path, photos):
    folder = save_model(tiny_resnet, tiny_processor, tmp_path / "saved")
    found = pipeline("zero-shot-image-classification", str(folder))(photos[0], candidate_labels=["dog", "cat"])
    assert {entry["label"] for entry in found} == {"dog", "cat"}
    card = write_card(folder, settings={"method": "ft"}, backdoored=False).read_text()
    assert "import hf_ta_cleaner.models.resnet" in card and "is not needed to use it" not in card
