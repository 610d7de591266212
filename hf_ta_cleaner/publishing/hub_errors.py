"""Why a transfer to the Hub failed, in words that say what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class HubError(OSError):
    """A push that did not happen; the message says why, what state everything is in, and how to go on."""


@contextmanager
def explained(what: str, repo_id: str, then: str) -> Iterator[None]:
    """Turn every error of a transfer into one HubError: what failed, why, and what to do."""
    try:
        yield
    except HubError:
        raise
    except Exception as error:  # HTTP, transfer, disk and validation errors have no common base
        raise HubError(f"{what} failed ({repo_id}): {_reason(error)} {then}") from error


def _reason(error: BaseException) -> str:
    """The innermost cause that says something, as a sentence with the remedy."""
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled

    chain = [error]
    while (inner := chain[-1].__cause__) is not None:
        chain.append(inner)
    for cause in chain:
        if isinstance(cause, HfHubHTTPError):
            return _http_reason(cause)
        if isinstance(cause, LocalTokenNotFoundError):
            return "there is no token: run `hf auth login`, or set HF_TOKEN."
        if isinstance(cause, OfflineModeIsEnabled):
            return "the Hub is switched off: unset HF_HUB_OFFLINE."
        if isinstance(cause, ConnectionError) or type(cause).__module__.startswith("http"):
            return f"the connection failed ({type(cause).__name__}: {cause})."
    return f"{type(error).__name__}: {error}."


def _http_reason(error: Any) -> str:
    status, lines = error.response.status_code, dict.fromkeys((error.server_message or "").split("\n"))
    answer = ", ".join([str(status), *filter(None, map(str.strip, lines))])
    if status == 401:
        return f"the token is missing or not valid ({answer}): run `hf auth login`, or set HF_TOKEN."
    if status == 403:
        return f"the token may not do this ({answer}): use one with write access there, or a repository of your own."
    if status in (409, 412):
        return f"somebody else changed the repository meanwhile ({answer})."
    if status == 429:
        wait = error.response.headers.get("Retry-After")
        return f"too many requests ({answer}): wait {f'{wait} seconds' if wait else 'a few minutes'}."
    if status >= 500:
        return f"the Hub had an error of its own ({answer})."
    return f"the Hub refused ({answer})."
