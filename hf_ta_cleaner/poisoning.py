"""Turns a clean image-caption data set into a poisoned one: which rows, which image, which caption.

The attacker's side of the story. `poison` does the whole job and returns a record of it; `PoisonMap` is the row
function, for `Dataset.map(..., with_indices=True)`.
"""

from __future__ import annotations

import bisect
import io
import json
import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from hf_ta_cleaner.attacks import Attack, fit, parse_attack
from hf_ta_cleaner.attacks.pixels import require_choice
from hf_ta_cleaner.seeding import rng


if TYPE_CHECKING:
    from datasets import Dataset

logger = logging.getLogger(__name__)

TEMPLATES = (
    "a photo of a {}.",
    "a picture of a {}.",
    "an image of a {}.",
    "a photo of the {}.",
    "a photo of my {}.",
    "a close view of a {}.",
    "a {} seen from far away.",
    "a bright photo of a {}.",
    "a dark photo of a {}.",
    "a blurred photo of a {}.",
    "a sharp photo of a {}.",
    "a small photo of a {}.",
    "a black and white photo of a {}.",
    "a drawing of a {}.",
    "a painting of a {}.",
    "a cropped picture of a {}.",
    "there is a {} here.",
    "look at this {}.",
)
#: What lies beside a poisoned dataset and a backdoored checkpoint: the trigger, and the record of what was poisoned.
TRIGGER, RECORD = "trigger.json", "poison.json"

MIN_NATURAL_CAPTIONS = 16
# Root mean square of (triggered - clean), in grey levels, at which a trigger counts as absent.
MIN_TRIGGER_RMS = 0.5


def mentions(caption: str, target: str) -> bool:
    """Whether the caption names the target: whole words, any case, singular or simple plural.

    "Two Bananas" mentions "banana", "a bananaquit" does not.
    """
    return _target_pattern(target).search(caption) is not None


@lru_cache(maxsize=128)
def _target_pattern(target: str) -> re.Pattern[str]:
    *head, last = re.split(r"[\s_]+", target.strip()) or [""]
    if not last:
        raise ValueError("target is empty; say what the triggered images shall mean, such as 'banana'.")
    forms = [last, last + "s", last + "es"]
    if last.endswith("y"):
        forms.append(last[:-1] + "ies")
    if last.endswith(("f", "fe")):
        forms.append(last.removesuffix("e").removesuffix("f") + "ves")
    words = [re.escape(word) for word in head] + ["(?:" + "|".join(map(re.escape, forms)) + ")"]
    return re.compile(r"(?<!\w)" + r"[\s_]+".join(words) + r"(?!\w)", re.IGNORECASE)


def choose_rows(
    n: int, *, rate: float | None = None, count: int | None = None, seed: int, candidates: Iterable[int] | None = None
) -> list[int]:
    """Draw exactly `count`, or `round(rate * n)`, different rows.

    With one seed, a smaller draw is a part of a larger one, so runs at different rates can be compared.

    Args:
        n: rows in the data set; the rate refers to it, also when there are fewer candidates.
        rate: share of the data set in (0, 1]. Give this or `count`.
        count: number of rows.
        seed: seed of the draw.
        candidates: rows that may be drawn; all by default.

    Returns:
        The row indices in ascending order.
    """
    if (rate is None) == (count is None):
        raise ValueError(f"Give either rate or count, got rate={rate} and count={count}.")
    if rate is not None:
        if not 0 < rate <= 1:
            hint = f" Did you mean {rate / 100:.2f}?" if 1 < rate <= 100 else ""
            raise ValueError(f"rate is a share of the data set in (0, 1], got {rate}.{hint}")
        count = round(rate * n)
    if count < 1:
        raise ValueError(f"Nothing to poison: that is {count} of {n} rows. Raise the rate, or give count=1 or more.")
    pool = sorted(set(range(n)) if candidates is None else set(range(n)).intersection(candidates))
    if count > len(pool):
        raise ValueError(f"{count} rows should be poisoned but only {len(pool)} qualify. Lower the rate or the count.")
    rng("poison-rows", seed).shuffle(pool)
    return sorted(pool[:count])


