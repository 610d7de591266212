"""What is measured: the specifications given to the worker, and about how long each takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


METHODS = ("ft", "cleanclip", "ta-cleaner", "par", "ta-cleaner-plus")
SECTIONS = ("steps", "parts", "growth")

#: About so many pairs are all that the reference style is given in a round.
REFERENCE_PAIRS = 1280
#: Seconds that a process takes to start and to make its data.
START = 15.0
#: Seconds of a reference-style step of cleanclip for each pair, on two cores; and how the others compare with it.
PAIR_SECONDS = {"vit-b-32": 0.87, "sandbox": 0.013, "tiny": 0.008}
OF_METHOD = {"ft": 0.5, "cleanclip": 1.0, "ta-cleaner": 1.15, "par": 0.7, "ta-cleaner-plus": 1.5}
OF_WAY = {"reference": 1.0, "bare": 0.55, "fp32": 0.55, "bf16": 0.3}


@dataclass(frozen=True)
class Plan:
    """How much is measured.

    Attributes:
        shapes: Shape -> (pairs of a batch, timed steps of a round).
        rounds: Every way takes its steps once a round, the ways in turn.
        bf16: Whether to measure that way, besides `reference`, `bare` and `fp32`.
        accelerator: Also with pictures resized once, with compiled blocks, and the towers alone.
        images: Shape -> pictures audited and poisoned.
        warmup: Steps before those that are timed.
        only: Names of ways; the others are left out.
        pairs, batches, classes, triggers: Points of the growth tables.
        whole_batches: Batches also measured without --mini_batch_size.
        matrix: Side of the matrices whose products give the machine's rate.
    """

    shapes: dict[str, tuple[int, int]]
    rounds: int
    bf16: bool
    images: dict[str, int]
    pairs: tuple[int, ...]
    batches: tuple[int, ...]
    whole_batches: tuple[int, ...]
    classes: tuple[int, ...]
    triggers: tuple[int, ...]
    part_rounds: int = 5
    matrix: int = 4096
    accelerator: bool = False
    warmup: int = 1
    only: tuple[str, ...] = ()

    def ways(self) -> list[tuple[str, str, dict[str, Any]]]:
        """(name, how, settings)."""
        found = [("reference", "reference", {}), ("bare", "bare", {}), ("fp32", "trainer", {})]
        if self.bf16:
            found.append(("bf16", "trainer", {"bf16": True}))
        if self.accelerator:
            precision, options = ("bf16", {"bf16": True}) if self.bf16 else ("fp32", {})
            once, compiled = {"resize_once": True}, {"torch_compile": True}
            found += [
                (f"{precision}, resized", "trainer", {**options, **once}),
                ("towers", "towers", options),
                (f"{precision}, resized, compiled", "trainer", {**options, **once, **compiled}),
                ("towers, compiled", "towers", {**options, **compiled}),
            ]
        return [way for way in found if not self.only or way[0] in self.only]

    def steps(self, shape: str, number: int, methods: tuple[str, ...]) -> list[tuple[str, str, dict[str, Any]]]:
        """(method, way, specification) of one round; every round begins elsewhere."""
        batch, steps = self.shapes[shape]
        found = []
        for method in methods:
            for way, how, options in self.ways():
                spec = {"shape": shape, "how": how, "method": method, "batch": batch, "steps": steps}
                # In the reference style nothing is prepared beforehand, and a step takes long.
                spec |= (
                    {"warmup": 1, "steps": min(steps, max(2, REFERENCE_PAIRS // batch))} if how == "reference" else {}
                )
                spec.setdefault("warmup", self.warmup)
                found.append((method, way, {"kind": "step", **spec, "options": options}))
        turn = number * 5 % len(found)
        return found[turn:] + found[:turn]

    def growth(self) -> dict[str, list[dict[str, Any]]]:
        """What grows -> specifications, small to large."""
        shape = "tiny" if "tiny" in self.shapes else "sandbox"
        images = self.images[next(reversed(self.images))]
        mini = min(self.batches)
        return {
            "pairs": [{"kind": "pairs", "shape": shape, "n": n} for n in self.pairs],
            "batch": [{"kind": "batch", "shape": shape, "n": n, "mini": mini, "taken": 1} for n in self.batches],
            "batch, whole": [
                {"kind": "batch", "shape": shape, "n": n, "mini": None, "taken": 1} for n in self.whole_batches
            ],
            "classes": [{"kind": "classes", "shape": shape, "n": n} for n in self.classes],
            "triggers": [{"kind": "triggers", "shape": shape, "n": n, "images": images} for n in self.triggers],
        }

    def minutes(self, sections: tuple[str, ...], methods: tuple[str, ...]) -> dict[str, float]:
        """Section -> minutes on two cores that nothing else uses; an estimate."""
        found = {}
        if "steps" in sections:
            for shape in self.shapes:
                total = 60.0
                for method, way, spec in self.steps(shape, 0, methods):
                    pair = PAIR_SECONDS[shape] * OF_METHOD[method] * OF_WAY.get(way, 0.3)
                    total += self.rounds * (START + (spec["steps"] + 1) * spec["batch"] * pair)
                found[f"steps, {shape}"] = total / 60
        if "parts" in sections:
            found["parts"] = sum(
                1.0 + n * (0.12 if shape == "vit-b-32" else 0.01) / 60 for shape, n in self.images.items()
            )
        if "growth" in sections:
            batches = sum(self.batches) + sum(self.whole_batches)
            found["growth"] = (
                START * sum(map(len, self.growth().values()))
                + 2 * batches * 2 * PAIR_SECONDS["sandbox"]
                + sum(self.pairs) * 0.0015
                + sum(self.classes) * 0.02
                + sum(self.triggers) * self.images[next(reversed(self.images))] * 0.003
            ) / 60
        return found


def full(bf16: bool) -> Plan:
    return Plan(
        shapes={"vit-b-32": (32, 2), "sandbox": (64, 20)},
        rounds=3,
        bf16=bf16,
        images={"vit-b-32": 256, "sandbox": 2000},
        pairs=(1000, 10_000, 100_000),
        batches=(64, 256, 1024, 4096),
        whole_batches=(64, 256, 1024),
        classes=(10, 100, 1000),
        triggers=(1, 3, 7),
    )


def quick(bf16: bool) -> Plan:
    """Small enough to see that everything works; its numbers say little."""
    return Plan(
        shapes={"tiny": (16, 2)},
        rounds=1,
        bf16=bf16,
        images={"tiny": 64},
        pairs=(200, 400),
        batches=(32, 64),
        whole_batches=(32,),
        classes=(10, 20),
        triggers=(1, 2),
        part_rounds=1,
        matrix=256,
    )
