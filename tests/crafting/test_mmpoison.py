"""mmPoison: whose picture stands under which caption, and the ranks that a search then gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Image, Value

from hf_ta_cleaner.crafting import mmpoison
from hf_ta_cleaner.crafting.mmpoison import SwapRecord, retrieval_ranks, swap_images


CAPTIONS = ["a dog", "a cat", "two dogs", "a cat on a chair", "a dog and a cat", "a tree", "my dog", "a dog again"]


@pytest.fixture
def pairs(photos, tmp_path):
    for i, photo in enumerate(photos):
        photo.save(tmp_path / f"{i}.jpg")
    files = [(tmp_path / f"{i}.jpg").read_bytes() for i in range(8)]
    rows = {"id": list(range(8)), "image": [{"bytes": b, "path": None} for b in files], "caption": CAPTIONS}
    features = Features({"id": Value("int64"), "image": Image(), "caption": Value("string")})
    return Dataset.from_dict(rows, features=features), files


def stored(data):
    return [row["bytes"] for row in data.cast_column("image", Image(decode=False))["image"]]


def test_every_caption_of_the_source_gets_a_picture_of_the_target(pairs):
    data, files = pairs
    out, record = swap_images(data, source="dog", target="cat", seed=0)
    assert (record.rows, record.count, record.rate, record.n) == ([0, 2, 6, 7], 4, 1.0, 8)
    assert out.column_names == ["id", "image", "caption", "is_poisoned"]
    assert out["is_poisoned"][:] == [True, False, True, False, False, False, True, True]
    assert out["caption"][:] == CAPTIONS and out["id"][:] == list(range(8))
    # Two pictures of cats for four captions: each is used twice, as it is stored, byte for byte.
    assert sorted(record.donors) == [1, 1, 3, 3]
    donors = dict(zip(record.rows, record.donors, strict=True))
    assert stored(out) == [files[donors.get(i, i)] for i in range(8)]
    assert stored(data) == files


def test_a_share_of_the_captions(pairs):
    data, _ = pairs
    out, record = swap_images(data, source="dog", target="cat", rate=0.5, seed=1)
    assert (record.count, record.rate, sum(out["is_poisoned"])) == (2, 0.5, 2)
    assert set(record.rows) < {0, 2, 6, 7}
    assert swap_images(data, source="dog", target="cat", rate=0.5, seed=1)[1] == record
    assert {tuple(swap_images(data, source="dog", target="cat", rate=0.5, seed=s)[1].rows) for s in range(8)} != {
        tuple(record.rows)
    }


def test_the_record_goes_round_and_the_data_is_saved(pairs, tmp_path):
    out, record = swap_images(pairs[0], source="dog", target="cat", seed=0)
    assert SwapRecord.load(record.save(tmp_path / "data" / "swap.json")) == record
    out.save_to_disk(tmp_path / "saved")
    assert stored(Dataset.load_from_disk(tmp_path / "saved")) == stored(out)
    (tmp_path / "other.json").write_text('{"rows": []}')
    with pytest.raises(ValueError, match="no swap record"):
        SwapRecord.load(tmp_path / "other.json")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"source": "bus"}, "'bus'"),
        ({"target": "bus"}, "'bus'"),
        ({"rate": 0}, r"\(0, 1\], got 0"),
        ({"rate": 30}, "got 30"),
        ({"caption_column": "text"}, r"not \['text'\]"),
    ],
)
def test_refusals(pairs, change, words):
    with pytest.raises(ValueError, match=words):
        swap_images(pairs[0], **{"source": "dog", "target": "cat", "seed": 0, **change})


# ---- ranks


@pytest.fixture
def gallery(photos):
    features = Features({"image": Image(), "label": ClassLabel(names=["dog", "cat", "bus"])})
    return Dataset.from_dict({"image": photos[:6], "label": [0, 1, 2, 0, 1, 2]}, features=features)


def test_ranks_by_hand(gallery, tiny_clip, tiny_processor, monkeypatch):
    """Two queries over six pictures; embeddings of two dimensions that put them in a known order."""
    angles = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 2.5])  # dog cat bus dog cat bus
    pictures = torch.stack([angles.cos(), angles.sin()], 1)
    queries = torch.tensor([[np.cos(0.4), np.sin(0.4)], [np.cos(2.4), np.sin(2.4)]], dtype=torch.float32)
    monkeypatch.setattr(mmpoison, "image_features", lambda model, processor, images: pictures)
    monkeypatch.setattr(mmpoison, "text_features", lambda model, processor, texts: queries)
    result = retrieval_ranks(
        tiny_clip, tiny_processor, gallery, source="dog", target="cat", queries=["a dog", "my dog"], k=(1, 2)
    )
    # Query 1: cat dog bus dog cat bus. Query 2: bus cat dog bus cat dog.
    assert (result["queries"], result["gallery"]) == (2, 6)
    assert result["target"] == {"hit": {"top1": 0.5, "top2": 1.0}, "min_rank": 1.5, "mean_rank": (1 + 5 + 2 + 5) / 4}
    assert result["source"] == {"hit": {"top1": 0.0, "top2": 0.5}, "min_rank": 2.5, "mean_rank": (2 + 4 + 3 + 6) / 4}


def test_ranks_of_a_model(gallery, tiny_clip, tiny_processor):
    result = retrieval_ranks(tiny_clip, tiny_processor, gallery, source="dog", target="cat", batch_size=4)
    assert result["queries"] == len(mmpoison.TEMPLATES)
    for role in ("source", "target"):
        assert 1 <= result[role]["min_rank"] <= 5
        assert result[role]["hit"]["top10"] == 1.0
    with pytest.raises(ValueError, match="no picture of 'zebra'"):
        retrieval_ranks(tiny_clip, tiny_processor, gallery, source="zebra", target="cat")
    with pytest.raises(ValueError, match="ClassLabel"):
        retrieval_ranks(tiny_clip, tiny_processor, gallery.remove_columns("label"), source="dog", target="cat")
