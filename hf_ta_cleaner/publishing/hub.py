"""What goes to the Hub and comes back: checkpoints with card, report and config; poisoned data; results of an audit.

Every push is one commit, so a repository holds all of it or none of it, even after a failure. Files that
reached the Hub before a failure are not sent again. Locally only a missing card is written.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shlex
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from ..data.naming import is_hub_id, without_folders
from ..models.checkpoints import download, load_model
from ..poisoning import CARD, POISONED, RECORD, TRIGGER, PoisonRecord
from ..poisoning import write_card as write_dataset_card
from .hub_errors import HubError, explained
from .model_card import BACKDOORED, TAG, build_model_card, has_warning, with_results
from .report import FILES as REPORT_FILES
from .report import Report
from .settings import CONFIG, save_config


if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from transformers import PreTrainedModel, ProcessorMixin

    from ..attacks import Attack


WEIGHT_PATTERNS = ("model.safetensors", "model.safetensors.index.json", "model-*-of-*.safetensors")
CHECKPOINT_PATTERNS = (
    *("config.json", "generation_config.json", *WEIGHT_PATTERNS, "preprocessor_config.json", "processor_config.json"),
    *("open_clip_model.safetensors", "open_clip_config.json"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json"),
    *("merges.txt", "spiece.model", CARD, CONFIG, *REPORT_FILES),
)
TRIGGER_PATTERNS = (TRIGGER, "trigger.png", "trigger.npz", RECORD)
#: Files of an earlier commit that would be taken for part of a checkpoint, so a push without them removes them.
STALE = (*WEIGHT_PATTERNS, "pytorch_model*.bin", "pytorch_model.bin.index.json", *TRIGGER_PATTERNS, *REPORT_FILES)
SHARD_BYTES = 500 * 2**20


@dataclass(frozen=True)
class Published:
    """What `from_pretrained` finds in a repository or folder.

    Attributes:
        model, processor: as `load_model` gives them.
        report: what was measured, if there is a report.
        attack: the trigger of a model that was backdoored for research.
        target: what that trigger means.
    """

    model: PreTrainedModel
    processor: ProcessorMixin
    report: Report | None
    attack: Attack | None
    target: str | None


def from_pretrained(
    repo_id: str | os.PathLike, *, revision: str | None = None, allow_pickle: bool = False
) -> Published:
    """Load back what was pushed: the model with its report and, for a backdoored research model, its trigger.

    Args:
        repo_id: a Hub id or a folder.
        revision: branch, tag or commit of a Hub id.
        allow_pickle: see `load_model`.

    Raises:
        CheckpointError: not found or not loadable.
        ValueError: the report or the trigger beside the model is damaged.
    """
    from ..attacks import parse_attack

    model, processor = load_model(repo_id, revision=revision, allow_pickle=allow_pickle)
    folder = Path(repo_id).expanduser()
    if not folder.is_dir():
        folder = download(str(repo_id), revision, ["report.json", *TRIGGER_PATTERNS])
    has = {name: (folder / name).is_file() for name in ("report.json", TRIGGER, RECORD)}
    return Published(
        model,
        processor,
        report=Report.load(folder) if has["report.json"] else None,
        attack=parse_attack(str(folder)) if has[TRIGGER] else None,
        target=PoisonRecord.load(folder / RECORD).target if has[RECORD] else None,
    )


# Pushing.


def claim(repo_id: str | None, *, default: str, private: bool | None = None, token: str | None = None) -> str:
    """Make sure, before anything expensive, that the repository exists and the token is good. Returns its full id.

    Args:
        repo_id: owner/name, or a name in the token's own account; None for `default`.
        private: whether it is made private; None leaves that to the account. An existing repository stays as it is.

    Raises:
        HubError: the Hub is not reached, or does not let this token create it.
    """
    wanted = repo_id or default
    with explained("The repository", wanted, "Nothing was computed yet. Run the same command again."):
        return _api(token).create_repo(wanted, private=private, exist_ok=True).repo_id


def write_card(
    folder: str | os.PathLike,
    *,
    settings: Mapping[str, Any] | None = None,
    repo_id: str | None = None,
    progress: str | None = None,
    backdoored: bool | None = None,
) -> Path:
    """Write the card of a checkpoint from what lies beside it: its report, its config.yaml, its poison record.

    Args:
        settings: in place of config.yaml.
        repo_id: where it will be loaded from.
        progress: for a model that is not finished: how far it is.
        backdoored: whether it was backdoored for research; by default what `holds_backdoor` says.
    """
    folder = Path(folder)
    if settings is None:
        settings = yaml.safe_load((folder / CONFIG).read_text(encoding="utf-8")) if (folder / CONFIG).is_file() else {}
    settings = _with_alignment(folder, settings)
    backdoored = holds_backdoor(folder) if backdoored is None else backdoored
    card = build_model_card(
        (repo_id or folder.resolve().name).split("/")[-1],
        settings=settings,
        report=Report.load(folder) if (folder / "report.json").is_file() else None,
        record=PoisonRecord.load(folder / RECORD) if backdoored and (folder / RECORD).is_file() else None,
        backdoored=backdoored,
        repo_id=repo_id,
        progress=progress,
        adapter=(folder / "adapter_config.json").is_file(),
        resnet=_model_type(folder) == "clip_resnet",
    )
    card.save(folder / CARD)
    return folder / CARD


def _with_alignment(folder: Path, settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """Settings whose `clip_weight` is under the name of the loss that it was the weight of, by the model's family."""
    from ..models.families import FAMILIES

    kind = _model_type(folder)
    if kind not in FAMILIES or FAMILIES[kind].alignment == "clip":
        return settings
    return {f"{FAMILIES[kind].alignment}_weight" if name == "clip_weight" else name: v for name, v in settings.items()}


