"""What is to be run: rows, methods, parts -> cells, each a chain of commands."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness.steps import Step, following, unique
from benchmarks.harness.suspects import make_suspect
from benchmarks.harness.worlds import SANDBOX, World


CLEAN_PAIRS = 10_000
EPOCHS, BATCH, REBOUND_STEPS, REBOUND_PAIRS = 2, 64, 300, 10_000
STEPS = CLEAN_PAIRS // BATCH * EPOCHS

#: Rows of the matrix: triggers by the name of their preset, and the model that nothing was done to.
SIX = ("badclip", "blended", "badnet", "sig", "ssba", "trojvqa")
STRUCTURED = ("badnet-stripes", "blended-stripes", "blended-triangles", "blended-text")
#: Triggers of whole pictures and of their border, that the recipe of ta-cleaner-plus was not made for.
WHOLE = ("color-cast", "vignette", "blur", "frame")
ROWS = (*SIX, "wanet", *STRUCTURED, *WHOLE, "never-poisoned")
HARD = ("badclip", "blended")
#: The paper's claim: the second has less ASR than the first on this attack, at like clean accuracy.
PAPER_ROW, COMPARED = "badclip", ("cleanclip", "ta-cleaner")

#: Column -> the flags of clean.py that make it.
METHODS: dict[str, tuple[str, ...]] = {
    name: ("--method", name) for name in ("ft", "cleanclip", "ta-cleaner", "par", "ta-cleaner-plus")
}
#: The same through LoRA, from a rate ten times as high; the rule settles how strong each is.
LORA: dict[str, tuple[str, ...]] = {
    f"{name} LoRA": (*METHODS[name], "--use_peft", "--merge_adapter", "--learning_rate", "3e-3")
    for name in ("ft", "cleanclip", "ta-cleaner", "ta-cleaner-plus")
}

#: What an attacker who knows the defence does while poisoning: name -> (times the preset rate, flags of backdoor.py).
ATTACKERS: dict[str, tuple[float, tuple[str, ...]]] = {
    "in-modal loss": (1, ("--method", "cleanclip")),
    # The views and the adversary without what holds to the clean model: that would keep the attacker from poisoning.
    "our own losses": (1, ("--method", "ta-cleaner-plus", "--distill_weight", "0", "--rewind", "0")),
    "four times the poison": (4, ()),
    "trigger through augmentation": (1, ("--method", "cleanclip", "--image_noise", "0.5", "--image_erase", "0.5")),
}

#: What is changed of ta-cleaner, one thing at a time. Its own setting is f = 1/2, one positive, one negative.
ABLATIONS: dict[str, tuple[str, ...]] = {
    **{f"fraction {f:g}": ("--subtext_fraction", f"{f:g}") for f in (0.125, 0.25, 1.0)},
    **{f"{n} positives": ("--num_positive", str(n)) for n in (2, 4)},
    **{f"{n} negatives": ("--num_negative", str(n)) for n in (2, 4)},
    "positives only": ("--num_negative", "0"),
    "negatives only": ("--num_positive", "0"),
    **{f"swap {part}": ("--subtext_swap", part) for part in ("noun", "relation", "attribute")},
    **{f"weight {w:g}": ("--subtext_weight", f"{w:g}") for w in (0.25, 0.5, 2.0, 4.0)},
}

#: What is changed of ta-cleaner-plus: each part left out, and what it does without (a blend in the place of some of
#: the disturbances, so that as many pictures are left alone). Without rewinding, or without the
#: suspect as teacher, captions teach from the first step on.
PLUS_ABLATIONS: dict[str, tuple[str, ...]] = {
    "captions instead of the suspect": ("--distill_weight", "0", "--clip_weight", "1"),
    "captions and sub-texts instead": ("--distill_weight", "0", "--clip_weight", "1", "--subtext_weight", "2"),
    "no captions": ("--clip_weight", "0"),
    "with sub-texts": ("--subtext_weight", "1"),
    "no rewinding": ("--rewind", "0"),
    "no disturbances": ("--image_structured_noise", "0"),
    "no patch": ("--adversarial_patch", "0"),
    "a learnt blend too": ("--image_structured_noise", "0.25", "--adversarial_blend", "0.1"),
    "no search before training": ("--adversarial_search", "0"),
}

#: What the part `maps` changes of ta-cleaner-plus.
MAPS = ("--adversarial_map", "0.2", "--image_structured_noise", "0.25")

#: Seconds of one core: a process' start, a pair trained on by method, an audit; corrected by what steps have taken.
START = 20.0
PER_PAIR = {"ft": 0.0030, "cleanclip": 0.0055, "ta-cleaner": 0.0065, "par": 0.0045, "ta-cleaner-plus": 0.0057}
PER_AUDIT = 25.0


@dataclass(frozen=True)
class Cell:
    """One cell of the matrix.

    Attributes:
        part: The part of the benchmark it belongs to.
        row, seed, method: Its place.
        variant: What differs from the row's and the method's own setting; "" for nothing.
        common: Steps that other chains need too: they are run first.
        steps: Steps of this suspect, in order; the last one's report holds the numbers.
        strength: Strength of the cleaning; 0 without one.
    """

    part: str
    row: str
    seed: int
    method: str
    variant: str
    common: tuple[Step, ...]
    steps: tuple[Step, ...]
    strength: float

    @property
    def name(self) -> str:
        parts = (self.part, self.row, self.seed, self.method, self.variant, f"s{self.strength:g}")
        return "-".join(str(part).replace(" ", "_") for part in parts if part != "")


@dataclass(frozen=True)
class Planner:
    """Makes the cells.

    Args:
        out: Folder of all steps but those that make the backdoored models.
        suspects: Folder of these; the other benchmarks have them there too.
        strengths: Method -> the strength that the rule has chosen.
        fast: Precision flags.
        ladder: The strengths of the frontier.
        world: Where it all happens.
    """

    out: Path
    suspects: Path
    strengths: dict[str, float]
    fast: tuple[str, ...] = ()
    ladder: tuple[float, ...] = (0.25, 0.5, 1.0, 2.0, 4.0)
    world: World = SANDBOX

    # ---- steps
    def prepare(self, what: str, seed: int, seconds: float) -> Step:
        """Data that no script makes (prepare.py), from the pairs of the world."""
        folder, world = self.out / "data" / f"{what}-{seed}", self.world
        source: tuple[str, ...] = ()  # the sandbox is the default of prepare.py
        if world is not SANDBOX:
            dataset = world.rebound if what.startswith("rebound") else world.clean
            source = ("--dataset", dataset, "--target", world.target)
        command = ("benchmarks/defences/prepare.py", what, "--seed", str(seed), *source, str(folder))
        return Step(command, "prepared.json", START + seconds)

    def clean(
        self,
        model: str | Path,
        method: str,
        seed: int,
        folder: Path,
        *,
        strength: float,
        flags: tuple[str, ...] = (),
        pairs: int = CLEAN_PAIRS,
        audits: int = 4,
    ) -> Step:
        data = () if "--dataset" in flags else ("--dataset", self.world.clean, "--max_samples", str(pairs))
        command = (
            "scripts/clean.py", "--model", str(model), *data, "--config", str(self.world.cleaning), *self.fast,
            *{**METHODS, **LORA}[method], "--seed", str(seed), "--strength", f"{strength:g}", *flags,
            "--output_dir", str(folder),
        )  # fmt: skip
        rate = PER_PAIR[method.removesuffix(" LoRA")]
        steps = int(flags[flags.index("--max_steps") + 1]) if "--max_steps" in flags else STEPS
        return Step(command, "report.json", START + rate * steps * BATCH + audits * PER_AUDIT)

    def never_poisoned(self, seed: int) -> Step:
        """The never-poisoned model after ft on the same pairs: what clean accuracy is also measured against."""
        folder = self.out / f"never-poisoned-ft-{seed}"
        return self.clean(self.world.model, "ft", seed, folder, strength=self.strengths.get("ft", 1.0), audits=1)

    def suspect(self, row: str, seed: int, attacker: str = "") -> tuple[Step, ...]:
        """The steps that make a backdoored model; the last one's folder is the model."""
        times, flags = ATTACKERS.get(attacker, (1, ()))
        method = flags[flags.index("--method") + 1] if "--method" in flags else "ft"
        how = {"attacker": attacker.replace(" ", "_"), "times": times, "flags": flags, "per_pair": PER_PAIR[method]}
        return make_suspect(self.suspects, row, seed, world=self.world, **how)

    # ---- cells
    def cell(
        self,
        part: str,
        row: str,
        seed: int,
        method: str,
        *,
        variant: str = "",
        flags: tuple[str, ...] = (),
        common: tuple[Step, ...] = (),
        pairs: int = CLEAN_PAIRS,
        strength: float | None = None,
        attacker: str = "",
        after: Callable[[Path, float], Step] | None = None,
    ) -> Cell:
        """One cell; `after` makes a step that follows the cleaning, from the cleaned folder and the strength."""
        healthy = self.never_poisoned(seed)
        if row == "never-poisoned":
            made, model = (), self.world.model
            proof: tuple[str, ...] = ("--trigger", "blended", "--target", self.world.target)
        else:
            made = self.suspect(row, seed, attacker)
            model, proof = made[-1].folder, ("--reference", self.world.model)
        if method == "none":
            if not made:
                raise ValueError("the never-poisoned row has no cell without a defence: it is its own reference")
            return Cell(part, row, seed, method, variant, (), made, 0.0)
        strength = self.strengths.get(method, 1.0) if strength is None else strength
        label = f"{row}-{seed}" + (f"-{attacker.replace(' ', '_')}" if attacker else "")
        changed = "" if after or not variant or variant == attacker else f"-{variant.replace(' ', '_')}"
        folder = self.out / f"{label}-{method.replace(' ', '_')}-s{strength:g}{changed}"
        proof = (*self.world.evaluation, *proof, "--ca_baseline", str(healthy.folder))
        cleaning = self.clean(model, method, seed, folder, strength=strength, flags=(*proof, *flags), pairs=pairs)
        steps = following(*made, cleaning, *([after(folder, strength)] if after else []))
        return Cell(part, row, seed, method, variant, (healthy, *common), steps, strength)

    def cells(self, part: str, seeds: int) -> list[Cell]:
        """All cells of a part, for the seeds 0, 1, ... where the part has several."""
        return list(PARTS[part](self, seeds))


