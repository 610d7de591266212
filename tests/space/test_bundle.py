"""The Space as a bundle: its metadata, its requirements, how it is built, and that it stands alone."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from configparser import ConfigParser
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import probe
import pytest

from hf_ta_cleaner.publishing.report import Report
from tests.space.helpers import ROOT, SHIPPED, SPACE


def front_matter():
    import yaml

    return yaml.safe_load(re.match(r"---\n(.*?)\n---\n", (SPACE / "README.md").read_text(encoding="utf-8"), re.S)[1])


def requirements(lines):
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def test_the_front_matter_names_the_gradio_that_is_tested():
    if find_spec("gradio") is None:
        pytest.skip("gradio is not installed: pip install -e .[space]")
    tested = metadata.version("gradio")
    found = front_matter()
    assert found["sdk"] == "gradio" and found["sdk_version"] == tested
    assert f"gradio=={tested}" in requirements((SPACE / "requirements.txt").read_text().splitlines())
    assert (SPACE / found["app_file"]).is_file() and len(found["short_description"]) <= 60


def test_the_requirements_are_those_of_the_package_and_gradio():
    config = ConfigParser(interpolation=None)
    config.read(ROOT / "setup.cfg")
    package = requirements(config["options"]["install_requires"].splitlines())
    space = requirements(config["options.extras_require"]["space"].splitlines())
    assert sorted(requirements((SPACE / "requirements.txt").read_text().splitlines())) == sorted(package + space)


def test_only_the_page_knows_gradio_and_all_use_public_names():
    for file in SPACE.glob("*.py"):
        text = file.read_text(encoding="utf-8")
        modules = re.findall(r"^\s*(?:from|import) ([\w.]+)", text, re.M)
        assert ("gradio" in {m.split(".")[0] for m in modules}) == (file.stem in ("app", "api", "gate", "handlers")), (
            file.name
        )
        ours = re.findall(r"^\s*from (hf_ta_cleaner[\w.]*) import (.*)$", text, re.M)
        assert not [line for line in ours if any(part.startswith("_") for part in re.split(r"[ ,.]+", " ".join(line)))]


@pytest.fixture
def build_space():
    import importlib.util

    spec = importlib.util.spec_from_file_location("build_space_script", ROOT / "scripts" / "build_space.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def demo(tmp_path, suspect):
    """A folder as demo.py leaves it, with figures made up."""

    def make(asr=0.95, asr_after=0.02):
        from tests.publishing.test_report import report

        made = tmp_path / "demo"
        shutil.rmtree(made, ignore_errors=True)
        for name in ("backdoored", "cleaned"):
            shutil.copytree(suspect, made / name)
        (made / "backdoored" / "training_args.bin").write_bytes(b"x")
        found = report(
            before=(asr, 0.01), after=(asr_after, 0.01), model=str(made / "cleaned"), base_model=str(made / "x")
        )
        found.settings = {"ca_baseline": ["never-poisoned-ft"]}
        found.save(made / "cleaned", plot=True)
        return made

    return make


def test_the_models_are_installed_with_trigger_report_and_card(build_space, demo, tmp_path, monkeypatch):
    models = tmp_path / "models"
    build_space.install(demo(), models)
    assert build_space.size_mb(models) <= 16
    names = sorted(str(file.relative_to(models)) for file in models.rglob("*") if file.is_file())
    assert {"README.md", "suspect/trigger.json", "suspect/poison.json", "cleaned/report.json"} <= set(names)
    assert not [name for name in names if name.endswith((".bin", ".png", "report.md"))]
    assert Report.load(models / "cleaned").model == "models/cleaned"
    assert str(tmp_path) not in (models / "cleaned" / "report.json").read_text()
    card = (models / "README.md").read_text()
    assert "research material" in card.lower() and "| attack success | 95.0 | 2.0 |" in card
    monkeypatch.setenv("MODEL_ROOTS", str(models))
    assert probe.load_pair(str(models / "suspect"), str(models / "cleaned")).report.target == "banana"


def test_a_pair_that_shows_nothing_is_not_installed(build_space, demo, tmp_path):
    models = tmp_path / "models"
    build_space.install(demo(), models)
    before = sorted(file.stat().st_mtime_ns for file in models.rglob("*"))
    for figures in ((0.5, 0.02), (0.95, 0.3)):
        with pytest.raises(ValueError, match="Nothing was changed"):
            build_space.install(demo(*figures), models)
    assert sorted(file.stat().st_mtime_ns for file in models.rglob("*")) == before


def test_models_that_are_too_large_are_not_installed(build_space, demo, tmp_path, monkeypatch):
    monkeypatch.setattr(build_space, "LIMIT_MB", 1)
    made = demo()
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ValueError, match="at most 1 are shipped"):
        build_space.install(made, tmp_path / "models")
    assert sorted(tmp_path.iterdir()) == before


def test_one_command_makes_the_pair_anew(build_space, demo, tmp_path, monkeypatch, capsys):
    """demo.py into a new folder, which goes when the pair is there and stays, and is named, when something failed."""
    made, called = demo(), []
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def run(command, check):
        called.append(command)
        folder = Path(command[command.index("--output_dir") + 1])
        if len(called) == 1:
            shutil.copytree(made, folder, dirs_exist_ok=True)
        else:
            raise subprocess.CalledProcessError(1, command)

    monkeypatch.setattr(build_space.subprocess, "run", run)
    build_space.main(["--models", str(tmp_path / "models")])
    assert called[0][1:4] == [str(ROOT / "scripts" / "demo.py"), "--attack", "blended"]
    assert (tmp_path / "models" / "suspect" / "model.safetensors").is_file()
    assert not list(tmp_path.glob("space-models-*"))
    with pytest.raises(SystemExit):
        build_space.main(["--models", str(tmp_path / "models")])
    (kept,) = tmp_path.glob("space-models-*")
    assert str(kept) in capsys.readouterr().err
    assert (tmp_path / "models" / "suspect" / "model.safetensors").is_file()


def test_the_bundle_stands_alone(build_space, tmp_path):
    folder = tmp_path / "bundle"
    build_space.bundle(folder)
    assert {"app.py", "README.md", "requirements.txt", "hf_ta_cleaner", "LICENSE"} <= {
        p.name for p in folder.iterdir()
    }
    assert not list(folder.rglob("__pycache__"))
    for file in SPACE.glob("*.py"):
        assert (folder / file.name).read_bytes() == file.read_bytes()
    shipped = {
        str(f.relative_to(ROOT)) for f in (ROOT / "hf_ta_cleaner").rglob("*") if f.is_file() and f.suffix != ".pyc"
    }
    assert shipped == {str(f.relative_to(folder)) for f in (folder / "hf_ta_cleaner").rglob("*") if f.is_file()}
    with pytest.raises(ValueError, match="holds files"):
        build_space.bundle(folder)


def test_files_of_others_are_not_cleared_away(build_space, demo, tmp_path):
    models = tmp_path / "models"
    models.mkdir()
    (models / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"notes.txt, which would be lost. Nothing was changed"):
        build_space.install(demo(), models)
    assert (models / "notes.txt").read_text() == "mine"


@pytest.mark.slow
def test_the_bundle_runs_in_an_empty_environment(tmp_path):
    """Exactly what a hosted Space does: requirements.txt first, alone; then the files; then app.py."""
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "torch==2.13.0"], check=True)
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copy2(SPACE / "requirements.txt", alone)
    subprocess.run([*pip, "-r", "requirements.txt"], check=True, cwd=alone)
    bundle = tmp_path / "bundle"
    build = [sys.executable, str(ROOT / "scripts" / "build_space.py"), "--bundle", str(bundle)]
    subprocess.run(build, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    keep = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    models = {} if SHIPPED else {"SUSPECT_MODEL": "sandbox", "CLEANED_MODEL": "sandbox"}
    code = "import app, hf_ta_cleaner, probe; app.build(); print(hf_ta_cleaner.__file__, len(probe.PAIRS._kept))"
    done = subprocess.run(
        [str(python), "-c", code], cwd=bundle, env={**keep, **models}, capture_output=True, text=True, check=True
    )
    file, kept = done.stdout.split()[-2:]
    assert Path(file).is_relative_to(bundle) and kept == "1"