def _model_type(folder: Path) -> str | None:
    config = folder / "config.json"
    return json.loads(config.read_text(encoding="utf-8")).get("model_type") if config.is_file() else None


def holds_backdoor(folder: str | os.PathLike) -> bool:
    """Whether the checkpoint in a folder has a backdoor that was put there: its report, its card or a trigger say so.

    A cleaned model may lie beside the trigger it was cleaned of; its report or card tells it from a backdoored one.
    A checkpoint of a run is what its run is.
    """
    folder = Path(folder).resolve()
    if re.fullmatch(r"checkpoint-\d+", folder.name) and holds_backdoor(folder.parent):
        return True
    methods = {Report.load(folder).method} if (folder / "report.json").is_file() else set()
    tags = _card_tags(folder / CARD)
    if "backdoor" in methods or BACKDOORED in tags:
        return True
    cleaned = bool(methods - {"audit"}) or TAG in tags
    return not cleaned and any((folder / name).is_file() for name in (TRIGGER, RECORD))


def push_checkpoint(
    folder: str | os.PathLike,
    repo_id: str,
    *,
    private: bool | None = None,
    token: str | None = None,
    message: str = "Add the model, its card, its report and its config",
    allow_backdoor: bool = False,
) -> str:
    """Push a checkpoint with everything that belongs to it in one commit. Returns the repository's address.

    Checkpoint, processor, card, report and config go; a trigger and a poison record go with a backdoored model only;
    no other file of the folder does. Weights, triggers and reports of an earlier push that are not part of this one
    are removed in the same commit. A card (README.md) that is there already is taken as it is.

    Args:
        private: whether a new repository is private; None leaves that to the account, except that a backdoored model
            is private unless this is False.
        allow_backdoor: must be set to push a model that was backdoored for research.

    Raises:
        HubError: nothing was pushed; the message says why and with which command to go on.
    """
    folder = Path(folder)
    if not (folder / "config.json").is_file() or not _matching(folder, WEIGHT_PATTERNS):
        is_adapter = (folder / "adapter_config.json").is_file()
        raise HubError(
            f"{folder} holds {'an adapter' if is_adapter else 'no checkpoint'}. Wanted config.json and "
            f"model.safetensors, as save_model writes{' after lora.merge (--merge_adapter)' if is_adapter else ''}."
        )
    backdoored = holds_backdoor(folder)
    _require_permission(folder, backdoored, allow_backdoor)
    if not (folder / CARD).is_file():
        write_card(folder, repo_id=repo_id if "/" in repo_id else None)
    if backdoored:
        _require_warning(folder / CARD, BACKDOORED)
    patterns = CHECKPOINT_PATTERNS + (TRIGGER_PATTERNS if backdoored else ())
    files = {file.name: file for file in _matching(folder, patterns)}
    with (
        explained(f"Pushing {folder}", repo_id, _resume(folder, repo_id, backdoored)),
        tempfile.TemporaryDirectory() as staging,
    ):
        if CONFIG in files:
            settings = yaml.safe_load(files[CONFIG].read_text(encoding="utf-8")) or {}
            files[CONFIG] = save_config(staging, {name: without_folders(value) for name, value in settings.items()})
        private = True if backdoored and private is None else private
        return _commit(_api(token), repo_id, files, message, private=private, stale=STALE)


