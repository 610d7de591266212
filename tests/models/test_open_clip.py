"""An open_clip ViT imported as a CLIPModel computes the same embeddings; what cannot be expressed is refused."""

from __future__ import annotations

import json
import os

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from hf_ta_cleaner.models.checkpoints import CheckpointError, load_model, load_suspect, save_model
from hf_ta_cleaner.models.published import loading
from hf_ta_cleaner.models.published.configs import NORMALIZATIONS

from .published_reader import OpenClip, QuickGELU, model_cfg, plain_state


def load(source):
    """From open_clip's files alone, whatever else lies there."""
    return load_suspect(source, from_open_clip=True)[:2]


@pytest.fixture
def make(tiny_processor, tmp_path):
    """Writes an open_clip checkpoint; returns the reference model and its folder."""

    def make(
        activation=nn.GELU, *, preprocess=None, wrap=None, name="open_clip_model.safetensors", resnet=False, **more
    ):
        vocabulary = len(tiny_processor.tokenizer)
        with torch.random.fork_rng():
            torch.manual_seed(1)
            model = OpenClip(vocabulary, activation, resnet=resnet).eval()
        folder = tmp_path / "open_clip"
        folder.mkdir()
        tiny_processor.tokenizer.save_pretrained(folder)
        settings = {"model_cfg": model_cfg(vocabulary, resnet=resnet, **more), "preprocess_cfg": preprocess or {}}
        (folder / "open_clip_config.json").write_text(json.dumps(settings))
        state = plain_state(model)
        content = wrap(state) if wrap else state
        save_file(content, folder / name) if name.endswith("safetensors") else torch.save(content, folder / name)
        return model, folder

    return make


def edit(folder, change):
    file = folder / "open_clip_config.json"
    settings = json.loads(file.read_text())
    change(settings)
    file.write_text(json.dumps(settings))


def under_text(state):
    """As open_clip's CustomTextCLIP names the text tower."""
    return {n if n.startswith(("visual", "logit")) else f"text.{n}": tensor for n, tensor in state.items()}


def training_checkpoint(state):
    state = {f"module.{name}": tensor for name, tensor in state.items()}
    return {"epoch": 3, "name": "run", "state_dict": state, "optimizer": {"state": {0: {"step": torch.tensor(1.0)}}}}


def drop(state, *parts):
    return {name: tensor for name, tensor in state.items() if not any(part in name for part in parts)}


FORMS = {
    "hub": (nn.GELU, {}),
    "quickgelu": (QuickGELU, {"quick_gelu": True}),
    "custom text": (nn.GELU, {"wrap": under_text, "custom_text": True}),
    "training checkpoint": (QuickGELU, {"wrap": training_checkpoint, "name": "epoch_3.pt", "quick_gelu": True}),
    "resnet": (nn.GELU, {"resnet": True}),
    "resnet, quickgelu": (QuickGELU, {"resnet": True, "quick_gelu": True}),
    "resnet without counters": (nn.GELU, {"resnet": True, "wrap": lambda state: drop(state, "num_batches")}),
    "bin": (nn.GELU, {"name": "open_clip_pytorch_model.bin"}),
    "half precision": (nn.GELU, {"wrap": lambda state: {n: t.half() for n, t in state.items()}}),
    "scale of one number": (nn.GELU, {"wrap": lambda state: state | {"logit_scale": state["logit_scale"][None]}}),
    "old causal mask": (nn.GELU, {"wrap": lambda state: state | {"attn_mask": torch.zeros(20, 20)}}),
}


