"""summary.json is what the committed tables say, and the README is what summary.json says."""

from __future__ import annotations

import json

import pytest

from benchmarks import summary
from benchmarks.harness import ROOT
from benchmarks.harness.tables import replace_block


KEYS = {f"{world}.{key}" for world in ("sandbox", "photos") for key in summary.MATRIX} | {
    *("scan.reference.found", "scan.reference.false_alarms", "scan.alone.found", "scan.alone.false_alarms"),
    *("subtexts.wrong_heads", "subtexts.supersense_kept", "speed.cpu.cleanclip_fp32_over_reference"),
    *("speed.cpu_amx.cleanclip_bf16_over_reference", "speed.cpu.plus_over_cleanclip"),
    "speed.gpu.towers_share_of_matrix_rate",
}


def test_the_committed_file_is_made_from_the_committed_tables():
    committed = json.loads(summary.FILE.read_text())
    assert committed == json.loads(json.dumps(summary.summary()))
    assert set(committed) == KEYS
    for entry in committed.values():
        assert {"value", "interval95", "command", "machine"} <= set(entry)
        if entry["value"] is not None:
            assert entry["command"] and entry["machine"]
            assert entry["interval95"] is None or entry["interval95"][0] <= entry["value"] <= entry["interval95"][1]


def test_the_readme_says_what_the_file_says():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert readme == replace_block(readme, "summary", summary.headline(json.loads(summary.FILE.read_text())))


def cell(row="badclip", seed=0, method="ta-cleaner-plus", part="t1", **values):
    numbers = {"n": 400, "asr": 0.05, "never_poisoned_asr": 0.01, "excess": 0.04, "variant": "", "strength": 1.0}
    return {"row": row, "seed": seed, "method": method, "part": part, **numbers, **values}


def test_numbers_by_hand():
    cells = [
        cell(excess=0.02),
        cell(seed=1, excess=0.04),
        cell("sig", excess=0.01),
        cell("sig", method="ft", excess=1),
    ]
    value, (low, high), about = summary.mean_excess(cells, "sandbox")
    assert value == pytest.approx((0.03 + 0.01) / 2) and about == {"n": 400, "seeds": {"badclip": 2, "sig": 1}}
    error = ((0.05 * 0.95 + 0.01 * 0.99) / 400) ** 0.5
    assert high - low == pytest.approx(2 * 1.96 * error * (1 / 2 + 1) ** 0.5 / 2)
    assert summary.worst_excess(cells, "sandbox")[::2] == (
        pytest.approx(0.03),
        {"n": 400, "seeds": {"badclip": 2}, "attack": "badclip"},
    )
    assert summary.traces(cells, "sandbox") is None and summary.mean_excess([], "photos") is None
    traced = [cell(asr_top3=0.3, never_poisoned_top3=0.2)]
    assert summary.traces(traced, "photos")[0] == pytest.approx(0.1)
    recalled = [cell(recall={"recall@1": 0.5}, recall_before={"recall@1": 0.56})]
    assert summary.recall_loss(recalled, "sandbox")[0] == pytest.approx(0.06)


def test_like_accuracy():
    cells = [cell(method="cleanclip", asr=0.8 + 0.01 * s, ca=0.85, part="frontier", seed=s) for s in range(3)]
    cells += [cell(method="ta-cleaner", asr=0.5, ca=0.852, part="frontier", seed=s, strength=2.0) for s in range(3)]
    cells += [cell(method="cleanclip", ca=0.85)]
    value, (low, high), about = summary.below_cleanclip(cells, "sandbox")
    assert value == pytest.approx(0.31) and about == {"seeds": 3} and low < 0.31 < high
    assert summary.below_cleanclip([c | {"ca": c["ca"] + (c["method"] == "ta-cleaner")} for c in cells], "x") is None
