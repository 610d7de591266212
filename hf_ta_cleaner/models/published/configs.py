"""`open_clip_config.json`, in both directions, and what is assumed where no config lies beside the weights."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..downloads import CheckpointError
from .layout import State, is_resnet, measured


if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, ProcessorMixin


logger = logging.getLogger(__name__)

CONFIG = "open_clip_config.json"

ACTIVATIONS = ("gelu", "quick_gelu")
#: Mean and standard deviation per channel of pixels in [0, 1].
NORMALIZATIONS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "openai": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "inception": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "none": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}

#: Image towers of OpenAI's models: (width, layers, patch size or None, input size), all trained with QuickGELU.
_OPENAI = {
    (64, (3, 4, 6, 3), None, 224),
    (64, (3, 4, 23, 3), None, 224),
    (80, (4, 6, 10, 6), None, 288),
    (96, (6, 8, 18, 8), None, 384),
    (128, (3, 15, 36, 10), None, 448),
    (768, 12, 32, 224),
    (768, 12, 16, 224),
    (1024, 24, 14, 224),
    (1024, 24, 14, 336),
}

#: Settings of a tower that are read here, say nothing about the weights, or only matter in training.
_UNDERSTOOD = {
    *("layers", "width", "heads", "head_width", "mlp_ratio", "patch_size", "image_size", "patch_dropout"),
    *("context_length", "vocab_size", "hf_tokenizer_name", "tokenizer_kwargs", "pad_id", "output_tokens"),
    *("attn_pooler_queries", "attn_pooler_heads"),
}
#: The only value of these that is computed here; other settings must be off.
_STANDARD = {
    "text_arch": ("clip",),
    "pool_type": ("tok", "argmax"),
    "pos_embed_type": ("learnable",),
    "proj_type": ("linear",),
}


def read_config(folder: Path, state: State, activation: str | None) -> dict[str, Any]:
    """The settings beside the weights, with `activation` in place of theirs if it is given.

    Without a config the sizes are measured. The activation is then the one given, or QuickGELU for the sizes of
    OpenAI's models.

    Raises:
        CheckpointError: The config cannot be used, or nothing tells the activation.
    """
    file = folder / CONFIG
    settings = _read(file) if file.is_file() else {"model_cfg": measured(state)}
    if activation is not None:
        settings["model_cfg"]["quick_gelu"] = activation == "quick_gelu"
    elif not file.is_file():
        _assume_activation(folder, settings["model_cfg"])
    return settings


def _assume_activation(folder: Path, model_cfg: dict[str, Any]) -> None:
    vision = model_cfg["vision_cfg"]
    layers = tuple(vision["layers"]) if isinstance(vision["layers"], list) else vision["layers"]
    if (vision["width"], layers, vision.get("patch_size"), vision["image_size"]) not in _OPENAI:
        example = json.dumps({"model_cfg": model_cfg})
        raise CheckpointError(
            f"{folder} has no {CONFIG}, and weights alone do not tell which activation they were trained with. Add "
            "--activation quick_gelu for a model of OpenAI's or CleanCLIP's code, --activation gelu for one of "
            f"open_clip's that has no '-quickgelu' in its name; or put this there: {example}"
        )
    model_cfg["quick_gelu"] = True
    logger.warning(
        "%s has no %s: the activation is assumed to be QuickGELU, as in OpenAI's models of this size and in what was "
        "trained from them; --activation gelu if that is wrong", folder, CONFIG,
    )  # fmt: skip


def _read(file: Path) -> dict[str, Any]:
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
        towers = [settings["model_cfg"][tower] for tower in ("vision_cfg", "text_cfg")]
    except (OSError, ValueError, KeyError, TypeError) as error:
        towers, cause = [None], error
    else:
        cause = None
    if not all(isinstance(tower, dict) for tower in towers):
        raise CheckpointError(
            f"{file} cannot be used. Wanted JSON with model_cfg.vision_cfg and model_cfg.text_cfg, as open_clip "
            f"writes it; got {'another shape' if cause is None else repr(cause)}."
        ) from cause
    return settings


def to_transformers_config(model_cfg: Mapping[str, Any], state: State, folder: Path) -> PreTrainedConfig:
    """The CLIPConfig or CLIPResNetConfig of these weights.

    Raises:
        CheckpointError: The config and the weights differ in size, or the config asks for what is not computed here.
    """
    from transformers import CLIPConfig

    from ..resnet import CLIPResNetConfig

    sizes = measured(state)
    _check(model_cfg, sizes, folder)
    vision, text, given = sizes["vision_cfg"], sizes["text_cfg"], model_cfg["vision_cfg"]
    activation = "quick_gelu" if model_cfg.get("quick_gelu") else "gelu"
    text_config = {
        **_transformer(state, "transformer.", text, activation),
        "num_attention_heads": model_cfg["text_cfg"].get("heads", 8),
        "projection_dim": sizes["embed_dim"],
        "vocab_size": text["vocab_size"],
        "max_position_embeddings": text["context_length"],
        # Both libraries take the embedding at the highest token id, which is the end of the text.
        "bos_token_id": text["vocab_size"] - 2,
        "eos_token_id": text["vocab_size"] - 1,
        "pad_token_id": text["vocab_size"] - 1,
    }
    vision_config = {"image_size": vision["image_size"], "projection_dim": sizes["embed_dim"]}
    if is_resnet(state):
        heads = max(1, 32 * vision["width"] // given.get("head_width", 64))
        vision_config |= {"stem_width": vision["width"], "layers": vision["layers"], "num_attention_heads": heads}
    else:
        vision_config |= _transformer(state, "visual.transformer.", vision, activation)
        vision_config |= {
            "patch_size": vision["patch_size"],
            "num_attention_heads": max(1, vision["width"] // given.get("head_width", 64)),
        }
    kind = CLIPResNetConfig if is_resnet(state) else CLIPConfig
    return kind(vision_config=vision_config, text_config=text_config, projection_dim=sizes["embed_dim"])


def _transformer(state: State, prefix: str, size: Mapping[str, int], activation: str) -> dict[str, Any]:
    return {
        "hidden_size": size["width"],
        "intermediate_size": len(state[f"{prefix}resblocks.0.mlp.c_fc.bias"]),
        "num_hidden_layers": size["layers"],
        "hidden_act": activation,
    }


def _check(model_cfg: Mapping[str, Any], sizes: Mapping[str, Any], folder: Path) -> None:
    """An error where the config asks for anything unusual, or differs from the weights in size."""
    vision, text = model_cfg["vision_cfg"], model_cfg["text_cfg"]
    unusual = [
        f"{tower}.{name}: {value}"
        for tower in ("vision_cfg", "text_cfg")
        for name, value in _unusual(model_cfg[tower])
    ]
    if "multimodal_cfg" in model_cfg:
        unusual.append("multimodal_cfg")
    if unusual:
        raise CheckpointError(
            f"{folder / CONFIG} asks for what is not computed here: {'; '.join(unusual)}. "
            "Only the ResNets and the plain ViTs of open_clip can be imported."
        )
    said = {"embed_dim": model_cfg.get("embed_dim"), "vision_cfg": vision, "text_cfg": text}
    differing = [
        f"{name} {given} against {value}"
        for name, given, value in _pairs(said, sizes)
        if given is not None and name != "heads" and given != value and given != [value, value]
    ]
    if differing:
        raise CheckpointError(
            f"{folder / CONFIG} and the weights differ in size: {'; '.join(differing)}. "
            "Get the config that belongs to the weights."
        )


def _unusual(tower: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in tower.items():
        if name not in _UNDERSTOOD and value not in _STANDARD.get(name, (None, False, 0, {}, [])):
            yield name, value


def _pairs(said: Mapping[str, Any], sizes: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """(name, said, measured) of every size, also those inside a tower."""
    for name, value in sizes.items():
        if isinstance(value, dict):
            yield from _pairs(said[name], value)
        else:
            yield name, said.get(name), value


def to_open_clip_config(model: PreTrainedModel, processor: ProcessorMixin, state: State) -> dict[str, Any]:
    """The content of `open_clip_config.json` for a model; `state` are its weights in the published layout.

    Raises:
        ValueError: open_clip cannot be told to compute what the model computes.
    """
    from PIL.Image import Resampling

    vision, text, images = model.config.vision_config, model.config.text_config, processor.image_processor
    activations = {tower.hidden_act for tower in (text, vision) if hasattr(tower, "hidden_act")}
    if len(activations) != 1 or not activations <= set(ACTIVATIONS):
        raise ValueError(f"open_clip has one activation, gelu or quick_gelu; the model has {', '.join(activations)}")
    model_cfg = measured(state)
    model_cfg["quick_gelu"] = activations == {"quick_gelu"}
    model_cfg["text_cfg"]["heads"] = text.num_attention_heads
    model_cfg["text_cfg"]["mlp_ratio"] = _mlp_ratio(text)
    model_cfg["vision_cfg"]["head_width"] = vision.hidden_size // vision.num_attention_heads
    if not is_resnet(state):
        model_cfg["vision_cfg"]["mlp_ratio"] = _mlp_ratio(vision)
    return {
        "model_cfg": model_cfg,
        "preprocess_cfg": {
            "mean": list(images.image_mean),
            "std": list(images.image_std),
            "interpolation": Resampling(images.resample).name.lower(),
            "resize_mode": "shortest" if dict(images.size).get("shortest_edge") else "squash",
        },
    }


def _mlp_ratio(tower: PreTrainedConfig) -> float:
    """open_clip cuts width x ratio down to an integer, which must be the size of the MLP."""
    ratio = tower.intermediate_size / tower.hidden_size
    return ratio if int(tower.hidden_size * ratio) == tower.intermediate_size else math.nextafter(ratio, math.inf)
