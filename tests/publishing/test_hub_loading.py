"""Loading from the Hub is safe: safetensors, else the bot's conversion, else weights only; over the real client."""

from __future__ import annotations

import io
import logging
import os

import pytest
import torch
from transformers import safetensors_conversion

from hf_ta_cleaner.models.checkpoints import CheckpointError, load_model, load_suspect, save_model
from hf_ta_cleaner.models.transformers_form import CONVERSION
from hf_ta_cleaner.publishing.hub import from_pretrained


@pytest.fixture
def files(tiny_clip, tiny_processor, tmp_path) -> dict[str, bytes]:
    folder = save_model(tiny_clip, tiny_processor, tmp_path / "clip")
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def pickled(content) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


@pytest.fixture
def only_bin(hub, files, tiny_clip, monkeypatch):
    """owner/clip with nothing but a `.bin`, as openai/clip-vit-base-patch32 was published; no conversion service."""
    files = {name: data for name, data in files.items() if name != "model.safetensors"}
    files |= {"pytorch_model.bin": pickled(tiny_clip.state_dict()), "modeling.py": b"raise SystemExit"}
    files |= {"flax_model.msgpack": b"large", "onnx/model.safetensors": b"another library's"}

    def no_service(*args, **kwargs):
        raise AssertionError("a conversion service was asked")

    monkeypatch.setattr(safetensors_conversion, "spawn_conversion", no_service)
    hub.add("owner/clip", files, author="owner")
    return hub


def convert(hub, data: bytes, author: str = CONVERSION["author"]) -> None:
    """What the Hub's bot does: a pull request with model.safetensors."""
    repo = hub.repo("owner/clip")
    number = len(repo.discussions) + 1
    discussion = {"num": number, "title": CONVERSION["title"], "author": {"name": author}, "status": "open"}
    discussion |= {"createdAt": "2026-01-01T00:00:00.000Z", "isPullRequest": True}
    repo.discussions.append(discussion | {"repo": {"name": repo.id, "type": "model"}})
    hub.add("owner/clip", {"model.safetensors": data}, ref=f"refs/pr/{number}", author=author, parent="main")


def downloaded(hub) -> set[str]:
    """Names of the large files fetched, by their content."""
    names = {
        blob.oid: name for repo in hub.repos.values() for c in repo.commits.values() for name, blob in c.files.items()
    }
    return {
        names[path.split("/")[-1].split("?")[0]]
        for method, path in hub.log
        if method == "GET" and path.startswith("/store/")
    }


def test_a_bin_is_loaded_as_weights_only_with_a_warning(only_bin, tiny_clip, caplog):
    with caplog.at_level(logging.WARNING, logger="hf_ta_cleaner"):
        model, _ = load_model("owner/clip")
    assert torch.equal(model.text_projection.weight, tiny_clip.text_projection.weight)
    assert "loaded as weights only" in caplog.text
    assert downloaded(only_bin) == {"pytorch_model.bin"}
    assert not [path for _, path in only_bin.log if path.endswith((".py", ".msgpack"))]


def test_the_bots_conversion_comes_first(only_bin, files, tiny_clip, caplog):
    convert(only_bin, files["model.safetensors"])
    with caplog.at_level(logging.WARNING, logger="hf_ta_cleaner"):
        model, _ = load_model("owner/clip")
    assert torch.equal(model.text_projection.weight, tiny_clip.text_projection.weight) and not caplog.text
    assert downloaded(only_bin) == {"model.safetensors"}


def test_another_authors_conversion_is_not_taken(only_bin, files, caplog):
    convert(only_bin, b"evil", author="mallory")
    with caplog.at_level(logging.WARNING, logger="hf_ta_cleaner"):
        load_model("owner/clip")
    assert downloaded(only_bin) == {"pytorch_model.bin"} and "weights only" in caplog.text


def test_a_conversion_of_an_older_head_is_not_taken(only_bin, files):
    convert(only_bin, files["model.safetensors"])
    only_bin.add("owner/clip", {"notes.txt": b"newer"})
    load_model("owner/clip")
    assert downloaded(only_bin) == {"pytorch_model.bin"}


class Malice:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def test_a_pickle_with_code_is_refused_and_not_run(only_bin, tmp_path):
    marker = tmp_path / "ran"
    only_bin.add("owner/clip", {"pytorch_model.bin": pickled({"logit_scale": Malice(marker)})})
    for load in (load_model, from_pretrained):
        with pytest.raises(CheckpointError, match="--allow_pickle"):
            load("owner/clip")
    assert not marker.exists()


