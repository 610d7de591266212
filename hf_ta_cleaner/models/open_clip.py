"""Imports an open_clip ViT checkpoint as a `CLIPModel` that computes the same embeddings.

Published backdoored models mostly come in this form. The sizes of the towers are read off the weights; what weights
cannot tell (activation, heads, preprocessing) is read from `open_clip_config.json`. Nothing is guessed, no code is
run, and the open_clip package is not needed.
"""

from __future__ import annotations

import json
import logging
import math
import os
import pickle
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .checkpoints import CheckpointError, download


if TYPE_CHECKING:
    import torch
    from transformers import CLIPModel, CLIPProcessor


logger = logging.getLogger(__name__)

CONFIG = "open_clip_config.json"
SAFETENSORS = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors")
PICKLES = ("open_clip_pytorch_model.bin",)
TOKENIZER_FILES = ["tokenizer*.json", "vocab.json", "merges.txt", "special_tokens_map.json"]
TOKENIZER = "openai/clip-vit-base-patch32"
"""Where the tokenizer comes from when a checkpoint brings none: open_clip's own is that of all OpenAI CLIPs."""

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)

#: Settings of a tower that are read here, say nothing about the weights, or only matter in training.
_UNDERSTOOD = {
    *("layers", "width", "heads", "head_width", "mlp_ratio", "patch_size", "image_size", "patch_dropout"),
    *("context_length", "vocab_size", "hf_tokenizer_name", "tokenizer_kwargs", "pad_id", "output_tokens"),
    *("attn_pooler_queries", "attn_pooler_heads"),
}
#: The only value of these that a CLIPModel computes; other settings must be off.
_STANDARD = {"pool_type": ("tok", "argmax"), "pos_embed_type": ("learnable",), "proj_type": ("linear",)}


def load_open_clip(
    source: str | os.PathLike, *, revision: str | None = None, allow_pickle: bool = False
) -> tuple[CLIPModel, CLIPProcessor]:
    """The model, float32 and in eval mode, and its processor, from an open_clip checkpoint of the ViT family.

    Args:
        source: a Hub id or folder with `open_clip_config.json` and weights (safetensors are preferred; a `.bin` is
            read with weights-only loading), or a weights file (`.safetensors`, `.bin`, `.pt`), such as a checkpoint
            of open_clip's training, with `open_clip_config.json` beside it.
        revision: branch, tag or commit of a Hub id.
        allow_pickle: unpickle the weights in full, which runs whatever code their author put in.

    Raises:
        CheckpointError: not found, not a ViT, no config, another architecture than a CLIPModel's, or not allowed.
    """
    from transformers import CLIPModel

    folder, weights = _find(source, revision)
    state = _state_dict(_read_weights(weights, allow_pickle), weights)
    settings = _read_config(folder, state)
    model = CLIPModel(_clip_config(settings["model_cfg"], state, folder))
    converted = _convert(state)
    wanted = model.state_dict()
    unknown, absent = sorted(converted.keys() - wanted.keys()), sorted(wanted.keys() - converted.keys())
    if unknown or absent:
        raise CheckpointError(
            f"{weights} is no plain CLIP with two transformers: a CLIPModel has no place for "
            f"{', '.join(unknown[:4]) or 'nothing'}, and lacks {', '.join(absent[:4]) or 'nothing'}. "
            "Only the ViT family of open_clip can be imported."
        )
    model.load_state_dict(converted)
    model.name_or_path = str(source)
    return model.eval(), _processor(folder, settings.get("preprocess_cfg") or {}, model.config)


# Finding and reading the files.


def _find(source: str | os.PathLike, revision: str | None) -> tuple[Path, Path]:
    """The folder that holds the config, and the weights file."""
    path = Path(source).expanduser()
    if path.is_file():
        return path.parent, path
    if path.is_dir():
        folder = path
    elif path.is_absolute() or str(source).startswith((".", "~")) or str(source).count("/") > 1:
        raise CheckpointError(f"'{source}' does not exist. Wanted an open_clip folder, weights file or Hub id.")
    else:
        folder = download(str(source), revision, [CONFIG, *SAFETENSORS, *TOKENIZER_FILES])
        if not any((folder / name).is_file() for name in SAFETENSORS):
            folder = download(str(source), revision, [CONFIG, *PICKLES, *TOKENIZER_FILES])
    for name in (*SAFETENSORS, *PICKLES):
        if (folder / name).is_file():
            return folder, folder / name
    listed = ", ".join(sorted(entry.name for entry in folder.iterdir())[:8]) or "nothing"
    raise CheckpointError(
        f"'{source}' has no open_clip weights; found: {listed}. Wanted {SAFETENSORS[0]} or {PICKLES[0]}. "
        "Give the weights file itself if it has another name, or leave --from_open_clip out for a transformers model."
    )


