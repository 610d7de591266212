"""Every file form a Hub CLIP comes in loads to the same float32 model; nothing a checkpoint brings along is run."""

from __future__ import annotations

import json
import logging
import os
import pickle
import shutil
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
import torch
import transformers
from huggingface_hub import errors
from transformers import BertConfig, BertModel, CLIPModel, pipeline, safetensors_conversion

from hf_ta_cleaner.models import checkpoints
from hf_ta_cleaner.models.checkpoints import CheckpointError, load_model, prepare_output_dir, save_model


@pytest.fixture
def folder(tiny_clip, tiny_processor, tmp_path):
    """A saved checkpoint."""
    return save_model(tiny_clip, tiny_processor, tmp_path / "clip")


def as_safetensors(folder, model):
    pass


def as_safetensors_shards(folder, model):
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="40KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 1


def as_bin(folder, model):
    (folder / "model.safetensors").unlink()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")


def as_old_bin(folder, model):
    (folder / "model.safetensors").unlink()
    torch.save(model.state_dict(), folder / "pytorch_model.bin", _use_new_zipfile_serialization=False)


def as_bin_shards(folder, model):
    (folder / "model.safetensors").unlink()
    state = model.state_dict()
    names = sorted(state)
    shards = {f"pytorch_model-0000{i + 1}-of-00002.bin": part for i, part in enumerate([names[:20], names[20:]])}
    for shard, part in shards.items():
        torch.save({name: state[name] for name in part}, folder / shard)
    index = {"metadata": {}, "weight_map": {name: shard for shard, part in shards.items() for name in part}}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))


def as_half_precision(folder, model):
    model.half().save_pretrained(folder)
    assert json.loads((folder / "config.json").read_text())["dtype"] == "float16"
    model.float()


FORMS = [as_safetensors, as_safetensors_shards, as_bin, as_old_bin, as_bin_shards, as_half_precision]


def same_weights(a, b):
    b = b.state_dict()
    return all(torch.equal(tensor, b[name]) for name, tensor in a.state_dict().items())


@pytest.mark.parametrize("form", FORMS)
def test_every_form_loads_as_the_same_float32_model(form, folder, tiny_clip, tiny_processor, photos, caplog):
    form(folder, tiny_clip)
    with caplog.at_level(logging.WARNING, logger="hf_ta_cleaner"):
        model, processor = load_model(folder)
    assert isinstance(model, CLIPModel) and not model.training
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert same_weights(tiny_clip, model)
    assert ("weights only" in caplog.text) == ("bin" in form.__name__)
    batch = {"text": ["a dog"], "images": photos[:2], "return_tensors": "pt"}
    expected = tiny_processor(**batch)
    for name, tensor in processor(**batch).items():
        assert torch.equal(tensor, expected[name])


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({}, ""),
        ({"size": {"shortest_edge": 40}}, "scales the short side to 40 pixels and cuts 32"),
        ({"resample": 2}, "resizes pictures bilinear"),
    ],
)
def test_it_is_told_where_pictures_are_fitted_otherwise(folder, tiny_clip, caplog, settings, told):
    as_safetensors(folder, tiny_clip)
    files = [file for file in ("preprocessor_config.json", "processor_config.json") if (folder / file).exists()]
    for file in files:
        content = json.loads((folder / file).read_text())
        content.get("image_processor", content).update(settings)
        (folder / file).write_text(json.dumps(content))
    load_model(folder)
    assert told in caplog.text and ("here it is" in caplog.text) == bool(told)


@pytest.mark.parametrize("form", [as_safetensors, as_old_bin])
def test_what_a_config_asks_of_the_machine_is_not_done(form, folder, tiny_clip, photos, tmp_path):
    form(folder, tiny_clip)
    set_json(folder / "config.json", attn_implementation="flash_attention_2", return_dict=False)
    model, processor = load_model(folder, allow_pickle=True)
    inputs = processor(text=["a dog"], images=photos[:1], return_tensors="pt")
    assert torch.equal(model(**inputs).logits_per_image, tiny_clip(**inputs).logits_per_image)
    save_model(model, processor, tmp_path / "saved")
    written = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert "attn_implementation" not in written and written.get("return_dict", True)


def test_dtype_is_what_was_asked_for(folder):
    for dtype in ("bfloat16", torch.bfloat16):
        assert load_model(folder, dtype=dtype)[0].dtype == torch.bfloat16


