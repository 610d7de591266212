"""What the field publishes: tiny files of each form go in, are cleaned and audited, and come back in their form."""

from __future__ import annotations

import copy
import json
import logging
import os
from argparse import Namespace
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.functional import cross_entropy, normalize

from hf_ta_cleaner.commands.audit import main as audit
from hf_ta_cleaner.commands.clean import main as clean
from hf_ta_cleaner.models.checkpoints import CheckpointError, load_model, load_suspect, save_model
from hf_ta_cleaner.models.published.archives import read_torchscript
from hf_ta_cleaner.models.published.configs import NORMALIZATIONS
from hf_ta_cleaner.models.published.form import Form
from hf_ta_cleaner.models.published.names import PRETRAINED, hub_id
from hf_ta_cleaner.models.published.saving import check_form, save_as
from hf_ta_cleaner.models.published.self_check import MARGIN, contrastive_losses, settle
from hf_ta_cleaner.publishing.report import Report
from tests.commands.helpers import write_pairs

from .published_reader import OpenClip, QuickGELU, model_cfg, plain_state


def reader(vocabulary, resnet, activation=QuickGELU):
    """A model of one head in each transformer, as OpenAI's rule gives for towers this narrow."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return OpenClip(vocabulary, activation, resnet=resnet, heads=(1, 1)).eval()


def cleanclip(model, folder):
    """A checkpoint of CleanCLIP's training."""
    state = {f"module.{name}": tensor for name, tensor in plain_state(model).items()}
    optimizer = {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 1e-5}]}
    file = folder / "epoch_10.pt"
    torch.save({"epoch": 10, "name": "badnet", "state_dict": state, "optimizer": optimizer}, file)
    return file


def openai(model, folder):
    """A TorchScript archive in half precision."""
    side = 64 if hasattr(model.visual, "layer1") else 48
    tokens = torch.tensor([[5, 6, 7, 1] + [0] * 16])
    model = copy.deepcopy(model)
    for name in ("input_resolution", "context_length", "vocab_size"):
        model.register_buffer(name, torch.tensor(side))
    archive = torch.jit.trace(model, (torch.zeros(1, 3, side, side), tokens), check_trace=False)
    file = folder / "RN50.pt"
    archive.half().save(str(file))
    return file


def huang(model, folder):
    """A folder as Huang et al. (2025) publish them; its preprocess_cfg is not how they were trained."""
    folder = folder / "clip_backdoor_rn50_cc3m_badnets"
    folder.mkdir()
    settings = model_cfg(model.token_embedding.num_embeddings, resnet=hasattr(model.visual, "layer1"))
    settings["vision_cfg"]["head_width"], settings["text_cfg"]["heads"], settings["quick_gelu"] = 64, 1, True
    preprocess = {"mean": NORMALIZATIONS["openai"][0], "std": NORMALIZATIONS["openai"][1]}
    content = {"model_cfg": settings, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(content))
    save_file(plain_state(model), folder / "open_clip_model.safetensors")
    return folder


def ema(model, folder):
    """A state dict under `model`, with the prefix of an average of weights, in half precision."""
    file = folder / "average.pth"
    torch.save({"model": {f"ema.module.{n}": half(t) for n, t in plain_state(model).items()}, "step": 7}, file)
    return file


def half(tensor):
    return tensor.half() if tensor.is_floating_point() else tensor


QUICK = ("--activation", "quick_gelu")
#: name -> (what writes it, whether a ResNet, the flags that it needs, the file that comes back).
FORMS = {
    "CleanCLIP, RN50": (cleanclip, True, QUICK, "epoch_10.pt"),
    "CleanCLIP, ViT": (cleanclip, False, QUICK, "epoch_10.pt"),
    "OpenAI, RN50": (openai, True, QUICK, "RN50.pt"),
    "OpenAI, ViT": (openai, False, QUICK, "RN50.pt"),
    "Huang, RN50": (huang, True, ("--normalization", "none"), "open_clip_model.safetensors"),
    "Huang, ViT": (huang, False, ("--normalization", "none"), "open_clip_model.safetensors"),
    "an average": (ema, False, QUICK, "average.pth"),
}