@pytest.mark.parametrize("form", FORMS)
def test_embeddings_are_those_of_open_clip(form, make):
    activation, options = FORMS[form]
    reference, folder = make(activation, **options)
    source = folder / options["name"] if options.get("name", "").endswith(".pt") else folder
    model, processor = load(source)
    assert not model.training and {p.dtype for p in model.parameters()} == {torch.float32}
    g = torch.Generator().manual_seed(2)
    side = model.config.vision_config.image_size
    images = 5 * torch.randn(5, 3, side, side, generator=g)
    text = processor.tokenizer(
        ["a dog", "two cats on it", "x" * 40], padding=True, truncation=True, return_tensors="pt"
    )
    assert text.input_ids.shape[1] == 20
    padded = torch.where(text.attention_mask.bool(), text.input_ids, 0)  # open_clip pads with zeros
    with torch.no_grad():
        out = model(input_ids=text.input_ids, attention_mask=text.attention_mask, pixel_values=images)
        wanted = [nn.functional.normalize(x, dim=-1) for x in (reference.visual(images), reference.text(padded))]
    tolerance = 2e-3 if form == "half precision" else 1e-5
    for got, want in zip((out.image_embeds, out.text_embeds), wanted, strict=True):
        assert (got - want).abs().max() < tolerance
        assert (got - want.roll(1, 0)).abs().max() > 10 * tolerance  # the rows are not all alike
    assert model.logit_scale.item() == pytest.approx(3.5) and model.logit_scale.shape == ()


def test_the_activation_matters(make):
    """Otherwise the test above could not tell gelu from quick_gelu."""
    reference, folder = make(QuickGELU, quick_gelu=False)
    images = torch.randn(5, 3, 48, 48, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        got = load(folder)[0].get_image_features(images).pooler_output
        assert not torch.allclose(got, reference.visual(images), atol=1e-3)


def test_the_processor_preprocesses_as_the_config_says(make, photos):
    import numpy as np
    from PIL import Image

    settings = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.3], "interpolation": "bilinear", "resize_mode": "squash"}
    _, folder = make(preprocess=settings)
    _, processor = load(folder)
    got = processor(images=photos[3], return_tensors="np").pixel_values[0]
    pixels = np.asarray(photos[3].resize((48, 48), Image.Resampling.BILINEAR), np.float64) / 255
    want = ((pixels - settings["mean"]) / settings["std"]).transpose(2, 0, 1)
    assert np.abs(got - want).max() < 1e-5
    edit(folder, lambda s: s.update(preprocess_cfg={}))
    image_processor = load(folder)[1].image_processor
    assert dict(image_processor.size) == {"shortest_edge": 48} and image_processor.resample == Image.Resampling.BICUBIC
    assert list(image_processor.image_mean) == list(NORMALIZATIONS["openai"][0])


def test_the_imported_model_is_saved_as_an_ordinary_one(make, tmp_path):
    model, processor = load(make()[1])
    again, _ = load_model(save_model(model, processor, tmp_path / "saved"))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


def test_a_tokenizer_that_is_not_there_is_openais(make, tiny_processor, tmp_path, monkeypatch):
    _, folder = make()
    for file in folder.glob("tokenizer*"):
        file.unlink()
    other = tmp_path / "other"
    tiny_processor.tokenizer.save_pretrained(other)
    asked = []
    monkeypatch.setattr(loading, "download", lambda *args: asked.append(args) or other)
    _, processor = load(folder)
    assert asked[0][0] == "openai/clip-vit-base-patch32"
    assert processor.tokenizer("a dog").input_ids == tiny_processor.tokenizer("a dog").input_ids


class Malice:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def test_a_pickle_with_code_is_refused_and_not_run(make, tmp_path):
    marker = tmp_path / "ran"
    _, folder = make(name="open_clip_pytorch_model.bin", wrap=lambda s: {**s, "logit_scale": Malice(marker)})
    with pytest.raises(CheckpointError, match="--allow_pickle"):
        load(folder)
    assert not marker.exists()


def test_safetensors_come_before_a_bin(make, tmp_path):
    _, folder = make()
    torch.save({"logit_scale": Malice(tmp_path / "ran")}, folder / "open_clip_pytorch_model.bin")
    load(folder)
    assert not (tmp_path / "ran").exists()


def without(*parts):
    return lambda state: drop(state, *parts)


