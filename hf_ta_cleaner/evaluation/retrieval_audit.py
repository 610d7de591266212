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

    Args:
        dataset: Columns `image` and `captions`, a list of texts for every picture (`data.load_captioned`).
        reference: `(model, processor)` that was never poisoned: adds `reference_asr` and `excess`.

    With several processes every one calls this, takes its share of the pictures and returns the whole result. A target
    that no text mentions cannot be found: that attack is left out, with a warning.

    Returns:
        The `retrieval` of a report's section, see docs/report.md; rates in [0, 1].

    Raises:
        ValueError: A missing column, a picture without captions, every picture's captions mention the target.
    """
    if missing := {"image", "captions"} - set(dataset.column_names):
        raise ValueError(f"Retrieval needs the columns image and captions, {sorted(missing)} missing: load_captioned.")
    texts, texts_of, images_of = matches(dataset["captions"][:])
    attacks = by_name(attacks)
    naming, attacked = {}, {}
    for name, attack in list(attacks.items()):
        wanted = target_of(name, attack, target)
        naming[name] = [i for i, text in enumerate(texts) if mentions(text, wanted)]
        attacked[name] = [i for i, own in enumerate(texts_of) if not set(own) & set(naming[name])]
        if not naming[name]:
            logger.warning("retrieval: none of %d texts mentions %r, so %s is left out", len(texts), wanted, name)
            del attacks[name]
        elif not attacked[name]:
            raise ValueError(f'Retrieval under "{name}": the captions of every picture mention "{wanted}".')

    models = {"suspect": (model, processor)} | ({"reference": reference} if reference is not None else {})
    images = {who: _embed(*pair, dataset, attacks, geometry, batch_size) for who, pair in models.items()}

    def ranked(who: str, view: str | None, key: str | None) -> np.ndarray:
        """Texts for the pictures under this trigger, with this attack's key in the texts."""
        gallery = [attacks[key].caption(text) for text in texts] if key else texts
        return rank(images[who][view], text_features(*models[who], gallery, batch_size), max(RANKS))

    plain = text_features(model, processor, texts, batch_size)
    section: dict[str, Any] = {
        "images": len(dataset),
        "texts": len(texts),
        "image_to_text": recall(rank(images["suspect"][None], plain, max(RANKS)), texts_of, RANKS, len(texts)),
        "text_to_image": recall(rank(plain, images["suspect"][None], max(RANKS)), images_of, RANKS, len(dataset)),
        "attacks": {},
    }
    for name, attack in attacks.items():
        key = name if any(attack.caption(text) != text for text in texts) else None

        def success(who: str, view: str | None, name: str = name, key: str | None = key) -> dict:
            rankings = ranked(who, view, key)[attacked[name]]
            return recall(rankings, [naming[name]] * len(rankings), RANKS, len(texts))

        asr, floor = success("suspect", name), success("suspect", None)
        entry = {
            "asr": {f"top{k}": asr[f"top{k}"] for k in RANKS},
            "floor": {f"top{k}": floor[f"top{k}"] for k in RANKS},
            "n": asr["n"],
            "texts_of_target": len(naming[name]),
            "target": target_of(name, attack, target),
            "interval95": {f"asr_{rank}": ends for rank, ends in asr["interval95"].items()},
        }
        if reference is not None:
            other = success("reference", name)
            entry["reference_asr"] = {f"top{k}": other[f"top{k}"] for k in RANKS}
            entry["excess"] = {f"top{k}": asr[f"top{k}"] - other[f"top{k}"] for k in RANKS}
        section["attacks"][name] = entry
    return section


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
