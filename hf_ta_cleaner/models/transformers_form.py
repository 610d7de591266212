"""Finds, checks and loads a checkpoint in the form of transformers. Its code, if it brings any, is never run."""

from __future__ import annotations

import json
import logging
import os
import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .downloads import CheckpointError, download
from .families import FAMILIES


if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, ProcessorMixin


logger = logging.getLogger(__name__)

SAFETENSORS = ("model.safetensors", "model.safetensors.index.json")
PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")
CONFIGS_AND_SAFETENSORS = ["*.json", "*.txt", "*.model", "model.safetensors", "model-*-of-*.safetensors"]
PICKLE_PATTERNS = ["pytorch_model.bin", "pytorch_model-*-of-*.bin"]
CONVERSION = {"title": "Adding `safetensors` variant of this model", "author": "SFconvertbot"}


# Getting the files.


def find(name: str, revision: str | None) -> Path:
    """The local folder with the files of a Hub repository.

    Raises:
        CheckpointError: They cannot be downloaded.
    """
    folder = download(name, revision, CONFIGS_AND_SAFETENSORS)
    if _has_any(folder, SAFETENSORS):
        return folder
    conversion = _find_conversion(name, folder) if revision in {None, "main"} else None
    if conversion is not None:
        logger.info("%s: weights from the Hub's conversion to safetensors, %s", name, conversion)
        return download(name, conversion, CONFIGS_AND_SAFETENSORS)
    return download(name, revision, CONFIGS_AND_SAFETENSORS + PICKLE_PATTERNS)


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


def load(
    folder: Path, model_id: str | os.PathLike, dtype: str | torch.dtype | None, allow_pickle: bool
) -> tuple[PreTrainedModel, ProcessorMixin]:
    """The model and its processor from a folder; `model_id` is what the user calls it.

    Raises:
        CheckpointError: Not a CLIP, damaged, incomplete, not allowed, or asking to run code.
    """
    _check_config(folder, model_id)
    _check_processor_files(folder, model_id)
    model = _load_weights(folder, model_id, dtype, allow_pickle)
    model.name_or_path = str(model_id)  # not the folder of the cache it came to
    return model, _load_processor(folder, model_id)


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
            "Give the folder that holds config.json, or the weights file itself (.pt, .safetensors)."
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


def tell_of_resizing(image_processor: Any, model_id: Any) -> None:
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

    from . import resnet  # noqa: F401 (registers its model type)

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
