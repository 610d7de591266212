"""Writes a model in a published form, beside its checkpoint of transformers."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from .configs import CONFIG, to_open_clip_config
from .form import KINDS, Form, Kind, cleanclip_form, wrap
from .layout import to_published
from .loading import SAFETENSORS


if TYPE_CHECKING:
    from transformers import PreTrainedModel, ProcessorMixin


def check_form(kind: Kind, model: PreTrainedModel) -> None:
    """Makes sure that the model can be written in the form.

    Raises:
        ValueError: There is no such form, or it has no place for the model.
    """
    if kind not in KINDS:
        raise ValueError(f"--save_as must be one of {', '.join(KINDS)}, got {kind}")
    if kind != "transformers" and model.config.model_type not in ("clip", "clip_resnet"):
        raise ValueError(
            f"--save_as {kind} writes a CLIP with a ViT or a ResNet; the model is of type "
            f"'{model.config.model_type}'. Leave it out: the checkpoint is that of transformers"
        )


def save_as(
    form: Form, model: PreTrainedModel, processor: ProcessorMixin, folder: Path, *, kind: Kind | None = None
) -> list[Path]:
    """Writes the model into the folder in the form that it came in, or in another.

    `open_clip` is `open_clip_model.safetensors` and `open_clip_config.json`, which `create_model_and_transforms` of
    open_clip reads. `pt` is a file of `torch.save` in the form of the one that was loaded, or else in CleanCLIP's;
    what the optimiser of an earlier training had learned is left out. Weights are float32.

    Args:
        kind: (default: the form's own.)

    Returns:
        The files; none for `transformers`, which `save_model` writes.

    Raises:
        ValueError: The model cannot be written in this form.
    """
    import torch
    from safetensors.torch import save_file

    kind = kind or form.kind
    check_form(kind, model)
    if kind == "transformers":
        return []
    weights = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    state = to_published({name: t.float() if t.is_floating_point() else t for name, t in weights.items()})
    folder = Path(folder)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".saving-") as staging:
        if kind == "open_clip":
            settings = to_open_clip_config(model, processor, state)
            save_file(state, Path(staging) / SAFETENSORS[0], metadata={"format": "pt"})
            (Path(staging) / CONFIG).write_text(json.dumps(settings, indent=2), encoding="utf-8")
        else:
            original = form if form.kind == "pt" else cleanclip_form(state, folder.resolve().name)
            torch.save(wrap(state, original), Path(staging) / original.file)
        files = [folder / file.name for file in sorted(Path(staging).iterdir())]
        for file in files:
            os.replace(Path(staging) / file.name, file)
    return files
