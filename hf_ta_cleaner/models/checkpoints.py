"""Loads a CLIP from a folder or the Hub without running anything it brings along, and saves it in the ordinary form.

Whatever the source, its files come to one local folder first; safetensors are preferred, a `pytorch_model.bin` is
read with weights-only loading, and code in a repository is never run.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import pickle
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .families import FAMILIES, bound_texts


if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, ProcessorMixin


logger = logging.getLogger(__name__)

SANDBOX = Path(__file__).parents[1] / "sandbox" / "checkpoint"
SAFETENSORS = ("model.safetensors", "model.safetensors.index.json")
PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")
CONFIGS_AND_SAFETENSORS = ["*.json", "*.txt", "*.model", "model.safetensors", "model-*-of-*.safetensors"]
PICKLE_PATTERNS = ["pytorch_model.bin", "pytorch_model-*-of-*.bin"]
RUN_FILES = ("checkpoint-*", *SAFETENSORS, *PICKLES, "config.json", "trainer_state.json", "report.json", "run.json")
RUN_FILES += ("adapter_config.json", "strength.json", "strength-*")  # of LoRA, and of a search for the strength
CONVERSION = {"title": "Adding `safetensors` variant of this model", "author": "SFconvertbot"}


class CheckpointError(ValueError):
    """A checkpoint or output folder that cannot be used; the message says what was got, wanted and what to do."""


def load_model(
    model_id: str | os.PathLike,
    *,
    revision: str | None = None,
    dtype: str | torch.dtype | None = None,
    allow_pickle: bool = False,
) -> tuple[PreTrainedModel, ProcessorMixin]:
    """The model, in eval mode, and its processor (images and text), from a folder, a Hub id or "sandbox".

    Weights are taken from, in this order: safetensors (one file or shards), the Hub's own conversion of the repository
    to safetensors, `pytorch_model.bin` (one file or shards) by weights-only loading, with a warning. `dtype` is
    float32 unless given, whatever the files hold: training needs float32 master weights.

    Args:
        revision: branch, tag or commit of a Hub id.
        allow_pickle: unpickle `.bin` files in full, which runs whatever code their author put in.

    Raises:
        CheckpointError: not found, not allowed, not a CLIP, damaged, incomplete, or asking to run code.
    """
    folder = _resolve(model_id, revision)
    _check_config(folder, model_id)
    _check_processor_files(folder, model_id)
    model = _load_weights(folder, model_id, dtype, allow_pickle)
    model.name_or_path = str(model_id)  # not the folder of the cache it came to
    processor = _load_processor(folder, model_id)
    bound_texts(model, processor.tokenizer)
    _tell_of_resizing(processor.image_processor, model_id)
    return model, processor


def as_float32(model: PreTrainedModel) -> None:
    """Small steps are lost on weights in half precision; `bf16=True` computes in it and keeps them whole."""
    if model.dtype.itemsize < 4:
        logger.warning("the model's weights are %s; to be trained they are turned into float32", model.dtype)
        model.float()


def save_model(model: PreTrainedModel, processor: ProcessorMixin, folder: str | os.PathLike) -> Path:
    """Save a normal checkpoint: safetensors, config, tokenizer, processor. Returns the folder.

    Everything is written beside the folder first and then moved in, so a full disk or a kill leaves the files of an
    earlier save whole.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".saving-") as staging:
        model.save_pretrained(staging)
        processor.save_pretrained(staging)
        # Also on its own, as preprocessor_config.json: transformers 4 and other libraries look for it there.
        processor.image_processor.save_pretrained(staging)
        for file in sorted(Path(staging).iterdir()):
            os.replace(file, folder / file.name)
    return folder


