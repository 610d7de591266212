"""The README is true: its commands parse, its code runs; the tree in CONTRIBUTING is the tree."""

from __future__ import annotations

import importlib
import importlib.util
import re
import shlex
import sys
from pathlib import Path

import pytest

from hf_ta_cleaner.commands import COMMANDS


ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_module_stands_in_the_tree():
    contributing = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    tree = re.search(r"## The house\n.*?```\n(hf_ta_cleaner/.*?)```", contributing, re.S)[1]
    package = ROOT / "hf_ta_cleaner"
    entries = {p.name + ("/" if p.is_dir() else "") for p in package.iterdir() if not p.name.startswith("_")}
    missing = [e for e in entries if not re.search(rf"\b{re.escape(e)}(\s|$)", tree, re.M)]
    assert not missing
    named = re.findall(r"^  ([a-z_]+\.py|[a-z_]+/)", tree, re.M)
    assert not set(named) - entries


def commands() -> list[str]:
    text = README.replace("\\\n", " ")
    scripts = re.findall(r"^ {4}(?:accelerate launch|python) (scripts/\S+\.py .*)$", text, re.M)
    installed = re.findall(r"^ {4}ta-cleaner (\S+) (.*)$", text, re.M)
    return scripts + [f"scripts/{name.replace('-', '_')}.py {flags}" for name, flags in installed]


def test_the_readme_shows_commands():
    assert len(commands()) >= 5


def load(path: str, monkeypatch):
    if Path(path).stem in COMMANDS:
        return importlib.import_module(f"hf_ta_cleaner.commands.{Path(path).stem}")
    spec = importlib.util.spec_from_file_location("module_of_readme_test", ROOT / path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # dataclasses look their module up there
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("command", commands())
def test_commands_parse(command, monkeypatch):
    script, *flags = shlex.split(command)
    parsed = load(script, monkeypatch).make_parser().parse(flags)
    assert parsed[0].model


def test_the_trainer_example_runs(tmp_path, monkeypatch):
    blocks = [b for b in re.findall(r"```python\n(.*?)```", README, re.S) if "trainer.train()" in b]
    assert len(blocks) == 1
    monkeypatch.chdir(tmp_path)
    scope: dict = {}
    exec(compile(blocks[0], "README.md", "exec"), scope)
    assert scope["trainer"].state.global_step == 2


def test_targets_named_in_the_readme_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"(?:`|^ {4})make ([a-z-]+)", README, re.M)):
        assert re.search(rf"^{target}:", makefile, re.M), target
