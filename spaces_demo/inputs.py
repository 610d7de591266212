"""What visitors hand in, read with care: pictures, labels, sentences.

`ProbeError` carries every message that is meant for the person in front of the page.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from hf_ta_cleaner.pictures import fit


MAX_FILE_MB = 8
MAX_PIXELS = 25_000_000
# What browsers show as well. TIFF, EPS and the rest stay closed: fewer decoders, fewer surprises.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
MAX_LABELS = 500
MAX_CHARACTERS = 50_000


class ProbeError(ValueError):
    """Something a visitor can mend; the message says what was got, what was wanted and what to do."""


# Pictures.


def read_picture(path: str | os.PathLike, size: int, geometry: str = "crop") -> tuple[np.ndarray, list[str]]:
    """An uploaded picture as the model will see it, and what was done to it on the way.

    `geometry` is that of `pictures.fit`. The header is judged before a single pixel is decoded.

    Returns:
        uint8 `(size, size, 3)`, and notes for the reader.

    Raises:
        ProbeError: not a picture of the formats above, too large, or broken.
    """
    if os.path.getsize(path) > MAX_FILE_MB * 2**20:
        raise ProbeError(f"The file is larger than {MAX_FILE_MB} MB. Save the picture smaller and try again.")
    notes = []
    try:
        with Image.open(path, formats=FORMATS) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise ProbeError(
                    f"The picture has {width:,} x {height:,} pixels; at most {MAX_PIXELS // 10**6} million are read. "
                    "Scale it down and try again."
                )
            if getattr(image, "is_animated", False):
                notes.append("Animated: only the first frame is used.")
            image.draft(image.mode, (2 * size, 2 * size))  # a large JPEG is decoded at a fraction of its size
            image.load()
            upright = ImageOps.exif_transpose(image)
            if upright.mode.startswith("I"):
                upright = _eight_bits(upright)
                notes.append("16-bit: reduced to 8 bits a channel.")
            if upright.mode == "CMYK":
                notes.append("CMYK: converted to RGB without its colour profile.")
            return fit(upright, size, geometry), notes
    except ProbeError:
        raise
    except Image.DecompressionBombError as error:
        raise ProbeError(
            f"The picture claims far more pixels than the {MAX_PIXELS // 10**6} million that are read. "
            "Scale it down and try again."
        ) from error
    except Exception as error:  # a decoder may raise anything on a damaged file
        raise ProbeError(
            f"This file cannot be read as a picture. Wanted {', '.join(FORMATS)}, whole. Save it again and retry."
        ) from error


def uploaded(file: dict | None) -> str:
    """The path of gradio's `{"path": ...}`, if it is that of an uploaded file: those lie in GRADIO_TEMP_DIR.

    Raises:
        ProbeError: there is none, or it lies elsewhere.
    """
    path = file.get("path") if isinstance(file, dict) else None
    if not path or not isinstance(path, str):
        raise ProbeError("There is no picture yet. Choose an example or upload one.")
    if not Path(path).resolve().is_relative_to(Path(os.environ["GRADIO_TEMP_DIR"]).resolve()):
        raise ProbeError("Pictures come as uploaded files.")
    return path


def _eight_bits(image: Image.Image) -> Image.Image:
    values = np.asarray(image).astype(np.float32)
    top = 65535 if values.max() > 255 else 255
    return Image.fromarray(np.rint(values.clip(0, top) * (255 / top)).astype(np.uint8))


# Prompts.


@dataclass(frozen=True)
class Prompts:
    """What the models choose between: class names, which are put into templates, or whole sentences as they are."""

    texts: tuple[str, ...]
    sentences: bool = False


def read_prompts(text: str, sentences: bool = False) -> Prompts:
    """Labels separated by commas or lines, or sentences by lines; blanks and repetitions are left out.

    Raises:
        ProbeError: fewer than two, more than 500, or more text than 50,000 characters.
    """
    if len(text) > MAX_CHARACTERS:
        raise ProbeError(f"Got {len(text):,} characters of text; at most {MAX_CHARACTERS:,} are read. Shorten it.")
    seen: dict[str, str] = {}
    for part in re.split(r"\n" if sentences else r"[\n,]", text):
        part = " ".join(part.split())
        seen.setdefault(part.replace("_", " ").strip().lower(), part)
    seen.pop("", None)
    kind = "sentences, one a line" if sentences else "labels, separated by commas"
    if len(seen) < 2:
        raise ProbeError(f"Wanted at least two different {kind}; got {len(seen)}. Add some for the models to choose.")
    if len(seen) > MAX_LABELS:
        raise ProbeError(f"Got {len(seen):,} texts; at most {MAX_LABELS} are compared at once. Leave some out.")
    return Prompts(tuple(seen.values()), sentences)


def label_of(name: str, labels: Sequence[str]) -> str | None:
    """The label that a file name begins with: "traffic light 2.jpg" or "dog_01.png"; the longest one if several do."""
    stem, *plain = (re.sub(r"[\W_]+", " ", text).strip().lower() for text in (Path(name).stem, *labels))
    fits = [label for label, text in zip(labels, plain, strict=True) if re.match(rf"{re.escape(text)}\b", stem)]
    return max(fits, key=len, default=None)