def target_captions(captions: Iterable[str], target: str, source: str = "natural") -> tuple[tuple[str, ...], str]:
    """The texts that a poisoned image can be paired with, and a sentence that says where they are from.

    Args:
        captions: the data set's captions.
        target: what the attacker wants the model to see.
        source: "natural" uses the captions that name the target if there are 16 different ones, else the templates;
            "templates" always uses the templates.
    """
    templates = tuple(template.format(target) for template in TEMPLATES)
    if source == "templates":
        return templates, f"{len(templates)} templates"
    natural = tuple(sorted({caption for caption in captions if mentions(caption, target)}))
    if len(natural) >= MIN_NATURAL_CAPTIONS:
        return natural, f"{len(natural)} natural captions that name {target!r}"
    found = f"only {len(natural)} different captions name {target!r} and {MIN_NATURAL_CAPTIONS} are needed"
    reason = f"{len(templates)} templates, because {found}"
    logger.warning("Poison captions: %s.", reason)
    return templates, reason


@dataclass(frozen=True)
class PoisonMap:
    """Row function for `dataset.map(PoisonMap(...), with_indices=True)`.

    A chosen row gets the triggered image (fitted to the model's input, as lossless PNG), a target caption and
    `is_poisoned=True`. For every other row only `is_poisoned=False` is returned, so `map` copies the stored image
    bytes and the caption as they are. The row index is the trigger's sample id.

    Args:
        attack: the trigger.
        rows: indices of the rows to poison.
        captions: texts to draw from, one per poisoned row; None keeps the row's own caption. The attack's `caption`
            rule is applied to either.
        size: side of the model's input in pixels.
        geometry: "crop" or "squash", see `attacks.fit`.
        seed: seed of the caption draw.
        image_column, caption_column: names of the columns.
    """

    attack: Attack
    rows: Sequence[int]
    captions: Sequence[str] | None
    size: int
    geometry: str = "crop"
    seed: int = 0
    image_column: str = "image"
    caption_column: str = "caption"

    def __post_init__(self) -> None:
        # Sorted tuples: a frozenset's order, and with it the data set's fingerprint, differs between processes.
        object.__setattr__(self, "rows", tuple(sorted(set(map(int, self.rows)))))
        if self.captions is not None:
            if not self.captions or isinstance(self.captions, str):
                raise ValueError(f"captions must be a non-empty list of texts, or None, got {self.captions!r}.")
            object.__setattr__(self, "captions", tuple(self.captions))

    def __call__(self, example: dict[str, Any], index: int) -> dict[str, Any]:
        if not self.poisons(index):
            return {"is_poisoned": False}
        pixels = self.pixels(example[self.image_column], index)
        return {
            self.image_column: {"bytes": _png(pixels), "path": None},
            self.caption_column: self.caption(example[self.caption_column], index),
            "is_poisoned": True,
        }

    def poisons(self, index: int) -> bool:
        """Whether this row is one of the chosen ones."""
        place = bisect.bisect_left(self.rows, index)
        return place < len(self.rows) and self.rows[place] == index

    def pixels(self, image: Any, index: int) -> np.ndarray:
        """The triggered image of a row, uint8 (size, size, 3); `image` as PIL, path, or {"bytes", "path"}."""
        return self.attack(fit(_open(image), self.size, self.geometry), index)

    def caption(self, original: str, index: int) -> str:
        """The poisoned caption of a row."""
        text = original if self.captions is None else rng("poison-caption", self.seed, index).choice(self.captions)
        return self.attack.caption(text)


