"""The pair of models and the running page that the tests of the Space share."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from types import SimpleNamespace

import numpy as np
import pytest

from hf_ta_cleaner import get_attack, sandbox
from tests.space.helpers import ROOT, SHIPPED, SPACE, record


@pytest.fixture(scope="package")
def suspect(tmp_path_factory):
    """A copy of the sandbox's checkpoint with a trigger beside it; nothing was poisoned."""
    folder = tmp_path_factory.mktemp("models") / "suspect"
    shutil.copytree(sandbox.CHECKPOINT, folder)
    get_attack("blended", alpha=0.25).save(folder)
    record().save(folder / "poison.json")
    return folder


@pytest.fixture(scope="package")
def pair(suspect):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MODEL_ROOTS", str(suspect.parent))
        import probe  # after helpers.py has put the folder of the Space on the path

        return probe.load_pair(str(suspect), "sandbox")


@pytest.fixture(scope="package")
def picture():
    return np.array(sandbox.labelled_scene(5).draw())


@pytest.fixture(scope="package")
def server(tmp_path_factory):
    """A running Space: `url`, `port`, `pid`, and `uploads`, the folder its temporary files go to."""
    pytest.importorskip("gradio")
    folder = tmp_path_factory.mktemp("space")
    temporary = folder / "tmp"
    temporary.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = {name: value for name, value in os.environ.items() if name not in ("SUSPECT_MODEL", "CLEANED_MODEL")}
    env |= {"GRADIO_SERVER_PORT": str(port), "TMPDIR": str(temporary), "HF_HUB_OFFLINE": "1"}
    env |= {"PYTHONPATH": str(ROOT), "OMP_WAIT_POLICY": "PASSIVE", "MODEL_ROOTS": str(folder / "models")}
    env.pop("GRADIO_TEMP_DIR", None)
    if not SHIPPED:
        suspect = folder / "models" / "suspect"
        shutil.copytree(sandbox.CHECKPOINT, suspect)
        get_attack("blended").save(suspect)
        record().save(suspect / "poison.json")
        env |= {"SUSPECT_MODEL": str(suspect), "CLEANED_MODEL": "sandbox"}
    log = (folder / "log").open("wb")
    process = subprocess.Popen([sys.executable, str(SPACE / "app.py")], env=env, cwd=folder, stdout=log, stderr=log)
    running = SimpleNamespace(url=f"http://127.0.0.1:{port}", port=port, pid=process.pid, temporary=temporary)
    try:
        until = time.monotonic() + 300
        while True:
            try:
                urllib.request.urlopen(running.url, timeout=2).close()
                break
            except OSError:
                assert process.poll() is None and time.monotonic() < until, (folder / "log").read_text()
                time.sleep(0.2)
        yield running
        # Whatever was done to it, it is still there, and takes its files along when it goes.
        assert process.poll() is None, (folder / "log").read_text()
        (uploads,) = temporary.glob("ta-cleaner-space-*")
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 0
        assert not uploads.exists()
        assert not list(temporary.glob("cleaning-*"))
        # gradio says in its log what it refuses; no code of ours may have failed.
        text = (folder / "log").read_text()
        assert f'File "{SPACE}' not in text, text
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="package")
def client(server):
    from gradio_client import Client

    return Client(server.url, verbose=False)


@pytest.fixture
def picture_file(tmp_path):
    sandbox.labelled_scene(5).draw().save(tmp_path / "picture.png")
    return str(tmp_path / "picture.png")
