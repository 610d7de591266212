"""What may come in: requests up to a size, and pictures as uploads only, never as addresses to fetch."""

from __future__ import annotations

from urllib.parse import unquote


MAX_BODY_MB = 64


class Gate:
    """ASGI middleware in front of gradio.

    A body over 64 MB is refused before it is read or, where it comes without its length, cut off. gradio's endpoint
    for files would also fetch any public address for anyone; that is closed.
    """

    def __init__(self, app) -> None:
        self.app = app

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        path = unquote(scope["path"]).lower()
        if "/file=http" in path or "/proxy=" in path:
            return await _refuse(send, 403, b"Addresses are not fetched.")
        limit, length = MAX_BODY_MB * 2**20, dict(scope["headers"]).get(b"content-length", b"0")
        if not length.isdigit() or int(length) > limit:
            return await _refuse(send, 413, f"At most {MAX_BODY_MB} MB at once.".encode())
        taken = 0

        async def counted():
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            return message if taken <= limit else {"type": "http.disconnect"}

        await self.app(scope, counted, send)


async def _refuse(send, status: int, text: bytes) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(text)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text})


def refuse_addresses() -> None:
    """Inputs of any kind may name an address, which gradio would download whole, without a limit: never do."""
    import gradio as gr
    from gradio import processing_utils

    async def refuse(url: str, cache_dir: str) -> str:
        raise gr.Error("Pictures come as uploaded files; addresses are not fetched.", print_exception=False)

    processing_utils.async_ssrf_protected_download = refuse
