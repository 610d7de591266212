"""The pair of models that the Space opens, and the triggers that come with it."""

from __future__ import annotations

import json
import shutil
from types import SimpleNamespace

import probe
import pytest
import triggers
from inputs import ProbeError

from hf_ta_cleaner import ATTACKS, get_attack, sandbox
from tests.space.helpers import noise


def test_a_pair_knows_what_lies_beside_it(pair, suspect):
    assert pair.own == "blended" and pair.target == "banana" and pair.report is None and pair.is_sandbox
    assert next(iter(pair.triggers)) == "blended" and pair.trigger() == get_attack("blended", alpha=0.25)
    assert pair.labels == tuple(sandbox.CLASSES)
    assert pair.suspect.name == "/".join(suspect.parts[-2:]) and not pair.suspect.model.training


def test_every_attack_is_there_unless_it_needs_a_file(pair, suspect, tmp_path, monkeypatch):
    assert set(pair.triggers) == set(ATTACKS) - {"badclip", "trojvqa"}
    folder = tmp_path / "crafted"
    shutil.copytree(suspect, folder, ignore=shutil.ignore_patterns("trigger*", "poison*"))
    get_attack("trojvqa", patch=noise(8, 8), side=72, target="banana").save(folder)
    monkeypatch.setenv("MODEL_ROOTS", str(tmp_path))
    crafted = probe.load_pair(str(folder), str(folder))
    assert next(iter(crafted.triggers)) == crafted.own == "trojvqa" and crafted.target == "banana"
    assert triggers.controls(crafted.trigger(), 72) == triggers.Controls(None, None, None)


def test_folders_elsewhere_are_refused_as_if_they_were_not_there(suspect, tmp_path, monkeypatch):
    root = suspect.parent
    monkeypatch.setenv("MODEL_ROOTS", str(root))
    (root / "link").symlink_to(tmp_path)
    assert probe.locate(str(suspect)) == str(suspect.resolve())
    words = set()
    for name in (
        "/etc",
        "/nowhere",
        f"{suspect}/../../..",
        "models/../../scripts",
        "models/none",
        "../tests",
        str(root / "link"),
        "",
        "~",
        "a/b/c",
    ):
        with pytest.raises(ProbeError) as error:
            probe.locate(name)
        words.add(str(error.value).replace(repr(name), "NAME"))
    assert len(words) == 1
    (root / "link").unlink()


def test_a_folder_here_is_not_opened_under_the_name_of_a_hub_model(suspect, tmp_path, monkeypatch):
    """Nor told apart from one that is not there."""
    import huggingface_hub
    from huggingface_hub.errors import RepositoryNotFoundError

    def absent(*args, **kwargs):
        raise RepositoryNotFoundError("404", response=SimpleNamespace(headers={}, request=None))

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", absent)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.delenv("MODEL_ROOTS", raising=False)
    monkeypatch.chdir(tmp_path)
    shutil.copytree(suspect, tmp_path / "outputs" / "private")
    said = set()
    for name in ("outputs/private", "outputs/nowhere"):
        with pytest.raises(ProbeError) as error:
            probe.locate(name)
        said.add(str(error.value).replace(name, "NAME"))
    assert len(said) == 1


def test_visitors_do_not_see_with_the_token_of_the_page(monkeypatch):
    import huggingface_hub

    tokens = []

    def model_info(self, name, **kwargs):
        tokens.append(self.token)
        return SimpleNamespace(siblings=[], gated="auto" if name == "lab/gated" else False)

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", model_info)
    monkeypatch.setenv("SUSPECT_MODEL", "me/mine")
    probe.locate("me/mine")
    probe.locate("lab/open")
    with pytest.raises(ProbeError, match="does not show"):
        probe.locate("lab/gated")
    assert tokens == [None, False, False]


@pytest.mark.parametrize(("sizes", "refused"), [([300, 300], False), ([500, 300], True)])
def test_a_hub_model_that_is_too_large_is_not_fetched(monkeypatch, sizes, refused):
    import huggingface_hub

    files = [SimpleNamespace(rfilename=f"m-{i}.safetensors", size=size * 2**20) for i, size in enumerate(sizes)]
    files.append(SimpleNamespace(rfilename="pytorch_model.bin", size=2**40))
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *_, **__: SimpleNamespace(siblings=files))
    if refused:
        with pytest.raises(ProbeError, match="800 MB of weights; at most 700 MB"):
            probe.locate("owner/name")
    else:
        assert probe.locate("owner/name") == "owner/name"


def test_models_that_do_not_fit_or_bring_code_are_refused(suspect, tiny_clip, tiny_processor, tmp_path, monkeypatch):
    from hf_ta_cleaner.models.checkpoints import save_model

    monkeypatch.setenv("MODEL_ROOTS", str(tmp_path))
    save_model(tiny_clip, tiny_processor, tmp_path / "tiny")
    with pytest.raises(ProbeError, match="pictures of 72 pixels and the cleaned model of 32"):
        probe.load_pair("sandbox", str(tmp_path / "tiny"))
    config = json.loads((tmp_path / "tiny" / "config.json").read_text())
    (tmp_path / "tiny" / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoModel": "x.Y"}}))
    with pytest.raises(ProbeError, match=r"cleaned model: .*asks to run code"):
        probe.load_pair("sandbox", str(tmp_path / "tiny"))


def test_at_most_two_pairs_stay_open(monkeypatch):
    opened = []
    monkeypatch.setattr(probe, "load_pair", lambda *names: opened.append(names) or SimpleNamespace(names=names))
    pairs = probe.Pairs()
    for name in ("first", "second", "first", "third", "second", "first"):
        assert pairs.get(name, "x").names == (name, "x")
    assert [name for name, _ in opened] == ["first", "second", "third", "second"]
    assert len(pairs._kept) == 2


def test_controls_come_from_the_fields():
    def titles(name):
        found = triggers.controls(get_attack(name), 224)
        return found.size and found.size.field, found.strength and found.strength.field, found.place

    assert titles("badnet") == ("patch_px", None, "random")
    assert titles("blended") == (None, "alpha", None)
    assert titles("sig") == (None, "delta", None)
    assert titles("ssba") == (None, "rms", None)
    assert titles("wanet") == (None, "s", None)
    assert triggers.controls(get_attack("badnet"), 224).size.value == 16
    assert triggers.controls(get_attack("badnet"), 72).size.value == 5


def test_what_is_left_alone_changes_nothing_and_what_is_set_counts():
    blended, badnet = get_attack("blended"), get_attack("badnet")
    assert triggers.adjust(blended, 72, size=9, strength=0.2, place="middle") is blended
    assert triggers.adjust(blended, 72, None, 0.5, None) == get_attack("blended", alpha=0.5)
    wanted = get_attack("badnet", patch_px=9, place="top-left")
    assert triggers.adjust(badnet, 72, 9, 0.7, "top-left") == wanted
    with pytest.raises(ProbeError, match="alpha is a share"):
        triggers.adjust(blended, 72, None, 3, None)


def test_an_unknown_trigger_is_named(pair):
    with pytest.raises(ProbeError, match="no trigger 'nope' here; choose one of blended"):
        pair.trigger("nope")
