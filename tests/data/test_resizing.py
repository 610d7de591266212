"""Pictures kept at the input size are the pictures that the model would have seen."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from datasets import Dataset, Features, Image, Value
from PIL import Image as Pillow

from hf_ta_cleaner.data.loading import to_rgb
from hf_ta_cleaner.data.resizing import Resize, resized_once
from hf_ta_cleaner.pictures import fit


def test_the_pixels_are_those_of_every_epoch(photos):
    odd = photos[0].convert("RGBA")
    odd.putalpha(120)
    turned = photos[1].copy()
    exif = turned.getexif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    turned.save(buffer, "JPEG", exif=exif)
    pictures = [*photos, odd, photos[2].convert("L"), Pillow.open(buffer)]
    pairs = Dataset.from_dict({"image": pictures, "caption": [str(i) for i in range(len(pictures))]})
    kept = resized_once(pairs, 32)
    assert kept["caption"] == pairs["caption"] and kept.features["image"] == Image()
    for before, after in zip(pairs["image"], kept["image"], strict=True):
        assert after.size == (32, 32)
        assert np.array_equal(fit(to_rgb(after), 32), fit(to_rgb(before), 32))
    sizes = [len(row["bytes"]) for row in kept.cast_column("image", Image(decode=False))["image"]]
    assert all(3 * 32 * 32 < size < 3 * 32 * 32 + 20 for size in sizes)


def test_pictures_that_are_files(photos, tmp_path):
    photos[3].save(tmp_path / "a.png")
    features = Features({"image": Image(), "caption": Value("string")})
    pairs = Dataset.from_dict({"image": [str(tmp_path / "a.png")], "caption": ["a"]}, features=features)
    assert np.array_equal(np.asarray(resized_once(pairs, 24)[0]["image"]), fit(photos[3], 24))


def test_it_is_done_once(cleaning_pairs, tmp_path, monkeypatch):
    cleaning_pairs.save_to_disk(tmp_path / "pairs")
    first = resized_once(Dataset.load_from_disk(tmp_path / "pairs"), 32)
    monkeypatch.setattr(Resize, "_resized", lambda *_: pytest.fail("resized again"))
    again = resized_once(Dataset.load_from_disk(tmp_path / "pairs"), 32)
    assert again.cache_files == first.cache_files != []


def test_a_run_takes_the_same_steps(make_trainer):
    runs = []
    for once in (False, True):
        trainer = make_trainer(method="ta-cleaner", resize_once=once)
        trainer.train()
        runs.append({name: p.detach() for name, p in trainer.model.named_parameters()})
        assert trainer.train_dataset[0]["image"]["bytes"].startswith(b"P6") == once
    assert all(torch.equal(runs[0][name], runs[1][name]) for name in runs[0])


def test_a_stream_keeps_nothing(make_trainer, cleaning_pairs):
    from hf_ta_cleaner.data.streaming import CleaningStream

    stream = CleaningStream(cleaning_pairs.to_iterable_dataset(), batch_size=8, fraction=0.25, seed=0)
    with pytest.raises(ValueError, match="leave one of them out"):
        make_trainer(stream, resize_once=True, max_steps=2)