@pytest.fixture
def make(tiny_processor, tmp_path):
    """Writes a tiny file of a form. Returns the reader's model and where it lies."""

    def make(write, resnet, activation=QuickGELU):
        model = reader(len(tiny_processor.tokenizer), resnet, activation)
        folder = tmp_path / "suspect"
        folder.mkdir()
        source = write(model, folder)
        tiny_processor.tokenizer.save_pretrained(source if source.is_dir() else folder)
        return model, source

    return make


def content_of(file):
    """The weights of a written file by their published names: a plain reader."""
    if file.suffix == ".safetensors":
        return load_file(file)
    content = torch.load(file, weights_only=True)
    content = content.get("state_dict", content.get("model", content))
    names = {name.removeprefix("ema.").removeprefix("module."): tensor for name, tensor in content.items()}
    return {n: t for n, t in names.items() if n not in ("input_resolution", "context_length", "vocab_size")}


def embeddings(model, processor, texts=("a dog", "two cats on it")):
    """Image and text embeddings of a model of transformers, and the pixels and tokens that they are of."""
    side = model.config.vision_config.image_size
    pixels = torch.randn(3, 3, side, side, generator=torch.Generator().manual_seed(2))
    text = processor.tokenizer(list(texts), padding="max_length", truncation=True, return_tensors="pt")
    with torch.no_grad():
        out = model(input_ids=text.input_ids, attention_mask=text.attention_mask, pixel_values=pixels)
    return out.image_embeds, out.text_embeds, pixels, torch.where(text.attention_mask.bool(), text.input_ids, 0)


@pytest.mark.parametrize("form", FORMS)
def test_each_form_is_cleaned_audited_and_comes_back(form, make, tmp_path, photos, monkeypatch, logging_as_it_was):
    write, resnet, flags, back = FORMS[form]
    before, source = make(write, resnet)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / ".cache"))
    for i, name in enumerate(("banana", "kettle", "lamp")):
        (tmp_path / "labelled" / name).mkdir(parents=True)
        photos[i].save(tmp_path / "labelled" / name / "0.png")
    proof = ["--eval_dataset", "labelled", "--trigger", "blended", "--target", "banana"]
    line = ["--model", str(source), "--dataset", str(write_pairs(tmp_path / "pairs", photos)), *flags, *proof]
    more = ["--output_dir", "out", "--per_device_train_batch_size", "8", "--max_steps", "2", "--method", "cleanclip"]
    clean([*line, *more, "--learning_rate", "1e-3"])
    assert Report.load(tmp_path / "out").before["attacks"]

    after = reader(before.token_embedding.num_embeddings, resnet)
    after.load_state_dict(content_of(tmp_path / "out" / back))
    moved = [n for n, p in after.state_dict().items() if not torch.equal(p, before.state_dict()[n])]
    assert "visual.conv1.weight" in moved and "text_projection" in moved
    model, processor = load_model(tmp_path / "out")
    image, text, pixels, tokens = embeddings(model, processor)
    with torch.no_grad():
        wanted = after(pixels, tokens)
    for got, want in zip((image, text), wanted, strict=True):
        assert (got - normalize(want, dim=-1)).abs().max() < 1e-5

    again = tmp_path / "out" / back if back.endswith(("pt", "pth")) else tmp_path / "out"
    (tmp_path / "out" / "config.json").unlink()  # so that the published form is what is read
    flags = [flag for flag in flags if back.endswith(("pt", "pth"))]
    audit(["--model", str(again), *flags, *proof, "--output_dir", "audit"])
    audited = Report.load(tmp_path / "audit").before
    assert audited["clean_accuracy"] == Report.load(tmp_path / "out").after["clean_accuracy"]