class Malice:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("how", [torch.save, lambda content, file: file.write_bytes(pickle.dumps(content))])
@pytest.mark.parametrize("sharded", [False, True])
def test_a_pickle_with_code_is_refused_and_not_run(folder, tmp_path, how, sharded):
    marker = tmp_path / "ran"
    (folder / "model.safetensors").unlink()
    name = "pytorch_model-00001-of-00001.bin" if sharded else "pytorch_model.bin"
    how({"logit_scale": Malice(marker)}, folder / name)
    if sharded:
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": {"x": name}}))
    with pytest.raises(CheckpointError, match="--allow_pickle"):
        load_model(folder)
    assert not marker.exists()


class Computed:
    """Unpickles as a tensor, by a call that weights-only loading does not make."""

    def __reduce__(self):
        return eval, ("__import__('torch').tensor(2.5)",)


def test_full_unpickling_happens_only_with_the_flag(folder, tiny_clip, caplog):
    (folder / "model.safetensors").unlink()
    torch.save({**tiny_clip.state_dict(), "logit_scale": Computed()}, folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="--allow_pickle"):
        load_model(folder)
    with caplog.at_level(logging.WARNING, logger="hf_ta_cleaner"):
        model, _ = load_model(folder, allow_pickle=True)
    assert model.logit_scale.item() == 2.5 and "unpickled in full" in caplog.text


def set_json(file, **values):
    content = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps({**content, **values}))


def remove(*names):
    return lambda folder: [(folder / name).unlink() for name in names]


def cut(name):
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:1000])


def lose_a_shard(folder):
    as_safetensors_shards(folder, CLIPModel.from_pretrained(folder))
    next(folder.glob("model-00002-*")).unlink()


def lose_a_tower(folder):
    model = CLIPModel.from_pretrained(folder)
    keep = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("text_model")}
    model.save_pretrained(folder, state_dict=keep)


def change_the_width(folder):
    config = json.loads((folder / "config.json").read_text())
    config["projection_dim"] = 24
    (folder / "config.json").write_text(json.dumps(config))


def become_bert(folder):
    config = BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, vocab_size=9)
    BertModel(config).save_pretrained(folder)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (become_bert, r"type 'bert'\. Wanted one of: .*clip"),
        (lambda f: set_json(f / "config.json", auto_map={"AutoModel": "evil.Model"}), r"auto_map.*config\.json"),
        (lambda f: set_json(f / "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.T", None]}), r"auto_map"),
        (lambda f: set_json(f / "adapter_config.json", base_model_name_or_path="x/y"), r"adapter.*merge"),
        (remove("config.json"), r"no config\.json; found: .*model\.safetensors"),
        (lambda f: (f / "config.json").write_text("{"), r"config\.json' cannot be read"),
        (remove("model.safetensors"), r"no weights; found: .*config\.json"),
        (remove("preprocessor_config.json", "processor_config.json"), r"no image processor"),
        (remove("tokenizer.json"), r"no tokenizer"),
        (lambda f: (f / "tokenizer.json").write_text("{}"), r"processor of .* cannot be loaded"),
        (cut("model.safetensors"), r"weights of .* cannot be loaded.*damaged"),
        (lose_a_shard, r"lacks 1 of \d+ shards: model-00002"),
        (lose_a_tower, r"lack \d+ of the model's tensors \(text_model"),
        (change_the_width, r"weights of .* cannot be loaded"),
    ],
)
def test_what_is_no_whole_clip_is_named(folder, damage, message):
    damage(folder)
    with pytest.raises(CheckpointError, match=rf"(?s){message}"):
        load_model(folder)


def test_code_beside_a_config_is_not_imported(folder, tmp_path):
    marker = tmp_path / "ran"
    (folder / "evil.py").write_text(f"import os\nos.mkdir({str(marker)!r})\nclass Model: pass\n")
    set_json(folder / "config.json", auto_map={"AutoModel": "evil.Model", "AutoConfig": "evil.Model"})
    with pytest.raises(CheckpointError):
        load_model(folder)
    assert not marker.exists()


def test_sandbox_is_a_folder_of_the_package(folder, monkeypatch):
    monkeypatch.setattr(checkpoints, "SANDBOX", folder)
    assert isinstance(load_model("sandbox")[0], CLIPModel)


def test_paths_that_are_none(tmp_path, monkeypatch):
    for path in (tmp_path / "absent", "./absent", "a/b/c"):
        with pytest.raises(CheckpointError, match="does not exist"):
            load_model(path)
    (tmp_path / "file.txt").write_bytes(b"x")
    with pytest.raises(CheckpointError, match="is a file that holds no weights"):
        load_model(tmp_path / "file.txt")


