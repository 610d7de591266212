"""The report: the file format, its checks, the verdicts and what a reader sees."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from dataclasses import replace

import pytest
from PIL import Image

from hf_ta_cleaner.publishing.report import SCHEMA_PATH, Report, package_versions, percent, validate


def ranks(top1, top3=None, top5=None, top10=None):
    top3 = top1 if top3 is None else top3
    top5 = top3 if top5 is None else top5
    return {"top1": top1, "top3": top3, "top5": top5, "top10": top5 if top10 is None else top10}


def section(clean, **attacks):
    """A section from a clean accuracy and, per attack, (ASR, floor) or (ASR, floor, ASR of the reference)."""
    result = {"clean_accuracy": {**ranks(clean, 0.9), "n": 2000, "interval95": {"top1": [clean - 0.02, clean + 0.02]}}}
    result["attacks"] = {}
    for name, (asr, floor, *reference) in attacks.items():
        above = max(asr, 0.2)
        entry = {"asr": ranks(asr, above), "asr_including_target": ranks(asr, above), "floor": ranks(floor, 0.2)}
        entry |= {"accuracy_under_trigger": ranks(0.1, 0.3), "n": 1950, "seed": 4, "target": "banana"}
        entry["interval95"] = {"asr_top1": [max(0.0, asr - 0.01), min(1.0, asr + 0.01)], "floor_top1": [0.0, 1.0]}
        entry["trigger"] = {"name": name, "params": {"alpha": 0.2}}
        if reference:
            entry |= {"reference_asr": ranks(reference[0], 1.0), "excess": {"top1": asr - reference[0]}}
        result["attacks"][name] = entry
    return result


def report(before=(0.954, 0.019), after=(0.01, 0.008), **values):
    values = {
        "method": "ta-cleaner",
        "seed": 3,
        "target": "banana",
        "before": section(0.663, blended=before),
        "after": after and section(0.645, blended=after),
        "cost": {"pairs_seen": 20000, "seconds": 312.4, "device": "cpu"},
        **values,
    }
    return Report(**values)


FULL = {
    "ca_loss": {"value": 0.018, "interval95": [0.001, 0.035], "baseline": "suspect", "definition": "top-1, paired"},
    "retrieval": {
        "pairs": 100,
        "before": {"recall@1": 0.5, "image_to_text_recall@1": 0.4, "text_to_image_recall@1": 0.6},
        "after": {"recall@1": 0.5, "image_to_text_recall@1": 0.5, "text_to_image_recall@1": 0.5},
    },
    "model": "org/suspect",
    "base_model": "org/base",
    "dataset": "org/images",
    "versions": {"torch": "2.13.0"},
    "created": "2025-01-01T00:00:00+00:00",
    "notes": ["One seed."],
}


@pytest.mark.parametrize("values", [{}, FULL, {"after": None, "cost": None, "method": "audit", "target": None}])
def test_round_trip(tmp_path, values):
    original = report(**values)
    path = original.save(tmp_path / "out", plot=False)
    assert path == tmp_path / "out" / "report.json"
    assert Report.load(tmp_path / "out") == Report.load(path) == original
    content = json.loads(path.read_text())
    assert content["schema"] == 2
    assert content["before"]["attacks"]["blended"]["asr"]["top1"] == 0.954
    assert {"after", "cost", "target"} <= set(content)
    assert set(content).isdisjoint(set(FULL) - set(values))


def test_saving_never_overwrites_unasked(tmp_path):
    report().save(tmp_path, plot=False)
    with pytest.raises(FileExistsError, match=r"report\.json, report\.md"):
        report(seed=9).save(tmp_path, plot=False)
    assert Report.load(tmp_path).seed == 3
    report(seed=9).save(tmp_path, plot=False, overwrite=True)
    assert Report.load(tmp_path).seed == 9


def test_an_invalid_report_leaves_the_old_one_alone(tmp_path):
    report().save(tmp_path, plot=False)
    broken = report()
    broken.before["clean_accuracy"]["top1"] = 66.3
    with pytest.raises(ValueError, match="fractions, not per cent"):
        broken.save(tmp_path, plot=False, overwrite=True)
    assert Report.load(tmp_path) == report()


def test_created_reports_say_when_and_with_what(tmp_path):
    made = Report.create(method="audit", seed=0, target="banana", before=section(0.5))
    assert made.created.endswith("+00:00")
    assert made.versions == package_versions() and "torch" in made.versions
    made.save(tmp_path, plot=False)
    assert Report.load(tmp_path) == made


DELETE = object()
BROKEN = [
    (("before", "clean_accuracy", "top1"), 66.3, r"before\.clean_accuracy\.top1: got 66\.3, wanted at most 1"),
    (("before", "clean_accuracy", "top1"), -0.1, "wanted at least 0"),
    (("before", "clean_accuracy", "top1"), "0.6", "got '0.6', wanted number"),
    (("before", "clean_accuracy", "top1"), None, "got None, wanted number"),
    (("before", "clean_accuracy", "top1"), 0.2, r"outside its interval \[0\.6"),
    (("before", "clean_accuracy", "top1"), float("nan"), "cannot be written as JSON"),
    (("before", "clean_accuracy", "top3"), DELETE, "'top3' is a required property"),
    (("before", "clean_accuracy", "top5"), 0.1, "cannot fall as k grows"),
    (("before", "clean_accuracy", "top2"), 0.7, "'top2' was unexpected"),
    (("before", "clean_accuracy", "n"), 0, r"clean_accuracy\.n: got 0"),
    (("before", "clean_accuracy", "n"), 10.5, "wanted integer"),
    (("before", "clean_accuracy", "interval95"), {}, "'top1' is a required property"),
    (("before", "clean_accuracy", "interval95", "top1"), [0.6], "too short"),
    (("before",), None, "before: got None, wanted object"),
    (("before", "attacks", "blended", "floor"), DELETE, r"before\.attacks\.blended: 'floor' is a required property"),
    (("before", "attacks", "blended", "floor", "top1"), 0.5, r"blended\.floor: a rate cannot fall"),
    (("before", "attacks", "blended", "seed"), "x", r"blended\.seed: got 'x', wanted integer"),
    (
        ("before", "attacks", "blended", "interval95", "asr_top1"),
        [0.0, 0.1],
        r"blended\.asr: top1 0\.954 lies outside",
    ),
    (("before", "attacks", "blended", "asr_top1"), 0.5, "unexpected"),
    (("after", "attacks", "blended"), DELETE, "same attacks before and after"),
    (("after", "clean_accuracy"), DELETE, "after: 'clean_accuracy' is a required property"),
    (("after",), DELETE, "'after' is a required property"),
    (("after",), [], "wanted object or null"),
    (("cost", "device"), DELETE, "cost: 'device' is a required property"),
    (("cost", "pairs_seen"), -1, "wanted at least 0"),
    (("ca_loss",), {"value": 0.1}, "ca_loss: 'interval95' is a required property"),
    (("notes",), "One seed.", "notes: got 'One seed.', wanted array"),
    (("method",), DELETE, "'method' is a required property"),
    (("metod",), "x", "'metod' was unexpected"),
    (("schema",), DELETE, "'schema' is a required property"),
    (("schema",), 3, "has schema 3, this package reads 2: upgrade"),
    (("schema",), "2", r"schema: '2' is not one of \[1, 2\]"),
    (("history",), {"loss": {"step": [1, 2]}}, "history.loss: 'value' is a required property"),
    (("history",), {"loss": {"step": [1, 2], "value": [0.5]}}, r"history\.loss: 2 steps but 1 values"),
    (("examples",), {"blended": [{"label": "dog"}]}, "'sample_id' is a required property"),
    (("examples",), {"badnet": []}, r"examples: \['badnet'\] are no attacks of this report"),
    (("before", "linear_probe"), {"top1": 70}, "got 70, wanted at most 1"),
    (("before", "retrieval"), {"images": 5}, r"before\.retrieval: 'texts' is a required"),
    (("before", "attacks", "blended", "similarity"), {"start": 0.1, "width": 0.01, "counts": []}, "counts"),
]


@pytest.mark.parametrize(("place", "value", "message"), BROKEN)
def test_broken_reports_are_refused(place, value, message):
    content = copy.deepcopy(report().to_dict())
    validate(content)
    *parents, last = place
    part = content
    for key in parents:
        part = part[key]
    if value is DELETE:
        del part[last]
    else:
        part[last] = value
    with pytest.raises(ValueError, match=message):
        Report.from_dict(content)


@pytest.mark.parametrize("content", [[], None, "report"])
def test_what_is_no_object_is_no_report(content):
    with pytest.raises(ValueError, match="wanted object"):
        validate(content)


def test_all_problems_are_named_at_once():
    content = report().to_dict()
    del content["method"]
    content["seed"] = "zero"
    with pytest.raises(ValueError) as error:
        validate(content)
    assert str(error.value).count("\n- ") == 2


def test_unreadable_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no report at"):
        Report.load(tmp_path)
    path = tmp_path / "report.json"
    path.write_text("{")
    with pytest.raises(ValueError, match=r"report\.json is not readable as JSON"):
        Report.load(tmp_path)
    path.write_text("{}")
    with pytest.raises(ValueError, match=r"report\.json: Not a valid report"):
        Report.load(tmp_path)


@pytest.mark.parametrize(
    ("before", "after", "sentence"),
    [
        ((0.120, 0.105), (0.1, 0.1), "The backdoor did not take: ASR 12.0% is close to the floor 10.5%."),
        ((0.954, 0.019), (0.010, 0.008), "The backdoor is removed: ASR 95.4% → 1.0%, floor 0.8%."),
        ((0.954, 0.019), (0.400, 0.008), "The backdoor is reduced, not removed: ASR 95.4% → 40.0%, floor 0.8%."),
        ((0.954, 0.019), (0.700, 0.008), "The backdoor is still there: ASR 95.4% → 70.0%, floor 0.8%."),
        # An optimized patch moves the never-poisoned model too: what counts is the distance to that.
        ((1.0, 0.019, 0.21), (0.25, 0.01, 0.21), "is removed: ASR 100.0% → 25.0%, never-poisoned model's 21.0%."),
        (
            (0.25, 0.019, 0.21),
            (0.2, 0.01, 0.21),
            "did not take: ASR 25.0% is close to the never-poisoned model's 21.0%",
        ),
        ((0.954, 0.019, 0.0), (0.01, 0.008, 0.0), "is removed: ASR 95.4% → 1.0%, floor 0.8%."),
    ],
)
def test_verdicts(before, after, sentence):
    made = report(before, after)
    assert sentence in made.verdicts()["blended"]
    assert sentence in made.to_markdown() and sentence in made.summary()


@pytest.mark.parametrize(
    ("before", "sentence"),
    [
        ((0.954, 0.019), "There is a backdoor: ASR 95.4%, floor 1.9%."),
        ((0.12, 0.105), "No sign of a backdoor: ASR 12.0% is close to the floor 10.5%."),
    ],
)
def test_verdicts_of_a_plain_audit(before, sentence):
    made = report(before, after=None, cost=None)
    assert made.verdicts() == {"blended": sentence}


def test_markdown_holds_the_numbers_in_per_cent():
    text = report(**FULL).to_markdown()
    assert "| clean accuracy | 66.3 [64.3, 68.3] | 64.5 [62.5, 66.5] |  | 2000 |  |" in text
    assert "| ASR@1 blended | 95.4 [94.4, 96.4] | 1.0 [0.0, 2.0] | 1.9 → 0.8 | 1950 | 4 |" in text
    assert "| clean accuracy | 66.3 → 64.5 | 90.0 → 90.0 | 90.0 → 90.0 | 90.0 → 90.0 |" in text
    # (0.954 - 0.019) / (1 - 0.019) and (0.010 - 0.008) / (1 - 0.008); (0.954 - 0.2) / (1 - 0.2) and 0
    assert "| blended: (ASR - floor) / (1 - floor) | 95.3 → 0.2 | 94.2 → 0.0 |" in text
    assert "the cleaning loses 1.8 points [0.1, 3.5] of clean accuracy against the suspect model, -10.0" in text
    assert "top-1, paired" in text
    assert "20,000 pairs seen, 312 s on cpu" in text
    for part in (
        "org/suspect",
        "org/base",
        "org/images",
        "banana",
        "One seed.",
        "torch 2.13.0",
        "| image to text | 40.0 | 50.0 |",
    ):
        assert part in text
    assert "never-poisoned" not in text


def test_markdown_with_a_reference_has_the_excess():
    text = report((1.0, 0.019, 0.21), (0.25, 0.01, 0.21)).to_markdown()
    assert "| 1.9 → 1.0 | 21.0 → 21.0 | 79.0 → 4.0 | 1950 | 4 |" in text
    assert "| clean accuracy | 66.3 [64.3, 68.3] | 64.5 [62.5, 66.5] |  |  |  | 2000 |  |" in text


def test_markdown_of_a_plain_audit_has_one_column():
    made = report(after=None, cost=None)
    text = made.to_markdown()
    assert text.startswith("# Backdoor audit\n")
    assert "| ASR@1 blended | 95.4 [94.4, 96.4] | 1.9 | 1950 | 4 |" in text
    assert "→" not in text


def test_tables_are_rectangular_even_with_odd_names():
    made = report(before=(0.9, 0.1), after=(0.8, 0.1))
    for part in (made.before, made.after):
        part["attacks"]["a|b"] = part["attacks"].pop("blended")
    for block in made.to_markdown().split("\n\n"):
        rows = [line.replace("\\|", "") for line in block.splitlines() if line.startswith("|")]
        assert len({row.count("|") for row in rows}) <= 1


def test_summary_is_short():
    lines = report(**FULL).summary().splitlines()
    assert lines[0] == "clean accuracy: 66.3% → 64.5%"
    assert lines[1].startswith("blended: The backdoor is removed")
    assert lines[2] == (
        "the cleaning loses 1.8 points [0.1, 3.5] of clean accuracy against the suspect model, -10.0 points of "
        "image-to-text recall@1 (40.0% → 50.0%) and 10.0 points of text-to-image recall@1 (60.0% → 50.0%) on 100 "
        "held-out pairs"
    )
    assert lines[3] == "cost: 20,000 pairs seen, 312 s on cpu" and len(lines) == 4


def test_a_report_without_labelled_images_rests_on_retrieval(tmp_path):
    nothing = {"clean_accuracy": None, "attacks": {}}
    made = replace(report(**FULL), before=nothing, after=nothing, target=None, ca_loss=None)
    text = made.to_markdown()
    assert "not measured" in text and "| text to image | 60.0 | 50.0 |" in text
    assert "10.0 points of text-to-image recall@1 (60.0% → 50.0%) on 100 held-out pairs" in made.summary()
    made.save(tmp_path)
    assert Report.load(tmp_path) == made and not (tmp_path / "report.png").exists()
    with pytest.raises(ValueError, match="retrieval stands in"):
        validate({k: v for k, v in made.to_dict().items() if k != "retrieval"})


@pytest.mark.parametrize(("rate", "text"), [(0.954, "95.4"), (1, "100.0"), (-0.00001, "0.0"), (-0.18, "-18.0")])
def test_percent(rate, text):
    assert percent(rate) == text


@pytest.mark.parametrize("kind", ["cleaning", "audit", "no attacks", "many attacks"])
def test_plot_is_a_picture_of_the_promised_size(tmp_path, kind):
    pytest.importorskip("matplotlib")
    made = report((1.0, 0.019, 0.21), (0.0, 0.01, 0.21))
    if kind == "many attacks":
        many = {f"attack-{i}": (0.9, 0.1) for i in range(8)}
        made.before, made.after = section(0.6, **many), section(0.5, **many)
    if kind in ("audit", "no attacks"):
        made.after = None
    if kind == "no attacks":
        made.before = section(0.6)
    made.save(tmp_path)
    with Image.open(tmp_path / "report.png") as image:
        assert image.size == (1200, 600)
        colors = {color for _, color in image.convert("RGB").getcolors(1 << 20)}
    assert (0xD5, 0x5E, 0x00) in colors
    assert ((0x00, 0x72, 0xB2) in colors) == (made.after is not None)


def test_the_schema_is_itself_valid():
    from jsonschema import Draft202012Validator

    Draft202012Validator.check_schema(json.loads(SCHEMA_PATH.read_text()))


def test_importing_the_report_is_cheap():
    code = (
        "import sys, hf_ta_cleaner.publishing.report;"
        "print([m for m in ('torch', 'matplotlib', 'jsonschema', 'numpy') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