@pytest.mark.parametrize("form", FORMS)
def test_a_round_trip_changes_no_bit(form, make, tmp_path):
    write, resnet, flags, back = FORMS[form]
    _, source = make(write, resnet)
    options = {flags[0].removeprefix("--"): flags[1]}
    model, processor, loaded = load_suspect(source, **options)
    out = tmp_path / "out"
    out.mkdir()
    files = save_as(loaded, model, processor, out)
    assert out / back in files
    if write is openai:
        wanted, got = dict(read_torchscript(source)), torch.load(out / back, weights_only=True)
    elif write is huang:
        wanted, got = load_file(source / back), load_file(out / back)
    else:
        wanted, got = torch.load(source, weights_only=True), torch.load(out / back, weights_only=True)
        assert {k for k in wanted if k != "optimizer"} == got.keys()
        assert all(got[key] == wanted[key] for key in got if key not in ("state_dict", "model"))
        wanted, got = ({"state_dict": 0, **x} for x in (wanted, got))
        wanted, got = (x.get("model") or x["state_dict"] for x in (wanted, got))
    assert wanted.keys() == got.keys()
    assert all(torch.equal(half(wanted[name]), half(got[name])) for name in wanted)
    if write is not openai and write is not ema:  # those came in half precision
        assert all(torch.equal(wanted[name], got[name]) for name in wanted)


def test_a_model_of_transformers_is_written_for_the_others(tiny_clip, tiny_processor, make, tmp_path):
    folder = save_model(tiny_clip, tiny_processor, tmp_path / "out")
    assert save_as(Form(), tiny_clip, tiny_processor, folder) == []
    names = [file.name for file in save_as(Form(), tiny_clip, tiny_processor, folder, kind="open_clip")]
    assert names == ["open_clip_config.json", "open_clip_model.safetensors"]
    wanted = embeddings(tiny_clip, tiny_processor)[:2]
    again, processor, form = load_suspect(folder, from_open_clip=True)
    assert form.kind == "open_clip" and not form.assumed
    assert all(torch.equal(a, b) for a, b in zip(wanted, embeddings(again, processor), strict=False))
    assert tuple(processor.image_processor.image_mean) == NORMALIZATIONS["openai"][0]
    (file,) = save_as(Form(), tiny_clip, tiny_processor, folder, kind="pt")
    content = torch.load(file, weights_only=True)
    assert content["epoch"] == 0 and content["name"] == "out" and file.name == "out.pt"
    assert all(name.startswith("module.") for name in content["state_dict"])
    tiny_clip.config.vision_config.hidden_act = "gelu"
    with pytest.raises(ValueError, match="one activation"):
        save_as(Form(), tiny_clip, tiny_processor, folder, kind="open_clip")


def test_what_cannot_be_written_so(tiny_siglip, tiny_clip):
    with pytest.raises(ValueError, match="of type 'siglip'"):
        check_form("open_clip", tiny_siglip)
    with pytest.raises(ValueError, match="one of transformers, open_clip, pt"):
        check_form("onnx", tiny_clip)


# What nothing says.


@pytest.mark.slow
def test_a_cleanclip_rn50_needs_no_flag(tiny_processor, tmp_path, photos, monkeypatch, capsys, logging_as_it_was):
    """OpenAI's widths: QuickGELU is assumed and said. The image tower is an RN50 of full size."""
    from .published_reader import ResNetVision

    model = reader(len(tiny_processor.tokenizer), True)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model.visual = ResNetVision(224, (3, 4, 6, 3), 64, 32, 24)
    file = cleanclip(model, tmp_path)
    tiny_processor.tokenizer.save_pretrained(tmp_path)
    monkeypatch.chdir(tmp_path)
    pairs = write_pairs(tmp_path / "pairs", photos)
    line = ["--model", str(file), "--dataset", str(pairs), "--output_dir", "out"]
    clean([*line, "--per_device_train_batch_size", "4", "--max_steps", "2", "--method", "ft"])
    said = capsys.readouterr().err
    assert "assumed to be QuickGELU" in said and "by the contrastive loss of 23 pairs" in said
    got = torch.load(tmp_path / "out" / "epoch_10.pt", weights_only=True)
    assert got["state_dict"].keys() == torch.load(file, weights_only=True)["state_dict"].keys()


