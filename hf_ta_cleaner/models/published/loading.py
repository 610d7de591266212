"""Loads a model in a published form: open_clip's, CleanCLIP's and OpenAI's files."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..downloads import CheckpointError, download
from ..families import FAMILIES
from .archives import read_weights
from .configs import CONFIG, NORMALIZATIONS, read_config, to_transformers_config
from .form import Form, unwrap
from .layout import is_resnet, to_transformers


if TYPE_CHECKING:
    import torch
    from transformers import CLIPProcessor, PreTrainedConfig, PreTrainedModel


logger = logging.getLogger(__name__)

SAFETENSORS = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors")
PICKLES = ("open_clip_pytorch_model.bin",)
TOKENIZER_FILES = ["tokenizer*.json", "vocab.json", "merges.txt", "special_tokens_map.json"]
TOKENIZER = "openai/clip-vit-base-patch32"
"""Where the tokenizer comes from when a checkpoint brings none: open_clip's own is that of all OpenAI CLIPs."""


def load_published(
    source: Path,
    *,
    name: str,
    allow_pickle: bool = False,
    activation: str | None = None,
    normalization: str | None = None,
) -> tuple[PreTrainedModel, CLIPProcessor, Form]:
    """The model, float32 and in eval mode, its processor, and the form that it came in.

    Args:
        source: A weights file, or a folder with `open_clip_config.json` and weights.
        name: What the user calls it.
        allow_pickle: Unpickle the weights in full, which runs whatever code their author put in.
        activation: `gelu` or `quick_gelu`, in place of what the form says or what is assumed.
        normalization: One of `NORMALIZATIONS`, in place of what the form says or what is assumed.

    Raises:
        CheckpointError: Not found, neither ResNet nor plain ViT, an activation that nothing tells, or not allowed.
    """
    file = source if source.is_file() else _weights_in(source, name)
    folder = file.parent
    state, form = unwrap(read_weights(file, allow_pickle=allow_pickle), file.name)
    says_all = (folder / CONFIG).is_file()
    settings = read_config(folder, state, activation)
    model = _model(to_transformers_config(settings["model_cfg"], state, folder), state, file)
    preprocess = dict(settings.get("preprocess_cfg") or {})
    if normalization is not None:
        preprocess["mean"], preprocess["std"] = NORMALIZATIONS[normalization]
    processor = _processor(folder, preprocess, model.config)
    model.name_or_path = name
    given = {"activation": activation, "normalization": normalization}
    assumed = () if says_all else tuple(what for what, value in given.items() if value is None)
    if "clip_backdoor_" in name and normalization is None:
        logger.warning(
            "%s seems to be one of Huang et al. (2025), which were trained without normalization, whatever their "
            "config says; add --normalization none", name,
        )  # fmt: skip
        assumed = (*assumed, "normalization") if says_all else assumed
    kind = "open_clip" if source.is_dir() or file.suffix == ".safetensors" else "pt"
    return model, processor, replace(form, kind=kind, assumed=assumed)


def is_published(folder: Path) -> bool:
    """Whether a folder holds open_clip's files and no checkpoint of transformers that can be loaded."""
    config = folder / "config.json"
    if config.is_file():
        try:
            settings = json.loads(config.read_text(encoding="utf-8"))
        except ValueError:
            return False  # the loader of transformers says what is wrong
        if isinstance(settings, Mapping) and settings.get("model_type") in FAMILIES:
            return False
    return any((folder / name).is_file() for name in (CONFIG, *SAFETENSORS, *PICKLES))


def published_files(name: str, revision: str | None) -> Path:
    """The local folder with the config and weights of open_clip's form, from a Hub repository.

    Raises:
        CheckpointError: They cannot be downloaded.
    """
    folder = download(name, revision, [CONFIG, *SAFETENSORS, *TOKENIZER_FILES])
    if any((folder / weights).is_file() for weights in SAFETENSORS):
        return folder
    return download(name, revision, [CONFIG, *PICKLES, *TOKENIZER_FILES])


def _weights_in(folder: Path, name: str) -> Path:
    for weights in (*SAFETENSORS, *PICKLES):
        if (folder / weights).is_file():
            return folder / weights
    listed = ", ".join(sorted(entry.name for entry in folder.iterdir())[:8]) or "nothing"
    raise CheckpointError(
        f"'{name}' has no open_clip weights; found: {listed}. Wanted {SAFETENSORS[0]} or {PICKLES[0]}. "
        "Give the weights file itself if it has another name."
    )


def _model(config: PreTrainedConfig, state: Mapping[str, torch.Tensor], file: Path) -> PreTrainedModel:
    """The model with these weights in it."""
    import torch
    from transformers import CLIPModel

    from ..resnet import CLIPResNetModel

    model = (CLIPResNetModel if is_resnet(state) else CLIPModel)(config)
    converted, wanted = to_transformers(state), model.state_dict()
    for counter in wanted.keys() - converted.keys():
        if counter.endswith(".num_batches_tracked"):  # some files leave it out; it is used by nothing here
            converted[counter] = torch.zeros((), dtype=torch.long)
    unknown, absent = sorted(converted.keys() - wanted.keys()), sorted(wanted.keys() - converted.keys())
    if unknown or absent:
        raise CheckpointError(
            f"{file} is no plain CLIP: a {type(model).__name__} has no place for "
            f"{', '.join(unknown[:4]) or 'nothing'}, and lacks {', '.join(absent[:4]) or 'nothing'}. "
            "Only the ResNets and the plain ViTs of open_clip can be imported."
        )
    model.load_state_dict(converted)
    return model.eval()


def _processor(folder: Path, settings: Mapping[str, Any], config: PreTrainedConfig) -> CLIPProcessor:
    from transformers import CLIPImageProcessorPil, CLIPProcessor
    from transformers.image_utils import PILImageResampling

    kind, how = settings.get("interpolation", "bicubic"), settings.get("resize_mode", "shortest")
    if kind not in ("bicubic", "bilinear") or how not in ("shortest", "squash"):
        raise CheckpointError(
            f"{folder / CONFIG} preprocesses with interpolation '{kind}' and resize_mode '{how}'. "
            "Wanted bicubic or bilinear, and shortest or squash."
        )
    side = config.vision_config.image_size
    square = {"height": side, "width": side}
    mean, std = NORMALIZATIONS["openai"]
    images = CLIPImageProcessorPil(
        size={"shortest_edge": side} if how == "shortest" else square,
        crop_size=square,
        resample=PILImageResampling[kind.upper()],
        image_mean=list(settings.get("mean") or mean),
        image_std=list(settings.get("std") or std),
    )
    return CLIPProcessor(images, _tokenizer(folder, config.text_config))


def _tokenizer(folder: Path, text_config: PreTrainedConfig) -> Any:
    from transformers import CLIPTokenizer

    if not any((folder / name).is_file() for name in ("tokenizer.json", "vocab.json")):
        logger.info("%s brings no tokenizer; taking that of %s", folder, TOKENIZER)
        folder = download(TOKENIZER, None, TOKENIZER_FILES)
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    tokenizer.model_max_length = text_config.max_position_embeddings
    if len(tokenizer) != text_config.vocab_size or tokenizer.eos_token_id != text_config.eos_token_id:
        raise CheckpointError(
            f"The tokenizer in {folder} has {len(tokenizer)} tokens and ends a text with {tokenizer.eos_token_id}; "
            f"the model has {text_config.vocab_size} and {text_config.eos_token_id}. Put the model's own "
            f"tokenizer.json beside its {CONFIG}."
        )
    return tokenizer
