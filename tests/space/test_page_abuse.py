"""The page under misuse: foreign paths, large and broken uploads, many visitors at once."""

from __future__ import annotations

import http.client
import json
import re
import socket
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.space.helpers import MB, SPACE, bomb, noise


def rss_mb(pid):
    return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1]) / 1024


REST = ("", [], False, None, None, None, 5)  # what /probe takes beside the picture


def call(server, name, *data):
    """What the server says to a raw call: the events of its answer as text."""
    body = json.dumps({"data": list(data)}).encode()
    headers = {"content-type": "application/json"}
    request = urllib.request.Request(f"{server.url}/gradio_api/call/{name}", body, headers)
    event = json.load(urllib.request.urlopen(request, timeout=60))["event_id"]
    return urllib.request.urlopen(f"{server.url}/gradio_api/call/{name}/{event}", timeout=60).read().decode()


def status(server, path, data=None, headers=None):
    try:
        with urllib.request.urlopen(
            urllib.request.Request(server.url + path, data, headers or {}), timeout=30
        ) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


@pytest.mark.parametrize("meta", [{}, {"meta": {"_type": "gradio.FileData"}}])
@pytest.mark.parametrize(
    "path", ["/etc/passwd", str(SPACE / "app.py"), "../../../../etc/passwd", "app.py", "/proc/self/environ"]
)
def test_no_path_of_the_server_is_read(server, path, meta):
    said = call(server, "probe", {"path": path, **meta}, *REST)
    assert "event: error" in said
    assert "root:" not in said and "import" not in said and "PATH=" not in said


@pytest.mark.parametrize(
    "path",
    ["/etc/passwd", str(SPACE / "app.py"), "app.py", "../../etc/passwd", "/proc/self/environ", "%2fetc%2fpasswd"],
)
def test_no_path_of_the_server_is_served(server, path):
    for prefix in ("/gradio_api/file=", "/file=", "/static/", "/assets/"):
        code, body = status(server, prefix + path)
        assert code >= 400 and b"root:" not in body and b"gradio as gr" not in body, (prefix, code)


def test_no_address_is_fetched(server):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.settimeout(0.5)
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/x.png"
        said = call(server, "probe", {"path": address, "meta": {"_type": "gradio.FileData"}}, *REST)
        assert "event: error" in said and "addresses are not fetched" in said
        assert status(server, f"/gradio_api/file={address}")[0] == 403
        assert status(server, f"/gradio_api/proxy={address}")[0] == 403
        with pytest.raises(TimeoutError):
            listener.accept()


def multipart(content, name="x.png"):
    head = f'--edge\r\ncontent-disposition: form-data; name="files"; filename="{name}"\r\n\r\n'.encode()
    return head + content + b"\r\n--edge--\r\n", {"content-type": "multipart/form-data; boundary=edge"}


def test_large_uploads_are_refused(server):
    body, headers = multipart(bytes(9 * MB))
    code, said = status(server, "/gradio_api/upload", body, headers)
    assert code == 413 and b"maximum allowed size" in said
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.putrequest("POST", "/gradio_api/upload")
    connection.putheader("content-length", str(65 * MB))
    connection.endheaders()
    assert connection.getresponse().status == 413


def test_bombs_and_broken_files_leave_the_server_as_it_was(server, client, tmp_path):
    from gradio_client import handle_file

    before = rss_mb(server.pid)
    for name, content in {
        "bomb.png": bomb(60_000, 60_000),
        "large.png": bomb(5_001, 5_001),
        "cut.png": bomb(64, 64),
        "text.png": b"hello",
        "drawing.svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(Exception, match=r"pixels|cannot be read as a picture"):
            client.predict(handle_file(str(tmp_path / name)), api_name="/probe")
    assert rss_mb(server.pid) - before < 64


def test_twenty_people_at_once(server, tmp_path):
    """Each with a connection and a large picture of their own; all are answered and memory stays bounded."""
    from gradio_client import Client, handle_file

    paths = []
    for i in range(20):
        Image.fromarray(np.kron(noise(50, 50, seed=i), np.ones((30, 30, 1), np.uint8))).save(tmp_path / f"{i}.png")
        paths.append(str(tmp_path / f"{i}.png"))
    before = rss_mb(server.pid)

    def visit(path):
        client = Client(server.url, verbose=False)
        return [client.predict(handle_file(path), name, api_name="/probe") for name in ("blended", "wanet")]

    with ThreadPoolExecutor(20) as people:
        answers = list(people.map(visit, paths))
    assert all(len(answer["suspect_clean"]) == 5 for both in answers for answer in both)
    assert rss_mb(server.pid) - before < 256