def prepare_output_dir(folder: str | os.PathLike, *, resume: bool = False, overwrite: bool = False) -> Path:
    """Create the folder of a run, or make sure that using an existing one loses nothing. One process calls this.

    A folder with files in it (names with a leading dot aside) is refused, unless it holds an earlier run and either
    `resume` continues it or `overwrite` replaces it: then the old `checkpoint-*` folders are removed, so that none of
    them is taken for the new run's, and everything else stays until it is written anew.

    Raises:
        CheckpointError: the folder holds files and none of the above applies, or it is no folder.
    """
    folder = Path(folder)
    if resume and overwrite:
        raise CheckpointError("Got both resume and overwrite. Wanted at most one: continue the run, or replace it.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        names = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise CheckpointError(
            f"'{folder}' cannot be the output folder: {error}. Give another --output_dir."
        ) from error
    if not names:
        return folder
    listed = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    is_run = any(next(folder.glob(pattern), None) for pattern in RUN_FILES)
    if not is_run:
        raise CheckpointError(
            f"'{folder}' holds files that are not a run's: {listed}. Wanted an empty or new folder. "
            "Give another --output_dir."
        )
    if not (resume or overwrite):
        raise CheckpointError(
            f"'{folder}' already holds a run: {listed}. Nothing was changed. "
            "Continue it with --resume, or give another --output_dir."
        )
    if overwrite:
        for checkpoint in folder.glob("checkpoint-*"):
            shutil.rmtree(checkpoint)
    return folder


def last_checkpoint(folder: str | os.PathLike) -> str | None:
    """The newest whole `checkpoint-N` of a run, or None.

    The state is written last: a folder without it is a save that was cut off.
    """
    whole = [state.parent for state in Path(folder).glob("checkpoint-[0-9]*/trainer_state.json")]
    return str(max(whole, key=lambda path: int(path.name.split("-")[1]))) if whole else None


# Getting the files.


def _resolve(model_id: str | os.PathLike, revision: str | None) -> Path:
    """The local folder that holds the files, downloaded if need be."""
    path = SANDBOX if str(model_id) == "sandbox" else Path(model_id).expanduser()
    if path.is_dir():
        return path
    name = str(model_id)
    if path.exists():
        raise CheckpointError(f"'{name}' is a file. Wanted a folder with config.json, or a Hub id. Give its folder.")
    if name == "sandbox" or path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        raise CheckpointError(f"The folder '{path}' does not exist. Wanted a checkpoint folder or a Hub id.")
    folder = download(name, revision, CONFIGS_AND_SAFETENSORS)
    if _has_any(folder, SAFETENSORS):
        return folder
    conversion = _find_conversion(name, folder) if revision in {None, "main"} else None
    if conversion is not None:
        logger.info("%s: weights from the Hub's conversion to safetensors, %s", name, conversion)
        return download(name, conversion, CONFIGS_AND_SAFETENSORS)
    return download(name, revision, CONFIGS_AND_SAFETENSORS + PICKLE_PATTERNS)


def download(model_id: str, revision: str | None, patterns: list[str]) -> Path:
    """The files at the top of a Hub repository that match, in a local folder of the cache.

    Raises:
        CheckpointError: whatever went wrong, with what to do about it; what was downloaded whole stays in the cache.
    """
    from huggingface_hub import errors, snapshot_download

    try:
        # "*" also matches "/": leave out folders, where other libraries' weights lie.
        return Path(snapshot_download(model_id, revision=revision, allow_patterns=patterns, ignore_patterns="*/*"))
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
    except errors.HFValidationError as error:
        cause, advice = error, "This is not a Hub id: give it as owner/name"
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, ConnectionError) as error:
        cause = error
        advice = (
            "The Hub was not reached and the cache lacks it: check the network, unset HF_HUB_OFFLINE, or give a folder"
        )
    except Exception as error:  # HTTP, transfer and disk errors have no common base
        cause, advice = error, "Run the same command again: finished files are kept"
        if getattr(error, "errno", None) == errno.ENOSPC:
            advice = f"Free some space, or set HF_HOME to a larger disk. {advice}"
    raise CheckpointError(
        f"'{model_id}' is no local folder and cannot be downloaded ({type(cause).__name__}: {cause}). {advice}."
    ) from cause


