"""Models, processors and data of the shapes that are measured. Weights are random: they cost the same."""

from __future__ import annotations

import io
from functools import lru_cache
from typing import Any

import datasets
import torch
from PIL import Image
from transformers import CLIPConfig, CLIPModel, CLIPProcessor

from benchmarks.attacks.speed import PHOTO, encoded, picture
from hf_ta_cleaner import sandbox


#: Name -> changes to CLIP's own configuration, which is that of ViT-B/32.
SHAPES: dict[str, dict[str, Any]] = {
    "vit-b-32": {},
    "sandbox": {
        "text_config": {
            "hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 3, "num_attention_heads": 4,
            "vocab_size": 865,
        },
        "vision_config": {
            "hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 4, "num_attention_heads": 4,
            "image_size": 72, "patch_size": 12,
        },
        "projection_dim": 128,
    },
    "tiny": {
        "text_config": {
            "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2,
            "vocab_size": 865,
        },
        "vision_config": {
            "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2,
            "image_size": 32, "patch_size": 16,
        },
        "projection_dim": 16,
    },
}  # fmt: skip

#: Pictures drawn of a shape; a longer data set repeats them.
DISTINCT = 64


@lru_cache
def make_processor(shape: str) -> CLIPProcessor:
    """The sandbox's tokenizer (captions of about a dozen tokens), and pictures of the shape's size."""
    processor = CLIPProcessor.from_pretrained(sandbox.CHECKPOINT)
    side = SHAPES[shape].get("vision_config", {}).get("image_size", 224)
    processor.image_processor.size = {"shortest_edge": side}
    processor.image_processor.crop_size = {"height": side, "width": side}
    return processor


def make_model(shape: str) -> CLIPModel:
    tokenizer = make_processor(shape).tokenizer
    changes = SHAPES[shape]
    special = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    config = CLIPConfig(**{**changes, "text_config": {**changes.get("text_config", {}), **special}})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return CLIPModel(config)


@lru_cache
def pictures(shape: str) -> tuple[bytes, ...]:
    """JPEGs of 500 x 375 for the large shape, the sandbox's own small ones for the others."""
    if shape == "vit-b-32":
        return tuple(encoded(picture(i, *PHOTO)) for i in range(DISTINCT))
    files = []
    for i in range(DISTINCT):
        buffer = io.BytesIO()
        sandbox.pair_scene("clean", i).draw(sandbox.PICTURE_SIZE).save(buffer, "PNG", compress_level=1)
        files.append(buffer.getvalue())
    return tuple(files)


@lru_cache
def captions(n: int) -> tuple[str, ...]:
    return tuple(sandbox.caption(sandbox.pair_scene("clean", i)) for i in range(n))


def make_pairs(shape: str, n: int) -> datasets.Dataset:
    """`n` pairs in memory; pictures and captions repeat."""
    files, texts = pictures(shape), captions(min(n, 2000))
    rows = {
        "image": [{"bytes": files[i % len(files)], "path": None} for i in range(n)],
        "caption": [texts[i % len(texts)] for i in range(n)],
    }
    features = datasets.Features({"image": datasets.Image(), "caption": datasets.Value("string")})
    return datasets.Dataset.from_dict(rows, features=features)


def repeated(data: datasets.Dataset, n: int) -> datasets.Dataset:
    """`n` rows that take up no more memory than those given."""
    return data if n <= len(data) else data.select([i % len(data) for i in range(n)])


def make_labelled(shape: str, n: int) -> datasets.Dataset:
    """`n` pictures under labels that take turns."""
    files = pictures(shape)
    names = list(sandbox.CLASSES)
    rows = {
        "image": [{"bytes": files[i % len(files)], "path": None} for i in range(n)],
        "label": [i % len(names) for i in range(n)],
    }
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=names)})
    return datasets.Dataset.from_dict(rows, features=features)


def opened(file: bytes) -> Image.Image:
    return Image.open(io.BytesIO(file))


def flops(config: CLIPConfig, images: int, texts: int, length: int) -> float:
    """Floating-point operations of one forward of both towers (two for each multiply-add); a backward takes twice it.

    Counted are the products of matrices: 24 h^2 a token and layer for the projections and the MLP (of width 4 h), and
    4 L h for attention over L tokens.
    """

    def tower(part, tokens: int) -> float:
        h = part.hidden_size
        layer = 8 * h * h + 4 * h * part.intermediate_size + 4 * tokens * h
        return part.num_hidden_layers * tokens * layer + 2 * h * config.projection_dim

    vision = config.vision_config
    patches = (vision.image_size // vision.patch_size) ** 2
    patching = 2 * patches * vision.hidden_size * 3 * vision.patch_size**2
    return images * (tower(vision, patches + 1) + patching) + texts * tower(config.text_config, length)
