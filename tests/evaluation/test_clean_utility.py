"""Clean utility on embeddings small enough to rank by hand."""

from __future__ import annotations

import numpy as np
import torch
from datasets import ClassLabel, Dataset

from hf_ta_cleaner.evaluation.clean_utility import clean_utility
from hf_ta_cleaner.evaluation.retrieval import retrieval_recall
from hf_ta_cleaner.models.zero_shot import ZeroShotHead, image_features, text_features
from hf_ta_cleaner.pictures import fit


def unit(*degrees: float) -> torch.Tensor:
    angles = torch.tensor(degrees).deg2rad()
    return torch.stack([angles.cos(), angles.sin()], dim=1)


def test_recall_by_hand():
    # Captions at 0, 50, 100 and 180 degrees. The pictures at 5, 80, 170 and 100 are nearest to captions 0, 2, 3
    # and 2; the captions are nearest to pictures 0, 1, 3 and 2.
    images, texts = unit(5, 80, 170, 100), unit(0, 50, 100, 180)
    found = retrieval_recall(images, texts, ["a", "b", "c", "d"])
    assert found == {"image_to_text_recall@1": 1 / 4, "text_to_image_recall@1": 2 / 4, "recall@1": 3 / 8}


def test_pictures_with_one_caption_share_their_matches():
    images, texts = unit(5, 80, 170, 100), unit(0, 50, 100, 180)
    # Pictures 2 and 3 find each other's caption, which is also their own; so do the captions.
    assert retrieval_recall(images, texts, ["a", "b", "c", "c"])["image_to_text_recall@1"] == 3 / 4
    assert retrieval_recall(images, texts, ["a", "b", "c", "c"])["text_to_image_recall@1"] == 1
    assert retrieval_recall(images, texts, ["a"] * 4)["recall@1"] == 1


def test_labels_come_before_captions(tiny_clip, tiny_processor, photos):
    names = ["dog", "bus", "apple"]
    rows = Dataset.from_dict({"image": photos, "caption": [f"photo {i}" for i in range(8)], "label": [0, 1] * 4})
    data = rows.cast_column("label", ClassLabel(names=names))
    found = clean_utility(tiny_clip, tiny_processor, data, batch_size=3)
    images = image_features(tiny_clip, tiny_processor, np.stack([fit(photo, 32) for photo in photos]))
    guesses = ZeroShotHead.build(tiny_clip, tiny_processor, names).logits(images).argmax(1).tolist()
    accuracy = sum(guess == label for guess, label in zip(guesses, [0, 1] * 4, strict=True)) / 8
    assert found == {"clean_utility": accuracy, "clean_accuracy": accuracy}

    # A label without names cannot be asked for; the captions can.
    unnamed = clean_utility(tiny_clip, tiny_processor, rows, batch_size=3)
    texts = text_features(tiny_clip, tiny_processor, rows["caption"][:])
    assert unnamed["recall@1"] == retrieval_recall(images, texts, rows["caption"][:])["recall@1"]
    assert unnamed["clean_utility"] == unnamed["recall@1"]