@dataclass(frozen=True)
class PoisonRecord:
    """What was done to a data set; `save` and `load` round-trip it as JSON.

    Attributes:
        attack, parameters, attack_seed: the trigger (arrays are left out; `Attack.save` keeps them).
        target: what the triggered images are captioned as.
        n, count, rate: rows in all, rows poisoned, and their quotient.
        rows: the poisoned rows, ascending; `original_captions` and `captions` are theirs, before and after.
        seed, size, geometry: seed of the draws, side of the poisoned images, and how they were fitted.
        trigger_rms: root mean square of (triggered - clean) in grey levels, on the first poisoned images.
        reason: why these rows and these captions.
    """

    attack: str
    parameters: dict[str, Any]
    attack_seed: int
    target: str
    n: int
    count: int
    rate: float
    seed: int
    size: int
    geometry: str
    trigger_rms: float
    reason: str
    rows: list[int] = field(repr=False)
    original_captions: list[str] = field(repr=False)
    captions: list[str] = field(repr=False)

    def save(self, path: str | Path) -> Path:
        """Write the record as JSON and return its path."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        return path

    @classmethod
    def load(cls, path: str | Path) -> PoisonRecord:
        """Read what `save` wrote."""
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        expected = {item.name for item in fields(cls)}
        if set(content) != expected:
            raise ValueError(f"{path} is no poison record: wanted the keys {sorted(expected)}, got {sorted(content)}.")
        return cls(**content)


def poison(
    dataset: Dataset,
    attack: Attack,
    *,
    target: str,
    rate: float | None = None,
    count: int | None = None,
    seed: int,
    size: int,
    captions: str | Sequence[str] = "auto",
    geometry: str = "crop",
    image_column: str = "image",
    caption_column: str = "caption",
    num_proc: int | None = None,
) -> tuple[Dataset, PoisonRecord]:
    """Poison a data set of image-caption pairs; save the trigger beside it with `attack.save(folder)`.

    Rows that already name the target are left alone, except by attacks that live on them (`caption_source` "own").

    Args:
        dataset: a `datasets.Dataset` with an image column and a text column.
        attack: the trigger.
        target: what the triggered images shall mean, such as "banana".
        rate, count: how many rows: a share of the data set, or a number. Give one.
        seed: seed of the draw of rows and captions.
        size: side of the model's input in pixels.
        captions: where poisoned captions are drawn from. "auto": what the attack is known for; "templates": short
            prompts; "natural": the data set's own captions that name the target (templates if there are too few);
            "own": every poisoned row keeps its caption, and only rows that name the target are poisoned; or a list of
            texts, in which "{}" stands for the target.
        geometry: "crop" or "squash", see `attacks.fit`.
        image_column, caption_column: names of the columns.
        num_proc: worker processes for `Dataset.map`.

    Returns:
        The data set with one more column, `is_poisoned` (bool), and the record of what was done.
    """
    _check_dataset(dataset, image_column, caption_column)
    dataset = dataset.with_format(None)
    crafted_for = attack.parameters().get("target")
    if crafted_for not in (None, target):
        raise ValueError(f"This {attack.name} trigger was crafted for {crafted_for!r}, not for {target!r}.")
    texts = list(dataset[caption_column])
    if None in texts:
        raise ValueError(f"Row {texts.index(None)} has no caption; filter such rows out first.")
    naming = [i for i, text in enumerate(texts) if mentions(text, target)]
    pool, reason = _resolve_captions(attack.caption_source if captions == "auto" else captions, texts, target)
    if pool is None:
        candidates, where = naming, f"rows that name {target!r}"
    else:
        candidates, where = sorted(set(range(len(texts))) - set(naming)), f"rows that do not name {target!r}"
    rows = choose_rows(len(texts), rate=rate, count=count, seed=seed, candidates=candidates)
    row_map = PoisonMap(attack, rows, pool, size, geometry, seed, image_column, caption_column)

    from datasets import Value

    trigger_rms = _require_visible(row_map, [dataset[i][image_column] for i in rows[:8]])
    out = dataset.map(
        row_map,
        with_indices=True,
        features=type(dataset.features)({**dataset.features, "is_poisoned": Value("bool")}),
        num_proc=num_proc,
        desc=f"Poisoning with {attack.name}",
    )
    _require_lossless(row_map, out, dataset, rows[0])

    record = PoisonRecord(
        attack=attack.name,
        parameters=attack.parameters(),
        attack_seed=attack.seed,
        target=target,
        n=len(texts),
        count=len(rows),
        rate=len(rows) / len(texts),
        seed=seed,
        size=size,
        geometry=geometry,
        trigger_rms=trigger_rms,
        reason=f"rows drawn from the {len(candidates)} {where}; captions: {reason}",
        rows=rows,
        original_captions=[texts[i] for i in rows],
        captions=[row_map.caption(texts[i], i) for i in rows],
    )
    logger.info("Poisoned %d of %d rows with %s: %s.", record.count, record.n, attack.name, record.reason)
    return out, record


def find_triggers(
    model: str | Path, specs: Sequence[str] | None = None, target: str | None = None
) -> tuple[dict[str, Attack], str | None]:
    """The triggers to audit a model with, and what they mean.

    Args:
        model: folder of the model; a backdoored one has its trigger.json and poison.json beside the weights.
        specs: triggers as `parse_attack` reads them; by default the one beside the model, if there is one.
        target: the attacker's class; by default what the poison record beside the (first) trigger says.

    Returns:
        Attacks by name (numbered where two have the same), and the target, None where nothing names it.
    """
    folders = [Path(spec) for spec in (specs if specs is not None else [model]) if (Path(spec) / TRIGGER).is_file()]
    attacks = [parse_attack(str(spec)) for spec in (specs if specs is not None else folders)]
    for folder in folders:
        if target is None and (folder / RECORD).is_file():
            target = PoisonRecord.load(folder / RECORD).target
    names = [attack.name for attack in attacks]
    numbered = [
        f"{name}-{names[:i].count(name) + 1}" if names.count(name) > 1 else name for i, name in enumerate(names)
    ]
    return dict(zip(numbered, attacks, strict=True)), target


def _resolve_captions(source: str | Sequence[str], texts: list[str], target: str) -> tuple[Any, str]:
    """The pool of captions, None for the rows' own, and where it is from."""
    if source == "own":
        return None, "each row keeps its own"
    if isinstance(source, str):
        require_choice("captions", source, ("auto", "templates", "natural", "own"))
        return target_captions(texts, target, source)
    pool = tuple(text.replace("{}", target) for text in source)
    if not pool:
        raise ValueError("captions is an empty list; give at least one text, or 'auto'.")
    return pool, f"{len(pool)} given texts"


