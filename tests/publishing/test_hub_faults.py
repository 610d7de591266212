"""Whatever goes wrong: nothing is half-published, the local checkpoint is intact, the message says how to go on."""

from __future__ import annotations

import re
import shlex

import pytest
import torch
from huggingface_hub import errors

from hf_ta_cleaner.models.checkpoints import CheckpointError, load_model, save_model
from hf_ta_cleaner.publishing.hub import claim, from_pretrained, push_checkpoint, push_report
from hf_ta_cleaner.publishing.hub_errors import HubError
from tests.commands.helpers import script
from tests.report_samples import a_report


PUT, COMMIT, PREUPLOAD = ("PUT", "/store/"), ("POST", "/commit/main"), ("POST", "/preupload/")
FOREVER = 99


pytestmark = pytest.mark.usefixtures("logging_as_it_was")


@pytest.fixture
def cleaned(tiny_clip, tiny_processor, tmp_path):
    folder = save_model(tiny_clip, tiny_processor, tmp_path / "a cleaned clip")
    a_report().save(folder, plot=False)
    return folder


@pytest.fixture
def published(hub, tiny_clip, tiny_processor, tmp_path):
    """An earlier version of the model, on the Hub already: what a reader of the repository must go on getting."""
    earlier = save_model(tiny_clip, tiny_processor, tmp_path / "earlier")
    push_checkpoint(earlier, "tester/clip")
    with torch.no_grad():
        tiny_clip.logit_scale.add_(1)
    hub.log.clear(), hub.stored.clear(), hub.waits.clear()
    return hub.repo("tester/clip")


