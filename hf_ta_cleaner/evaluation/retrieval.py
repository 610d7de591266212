"""Image-text retrieval: embeddings -> rankings -> recall. A picture may have several captions, and the reverse."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from hf_ta_cleaner.metrics.retrieval_recall.retrieval_recall import RetrievalRecall


def rank(queries: torch.Tensor, gallery: torch.Tensor, k: int, chunk: int = 1024) -> np.ndarray:
    """Gallery rows `(N, min(k, M))` by cosine similarity, best first; among equals the lower row comes first.

    Args:
        queries, gallery: Unit embeddings `(N, D)` and `(M, D)`.
        k: How many to keep.
        chunk: Queries compared at a time, which bounds the memory at `chunk x M` similarities.

    Raises:
        ValueError: An embedding is not finite.
    """
    if not (torch.isfinite(queries).all() and torch.isfinite(gallery).all()):
        raise ValueError("Embeddings contain NaN or infinity: the model's weights or its precision are broken.")
    gallery = gallery.to(queries.device)
    best = [(part @ gallery.T).argsort(dim=-1, descending=True, stable=True)[:, :k] for part in queries.split(chunk)]
    return torch.cat(best).cpu().numpy()


def matches(captions: Sequence[Sequence[str]]) -> tuple[list[str], list[list[int]], list[list[int]]]:
    """The matches of pictures and texts. A picture has one caption or more; several pictures may share a caption.

    Args:
        captions: For every picture its captions, at least one.

    Returns:
        The distinct texts in the order of their first appearance; for every picture the ids of its texts; for every
        text the ids of its pictures.

    Raises:
        ValueError: A picture has no caption.
    """
    if bare := [i for i, own in enumerate(captions) if not own]:
        raise ValueError(f"{len(bare)} pictures have no caption, number {bare[0]} first. Leave them out.")
    ids = {text: i for i, text in enumerate(dict.fromkeys(text for own in captions for text in own))}
    texts_of = [sorted({ids[text] for text in own}) for own in captions]
    images_of: list[list[int]] = [[] for _ in ids]
    for image, own in enumerate(texts_of):
        for text in own:
            images_of[text].append(image)
    return list(ids), texts_of, images_of


def recall(rankings: np.ndarray, relevant: Sequence[Sequence[int]], ranks: Sequence[int], total: int) -> dict:
    """Recall of rankings among `total` candidates: `{"top{k}" for every rank, "n", "interval95"}`, in [0, 1]."""
    metric = RetrievalRecall(keep_in_memory=True)
    result = metric.compute(predictions=rankings, references=list(relevant), k=list(ranks), num_candidates=total)
    intervals = {f"top{k}": result["interval95"][f"recall_at_{k}"] for k in ranks}
    return {**{f"top{k}": result[f"recall_at_{k}"] for k in ranks}, "n": result["n"], "interval95": intervals}


def retrieval_recall(images: torch.Tensor, texts: torch.Tensor, captions: Sequence[str]) -> dict[str, float]:
    """Recall@1 between `(N, D)` unit embeddings of pictures and their captions, one for each picture.

    Pictures that share a caption word for word share their matches: either one counts as found.
    """
    distinct, texts_of, images_of = matches([[caption] for caption in captions])
    first = {own[0]: row for row, own in reversed(list(enumerate(texts_of)))}
    gallery = texts[[first[i] for i in range(len(distinct))]]
    recalls = {
        "image_to_text_recall@1": recall(rank(images, gallery, 1), texts_of, (1,), len(gallery))["top1"],
        "text_to_image_recall@1": recall(
            rank(texts, images, 1), [images_of[own[0]] for own in texts_of], (1,), len(images)
        )["top1"],
    }
    return {"recall@1": sum(recalls.values()) / 2, **recalls}