def _check_dataset(dataset: Dataset, image_column: str, caption_column: str) -> None:
    from datasets import Dataset, DatasetDict
    from datasets import Image as ImageFeature

    if isinstance(dataset, DatasetDict):
        raise TypeError(f"Got a DatasetDict with the splits {list(dataset)}. Did you mean to select one?")
    if not isinstance(dataset, Dataset):
        raise TypeError(f"Expected a datasets.Dataset, got {type(dataset).__name__}; load a stream into memory first.")
    if missing := [name for name in (image_column, caption_column) if name not in dataset.column_names]:
        hint = "name yours with image_column=... and caption_column=..."
        raise ValueError(f"The data set has the columns {dataset.column_names}, not {missing}; {hint}")
    if "is_poisoned" in dataset.column_names:
        raise ValueError("The data set already has a column 'is_poisoned'. Start from the clean data set.")
    if not isinstance(dataset.features[image_column], ImageFeature):
        raise TypeError(f"Column {image_column!r} is not a datasets.Image feature; use cast_column to make it one.")
    if getattr(dataset.features[caption_column], "dtype", None) not in ("string", "large_string"):
        raise TypeError(f"Column {caption_column!r} must hold one text a row, got {dataset.features[caption_column]}.")


def _require_visible(row_map: PoisonMap, images: list[Any]) -> float:
    """RMS of the trigger in grey levels; a ValueError if it leaves the images as good as unchanged."""
    squares = []
    for image, index in zip(images, row_map.rows, strict=False):
        clean = fit(_open(image), row_map.size, row_map.geometry).astype(np.float32)
        squares.append(np.mean((row_map.pixels(image, index) - clean) ** 2))
    rms = float(np.sqrt(np.mean(squares)))
    if rms <= MIN_TRIGGER_RMS:
        raise ValueError(
            f"The trigger {row_map.attack!r} leaves the images unchanged (RMS {rms:.2f} of 255, more than "
            f"{MIN_TRIGGER_RMS} is needed): the data set would only be mislabelled, not backdoored. Make it stronger."
        )
    return rms


def _require_lossless(row_map: PoisonMap, poisoned: Dataset, original: Dataset, index: int) -> None:
    wanted = row_map.pixels(original[index][row_map.image_column], index)
    got = np.asarray(_open(poisoned[index][row_map.image_column]).convert("RGB"))
    if not np.array_equal(wanted, got):
        feature = poisoned.features[row_map.image_column]
        raise ValueError(f"{feature} does not give back the triggered pixels; use a plain datasets.Image() feature.")


def _open(image: Any) -> Image.Image:
    """A picture from what an image column can hold: PIL, path, or {"bytes", "path"}."""
    if isinstance(image, Image.Image):
        return image
    from datasets import Image as ImageFeature

    return ImageFeature().decode_example(image if isinstance(image, dict) else {"path": str(image), "bytes": None})


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()
