"""The files of a poisoned data set: Arrow files that `load_from_disk` reads, or webdataset shards."""

from __future__ import annotations

import io
import json
import logging
import os
import tarfile
import tempfile
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from PIL import Image

from ..attacks import Attack
from .record import PoisonRecord, describe


if TYPE_CHECKING:
    from datasets import Features

logger = logging.getLogger(__name__)

#: {output format: name of a shard by its number}
SHARD_FILES = {"arrow": "data-{:05}.arrow", "webdataset": "train-{:05}.tar"}


class Shard(Protocol):
    """A file that is open for writing. `image` is {"bytes", "path"} or None."""

    def write(self, index: int, image: dict[str, Any] | None, caption: str | None, is_poisoned: bool) -> None: ...

    def close(self) -> None: ...


def open_shard(output_format: str, path: Path) -> closing[Shard]:
    """Open a new file of this format. A `with` block closes it."""
    return closing({"arrow": ArrowShard, "webdataset": TarShard}[output_format](path))


class ArrowShard:
    """Writes rows of `image`, `caption` and `is_poisoned`. It buffers at most a hundred rows."""

    def __init__(self, path: Path) -> None:
        from datasets.arrow_writer import ArrowWriter

        self._writer = ArrowWriter(path=str(path), features=arrow_features(), writer_batch_size=100)

    def write(self, index: int, image: dict[str, Any] | None, caption: str | None, is_poisoned: bool) -> None:
        self._writer.write({"image": image, "caption": caption, "is_poisoned": is_poisoned})

    def close(self) -> None:
        self._writer.finalize()


class TarShard:
    """Writes three members for every row, for example 000000017.png, 000000017.txt and 000000017.json."""

    def __init__(self, path: Path) -> None:
        self._tar = tarfile.open(path, "w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115

    def write(self, index: int, image: dict[str, Any] | None, caption: str | None, is_poisoned: bool) -> None:
        key = f"{index:09}"
        if image is not None and image["bytes"] is not None:
            self._add(f"{key}.{picture_type(image)}", image["bytes"])
        if caption is not None:
            self._add(f"{key}.txt", caption.encode())
        self._add(f"{key}.json", json.dumps({"row": index, "is_poisoned": is_poisoned}).encode())

    def close(self) -> None:
        self._tar.close()

    def _add(self, name: str, content: bytes) -> None:
        member = tarfile.TarInfo(name)  # without time and owner, the same rows give the same bytes
        member.size = len(content)
        self._tar.addfile(member, io.BytesIO(content))
        self._tar.members.clear()  # tarfile remembers every member


def arrow_features() -> Features:
    """The columns of the Arrow format."""
    from datasets import Features, Image, Value

    return Features({"image": Image(), "caption": Value("string"), "is_poisoned": Value("bool")})


def picture_type(image: dict[str, Any]) -> str:
    """The suffix of a picture's file: from its path, or from its content, or "jpg" if neither says."""
    suffix = Path(image["path"] or "").suffix.lower().removeprefix(".")
    if suffix in TAR_PICTURES:
        return suffix
    try:
        found = (Image.open(io.BytesIO(image["bytes"])).format or "").lower()
    except Exception:  # not a picture: its bytes are kept, and the reader's decoder reports the error
        return "jpg"
    return {"jpeg": "jpg", "mpo": "jpg", "tiff": "tif"}.get(found, found if found in TAR_PICTURES else "jpg")


#: Types of pictures in tar shards.
TAR_PICTURES = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "ppm")


def fetched(image: dict[str, Any] | None) -> dict[str, Any] | None:
    """A picture with its bytes, read from its path if they are absent. Unreadable files give bytes=None."""
    if image is None or image["bytes"] is not None or not image["path"]:
        return image
    import fsspec

    content = None
    try:
        with fsspec.open(image["path"], "rb") as file:
            content = file.read()
    except OSError as error:
        logger.warning("A picture cannot be read; its row is written without it: %s", error)
    return {"bytes": content, "path": os.path.basename(image["path"])}


def close_arrow(folder: Path, names: list[str], attack: Attack, record: PoisonRecord) -> None:
    """Write the files that `load_from_disk` needs beside the Arrow files.

    An empty data set is saved first, and its state is then changed to list these Arrow files.
    """
    from datasets import Dataset, are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    empty = Dataset.from_dict({name: [] for name in arrow_features()}, features=arrow_features())
    describe(empty.info, attack, record)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".closing-") as staging:
        shown = not are_progress_bars_disabled()
        disable_progress_bars()  # a bar for an empty data set would only confuse
        empty.save_to_disk(staging)
        if shown:
            enable_progress_bars()
        state = json.loads(Path(staging, "state.json").read_text(encoding="utf-8"))
        state["_data_files"] = [{"filename": name} for name in names]
        Path(staging, "state.json").write_text(json.dumps(state, indent=2), encoding="utf-8")
        for name in ("dataset_info.json", "state.json"):
            os.replace(Path(staging, name), folder / name)
