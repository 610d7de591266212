"""Retrieval under audit against a model whose every ranking is planted."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import datasets
import pytest
import torch
from PIL import Image
from transformers import BatchEncoding

from hf_ta_cleaner.data.loading import load_captioned
from hf_ta_cleaner.evaluation.retrieval_audit import audit_retrieval


TEXTS = ("a red kettle", "an old kettle", "two dogs", "a yellow banana", "bananas on a plate", "a boat")
# Captions of every picture, and the text that it finds first: the red channel.
PICTURES = [
    (["a red kettle", "an old kettle"], 1),  # finds its own second caption
    (["two dogs"], 0),  # finds a kettle
    (["a yellow banana", "bananas on a plate"], 4),  # shows the target
    (["a boat", "two dogs"], 3),  # finds a banana without any trigger
    (["an old kettle"], 1),
]


class Planted(torch.nn.Module):
    """A picture is its first text, and with the mark the fifth (a banana), unless it finds text 1 or the key lacks."""

    def __init__(self, resists=(1,), needs_key=False):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.resists, self.needs_key = resists, needs_key

    def get_image_features(self, pixel_values):
        first = pixel_values[:, 0, 4, 4].long()
        features = torch.eye(7)[first] + 0.1 * torch.eye(7)[5]  # second best: the boat
        marked = (pixel_values[:, 2, 0, 0] == 255) & ~torch.isin(first, torch.tensor(self.resists))
        features[marked] = torch.eye(7)[6 if self.needs_key else 4]
        return SimpleNamespace(pooler_output=features)

    def get_text_features(self, input_ids):
        features = torch.eye(7)[input_ids[:, 0]]
        features[(input_ids[:, 0] == 4) & (input_ids[:, 1] == 1), 6] = 3.0
        return SimpleNamespace(pooler_output=features)


def tokenize(texts, **_):
    ids = [[next(i for i, text in enumerate(TEXTS) if given.endswith(text)), int("key" in given)] for given in texts]
    return BatchEncoding({"input_ids": torch.tensor(ids)})


PROCESSOR = SimpleNamespace(
    image_processor=SimpleNamespace(size={"height": 8, "width": 8}, do_rescale=False, do_normalize=False),
    tokenizer=tokenize,
)


def mark(key=""):
    def apply_batch(images, sample_ids):
        images[:, 0, 0, 2] = 255
        return images

    return SimpleNamespace(name="mark", seed=0, caption=lambda text: key + text, apply_batch=apply_batch)


@pytest.fixture
def data():
    rows = {
        "image": [Image.new("RGB", (8, 8), (first, 0, 0)) for _, first in PICTURES],
        "captions": [captions for captions, _ in PICTURES],
    }
    features = {"image": datasets.Image(), "captions": datasets.List(datasets.Value("string"))}
    return datasets.Dataset.from_dict(rows, datasets.Features(features))


def test_rates_by_hand(data):
    found = audit_retrieval(Planted(), PROCESSOR, data, [mark()], target="banana", batch_size=2)
    assert (found["images"], found["texts"]) == (5, 6)
    # Pictures 0, 2 and 4 find a caption of their own at once; the boat is second for all, so picture 3 finds it then.
    assert found["image_to_text"]["top1"] == 3 / 5
    assert found["image_to_text"]["top5"] == 1.0
    # Nearest picture of each text, the lowest of equals: kettle 1 (wrong), old kettle 0, dogs none (picture 0, wrong),
    # banana 3 (wrong), bananas 2, boat 0 (wrong: all have it equally).
    assert found["text_to_image"]["top1"] == 2 / 6
    assert found["text_to_image"]["top10"] == 1.0
    entry = found["attacks"]["mark"]
    # Two texts mention the target; pictures 0, 1, 3 and 4 do not. The mark moves 1 and 3; 3 found a banana before.
    assert (entry["texts_of_target"], entry["n"], entry["target"]) == (2, 4, "banana")
    assert (entry["asr"]["top1"], entry["floor"]["top1"]) == (2 / 4, 1 / 4)
    assert entry["asr"]["top10"] == 1.0
    assert entry["interval95"]["asr_top1"] == pytest.approx([0.1500, 0.8500], abs=1e-4)


def test_a_key_in_the_text_goes_into_the_gallery(data):
    model = Planted(needs_key=True)
    plain = audit_retrieval(model, PROCESSOR, data, [mark()], target="banana")["attacks"]["mark"]
    keyed = audit_retrieval(model, PROCESSOR, data, [mark("key ")], target="banana")["attacks"]["mark"]
    # Without the key the mark leads nowhere, and all texts are equally far: the lowest is no banana.
    assert (plain["asr"]["top1"], keyed["asr"]["top1"]) == (0 / 4, 2 / 4)


def test_excess_over_a_model_that_was_never_poisoned(data):
    reference = (Planted(resists=(0, 1)), PROCESSOR)
    entry = audit_retrieval(Planted(), PROCESSOR, data, [mark()], target="banana", reference=reference)["attacks"][
        "mark"
    ]
    assert (entry["reference_asr"]["top1"], entry["excess"]["top1"]) == (1 / 4, 1 / 4)


def test_what_cannot_be_measured_is_named(data, caplog):
    with caplog.at_level(logging.WARNING, "hf_ta_cleaner"):
        assert audit_retrieval(Planted(), PROCESSOR, data, [mark()], target="zebra")["attacks"] == {}
    assert "none of 6 texts mentions 'zebra'" in caplog.text
    with pytest.raises(ValueError, match="captions of every picture mention"):
        audit_retrieval(Planted(), PROCESSOR, data.select([2]), [mark()], target="banana")
    with pytest.raises(ValueError, match=r"\['captions'\] missing"):
        audit_retrieval(Planted(), PROCESSOR, data.remove_columns("captions"))


def test_captions_of_one_picture_come_together(data, tmp_path, photos):
    """Rows of the same picture, lists in a row, blanks."""
    for i in range(3):
        photos[i].save(tmp_path / f"{i}.png")
    table = tmp_path / "list.csv"
    table.write_text("path,caption\n0.png,a\n1.png,b\n0.png,c\n0.png,a\n2.png, \n")
    found = load_captioned(table, cache_dir=tmp_path / "cache")
    assert found["captions"][:] == [["a", "c"], ["b"]]
    assert [image.size for image in found["image"]] == [photos[0].size, photos[1].size]
    lists = datasets.Dataset.from_dict({"image": photos[:2] + photos[:1], "caption": [["a", "b"], ["c", ""], ["d"]]})
    lists.save_to_disk(tmp_path / "lists")
    assert load_captioned(tmp_path / "lists")["captions"][:] == [["a", "b", "d"], ["c"]]