# The Hub, through a stand-in for its download.


class Hub:
    """Repositories as folders by revision; `snapshot_download` copies what matches, as the client does."""

    def __init__(self, root: Path, revisions: dict[str, Path], pull_request=None):
        self.cache, self.revisions, self.pull_request = root / "models--owner--clip", revisions, pull_request
        self.downloaded = []

    def snapshot_download(self, repo_id, revision=None, allow_patterns=None, ignore_patterns=None):
        revision = revision or "main"
        source, target = self.revisions[revision], self.cache / "snapshots" / revision.replace("/", "-")
        files = (str(f.relative_to(source)) for f in source.rglob("*") if f.is_file())
        for name in huggingface_hub.utils.filter_repo_objects(
            files, allow_patterns=allow_patterns, ignore_patterns=ignore_patterns
        ):
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy(source / name, target / name)
            self.downloaded.append((revision, name))
        ref = self.cache / "refs" / revision
        ref.parent.mkdir(parents=True, exist_ok=True)
        ref.write_text(target.name)
        return str(target)

    def previous_pr(self, api, model_id, title, token):
        if isinstance(self.pull_request, Exception):
            raise self.pull_request
        return self.pull_request


@pytest.fixture
def hub(folder, tiny_clip, tmp_path, monkeypatch):
    """A stand-in with only a `.bin` on main, and a converted revision refs/pr/7."""
    main = tmp_path / "main"
    shutil.copytree(folder, main)
    as_bin(main, tiny_clip)
    (main / "onnx").mkdir()
    (main / "onnx" / "model.safetensors").write_bytes(b"another library's")
    (main / "open_clip_pytorch_model.bin").write_bytes(b"another library's")
    (main / "code.py").write_text("raise SystemExit")
    hub = Hub(tmp_path / "cache", {"main": main, "refs/pr/7": folder})
    monkeypatch.setattr(huggingface_hub, "snapshot_download", hub.snapshot_download)
    monkeypatch.setattr(safetensors_conversion, "previous_pr", hub.previous_pr)

    def no_conversion(*args, **kwargs):
        raise AssertionError("a conversion service was asked")

    monkeypatch.setattr(safetensors_conversion, "spawn_conversion", no_conversion)
    monkeypatch.setattr(transformers.modeling_utils, "auto_conversion", no_conversion)
    return hub


def pull_request(author):
    return SimpleNamespace(author=author, git_reference="refs/pr/7", num=7)


def test_safetensors_on_main_need_nothing_else(hub, folder, tiny_clip):
    hub.revisions["main"] = folder
    hub.pull_request = AssertionError("not needed")
    assert same_weights(tiny_clip, load_model("owner/clip")[0])
    assert {revision for revision, _ in hub.downloaded} == {"main"}


def test_the_bots_conversion_comes_before_the_bin(hub, tiny_clip, caplog):
    hub.pull_request = pull_request("SFconvertbot")
    with caplog.at_level(logging.WARNING, logger="hf_ta_cleaner"):
        model, _ = load_model("owner/clip")
    assert same_weights(tiny_clip, model) and not caplog.text
    assert ("refs/pr/7", "model.safetensors") in hub.downloaded
    assert not [name for _, name in hub.downloaded if name.endswith((".bin", ".py"))]

    hub.pull_request = errors.OfflineModeIsEnabled("offline")  # the second time, from the cache
    hub.downloaded.clear()
    load_model("owner/clip")
    assert not [name for _, name in hub.downloaded if name.endswith(".bin")]


@pytest.mark.parametrize("found", [None, pull_request("somebody"), ConnectionError("no discussions")])
def test_without_it_the_bin_is_loaded_with_a_warning(hub, tiny_clip, caplog, found):
    hub.pull_request = found
    with caplog.at_level(logging.WARNING, logger="hf_ta_cleaner"):
        model, _ = load_model("owner/clip")
    assert same_weights(tiny_clip, model) and "weights only" in caplog.text
    assert {revision for revision, _ in hub.downloaded} == {"main"}
    assert not [name for _, name in hub.downloaded if name.startswith(("onnx", "open_clip", "code"))]


def test_a_chosen_revision_is_not_exchanged_for_the_conversion_of_main(hub, tiny_clip):
    hub.revisions["v1"] = hub.revisions["main"]
    hub.pull_request = pull_request("SFconvertbot")
    load_model("owner/clip", revision="v1")
    assert {revision for revision, _ in hub.downloaded} == {"v1"}


