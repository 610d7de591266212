"""Is a set of image-caption pairs poisoned? Scores for every pair, their ranking, the findings, and the rows to keep.

No trigger is known. The pairs of a batch are compared with each other. Only the scores and the repeated regions of a
pair are kept, so a stream of any length can be checked.
"""

from __future__ import annotations

import csv
import hashlib
import itertools
import json
import logging
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from PIL import Image

from ..data.loading import to_rgb
from ..data.naming import public_name
from ..models.zero_shot import image_features, input_geometry, input_size, text_features
from ..pictures import fit
from ..seeding import numpy_rng
from .local_density import NEIGHBOURS, neighbour_scores
from .shared_regions import SharedRegions


logger = logging.getLogger(__name__)

#: Pairs that are compared with each other. A smaller last batch is filled up with pairs of the one before.
BATCH = 1024
MIN_PAIRS = 64
#: Scores in the order of the report; higher is more suspect. `suspicion` ranks.
SCORES = (
    "suspicion",
    "disagreement",
    "dao",
    "slof",
    "k_dist",
    "crowding",
    "repeated_caption",
    "shared_region",
)
#: The scores of a batch that are known before the whole data set is seen.
_BATCH_SCORES = ("disagreement", "dao", "shared_region")
#: A finding needs at least this many pairs, and for captions this share of the pairs.
TELLING_PAIRS, TELLING_SHARE = 5, 0.01
#: A caption disagrees with its picture when the pair's loss is this many nats above that of a random guess.
AT_ODDS = 2.0
#: This many of the most suspect pairs keep a picture for the sheet, and its side in pixels there.
SHOWN, THUMB = 96, 96


@dataclass(frozen=True)
class PairScores:
    """Scores of pairs, one entry a pair, in the order of the data.

    Attributes:
        rows: `(N,)` int64, row of each pair in the data; unreadable ones are not among them.
        unreadable: rows whose picture could not be read or whose caption is empty.
        values: score -> `(N,)` float64. `disagreement` is the pair's own CLIP loss in its batch (nats, mean of both
            directions); `dao`, `slof`, `k_dist` are those of `neighbour_scores` on pictures, and `crowding` is
            minus `k_dist`: many triggered pictures in a batch are each other's neighbours; `repeated_caption` and
            `shared_region` count the other pairs with the same caption, and with a region in common; `suspicion` sums
            -ln(share of pairs with at least this score) over disagreement, the higher of dao and crowding,
            repeated captions and shared regions.
        batch: how many pairs were compared with each other.
        shown: row -> picture (uint8) and caption of the most suspect pairs.
    """

    rows: np.ndarray
    values: dict[str, np.ndarray]
    unreadable: list[int] = field(default_factory=list)
    batch: int = BATCH
    shown: dict[int, tuple[np.ndarray, str]] = field(default_factory=dict, repr=False)

    def ranking(self, score: str = "suspicion") -> np.ndarray:
        """Positions in `rows`, the most suspect pair first; among equals the earlier row."""
        return np.argsort(-self.values[score], kind="stable")

    def kept(self, share: float) -> np.ndarray:
        """Rows without the most suspect `share` of the pairs, in their order.

        Raises:
            ValueError: share outside [0, 1).
        """
        if not 0 <= share < 1:
            raise ValueError(f"the share of pairs to leave out must lie in [0, 1), got {share}")
        out = self.ranking()[: round(share * len(self.rows))]
        return np.delete(self.rows, out)

    def findings(self) -> list[str]:
        """One sentence for each sign of poisoning; empty where there is none."""
        n, findings = len(self.rows), []
        shared = int((self.values["shared_region"] >= TELLING_PAIRS - 1).sum())
        if shared >= TELLING_PAIRS:
            findings.append(
                f"{shared:,} of {n:,} pictures share a small square with at least {TELLING_PAIRS - 1} others, "
                "pixel for pixel and at the same place: a pasted patch, a watermark or a frame"
            )
        odd = int((self.values["disagreement"] > math.log(min(n, self.batch)) + AT_ODDS).sum())
        if odd >= max(TELLING_PAIRS, TELLING_SHARE * n):
            findings.append(f"{odd:,} of {n:,} captions ({odd / n:.1%}) fit other pictures far better than their own")
        return findings


