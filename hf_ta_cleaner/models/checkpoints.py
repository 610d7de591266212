"""Loads a CLIP from a folder or the Hub without running anything it brings along, and saves it in the ordinary form.

Whatever the source, its files come to one local folder first; safetensors are preferred, a `pytorch_model.bin` is
read with weights-only loading, and code in a repository is never run.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from . import transformers_form
from .downloads import CheckpointError, download, download_file
from .families import bound_texts
from .transformers_form import PICKLES, SAFETENSORS


if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, ProcessorMixin

    from .published.form import Form


logger = logging.getLogger(__name__)

SANDBOX = Path(__file__).parents[1] / "sandbox" / "checkpoint"
RUN_FILES = ("checkpoint-*", *SAFETENSORS, *PICKLES, "config.json", "trainer_state.json", "report.json", "run.json")
RUN_FILES += ("adapter_config.json", "strength.json", "strength-*")  # of LoRA, and of a search for the strength
#: Endings of the names of files that hold weights alone.
WEIGHTS = (".pt", ".pth", ".bin", ".ckpt", ".safetensors")


def load_model(
    model_id: str | os.PathLike,
    *,
    revision: str | None = None,
    dtype: str | torch.dtype | None = None,
    allow_pickle: bool = False,
) -> tuple[PreTrainedModel, ProcessorMixin]:
    """The model, in eval mode, and its processor (images and text): `load_suspect` without the form."""
    model, processor, _ = load_suspect(model_id, revision=revision, dtype=dtype, allow_pickle=allow_pickle)
    return model, processor


def load_suspect(
    model_id: str | os.PathLike,
    *,
    revision: str | None = None,
    dtype: str | torch.dtype | None = None,
    allow_pickle: bool = False,
    from_open_clip: bool = False,
    activation: str | None = None,
    normalization: str | None = None,
) -> tuple[PreTrainedModel, ProcessorMixin, Form]:
    """The model, in eval mode, its processor (images and text), and the form that it came in.

    A checkpoint of transformers takes its weights from, in this order: safetensors (one file or shards), the Hub's own
    conversion of the repository to safetensors, `pytorch_model.bin` (one file or shards) by weights-only loading, with
    a warning. Anything else is read as a published form: `published.loading`. `dtype` is float32 unless given,
    whatever the files hold: training needs float32 master weights.

    Args:
        model_id: A folder, a weights file, a Hub id, a weights file in a Hub repository (`owner/name/folder/file.pt`),
            a name of open_clip's (`RN50:cc12m`), or "sandbox".
        revision: Branch, tag or commit of a Hub id.
        allow_pickle: Unpickle `.bin` and `.pt` files in full, which runs whatever code their author put in.
        from_open_clip: Take open_clip's files where a folder or repository holds those of transformers too.
        activation: `gelu` or `quick_gelu`: settles what a published file does not say.
        normalization: One of `published.configs.NORMALIZATIONS`: settles what a published file does not say.

    Raises:
        CheckpointError: Not found, not allowed, not a CLIP, damaged, incomplete, or asking to run code.
    """
    name = str(model_id)
    import torch  # late, as the others: importing this module stays cheap

    from .published.configs import ACTIVATIONS, NORMALIZATIONS
    from .published.form import Form
    from .published.loading import load_published

    flags = {"activation": (activation, ACTIVATIONS), "normalization": (normalization, NORMALIZATIONS)}
    for flag, (value, known) in flags.items():
        if value is not None and value not in known:
            raise CheckpointError(f"--{flag} must be one of {', '.join(known)}, got {value}")
    source, published = _find(model_id, revision, from_open_clip)
    if not published:
        if activation or normalization:
            raise CheckpointError(
                f"'{name}' is a checkpoint of transformers, whose files say its activation and normalization. "
                "Leave --activation and --normalization out, or edit config.json and preprocessor_config.json."
            )
        model, processor = transformers_form.load(source, model_id, dtype, allow_pickle)
        form = Form()
    else:
        model, processor, form = load_published(
            source, name=name, allow_pickle=allow_pickle, activation=activation, normalization=normalization
        )
        if dtype is not None and dtype != "auto":
            model.to(getattr(torch, dtype) if isinstance(dtype, str) else dtype)
    bound_texts(model, processor.tokenizer)
    transformers_form.tell_of_resizing(processor.image_processor, model_id)
    return model, processor, form


def as_float32(model: PreTrainedModel) -> None:
    """Small steps are lost on weights in half precision; `bf16=True` computes in it and keeps them whole."""
    if model.dtype.itemsize < 4:
        logger.warning("the model's weights are %s; to be trained they are turned into float32", model.dtype)
        model.float()


def save_model(model: PreTrainedModel, processor: ProcessorMixin, folder: str | os.PathLike) -> Path:
    """Save a normal checkpoint: safetensors, config, tokenizer, processor. Returns the folder.

    Everything is written beside the folder first and then moved in, so a full disk or a kill leaves the files of an
    earlier save whole.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".saving-") as staging:
        model.save_pretrained(staging)
        processor.save_pretrained(staging)
        # Also on its own, as preprocessor_config.json: transformers 4 and other libraries look for it there.
        processor.image_processor.save_pretrained(staging)
        for file in sorted(Path(staging).iterdir()):
            os.replace(file, folder / file.name)
    return folder


