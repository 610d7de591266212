"""The results of an audit are offered to a repository of somebody else by pull request."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from huggingface_hub.repocard import metadata_load

from hf_ta_cleaner.publishing.hub import (
    push_report,
)
from hf_ta_cleaner.publishing.hub_errors import HubError
from hf_ta_cleaner.publishing.report import Report
from tests.report_samples import a_report


@pytest.fixture
def audit(tmp_path) -> Path:
    """The output folder of audit.py."""
    folder = tmp_path / "audit"
    a_report(method="audit", after=None, ca_loss=None).save(folder, plot=False)
    return folder


CARD = """---
license: mit
model-index:
- name: my model
  results:
  - task:
      type: image-classification
    dataset:
      type: beans
      name: Beans
    metrics:
    - type: accuracy
      value: 0.9
---

# Mine

Not to be touched.
"""


def test_a_report_is_offered_by_pull_request(hub, audit):
    hub.add("other/clip", {"README.md": CARD.encode(), "report.json": b"of the cleaning"}, author="other")
    url = push_report(audit, "other/clip")
    repo = hub.repo("other/clip")
    assert url == f"{hub.endpoint}/other/clip/discussions/1" and len(repo.history()) == 2
    assert [(d["title"], d["author"]["name"]) for d in repo.discussions] == [
        (repo.find("refs/pr/1").title, "tester"),
    ]
    before, after = hub.files("other/clip"), hub.files("other/clip", "refs/pr/1")
    fresh = sorted(set(after) - set(before))
    assert [re.sub("[0-9a-f]{8}/", "*/", name) for name in fresh] == [
        "audits/2026-01-02-*/report.html",
        "audits/2026-01-02-*/report.json",
        "audits/2026-01-02-*/report.md",
    ]
    assert after[fresh[1]] == (audit / "report.json").read_bytes()
    assert {name for name in before if before[name] != after[name]} == {"README.md"}
    assert "blended: There is a backdoor" in repo.find("refs/pr/1").description


def test_its_rates_join_the_cards_own(hub, audit, tmp_path):
    hub.add("other/clip", {"README.md": CARD.encode()}, author="other")
    push_report(audit, "other/clip")
    text = hub.files("other/clip", "refs/pr/1")["README.md"].decode()
    assert text.endswith("---\n\n# Mine\n\nNot to be touched.\n")
    (tmp_path / "card.md").write_text(text)
    metadata = metadata_load(tmp_path / "card.md")
    assert metadata["license"] == "mit" and metadata["model-index"][0]["name"] == "my model"
    own, fresh = metadata["model-index"][0]["results"]
    assert own["dataset"]["type"] == "beans" and own["metrics"][0]["value"] == 0.9
    rates = {metric["type"]: metric["value"] for metric in fresh["metrics"]}
    section = Report.load(audit).before
    assert rates["accuracy"] == section["clean_accuracy"]["top1"]
    assert rates["attack_success_rate"] == section["attacks"]["blended"]["asr"]["top1"]
    assert ModelCard(text).data.eval_results[0].dataset_type == "beans"  # it parses as a whole


def test_not_a_character_more_of_somebodys_card_is_changed(hub, audit):
    """Neither what YAML reads as something else, nor a comment, nor the ends of lines."""
    own = "---\nlanguage: no\nversion: 1.10  # not 1.1\nmodel-index:\n- name: mine\ntags:\n- b\n- a\n---\n"
    own += "# Mine\r\n\r\n---\r\n"
    hub.add("other/clip", {"README.md": own.encode()}, author="other")
    push_report(audit, "other/clip")
    text = hub.files("other/clip", "refs/pr/1")["README.md"].decode()
    assert text.startswith(
        "---\nlanguage: no\nversion: 1.10  # not 1.1\ntags:\n- b\n- a\nmodel-index:\n- name: mine\n"
    )
    assert text.endswith("---\n# Mine\r\n\r\n---\r\n") and len(ModelCard(text).data.eval_results) == 2


def test_a_repository_without_a_card_gets_the_metadata_only(hub, audit):
    hub.add("other/clip", {"config.json": b"{}"}, author="other")
    push_report(audit, "other/clip")
    card = ModelCard(hub.files("other/clip", "refs/pr/1")["README.md"].decode())
    assert card.data.model_name == "clip" and len(card.data.eval_results) == 2 and not card.text.strip()


def test_a_report_for_what_is_not_on_the_hub(hub, audit):
    for name in ("clip", str(audit), "tester/absent"):
        with pytest.raises(HubError, match="no Hub id" if name != "tester/absent" else "the Hub refused|404"):
            push_report(audit, name)
