"""The speed benchmark compares like with like, and says what its numbers say."""

from __future__ import annotations

import json

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.speed import HERE, plan, steps, table
from benchmarks.speed.__main__ import main, make_plan, parse
from benchmarks.speed.worlds import flops, make_model
from hf_ta_cleaner.training.config import METHODS


@pytest.mark.parametrize("method", METHODS)
def test_all_ways_begin_with_the_same_loss(method):
    """The reference style shares losses and draws with the trainer, but no collator and no batching of views."""
    losses = {way: steps.measure("tiny", way, method, 8, 1, {})["loss"] for way in ("trainer", "bare", "reference")}
    assert losses["bare"] == pytest.approx(losses["trainer"], rel=1e-4)
    assert losses["reference"] == pytest.approx(losses["trainer"], rel=1e-4)


def test_operations_against_a_counter():
    model = make_model("tiny")
    model.set_attn_implementation("eager")  # the counter does not know the fused one of a processor
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(pixel_values=torch.zeros(3, 3, 32, 32), input_ids=torch.ones(5, 11, dtype=torch.long))
    similarities = 2 * 3 * 5 * model.config.projection_dim
    assert counter.get_total_flops() - similarities == flops(model.config, 3, 5, 11)


def row(method: str, way: str, *seconds: float) -> dict:
    return {"method": method, "way": way, "seconds": list(seconds), "peak_mb": 1000.0}


SECTIONS = {
    "steps": {
        "sandbox": {
            "batch": 64,
            "rows": [
                row("cleanclip", "reference", 4.0, 9.0, 4.2),
                row("cleanclip", "bare", 1.9),
                row("cleanclip", "fp32", 2.0, 2.1, 1.0),
                row("ta-cleaner", "fp32", 2.5),
            ],
        }
    },
    "parts": {"sandbox": {"tokens": 12.0, "each": {"input of a pair, cleanclip": 0.001}}},
    "growth": {"batch": [{"n": 64, "seconds": 1.0, "peak_mb": 500}, {"n": 128, "seconds": 4.0, "peak_mb": 625}]},
}
RATIOS = {
    "sandbox, cleanclip: fp32 over reference style": 4.2 / 2,
    "sandbox, cleanclip: trainer over bare loop": 1.9 / 2,
    "sandbox, cleanclip: step over its input": 2 / 64 / 0.001,
    "sandbox: ta-cleaner over cleanclip": 2 / 2.5,
    "batch: time for each at 64 over 128": 0.5,
    "batch: peak memory at 64 over 128": 0.8,
}


def test_ratios_by_hand():
    assert table.ratios(SECTIONS) == pytest.approx(RATIOS)


def test_the_check_names_what_fell():
    worse = RATIOS | {"sandbox: ta-cleaner over cleanclip": 0.7, "batch: time for each at 64 over 128": 0.44}
    assert table.fallen(worse, RATIOS, 0.15) == []
    assert table.fallen(worse, RATIOS, 0.12) == ["sandbox: ta-cleaner over cleanclip: 0.70, committed 0.80"]
    assert table.fallen({}, RATIOS, 0.1) == []


def test_the_page_shows_the_medians():
    text = table.page({"machine": {"cpu": "some"}, "rate": {}, "sections": SECTIONS, "ratios": RATIOS})
    assert "| cleanclip | fp32 | 32.00 | 32.00, 30.48, 64.00 | 2.10 |" in text
    assert "| 128 | 4.00 | 31.250 | 625 |" in text


def test_a_full_run_takes_turns_and_knows_its_length():
    full = make_plan(parse(["--plan"]))
    first, second = (full.steps("vit-b-32", number, METHODS) for number in (0, 1))
    assert first != second and sorted(map(str, first)) == sorted(map(str, second))
    assert {spec["how"] for _, _, spec in first} == {"reference", "bare", "trainer"} and len(first) == 5 * 4
    assert 20 < sum(full.minutes(plan.SECTIONS, tuple(METHODS)).values()) < 240
    assert [spec["n"] for spec in full.growth()["pairs"]] == [1000, 10_000, 100_000]