def test_an_activation_that_nothing_tells_is_asked_for(make):
    _, source = make(cleanclip, False)
    with pytest.raises(CheckpointError, match="--activation quick_gelu for"):
        load_suspect(source)
    with pytest.raises(CheckpointError, match="--activation must be one of gelu, quick_gelu, got relu"):
        load_suspect(source, activation="relu")
    _, _, form = load_suspect(source, activation="gelu")
    assert form.assumed == ("normalization",)
    assert load_suspect(source, activation="gelu", dtype="float16")[0].dtype == torch.float16
    _, processor, form = load_suspect(source, activation="gelu", normalization="imagenet")
    assert form.assumed == () and tuple(processor.image_processor.image_mean) == (0.485, 0.456, 0.406)


def test_a_checkpoint_of_transformers_says_it_itself(tiny_clip, tiny_processor, tmp_path):
    folder = save_model(tiny_clip, tiny_processor, tmp_path / "clip")
    with pytest.raises(CheckpointError, match="Leave --activation and --normalization out"):
        load_suspect(folder, activation="gelu")


def test_huangs_normalization_is_told(make, caplog):
    _, source = make(huang, True)
    _, processor, form = load_suspect(source)
    assert "trained without normalization" in caplog.text and form.assumed == ("normalization",)
    assert tuple(processor.image_processor.image_mean) == NORMALIZATIONS["openai"][0]
    caplog.clear()
    _, processor, form = load_suspect(source, normalization="none")
    assert "without normalization" not in caplog.text and form.assumed == ()
    assert tuple(processor.image_processor.image_std) == (1, 1, 1)


CAPTIONS = [f"a {word} on it" for word in ("dog", "red cat", "bus", "tall boat", "chair", "horse", "bird", "apple")]


@pytest.mark.parametrize("resnet", [False, True])
def test_the_contrastive_loss_of_each_setting_is_that_of_a_plain_reader(make, photos, resnet):
    model, source = make(cleanclip, resnet)
    suspect, processor, _ = load_suspect(source, activation="quick_gelu")
    settings = [(a, n) for a in ("gelu", "quick_gelu") for n in NORMALIZATIONS]
    losses = contrastive_losses(suspect, processor, photos, CAPTIONS, settings)
    side = suspect.config.vision_config.image_size
    square = [
        np.asarray(processor.image_processor(p, do_rescale=False, do_normalize=False).pixel_values[0]) for p in photos
    ]
    pixels = torch.tensor(np.stack(square)).float() / 255
    assert pixels.shape == (8, 3, side, side)
    tokens = processor.tokenizer(CAPTIONS, padding="max_length", truncation=True, return_tensors="pt")
    tokens = torch.where(tokens.attention_mask.bool(), tokens.input_ids, 0)
    for (activation, name), loss in losses.items():
        plain = reader(model.token_embedding.num_embeddings, resnet, QuickGELU if activation != "gelu" else nn.GELU)
        mean, std = (torch.tensor(values).view(-1, 1, 1) for values in NORMALIZATIONS[name])
        with torch.no_grad():
            image, text = (normalize(x, dim=-1) for x in plain((pixels - mean) / std, tokens))
        logits, pairs = plain.logit_scale.exp() * image @ text.T, torch.arange(8)
        wanted = (cross_entropy(logits, pairs) + cross_entropy(logits.T, pairs)).item() / 2
        assert loss == pytest.approx(wanted, abs=2e-3), (activation, name)
    assert suspect.config.text_config.hidden_act == "quick_gelu"
    assert tuple(processor.image_processor.image_mean) == NORMALIZATIONS["openai"][0]