def contents(folder):
    return {file.relative_to(folder): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def resume(message: str) -> None:
    """Runs the command that an error's message gives, as a shell would read it."""
    words = shlex.split(re.search(r"ta-cleaner push .*", message)[0])
    script("push").main(words[2:])


FAULTS = {
    "401 at the door": (("POST", "/repos/create"), {"status": 401}, r"token is missing or not valid.*hf auth login"),
    "401 at the commit": (COMMIT, {"status": 401}, r"token is missing or not valid.*hf auth login"),
    "403 at the door": (("POST", "/repos/create"), {"status": 403}, r"may not do this.*write access"),
    "403 at the commit": (COMMIT, {"status": 403}, r"may not do this \(403, simulated"),
    "409 at the commit": (COMMIT, {"status": 409}, r"somebody else changed the repository"),
    "429 at the commit": (COMMIT, {"status": 429, "headers": {"Retry-After": "7"}}, r"too many requests.*wait 7 sec"),
    "429 for good": (PREUPLOAD, {"status": 429, "headers": {"Retry-After": "3"}}, r"too many requests.*wait 3 sec"),
    "500 before the upload": (PREUPLOAD, {"status": 500}, r"Hub had an error of its own \(500"),
    "500 in the middle of an upload": (PUT, {"status": 500}, r"Hub had an error of its own \(500"),
    "500 at the commit": (COMMIT, {"status": 500}, r"Hub had an error of its own \(500"),
    "cut in the middle of an upload": (PUT, {"cut_after": 1000}, r"the connection failed"),
    "cut at the commit": (COMMIT, {"cut_after": 10}, r"the connection failed"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_push_that_fails_changes_nothing_and_can_be_resumed(hub, published, cleaned, tiny_clip, capsys, fault):
    request, how, said = FAULTS[fault]
    if "door" in fault:  # a repository that is there needs not be created
        hub.fault("GET", "/api/models/tester/clip$", times=FOREVER, **how)
    hub.fault(*request, times=FOREVER, **how)
    before, head = contents(cleaned), published.find("main")
    with pytest.raises(HubError, match=rf"(?s){said}") as failed:
        push_checkpoint(cleaned, "tester/clip")
    assert published.find("main") is head and set(published.refs) == {"main"}
    after = contents(cleaned)
    assert {name: after[name] for name in before} == before and {n.name for n in set(after) - set(before)} <= {
        "README.md"
    }
    hub.faults.clear()
    assert from_pretrained("tester/clip").report is None  # still the earlier one

    sent = list(hub.stored)
    resume(str(failed.value))
    assert "Pushed to" in capsys.readouterr().out
    assert len(published.history()) == 3
    assert hub.stored[len(sent) :] == ([] if sent else hub.stored)  # what had arrived was not sent again
    found = from_pretrained("tester/clip")
    assert found.report is not None and found.model.logit_scale == tiny_clip.logit_scale
    assert contents(cleaned) == after


@pytest.mark.parametrize("kind", ["new", "there"])
def test_the_first_push_leaves_an_empty_repository_at_most(hub, cleaned, kind):
    hub.fault(*PUT, status=500, times=FOREVER)
    with pytest.raises(HubError, match="all of it or none of it"):
        push_checkpoint(cleaned, "tester/new", private=True)
    assert set(hub.files("tester/new")) == {".gitattributes"} and hub.repo("tester/new").private


def test_what_passes_is_waited_for(hub, cleaned):
    """The client tries again by itself where that is safe, and waits as long as it is told to."""
    hub.fault(*PREUPLOAD, status=429, times=1, headers={"Retry-After": "7"})
    hub.fault(*PUT, status=500, times=2)
    hub.fault(*PUT, cut_after=1000, times=1)
    push_checkpoint(cleaned, "tester/clip")
    assert len(hub.repo("tester/clip").history()) == 2
    assert hub.waits[0] == 8 and len(hub.waits) == 4  # one second more than the server asked for
    assert load_model("tester/clip")


def test_somebody_elses_commit_is_not_run_over(hub, published, cleaned, capsys):
    """Between our look at the repository and our commit, another one arrives: a real conflict, not a simulated one."""

    def meanwhile():
        hub.before_commit = lambda: None
        hub.add("tester/clip", {"LICENSE": b"new"})

    hub.before_commit = meanwhile
    with pytest.raises(HubError, match=r"somebody else changed the repository meanwhile \(412") as failed:
        push_checkpoint(cleaned, "tester/clip")
    assert published.find("main").title == "added"
    resume(str(failed.value))
    assert hub.files("tester/clip")["LICENSE"] == b"new" and "report.json" in hub.files("tester/clip")


def test_an_answer_that_was_lost_is_not_committed_twice(hub, published, cleaned):
    """The commit arrived and its answer did not: the command that resumes finds everything there."""
    real = published.commit

    def commit_and_lose(*args, **kwargs):
        real(*args, **kwargs)
        raise ConnectionResetError

    published.commit = commit_and_lose
    with pytest.raises(HubError, match="the connection failed") as failed:
        push_checkpoint(cleaned, "tester/clip")
    published.commit = real
    assert len(published.history()) == 3
    resume(str(failed.value))
    assert len(published.history()) == 3


def test_without_a_token_or_a_network(hub, cleaned, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match="unset HF_HUB_OFFLINE"):
        push_checkpoint(cleaned, "tester/clip")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(cleaned / "no-token"))
    with pytest.raises(HubError, match="hf auth login"):
        claim("tester/clip", default="x")
    monkeypatch.setenv("HF_TOKEN", "hf_tester")
    hub.__exit__()
    with pytest.raises(HubError, match=r"the connection failed \(ConnectError"):
        push_checkpoint(cleaned, "tester/clip")


def test_claiming_a_repository_fails_before_anything_is_computed(hub, cleaned):
    assert claim(None, default="out", private=True) == "tester/out" and hub.repo("tester/out").private
    assert claim("tester/out", default="x") == "tester/out"
    with pytest.raises(HubError, match="may not do this"):
        claim("other/clip", default="x")
    with pytest.raises(HubError, match="not valid"):
        claim("tester/clip", default="x", token="hf_wrong")


@pytest.mark.parametrize(("request_", "how"), [(("POST", "/commit/main"), {"status": 500}), (PUT, {"cut_after": 10})])
def test_a_pull_request_that_fails_is_not_opened(hub, published, cleaned, tmp_path, capsys, request_, how):
    a_report(method="audit", after=None, ca_loss=None).save(tmp_path / "audit")  # with a picture, so there is a PUT
    hub.fault(*request_, times=FOREVER, **how)
    with pytest.raises(HubError) as failed:
        push_report(tmp_path / "audit", "tester/clip")
    assert not published.discussions and set(published.refs) == {"main"}
    hub.faults.clear()
    resume(str(failed.value))
    assert len(published.discussions) == 1 and "Pull request: http" in capsys.readouterr().out


# Downloads.


def test_a_download_that_breaks_off_goes_on_where_it_was(hub, published, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1000)  # 10 MB, more than this model has
    hub.fault("GET", "/store/", cut_after=5000, reset=False)
    load_model("tester/clip")
    assert hub.waits == [1] and hub.ranges == ["bytes=5000-"]


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"status": 500}, r"HfHubHTTPError.*Run the same command again"),
        ({"cut_after": 0}, r"Run the same command again: finished files are kept"),
    ],
)
def test_a_download_that_fails_can_be_repeated(hub, published, how, said):
    hub.fault("GET", "/store/", times=FOREVER, **how)
    with pytest.raises(CheckpointError, match=rf"(?s)'tester/clip'.*{said}"):
        load_model("tester/clip")
    hub.faults.clear()
    hub.log.clear()
    load_model("tester/clip")
    assert not [path for method, path in hub.log if method == "GET" and path.endswith("tokenizer.json")]


def test_a_full_disk_is_named(hub, published, monkeypatch, tmp_path):
    """Large files are written to a device that is always full, so that it is the system that says so."""
    from pathlib import Path

    real = Path.open

    def open_on_a_full_disk(self, mode="r", *args, **kwargs):
        full = self.name.endswith(".incomplete") and len(self.name) > 64  # named by SHA-256: a large file
        return open("/dev/full", mode) if full else real(self, mode, *args, **kwargs)

    monkeypatch.setattr(Path, "open", open_on_a_full_disk)
    with pytest.raises(CheckpointError, match=r"(?s)No space left on device.*HF_HOME.*same command again"):
        load_model("tester/clip")
    monkeypatch.setattr(Path, "open", real)
    assert not list((tmp_path / "hub-cache").rglob("*.incomplete"))
    load_model("tester/clip")


def test_a_gated_or_absent_model(hub, published):
    with pytest.raises(CheckpointError, match="no such model, or it is private"):
        load_model("tester/absent")
    with pytest.raises(CheckpointError, match="no revision 'v9'"):
        load_model("tester/clip", revision="v9")
    hub.fault("GET", "/api/models/", status=403, times=FOREVER, headers={"X-Error-Code": "GatedRepo"})
    with pytest.raises(CheckpointError, match="gated: ask for access") as refused:
        load_model("tester/clip", revision="main")
    assert isinstance(refused.value.__cause__, errors.GatedRepoError)