def matrix(rows: Iterable[str], methods: Iterable[str] = METHODS) -> Callable[[Planner, int], Iterable[Cell]]:
    """The cells of these rows; a row that the world has no preset for is left out."""

    def cells(planner: Planner, seeds: int, part: str) -> Iterable[Cell]:
        for row in (row for row in rows if row in planner.world.presets or row == "never-poisoned"):
            for seed in range(seeds):
                for method in ("none", *methods):
                    if (row, method) != ("never-poisoned", "none"):
                        yield planner.cell(part, row, seed, method)

    return cells


def frontier(planner: Planner, seeds: int) -> Iterable[Cell]:
    """Every method along the ladder; the two that the paper compares with three seeds at least on its attack."""
    for row in HARD:
        for seed in range(max(seeds, 3)):
            for method in METHODS:
                if seed < seeds or (row == PAPER_ROW and method in COMPARED):
                    for strength in sorted({*planner.ladder, planner.strengths.get(method, 1.0)}):
                        yield planner.cell("frontier", row, seed, method, strength=strength)


def rebound(planner: Planner, seeds: int) -> Iterable[Cell]:
    for row in HARD:
        for seed in range(seeds):
            for what in ("rebound", "rebound-without-target"):
                data = planner.prepare(what, seed, 60)

                def after(cleaned: Path, strength: float, data: Step = data, seed: int = seed) -> Step:
                    """Benign fine-tuning at the cleaning rate on fresh pairs; what it finds is the cleaned model."""
                    flags = ("--dataset", str(data.folder), "--max_steps", str(REBOUND_STEPS), "--validation_samples",
                             "0", *planner.world.evaluation, "--reference", planner.world.model)  # fmt: skip
                    folder = cleaned.with_name(f"{cleaned.name}-{data.folder.name}")
                    return planner.clean(cleaned, "ft", seed, folder, strength=strength, flags=flags)

                variant = "captions naming the target" if what == "rebound" else "no caption names the target"
                for method in METHODS:
                    yield planner.cell("rebound", row, seed, method, variant=variant, common=(data,), after=after)