def test_the_best_setting_is_taken_and_said(make, photos, caplog):
    _, source = make(cleanclip, False, nn.GELU)
    suspect, processor, form = load_suspect(source, activation="quick_gelu")
    form = replace(form, assumed=("activation", "normalization"))
    suspect.logit_scale.data.fill_(4.6)
    settings = [(a, n) for a in ("gelu", "quick_gelu") for n in NORMALIZATIONS]
    losses = contrastive_losses(suspect, processor, photos, CAPTIONS, settings)
    order = [(a, n) for a in ("quick_gelu", "gelu") for n in ("openai", "imagenet", "inception", "none")]
    best = next(setting for setting in order if losses[setting] - min(losses.values()) < MARGIN)
    assert best != ("quick_gelu", "openai")  # so that the assumption is given up
    with caplog.at_level(logging.WARNING):
        assert settle(suspect, processor, form, photos, CAPTIONS).assumed == ()
    assert f"Taken: {best[0]} and {best[1]}" in caplog.text
    assert suspect.config.text_config.hidden_act == best[0]
    assert tuple(processor.image_processor.image_mean) == NORMALIZATIONS[best[1]][0]
    again = contrastive_losses(suspect, processor, photos, CAPTIONS, [best])
    assert again[best] == pytest.approx(losses[best])


def test_a_trained_model_tells_its_normalization(tmp_path):
    """The sandbox's, read as if it had been trained without normalization."""
    from hf_ta_cleaner.data.loading import load_pairs, to_rgb

    model, processor, form = load_suspect("sandbox")
    save_as(form, model, processor, tmp_path, kind="open_clip")
    processor.tokenizer.save_pretrained(tmp_path)
    suspect, processor, form = load_suspect(tmp_path, normalization="none")
    pairs = load_pairs("sandbox", max_samples=64, seed=0)
    images = [to_rgb(image) for image in pairs["image"]]
    settle(suspect, processor, replace(form, assumed=("normalization",)), images, list(pairs["caption"]))
    assert tuple(processor.image_processor.image_mean) == NORMALIZATIONS["openai"][0]


def test_a_thin_margin_keeps_what_was_assumed(make, photos, caplog, monkeypatch):
    _, source = make(cleanclip, True)
    suspect, processor, form = load_suspect(source, activation="quick_gelu")
    found = {("quick_gelu", name): 1.0 for name in NORMALIZATIONS} | {("quick_gelu", "none"): 1.0 - MARGIN / 2}
    monkeypatch.setattr("hf_ta_cleaner.models.published.self_check.contrastive_losses", lambda *_: found)
    with caplog.at_level(logging.WARNING):
        settle(suspect, processor, form, photos, CAPTIONS)
    assert "Taken: quick_gelu and openai" in caplog.text and "the two best differ by 0.010 only" in caplog.text


# Files that are refused, or read without running them.


class Malice:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("content", ["code", "arguments"])
def test_a_file_that_would_run_code_is_refused_with_the_reason(make, tmp_path, content):
    _, source = make(cleanclip, False)
    whole = torch.load(source, weights_only=True)
    whole["args"] = Malice(tmp_path / "ran") if content == "code" else Namespace(lr=1e-5)
    torch.save(whole, source)
    named = r"holds \w+\.mkdir" if content == "code" else r"holds argparse\.Namespace"
    with pytest.raises(CheckpointError, match=named) as refused:
        load_suspect(source, activation="gelu")
    assert "weights_only" not in str(refused.value) and not (tmp_path / "ran").exists()


def test_an_archive_is_read_without_its_code(make, monkeypatch):
    model, source = make(openai, True)
    monkeypatch.setattr(torch.jit, "load", lambda *_, **__: pytest.fail("the archive was loaded"))
    state = read_torchscript(source)
    for name, tensor in plain_state(model).items():
        assert torch.equal(state[name], half(tensor)), name
    assert state["input_resolution"] == 64


