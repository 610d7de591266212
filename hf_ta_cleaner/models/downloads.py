"""Brings files of the Hub to this machine, and says what to do when that fails."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class CheckpointError(ValueError):
    """A checkpoint or output folder that cannot be used; the message says what was got, wanted and what to do."""


def download(model_id: str, revision: str | None, patterns: list[str]) -> Path:
    """The files at the top of a Hub repository that match, in a local folder of the cache.

    Raises:
        CheckpointError: Whatever went wrong, with what to do about it; what was downloaded whole stays in the cache.
    """
    from huggingface_hub import snapshot_download

    with _explained(model_id, revision):
        # "*" also matches "/": leave out folders, where other libraries' weights lie.
        return Path(snapshot_download(model_id, revision=revision, allow_patterns=patterns, ignore_patterns="*/*"))


def download_file(model_id: str, file: str, revision: str | None) -> Path:
    """One file of a Hub repository, by its path there, in the cache.

    Raises:
        CheckpointError: Whatever went wrong, with what to do about it.
    """
    from huggingface_hub import hf_hub_download

    with _explained(model_id, revision):
        return Path(hf_hub_download(model_id, file, revision=revision))


@contextmanager
def _explained(model_id: str, revision: str | None) -> Iterator[None]:
    """Turns every error of a download into a `CheckpointError` that says what to do."""
    from huggingface_hub import errors

    try:
        yield
        return
    except errors.GatedRepoError as error:
        cause, advice = (
            error,
            f"It is gated: ask for access at https://huggingface.co/{model_id}, then `hf auth login`",
        )
    except errors.RepositoryNotFoundError as error:
        cause, advice = (
            error,
            "The Hub has no such model, or it is private: check the spelling, or run `hf auth login`",
        )
    except errors.RevisionNotFoundError as error:
        cause, advice = error, f"It has no revision '{revision}': choose a branch, tag or commit of it"
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, ConnectionError) as error:
        cause = error
        advice = (
            "The Hub was not reached and the cache lacks it: check the network, unset HF_HUB_OFFLINE, or give a folder"
        )
    except errors.EntryNotFoundError as error:
        cause, advice = error, "The repository has no such file: check its path"
    except errors.HFValidationError as error:
        cause, advice = error, "This is not a Hub id: give it as owner/name"
    except Exception as error:  # HTTP, transfer and disk errors have no common base
        cause, advice = error, "Run the same command again: finished files are kept"
        if getattr(error, "errno", None) == errno.ENOSPC:
            advice = f"Free some space, or set HF_HOME to a larger disk. {advice}"
    raise CheckpointError(
        f"'{model_id}' is no local folder and cannot be downloaded ({type(cause).__name__}: {cause}). {advice}."
    ) from cause
