"""The help of every command and script."""

from __future__ import annotations

import sys

import pytest

from tests.commands.helpers import PARSED, SCRIPTS, script


def help_of(name: str, capsys, flag: str = "--help") -> str:
    with pytest.raises(SystemExit) as stop:
        script(name).main([flag])
    assert stop.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("name", PARSED)
def test_help_fits_two_screens_and_explains_every_option(name, capsys):
    text = help_of(name, capsys)
    assert len(text.splitlines()) <= 115
    assert max(map(len, text.splitlines())) <= 120
    assert text.index("usage:") < text.index(script(name).__doc__.splitlines()[0])
    words = " ".join(text.split())
    for action in script(name).make_parser()._actions:
        assert action.help, f"{action.option_strings} has no help"
        if action.help != "==SUPPRESS==":
            assert f" {action.option_strings[0]}" in text
            assert " ".join(action.help.replace("%%", "%").split()) in words, action.option_strings


@pytest.mark.parametrize("name", ["demo", "pretrain_sandbox"])
def test_help_of_the_plain_scripts(name, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--help"])
    with pytest.raises(SystemExit) as stop:
        script(name).main()
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert "--output_dir" in text
    assert len(text.splitlines()) <= 115


@pytest.mark.parametrize("name", ["clean", "backdoor"])
def test_help_all_lists_the_inherited_settings_too(name, capsys):
    short, full = help_of(name, capsys), help_of(name, capsys, "--help-all")
    assert len(full.splitlines()) > 2 * len(short.splitlines())
    assert "--gradient_checkpointing" in full and "--gradient_checkpointing" not in short
    assert "--learning_rate" in full and "--learning_rate" in short


@pytest.mark.parametrize("name", PARSED)
def test_the_examples_in_the_help_can_be_parsed(name):
    import shlex

    text = script(name).__doc__.replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines() if f"scripts/{name}.py" in line]
    assert lines
    for line in lines:
        words = shlex.split(line, comments=True)
        words = words[words.index(f"scripts/{name}.py") + 1 :]
        words = [str(SCRIPTS.parent / word) if word.startswith("scripts/") else word for word in words]
        script(name).make_parser().parse(words)
