"""Clean utility: accuracy or recall without an attack, on held-out data, during and after training."""

from __future__ import annotations

import numpy as np
import torch

from ..data.loading import to_rgb
from ..models.zero_shot import ZeroShotHead, image_features, input_geometry, input_size, text_features
from ..pictures import fit
from .retrieval import retrieval_recall


def clean_utility(model, processor, dataset, *, batch_size: int = 256) -> dict[str, float]:
    """Zero-shot accuracy where there are labels, else retrieval recall where there are captions.

    Args:
        model, processor: The dual encoder and its processor.
        dataset: Columns `image` and `label` (ClassLabel), or `image` and `caption`.
        batch_size: Pictures per forward.

    Returns:
        `{"clean_accuracy": top-1}` or `{"recall@1": mean of both directions, "image_to_text_recall@1": ...,
        "text_to_image_recall@1": ...}`, and `"clean_utility"`, the first of them. All in [0, 1].

    Raises:
        ValueError: The dataset has neither a ClassLabel column `label` nor a column `caption`.
    """
    columns = dataset.column_names
    names = getattr(dataset.features.get("label"), "names", None)
    if "image" not in columns or (names is None and "caption" not in columns):
        found = ", ".join(f"{name} ({type(dataset.features[name]).__name__})" for name in columns)
        raise ValueError(
            f"held-out data needs a column image, and a column label (ClassLabel) or caption; found {found}. "
            "Rename them with dataset.rename_column, or load the data with load_labelled or load_pairs"
        )
    size, geometry = input_size(processor), input_geometry(processor)
    features = torch.cat(
        [
            image_features(model, processor, np.stack([fit(to_rgb(im), size, geometry) for im in batch["image"]]))
            for batch in dataset.select_columns("image").iter(batch_size)
        ]
    )
    if names is not None:
        head = ZeroShotHead.build(model, processor, names)
        correct = head.logits(features).argmax(-1).cpu() == torch.tensor(dataset["label"][:])
        accuracy = correct.float().mean().item()
        return {"clean_utility": accuracy, "clean_accuracy": accuracy}
    captions = dataset["caption"][:]
    recall = retrieval_recall(features, text_features(model, processor, captions), captions)
    return {"clean_utility": recall["recall@1"], **recall}