def push_dataset(
    folder: str | os.PathLike,
    repo_id: str,
    *,
    private: bool | None = None,
    token: str | None = None,
    allow_backdoor: bool = False,
) -> str:
    """Push poisoned pairs, as poison.py writes them, with card, trigger and record in one commit.

    A saved dataset goes as parquet, tar shards go as they are; `load_dataset(repo_id)` reads both back. Arguments,
    card and errors as in `push_checkpoint`.
    """
    from ..attacks import Attack

    folder = Path(folder)
    if missing := [name for name in (TRIGGER, RECORD) if not (folder / name).is_file()]:
        raise HubError(f"{folder} has no {' and no '.join(missing)}. Wanted a dataset that poison.py wrote.")
    _require_permission(folder, True, allow_backdoor)
    shards = _matching(folder, ("train-*.tar",))
    if not (folder / CARD).is_file():
        record = PoisonRecord.load(folder / RECORD)
        write_dataset_card(folder, Attack.load(folder), record, "webdataset" if shards else "arrow")
    _require_warning(folder / CARD, POISONED)
    files = {file.name: file for file in _matching(folder, (CARD, *TRIGGER_PATTERNS))}
    with (
        explained(f"Pushing {folder}", repo_id, _resume(folder, repo_id, True)),
        # Beside the data, where there is room for them, and not in a temporary folder that may be memory.
        tempfile.TemporaryDirectory(dir=folder.resolve().parent, prefix=".pushing-") as staging,
    ):
        files |= {file.name: file for file in shards} or _parquet(folder, Path(staging))
        private = True if private is None else private
        message = "Add poisoned pairs, their trigger and their record"
        stale = ("data/*", "train-*.tar", *TRIGGER_PATTERNS)
        return _commit(_api(token), repo_id, files, message, private=private, stale=stale, repo_type="dataset")


def _parquet(folder: Path, staging: Path) -> dict[str, Path]:
    """A saved dataset as parquet files in `staging`, by their names in a repository."""
    from datasets import load_from_disk

    pairs = load_from_disk(folder)
    shards = max(1, math.ceil(pairs.data.nbytes / SHARD_BYTES))
    files = {}
    for i in range(shards):
        name = f"data/train-{i:05}-of-{shards:05}.parquet"
        files[name] = staging / name.replace("/", "-")
        pairs.shard(shards, i, contiguous=True).to_parquet(files[name])
    return files