def score_pairs(
    model,
    processor,
    pairs: Iterable[dict[str, Any]],
    *,
    batch_size: int = BATCH,
    k: int = NEIGHBOURS,
    geometry: str | None = None,
    seed: int = 0,
    max_pairs: int | None = None,
) -> PairScores:
    """Score pairs with the columns `image` and `caption`.

    Args:
        model: the CLIP that embeds them. One that learned the trigger isolates its pictures (`dao`); one that did not
            sees that their captions are wrong (`disagreement`).
        pairs: a `datasets.Dataset`, whose rows are compared in an order drawn by `seed`, or a stream, in its order.
        batch_size: pairs compared with each other; the cost of the comparison grows with its square.
        max_pairs: of a dataset so many rows drawn by `seed`, of a stream the first ones.

    Raises:
        ValueError: fewer than `MIN_PAIRS` readable pairs, or a batch size below that.
    """
    if batch_size < MIN_PAIRS:
        raise ValueError(f"pairs are compared with each other in batches of at least {MIN_PAIRS}, got {batch_size}")
    size, geometry = input_size(processor), geometry or input_geometry(processor)
    regions, most_suspect = SharedRegions(), _MostSuspect()
    unreadable, rows, repeated, captions, parts = [], [], [], [], []
    earlier: tuple[torch.Tensor, torch.Tensor] | None = None
    for ids, pictures, texts in _batches(_rows(pairs, seed, max_pairs), size, geometry, batch_size, unreadable):
        images, words = image_features(model, processor, pictures), text_features(model, processor, texts)
        own = len(ids)
        if own < batch_size and earlier is not None:
            images, words = (
                torch.cat([new, old[: batch_size - own]]) for new, old in zip((images, words), earlier, strict=True)
            )
        elif own < MIN_PAIRS:
            raise ValueError(f"Wanted at least {MIN_PAIRS} readable pairs to compare with each other, got {own}.")
        earlier, rows = (images, words), rows + ids
        scores = neighbour_scores(images, k) | {"disagreement": clip_losses(model, images, words)}
        parts.append({name: value[:own].double().cpu().numpy() for name, value in scores.items()})
        captions += [_digest(text) for text in texts]
        repeated.append(regions.add(pictures))
        so_far = {**parts[-1], "shared_region": regions.shared(repeated[-1]).astype(float)}
        most_suspect.add(sum(_surprise(so_far[name]) for name in _BATCH_SCORES), ids, pictures, texts)
    if not rows:
        raise ValueError(f"Wanted at least {MIN_PAIRS} readable pairs to compare with each other, got none.")
    values = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    counts = Counter(captions)
    values["repeated_caption"] = np.array([counts[caption] - 1.0 for caption in captions])
    values["shared_region"] = np.concatenate([regions.shared(part) for part in repeated]).astype(float)
    values |= _ranking_scores(values)
    order = np.argsort(rows, kind="stable")
    return PairScores(
        np.asarray(rows, dtype=np.int64)[order],
        {name: values[name][order] for name in SCORES},
        sorted(unreadable),
        batch_size,
        most_suspect.kept(),
    )


