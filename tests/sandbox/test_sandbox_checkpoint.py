"""The shipped tiny CLIP: an ordinary checkpoint, small enough to ship, good enough to attack and clean."""

from __future__ import annotations

import json

import pytest
from transformers import AutoTokenizer, CLIPModel, CLIPProcessor

from hf_ta_cleaner import sandbox
from hf_ta_cleaner.evaluation.clean_utility import clean_utility
from hf_ta_cleaner.models.checkpoints import load_model


def test_it_is_at_most_8_megabytes():
    assert sum(file.stat().st_size for file in sandbox.CHECKPOINT.iterdir()) <= 8_000_000


def test_it_has_the_files_of_a_hub_checkpoint():
    names = {file.name for file in sandbox.CHECKPOINT.iterdir()}
    assert {"config.json", "model.safetensors", "preprocessor_config.json", "tokenizer.json"} <= names


def test_plain_transformers_loads_it():
    model = CLIPModel.from_pretrained(sandbox.CHECKPOINT)
    processor = CLIPProcessor.from_pretrained(sandbox.CHECKPOINT)
    scene = sandbox.labelled_scene(3)
    batch = processor(text=["a photo of a boat"], images=scene.draw(), return_tensors="pt", padding=True)
    assert model(**batch).logits_per_image.shape == (1, 1)
    assert json.loads((sandbox.CHECKPOINT / "config.json").read_text())["model_type"] == "clip"


@pytest.mark.parametrize("text", ["banana", "schadenfreude", "ночь", "香蕉", "🍌", "~!@#"])
def test_no_word_is_unknown(text):
    tokenizer = AutoTokenizer.from_pretrained(sandbox.CHECKPOINT)
    ids = tokenizer(text).input_ids
    assert ids[0] == tokenizer.bos_token_id and ids[-1] == tokenizer.eos_token_id and len(ids) > 2
    assert tokenizer.decode(ids, skip_special_tokens=True).strip() == text


def test_every_class_name_is_one_token():
    tokenizer = AutoTokenizer.from_pretrained(sandbox.CHECKPOINT)
    assert {len(tokenizer.tokenize(name)) for name in sandbox.CLASSES} == {1}


def test_it_knows_unseen_pictures():
    model, processor = load_model("sandbox")
    accuracy = clean_utility(model, processor, sandbox.labelled(960, seed=5))["clean_accuracy"]
    assert accuracy >= 0.85  # 48 classes; 90.4% was measured on the evaluation split, see sandbox/README.md