def _find_conversion(model_id: str, folder: Path) -> str | None:
    """The revision to which the Hub's bot converted the head of this repository, if it did; from the cache if offline.

    Nothing is asked of the conversion service, and a pull request by anyone but the bot is not taken.
    """
    from huggingface_hub import HfApi
    from transformers.safetensors_conversion import previous_pr

    try:
        found = previous_pr(HfApi(), model_id, CONVERSION["title"], token=None)
        return found.git_reference if found is not None and found.author == CONVERSION["author"] else None
    except Exception as error:  # a lookup that fails costs the preferred form, never the model
        logger.info("%s: no conversion to safetensors was found: %s", model_id, error)
    cache = folder.parent.parent  # <cache>/models--owner--name/snapshots/<commit>
    for ref in sorted(cache.glob("refs/refs/pr/*")):
        if _has_any(cache / "snapshots" / ref.read_text().strip(), SAFETENSORS):
            return f"refs/pr/{ref.name}"
    return None


def _has_any(folder: Path, names: tuple[str, ...]) -> bool:
    return any((folder / name).is_file() for name in names)


# Checking and loading them.


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"'{file}' cannot be read: {error}. Wanted JSON. Get the checkpoint again.") from error
    return content if isinstance(content, dict) else {}


def _check_config(folder: Path, model_id: Any) -> None:
    if (folder / "adapter_config.json").is_file():
        raise CheckpointError(f"'{model_id}' is an adapter. Wanted a whole model: merge it into its base model first.")
    if not (folder / "config.json").is_file():
        listed = ", ".join(sorted(entry.name for entry in folder.iterdir())[:8]) or "nothing"
        raise CheckpointError(
            f"'{model_id}' has no config.json; found: {listed}. Wanted a checkpoint in the transformers format. "
            + (
                "It is an open_clip checkpoint: add --from_open_clip."
                if "open_clip" in listed
                else "Give the folder that holds config.json, or convert the checkpoint."
            )
        )
    for file in sorted(folder.glob("*.json")):
        if "config" in file.name and "auto_map" in _read_json(file):
            raise CheckpointError(
                f"'{model_id}' asks to run code of its own ('auto_map' in {file.name}), which is never done. "
                f"Convert it to a plain transformers model ({', '.join(sorted(FAMILIES))})."
            )
    kind = _read_json(folder / "config.json").get("model_type")
    if kind not in FAMILIES:
        raise CheckpointError(
            f"'{model_id}' is a model of type '{kind}'. Wanted one of: {', '.join(sorted(FAMILIES))}. "
            "Give a checkpoint with an image tower and a text tower."
        )


def _check_processor_files(folder: Path, model_id: Any) -> None:
    """Without its files a tokenizer may be built empty, so look for them first."""
    image = ("preprocessor_config.json", "processor_config.json")
    tokenizer = ("tokenizer.json", "vocab.json", "spiece.model")
    for what, names in (("image processor", image), ("tokenizer", tokenizer)):
        if not _has_any(folder, names):
            raise CheckpointError(
                f"'{model_id}' has no {what}; wanted one of: {', '.join(names)}. "
                "Copy it from the model it was made from."
            )


def _load_processor(folder: Path, model_id: Any) -> ProcessorMixin:
    from transformers import AutoProcessor

    try:
        processor = AutoProcessor.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # each tokenizer and image processor class has errors of its own
        raise CheckpointError(
            f"The processor of '{model_id}' cannot be loaded: {type(error).__name__}: {error}. "
            "Copy its tokenizer and preprocessor files from the model it was made from."
        ) from error
    absent = [name for name in ("tokenizer", "image_processor") if not hasattr(processor, name)]
    if absent:
        raise CheckpointError(
            f"'{model_id}' gives a {type(processor).__name__} without {' and '.join(absent)}. "
            "Copy its tokenizer and preprocessor files from the model it was made from."
        )
    return processor


