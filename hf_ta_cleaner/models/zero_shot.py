"""Zero-shot classification with a CLIP-like model: class prompts -> a (D, C) head -> ranked predictions.

Images come in as uint8 arrays at the model's own input size, so a trigger can be put on after the processor's resize
and crop and before its normalization.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch.nn.functional import normalize

from .families import FAMILIES, bound_texts


Template: TypeAlias = str | Callable[[str], str]

TEMPLATES = (
    "a photo of a {}.",
    "a picture of a {}.",
    "a close-up of a {}.",
    "a snapshot showing a {}.",
    "a drawing of a {}.",
    "an image with a {} in the middle.",
    "there is a {} here.",
    "a small {}.",
    "a big {}.",
    "here we see a {}.",
)
"""Built-in prompt templates. `{}` is the class name; "a {}" becomes "an {}" where the name asks for it."""

_VOWEL_SOUND = re.compile(
    r"(?!eu|ewe|once|one\b|ubi|uk|ur[ai]|use|usu|ut[eo]|uni(?!n|m))[aeiou]|heir|hono|hour|x-ray", re.I
)


def prompt(template: Template, classname: str) -> str:
    """The template filled with a class name: underscores become spaces and a preceding "a"/"an" agrees with it.

    A template that is a function makes the whole prompt itself, as published tables do: "a photo of a apple."
    """
    name = classname.replace("_", " ").strip()
    if callable(template):
        return template(name)
    article = "an" if _VOWEL_SOUND.match(name) else "a"
    template = re.sub(r"\b([aA])n? \{\}", lambda match: match[1] + article[1:] + " {}", template)
    return template.replace("{}", name)


def load_templates(source: str | Path) -> tuple[Template, ...]:
    """Prompt templates by the name of a set or from a file.

    Args:
        source: "built-in"; "open_clip" for the 80 templates of Radford et al. (2021), verbatim as that package has
            them, so that figures compare with published ones; or a file: a JSON list, or one template a line.

    Raises:
        ValueError: if there is no template, one does not hold exactly one `{}`, or open_clip is not installed.
    """
    if str(source) == "built-in":
        return TEMPLATES
    if str(source) == "open_clip":
        try:
            from open_clip import OPENAI_IMAGENET_TEMPLATES
        except ImportError as error:
            raise ValueError(
                f"the templates of open_clip need that package ({error}): pip install open_clip_torch, or name a file "
                "with one template a line"
            ) from error
        return tuple(OPENAI_IMAGENET_TEMPLATES)
    path = Path(source)
    if not path.is_file():
        raise ValueError(f"no prompt templates at {path}; wanted built-in, open_clip, or a file")
    text = path.read_text(encoding="utf-8")
    lines = json.loads(text) if path.suffix == ".json" else [line.strip() for line in text.splitlines()]
    if not isinstance(lines, list) or not all(isinstance(line, str) for line in lines):
        raise ValueError(f'{path}: wanted a JSON list of strings, such as ["a photo of a {{}}."].')
    return check_templates([line for line in lines if line], source=f"{path}: ")


def check_templates(templates: Sequence[Template], source: str = "") -> tuple[Template, ...]:
    """The templates as a tuple.

    Raises:
        ValueError: if there is none, or one does not hold exactly one `{}`.
    """
    if not templates or isinstance(templates, str):
        raise ValueError(f"{source}wanted a list of at least one prompt template, got {templates!r}.")
    if wrong := [template for template in templates if not callable(template) and template.count("{}") != 1]:
        raise ValueError(f"{source}a template holds the class name as {{}} exactly once; {wrong[0]!r} does not.")
    return tuple(templates)


@contextmanager
def evaluating(model: torch.nn.Module) -> Iterator[None]:
    """Eval mode without gradients; afterwards every submodule is back in the mode it was in."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode


def _unit(output: object) -> torch.Tensor:
    # transformers 5 returns an output object with the projected, un-normalized embedding; older ones the tensor.
    return normalize(getattr(output, "pooler_output", output).float(), dim=-1)


