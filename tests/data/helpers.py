"""Small pictures and files of every form, for the tests of the data."""

from __future__ import annotations

import io
import json
import tarfile

import datasets
from PIL import Image


CAPTIONS = ["a dog", "two cats on a mat", "a red kettle", "café, with a comma", "a boat", "a tall tree"]


def encode(image: Image.Image, form: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form)
    return buffer.getvalue()


def names(folder):
    return sorted(file.name for file in folder.iterdir() if file.suffix in {".jpg", ".png"})


def write_csv(file, header, rows, separator=","):
    quoted = [[f'"{cell}"' if separator in str(cell) else str(cell) for cell in row] for row in rows]
    file.write_text("\n".join(separator.join(row) for row in [header, *quoted]) + "\n", encoding="utf-8")
    return file


def write_tar(file, samples):
    with tarfile.open(file, "w") as tar:
        for key, fields in samples:
            for extension, content in fields.items():
                info = tarfile.TarInfo(f"{key}.{extension}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))


def as_metadata_jsonl(folder, pictures):
    lines = [json.dumps({"file_name": n, "text": c}) for n, c in zip(names(folder), CAPTIONS, strict=True)]
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def as_metadata_csv(folder, pictures):
    write_csv(folder / "metadata.csv", ["file_name", "caption"], zip(names(folder), CAPTIONS, strict=True))
    return folder


def as_csv(folder, pictures):
    rows = [(f"photos/{n}", c) for n, c in zip(names(folder), CAPTIONS, strict=True)]
    return write_csv(folder.parent / "list.csv", ["path", "caption"], rows)


def as_tsv(folder, pictures):
    rows = zip(CAPTIONS, names(folder), strict=True)
    return write_csv(folder / "list.tsv", ["text", "file"], rows, separator="\t")


def as_parquet_of_images(folder, pictures):
    rows = {"image": [{"path": None, "bytes": p} for p in pictures], "caption": CAPTIONS}
    features = datasets.Features({"image": datasets.Image(), "caption": datasets.Value("string")})
    file = folder.parent / "pairs.parquet"
    datasets.Dataset.from_dict(rows, features=features).to_parquet(str(file))
    return file


def as_parquet_in_webdataset_layout(folder, pictures):
    root = folder.parent / "parquet"
    root.mkdir()
    for shard in range(2):
        part = slice(3 * shard, 3 * shard + 3)
        rows = {"__key__": ["a", "b", "c"], "jpg": pictures[part], "txt": CAPTIONS[part]}  # bytes, not yet images
        datasets.Dataset.from_dict(rows).to_parquet(str(root / f"train-0000{shard}-of-00002.parquet"))
    return root


def as_webdataset(folder, pictures):
    root = folder.parent / "shards"
    root.mkdir()
    samples = [(f"{i:04}", {"jpg": p, "txt": CAPTIONS[i].encode()}) for i, p in enumerate(pictures)]
    write_tar(root / "cc3m-train-0000.tar", samples[:3])
    write_tar(root / "cc3m-train-0001.tar", samples[3:])
    write_tar(root / "cc3m-validation-0000.tar", samples[:2])
    return root


def as_saved(folder, pictures):
    rows = {"image": [{"path": None, "bytes": p} for p in pictures], "caption": CAPTIONS, "other": range(6)}
    datasets.Dataset.from_dict(rows).cast_column("image", datasets.Image()).save_to_disk(folder.parent / "saved")
    return folder.parent / "saved"


def saved_labels(path, pictures, labels, feature=None):
    features = datasets.Features({"image": datasets.Image(), "label": feature}) if feature else None
    rows = {"image": [{"path": None, "bytes": p} for p in pictures[: len(labels)]], "label": labels}
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(path)
    return path
