"""Chooses the rows to poison and their captions without holding the data set in memory.

The places to poison are drawn before the first row is read. Memory grows with the number of places, not of rows.
"""

from __future__ import annotations

import heapq
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import inf

from ..attacks.pixels import require_choice
from ..seeding import derive_seed, rng


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
MIN_NATURAL_CAPTIONS = 16
#: At most this many natural captions are kept. This is enough variety, and it bounds memory for a common target.
MAX_NATURAL_CAPTIONS = 10_000


def mentions(caption: str, target: str) -> bool:
    """Whether the caption names the target: whole words, any case, singular or simple plural.

    "Two Bananas" mentions "banana", "a bananaquit" does not.
    """
    return _target_pattern(target).search(caption) is not None


@lru_cache(maxsize=128)
def _target_pattern(target: str) -> re.Pattern[str]:
    *head, last = re.split(r"[\s_]+", target.strip()) or [""]
    if not last:
        raise ValueError("target is empty; give the class that triggered images should be taken for, e.g. 'banana'.")
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

    With the same seed, a smaller draw is a subset of a larger one, so runs at different rates are comparable. Without
    `candidates`, memory grows with the number of rows drawn, not with `n`.

    Args:
        n: rows in the data set; the rate refers to `n` even if there are fewer candidates.
        rate: share of the data set in (0, 1]. Give this or `count`.
        count: number of rows.
        seed: seed of the draw.
        candidates: rows that may be drawn; all by default.

    Returns:
        The row indices in ascending order.
    """
    check_amount(rate, count)
    if rate is not None:
        count = round(rate * n)
    if count < 1:
        raise ValueError(f"Nothing to poison: got {count} of {n} rows. Raise the rate, or give count=1 or more.")
    pool: Sequence[int] = range(n) if candidates is None else sorted(i for i in set(candidates) if 0 <= i < n)
    if count > len(pool):
        raise ValueError(f"{count} rows should be poisoned but only {len(pool)} qualify. Lower the rate or the count.")
    # A Fisher-Yates shuffle that stops after `count` draws. Only the entries that moved are stored.
    generator, moved, drawn = rng("poison-rows", seed), {}, []
    for i in range(count):
        j = generator.randrange(i, len(pool))
        drawn.append(pool[moved.get(j, j)])
        moved[j] = moved.pop(i, i)
    return sorted(drawn)


def check_amount(rate: float | None, count: int | None) -> None:
    """Raise a ValueError unless exactly one of the two is given, and the rate is a share."""
    if (rate is None) == (count is None):
        raise ValueError(f"Give either a rate or a count (--rate, --count), got rate={rate} and count={count}.")
    if rate is not None and not 0 < rate <= 1:
        hint = f" Did you mean {rate / 100:.2f}?" if 1 < rate <= 100 else ""
        raise ValueError(f"rate is a share of the data set in (0, 1], got {rate}.{hint}")


@dataclass(frozen=True)
class Survey:
    """What one pass over the captions counts: all rows, rows that name the target, and their distinct captions.

    It keeps at most `MAX_NATURAL_CAPTIONS` captions. They are selected by hash, so their order does not matter.
    """

    n: int
    naming: int
    natural: tuple[str, ...]

    @classmethod
    def of(cls, captions: Iterable[str | None], target: str) -> Survey:
        """Read the captions once. None counts as a row that does not name the target."""
        n = naming = 0
        natural: set[str] = set()
        for n, caption in enumerate(captions, 1):  # noqa: B007
            if caption and mentions(caption, target):
                naming += 1
                natural.add(caption)
                if len(natural) >= 2 * MAX_NATURAL_CAPTIONS:
                    natural = _sample(natural)
        return cls(n, naming, tuple(sorted(_sample(natural))))


def _sample(captions: set[str]) -> set[str]:
    if len(captions) <= MAX_NATURAL_CAPTIONS:
        return captions
    return set(heapq.nsmallest(MAX_NATURAL_CAPTIONS, captions, key=lambda text: derive_seed("natural-caption", text)))


def target_captions(captions: Iterable[str], target: str, source: str = "natural") -> tuple[tuple[str, ...], str]:
    """The captions for poisoned images, and a phrase that states their source.

    Args:
        captions: the data set's captions.
        target: the attacker's class.
        source: "natural" uses the captions that name the target (at most 10,000) if at least 16 different ones exist,
            else the templates; "templates" always uses the templates.
    """
    if source == "templates":
        return _templates(target), f"{len(TEMPLATES)} templates"
    return _natural(Survey.of(captions, target).natural, target)


def _templates(target: str) -> tuple[str, ...]:
    return tuple(template.format(target) for template in TEMPLATES)


def _natural(found: tuple[str, ...], target: str) -> tuple[tuple[str, ...], str]:
    if len(found) >= MIN_NATURAL_CAPTIONS:
        return found, f"{len(found)} natural captions that name {target!r}"
    reason = (
        f"{len(TEMPLATES)} templates, because only {len(found)} different captions name {target!r} and "
        f"{MIN_NATURAL_CAPTIONS} are needed"
    )
    logger.warning("Poison captions: %s.", reason)
    return _templates(target), reason


@dataclass
class Draw:
    """Decides row by row which rows are poisoned. The count is exact in one pass, by index or as a stream.

    Some rows cannot be poisoned: their caption is blank or does not qualify, or their picture is unreadable. The place
    of such a row moves to the next row that can be poisoned. If no such row follows, it moves back to the last one.

    Attributes:
        places: places to poison, ascending, among all rows or, with `own`, among the rows that name the target.
        target: the class that poisoned rows must not name or, with `own`, must name.
        own: whether the attack poisons only rows that name the target.
        seen, owed, unreadable: number of rows read (with `own`, of rows that name the target), of places that still
            need a row, and of unreadable pictures. A new draw with these values continues where this draw stopped.
        tolerated: the largest number of unreadable pictures that raises no error.
    """

    places: tuple[int, ...]
    target: str
    own: bool
    seen: int = 0
    owed: int = 0
    unreadable: int = 0
    tolerated: float = inf

    def __post_init__(self) -> None:
        self.places = tuple(self.places)
        self._places = frozenset(self.places)

    def qualifies(self, caption: str | None) -> bool:
        """Whether a row with this caption may be poisoned."""
        return bool(caption and caption.strip()) and mentions(caption, self.target) == self.own

    def due(self, caption: str | None) -> bool:
        """Whether to poison the next row. If so, the caller tells `settle` whether its picture was readable."""
        qualifies = self.qualifies(caption)
        if qualifies or not self.own:
            self.owed += self.seen in self._places
            self.seen += 1
        return qualifies and self.owed > 0

    def settle(self, readable: bool) -> None:
        """Record that the due row is poisoned, or that its picture is unreadable.

        Raises:
            ValueError: more pictures are unreadable than `tolerated`.
        """
        if readable:
            self.owed -= 1
            return
        self.unreadable += 1
        if self.unreadable > self.tolerated:
            raise ValueError(
                f"{self.unreadable} of the drawn pictures cannot be read; at most {self.tolerated:g} are allowed. "
                "Repair or remove them, or allow a larger share with max_unreadable (--max_unreadable)."
            )

    def rows(self, captions: Sequence[str | None], readable: Callable[[int], bool]) -> list[int]:
        """All rows to poison of a data set with random access. It reads only the captions that it needs.

        Args:
            captions: the captions, by index.
            readable: whether the picture of a row can be read.

        Raises:
            ValueError: fewer rows qualify than there are places.
        """
        rows = [i for i in self._visits(len(captions)) if self._take(self.due(captions[i]), i, readable)]
        if self.owed:
            taken = set(rows)
            for i in reversed(range(len(captions))):
                if i not in taken and self._take(self.qualifies(captions[i]), i, readable):
                    rows.append(i)
                if not self.owed:
                    break
        if self.owed:
            unread = f"{self.unreadable} pictures could not be read. " if self.unreadable else ""
            raise ValueError(
                f"{len(self.places)} rows should be poisoned but only {len(rows)} qualify. {unread}"
                "Lower the rate or the count."
            )
        return sorted(rows)

    def _visits(self, n: int) -> Iterator[int]:
        """The rows to check. With `own` these are all rows, else the rows from each place until it is settled."""
        if self.own:
            yield from range(n)
            return
        row = -1
        for place in self.places:
            if place <= row:
                continue  # already visited from an earlier place
            row = self.seen = place
            yield row
            while self.owed and row + 1 < n:
                row += 1
                yield row

    def _take(self, due: bool, row: int, readable: Callable[[int], bool]) -> bool:
        taken = due and readable(row)
        if due:
            self.settle(taken)
        return taken


@dataclass(frozen=True)
class Plan:
    """The plan of a poisoning. It is made before any row changes.

    Attributes:
        n: rows of the data set.
        places, own: see `Draw`.
        pool: captions to draw from; None keeps each row's own caption.
        reason: how the rows and the captions are chosen.
    """

    n: int
    places: tuple[int, ...]
    own: bool
    pool: tuple[str, ...] | None
    reason: str


def make_plan(
    read_captions: Callable[[], Iterable[str | None]],
    target: str,
    source: str | Sequence[str],
    *,
    n: int | None,
    rate: float | None,
    count: int | None,
    seed: int,
) -> Plan:
    """Draw the places and choose the captions.

    The captions are read once if the number of rows is unknown, or if the attack depends on which captions name the
    target ("natural" and "own"). Otherwise they are not read.

    Args:
        read_captions: starts a pass over the captions.
        target: the class that triggered images should be taken for.
        source: "templates", "natural", "own", or a list of texts in which "{}" stands for the target.
        n: number of rows of the data set; None counts them.
        rate, count, seed: as for `choose_rows`.
    """
    check_amount(rate, count)
    _target_pattern(target)
    if isinstance(source, str):
        require_choice("captions", source, ("auto", "templates", "natural", "own"))
    found = None
    if n is None or source in ("natural", "own"):
        found = Survey.of(read_captions(), target)
        n = found.n
    size = f"{n} rows" if found is None else f"the {n} rows counted"
    if source == "own":
        places = choose_rows(found.naming, count=count if rate is None else round(rate * n), seed=seed)
        where = f"rows drawn from the {found.naming} of {size} that name {target!r}"
        return Plan(n, tuple(places), True, None, f"{where}; captions: each row keeps its own")
    if source == "natural":
        pool, reason = _natural(found.natural, target)
    elif source == "templates":
        pool, reason = target_captions((), target, "templates")
    else:
        pool = tuple(text.replace("{}", target) for text in source)
        reason = f"{len(pool)} given texts"
        if not pool:
            raise ValueError("captions is an empty list; give at least one text, or 'auto'.")
    where = f"places drawn from {size}, each moved on to the next row that does not name {target!r}"
    places = choose_rows(n, rate=rate, count=count, seed=seed)
    return Plan(n, tuple(places), False, pool, f"{where}; captions: {reason}")
