"""How strong each method is made: one written rule that a defender could follow, without a suspect and without poison.

    Clean the never-poisoned model with every method on the same clean pairs, at the strengths 1, then 2, 4, 8 as
    long as zero-shot accuracy on held-out labelled pictures holds, else 1/2, 1/4, 1/8 until it does or falls; where
    it falls at the first of these, 2, 4, 8 as long as it rises. It holds while it is at most one point below R, the
    better of the never-poisoned model itself and that model after ft at any strength tried. The strongest setting
    that holds is the method's, for every row of the matrix; where none holds it is the most accurate one.

R counts ft because a base that was not trained to the end makes every cleaning look free. The held-out pictures are
none that the matrix is measured on. Retrieval recall on held-out pairs is told beside it and decides nothing: any
fine-tuning takes more than a point of the sandbox CLIP's (ft at a quarter of its rate 1.5), so that a rule on it
would compare nothing but the weakest settings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field

from hf_ta_cleaner.training.strength import best_strength, next_strength


BUDGET = 0.01


@dataclass
class Choice:
    """What the rule has found: R, the accuracies it rests on, the strength of each method, and the recalls beside."""

    reference: float
    tried: dict[str, dict[float, float]] = field(default_factory=dict)
    strengths: dict[str, float] = field(default_factory=dict)
    recall: dict[str, dict[float, float]] = field(default_factory=dict)

    def to_dict(self) -> dict:
        content = asdict(self)
        for name in ("tried", "recall"):
            content[name] = {
                method: {f"{s:g}": value for s, value in sorted(found.items())}
                for method, found in content[name].items()
            }
        return {**content, "budget": BUDGET, "rule": " ".join(__doc__.split("\n\n")[1].split())}


def choose(measure: Callable[[str, float], tuple[float, float]], methods: Iterable[str], jobs: int = 1) -> Choice:
    """Applies the rule.

    Args:
        measure: (method, strength) -> held-out accuracy of the never-poisoned model before and after, in [0, 1].
        methods: The methods; `ft` is settled first, because it settles R.
        jobs: How many of the others are settled at a time.
    """
    choice = Choice(0.0)

    def settle(method: str) -> tuple[dict[float, float], float]:
        tried: dict[float, float] = {}
        while (strength := next_strength(tried, choice.reference - BUDGET)) is not None:
            before, after = measure(method, strength)
            tried[strength] = after
            if method == "ft":
                choice.reference = max(choice.reference, before, after)
        return tried, best_strength(tried, choice.reference - BUDGET)

    others = [method for method in methods if method != "ft"]
    with ThreadPoolExecutor(jobs) as pool:
        for method, (tried, strength) in zip(("ft", *others), (settle("ft"), *pool.map(settle, others)), strict=True):
            choice.tried[method], choice.strengths[method] = tried, strength
    return choice