def _read_weights(file: Path, allow_pickle: bool) -> Any:
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        how = "unpickled in full, as --allow_pickle says" if allow_pickle else "loaded as weights only"
        logger.warning("%s is no safetensors file: it is %s.", file.name, how)
        return torch.load(file, map_location="cpu", weights_only=not allow_pickle)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{file} is damaged, or holds more than weights and would run code when opened. It was not opened. "
            "Look for a safetensors version; only if you trust its author, --allow_pickle."
        ) from error
    except (SafetensorError, RuntimeError, OSError, EOFError) as error:
        raise CheckpointError(f"{file} cannot be read: {error}. Get the checkpoint again.") from error


def _state_dict(content: Any, file: Path) -> dict[str, torch.Tensor]:
    """Names and float32 weights of an open_clip model, whatever they are wrapped in.

    A training checkpoint has them under `state_dict`, data-parallel training puts `module.` before every name, and
    open_clip's `CustomTextCLIP` has the text tower under `text.`.
    """
    import torch

    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not (isinstance(content, Mapping) and all(isinstance(value, torch.Tensor) for value in content.values())):
        raise CheckpointError(f"{file} holds no state dict of tensors. Wanted the weights of an open_clip model.")
    state = {}
    for name, tensor in content.items():
        name = name.removeprefix("module.").removeprefix("text.")
        if name != "attn_mask":  # the causal mask, which older versions saved
            state[name] = tensor.float()
    if "visual.class_embedding" not in state or "token_embedding.weight" not in state:
        some = ", ".join(sorted(state)[:3]) or "nothing"
        raise CheckpointError(
            f"{file} is no open_clip ViT (found {some}, ...). ResNets, timm and Hugging Face towers cannot be "
            "expressed as a CLIPModel; only the ViT family can be imported."
        )
    return state


