"""The gate in front of the page: large requests and foreign addresses are refused."""

from __future__ import annotations

import asyncio

import pytest
from gate import Gate


def request(path="/", headers=(), chunks=(b"",)):
    """Status and body of one request through the gate, before an app that reads everything."""
    sent, queue = (
        [],
        [{"type": "http.request", "body": c, "more_body": i < len(chunks) - 1} for i, c in enumerate(chunks)],
    )

    async def receive():
        return queue.pop(0)

    async def send(message):
        sent.append(message)

    async def app(scope, receive, send):
        total = 0
        while (message := await receive())["type"] == "http.request":
            total += len(message["body"])
            if not message["more_body"]:
                break
        status = 200 if message["type"] == "http.request" else 400
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": str(total).encode()})

    scope = {"type": "http", "path": path, "headers": list(headers)}
    asyncio.run(Gate(app)(scope, receive, send))
    return sent[0]["status"], sent[1]["body"]


def test_the_gate_lets_requests_through_and_large_ones_not():
    assert request(chunks=[b"ab", b"c"]) == (200, b"3")
    assert request(headers=[(b"content-length", b"67108864")])[0] == 200
    assert request(headers=[(b"content-length", b"67108865")])[0] == 413
    assert request(headers=[(b"content-length", b"-1")])[0] == 413
    assert request(chunks=[bytes(2**25)] * 3)[0] == 400  # without a length: cut off, never kept


@pytest.mark.parametrize(
    "path",
    ["/gradio_api/file=http://x/y", "/gradio_api/file=HTTPS://x", "/gradio_api/file=%68ttp://x", "/x/proxy=http://x"],
)
def test_the_gate_fetches_nothing(path):
    assert request(path)[0] == 403
    assert request("/gradio_api/file=/tmp/a.png")[0] == 200