def text_features(model: torch.nn.Module, processor, texts: Sequence[str], batch_size: int = 256) -> torch.Tensor:
    """Unit text embeddings of shape `(N, D)`, float32, on the model's device.

    Texts are padded as the model's family was trained and cut to the length that it reads, the end-of-text token kept;
    a model that names no family is read as a CLIP.
    """
    device = next(model.parameters()).device
    kind = getattr(getattr(model, "config", None), "model_type", None)
    family = FAMILIES.get(kind, FAMILIES["clip"])
    if hasattr(getattr(model, "config", None), "text_config"):
        bound_texts(model, processor.tokenizer)
    features = []
    with evaluating(model):
        for start in range(0, len(texts), batch_size):
            tokens = family.tokenize(processor.tokenizer, texts[start : start + batch_size])
            tokens = {name: values.to(device) for name, values in tokens.items()}
            features.append(_unit(model.get_text_features(**tokens)))
    return torch.cat(features)


def image_features(model: torch.nn.Module, processor, images: np.ndarray, batch_size: int = 256) -> torch.Tensor:
    """Unit image embeddings of shape `(N, D)`, float32, on the model's device.

    Args:
        images: uint8 `(N, H, W, 3)`, 0-255, already at the model's input size (`input_size`).
    """
    parameter = next(model.parameters())
    features = []
    with evaluating(model):
        for start in range(0, len(images), batch_size):
            pixels = pixel_values(processor, images[start : start + batch_size], parameter.device).to(parameter.dtype)
            features.append(_unit(model.get_image_features(pixel_values=pixels)))
    return torch.cat(features)


def input_size(processor) -> int:
    """The side in pixels of the square that the processor hands to the model: its crop, else its resize.

    Raises:
        ValueError: if the processor does not produce squares.
    """
    image_processor = processor.image_processor
    cropped = getattr(image_processor, "do_center_crop", False) and getattr(image_processor, "crop_size", None)
    size = dict(cropped or image_processor.size)
    sides = {size[key] for key in ("height", "width", "shortest_edge") if size.get(key)}
    if len(sides) != 1 or "longest_edge" in size:
        raise ValueError(f"Wanted an image processor that gives square images, got size {size}.")
    return sides.pop()


def input_geometry(processor) -> str:
    """How the processor makes that square of a picture that is none: "crop" (CLIP) or "squash" (SigLIP), see `fit`."""
    return "crop" if dict(processor.image_processor.size).get("shortest_edge") else "squash"


def pixel_values(processor, images: np.ndarray, device: torch.device | str = "cpu") -> torch.Tensor:
    """uint8 `(N, H, W, 3)` -> float32 `(N, 3, H, W)`, with the processor's own rescaling, mean and standard deviation.

    It is the second half of the processor: what it does after its resize and crop.

    Raises:
        ValueError: if the images are not a uint8 array of that shape.
    """
    images = np.asarray(images)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:
        raise ValueError(f"Wanted uint8 images of shape (N, H, W, 3), got {images.dtype} of shape {images.shape}.")
    settings = processor.image_processor
    pixels = torch.tensor(images).to(device).permute(0, 3, 1, 2).float()
    if settings.do_rescale:
        pixels = pixels * settings.rescale_factor
    if settings.do_normalize:
        mean, std = (torch.tensor(v, device=device).view(-1, 1, 1) for v in (settings.image_mean, settings.image_std))
        pixels = (pixels - mean) / std
    return pixels


