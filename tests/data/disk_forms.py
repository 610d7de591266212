"""Writers of the forms that published data sets and tools leave on disks, each for the pictures 0.jpg to 5.png."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import datasets

from tests.data.helpers import CAPTIONS, as_metadata_csv, as_webdataset, names, write_csv


def second(caption: str) -> str:
    """Another caption of the same picture."""
    return f"{caption} again"


def move_pictures(folder: Path, below: str) -> Path:
    """The folder "photos" again, now with its pictures in a folder `below` it."""
    (folder / below).mkdir(parents=True)
    for name in names(folder):
        (folder / name).rename(folder / below / name)
    return folder


def as_open_clip_csv(folder, pictures):
    """open_clip's default: columns filepath and title, with tabs, in a file called .csv."""
    rows = [(str(folder / name), caption) for name, caption in zip(names(folder), CAPTIONS, strict=True)]
    return write_csv(folder.parent / "train.csv", ["filepath", "title"], rows, separator="\t")


def as_headless_tsv(folder, pictures):
    return _lines(folder / "list.tsv", [f"{n}\t{c}" for n, c in zip(names(folder), CAPTIONS, strict=True)])


def as_headless_csv_captions_first(folder, pictures):
    return _lines(folder / "list.csv", [f'"{c}",{n}' for n, c in zip(names(folder), CAPTIONS, strict=True)])


def as_semicolons(folder, pictures):
    rows = zip(names(folder), CAPTIONS, strict=True)
    return write_csv(folder / "list.csv", ["image", "caption"], rows, separator=";")


def as_windows_csv(folder, pictures):
    r"""Paths with backslashes, a byte order mark, CRLF."""
    found = names(folder)
    move_pictures(folder, "img")
    rows = [f'img\\{name},"{caption}"' for name, caption in zip(found, CAPTIONS, strict=True)]
    (folder / "list.csv").write_bytes("\r\n".join(["image,caption", *rows, ""]).encode("utf-8-sig"))
    return folder / "list.csv"


def as_windows_csv_of_another_machine(folder, pictures):
    rows = [f'C:\\data\\img\\{name},"{caption}"' for name, caption in zip(names(folder), CAPTIONS, strict=True)]
    move_pictures(folder, "img")
    return _lines(folder / "list.csv", ["image,caption", *rows])


def as_json_list(folder, pictures):
    """LLaVA's CC3M subset: a list of objects with id, image, caption and another caption."""
    rows = [
        {"id": str(i), "image": name, "caption": caption, "blip_caption": "an arafed photo"}
        for i, (name, caption) in enumerate(zip(names(folder), CAPTIONS, strict=True))
    ]
    return _json(move_pictures(folder, "images") / "chat.json", rows)


def as_lone_table_in_a_folder(folder, pictures):
    rows = zip(names(folder), CAPTIONS, strict=True)
    write_csv(folder / "captions.csv", ["image", "caption"], rows)
    return folder


def as_img2dataset_files(folder, pictures):
    """The `files` output: picture, .txt and .json in numbered folders, a parquet of addresses beside them."""
    root = folder.parent / "cc3m"
    for i, (name, caption) in enumerate(zip(names(folder), CAPTIONS, strict=True)):
        shard = root / f"{i // 4:05}"
        shard.mkdir(parents=True, exist_ok=True)
        key = f"{i // 4:05}{i % 4:04}"
        shutil.copy(folder / name, shard / f"{key}{Path(name).suffix}")
        (shard / f"{key}.txt").write_text(caption, encoding="utf-8")
        _json(shard / f"{key}.json", {"caption": caption, "url": f"https://example.org/{name}", "status": "success"})
    _addresses(root / "00000.parquet")
    _json(root / "00000_stats.json", {"count": 6, "successes": 6})
    return root


def as_img2dataset_shards(folder, pictures):
    """The `webdataset` output: a parquet of addresses and a .json of counts beside each shard."""
    root = as_webdataset(folder, pictures)
    (root / "cc3m-validation-0000.tar").unlink()
    _addresses(root / "cc3m-train-0000.parquet")
    _json(root / "cc3m-train-0000_stats.json", {"count": 6, "successes": 6})
    return root


def as_zip(folder, pictures):
    as_metadata_csv(folder, pictures)
    return _zip(folder.parent / "photos.zip", folder.parent, folder.rglob("*"))


def as_zip_of_shards(folder, pictures):
    shards = as_webdataset(folder, pictures)
    return _zip(folder.parent / "shards.zip", shards, shards.glob("*train*"))