def prepare_output_dir(folder: str | os.PathLike, *, resume: bool = False, overwrite: bool = False) -> Path:
    """Create the folder of a run, or make sure that using an existing one loses nothing. One process calls this.

    A folder with files in it (names with a leading dot aside) is refused, unless it holds an earlier run and either
    `resume` continues it or `overwrite` replaces it: then the old `checkpoint-*` folders are removed, so that none of
    them is taken for the new run's, and everything else stays until it is written anew.

    Raises:
        CheckpointError: the folder holds files and none of the above applies, or it is no folder.
    """
    folder = Path(folder)
    if resume and overwrite:
        raise CheckpointError("Got both resume and overwrite. Wanted at most one: continue the run, or replace it.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        names = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise CheckpointError(
            f"'{folder}' cannot be the output folder: {error}. Give another --output_dir."
        ) from error
    if not names:
        return folder
    listed = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    is_run = any(next(folder.glob(pattern), None) for pattern in RUN_FILES)
    if not is_run:
        raise CheckpointError(
            f"'{folder}' holds files that are not a run's: {listed}. Wanted an empty or new folder. "
            "Give another --output_dir."
        )
    if not (resume or overwrite):
        raise CheckpointError(
            f"'{folder}' already holds a run: {listed}. Nothing was changed. "
            "Continue it with --resume, or give another --output_dir."
        )
    if overwrite:
        for checkpoint in folder.glob("checkpoint-*"):
            shutil.rmtree(checkpoint)
    return folder


def last_checkpoint(folder: str | os.PathLike) -> str | None:
    """The newest whole `checkpoint-N` of a run, or None.

    The state is written last: a folder without it is a save that was cut off.
    """
    whole = [state.parent for state in Path(folder).glob("checkpoint-[0-9]*/trainer_state.json")]
    return str(max(whole, key=lambda path: int(path.name.split("-")[1]))) if whole else None


# Finding the files.


def _find(model_id: str | os.PathLike, revision: str | None, from_open_clip: bool) -> tuple[Path, bool]:
    """The weights file or the folder of the files, downloaded if need be; and whether its form is a published one.

    Raises:
        CheckpointError: Not found, or not downloaded.
    """
    from .published.loading import is_published, published_files
    from .published.names import hub_id

    path = SANDBOX if str(model_id) == "sandbox" else Path(model_id).expanduser()
    name = str(model_id)
    if path.is_dir():
        return path, from_open_clip or is_published(path)
    if path.is_file():
        if path.suffix not in WEIGHTS:
            raise CheckpointError(
                f"'{name}' is a file that holds no weights. Wanted a folder with config.json, a Hub id, or a file "
                f"that ends in {', '.join(WEIGHTS)}."
            )
        return path, True
    is_local = name == "sandbox" or path.is_absolute() or name.startswith((".", "~"))
    if path.suffix in WEIGHTS and name.count("/") > 1 and not is_local:
        owner, repository, file = name.split("/", 2)
        return download_file(f"{owner}/{repository}", file, revision), True
    if is_local or name.count("/") > 1 or path.suffix in WEIGHTS:
        raise CheckpointError(f"'{path}' does not exist. Wanted a checkpoint folder, a weights file or a Hub id.")
    name = hub_id(name)
    folder = download(name, revision, ["*.json"])
    if from_open_clip or is_published(folder):
        return published_files(name, revision), True
    return transformers_form.find(name, revision), False
