"""An open_clip ViT imported as a CLIPModel computes the same embeddings; what cannot be expressed is refused."""

from __future__ import annotations

import json
import os

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from hf_ta_cleaner.models import checkpoints, open_clip
from hf_ta_cleaner.models.checkpoints import CheckpointError, load_model, save_model
from hf_ta_cleaner.models.open_clip import load_open_clip


# The layout of open_clip, written out anew: its parameter names, its forward.


class QuickGELU(nn.Module):
    def forward(self, x):
        return x / (1 + torch.exp(-1.702 * x))


class Block(nn.Module):
    def __init__(self, width, heads, activation):
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp = nn.Sequential()
        self.mlp.add_module("c_fc", nn.Linear(width, 3 * width))
        self.mlp.add_module("gelu", activation())
        self.mlp.add_module("c_proj", nn.Linear(3 * width, width))

    def forward(self, x, mask):
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, need_weights=False, attn_mask=mask)[0]
        return x + self.mlp(self.ln_2(x))


class Transformer(nn.Module):
    def __init__(self, width, heads, layers, activation):
        super().__init__()
        self.resblocks = nn.ModuleList([Block(width, heads, activation) for _ in range(layers)])

    def forward(self, x, mask=None):
        for block in self.resblocks:
            x = block(x, mask)
        return x


