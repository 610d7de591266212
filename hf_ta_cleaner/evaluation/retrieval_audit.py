"""Image-text retrieval of a model under audit: recall in both directions, and what a trigger does to it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from hf_ta_cleaner.distributed import dealt, undeal
from hf_ta_cleaner.evaluation.inputs import by_name, fitted, target_of, triggered
from hf_ta_cleaner.evaluation.retrieval import matches, rank, recall
from hf_ta_cleaner.models.zero_shot import image_features, input_geometry, input_size, text_features
from hf_ta_cleaner.poisoning import mentions


logger = logging.getLogger(__name__)

RANKS = (1, 5, 10)


def audit_retrieval(
    model,
    processor,
    dataset,
    attacks: Sequence | Mapping[str, Any] = (),
    *,
    target: str | Mapping[str, str] | None = None,
    reference: tuple | None = None,
    geometry: str | None = None,
    batch_size: int = 256,
) -> dict:
    """Recall of captions and pictures, and for every attack its success in image-to-text retrieval.

    A retrieval attack succeeds at k where the trigger brings at least one text that mentions the target among the k
    best. It is counted over the pictures none of whose own captions mentions it. An attack that changes texts too puts
    its key into every text of the gallery, with and without the trigger on the picture.

    With several processes every one calls this, takes its share of the pictures and returns the whole result. A target
    that no text mentions cannot be found: that attack is left out, with a warning.

    Args:
        dataset: Columns `image` and `captions`, a list of texts for every picture (`data.load_captioned`).
        reference: `(model, processor)` that was never poisoned: adds `reference_asr` and `excess`.

    Returns:
        The `retrieval` of a report's section, see docs/report.md; rates in [0, 1].

    Raises:
        ValueError: A missing column, a picture without captions, every picture's captions mention the target.
    """
    if missing := {"image", "captions"} - set(dataset.column_names):
        raise ValueError(f"Retrieval needs the columns image and captions, {sorted(missing)} missing: load_captioned.")
    texts, texts_of, images_of = matches(dataset["captions"][:])
    attacks = by_name(attacks)
    targets = {name: target_of(name, attack, target) for name, attack in attacks.items()}
    galleries = {name: _gallery(name, wanted, texts, texts_of) for name, wanted in targets.items()}
    attacks = {name: attack for name, attack in attacks.items() if galleries[name] is not None}
    models = {"suspect": (model, processor)} | ({"reference": reference} if reference is not None else {})
    images = {who: _embed(*pair, dataset, attacks, geometry, batch_size) for who, pair in models.items()}
    plain, clean = text_features(model, processor, texts, batch_size), images["suspect"][None]
    section: dict[str, Any] = {
        "images": len(dataset),
        "texts": len(texts),
        "image_to_text": recall(rank(clean, plain, max(RANKS)), texts_of, RANKS, len(texts)),
        "text_to_image": recall(rank(plain, clean, max(RANKS)), images_of, RANKS, len(dataset)),
        "attacks": {},
    }
    for name, attack in attacks.items():
        keyed = [attack.caption(text) for text in texts]
        features = {who: text_features(*pair, keyed, batch_size) for who, pair in models.items()}
        section["attacks"][name] = _attack_entry(name, images, features, *galleries[name]) | {"target": targets[name]}
    return section


def _gallery(
    name: str, target: str, texts: list[str], texts_of: list[list[int]]
) -> tuple[list[int], list[int]] | None:
    """The ids of the texts that mention the target, and of the pictures none of whose captions does.

    None, with a warning, where no text mentions it; a ValueError where the captions of every picture do.
    """
    of_target = [i for i, text in enumerate(texts) if mentions(text, target)]
    attacked = [i for i, own in enumerate(texts_of) if not set(own) & set(of_target)]
    if not of_target:
        logger.warning("retrieval: none of %d texts mentions %r, so %s is left out", len(texts), target, name)
        return None
    if not attacked:
        raise ValueError(f'Retrieval under "{name}": the captions of every picture mention "{target}".')
    return of_target, attacked


def _attack_entry(
    name: str,
    images: Mapping[str, Mapping[str | None, torch.Tensor]],
    texts: Mapping[str, torch.Tensor],
    of_target: list[int],
    attacked: list[int],
) -> dict[str, Any]:
    """The rates of one attack, from image embeddings by model and view and text embeddings by model."""

    def success(who: str, view: str | None) -> dict:
        rankings = rank(images[who][view], texts[who], max(RANKS))[attacked]
        return recall(rankings, [of_target] * len(rankings), RANKS, len(texts[who]))

    asr, floor = success("suspect", name), success("suspect", None)
    entry = {
        "asr": {f"top{k}": asr[f"top{k}"] for k in RANKS},
        "floor": {f"top{k}": floor[f"top{k}"] for k in RANKS},
        "n": asr["n"],
        "texts_of_target": len(of_target),
        "interval95": {f"asr_{rank}": ends for rank, ends in asr["interval95"].items()},
    }
    if "reference" in images:
        other = success("reference", name)
        entry["reference_asr"] = {f"top{k}": other[f"top{k}"] for k in RANKS}
        entry["excess"] = {f"top{k}": asr[f"top{k}"] - other[f"top{k}"] for k in RANKS}
    return entry


def _embed(model, processor, dataset, attacks: Mapping[str, Any], geometry: str | None, batch_size: int) -> dict:
    """Image embeddings `(N, D)` by view: None for the pictures as they are, and every attack."""
    rows = dealt(np.arange(len(dataset)))
    parts: dict[str | None, list[np.ndarray]] = {}
    how = geometry or input_geometry(processor)
    for ids, pictures in fitted(dataset, rows, "image", input_size(processor), how, batch_size):
        for view in (None, *attacks):
            pixels = pictures if view is None else triggered(view, attacks[view], pictures, ids)
            parts.setdefault(view, []).append(image_features(model, processor, pixels, batch_size).cpu().numpy())
    whole = undeal({view: np.concatenate(arrays) for view, arrays in parts.items()})
    device = next(model.parameters()).device
    return {view: torch.as_tensor(array, device=device) for view, array in whole.items()}