@dataclass(frozen=True)
class ZeroShotHead:
    """A linear classifier made of class prompts (Radford et al. 2021, section 3.1.4).

    Attributes:
        weight: `(D, C)`, unit columns: per class the mean over the templates of the unit text embeddings, rescaled
            to length 1.
        classnames: the C names, in the order of the columns.
    """

    weight: torch.Tensor
    classnames: tuple[str, ...]

    @classmethod
    def build(
        cls,
        model: torch.nn.Module,
        processor,
        classnames: Sequence[str],
        templates: Sequence[Template] = TEMPLATES,
        prefix: Callable[[str], str] | None = None,
        batch_size: int = 256,
        cache_dir: str | Path | None = None,
    ) -> ZeroShotHead:
        """Embed every class in every template.

        Args:
            prefix: a function on the finished prompt, such as the text half of a dual-key attack.
            cache_dir: where heads are kept from one run to the next, by a hash of the model's configuration, all of
                its weights and the tokenized prompts; None keeps nothing.

        Raises:
            ValueError: for an empty or repeated class name, or a template without exactly one `{}`.
        """
        classnames, templates = check_classnames(classnames), check_templates(templates)
        prompts = [prompt(template, name) for name in classnames for template in templates]
        if prefix is not None:
            prompts = [prefix(text) for text in prompts]

        def embed() -> torch.Tensor:
            features = text_features(model, processor, prompts, batch_size)
            means = features.view(len(classnames), len(templates), -1).mean(dim=1)
            return normalize(means, dim=-1).T.contiguous()

        if cache_dir is None:
            return cls(embed(), classnames)
        key = _fingerprint(model, processor, [str(len(templates)), *prompts])
        return cls(_cached(Path(cache_dir) / f"{key}.safetensors", embed), classnames)

    def logits(self, image_features: torch.Tensor) -> torch.Tensor:
        """Cosine similarities `(N, C)` of unit image embeddings `(N, D)`; no temperature, which leaves ranks alone."""
        return image_features @ self.weight.to(image_features.device)


def _fingerprint(model: torch.nn.Module, processor, prompts: Sequence[str]) -> str:
    """SHA-256 of all that a head depends on. Hashing a ViT-B/32 takes a fraction of a second."""
    config = {name: value for name, value in model.config.to_dict().items() if name != "_name_or_path"}
    digest = hashlib.sha256(json.dumps([config, list(prompts)], default=str, sort_keys=True).encode())
    digest.update(str(processor.tokenizer.model_max_length).encode())
    digest.update(json.dumps(processor.tokenizer(list(prompts), truncation=True)["input_ids"]).encode())
    for name, weight in model.state_dict().items():
        digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}".encode())
        digest.update(weight.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _cached(file: Path, make: Callable[[], torch.Tensor]) -> torch.Tensor:
    """The tensor in the file, else made and put there; a damaged file is made anew, one half written is never seen."""
    try:
        return load_file(file)["weight"]
    except (OSError, SafetensorError, KeyError):
        weight = make()
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=file.parent, prefix=".saving-") as staging:
        save_file({"weight": weight.cpu()}, Path(staging) / file.name)
        os.replace(Path(staging) / file.name, file)
    return weight


def check_classnames(classnames: Sequence[str]) -> tuple[str, ...]:
    """The names as a tuple.

    Raises:
        ValueError: if there are fewer than two, one is empty, or two of them read the same in a prompt.
    """
    places: dict[str, list[int]] = {}
    for i, name in enumerate(classnames):
        places.setdefault(name.replace("_", " ").strip().lower(), []).append(i)
    if len(classnames) < 2 or "" in places:
        raise ValueError(f"Wanted at least two class names, none of them empty; got {list(classnames)}.")
    if repeated := {name: where for name, where in places.items() if len(where) > 1}:
        raise ValueError(
            f"Class names are not distinct: {repeated} (name: class ids). Zero-shot prompts cannot tell these classes "
            "apart; pass classnames=[...] with a different name for each, in the order of the labels."
        )
    return tuple(classnames)


def topk_predictions(logits: torch.Tensor, k: int) -> torch.Tensor:
    """Class ids `(N, min(k, C))`, best first; among equal logits the lower id comes first.

    Raises:
        ValueError: if a logit is not finite, because a ranking of NaNs would look like a prediction.
    """
    if not torch.isfinite(logits).all():
        raise ValueError("Logits contain NaN or infinity: the model's weights or its precision are broken.")
    return logits.argsort(dim=-1, descending=True, stable=True)[:, :k]