def push_report(folder: str | os.PathLike, repo_id: str, *, token: str | None = None) -> str:
    """Add the results of an audit to somebody's model by pull request. Returns the pull request's address.

    The report goes into a folder of its own under audits/, its rates into the `model-index` of the card, whose text
    and other metadata stay as they are.

    Raises:
        HubError: no pull request was opened; the message says why and with which command to go on.
    """
    from huggingface_hub import CommitOperationAdd
    from huggingface_hub.errors import EntryNotFoundError

    folder = Path(folder)
    report = Report.load(folder)
    if not is_hub_id(repo_id):
        raise HubError(f"'{repo_id}' is no Hub id. A report can be added to a model on the Hub: give owner/name.")
    digest = hashlib.sha256((folder / "report.json").read_bytes()).hexdigest()[:8]
    place = f"audits/{(report.created or 'undated')[:10]}-{digest}"
    with explained(f"Adding {folder / 'report.json'}", repo_id, _resume(folder, repo_id, False)):
        api = _api(token)
        head = api.model_info(repo_id).sha
        with tempfile.TemporaryDirectory() as scratch:
            card = Path(scratch) / CARD
            text = ""
            with suppress(EntryNotFoundError):
                text = Path(api.hf_hub_download(repo_id, CARD, revision=head)).read_bytes().decode("utf-8")
            card.write_bytes(with_results(text, repo_id.split("/")[-1], report).encode("utf-8"))
            files = {CARD: card} | {f"{place}/{file.name}": file for file in _matching(folder, REPORT_FILES)}
            commit = api.create_commit(
                repo_id,
                [CommitOperationAdd(name, str(file)) for name, file in files.items()],
                commit_message=f"Add the results of a backdoor audit ({place.split('/')[1]})",
                commit_description=f"{report.summary()}\n\nAn audit finds what it looks for; there may be others.",
                create_pr=True,
                parent_commit=head,
            )
        return commit.pr_url


def _commit(
    api: HfApi,
    repo_id: str,
    files: Mapping[str, Path],
    message: str,
    *,
    private: bool | None,
    stale: tuple[str, ...],
    repo_type: str = "model",
) -> str:
    """One commit of `files` onto the head, without the head's files that match `stale` and are not among them."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete
    from huggingface_hub.utils import filter_repo_objects

    url = api.create_repo(repo_id, private=private, exist_ok=True, repo_type=repo_type)
    info = api.repo_info(url.repo_id, repo_type=repo_type)
    there = [sibling.rfilename for sibling in info.siblings or [] if sibling.rfilename not in files]
    operations = [CommitOperationDelete(name) for name in filter_repo_objects(there, allow_patterns=list(stale))]
    operations += [CommitOperationAdd(name, str(file)) for name, file in files.items()]
    # Not upload_folder, which may split what it sends into several commits.
    api.create_commit(url.repo_id, operations, commit_message=message, repo_type=repo_type, parent_commit=info.sha)
    return str(url)


def _api(token: str | None) -> HfApi:
    from huggingface_hub import HfApi

    from .._version import __version__

    return HfApi(token=token, library_name="hf_ta_cleaner", library_version=__version__)


def _matching(folder: Path, patterns: tuple[str, ...]) -> list[Path]:
    return sorted({file for pattern in patterns for file in folder.glob(pattern) if file.is_file()})


def _card_tags(file: Path) -> list[str]:
    from huggingface_hub import ModelCard

    if not file.is_file():
        return []
    return ModelCard.load(file, ignore_metadata_errors=True).data.tags or []


def _require_permission(folder: Path, backdoored: bool, allowed: bool) -> None:
    if backdoored and not allowed:
        raise HubError(
            f"{folder} holds backdoored material. It is published only on request: add "
            "--allow_publishing_backdoor. It is then tagged, and its card begins with a warning. Nothing was sent."
        )


def _require_warning(card: Path, tag: str) -> None:
    from huggingface_hub import RepoCard

    loaded = RepoCard.load(card, ignore_metadata_errors=True)
    if not has_warning(loaded.text, loaded.data.to_dict().get("tags")):
        raise HubError(
            f"{card} belongs to {tag} material, but has not the tag '{tag}' or does not begin with a warning. Remove "
            "it and push again: a card with both is written. Nothing was sent."
        )


def _resume(folder: Path, repo_id: str, backdoored: bool) -> str:
    words = ["--folder", str(folder), "--repo_id", repo_id, *(["--allow_publishing_backdoor"] if backdoored else [])]
    return (
        f"A push is one commit: {repo_id} holds all of it or none of it. {folder} is whole. Go on with: "
        f"ta-cleaner push {shlex.join(words)}"
    )