def test_plan_runs_nothing(capsys, tmp_path):
    assert main(["--plan", "--only", "steps", "--shape", "sandbox", "--output_dir", str(tmp_path / "out")]) == 0
    assert "in all about" in capsys.readouterr().out and not (tmp_path / "out").exists()


def test_ways_for_an_accelerator(capsys):
    more = make_plan(parse(["--accelerator", "--batch", "512", "--steps", "30", "--warmup", "15"]))
    specs = {way: spec for _, way, spec in more.steps("vit-b-32", 0, ("cleanclip",))}
    assert list(specs)[3:] == ["bf16", "bf16, resized", "towers", "bf16, resized, compiled", "towers, compiled"]
    assert specs["bf16, resized, compiled"]["options"] == {"bf16": True, "resize_once": True, "torch_compile": True}
    assert [(spec["warmup"], spec["steps"]) for spec in specs.values()] == [(1, 2)] + 7 * [(15, 30)]
    assert [way for way, _, _ in make_plan(parse(["--ways", "bare", "bf16"])).ways()] == ["bare", "bf16"]
    assert main(["--ways", "towers"]) == 2 and "--accelerator" in capsys.readouterr().err


@pytest.mark.parametrize("way", ["towers", "trainer"])
def test_an_accelerators_ways_work(way):
    options = {"resize_once": True, "torch_compile": True, "torch_compile_backend": "eager"}
    found = steps.measure("tiny", way, "cleanclip", 8, 1, options)
    assert found["seconds"] > 0 and found["images"] == 16 and found["flops"] > 0


def test_a_part_that_is_measured_anew_leaves_the_others_rows(monkeypatch):
    from benchmarks.speed import __main__ as speed

    monkeypatch.setattr(speed, "work", lambda spec, args: {"seconds": 2.0, "peak_mb": 1.0})
    args = parse(["--shape", "sandbox", "--rounds", "2", "--ways", "fp32"])
    into = {"sandbox": {"batch": 64, "rows": [row("par", "fp32", 1.0), row("cleanclip", "reference", 3.0)]}}
    speed.run_steps(make_plan(args), ("ft", "cleanclip"), args, into, {})
    found = [(one["method"], one["way"], one["seconds"]) for one in into["sandbox"]["rows"]]
    assert found == [
        ("ft", "fp32", [2.0, 2.0]),
        ("cleanclip", "reference", [3.0]),
        ("cleanclip", "fp32", [2.0, 2.0]),
        ("par", "fp32", [1.0]),
    ]
    into["sandbox"]["batch"] = 32  # of another batch nothing is kept
    speed.run_steps(make_plan(args), ("ft",), args, into, {})
    assert len(into["sandbox"]["rows"]) == 1


@pytest.mark.slow
def test_everything_works_in_small(tmp_path, capsys):
    assert main(["--quick", "--methods", "ta-cleaner", "--no_bf16", "--output_dir", str(tmp_path)]) == 0
    result = json.loads((tmp_path / "speed.json").read_text())
    assert set(result["sections"]) == set(plan.SECTIONS)
    assert (tmp_path / "speed.md").read_text() == table.page(result)
    decoded = [point["decoded"] for point in result["sections"]["growth"]["triggers"]]
    assert decoded == [1.0, 1.0]  # a picture is opened once, whatever the triggers


@pytest.mark.skipif(not (HERE / "speed.json").exists(), reason="benchmarks/speed/speed.json has not been made yet")
def test_the_committed_page_is_that_of_the_results():
    result = json.loads((HERE / "speed.json").read_text())
    assert (HERE / "speed.md").read_text() == table.page(result)
    assert table.ratios(result["sections"]) == pytest.approx(result["ratios"])
