"""The metric folders: hand-computed rates and intervals, clear errors, and the promises of an `evaluate` module."""

from __future__ import annotations

import ast
import doctest
import importlib
import importlib.util
import inspect
import re
from pathlib import Path

import evaluate
import numpy as np
import pytest
import yaml

from hf_ta_cleaner.metrics.attack_success_rate.attack_success_rate import AttackSuccessRate, wilson_interval
from hf_ta_cleaner.metrics.retrieval_recall.retrieval_recall import RetrievalRecall
from hf_ta_cleaner.metrics.zero_shot_accuracy.zero_shot_accuracy import ZeroShotAccuracy


METRICS = Path(importlib.import_module("hf_ta_cleaner.metrics").__file__).parent
FOLDERS = sorted(path.parent for path in METRICS.glob("*/README.md"))
METRIC_CLASSES = [AttackSuccessRate, RetrievalRecall, ZeroShotAccuracy]
CLASSIFIERS = [AttackSuccessRate, ZeroShotAccuracy]

# Ten images, four classes, target 3; the last two are of the target class.
RANKINGS = [[3, 0], [3, 1], [0, 3], [1, 3], [2, 3], [0, 1], [1, 0], [2, 0], [3, 0], [0, 3]]
LABELS = [0, 1, 0, 1, 2, 0, 1, 2, 3, 3]


# Ten queries over four candidates: the same rankings, and all that is right for each.
RIGHT = [[0, 1], [1], [3, 1, 2], [0, 2], [3], [1], [0, 1, 2, 3], [1, 3], [0, 2], [3]]


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


def test_retrieval_recall_by_hand():
    result = RetrievalRecall().compute(predictions=RANKINGS, references=RIGHT, k=[1, 2])
    # At once: only query 6. At the second place: 0, 1, 2, 4, 5, 8 and 9. Not among two: 3 and 7.
    assert result["recall_at_1"] == 1 / 10
    assert result["recall_at_2"] == 8 / 10
    assert result["n"] == 10
    assert result["interval95"]["recall_at_1"] == pytest.approx([0.0179, 0.4042], abs=1e-4)


@pytest.mark.parametrize(
    ("references", "options", "message"),
    [
        ([[0], []], {"k": [1]}, "1 queries have no right candidate, number 1 first"),
        ([[0], [7]], {"k": [1], "num_candidates": 2}, r"Query 1: none of its right candidates \[7\] is among all 2"),
    ],
)
def test_a_query_without_a_right_candidate_is_refused(references, options, message):
    with pytest.raises(ValueError, match=message):
        RetrievalRecall().compute(predictions=[[0, 1], [1, 0]], references=references, **options)


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
        ([[0, 1], [1, 1]], {"k": [1]}, "same id twice"),
        ([[0, 1], [1, 0]], {"k": [1, 5]}, "k=5 needs rankings of at least 5"),
        ([[0, 1], [1, 0]], {"k": [5], "total": 8}, "k=5 needs rankings"),
        ([[0, 1], [1, 0]], {"k": [0]}, "at least 1"),
        ([[0, 1], [1, 0]], {"k": []}, "at least 1"),
    ],
)
def test_bad_input_is_named(metric_class, predictions, options, message):
    right = [[0], [0]] if metric_class is RetrievalRecall else [0, 0]
    extra = {"target": 1} if metric_class is AttackSuccessRate else {}
    total = "num_candidates" if metric_class is RetrievalRecall else "num_classes"
    options = {total if name == "total" else name: value for name, value in options.items()}
    with pytest.raises(ValueError, match=message):
        metric_class().compute(predictions=predictions, references=right, **extra, **options)


def test_no_image_left_to_attack():
    with pytest.raises(ValueError, match="no image is left"):
        AttackSuccessRate().compute(predictions=[[0, 1]], references=[1], target=1, k=[1])


@pytest.mark.parametrize("metric_class", METRIC_CLASSES)
def test_features_are_typed(metric_class):
    features = metric_class().features
    assert features["predictions"].feature.dtype == "int64"
    right = features["references"]
    assert (right.feature if metric_class is RetrievalRecall else right).dtype == "int64"


def test_complete_rankings_find_everything():
    data = {"predictions": [[0, 1, 2], [2, 1, 0]], "references": [[0], [0, 1]]}
    assert RetrievalRecall().compute(**data, k=[10], num_candidates=3)["recall_at_10"] == 1.0


@pytest.mark.parametrize("metric_class", CLASSIFIERS)
def test_complete_rankings_score_one_beyond_the_last_class(metric_class):
    extra, key = ({"target": 1}, "asr_top10") if metric_class is AttackSuccessRate else ({}, "top10")
    data = {"predictions": [[0, 1, 2], [2, 1, 0]], "references": [0, 2]}
    assert metric_class().compute(**data, k=[10], num_classes=3, **extra)[key] == 1.0


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_folder_loads_offline_and_batches_add_up(folder):
    options = {"target": 3} if folder.name == "attack_success_rate" else {}
    right = RIGHT if folder.name == "retrieval_recall" else LABELS
    batched, whole = evaluate.load(str(folder)), evaluate.load(str(folder), keep_in_memory=True)
    for start in range(0, 10, 4):
        end = start + 4
        batched.add_batch(predictions=np.array(RANKINGS[start:end]), references=right[start:end])
    expected = whole.compute(predictions=RANKINGS, references=right, k=[1, 2], **options)
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
    assert "__main__" in (folder / "app.py").read_text(encoding="utf-8")
    required = (folder / "requirements.txt").read_text(encoding="utf-8").split()
    assert {re.split("[<>=]", line)[0] for line in required} == {"evaluate", "datasets", "numpy"}


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_front_matter_is_what_a_space_needs(folder):
    """The keys of huggingface.co/docs/hub/spaces-config-reference; "evaluate" and "metric" are how they are found."""
    _, front, text = (folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    front = yaml.safe_load(front)
    assert {"title", "emoji", "colorFrom", "colorTo", "sdk_version", "license", "description"} <= set(front)
    colors = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}
    assert {front["colorFrom"], front["colorTo"]} <= colors
    assert (front["sdk"], front["app_file"]) == ("gradio", "app.py")
    assert {"evaluate", "metric"} <= set(front["tags"])
    for named in ("## Use", "| input |", "| output | range |", "## Limits"):
        assert named in text


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
    elif folder.name == "retrieval_recall":
        assert app.compute("[[2, 0], [0, 2]]", "[[0, 1], [0]]", "[1]")["recall_at_1"] == 0.5
    else:
        assert app.compute("[[2, 0], [0, 2]]", "[0, 0]", "[1]")["top1"] == 0.5


def test_shared_helpers_do_not_drift():
    """A metric folder has to stand alone, so all carry the same two helpers."""
    modules = [importlib.import_module(f"hf_ta_cleaner.metrics.{f.name}.{f.name}") for f in FOLDERS]
    for helper in ("check_rankings", "wilson_interval"):
        assert len({inspect.getsource(getattr(module, helper)) for module in modules}) == 1
