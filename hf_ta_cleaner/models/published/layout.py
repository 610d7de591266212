"""The names and sizes of OpenAI's and open_clip's weights, and the same weights under the names of transformers.

The published layout keeps query, key and value of a block in one matrix, and projections as (in, out) matrices that a
vector is multiplied with from the left, where `nn.Linear` keeps (out, in).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch


State = Mapping[str, torch.Tensor]

RESNET_STAGES = ("layer1", "layer2", "layer3", "layer4")


def _same(tensor: torch.Tensor) -> torch.Tensor:
    return tensor


def _transposed(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.t()


#: Published name -> name in transformers, and what is done to the tensor in either direction.
_TEXT: dict[str, tuple[str, Callable]] = {
    "token_embedding.weight": ("text_model.embeddings.token_embedding.weight", _same),
    "positional_embedding": ("text_model.embeddings.position_embedding.weight", _same),
    "ln_final.weight": ("text_model.final_layer_norm.weight", _same),
    "ln_final.bias": ("text_model.final_layer_norm.bias", _same),
    "text_projection": ("text_projection.weight", _transposed),
    "logit_scale": ("logit_scale", _same),
}
_VIT: dict[str, tuple[str, Callable]] = {
    "visual.class_embedding": ("vision_model.embeddings.class_embedding", _same),
    "visual.positional_embedding": ("vision_model.embeddings.position_embedding.weight", _same),
    "visual.conv1.weight": ("vision_model.embeddings.patch_embedding.weight", _same),
    "visual.ln_pre.weight": ("vision_model.pre_layrnorm.weight", _same),
    "visual.ln_pre.bias": ("vision_model.pre_layrnorm.bias", _same),
    "visual.ln_post.weight": ("vision_model.post_layernorm.weight", _same),
    "visual.ln_post.bias": ("vision_model.post_layernorm.bias", _same),
    "visual.proj": ("visual_projection.weight", _transposed),
}
_BLOCK = {"ln_1": "layer_norm1", "ln_2": "layer_norm2", "attn": "self_attn", "c_fc": "fc1", "c_proj": "fc2"}
_BLOCK_BACK = {theirs: ours for ours, theirs in _BLOCK.items()}


def is_resnet(state: State) -> bool:
    """Whether the image tower is a ModifiedResNet."""
    return "visual.layer1.0.conv1.weight" in state


def is_vit(state: State) -> bool:
    """Whether the image tower is a vision transformer."""
    return "visual.class_embedding" in state


def measured(state: State) -> dict[str, Any]:
    """The sizes of a ResNet's or a ViT's weights, in the words of `open_clip_config.json`."""
    vocabulary, text_width = state["token_embedding.weight"].shape
    if is_resnet(state):
        width = state["visual.layer1.0.conv1.weight"].shape[0]
        side = math.isqrt(len(state["visual.attnpool.positional_embedding"]) - 1)
        embed_dim = len(state["visual.attnpool.c_proj.bias"])
        layers = [_depth(state, f"visual.{stage}.") for stage in RESNET_STAGES]
        vision = {"image_size": side * 32, "layers": layers, "width": width}
    else:
        width, _, patch, _ = state["visual.conv1.weight"].shape
        side = math.isqrt(len(state["visual.positional_embedding"]) - 1)
        embed_dim = state["visual.proj"].shape[1] if "visual.proj" in state else width
        layers = _depth(state, "visual.transformer.resblocks.")
        vision = {"image_size": side * patch, "layers": layers, "width": width, "patch_size": patch}
    text = {
        "context_length": len(state["positional_embedding"]),
        "vocab_size": vocabulary,
        "width": text_width,
        "heads": max(1, text_width // 64),
        "layers": _depth(state, "transformer.resblocks."),
    }
    return {"embed_dim": embed_dim, "vision_cfg": vision, "text_cfg": text}


def _depth(state: State, prefix: str) -> int:
    return len({name.removeprefix(prefix).split(".")[0] for name in state if name.startswith(prefix)})


def to_transformers(state: State) -> dict[str, torch.Tensor]:
    """The weights under the names of `CLIPModel` or `CLIPResNetModel`; names that are in no layout stay."""
    plain = _TEXT if is_resnet(state) else _TEXT | _VIT
    converted = {}
    for name, tensor in state.items():
        if name in plain:
            new, change = plain[name]
            converted[new] = change(tensor)
        elif name.startswith(("transformer.resblocks.", "visual.transformer.resblocks.")):
            converted |= _block_to_transformers(name, tensor)
        elif is_resnet(state) and name.startswith("visual."):
            converted[f"vision_model.{name.removeprefix('visual.')}"] = tensor
        else:
            converted[name] = tensor
    return {name: tensor.contiguous() for name, tensor in converted.items()}


def _block_to_transformers(name: str, tensor: torch.Tensor) -> dict[str, torch.Tensor]:
    """One weight of a transformer block: three where it is the joint query, key and value."""
    tower, _, rest = name.partition("transformer.resblocks.")
    layer, _, part = rest.partition(".")
    prefix = f"{'vision_model' if tower else 'text_model'}.encoder.layers.{layer}."
    if part in ("attn.in_proj_weight", "attn.in_proj_bias"):
        kind = part.rsplit("_", 1)[1]
        thirds = zip("qkv", tensor.chunk(3), strict=True)
        return {f"{prefix}self_attn.{letter}_proj.{kind}": third for letter, third in thirds}
    return {prefix + ".".join(_BLOCK.get(word, word) for word in part.split(".")): tensor}


def to_published(state: State) -> dict[str, torch.Tensor]:
    """The weights of a `CLIPModel` or `CLIPResNetModel` under their published names: `to_transformers` backwards."""
    back = {theirs: (ours, change) for ours, (theirs, change) in (_TEXT | _VIT).items()}
    converted = {}
    for name, tensor in state.items():
        if name in back:
            new, change = back[name]
            converted[new] = change(tensor)
        elif ".encoder.layers." in name:
            converted |= _block_to_published(name, state)
        else:
            converted[f"visual.{name.removeprefix('vision_model.')}"] = tensor
    return {name: tensor.contiguous() for name, tensor in converted.items()}


def _block_to_published(name: str, state: State) -> dict[str, torch.Tensor]:
    tower, _, rest = name.partition(".encoder.layers.")
    layer, _, part = rest.partition(".")
    prefix = f"{'visual.' if tower == 'vision_model' else ''}transformer.resblocks.{layer}."
    words = part.split(".")
    if words[-2] in ("q_proj", "k_proj", "v_proj"):
        if words[-2] != "q_proj":
            return {}  # joined with the query
        joint = torch.cat([state[name.replace("q_proj", f"{letter}_proj")] for letter in "qkv"])
        return {f"{prefix}attn.in_proj_{words[-1]}": joint}
    return {prefix + ".".join(_BLOCK_BACK.get(word, word) for word in words): state[name]}