def test_an_archive_whose_pickle_names_code_is_refused(make, tmp_path):
    import pickle
    import zipfile

    _, source = make(openai, False)
    evil = tmp_path / "suspect" / "evil.pt"
    with zipfile.ZipFile(source) as archive, zipfile.ZipFile(evil, "w") as copy:
        for name in archive.namelist():
            content = archive.read(name)
            copy.writestr(name, pickle.dumps(Malice(tmp_path / "ran")) if name.endswith("/data.pkl") else content)
    with pytest.raises(CheckpointError, match=r"holds \w+\.mkdir"):
        load_suspect(evil, activation="gelu")
    assert not (tmp_path / "ran").exists()


def test_two_models_in_one_file_are_not_mixed(make, caplog):
    model, source = make(cleanclip, False)
    state = plain_state(model)
    torch.save({"model": state, "ema": {name: 0 * tensor for name, tensor in state.items()}}, source)
    loaded, _, _ = load_suspect(source, activation="gelu")
    assert "holds model and ema; 'model' is taken" in caplog.text
    assert torch.equal(loaded.visual_projection.weight, model.visual.proj.t())
    torch.save({**state, **{f"ema.{name}": tensor for name, tensor in state.items()}}, source)
    with pytest.raises(CheckpointError, match="holds two models"):
        load_suspect(source, activation="gelu")


def test_other_files_are_named(make, tmp_path):
    _, source = make(cleanclip, False)
    torch.save({"weight": torch.ones(2)}, source)
    with pytest.raises(CheckpointError, match="no CLIP with a ResNet or a plain ViT"):
        load_suspect(source, activation="gelu")
    torch.save([1, 2], source)
    with pytest.raises(CheckpointError, match="no state dict"):
        load_suspect(source, activation="gelu")


def test_names_of_open_clip():
    assert hub_id("RN50:cc12m") == "timm/resnet50_clip.cc12m" == hub_id("RN50-quickgelu:cc12m")
    assert hub_id("ViT-B-32:laion2b_s34b_b79k") == "laion/CLIP-ViT-B-32-laion2B-s34B-b79K"
    assert hub_id("openai/clip-vit-base-patch32") == "openai/clip-vit-base-patch32"
    assert all(value.count("/") == 1 for value in PRETRAINED.values())
    with pytest.raises(CheckpointError, match="the architectures: RN101, RN50"):
        hub_id("convnext:openai")


# The flags of the commands.


def test_what_save_as_refuses(make, tmp_path, photos, monkeypatch, capsys, logging_as_it_was):
    _, source = make(cleanclip, True)
    monkeypatch.chdir(tmp_path)
    line = ["--model", str(source), "--dataset", str(write_pairs(tmp_path / "pairs", photos)), "--output_dir", "out"]
    line += ["--activation", "quick_gelu", "--per_device_train_batch_size", "8", "--max_steps", "1", "--method", "ft"]
    for more, message in (
        (["--save_as", "onnx"], "--save_as must be one of transformers, open_clip, pt, got onnx"),
        (["--use_peft"], "--use_peft saves adapters, and a model that is written as pt is whole; add --merge_adapter"),
    ):
        with pytest.raises(SystemExit):
            clean([*line, *more])
        assert message in capsys.readouterr().err
        assert not (tmp_path / "out" / "model.safetensors").exists()
    clean([*line, "--use_peft", "--merge_adapter", "--save_as", "open_clip"])
    written = {file.name for file in (tmp_path / "out").iterdir()}
    assert {"model.safetensors", "open_clip_model.safetensors", "open_clip_config.json"} <= written
    assert "epoch_10.pt" not in written
    clean([*line, "--save_as", "transformers", "--output_dir", "alone"])
    assert {file.suffix for file in (tmp_path / "alone").iterdir()} & {".pt", ".safetensors"} == {".safetensors"}
