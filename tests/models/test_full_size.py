"""A CLIP of ViT-B/32's full size, cleaned from a folder of the pictures people have."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from hf_ta_cleaner.commands import clean


@pytest.fixture
def album(tmp_path):
    """Sixteen captioned JPEG and PNG files of several sizes and modes, one of them cut short."""
    folder, rng, lines = tmp_path / "album", np.random.default_rng(0), []
    folder.mkdir()
    for i in range(16):
        mode = ("RGB", "L", "RGBA", "P")[i % 4]
        size = ((640, 480), (200, 900), (224, 224), (90, 70))[i // 4]
        picture = Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).convert(mode)
        name = f"{i:02}.{'jpg' if mode in ('RGB', 'L') else 'png'}"
        picture.save(folder / name)
        lines.append({"file_name": name, "text": f"a small brown dog runs to the left of tree number {i}"})
    broken = folder / "05.jpg"
    broken.write_bytes(broken.read_bytes()[:200])
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("flags", [(), ("--bf16",)], ids=["fp32", "bf16"])
def test_a_full_size_clip_is_cleaned_from_a_folder_of_files(tiny_processor, album, tmp_path, flags):
    """151 million weights, three steps of eight pairs. The result is an ordinary checkpoint."""
    import torch
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPProcessor

    tokenizer = tiny_processor.tokenizer
    tokens = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    model = CLIPModel(CLIPConfig(text_config=tokens))
    assert 151e6 < sum(weight.numel() for weight in model.parameters()) < 152e6
    suspect = tmp_path / "suspect"
    model.save_pretrained(suspect)
    CLIPProcessor(CLIPImageProcessorPil(), tokenizer).save_pretrained(suspect)
    clean.main(
        ["--model", str(suspect), "--dataset", str(album), "--output_dir", str(tmp_path / "cleaned"), "--max_steps",
         "3", "--per_device_train_batch_size", "8", "--validation_samples", "0", "--learning_rate", "1e-4",
         "--max_unreadable", "0.1", *flags]
    )  # fmt: skip
    cleaned = CLIPModel.from_pretrained(tmp_path / "cleaned")
    processor = CLIPProcessor.from_pretrained(tmp_path / "cleaned")
    assert not torch.equal(cleaned.visual_projection.weight, model.visual_projection.weight)
    with Image.open(album / "00.jpg") as picture, torch.inference_mode():
        found = cleaned(**processor(text=["a dog", "a tree"], images=picture, return_tensors="pt", padding=True))
    assert found.logits_per_image.isfinite().all()