def as_flickr_results(folder, pictures):
    """Flickr30k's results.csv: vertical bars with spaces, numbered comments, the pictures in a folder of their own.

    One of its rows has lost a bar, as in the published file; that comment is lost, and its picture is not.
    """
    rows = ["image_name| comment_number| comment"]
    for name, caption in zip(names(folder), CAPTIONS, strict=True):
        rows += [f"{name}| 0| {caption}", f"{name}| 1| {second(caption)}"]
    rows.append(f"{names(folder)[0]}| 2 A dog runs")
    _lines(move_pictures(folder, "flickr30k_images") / "results.csv", rows)
    return folder


def as_coco(folder, pictures):
    """COCO 2017: annotations/captions_train2017.json and others, pictures in train2017/; captions in no order."""
    images = [{"id": 10 + i, "file_name": name} for i, name in enumerate(names(folder))]
    entries = [{"id": i, "image_id": 10 + i, "caption": caption} for i, caption in enumerate(CAPTIONS)]
    entries += [{"id": 9 + i, "image_id": 10 + i, "caption": second(c)} for i, c in enumerate(CAPTIONS)]
    move_pictures(folder, "train2017")
    (folder / "annotations").mkdir()
    (folder / "val2017").mkdir()
    _json(folder / "annotations" / "captions_train2017.json", {"info": {}, "images": images, "annotations": entries})
    (folder / "val2017" / "7.jpg").write_bytes(pictures[0])
    val = {"images": [{"id": 1, "file_name": "7.jpg"}], "annotations": [{"image_id": 1, "caption": "a val caption"}]}
    _json(folder / "annotations" / "captions_val2017.json", val)
    _json(folder / "annotations" / "instances_train2017.json", {"images": images, "annotations": [], "categories": []})
    return folder


def as_coco_file(folder, pictures):
    return as_coco(folder, pictures) / "annotations" / "captions_train2017.json"


def as_karpathy(folder, pictures):
    """Karpathy's dataset_coco.json: filepath, filename, split (train, restval, val, test) and sentences."""
    images = [
        {
            "filepath": "train2014",
            "filename": name,
            "imgid": i,
            "split": "restval" if i % 2 else "train",
            "sentences": [{"tokens": caption.split(), "raw": caption}, {"raw": second(caption)}],
        }
        for i, (name, caption) in enumerate(zip(names(folder), CAPTIONS, strict=True))
    ]
    (folder / "val2014").mkdir()
    (folder / "val2014" / "7.jpg").write_bytes(pictures[0])
    held_out = {"filepath": "val2014", "filename": "7.jpg", "split": "val", "sentences": [{"raw": "a val caption"}]}
    _json(folder / "dataset_coco.json", {"images": [*images, held_out], "dataset": "coco"})
    return move_pictures(folder, "train2014")


def as_jsonl_with_lists(folder, pictures):
    rows = [{"file_name": n, "captions": [c, second(c)]} for n, c in zip(names(folder), CAPTIONS, strict=True)]
    _lines(folder / "metadata.jsonl", [json.dumps(row) for row in rows])
    return folder


def as_repeated_rows(folder, pictures):
    rows = [(n, text(c)) for text in (str, second) for n, c in zip(names(folder), CAPTIONS, strict=True)]
    return write_csv(folder / "list.csv", ["image", "caption"], rows)


ONE_CAPTION = [
    as_open_clip_csv,
    as_headless_tsv,
    as_headless_csv_captions_first,
    as_semicolons,
    as_windows_csv,
    as_windows_csv_of_another_machine,
    as_json_list,
    as_lone_table_in_a_folder,
    as_img2dataset_files,
    as_img2dataset_shards,
    as_zip,
    as_zip_of_shards,
]
TWO_CAPTIONS = [
    as_flickr_results,
    as_coco,
    as_coco_file,
    as_karpathy,
    as_jsonl_with_lists,
    as_repeated_rows,
]


def _lines(file: Path, lines: list[str]) -> Path:
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def _json(file: Path, content) -> Path:
    file.write_text(json.dumps(content), encoding="utf-8")
    return file


def _addresses(file: Path) -> None:
    rows = {"url": ["https://example.org/0.jpg"], "caption": ["a dog"], "key": ["000000000"]}
    datasets.Dataset.from_dict(rows).to_parquet(str(file))


def _zip(file: Path, root: Path, members) -> Path:
    with zipfile.ZipFile(file, "w") as archive:
        for member in members:
            archive.write(member, member.relative_to(root))
    return file
