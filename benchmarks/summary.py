"""The headline numbers of all benchmarks in one file, each with its interval and the command that made it.

    python -m benchmarks.summary            # write benchmarks/summary.json from the committed tables
    python -m benchmarks.summary --readme   # and put the numbers into README.md

Rates and losses are in points (per cent), speeds are ratios. A number that is not measured is null.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.defences.plan import COMPARED, PAPER_ROW, SIX
from benchmarks.harness import ROOT
from benchmarks.harness.tables import T, mean, paired, replace_block, table


HERE = ROOT / "benchmarks"
FILE = HERE / "summary.json"
WORLDS = {"sandbox": HERE / "defences" / "matrix.json", "photos": HERE / "photos" / "matrix.json"}
#: Largest k whose attack success counts as a trace: 10 of 48 classes, 3 of 10.
TRACE = {"sandbox": "top10", "photos": "top3"}
PLUS = "ta-cleaner-plus"

Number = tuple[float, list[float] | None, dict[str, Any]]


def load(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


# ---- a world's matrix


def rows_of(cells: Iterable[dict], method: str, parts: Sequence[str] = ("t1", "t2")) -> dict[str, list[dict]]:
    """Attack -> the cells of a method, one a seed, of the six attacks."""
    found: dict[str, dict[int, dict]] = {}
    for cell in cells:
        if cell["part"] in parts and cell["method"] == method and cell["row"] in SIX:
            found.setdefault(cell["row"], {})[cell["seed"]] = cell
    return {row: list(seeds.values()) for row, seeds in found.items()}


def spread(rate: float, reference: float, n: int) -> float:
    """Standard error of the difference of two rates on n pictures, taken as independent."""
    return math.sqrt((rate * (1 - rate) + reference * (1 - reference)) / n)


def of_attacks(rows: dict[str, list[dict]], value: Callable[[dict], float | None], error: Callable[[dict], float]):
    """Mean over attacks of the mean over seeds, with a normal interval; None where a cell lacks it."""
    middles, errors = [], []
    for cells in rows.values():
        values = [value(cell) for cell in cells]
        if None in values:
            return None
        middles.append(statistics.fmean(values))
        errors.append(math.sqrt(sum(error(cell) ** 2 for cell in cells)) / len(cells))
    if not middles:
        return None
    middle, half = statistics.fmean(middles), 1.96 * math.sqrt(sum(e**2 for e in errors)) / len(errors)
    return middle, [middle - half, middle + half], _amount(rows)


def _amount(rows: dict[str, list[dict]]) -> dict[str, Any]:
    cells = [cell for own in rows.values() for cell in own]
    return {"n": min(cell["n"] for cell in cells), "seeds": {row: len(own) for row, own in rows.items()}}


def mean_excess(cells: list[dict], world: str) -> Number | None:
    return of_attacks(rows_of(cells, PLUS), lambda c: c["excess"], _excess_error)


def _excess_error(cell: dict) -> float:
    return spread(cell["asr"], cell["never_poisoned_asr"], cell["n"])


def worst_excess(cells: list[dict], world: str) -> Number | None:
    rows = rows_of(cells, PLUS)
    if not rows:
        return None
    row = max(rows, key=lambda name: mean(rows[name], "excess"))
    middle, interval, amount = of_attacks({row: rows[row]}, lambda c: c["excess"], _excess_error)
    return middle, interval, {**amount, "attack": row}


def traces(cells: list[dict], world: str) -> Number | None:
    k = TRACE[world]

    def excess(cell: dict) -> float | None:
        normal = cell.get(f"never_poisoned_{k}")
        return None if normal is None else cell[f"asr_{k}"] - normal

    return of_attacks(
        rows_of(cells, PLUS), excess, lambda c: spread(c[f"asr_{k}"], c.get(f"never_poisoned_{k}", 0.0), c["n"])
    )


def ca_loss(cells: list[dict], world: str) -> Number | None:
    def error(cell: dict) -> float:
        low, high = cell["ca_loss_interval95"]
        return (high - low) / (2 * 1.96)

    return of_attacks(rows_of(cells, PLUS), lambda c: c.get("ca_loss"), error)


def recall_loss(cells: list[dict], world: str) -> Number | None:
    """Mean of both directions, against the suspect. The interval is over the attacks (Student's t)."""

    def loss(cell: dict) -> float | None:
        if not cell.get("recall") or not cell.get("recall_before"):
            return None
        return cell["recall_before"]["recall@1"] - cell["recall"]["recall@1"]

    rows = rows_of(cells, PLUS)
    found = of_attacks(rows, loss, lambda c: 0.0)
    if found is None:
        return None
    values = [mean([{"v": loss(cell)} for cell in own], "v") for own in rows.values()]
    return (found[0], _student(values), {**found[2], "against": "the suspect"})


def rebound(cells: list[dict], world: str) -> Number | None:
    here = [
        c for c in cells
        if (c["part"], c["row"], c["method"]) == ("rebound", PAPER_ROW, PLUS) and "naming the target" in c["variant"]
    ]  # fmt: skip
    values = [cell["rebound"] for cell in here]
    return (statistics.fmean(values), _student(values), {"seeds": len(values)}) if values else None


def adaptive(cells: list[dict], world: str) -> Number | None:
    here = [cell for cell in cells if cell["part"] == "adaptive" and cell["method"] == PLUS]
    if not here:
        return None
    worst = max(here, key=lambda cell: cell["excess"])
    half = 1.96 * _excess_error(worst)
    about = {"n": worst["n"], "seeds": 1, "attack": worst["row"], "attacker": worst["variant"]}
    return worst["excess"], [worst["excess"] - half, worst["excess"] + half], about


def below_cleanclip(cells: list[dict], world: str) -> Number | None:
    """ASR@1 of cleanclip minus that of ta-cleaner on BadCLIP at like accuracy, cleanclip at the rule's strength."""
    frontier = [c for c in cells if c["part"] == "frontier" and c["row"] == PAPER_ROW]
    of = {method: {(c["strength"], c["seed"]): c for c in frontier if c["method"] == method} for method in COMPARED}
    chosen = {c["strength"] for c in cells if c["part"] == "t1" and c["method"] == COMPARED[0]}
    best = None
    for strength in chosen:
        for other in {s for s, _ in of[COMPARED[1]]}:
            seeds = sorted(
                {s for k, s in of[COMPARED[0]] if k == strength} & {s for k, s in of[COMPARED[1]] if k == other}
            )
            if seeds:
                pairs = [(of[COMPARED[0]][strength, s], of[COMPARED[1]][other, s]) for s in seeds]
                gap = abs(statistics.fmean(a["ca"] - b["ca"] for a, b in pairs))
                if best is None or gap < best[0]:
                    best = (gap, pairs)
    if best is None or best[0] > 0.01:
        return None
    middle, interval = paired(*([cell["asr"] for cell in side] for side in zip(*best[1], strict=True)))
    return middle, interval and list(interval), {"seeds": len(best[1])}


def _student(values: Sequence[float]) -> list[float] | None:
    if len(values) < 2:
        return None
    half = T[len(values) - 1] * statistics.stdev(values) / math.sqrt(len(values))
    middle = statistics.fmean(values)
    return [middle - half, middle + half]


MATRIX: dict[str, Callable[[list[dict], str], Number | None]] = {
    "plus.mean_excess_asr1": mean_excess,
    "plus.worst_excess_asr1": worst_excess,
    "plus.mean_excess_asr_traces": traces,
    "plus.ca_loss": ca_loss,
    "plus.recall_loss": recall_loss,
    "plus.rebound": rebound,
    "plus.adaptive_worst_excess_asr1": adaptive,
    "ta_cleaner.below_cleanclip_badclip_at_like_ca": below_cleanclip,
}


def matrix_numbers() -> dict[str, dict[str, Any]]:
    found = {}
    for world, file in WORLDS.items():
        content = load(file)
        for key, number in MATRIX.items():
            value = number(content["cells"], world) if content else None
            found[f"{world}.{key}"] = _entry(value, content.get("command"), content.get("machine"), times=100)
    return found


# ---- the scan


def scan_numbers() -> dict[str, dict[str, Any]]:
    from hf_ta_cleaner.detection.scan.engine import wilson

    content = load(HERE / "scan" / "scan.json")
    found = {}
    for name, how in (("reference", "referred"), ("alone", "alone")):
        for key, kind in (("found", "backdoored"), ("false_alarms", "clean")):
            rows = [row for row in content["cells"] if row["kind"] == kind and row.get("took", True)]
            hits = sum(row[how]["verdict"] == "suspicious" for row in rows)
            number = (hits / len(rows), list(wilson(hits / len(rows), len(rows))), {"n": len(rows)})
            found[f"scan.{name}.{key}"] = _entry(number, content["command"], content["machine"], times=100)
    return found


# ---- sub-texts


def subtext_numbers() -> dict[str, dict[str, Any]]:
    content = load(HERE / "subtexts.json")
    return {
        f"subtexts.{key}": content.get(key) or _entry(None, None, None) for key in ("wrong_heads", "supersense_kept")
    }


# ---- speed


def speed_numbers() -> dict[str, dict[str, Any]]:
    command = "python -m benchmarks.speed"
    cpu, gpu = load(HERE / "speed" / "speed.json"), load(HERE / "speed" / "gpu" / "speed.json")
    steps = {(row["method"], row["way"]): row for row in cpu["sections"]["steps"]["vit-b-32"]["rows"]}
    found = {
        "speed.cpu.cleanclip_fp32_over_reference": _entry(
            _ratio(steps["cleanclip", "reference"], steps["cleanclip", "fp32"]), command, cpu["machine"]
        ),
        "speed.cpu_amx.cleanclip_bf16_over_reference": _entry(None, None, None),
        "speed.cpu.plus_over_cleanclip": _entry(
            _ratio(steps[PLUS, "fp32"], steps["cleanclip", "fp32"]), command, cpu["machine"]
        ),
    }
    if "amx" in cpu["machine"].get("instructions", ""):
        found["speed.cpu_amx.cleanclip_bf16_over_reference"] = _entry(
            _ratio(steps["cleanclip", "reference"], steps["cleanclip", "bf16"]), command, cpu["machine"]
        )
    towers = [row for row in gpu["sections"]["steps"]["vit-b-32"]["rows"] if row["way"].startswith("towers")]
    shares = [row["flops"] / statistics.median(row["seconds"]) / gpu["rate"][row["precision"]] for row in towers]
    number = (max(shares), None, {"seeds": 1}) if shares else None
    found["speed.gpu.towers_share_of_matrix_rate"] = _entry(number, f"{command} --accelerator", gpu["machine"])
    return found


def _ratio(slow: dict, fast: dict) -> Number:
    """Ratio of the seconds, over the rounds that both were run in."""
    ratios = [a / b for a, b in zip(slow["seconds"], fast["seconds"], strict=False)]
    value = statistics.median(slow["seconds"]) / statistics.median(fast["seconds"])
    return value, _student(ratios), {"rounds": len(ratios)}


# ---- the file


def _entry(number: Number | None, command: str | None, machine: dict | None, times: float = 1) -> dict[str, Any]:
    if number is None:
        return {"value": None, "interval95": None, "n": None, "command": command, "machine": machine}
    value, interval, about = number
    scaled = None if interval is None else [round(times * end, 2) for end in interval]
    return {"value": round(times * value, 2), "interval95": scaled, **about, "command": command, "machine": machine}


def summary() -> dict[str, dict[str, Any]]:
    """Key -> `{"value", "interval95", "n" or "seeds" or "rounds", "command", "machine"}`."""
    return {**matrix_numbers(), **scan_numbers(), **subtext_numbers(), **speed_numbers()}


def headline(numbers: dict[str, dict[str, Any]]) -> str:
    """The README's table of `ta-cleaner-plus` in both worlds."""
    titles = {
        "plus.mean_excess_asr1": "excess ASR@1, mean of the six attacks",
        "plus.worst_excess_asr1": "excess ASR@1, worst attack",
        "plus.mean_excess_asr_traces": "excess ASR@10 (sandbox), ASR@3 (photographs)",
        "plus.ca_loss": "clean accuracy lost",
        "plus.recall_loss": "recall@1 lost",
        "plus.rebound": "ASR@1 back after 300 benign steps",
    }

    def shown(entry: dict[str, Any]) -> str:
        if entry["value"] is None:
            return "not measured"
        interval = entry["interval95"]
        return f"{entry['value']:.1f}" + ("" if interval is None else f" [{interval[0]:.1f}, {interval[1]:.1f}]")

    lines = [[title, *(shown(numbers[f"{world}.{key}"]) for world in WORLDS)] for key, title in titles.items()]
    return table(["points", "sandbox", "photographs"], lines, left={"points"})


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.summary", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--readme", action="store_true", help="also put the numbers into README.md")
    args = parser.parse_args(argv)
    numbers = summary()
    FILE.write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")
    for key, entry in numbers.items():
        print(f"{key:<60}{'null' if entry['value'] is None else entry['value']:>8}  {entry['interval95'] or ''}")
    if args.readme:
        readme = ROOT / "README.md"
        readme.write_text(replace_block(readme.read_text("utf-8"), "summary", headline(numbers)), encoding="utf-8")


if __name__ == "__main__":
    main()