@pytest.mark.parametrize(
    ("wrap", "message"),
    [
        (without("class_embedding"), r"no CLIP with a ResNet or a plain ViT"),
        (lambda s: s | {"logit_bias": torch.zeros(())}, r"no place for logit_bias"),
        (lambda s: s | {"visual.transformer.resblocks.0.ls_1.gamma": torch.ones(64)}, r"no place for .*ls_1\.gamma"),
        (without("visual.proj"), r"differ in size: embed_dim 24 against 64"),
        (without("ln_final"), r"lacks text_model\.final_layer_norm"),
    ],
)
def test_other_architectures_are_refused_by_their_weights(make, wrap, message):
    _, folder = make(wrap=wrap)
    with pytest.raises(CheckpointError, match=rf"(?s){message}"):
        load(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s["model_cfg"]["vision_cfg"].update(pool_type="avg"), r"vision_cfg\.pool_type: avg"),
        (lambda s: s["model_cfg"]["vision_cfg"].update(timm_model_name="vit"), r"timm_model_name: vit"),
        (lambda s: s["model_cfg"]["text_cfg"].update(no_causal_mask=True), r"text_cfg\.no_causal_mask: True"),
        (lambda s: s["model_cfg"]["text_cfg"].update(hf_model_name="roberta"), r"hf_model_name: roberta"),
        (lambda s: s["model_cfg"].update(multimodal_cfg={}), r"multimodal_cfg"),
        (lambda s: s["model_cfg"]["vision_cfg"].update(image_size=224), r"image_size 224 against 48"),
        (lambda s: s["model_cfg"]["text_cfg"].update(context_length=77), r"context_length 77 against 20"),
        (lambda s: s["model_cfg"].pop("vision_cfg"), r"cannot be used.*vision_cfg"),
        (lambda s: s["model_cfg"].update(text_cfg=[]), r"cannot be used.*another shape"),
        (lambda s: s.update(preprocess_cfg={"resize_mode": "longest"}), r"resize_mode 'longest'"),
    ],
)
def test_other_architectures_are_refused_by_their_config(make, change, message):
    _, folder = make()
    edit(folder, change)
    with pytest.raises(CheckpointError, match=rf"(?s){message}"):
        load(folder)


def test_settings_that_change_nothing_are_accepted(make):
    _, folder = make()
    vision = {"ls_init_value": None, "patch_dropout": 0.5, "attentional_pool": False, "pool_type": "tok"}
    edit(folder, lambda s: s["model_cfg"]["vision_cfg"].update(vision, image_size=[48, 48]))
    load(folder)


def test_without_a_config_the_message_is_one_that_can_be_used(make):
    """Weights alone do not tell the activation; the text to write down is complete but for that."""
    _, folder = make(QuickGELU, quick_gelu=True)
    (folder / "open_clip_config.json").unlink()
    with pytest.raises(CheckpointError, match="--activation quick_gelu for a model of OpenAI's") as refused:
        load(folder)
    settings = json.loads(str(refused.value).split("there: ")[1])
    assert settings["model_cfg"]["vision_cfg"] == {"image_size": 48, "layers": 3, "width": 64, "patch_size": 8}
    settings["model_cfg"]["quick_gelu"] = True
    (folder / "open_clip_config.json").write_text(json.dumps(settings))
    model, _ = load(folder)
    assert model.config.vision_config.hidden_act == model.config.text_config.hidden_act == "quick_gelu"
    assert model.config.vision_config.image_size == 48


def test_open_clips_folder_needs_no_flag_and_stands_behind_a_checkpoint_of_transformers(make, tiny_clip):
    _, folder = make()
    assert load_model(folder)[0].config.projection_dim == 24
    tiny_clip.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({"image_processor_type": "CLIPImageProcessorPil"}))
    assert load_model(folder)[0].config.projection_dim == 16
    assert load(folder)[0].config.projection_dim == 24
    (folder / "config.json").write_text(json.dumps({"architecture": "resnet50_clip"}))  # of timm
    assert load_model(folder)[0].config.projection_dim == 24


def test_what_is_not_there(make, tmp_path, tiny_clip, tiny_processor):
    with pytest.raises(CheckpointError, match="does not exist"):
        load(tmp_path / "absent")
    plain = save_model(tiny_clip, tiny_processor, tmp_path / "plain")
    with pytest.raises(CheckpointError, match="no open_clip weights"):
        load(plain)
    _, folder = make()
    (folder / "open_clip_model.safetensors").write_bytes(b"cut off")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load(folder)
