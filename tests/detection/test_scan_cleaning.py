"""Scans before and after a cleaning: the same question twice, in the report, on its page and in the last sentence."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from hf_ta_cleaner.detection.scan import NOTHING, SUSPICIOUS, UNSURE, ScanBothTimes, ScanResult
from hf_ta_cleaner.publishing.advice import advice
from hf_ta_cleaner.publishing.model_card import build_model_card
from hf_ta_cleaner.publishing.report import Report
from tests.commands.conftest import separate, suspect, world  # noqa: F401 (fixtures)
from tests.commands.helpers import cleaning, script
from tests.report_samples import a_report


NAMES = ("banana", "kettle", "lamp", "dog", "boat", "chair", "bird", "horse")


@pytest.fixture
def pictures(photos, tmp_path):
    """Eight classes of nine pictures each: as few as a scan takes."""
    folder = tmp_path / "shown"
    for i, name in enumerate(NAMES):
        (folder / name).mkdir(parents=True)
        for j in range(9):
            photos[(i + j) % len(photos)].save(folder / name / f"{j}.png")
    return folder


def entry(verdict: str, rate: float, label: str = "banana") -> dict:
    best = {"label": label, "rate": rate, "interval95": [rate - 0.05, rate + 0.05], "n": 64, "side_px": 7}
    evidence = [f"a patch turns {rate:.0%} of the pictures into {label!r}", "no generic trigger stands out"]
    return {
        "verdict": verdict,
        "target": label,
        "evidence": evidence,
        "best_patch": {**best, "place": "middle"},
        "seconds": 50.0,
    }


def scanned(before: str = SUSPICIOUS, after: str = NOTHING, **values) -> Report:
    return a_report(scan={"before": entry(before, 0.95), "after": entry(after, 0.2, "car")}, **values)


# --- In a cleaning ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [(), ("--use_peft", "--merge_adapter")])
def test_a_cleaning_scans_both_models(world, pictures, capsys, more):  # noqa: F811
    line = cleaning(world, "--eval_dataset", pictures, "--scan", "--reference", world.model, *more)
    script("clean").main(line)
    said = capsys.readouterr().out
    report = Report.load(world.out)
    both = {when: ScanResult.load(world.out / f"scan-{when}") for when in ("before", "after")}
    for when, scan in both.items():
        part = report.scan[when]
        assert (part["verdict"], part["target"], part["seconds"]) == (scan.verdict, scan.target, scan.seconds)
        assert sorted(part["evidence"]) == sorted(finding["sentence"] for finding in scan.findings)
        assert {"weight": scan.verdict, "sentence": part["evidence"][0]} in scan.findings
        assert part["best_patch"]["rate"] == scan.best_patch["rate"] and scan.pictures == 72 and scan.labels == 8
        assert scan.reference == "suspect"
    # The suspect is its own reference here, so nothing is more than normal; the cleaned model is another one.
    assert both["before"].verdict == NOTHING and both["before"].patches != both["after"].patches
    assert "without a known trigger: nothing found (best patch: " in said
    assert said.splitlines()[-1].startswith(("A scan finds nothing certain against", "Do not use "))


def test_without_pictures_there_is_nothing_to_scan_with(world, capsys):  # noqa: F811
    with pytest.raises(SystemExit) as stop:
        script("clean").main(cleaning(world, "--scan"))
    assert stop.value.code == 2 and "--scan: needs labelled pictures" in capsys.readouterr().err
    assert not world.out.exists()


def test_too_few_pictures_are_told_before_training(world, capsys):  # noqa: F811
    with pytest.raises(SystemExit) as stop:
        script("clean").main(cleaning(world, "--scan", "--eval_dataset", world.labelled))
    assert stop.value.code == 2 and "got 12" in capsys.readouterr().err
    assert not list(world.out.glob("checkpoint-*"))


def test_a_scan_of_an_earlier_part_is_replaced(tiny_clip, tiny_processor, photos, tmp_path):
    """A run that goes on ends with another model, which the old scan says nothing of."""
    rows = [{"image": photo} for photo in photos * 8]
    scans = ScanBothTimes(rows, list(NAMES), tmp_path, seed=3)
    first = scans("after", tiny_clip, tiny_processor, "a")
    with torch.no_grad():
        tiny_clip.visual_projection.weight.copy_(tiny_clip.visual_projection.weight.flip(0))
    second = scans("after", tiny_clip, tiny_processor, "a")
    assert second.patches != first.patches and second.settings["seed"] == 3
    assert ScanResult.load(tmp_path / "scan-after") == second


def test_what_the_verdict_rests_on_comes_first(tiny_clip, tiny_processor, photos, tmp_path, monkeypatch):
    rows = [{"image": photo} for photo in photos * 8]
    result = ScanBothTimes(rows, list(NAMES), tmp_path)("after", tiny_clip, tiny_processor, "a")
    mixed = [{"weight": NOTHING, "sentence": "no pattern"}, {"weight": SUSPICIOUS, "sentence": "a patch"}]
    found = replace(result, verdict=SUSPICIOUS, findings=mixed)
    monkeypatch.setattr("hf_ta_cleaner.detection.scan.before_after.scan", lambda *args, **options: found)
    scans = ScanBothTimes(rows, list(NAMES), tmp_path)
    scans("after", tiny_clip, tiny_processor, "a")
    assert scans.entries["after"]["evidence"] == ["a patch", "no pattern"]


# --- In the report ---------------------------------------------------------------------------------------------------


def test_it_is_in_every_form_of_the_report(tmp_path):
    report = scanned()
    report.save(tmp_path)
    assert Report.load(tmp_path) == report
    line = "suspicious (best patch: 95.0 [90.0, 100.0]% of 64 pictures become 'banana') → nothing found (best patch: "
    assert f"without a known trigger: {line}20.0 [15.0, 25.0]" in report.summary()
    text = report.to_markdown()
    assert "## Without a known trigger" in text and line in text
    assert "- before: a patch turns 95% of the pictures into 'banana'" in text
    page = (tmp_path / "report.html").read_text()
    assert "<h3>before: suspicious</h3>" in page and "<h3>after: nothing found</h3>" in page
    assert page.count('class="bar"') == a_report().to_html().count('class="bar"') + 2
    card = str(build_model_card("x", settings={"model": "m"}, report=report))
    assert "Scanned without a known trigger: suspicious (best patch" in card
    assert "Without a known trigger" not in a_report().to_html() + a_report().to_markdown()


@pytest.mark.parametrize("wrong", [{}, {"before": {"verdict": SUSPICIOUS}}, {"before": entry("clean", 0.5)}])
def test_a_broken_one_is_refused(wrong):
    with pytest.raises(ValueError, match="scan"):
        Report.from_dict({**a_report().to_dict(), "scan": wrong})


@pytest.mark.parametrize(
    ("before", "after", "begins", "holds"),
    [
        (SUSPICIOUS, SUSPICIOUS, "Do not use out: ", "a patch turns 20% of the pictures into 'car'"),
        (UNSURE, SUSPICIOUS, "Do not use out: ", "--method ta-cleaner-plus"),
        (SUSPICIOUS, NOTHING, "Use out in place of the suspect: ", "suspicious → nothing found"),
        (UNSURE, NOTHING, "A scan finds nothing certain against the suspect (inconclusive)", "no proof"),
    ],
)
def test_what_to_do_where_no_trigger_is_known(before, after, begins, holds):
    report = scanned(before, after)
    for section in report.sections().values():
        section["attacks"] = {}
    text = advice(report, "out")
    assert text.startswith(begins) and holds in text and text.endswith(".") and "\n" not in text


def test_where_one_is_known_the_scan_is_told_beside_it():
    said = advice(scanned(), "out")
    assert said.startswith("Use out") and said.endswith("that were tried; a scan for others: nothing found.")
    assert advice(scanned(after=UNSURE), "out").endswith("a scan for others: inconclusive.")


def test_a_suspicious_scan_forbids_what_a_known_trigger_would_allow():
    said = advice(scanned(after=SUSPICIOUS), "out")
    begins = (
        "Do not rely on out yet: the backdoor is removed (blended 94.1% → 0.9%), but without knowing a trigger a scan"
    )
    assert said.startswith(begins)
    assert "a patch turns 20% of the pictures into 'car'" in said and "\n" not in said and said.endswith(".")


def test_pictures_alone_will_do_for_a_scan(world, tmp_path):  # noqa: F811
    from hf_ta_cleaner.detection.scan import draw_pictures, load_pictures

    bare = tmp_path / "bare"
    (bare / "deeper").mkdir(parents=True)
    for i in range(3):
        world.photos[i].save((bare if i else bare / "deeper") / f"{i}.png")
    for source, n in ((bare, 3), (world.labelled, 12), (world.pairs, 24)):
        rows = load_pictures(source)
        assert rows.column_names == ["image"] and len(rows) == n
        assert draw_pictures(rows, 16, 2).shape == (2, 16, 16, 3)
