"""Shared fixtures: no network, few threads, a random CLIP small enough to build in milliseconds."""

from __future__ import annotations

import logging
import os


os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def logging_as_it_was():
    """A command sets up the logging of its process; the next test shall not notice."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = before


@pytest.fixture(scope="session")
def tiny_processor():
    """A CLIPProcessor for 32-pixel pictures; its byte-level BPE has no merges, so every letter is a token."""
    from tokenizers import pre_tokenizers
    from transformers import CLIPImageProcessorPil, CLIPProcessor, CLIPTokenizer

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = alphabet + [f"{byte}</w>" for byte in alphabet] + ["<|startoftext|>", "<|endoftext|>"]
    tokenizer = CLIPTokenizer(vocab={word: i for i, word in enumerate(words)}, merges=[], model_max_length=77)
    image_processor = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    return CLIPProcessor(image_processor, tokenizer)


@pytest.fixture
def tiny_clip(tiny_processor):
    """A randomly initialised CLIPModel with 32-pixel input and 16 dimensions, the same weights in every test."""
    import torch
    from transformers import CLIPConfig, CLIPModel

    tokenizer = tiny_processor.tokenizer
    tower = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = CLIPConfig(
        text_config={
            **tower,
            "vocab_size": len(tokenizer),
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        vision_config={**tower, "image_size": 32, "patch_size": 8},
        projection_dim=16,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return CLIPModel(config).eval()


@pytest.fixture(scope="session")
def siglip_processor(tmp_path_factory):
    """A SiglipProcessor for 32-pixel pictures with a SentencePiece model trained on a few captions."""
    import sentencepiece
    from transformers import SiglipProcessor, SiglipTokenizer
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

    folder = tmp_path_factory.mktemp("sentencepiece")
    captions = [f"a {color} {noun} on the table" for color in ("red", "green") for noun in ("dog", "cat", "bus")]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([*captions, "abcdefghijklmnopqrstuvwxyz"]),
        model_prefix=str(folder / "spiece"),
        vocab_size=48,
        hard_vocab_limit=False,
        pad_id=-1,
        bos_id=-1,
        eos_id=1,
        unk_id=2,
        minloglevel=2,
    )
    tokenizer = SiglipTokenizer(vocab_file=str(folder / "spiece.model"), model_max_length=16)
    return SiglipProcessor(SiglipImageProcessorPil(size={"height": 32, "width": 32}), tokenizer)


@pytest.fixture
def tiny_siglip(siglip_processor):
    """A randomly initialised SiglipModel with 32-pixel input, 16 tokens and the released temperature and bias."""
    import torch
    from transformers import SiglipConfig, SiglipModel

    tower = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = SiglipConfig(
        text_config={
            **tower,
            "vocab_size": len(siglip_processor.tokenizer),
            "max_position_embeddings": 16,
            "bos_token_id": None,
            "eos_token_id": 1,
            "pad_token_id": 1,
        },
        vision_config={**tower, "image_size": 32, "patch_size": 8},
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = SiglipModel(config).eval()
    model.logit_scale.data.fill_(4.77)
    model.logit_bias.data.fill_(-12.9)
    return model


@pytest.fixture(scope="session")
def photos() -> list[Image.Image]:
    """Eight RGB pictures of different sizes: smooth gradients with a noisy square, nothing flat, nothing saturated."""
    pictures = []
    for i in range(8):
        r = np.random.default_rng(i)
        height, width = 40 + 7 * i, 90 - 6 * i
        y, x = np.mgrid[0:height, 0:width]
        base = np.stack([60 + 120 * x / width, 60 + 120 * y / height, np.full((height, width), 40.0 + 20 * i)], -1)
        base[5:25, 8:30] += r.normal(0, 25, (20, 22, 3))
        pictures.append(Image.fromarray(base.clip(0, 255).astype(np.uint8)))
    return pictures


@pytest.fixture(scope="session")
def cleaning_pairs(photos):
    """32 pairs with parsed captions: four batches of eight."""
    from datasets import Dataset

    from hf_ta_cleaner.subtexts import SubTextMap

    nouns = ("dog", "cat", "bus", "apple", "chair", "horse", "boat", "bird")
    colors = ("red", "green", "white", "black")
    captions = [f"a {color} {noun} on the {nouns[(i + 3) % 8]}" for color in colors for i, noun in enumerate(nouns)]
    return Dataset.from_dict({"image": photos * 4, "caption": captions}).map(SubTextMap(), batched=True)


@pytest.fixture
def make_trainer(tiny_clip, tiny_processor, cleaning_pairs, tmp_path):
    """Makes a trainer of a fresh copy of the tiny CLIP: three steps of eight pairs unless told otherwise."""
    from copy import deepcopy

    from hf_ta_cleaner.training.config import TACleanerConfig
    from hf_ta_cleaner.training.trainer import TACleanerTrainer

    def make(
        data=cleaning_pairs,
        *,
        model=None,
        processor=tiny_processor,
        folder="out",
        callbacks=None,
        eval_dataset=None,
        **options,
    ):
        defaults = {
            "max_steps": 3,
            "per_device_train_batch_size": 8,
            "learning_rate": 1e-3,
            "warmup_steps": 0,
            "logging_steps": 1,
            "save_strategy": "no",
            "disable_tqdm": True,
            "use_cpu": True,
        }
        args = TACleanerConfig(output_dir=str(tmp_path / folder), **defaults | options)
        return TACleanerTrainer(
            deepcopy(tiny_clip) if model is None else model,
            args,
            data,
            eval_dataset=eval_dataset,
            processing_class=processor,
            callbacks=callbacks,
        )

    return make


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A Hub on the loopback interface, which this process's client talks to as "tester", with a cache of its own.

    The client's waits before a retry are not waited: `hub.waits` has their seconds.
    """
    import datasets
    from huggingface_hub import constants, file_download, hf_api
    from huggingface_hub.utils import _http

    from tests.hub_server import HubServer

    with HubServer() as server:
        url = server.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        switches = {"ENDPOINT": server.endpoint, "HUGGINGFACE_CO_URL_TEMPLATE": url, "HF_HUB_OFFLINE": False}
        switches |= {"HF_HUB_CACHE": str(tmp_path / "hub-cache"), "HF_HUB_DISABLE_XET": True}
        for name, value in switches.items():  # the client read these from the environment when it was imported
            monkeypatch.setattr(constants, name, value)
        monkeypatch.setattr(hf_api.api, "endpoint", server.endpoint)
        monkeypatch.setattr(datasets.config, "HF_ENDPOINT", server.endpoint)
        monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", "hf_tester")
        server.waits = []
        for module in (_http, file_download):
            monkeypatch.setattr(module, "time", Clock(server.waits))
        yield server


class Clock:
    """`time`, but `sleep` only takes a note."""

    def __init__(self, waits: list[float]) -> None:
        self.sleep = waits.append

    def __getattr__(self, name):
        import time

        return getattr(time, name)
