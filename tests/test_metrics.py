"""The metric folders: hand-computed rates and intervals, clear errors, and the promises of an `evaluate` module."""

from __future__ import annotations

import ast
import doctest
import importlib
import importlib.util
import inspect
from pathlib import Path

import evaluate
import numpy as np
import pytest

from hf_ta_cleaner.metrics.attack_success_rate.attack_success_rate import AttackSuccessRate, wilson_interval
from hf_ta_cleaner.metrics.zero_shot_accuracy.zero_shot_accuracy import ZeroShotAccuracy


METRICS = Path(importlib.import_module("hf_ta_cleaner.metrics").__file__).parent
FOLDERS = sorted(path.parent for path in METRICS.glob("*/README.md"))
METRIC_CLASSES = [AttackSuccessRate, ZeroShotAccuracy]

# Ten images, four classes, target 3; the last two are of the target class.
RANKINGS = [[3, 0], [3, 1], [0, 3], [1, 3], [2, 3], [0, 1], [1, 0], [2, 0], [3, 0], [0, 3]]
LABELS = [0, 1, 0, 1, 2, 0, 1, 2, 3, 3]


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setattr("evaluate.config.HF_METRICS_CACHE", str(tmp_path))


def test_attack_success_rate_by_hand():
    result = AttackSuccessRate().compute(predictions=RANKINGS, references=LABELS, target=3, k=[1, 2])
    assert result["asr_top1"] == 2 / 8
    assert result["asr_top2"] == 5 / 8
    assert result["asr_including_target_top1"] == 3 / 10
    assert result["asr_including_target_top2"] == 7 / 10
    assert (result["n"], result["n_including_target"]) == (8, 10)
    assert result["interval95"]["asr_top1"] == pytest.approx([0.0715, 0.5907], abs=1e-4)


def test_zero_shot_accuracy_by_hand():
    result = ZeroShotAccuracy().compute(predictions=RANKINGS, references=LABELS, k=[1, 2])
    # Right at once: images 2 to 8; at the second guess: 0, 1 and 9.
    assert result["top1"] == 7 / 10
    assert result["top2"] == 1.0
    assert result["n"] == 10
    assert result["interval95"]["top1"] == pytest.approx([0.3968, 0.8922], abs=1e-4)


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    [  # Published values: Newcombe (1998), Statistics in Medicine 17, table I, method 3.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (29, 29, 1 - 0.1170, 1.0),
    ],
)
def test_wilson_interval(hits, n, low, high):
    assert wilson_interval(hits, n) == pytest.approx([low, high], abs=1e-4)


@pytest.mark.parametrize("metric_class", METRIC_CLASSES)
@pytest.mark.parametrize(
    ("predictions", "options", "message"),
    [
        ([[0, 1], [1]], {"k": [1]}, "one length"),
        ([[], []], {"k": [1]}, "one length"),
        ([[0, 1], [1, 1]], {"k": [1]}, "same class twice"),
        ([[0, 1], [1, 0]], {"k": [1, 5]}, "k=5 needs rankings of at least 5"),
        ([[0, 1], [1, 0]], {"k": [5], "num_classes": 8}, "k=5 needs rankings"),
        ([[0, 1], [1, 0]], {"k": [0]}, "at least 1"),
        ([[0, 1], [1, 0]], {"k": []}, "at least 1"),
    ],
)
def test_bad_input_is_named(metric_class, predictions, options, message):
    extra = {"target": 1} if metric_class is AttackSuccessRate else {}
    with pytest.raises(ValueError, match=message):
        metric_class().compute(predictions=predictions, references=[0, 0], **extra, **options)


def test_no_image_left_to_attack():
    with pytest.raises(ValueError, match="no image is left"):
        AttackSuccessRate().compute(predictions=[[0, 1]], references=[1], target=1, k=[1])


@pytest.mark.parametrize("metric_class", METRIC_CLASSES)
def test_complete_rankings_score_one_beyond_the_last_class(metric_class):
    extra, key = ({"target": 1}, "asr_top10") if metric_class is AttackSuccessRate else ({}, "top10")
    data = {"predictions": [[0, 1, 2], [2, 1, 0]], "references": [0, 2]}
    assert metric_class().compute(**data, k=[10], num_classes=3, **extra)[key] == 1.0


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_folder_loads_offline_and_batches_add_up(folder):
    options = {"target": 3} if folder.name == "attack_success_rate" else {}
    batched, whole = evaluate.load(str(folder)), evaluate.load(str(folder), keep_in_memory=True)
    for start in range(0, 10, 4):
        end = start + 4
        batched.add_batch(predictions=np.array(RANKINGS[start:end]), references=np.array(LABELS[start:end]))
    expected = whole.compute(predictions=RANKINGS, references=LABELS, k=[1, 2], **options)
    assert batched.compute(k=[1, 2], **options) == expected


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_doctests(folder, monkeypatch):
    monkeypatch.chdir(METRICS)
    module = importlib.import_module(f"hf_ta_cleaner.metrics.{folder.name}.{folder.name}")
    examples = doctest.DocTestParser().get_doctest(
        module._KWARGS_DESCRIPTION, {"evaluate": evaluate}, folder.name, None, None
    )
    assert len(examples.examples) >= 4
    assert doctest.DocTestRunner().run(examples).failed == 0


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_folder_stands_alone(folder):
    source = folder / f"{folder.name}.py"
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0
        modules = [node.module] if isinstance(node, ast.ImportFrom) else [a.name for a in getattr(node, "names", [])]
        if isinstance(node, ast.Import | ast.ImportFrom):
            assert not any(name.startswith("hf_ta_cleaner") for name in modules)
    for name in ("README.md", "app.py", "requirements.txt"):
        assert (folder / name).stat().st_size > 0
    assert (folder / "README.md").read_text(encoding="utf-8").startswith("---\ntitle:")


@pytest.mark.parametrize("metric_class", METRIC_CLASSES)
def test_signature_is_closed_and_ranges_are_stated(metric_class):
    parameters = inspect.signature(metric_class._compute).parameters.values()
    assert not any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters)
    assert "minimum 0, maximum 1" in metric_class().inputs_description


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_app_computes(folder):
    spec = importlib.util.spec_from_file_location(f"{folder.name}_app", folder / "app.py")
    app = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(app)
    if folder.name == "attack_success_rate":
        assert app.compute("[[2, 0], [0, 2]]", "[0, 0]", 2.0, "[1]")["asr_top1"] == 0.5
    else:
        assert app.compute("[[2, 0], [0, 2]]", "[0, 0]", "[1]")["top1"] == 0.5


def test_shared_helpers_do_not_drift():
    """A metric folder has to stand alone, so both carry the same two helpers."""
    modules = [importlib.import_module(f"hf_ta_cleaner.metrics.{f.name}.{f.name}") for f in FOLDERS]
    for helper in ("check_rankings", "wilson_interval"):
        assert len({inspect.getsource(getattr(module, helper)) for module in modules}) == 1