def http_error(kind, status):
    return kind("refused", response=SimpleNamespace(status_code=status, headers={}, request=None))


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (http_error(errors.RepositoryNotFoundError, 404), r"RepositoryNotFoundError.*no such model.*hf auth login"),
        (http_error(errors.GatedRepoError, 403), r"gated: ask for access at https://huggingface\.co/owner/clip"),
        (http_error(errors.RevisionNotFoundError, 404), r"no revision 'v9'"),
        (http_error(errors.HfHubHTTPError, 500), r"HfHubHTTPError.*again"),
        (errors.LocalEntryNotFoundError("not in the cache"), r"not reached.*HF_HUB_OFFLINE"),
        (errors.OfflineModeIsEnabled("offline"), r"not reached.*HF_HUB_OFFLINE"),
        (RuntimeError("transfer broke off"), r"RuntimeError: transfer broke off.*again"),
        (OSError(28, "No space left on device"), r"No space left on device.*again"),
    ],
)
def test_download_errors_name_cause_and_remedy(hub, monkeypatch, error, message):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(CheckpointError, match=rf"(?s)'owner/clip' is no local folder.*{message}"):
        load_model("owner/clip", revision="v9")


def test_offline_and_badly_spelt_ids_for_real():
    with pytest.raises(CheckpointError, match="HF_HUB_OFFLINE"):
        load_model("owner/no-such-clip")
    with pytest.raises(CheckpointError, match="not a Hub id"):
        load_model("own er/clip")


# Saving.


def test_a_saved_model_is_a_normal_checkpoint(folder, tiny_clip, photos):
    names = {file.name for file in folder.iterdir()}
    assert {"config.json", "model.safetensors", "preprocessor_config.json", "tokenizer.json"} <= names
    assert not [name for name in names if name.startswith(".") or name.endswith(".bin")]
    assert same_weights(tiny_clip, CLIPModel.from_pretrained(folder))
    classify = pipeline("zero-shot-image-classification", model=str(folder))
    labels = classify(photos[0], candidate_labels=["a dog", "a cat"])
    assert sum(label["score"] for label in labels) == pytest.approx(1)
    assert transformers.CLIPTokenizer.from_pretrained(folder)("a dog").input_ids
    assert transformers.AutoImageProcessor.from_pretrained(folder).crop_size["height"] == 32


def test_a_save_that_fails_leaves_the_earlier_one_whole(folder, tiny_clip, tiny_processor, monkeypatch):
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    monkeypatch.setattr(type(tiny_processor), "save_pretrained", lambda *args: (_ for _ in ()).throw(OSError("full")))
    with torch.no_grad():
        tiny_clip.logit_scale.add_(1)
    with pytest.raises(OSError, match="full"):
        save_model(tiny_clip, tiny_processor, folder)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


# The output folder.


def test_new_and_empty_folders_are_taken(tmp_path):
    assert prepare_output_dir(tmp_path / "a" / "b").is_dir()
    (tmp_path / "a" / "b" / ".gitkeep").touch()
    for flags in ({}, {"resume": True}, {"overwrite": True}):
        prepare_output_dir(tmp_path / "a" / "b", **flags)


@pytest.mark.parametrize("name", ["checkpoint-10/model.safetensors", "model.safetensors", "report.json"])
def test_a_run_is_refused_continued_or_replaced(tmp_path, name):
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_text("weights")
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(CheckpointError, match=rf"already holds a run: .*{name.split('/')[0]}.*--resume"):
        prepare_output_dir(tmp_path)
    prepare_output_dir(tmp_path, resume=True)
    assert file.read_text() == "weights"
    prepare_output_dir(tmp_path, overwrite=True)
    assert file.exists() != name.startswith("checkpoint-") and (tmp_path / "notes.txt").exists()


@pytest.mark.parametrize("flags", [{}, {"resume": True}, {"overwrite": True}])
def test_a_folder_of_other_files_is_refused_whatever_the_flags(tmp_path, flags):
    for i in range(12):
        (tmp_path / f"photo{i:02}.jpg").touch()
    with pytest.raises(CheckpointError, match=r"photo00\.jpg, .* and 4 more.*another --output_dir"):
        prepare_output_dir(tmp_path, **flags)
    assert len(list(tmp_path.iterdir())) == 12


def test_an_output_folder_that_cannot_be(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(CheckpointError, match="cannot be the output folder"):
            prepare_output_dir(path)
    with pytest.raises(CheckpointError, match="both resume and overwrite"):
        prepare_output_dir(tmp_path, resume=True, overwrite=True)