class Vision(nn.Module):
    def __init__(self, side, patch, width, heads, layers, dimensions, activation):
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, patch, stride=patch, bias=False)
        self.class_embedding = nn.Parameter(torch.randn(width))
        self.positional_embedding = nn.Parameter(torch.randn((side // patch) ** 2 + 1, width))
        self.ln_pre, self.ln_post = nn.LayerNorm(width), nn.LayerNorm(width)
        self.transformer = Transformer(width, heads, layers, activation)
        self.proj = nn.Parameter(torch.randn(width, dimensions))

    def forward(self, images):
        x = self.conv1(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_embedding.expand(len(x), 1, -1), x], dim=1) + self.positional_embedding
        return self.ln_post(self.transformer(self.ln_pre(x))[:, 0]) @ self.proj


class OpenClip(nn.Module):
    def __init__(self, vocabulary, activation=nn.GELU, side=48):
        super().__init__()
        self.visual = Vision(side, 8, 64, 4, 3, 24, activation)
        self.transformer = Transformer(32, 2, 2, activation)
        self.token_embedding = nn.Embedding(vocabulary, 32)
        self.positional_embedding = nn.Parameter(torch.randn(20, 32))
        self.ln_final = nn.LayerNorm(32)
        self.text_projection = nn.Parameter(torch.randn(32, 24))
        self.logit_scale = nn.Parameter(torch.tensor(3.5))
        for parameter in self.parameters():  # biases start at zero and gains at one, which would hide a mix-up
            nn.init.normal_(parameter.data, std=0.3) if parameter.ndim else None

    def text(self, tokens):
        length = tokens.shape[1]
        mask = torch.full((length, length), float("-inf")).triu(1)
        x = self.token_embedding(tokens) + self.positional_embedding[:length]
        x = self.ln_final(self.transformer(x, mask))
        return x[torch.arange(len(x)), tokens.argmax(1)] @ self.text_projection


def model_cfg(vocabulary, **more):
    vision = {"image_size": 48, "layers": 3, "width": 64, "head_width": 16, "patch_size": 8, "mlp_ratio": 3.0}
    text = {"context_length": 20, "vocab_size": vocabulary, "width": 32, "heads": 2, "layers": 2, "mlp_ratio": 3.0}
    return {"embed_dim": 24, "vision_cfg": vision, "text_cfg": text, **more}


@pytest.fixture
def make(tiny_processor, tmp_path):
    """Writes an open_clip checkpoint; returns the reference model and its folder."""

    def make(activation=nn.GELU, *, preprocess=None, wrap=None, name="open_clip_model.safetensors", **more):
        vocabulary = len(tiny_processor.tokenizer)
        with torch.random.fork_rng():
            torch.manual_seed(1)
            model = OpenClip(vocabulary, activation).eval()
        folder = tmp_path / "open_clip"
        folder.mkdir()
        tiny_processor.tokenizer.save_pretrained(folder)
        settings = {"model_cfg": model_cfg(vocabulary, **more), "preprocess_cfg": preprocess or {}}
        (folder / "open_clip_config.json").write_text(json.dumps(settings))
        state = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
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


FORMS = {
    "hub": (nn.GELU, {}),
    "quickgelu": (QuickGELU, {"quick_gelu": True}),
    "custom text": (nn.GELU, {"wrap": under_text, "custom_text": True}),
    "training checkpoint": (QuickGELU, {"wrap": training_checkpoint, "name": "epoch_3.pt", "quick_gelu": True}),
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
    model, processor = load_open_clip(source)
    assert not model.training and {p.dtype for p in model.parameters()} == {torch.float32}
    g = torch.Generator().manual_seed(2)
    images = 5 * torch.randn(5, 3, 48, 48, generator=g)
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
        got = load_open_clip(folder)[0].get_image_features(images).pooler_output
        assert not torch.allclose(got, reference.visual(images), atol=1e-3)


def test_the_processor_preprocesses_as_the_config_says(make, photos):
    import numpy as np
    from PIL import Image

    settings = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.3], "interpolation": "bilinear", "resize_mode": "squash"}
    _, folder = make(preprocess=settings)
    _, processor = load_open_clip(folder)
    got = processor(images=photos[3], return_tensors="np").pixel_values[0]
    pixels = np.asarray(photos[3].resize((48, 48), Image.Resampling.BILINEAR), np.float64) / 255
    want = ((pixels - settings["mean"]) / settings["std"]).transpose(2, 0, 1)
    assert np.abs(got - want).max() < 1e-5
    edit(folder, lambda s: s.update(preprocess_cfg={}))
    image_processor = load_open_clip(folder)[1].image_processor
    assert dict(image_processor.size) == {"shortest_edge": 48} and image_processor.resample == Image.Resampling.BICUBIC
    assert list(image_processor.image_mean) == list(open_clip.MEAN)


def test_the_imported_model_is_saved_as_an_ordinary_one(make, tmp_path):
    model, processor = load_open_clip(make()[1])
    again, _ = load_model(save_model(model, processor, tmp_path / "saved"))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


def test_a_tokenizer_that_is_not_there_is_openais(make, tiny_processor, tmp_path, monkeypatch):
    _, folder = make()
    for file in folder.glob("tokenizer*"):
        file.unlink()
    other = tmp_path / "other"
    tiny_processor.tokenizer.save_pretrained(other)
    asked = []
    monkeypatch.setattr(open_clip, "download", lambda *args: asked.append(args) or other)
    _, processor = load_open_clip(folder)
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
        load_open_clip(folder)
    assert not marker.exists()


def test_safetensors_come_before_a_bin(make, tmp_path):
    _, folder = make()
    torch.save({"logit_scale": Malice(tmp_path / "ran")}, folder / "open_clip_pytorch_model.bin")
    load_open_clip(folder)
    assert not (tmp_path / "ran").exists()


def without(*parts):
    return lambda state: {name: tensor for name, tensor in state.items() if not any(part in name for part in parts)}


@pytest.mark.parametrize(
    ("wrap", "message"),
    [
        (without("class_embedding"), r"no open_clip ViT.*ResNets"),
        (lambda s: s | {"logit_bias": torch.zeros(())}, r"no place for logit_bias"),
        (lambda s: s | {"visual.transformer.resblocks.0.ls_1.gamma": torch.ones(64)}, r"no place for .*ls_1\.gamma"),
        (without("visual.proj"), r"differ in size: embed_dim 24 against 64"),
        (without("ln_final"), r"lacks text_model\.final_layer_norm"),
    ],
)
def test_other_architectures_are_refused_by_their_weights(make, wrap, message):
    _, folder = make(wrap=wrap)
    with pytest.raises(CheckpointError, match=rf"(?s){message}"):
        load_open_clip(folder)


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
        load_open_clip(folder)


def test_settings_that_change_nothing_are_accepted(make):
    _, folder = make()
    vision = {"ls_init_value": None, "patch_dropout": 0.5, "attentional_pool": False, "pool_type": "tok"}
    edit(folder, lambda s: s["model_cfg"]["vision_cfg"].update(vision, image_size=[48, 48]))
    load_open_clip(folder)


def test_without_a_config_the_message_is_one_that_can_be_used(make):
    """Weights alone do not tell the activation; the text to write down is complete but for that."""
    _, folder = make(QuickGELU, quick_gelu=True)
    (folder / "open_clip_config.json").unlink()
    with pytest.raises(CheckpointError, match="quick_gelu true for OpenAI's") as refused:
        load_open_clip(folder)
    text = str(refused.value).split("ones: ")[1]
    assert json.loads(text)["model_cfg"]["vision_cfg"] == {"image_size": 48, "layers": 3, "width": 64, "patch_size": 8}
    (folder / "open_clip_config.json").write_text(text.replace("false", "true"))
    model, _ = load_open_clip(folder)
    assert model.config.vision_config.hidden_act == model.config.text_config.hidden_act == "quick_gelu"
    assert model.config.vision_config.image_size == 48


def test_what_is_not_there(make, tmp_path, tiny_clip, tiny_processor):
    with pytest.raises(CheckpointError, match="does not exist"):
        load_open_clip(tmp_path / "absent")
    plain = save_model(tiny_clip, tiny_processor, tmp_path / "plain")
    with pytest.raises(CheckpointError, match="leave --from_open_clip out"):
        load_open_clip(plain)
    _, folder = make()
    with pytest.raises(CheckpointError, match="add --from_open_clip"):
        checkpoints.load_model(folder)
    (folder / "open_clip_model.safetensors").write_bytes(b"cut off")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_open_clip(folder)
