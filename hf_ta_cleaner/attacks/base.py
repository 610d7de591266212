"""The base class of triggers: a frozen, picklable function from image to image that can be saved beside a model.

Apply a trigger to pictures that already have the model's input size; `pictures.fit` resizes them.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from hf_ta_cleaner.attacks.pixels import like, require_choice
from hf_ta_cleaner.pictures import on_white


__all__ = ["Attack", "Pattern", "require_picture"]

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Pattern:
    """A small array as a value: hashable, comparable, and pickled to the same bytes in every process."""

    data: bytes = field(repr=False)
    shape: tuple[int, ...]
    dtype: str = "uint8"

    def __post_init__(self) -> None:
        expected = int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize
        if len(self.data) != expected:
            raise ValueError(
                f"A {self.dtype} pattern of shape {self.shape} has {expected} bytes, got {len(self.data)}."
            )

    @classmethod
    def of(cls, source: Pattern | np.ndarray | Image.Image | str | Path) -> Pattern:
        """From a pattern, an array, a picture (as RGB) or the path of a picture."""
        if isinstance(source, cls):
            return source
        if isinstance(source, (str, Path)):
            with Image.open(source) as image:
                source = on_white(image)
        array = np.array(on_white(source)) if isinstance(source, Image.Image) else np.ascontiguousarray(source)
        return cls(array.tobytes(), tuple(array.shape), array.dtype.name)

    @property
    def array(self) -> np.ndarray:
        """The values, read-only."""
        return np.frombuffer(self.data, self.dtype).reshape(self.shape)

    @property
    def is_picture(self) -> bool:
        """Whether this is an RGB picture: uint8 (h, w, 3) with at least one pixel."""
        return self.dtype == "uint8" and len(self.shape) == 3 and self.shape[-1] == 3 and 0 not in self.shape

    @property
    def sha256(self) -> str:
        """Digest of the values, shape and type. It does not depend on the file format."""
        return hashlib.sha256(f"{self.dtype}{self.shape}".encode() + self.data).hexdigest()


def require_picture(source: Pattern | np.ndarray | Image.Image | str | Path) -> Pattern:
    """Return `Pattern.of(source)`; raise a ValueError unless it is an RGB picture."""
    pattern = Pattern.of(source)
    if not pattern.is_picture:
        raise ValueError(f"Expected a picture as uint8 (h, w, 3), got {pattern.dtype} of shape {pattern.shape}.")
    return pattern


@dataclass(frozen=True, kw_only=True)
class Attack(ABC):
    """A backdoor trigger: a function image -> image that depends only on its fields and the `sample_id`.

    A subclass is a frozen dataclass whose fields are JSON values or `Pattern`s. It sets the class attributes below and
    implements `_apply`. It caches nothing on the instance, because that changes the `datasets` fingerprint.

    Args:
        seed: seed of all random draws of the trigger.
    """

    name: ClassVar[str]
    paper: ClassVar[str]
    citation: ClassVar[str]
    # Where the attack takes the captions of poisoned rows from: "templates", "natural" captions that name the target,
    # or "own" (the caption stays, and only rows that name the target are poisoned).
    caption_source: ClassVar[str] = "templates"

    seed: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.seed, bool) or not isinstance(self.seed, int):
            raise TypeError(f"seed must be an integer, got {self.seed!r}.")

    @abstractmethod
    def _apply(self, images: np.ndarray, sample_ids: Sequence[int]) -> np.ndarray:
        """Map uint8 (N, H, W, 3) to uint8 (N, H, W, 3) without changing the input."""

    def __call__(self, image: Image.Image | np.ndarray, sample_id: int) -> Image.Image | np.ndarray:
        """Apply the trigger to one picture. The input does not change.

        Args:
            image: PIL image of any mode and size, or uint8 array (H, W, 3).
            sample_id: seeds the draws of a random trigger; for example the row index of a data set.

        Returns:
            An image of the same type, size and mode. Other modes than RGB are converted to RGB and back. An alpha
            channel is kept. A palette image gets a new palette.
        """
        if isinstance(image, np.ndarray):
            return self.apply_batch(image[None], [sample_id])[0]
        if not isinstance(image, Image.Image):
            raise TypeError(f"Expected a PIL image or a uint8 array (H, W, 3), got {type(image).__name__}.")
        pixels = np.asarray(image.convert("RGB"))
        return like(image, self.apply_batch(pixels[None], [sample_id])[0])

    def apply_batch(self, images: np.ndarray, sample_ids: Sequence[int]) -> np.ndarray:
        """Apply the trigger to uint8 images (N, H, W, 3), one sample id each. The result equals one call per image."""
        images = np.asarray(images)
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:
            raise TypeError(
                f"Expected uint8 images with a last dimension of 3 (RGB), got {images.dtype} of shape {images.shape}. "
                "Convert other pictures with fit() or PIL's .convert('RGB')."
            )
        if len(sample_ids) != len(images):
            raise ValueError(f"Got {len(images)} images but {len(sample_ids)} sample ids; give one id per image.")
        if images.size == 0:
            return images.copy()
        return self._apply(images, [int(i) for i in sample_ids])

    def caption(self, text: str) -> str:
        """Apply the trigger's text part; return the text unchanged if it has none."""
        return text

    def parameters(self) -> dict[str, Any]:
        """The fields as JSON values, without the seed and the patterns."""
        values = {item.name: getattr(self, item.name) for item in fields(self) if item.name != "seed"}
        return {key: value for key, value in values.items() if not isinstance(value, Pattern)}

    def patterns(self) -> dict[str, Pattern]:
        """The fields that are arrays."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return {key: value for key, value in values.items() if isinstance(value, Pattern)}

    def save(self, folder: str | Path, overwrite: bool = False) -> Path:
        """Write trigger.json and, for a trigger with arrays, trigger.png (one picture) or trigger.npz.

        Returns:
            The path of trigger.json.

        Raises:
            FileExistsError: if the folder holds another trigger and `overwrite` is not set.
        """
        folder = Path(folder)
        path = folder / "trigger.json"
        content = self._description()
        if path.exists() and not overwrite:
            known = _read_json(path)
            if {**known, "package_version": None} != {**content, "package_version": None}:
                raise FileExistsError(
                    f"{folder} already holds another trigger ({known.get('name')!r}). A backdoored model needs its "
                    "own trigger beside it. Choose another folder or pass overwrite=True."
                )
        folder.mkdir(parents=True, exist_ok=True)
        for stale in ("trigger.png", "trigger.npz"):
            (folder / stale).unlink(missing_ok=True)
        patterns = self.patterns()
        if content["file"] == "trigger.png":
            (pattern,) = patterns.values()
            Image.fromarray(pattern.array).save(folder / "trigger.png")
        elif content["file"] == "trigger.npz":
            np.savez(folder / "trigger.npz", **{key: pattern.array for key, pattern in patterns.items()})
        path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        return path

    def _description(self) -> dict[str, Any]:
        patterns = self.patterns()
        one_picture = [pattern.is_picture for pattern in patterns.values()] == [True]
        file = None if not patterns else "trigger.png" if one_picture else "trigger.npz"
        content = {
            "format_version": FORMAT_VERSION,
            "name": self.name,
            "seed": self.seed,
            "parameters": self.parameters(),
            "file": file,
            "sha256": {key: pattern.sha256 for key, pattern in patterns.items()},
            "package_version": _package_version(),
        }
        return json.loads(json.dumps(content))

    @classmethod
    def load(cls, folder: str | Path) -> Attack:
        """Read a trigger that `save` wrote. A subclass accepts only its own attack.

        Raises:
            FileNotFoundError: if the folder holds no trigger.
            ValueError: if the files are damaged, or their trigger or format version is unknown.
        """
        folder = Path(folder)
        path = folder / "trigger.json"
        if not path.is_file():
            raise FileNotFoundError(f"{folder} holds no trigger.json. Attack.save(folder) writes one.")
        content = _read_json(path)
        if content.get("format_version") != FORMAT_VERSION:
            raise ValueError(
                f"{path} has format version {content.get('format_version')!r}, but this package reads "
                f"{FORMAT_VERSION}. Install the version of the package that wrote it."
            )
        name = content.get("name")
        if "name" in vars(cls):
            if name != cls.name:
                raise ValueError(
                    f"{path} holds the trigger {name!r}, not {cls.name!r}. Use Attack.load to read any trigger."
                )
            kind = cls
        else:
            kinds = {kind.name: kind for kind in _subclasses(Attack) if "name" in vars(kind)}
            require_choice(f"In {path}: name", name, kinds)
            kind = kinds[name]
        values = {key: tuple(v) if isinstance(v, list) else v for key, v in content.get("parameters", {}).items()}
        unknown = sorted(set(values) - {item.name for item in fields(kind)})
        if unknown:
            raise ValueError(f"{path} has parameters that {kind.__name__} does not know: {', '.join(unknown)}.")
        return kind(seed=content.get("seed", 0), **values, **_load_patterns(folder, content))


def _subclasses(cls: type) -> Iterator[type]:
    for kind in cls.__subclasses__():
        yield kind
        yield from _subclasses(kind)


def _load_patterns(folder: Path, content: dict[str, Any]) -> dict[str, Pattern]:
    expected = content.get("sha256", {})
    if not expected:
        return {}
    path = folder / content["file"]
    if not path.is_file():
        raise ValueError(
            f"{folder / 'trigger.json'} needs {path.name} beside it, but that file is missing. Restore it."
        )
    if path.suffix == ".png":
        (key,) = expected
        patterns = {key: Pattern.of(path)}
    else:
        with np.load(path, allow_pickle=False) as arrays:
            patterns = {key: Pattern.of(arrays[key]) for key in expected}
    changed = sorted(key for key, pattern in patterns.items() if pattern.sha256 != expected[key])
    if changed:
        raise ValueError(
            f"{path} was changed after it was saved ({', '.join(changed)}): its pixels do not match the "
            "digest in trigger.json. Restore the original file. A re-compressed picture is another trigger."
        )
    return patterns


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not readable as JSON: {error}. Restore it or save the trigger again.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} should hold a JSON object, got {type(content).__name__}.")
    return content


def _package_version() -> str:
    try:
        return metadata.version("hf_ta_cleaner")
    except metadata.PackageNotFoundError:
        return "not installed"
