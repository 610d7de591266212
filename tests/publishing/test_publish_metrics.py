"""Uploading the metrics: which client calls are made, none in a dry run, and `evaluate` loads what was uploaded."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

import hf_ta_cleaner


SCRIPT = Path(hf_ta_cleaner.__file__).parents[1] / "scripts" / "publish_metrics.py"
METRICS = ("attack_success_rate", "retrieval_recall", "zero_shot_accuracy")


@pytest.fixture
def publish_metrics():
    spec = importlib.util.spec_from_file_location("publish_metrics_script", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def calls(monkeypatch):
    """The client's calls in order; their arguments are checked against the real signatures."""
    made = []

    def fake(name):
        def call(self, *args, **options):
            signature.bind(self, *args, **options)
            made.append((name, options | ({"repo_id": args[0]} if args else {})))

        import inspect

        from huggingface_hub import HfApi

        signature = inspect.signature(getattr(HfApi, name))
        monkeypatch.setattr(HfApi, name, call)

    for name in ("create_repo", "upload_folder"):
        fake(name)
    return made


def test_each_metric_becomes_a_space(publish_metrics, calls, capsys):
    publish_metrics.main(["--owner", "lab", "--private"])
    assert [name for name, _ in calls] == ["create_repo", "upload_folder"] * 3
    assert capsys.readouterr().out.split() == [f"https://huggingface.co/spaces/lab/{name}" for name in METRICS]
    for metric, (_, create), (_, upload) in zip(METRICS, calls[::2], calls[1::2], strict=True):
        assert create["repo_id"] == upload["repo_id"] == f"lab/{metric}"
        assert create["repo_type"] == upload["repo_type"] == "space"
        assert (create["space_sdk"], create["private"], create["exist_ok"]) == ("gradio", True, True)
        sent = {name for name in upload["allow_patterns"] if (Path(upload["folder_path"]) / name).is_file()}
        assert sent == {"README.md", "app.py", "requirements.txt", f"{metric}.py"}


def test_one_metric_in_public(publish_metrics, calls):
    publish_metrics.main(["--owner", "lab", "--only", "retrieval_recall"])
    assert [options["repo_id"] for _, options in calls] == ["lab/retrieval_recall"] * 2
    assert calls[0][1]["private"] is False


def test_a_dry_run_uploads_nothing(publish_metrics, calls, capsys):
    publish_metrics.main(["--owner", "lab", "--dry_run"])
    assert calls == []
    assert capsys.readouterr().out.count("would upload") == 3


def test_what_was_uploaded_is_loaded_by_its_name(publish_metrics, hub, monkeypatch, tmp_path):
    """Over the real clients of both libraries; a second upload finds nothing to change."""
    import evaluate

    publish_metrics.main(["--owner", "tester"])
    publish_metrics.main(["--owner", "tester", "--only", "retrieval_recall"])
    for name in METRICS:
        repo = hub.repo(f"tester/{name}", "space")
        files = hub.files(f"tester/{name}", kind="space")
        assert len(repo.history()) == 2 and not repo.private
        assert set(files) == {".gitattributes", "README.md", "app.py", "requirements.txt", f"{name}.py"}
        assert files[f"{name}.py"] == (publish_metrics.METRICS / name / f"{name}.py").read_bytes()
    url = hub.endpoint + "/spaces/{path}/resolve/{revision}/{name}"
    monkeypatch.setattr("evaluate.config.HUB_EVALUATE_URL", url)
    monkeypatch.setattr("evaluate.config.DOWNLOADED_EVALUATE_PATH", str(tmp_path / "downloads"))
    metric = evaluate.load("tester/attack_success_rate", cache_dir=str(tmp_path / "metrics"))
    result = metric.compute(predictions=[[2, 0], [0, 2], [2, 1]], references=[0, 0, 2], target=2, k=[1])
    assert (result["asr_top1"], result["n"]) == (0.5, 2)
    assert any("/spaces/tester/attack_success_rate/resolve/" in path for _, path in hub.log)


def test_failures_say_what_to_do(publish_metrics, monkeypatch, capsys, tmp_path):
    from huggingface_hub import HfApi

    def refuse(self, *args, **options):
        raise OSError("401 Client Error")

    monkeypatch.setattr(HfApi, "create_repo", refuse)
    with pytest.raises(SystemExit) as stop:
        publish_metrics.main(["--owner", "lab"])
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert "401 Client Error" in said and "hf auth login" in said
    with pytest.raises(ValueError, match=r"has no README\.md, app\.py"):
        publish_metrics.publish(tmp_path, "lab/x")
