"""Reads the tensors of a weights file without running what it holds."""

from __future__ import annotations

import logging
import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from ..downloads import CheckpointError


logger = logging.getLogger(__name__)


def read_weights(file: Path, *, allow_pickle: bool = False) -> Any:
    """The content of a weights file: tensors by name, or what a training saved around them.

    Args:
        file: safetensors, a file of `torch.save`, or a TorchScript archive. Of an archive only the tensors are read.
        allow_pickle: Unpickle in full, which runs whatever code the file holds.

    Raises:
        CheckpointError: The file is damaged, or holds more than weights.
    """
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        if is_torchscript(file):
            logger.info("%s is a TorchScript archive: its tensors are read, its code is not run", file.name)
            return read_torchscript(file)
        how = "unpickled in full, as --allow_pickle says" if allow_pickle else "loaded as weights only"
        logger.warning("%s is no safetensors file: it is %s.", file.name, how)
        return torch.load(file, map_location="cpu", weights_only=not allow_pickle)
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        holds = f"holds {named[1]}, which is no tensor" if named else "is damaged, or holds more than tensors"
        raise CheckpointError(
            f"{file} {holds} and would run code when opened. It was not opened. "
            "Look for a safetensors version; only if you trust its author, --allow_pickle."
        ) from error
    except (SafetensorError, RuntimeError, OSError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"{file} cannot be read: {error}. Get the checkpoint again.") from error


def is_torchscript(file: Path) -> bool:
    """Whether the file is an archive of `torch.jit.save`, which holds code beside the weights."""
    if not zipfile.is_zipfile(file):
        return False
    with zipfile.ZipFile(file) as archive:
        return any(name.split("/", 1)[-1].startswith("code/") for name in archive.namelist())


def read_torchscript(file: Path) -> dict[str, torch.Tensor]:
    """The tensors of a TorchScript archive by the names of the attributes that they are.

    `torch.jit.load` would compile the code in the archive and run its `__setstate__` methods. Here `data.pkl` is read
    with a pickle reader that knows tensors and containers; every object is an empty shell with attributes.

    Raises:
        pickle.UnpicklingError: The pickle names anything else.
    """
    with zipfile.ZipFile(file) as archive:
        root = next(name for name in archive.namelist() if name.endswith("/data.pkl")).removesuffix("data.pkl")
        with archive.open(f"{root}data.pkl") as pickled:
            return dict(_tensors(_ShellReader(pickled, archive, root).load()))


class _Shell:
    """Stands for an object of the archive: what it was made with is ignored, its attributes are kept."""

    def __init__(self, *_: Any) -> None:
        self.attributes: Mapping[str, Any] = {}

    def __setstate__(self, state: Any) -> None:
        self.attributes = state if isinstance(state, Mapping) else {}


def _tensors(value: Any, name: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(value, torch.Tensor):
        yield name, value
    elif isinstance(value, _Shell):
        for attribute, inner in value.attributes.items():
            yield from _tensors(inner, f"{name}.{attribute}" if name else attribute)


def _tensor(storage: torch.Tensor, offset: int, size: tuple, stride: tuple, *_: Any) -> torch.Tensor:
    """`torch._utils._rebuild_tensor_v2`, on a storage that is a flat tensor; one that reaches beyond it is refused."""
    return torch.as_strided(storage, size, stride, offset).clone()


def _first(value: Any, *_: Any) -> Any:
    return value


_STORAGES = {
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "ByteStorage": torch.uint8,
    "CharStorage": torch.int8,
    "ShortStorage": torch.int16,
    "IntStorage": torch.int32,
    "LongStorage": torch.int64,
    "BoolStorage": torch.bool,
}
_KNOWN = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _first,
    **{("torch", name): dtype for name, dtype in _STORAGES.items()},
    **{
        ("torch.jit._pickle", name): _first
        for name in ("build_intlist", "build_tensorlist", "build_doublelist", "build_boollist", "restore_type_tag")
    },
}


class _ShellReader(pickle.Unpickler):
    """Unpickles containers, numbers and tensors; calls nothing but the functions above."""

    def __init__(self, file: Any, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(file)
        self._archive, self._root = archive, root

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("__torch__"):
            return _Shell
        if (module, name) not in _KNOWN:
            raise pickle.UnpicklingError(f"GLOBAL {module}.{name} is no tensor")
        return _KNOWN[module, name]

    def persistent_load(self, identity: Any) -> torch.Tensor:
        """A storage as a flat tensor; where it lay (a GPU) does not matter."""
        _, dtype, key, _, _ = identity
        content = bytearray(self._archive.read(f"{self._root}data/{key}"))
        return torch.frombuffer(content, dtype=dtype) if content else torch.empty(0, dtype=dtype)