def budget(planner: Planner, seeds: int) -> Iterable[Cell]:
    """As many steps for every amount of data, so that only the data differ."""
    for row in HARD:
        for seed in range(seeds):
            for pairs in (500, 2_000, 5_000, 20_000):
                for method in ("cleanclip", "par", "ta-cleaner-plus"):
                    flags = ("--max_steps", str(STEPS), "--validation_samples", "0")
                    yield planner.cell("budget", row, seed, method, variant=f"{pairs} pairs", flags=flags, pairs=pairs)


def domain(planner: Planner, seeds: int) -> Iterable[Cell]:
    for row in HARD:
        for seed in range(seeds):
            data = planner.prepare("restyled", seed, 120)
            flags = ("--dataset", str(data.folder), "--validation_samples", "0")
            for method in METHODS:
                yield planner.cell(
                    "domain", row, seed, method, variant="woodcuts and notes", flags=flags, common=(data,)
                )


def adaptive(planner: Planner, seeds: int) -> Iterable[Cell]:
    for row in HARD:
        for seed in range(seeds):
            for attacker in ATTACKERS:
                for method in ("none", "cleanclip", "ta-cleaner", "par", "ta-cleaner-plus"):
                    yield planner.cell("adaptive", row, seed, method, variant=attacker, attacker=attacker)


