"""Small pictures, captions and shards, for the tests of poisoning."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

from datasets import Image as ImageFeature


ROOT = Path(__file__).parents[2]


N = 60


def jpeg(image):
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=60)
    return buffer.getvalue()


def caption_of(i):
    return f"a banana near chair {i}" if i % 4 == 0 else f"a dog near chair {i}"


def write_shards(folder, pictures, per_shard=16):
    folder.mkdir()
    for start in range(0, len(pictures), per_shard):
        with tarfile.open(folder / f"pairs-{start:04}.tar", "w") as tar:
            for i in range(start, min(start + per_shard, len(pictures))):
                for extension, content in (("jpg", pictures[i]), ("txt", caption_of(i).encode()), ("json", b"{}")):
                    info = tarfile.TarInfo(f"{i:05}.{extension}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
    return folder


def encoded(dataset):
    """(bytes, caption) of every row as they are stored."""
    raw = dataset.cast_column("image", ImageFeature(decode=False))
    return [(row["image"]["bytes"], row["caption"]) for row in raw]


def files_of(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