def _tell_of_resizing(image_processor: Any, model_id: Any) -> None:
    """Says where pictures are fitted (`pictures.fit`) otherwise than the processor would do it."""
    from PIL.Image import Resampling

    size, crop = (dict(getattr(image_processor, name, None) or {}) for name in ("size", "crop_size"))
    short, side = size.get("shortest_edge"), crop.get("height")
    if getattr(image_processor, "do_center_crop", False) and short and side and short != side:
        logger.warning(
            "%s scales the short side to %d pixels and cuts %d out of the middle; here it is scaled to %d at once, so "
            "that a little more of the margin shows", model_id, short, side, side,
        )  # fmt: skip
    kind = getattr(image_processor, "resample", None)
    if kind is not None and int(kind) != Resampling.BICUBIC:
        logger.warning("%s resizes pictures %s; here it is done bicubic", model_id, Resampling(kind).name.lower())


def _load_weights(folder: Path, model_id: Any, dtype: str | torch.dtype | None, allow_pickle: bool) -> PreTrainedModel:
    import torch
    from transformers import AutoConfig, AutoModel

    is_safe = _has_any(folder, SAFETENSORS)
    _check_weight_files(folder, model_id, is_safe)
    if not is_safe:
        how = "unpickled in full, as --allow_pickle says" if allow_pickle else "loaded as weights only"
        logger.warning("%s has no safetensors: its .bin files are %s.", model_id, how)
    options = {"dtype": torch.float32 if dtype is None else dtype, "output_loading_info": True}
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, return_dict=True)
        config._attn_implementation = "sdpa"  # not what the files ask for: their kernel may not be here
        if allow_pickle and not is_safe:
            # Read here: `from_pretrained` loads files as weights only, whatever its `weights_only` says.
            kind = type(AutoModel.from_config(config))
            model, loading = kind.from_pretrained(None, config=config, state_dict=_unpickle(folder), **options)
        else:
            options |= {"use_safetensors": is_safe, "weights_only": True, "trust_remote_code": False}
            model, loading = AutoModel.from_pretrained(folder, config=config, **options)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"The .bin weights of '{model_id}' are damaged, or hold more than weights and would run code when opened. "
            "They were not opened. Look for a safetensors version; only if you trust their author, --allow_pickle."
        ) from error
    except Exception as error:  # damaged files and wrong shapes raise whatever their reader does
        raise CheckpointError(
            f"The weights of '{model_id}' cannot be loaded: {type(error).__name__}: {error}. "
            "The files are damaged or belong to another config. Get the checkpoint again."
        ) from error
    if loading["missing_keys"]:
        some = ", ".join(sorted(loading["missing_keys"])[:3])
        raise CheckpointError(
            f"The weights of '{model_id}' lack {len(loading['missing_keys'])} of the model's tensors ({some}, ...). "
            f"Wanted a whole {type(model).__name__}, both towers. Give the checkpoint it was made from."
        )
    return model


def _unpickle(folder: Path) -> dict[str, torch.Tensor]:
    """Every tensor of the `.bin` files, unpickled in full: this runs whatever code they hold."""
    import torch

    files = sorted(file for pattern in PICKLE_PATTERNS for file in folder.glob(pattern))
    return {
        name: tensor
        for file in files
        for name, tensor in torch.load(file, map_location="cpu", weights_only=False).items()
    }


def _check_weight_files(folder: Path, model_id: Any, is_safe: bool) -> None:
    single, index = SAFETENSORS if is_safe else PICKLES
    if (folder / single).is_file():
        return
    if not (folder / index).is_file():
        listed = ", ".join(sorted(entry.name for entry in folder.iterdir()))
        raise CheckpointError(
            f"'{model_id}' has no weights; found: {listed}. Wanted {SAFETENSORS[0]} or {PICKLES[0]}, "
            "whole or in shards. Get the checkpoint again."
        )
    shards = set(_read_json(folder / index).get("weight_map", {}).values())
    absent = sorted(shard for shard in shards if not (folder / shard).is_file())
    if absent:
        raise CheckpointError(
            f"'{model_id}' lacks {len(absent)} of {len(shards)} shards: {', '.join(absent[:5])}. "
            "Get the checkpoint again."
        )