def _read_config(folder: Path, state: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    file = folder / CONFIG
    if not file.is_file():
        example = json.dumps({"model_cfg": {**_measured(state), "quick_gelu": False}})
        raise CheckpointError(
            f"{folder} has no {CONFIG}, and weights alone do not tell which activation they were trained with. Put "
            f"this there, with quick_gelu true for OpenAI's models and open_clip's '-quickgelu' ones: {example}"
        )
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


# Config and weights in the form of transformers.


def _measured(state: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """The sizes that the weights have, in the words of `open_clip_config.json`."""
    width, _, patch, _ = state["visual.conv1.weight"].shape
    side = math.isqrt(len(state["visual.positional_embedding"]) - 1)
    vocabulary, text_width = state["token_embedding.weight"].shape
    return {
        "embed_dim": state["visual.proj"].shape[1] if "visual.proj" in state else width,
        "vision_cfg": {
            "image_size": side * patch,
            "layers": _layers(state, "visual.transformer."),
            "width": width,
            "patch_size": patch,
        },
        "text_cfg": {
            "context_length": len(state["positional_embedding"]),
            "vocab_size": vocabulary,
            "width": text_width,
            "heads": max(1, text_width // 64),
            "layers": _layers(state, "transformer."),
        },
    }


def _layers(state: Mapping[str, Any], tower: str) -> int:
    return len({name.split(".resblocks.")[1].split(".")[0] for name in state if name.startswith(f"{tower}resblocks.")})


def _clip_config(model_cfg: Mapping[str, Any], state: Mapping[str, torch.Tensor], folder: Path):
    """The CLIPConfig of these weights, once the config agrees with them and asks for nothing unusual."""
    from transformers import CLIPConfig

    measured = _measured(state)
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
            f"{folder / CONFIG} asks for what a CLIPModel does not compute: {'; '.join(unusual)}. "
            "Only the plain ViT family of open_clip can be imported."
        )
    said = {"embed_dim": model_cfg.get("embed_dim"), "vision_cfg": vision, "text_cfg": text}
    differing = [
        f"{name} {given} against {value}"
        for name, given, value in _pairs(said, measured)
        if given is not None and name != "heads" and given != value and given != [value, value]
    ]
    if differing:
        raise CheckpointError(
            f"{folder / CONFIG} and the weights differ in size: {'; '.join(differing)}. "
            "Get the config that belongs to the weights."
        )
    activation = "quick_gelu" if model_cfg.get("quick_gelu") else "gelu"
    sizes = {"vision_cfg": measured["vision_cfg"], "text_cfg": measured["text_cfg"]}
    heads = {
        "vision_cfg": sizes["vision_cfg"]["width"] // vision.get("head_width", 64),
        "text_cfg": text.get("heads", 8),
    }
    tower = {
        name: {
            "hidden_size": size["width"],
            "intermediate_size": len(state[f"{prefix}resblocks.0.mlp.c_fc.bias"]),
            "num_hidden_layers": size["layers"],
            "num_attention_heads": heads[name],
            "hidden_act": activation,
            "projection_dim": measured["embed_dim"],
        }
        for (name, size), prefix in zip(sizes.items(), ("visual.transformer.", "transformer."), strict=True)
    }
    vocabulary = sizes["text_cfg"]["vocab_size"]
    # open_clip takes the embedding at the highest token id, which is the end of the text.
    text_only = {"vocab_size": vocabulary, "max_position_embeddings": sizes["text_cfg"]["context_length"]}
    text_only |= {"bos_token_id": vocabulary - 2, "eos_token_id": vocabulary - 1, "pad_token_id": vocabulary - 1}
    vision_only = {name: sizes["vision_cfg"][name] for name in ("image_size", "patch_size")}
    return CLIPConfig(
        vision_config=tower["vision_cfg"] | vision_only,
        text_config=tower["text_cfg"] | text_only,
        projection_dim=measured["embed_dim"],
    )


def _unusual(tower: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in tower.items():
        if isinstance(value, list) and name == "layers":
            yield name, f"{value} (a ResNet)"
        elif name not in _UNDERSTOOD and value not in _STANDARD.get(name, (None, False, 0, {}, [])):
            yield name, value


def _pairs(said: Mapping[str, Any], measured: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """(name, said, measured) of every size, also those inside a tower."""
    for name, value in measured.items():
        if isinstance(value, dict):
            yield from _pairs(said[name], value)
        else:
            yield name, said.get(name), value


def _convert(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights under the names of transformers.

    open_clip keeps query, key and value in one matrix, and projections as (in, out) matrices that a vector is
    multiplied with from the left, where `nn.Linear` keeps (out, in).
    """
    plain: dict[str, tuple[str, Callable]] = {
        "visual.class_embedding": ("vision_model.embeddings.class_embedding", _same),
        "visual.positional_embedding": ("vision_model.embeddings.position_embedding.weight", _same),
        "visual.conv1.weight": ("vision_model.embeddings.patch_embedding.weight", _same),
        "visual.proj": ("visual_projection.weight", _transposed),
        "token_embedding.weight": ("text_model.embeddings.token_embedding.weight", _same),
        "positional_embedding": ("text_model.embeddings.position_embedding.weight", _same),
        "text_projection": ("text_projection.weight", _transposed),
        "text_projection.weight": ("text_projection.weight", _same),
        "logit_scale": ("logit_scale", lambda tensor: tensor.reshape(())),
    }
    for kind in ("weight", "bias"):
        plain |= {
            f"visual.ln_pre.{kind}": (f"vision_model.pre_layrnorm.{kind}", _same),
            f"visual.ln_post.{kind}": (f"vision_model.post_layernorm.{kind}", _same),
            f"ln_final.{kind}": (f"text_model.final_layer_norm.{kind}", _same),
        }
    converted = {}
    for name, tensor in state.items():
        if name in plain:
            new, change = plain[name]
            converted[new] = change(tensor)
        elif ".resblocks." in f".{name}":
            converted |= _convert_block(name, tensor)
        else:
            converted[name] = tensor
    return {name: tensor.contiguous() for name, tensor in converted.items()}


def _convert_block(name: str, tensor: torch.Tensor) -> dict[str, torch.Tensor]:
    """One weight of a transformer block: three where it is the joint query, key and value."""
    tower, _, rest = name.partition("transformer.resblocks.")
    layer, _, part = rest.partition(".")
    prefix = f"{'vision_model' if tower == 'visual.' else 'text_model'}.encoder.layers.{layer}."
    if part in ("attn.in_proj_weight", "attn.in_proj_bias"):
        kind = part.rsplit("_", 1)[1]
        return {
            f"{prefix}self_attn.{letter}_proj.{kind}": third
            for letter, third in zip("qkv", tensor.chunk(3), strict=True)
        }
    renamed = {"ln_1": "layer_norm1", "ln_2": "layer_norm2", "attn": "self_attn", "c_fc": "fc1", "c_proj": "fc2"}
    return {prefix + ".".join(renamed.get(word, word) for word in part.split(".")): tensor}


def _same(tensor: torch.Tensor) -> torch.Tensor:
    return tensor


def _transposed(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.t()


# Preprocessing.


def _processor(folder: Path, settings: Mapping[str, Any], config) -> CLIPProcessor:
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
    images = CLIPImageProcessorPil(
        size={"shortest_edge": side} if how == "shortest" else square,
        crop_size=square,
        resample=PILImageResampling[kind.upper()],
        image_mean=list(settings.get("mean") or MEAN),
        image_std=list(settings.get("std") or STD),
    )
    return CLIPProcessor(images, _tokenizer(folder, config.text_config))


def _tokenizer(folder: Path, text_config):
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
