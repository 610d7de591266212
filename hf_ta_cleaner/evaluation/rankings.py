"""One pass over the pictures: what each model ranks first, without a trigger and under each trigger."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hf_ta_cleaner.distributed import undeal
from hf_ta_cleaner.evaluation.inputs import changes_prompts, triggered
from hf_ta_cleaner.models.zero_shot import Template, ZeroShotHead, image_features, input_size, topk_predictions


#: Whose ranking it is ("suspect" or "reference"), the attack whose text key is in the prompts or None, and the attack
#: that is on the picture or None.
RankingKey = tuple[str, str | None, str | None]
Models = Mapping[str, tuple[Any, Any]]


def check_sizes(models: Models) -> int:
    """The side in pixels of the pictures that all the models take.

    Raises:
        ValueError: They take different sizes, and so cannot see the same trigger.
    """
    sizes = {who: input_size(processor) for who, (_, processor) in models.items()}
    if len(set(sizes.values())) > 1:
        raise ValueError(
            f"The reference model takes {sizes['reference']}-pixel images and the audited one "
            f"{sizes['suspect']}-pixel ones; they cannot see the same trigger. Pass the never-poisoned checkpoint of "
            "the same architecture."
        )
    return sizes["suspect"]


def text_heads(
    models: Models,
    attacks: Mapping[str, Any],
    classnames: Sequence[str],
    templates: Sequence[Template],
    cache_dir: str | Path | None,
) -> dict[tuple[str, str | None], ZeroShotHead]:
    """Zero-shot heads by (model, None), and by (model, attack) for every attack with a key in the text."""
    dual_key = [name for name, attack in attacks.items() if changes_prompts(attack, classnames, templates)]
    heads = {}
    for who, (network, processor) in models.items():
        for name in (None, *dual_key):
            prefix = attacks[name].caption if name else None
            heads[who, name] = ZeroShotHead.build(
                network, processor, classnames, templates, prefix, cache_dir=cache_dir
            )
    return heads


def rank_pictures(
    models: Models,
    heads: Mapping[tuple[str, str | None], ZeroShotHead],
    attacks: Mapping[str, Any],
    targets: Mapping[str, int],
    batches: Iterable[tuple[np.ndarray, np.ndarray]],
    *,
    k: int,
    batch_size: int,
) -> tuple[dict[RankingKey, np.ndarray], dict[str, np.ndarray]]:
    """Rankings and similarities of all processes together, in the order of the sample ids.

    A picture without a trigger is ranked with plain prompts and with every text key; a triggered picture with plain
    prompts and with the key of its own attack.

    Args:
        heads: What `text_heads` returns.
        targets: Target class id by attack.
        batches: (sample ids, uint8 pictures `(n, S, S, 3)`), the share of this process.
        k: How many ranks are kept.

    Returns:
        Class ids `(N, min(k, C))` by ranking key, best first; and by attack the cosine `(N,)` of the triggered
        picture with the text of the target in the suspect.

    Raises:
        ValueError: A trigger changes neither a picture nor the prompts.
    """
    dual_key = list(dict.fromkeys(name for _, name in heads if name))
    parts: dict[Any, list[np.ndarray]] = {}
    for ids, clean in batches:
        for view in (None, *attacks):
            pixels = clean if view is None else triggered(view, attacks[view], clean, ids)
            own_key = view if view in dual_key else None
            if view is not None and own_key is None:
                parts.setdefault(("changed", view), []).append((pixels != clean).any(axis=(1, 2, 3)))
            prompts = dict.fromkeys((None, *(dual_key if view is None else [own_key])))
            for who, (network, processor) in models.items():
                features = image_features(network, processor, pixels, batch_size)
                for key in prompts:
                    logits = heads[who, key].logits(features)
                    parts.setdefault((who, key, view), []).append(topk_predictions(logits, k).cpu().numpy())
                    if who == "suspect" and view is not None and key == own_key:
                        parts.setdefault(view, []).append(logits[:, targets[view]].float().cpu().numpy())
    rankings = undeal({key: np.concatenate(arrays) for key, arrays in parts.items()})
    for name in attacks:
        if name not in dual_key and not rankings.pop(("changed", name)).any():
            raise ValueError(
                f'Attack "{name}" changes neither the images nor the prompts: there is nothing to measure.'
            )
    return rankings, {name: rankings.pop(name) for name in attacks}
