"""Tables with intervals, and blocks of a text that a command makes anew."""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Iterable, Sequence


#: 97.5% quantile of Student's t by degrees of freedom.
T = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}


def percent(rate: float | None) -> str:
    """A rate in per cent with one decimal; nothing for None."""
    return "" if rate is None else f"{round(100 * rate, 1) + 0.0:.1f}"


def mean(cells: Sequence[dict], key: str) -> float | None:
    values = [cell[key] for cell in cells if key in cell]
    return statistics.fmean(values) if values else None


def paired(a: Sequence[float], b: Sequence[float]) -> tuple[float, tuple[float, float] | None]:
    """Mean of a - b over seeds and its 95% interval (Student's t; None with a single seed)."""
    differences = [x - y for x, y in zip(a, b, strict=True)]
    middle = statistics.fmean(differences)
    if len(differences) < 2:
        return middle, None
    half = T[len(differences) - 1] * statistics.stdev(differences) / math.sqrt(len(differences))
    return middle, (middle - half, middle + half)


def table(head: Sequence[str], lines: Iterable[Sequence[str]], *, left: Collection[str] = ()) -> str:
    """A table in Markdown. The columns named in `left` stand to the left, all others to the right."""
    rule = ["---" if name in left else "---:" for name in head]
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, rule, *lines))


def replace_block(text: str, name: str, content: str) -> str:
    """The text with what stands between `<!-- NAME:begin -->` and `<!-- NAME:end -->` replaced.

    Raises:
        ValueError: The markers are not there, once each and in order.
    """
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise ValueError(f"the text needs a line {begin} and after it a line {end}, once each; add them")
    before, rest = text.split(begin)
    return f"{before}{begin}\n{content}\n{end}{rest.split(end)[1]}"
