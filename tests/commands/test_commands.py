"""The `ta-cleaner` program: the same mains as the scripts, and a help that imports next to nothing."""

from __future__ import annotations

import configparser
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from hf_ta_cleaner import commands as program
from hf_ta_cleaner.commands import commands, main


ROOT = Path(__file__).parents[2]


def test_every_command_is_listed_with_what_it_does(capsys):
    main(["--help"])
    said = capsys.readouterr().out
    assert list(commands())[:7] == ["poison", "craft", "backdoor", "scan", "check_data", "clean", "audit"]
    for name, text in commands().items():
        assert text.endswith((".", ":")) or len(text) > 20
        assert f"  {name.replace('_', '-')}" in said and text in said
    main([])
    assert capsys.readouterr().out == said


def test_every_command_has_its_script():
    for name in commands():
        wrapper = (ROOT / "scripts" / f"{name}.py").read_text()
        assert f"from hf_ta_cleaner.commands.{name} import main" in wrapper and len(wrapper.splitlines()) < 10


def test_a_command_gets_its_options_and_its_name(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["ta-cleaner"])
    with pytest.raises(SystemExit) as stop:
        main(["clean", "--no_such_option", "1"])
    assert stop.value.code == 2
    assert "ta-cleaner clean" in capsys.readouterr().err


def test_other_commands_are_refused(capsys):
    for given, hint in (
        ("claen", "did you mean clean?"),
        ("check-dat", "did you mean check-data?"),
        ("xyz", "wanted one of: poison, craft"),
    ):
        with pytest.raises(SystemExit) as stop:
            main([given])
        assert stop.value.code == 2 and hint in capsys.readouterr().err
    main(["--version"])
    assert capsys.readouterr().out.strip() == program.__version__


def test_help_is_quick():
    """Under a second of processor time in a fresh interpreter, and nothing heavy is imported."""
    code = (
        "import sys\nfrom hf_ta_cleaner.commands import main\nmain(['--help'])\n"
        "print([m for m in ('torch', 'transformers', 'datasets', 'numpy') if m in sys.modules])"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.stdout.splitlines()[-1] == "[]"
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1


def test_the_module_runs_as_accelerate_would_run_it():
    done = subprocess.run(
        [sys.executable, "-m", "hf_ta_cleaner.commands", "--version"],
        capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.stdout.strip() == program.__version__


def test_the_entry_point_is_declared():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    assert setup["options.entry_points"]["console_scripts"].strip() == "ta-cleaner = hf_ta_cleaner.commands:main"
