"""The form in which a model came: what is needed to write it back so that its own programs read it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import torch

from ..downloads import CheckpointError
from .layout import is_resnet, is_vit


logger = logging.getLogger(__name__)

Kind = Literal["transformers", "open_clip", "pt"]
KINDS: tuple[Kind, ...] = ("transformers", "open_clip", "pt")

#: Where files keep a state dict, the preferred first: `{"epoch": 10, "state_dict": {...}}`.
_WRAPPERS = ("state_dict", "model", "model_state_dict", "ema", "state_dict_ema", "model_ema")
#: What is put before every name: by data-parallel training, by torch.compile, by a module around the model.
_PREFIXES = ("module.", "model.", "ema.", "_orig_mod.", "clip_model.", "net.")
#: Tensors that are no weights: OpenAI's archives hold three sizes, older versions of open_clip the causal mask.
_NO_WEIGHTS = ("input_resolution", "context_length", "vocab_size", "attn_mask")


class Original(NamedTuple):
    """A weight as the file has it.

    Attributes:
        name: Its name in the file.
        shape: Its shape in the file.
        transposed: Whether the file keeps it as (out, in) where the layout has (in, out).
    """

    name: str
    shape: torch.Size
    transposed: bool = False


@dataclass(frozen=True)
class Form:
    """The form of a checkpoint.

    Attributes:
        kind: `transformers`, `open_clip` (weights beside `open_clip_config.json`), or `pt` (a file of its own).
        file: Name of the weights file of kind `pt`.
        originals: Published name -> the weight as the file has it.
        extras: What the file holds beside the weights, by its name there.
        wrapper: The key that the state dict lies under, or "" where the file is the state dict.
        around: Plain values beside that key, such as the epoch.
        assumed: What nothing in the form says and was assumed: "activation", "normalization".
    """

    kind: Kind = "transformers"
    file: str = ""
    originals: Mapping[str, Original] = field(default_factory=dict)
    extras: Mapping[str, torch.Tensor] = field(default_factory=dict)
    wrapper: str = ""
    around: Mapping[str, Any] = field(default_factory=dict)
    assumed: tuple[str, ...] = ()


def unwrap(content: Any, file: str) -> tuple[dict[str, torch.Tensor], Form]:
    """Float32 weights under their published names, and the form that the file had.

    Args:
        content: What `read_weights` gave.
        file: Name of the file.

    Raises:
        CheckpointError: There is no state dict, or it is no CLIP with a ResNet or a plain ViT.
    """
    content, wrapper, around = _innermost(content, file)
    state, originals, extras = {}, {}, {}
    for name, tensor in content.items():
        plain = _plain(name)
        if plain in _NO_WEIGHTS:
            extras[name] = tensor
            continue
        if plain in originals:
            raise CheckpointError(
                f"{file} holds two models: both '{originals[plain].name}' and '{name}'. Save one of them alone."
            )
        transposed = plain == "text_projection.weight"
        plain = plain.removesuffix(".weight") if transposed else plain
        originals[plain] = Original(name, tensor.shape, transposed)
        tensor = tensor.t() if transposed else tensor
        state[plain] = tensor.float() if tensor.is_floating_point() else tensor
    if "token_embedding.weight" not in state or not (is_resnet(state) or is_vit(state)):
        some = ", ".join(sorted(state)[:3]) or "nothing"
        raise CheckpointError(
            f"{file} is no CLIP with a ResNet or a plain ViT (found {some}, ...). Towers of timm and of Hugging Face "
            "cannot be imported from open_clip's form. Of a checkpoint of transformers give the folder."
        )
    if "logit_scale" in state:
        state["logit_scale"] = state["logit_scale"].reshape(())
    return state, Form("pt", file, originals, extras, wrapper, around)


def _innermost(content: Any, file: str) -> tuple[Mapping[str, torch.Tensor], str, dict[str, Any]]:
    """The state dict in a file, the key that it lies under, and the plain values beside that key."""
    wrapper, around = "", {}
    while found := [
        key for key in _WRAPPERS if isinstance(content, Mapping) and isinstance(content.get(key), Mapping)
    ]:
        if len(found) > 1:
            logger.warning("%s holds %s; '%s' is taken", file, " and ".join(found), found[0])
        wrapper = found[0]
        around = {key: value for key, value in content.items() if isinstance(value, (int, float, str))}
        content = content[wrapper]
    if not (isinstance(content, Mapping) and all(isinstance(value, torch.Tensor) for value in content.values())):
        raise CheckpointError(f"{file} holds no state dict of tensors. Wanted the weights of a CLIP model.")
    return content, wrapper, around


def _plain(name: str) -> str:
    """The published name without what was put before it; open_clip's `CustomTextCLIP` has its texts under `text.`."""
    stripped = True
    while stripped:
        stripped = False
        for prefix in _PREFIXES:
            if name.startswith(prefix):
                name, stripped = name.removeprefix(prefix), True
    return name.removeprefix("text.")


def wrap(state: Mapping[str, torch.Tensor], form: Form) -> dict[str, Any]:
    """The content of a file in that form: `unwrap` backwards, with these weights, in float32."""
    content: dict[str, Any] = dict(form.extras)
    for plain, original in form.originals.items():
        tensor = state[plain].t() if original.transposed else state[plain]
        content[original.name] = tensor.reshape(original.shape).contiguous()
    return {**form.around, form.wrapper: content} if form.wrapper else content


def cleanclip_form(state: Mapping[str, torch.Tensor], name: str) -> Form:
    """The form of CleanCLIP's checkpoints, for a model that came in another one."""
    originals = {plain: Original(f"module.{plain}", tensor.shape) for plain, tensor in state.items()}
    return Form("pt", f"{name}.pt", originals, wrapper="state_dict", around={"epoch": 0, "name": name})