def test_code_in_a_repository_is_neither_fetched_nor_run(hub, files):
    config = files["config.json"].replace(b"{", b'{"auto_map": {"AutoModel": "modeling.Evil"},', 1)
    hub.add("owner/clip", files | {"config.json": config, "modeling.py": b"raise SystemExit"}, author="owner")
    with pytest.raises(CheckpointError, match="asks to run code"):
        load_model("owner/clip")
    assert not [path for _, path in hub.log if path.endswith(".py")]


def test_an_open_clip_repository(hub, files, tiny_processor, tmp_path):
    """Its own config and weights, and the tokenizer that all OpenAI CLIPs share from where it is published."""
    import json

    from safetensors.torch import save

    from tests.models.published_reader import OpenClip, model_cfg

    vocabulary = len(tiny_processor.tokenizer)
    model = OpenClip(vocabulary)
    state = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    settings = {"model_cfg": model_cfg(vocabulary), "preprocess_cfg": {}}
    hub.add(
        "owner/open-clip",
        {
            "open_clip_config.json": json.dumps(settings).encode(),
            "open_clip_model.safetensors": save(state),
            "open_clip_pytorch_model.bin": pickled({"logit_scale": Malice(tmp_path / "ran")}),
        },
        author="owner",
    )
    tokenizer = {name: data for name, data in files.items() if name.startswith("tokenizer")}
    hub.add("openai/clip-vit-base-patch32", tokenizer | {"pytorch_model.bin": b"large"}, author="openai")
    clip, processor, form = load_suspect("owner/open-clip")
    assert form.kind == "open_clip" and not form.assumed
    assert torch.equal(clip.visual_projection.weight, model.visual.proj.t())
    assert processor.tokenizer("a dog").input_ids == tiny_processor.tokenizer("a dog").input_ids
    assert downloaded(hub) == {"open_clip_model.safetensors"} and not (tmp_path / "ran").exists()


def test_a_weights_file_in_a_folder_of_a_repository(hub, files, tiny_processor):
    """`owner/name/folder/file.pt`: that file alone is fetched."""
    from tests.models.published_reader import OpenClip

    state = OpenClip(len(tiny_processor.tokenizer)).state_dict()
    content = pickled({"epoch": 3, "state_dict": {f"module.{name}": tensor for name, tensor in state.items()}})
    hub.add("owner/suspects", {"badnets/epoch_3.pt": content, "blended/epoch_3.pt": b"another"}, author="owner")
    tokenizer = {name: data for name, data in files.items() if name.startswith("tokenizer")}
    hub.add("openai/clip-vit-base-patch32", tokenizer, author="openai")
    model, _, form = load_suspect("owner/suspects/badnets/epoch_3.pt", activation="gelu")
    assert torch.equal(model.visual_projection.weight, state["visual.proj"].t())
    assert form.kind == "pt" and form.file == "epoch_3.pt"
    with pytest.raises(CheckpointError, match="no such file"):
        load_suspect("owner/suspects/badnets/epoch_4.pt")


def test_a_name_of_open_clip_is_a_repository(hub, files, tiny_processor):
    import json

    from safetensors.torch import save

    from tests.models.published_reader import OpenClip, model_cfg, plain_state

    model = OpenClip(len(tiny_processor.tokenizer), resnet=True)
    settings = {"model_cfg": model_cfg(len(tiny_processor.tokenizer), resnet=True, quick_gelu=True)}
    tokenizer = {name: data for name, data in files.items() if name.startswith("tokenizer")}
    timm = {"config.json": json.dumps({"architecture": "resnet50_clip"}).encode(), "model.safetensors": b"of timm"}
    published = {"open_clip_config.json": json.dumps(settings).encode()}
    published |= {"open_clip_model.safetensors": save(plain_state(model))}
    hub.add("timm/resnet50_clip.cc12m", tokenizer | timm | published, author="timm")
    clip, _, form = load_suspect("RN50:cc12m")
    assert torch.equal(clip.vision_model.conv1.weight, model.visual.conv1.weight) and form.kind == "open_clip"
    assert downloaded(hub) == {"open_clip_model.safetensors"}
    with pytest.raises(CheckpointError, match="its tags: openai, yfcc15m, cc12m"):
        load_suspect("RN50:laion2b")