def ablation(planner: Planner, seeds: int) -> Iterable[Cell]:
    """Variations of ta-cleaner and ta-cleaner-plus, then the controls: what short captions alone would have done."""
    for row in HARD:
        for seed in range(seeds):
            for method in ("cleanclip", "ta-cleaner", "ta-cleaner-plus"):
                yield planner.cell("ablation", row, seed, method)
            for variant, flags in PLUS_ABLATIONS.items():
                yield planner.cell("ablation", row, seed, "ta-cleaner-plus", variant=variant, flags=flags)
            exclude = ("--subtext_exclude", ",".join(planner.world.classes))
            for variant, flags in {**ABLATIONS, "no class words": exclude}.items():
                yield planner.cell("ablation", row, seed, "ta-cleaner", variant=variant, flags=flags)
            extra = planner.prepare("short-captions", seed, 60)
            flags = ("--dataset", str(extra.folder), "--max_steps", str(STEPS), "--validation_samples", "0")
            yield planner.cell(
                "ablation", row, seed, "cleanclip", variant="positives as plain captions", flags=flags, common=(extra,)
            )
            # 64 captions, 64 second views, 16 positives and 16 negatives a step: a quarter more texts than CleanCLIP.
            yield planner.cell(
                "ablation", row, seed, "cleanclip", variant="equal text passes",
                flags=("--max_steps", str(STEPS * 5 // 4)),
            )  # fmt: skip
            prompts = planner.prepare("other-prompts", 0, 0)
            for method in ("cleanclip", "ta-cleaner"):
                flags = ("--templates", str(prompts.folder / "templates.txt"))
                yield planner.cell(
                    "ablation", row, seed, method, variant="prompts unlike sub-texts", flags=flags, common=(prompts,)
                )


def maps(planner: Planner, seeds: int) -> Iterable[Cell]:
    """ta-cleaner-plus with smooth changes of the whole picture in its search, as many pictures left alone."""
    for row in (*WHOLE, *HARD):
        for seed in range(seeds):
            yield planner.cell("maps", row, seed, "ta-cleaner-plus", variant="learnt maps", flags=MAPS)


def lora(planner: Planner, seeds: int) -> Iterable[Cell]:
    for row in HARD:
        for seed in range(seeds):
            for method in LORA:
                yield planner.cell("lora", row, seed, method)


def _tier(name: str, rows: Iterable[str]) -> Callable[[Planner, int], Iterable[Cell]]:
    return lambda planner, seeds: matrix(rows)(planner, seeds, name)


PARTS: dict[str, Callable[[Planner, int], Iterable[Cell]]] = {
    "t1": _tier("t1", HARD),
    "t2": _tier("t2", SIX),
    "t3": _tier("t3", [row for row in ROWS if row not in (*SIX, *WHOLE)]),
    "whole": _tier("whole", WHOLE),
    "frontier": frontier,
    "rebound": rebound,
    "budget": budget,
    "domain": domain,
    "adaptive": adaptive,
    "ablation": ablation,
    "lora": lora,
    "maps": maps,
}

#: How many seeds a part has unless --seeds says otherwise.
SEEDS = {"t1": 3}


def methods_of(parts: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """The methods whose strength must be known for these parts."""
    return {**METHODS, **LORA} if "lora" in parts else dict(METHODS)


def unique_steps(cells: Iterable[Cell]) -> list[Step]:
    """Every step once, in an order in which each comes after those it needs."""
    cells = list(cells)
    return unique([*(cell.common for cell in cells), *(cell.steps for cell in cells)])