def write_check(scores: PairScores, folder: str | Path, *, model: str, dataset: str, worst: int = 48) -> Path:
    """Write scores.csv, check.json and sheet.png into a folder that holds none of them, and return the first.

    Raises:
        FileExistsError: it does.
    """
    folder = Path(folder)
    if there := [name for name in ("scores.csv", "check.json", "sheet.png") if (folder / name).exists()]:
        raise FileExistsError(f"{folder} already holds {', '.join(there)}. Give another folder.")
    folder.mkdir(parents=True, exist_ok=True)
    order = scores.ranking()
    with open(folder / "scores.csv", "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["row", *SCORES])
        for i in order:
            table.writerow([int(scores.rows[i]), *(f"{scores.values[name][i]:.6g}" for name in SCORES)])
    content = {
        "model": public_name(model),
        "dataset": public_name(dataset),
        "pairs": len(scores.rows),
        "unreadable": scores.unreadable,
        "findings": scores.findings(),
    }
    (folder / "check.json").write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    rows = [int(row) for row in scores.rows[order] if int(row) in scores.shown][:worst]
    if rows:
        sheet([scores.shown[row] for row in rows]).save(folder / "sheet.png")
    return folder / "scores.csv"


def sheet(pairs: list[tuple[np.ndarray, str]], columns: int = 8) -> Image.Image:
    """Pictures with the first words of their captions below, in rows of `columns`."""
    from PIL import ImageDraw

    width, height = THUMB + 8, THUMB + 32
    page = Image.new("RGB", (columns * width, -(-len(pairs) // columns) * height), "white")
    pen = ImageDraw.Draw(page)
    for i, (pixels, caption) in enumerate(pairs):
        left, top = i % columns * width + 4, i // columns * height + 4
        page.paste(Image.fromarray(pixels).resize((THUMB, THUMB)), (left, top))
        text = caption.encode("latin-1", "replace").decode("latin-1")  # what Pillow's built-in font has
        pen.text((left, top + THUMB + 1), text[:17], fill="#222222")
        pen.text((left, top + THUMB + 12), text[17:34], fill="#222222")
    return page


class _MostSuspect:
    """The pairs of the highest score so far, with their pictures: a sheet of a stream without a second pass.

    The final ranking also counts regions and captions of all pairs; this one uses what is known at the batch.
    """

    def __init__(self) -> None:
        self._held: list[tuple[float, int, np.ndarray, str]] = []

    def add(self, score: np.ndarray, rows: list[int], pictures: np.ndarray, texts: list[str]) -> None:
        best = np.argsort(-score, kind="stable")[:SHOWN]
        self._held += [(float(score[i]), rows[i], pictures[i].copy(), texts[i]) for i in best]
        self._held = sorted(self._held, key=lambda entry: -entry[0])[:SHOWN]

    def kept(self) -> dict[int, tuple[np.ndarray, str]]:
        return {row: (picture, text) for _, row, picture, text in self._held}


def warn_of_poison(model, processor, pairs, *, seed: int = 0) -> list[str]:
    """Check a sample of `BATCH` pairs, log what stands out as a warning, and return it.

    Too few pairs, or unreadable ones, do not stop the caller: the check is then skipped.
    """
    try:
        findings = score_pairs(model, processor, pairs, seed=seed, max_pairs=BATCH).findings()
    except ValueError as error:
        logger.info("the pairs were not checked for poison: %s", error)
        return []
    for finding in findings:
        logger.warning("the pairs may be poisoned: of a sample, %s. Look with ta-cleaner check-data", finding)
    return findings


def clip_losses(model, images: torch.Tensor, texts: torch.Tensor) -> torch.Tensor:
    """`(N,)`: each pair's share of the symmetric CLIP loss in nats, from `(N, D)` unit embeddings of both kinds.

    Pairs with the very same caption do not count as each other's negatives.
    """
    scale = model.logit_scale.detach().exp().squeeze().clamp(1, 100).to(images)
    logits = scale * images @ texts.T
    # By differences: the products that are faster tell two equal rows apart.
    same = torch.cdist(texts, texts, compute_mode="donot_use_mm_for_euclid_dist") < 1e-4
    same.fill_diagonal_(False)
    logits = logits.masked_fill(same, float("-inf"))
    own = logits.diagonal()
    return (logits.logsumexp(dim=1) + logits.logsumexp(dim=0)) / 2 - own


def _ranking_scores(values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """`crowding`, and `suspicion`, which ranks the pairs."""
    values = {**values, "crowding": -values["k_dist"]}
    surprise = {name: _surprise(value) for name, value in values.items()}
    place = np.maximum(surprise["dao"], surprise["crowding"])
    suspicion = surprise["disagreement"] + place + surprise["repeated_caption"] + surprise["shared_region"]
    return {"crowding": values["crowding"], "suspicion": suspicion}


def _surprise(values: np.ndarray) -> np.ndarray:
    """-ln of the share of values that are at least as high; 0 where all are equal."""
    ordered = np.sort(values)
    at_least = len(values) - np.searchsorted(ordered, values, side="left")
    return -np.log(at_least / len(values))


def _digest(text: str) -> bytes:
    """A hash of a caption that ignores case, punctuation and spaces."""
    plain = " ".join("".join(c if c.isalnum() else " " for c in text.lower()).split())
    return hashlib.blake2b(plain.encode(), digest_size=8).digest()


def _rows(pairs: Any, seed: int, max_pairs: int | None) -> Iterator[tuple[int, dict[str, Any]]]:
    """(row, pair), the pictures of a data set still encoded, so that a damaged picture spoils its own row only."""
    if isinstance((getattr(pairs, "features", None) or {}).get("image"), datasets.Image):
        pairs = pairs.cast_column("image", datasets.Image(decode=False))
    if hasattr(pairs, "__len__") and hasattr(pairs, "__getitem__"):
        order = numpy_rng("pair check", seed).permutation(len(pairs))[:max_pairs]
        return ((int(i), pairs[int(i)]) for i in order)
    return itertools.islice(enumerate(pairs), max_pairs)


def _batches(rows, size: int, geometry: str, batch_size: int, unreadable: list[int]):
    """(row ids, uint8 pictures, captions) in batches."""
    ids: list[int] = []
    pictures: list[np.ndarray] = []
    texts: list[str] = []
    for row, pair in rows:
        try:
            if not (pair["caption"] or "").strip():
                raise ValueError("empty caption")
            pictures.append(fit(to_rgb(_opened(pair["image"])), size, geometry))
        except Exception:  # a damaged file can raise anything: each decoder has errors of its own
            unreadable.append(row)
            continue
        ids.append(row)
        texts.append(pair["caption"])
        if len(ids) == batch_size:
            yield ids, np.stack(pictures), texts
            ids, pictures, texts = [], [], []
    if ids:
        yield ids, np.stack(pictures), texts


def _opened(image: Any):
    """A picture as PIL image; streams hand over the encoded bytes."""
    return datasets.Image().decode_example(image) if isinstance(image, dict) else image
