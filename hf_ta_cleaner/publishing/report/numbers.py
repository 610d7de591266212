"""How the report writes rates and lists for people: per cent, one decimal."""

from __future__ import annotations

from collections.abc import Sequence


def percent(rate: float) -> str:
    """A fraction in per cent with one decimal, without the sign: 0.954 -> "95.4"."""
    # Adding zero turns -0.0 into 0.0.
    return f"{round(100 * rate, 1) + 0.0:.1f}"


def with_interval(rate: float, interval: Sequence[float]) -> str:
    """A fraction and its interval in per cent: 0.954, [0.944, 0.964] -> "95.4 [94.4, 96.4]"."""
    return f"{percent(rate)} [{percent(interval[0])}, {percent(interval[1])}]"


def listed(parts: Sequence[str]) -> str:
    """Parts of a sentence: "a, b and c"; "" for none."""
    return " and ".join(filter(None, (", ".join(parts[:-1]), *parts[-1:])))
