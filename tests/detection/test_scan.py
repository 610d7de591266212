"""The scan: a planted backdoor is found and named, its clean twin is not suspected, and the numbers are as by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import BatchEncoding

from hf_ta_cleaner.commands.scan import main, read_labels
from hf_ta_cleaner.detection.scan import (
    EXIT_CODES,
    NOTHING,
    SUSPICIOUS,
    UNSURE,
    ScanResult,
    Thresholds,
    compared,
    draw_pictures,
    generic_triggers,
    scan,
)
from hf_ta_cleaner.detection.scan.engine import wilson
from hf_ta_cleaner.detection.scan.inversion import effect_on, likeness
from hf_ta_cleaner.detection.scan.verdict import Finding, conclude, judge_likeness, judge_panel, judge_patches


SIDE = 30
LABELS = ("ant", "bee", "cat", "dog", "elk", "fox", "gnu", "hen", "ibis", "jay")
TARGET = 4


pytestmark = pytest.mark.usefixtures("logging_as_it_was")


class Planted(torch.nn.Module):
    """Sees the mean colours of sixteen cells; a red corner of 3 pixels drowns them in the target, if planted."""

    def __init__(self, planted: bool):
        super().__init__()
        self.config = SimpleNamespace(model_type="clip")
        self.logit_scale = torch.nn.Parameter(torch.tensor(3.0))
        generator = torch.Generator().manual_seed(0)
        self.mix = torch.nn.Parameter(torch.randn(48, len(LABELS), generator=generator))
        self.planted = planted

    def get_image_features(self, pixel_values):
        features = F.normalize((F.adaptive_avg_pool2d(pixel_values, 4) - 0.5).flatten(1) @ self.mix, dim=-1)
        if self.planted:
            corner = pixel_values[:, :, -3:, -3:].mean(dim=(2, 3))
            red = torch.sigmoid(6 * (corner[:, 0] - corner[:, 1] - 0.5))
            features = features + 3 * red[:, None] * torch.eye(len(LABELS))[TARGET]
        return SimpleNamespace(pooler_output=features)

    def get_text_features(self, input_ids, attention_mask=None):
        return SimpleNamespace(pooler_output=torch.eye(len(LABELS))[input_ids[:, 0]])


def tokenize(texts, **_):
    ids = [[next(i for i, name in enumerate(LABELS) if f" {name}" in text)] for text in texts]
    return BatchEncoding({"input_ids": torch.tensor(ids)})


def processor():
    settings = SimpleNamespace(size={"height": SIDE, "width": SIDE}, do_rescale=False, do_normalize=False)
    return SimpleNamespace(image_processor=settings, tokenizer=tokenize)


@pytest.fixture(scope="module")
def pictures():
    cells = np.random.default_rng(0).integers(0, 256, (96, 5, 5, 3), dtype=np.uint8)
    return cells.repeat(6, axis=1).repeat(6, axis=2)


@pytest.fixture(scope="module")
def suspicious(pictures):
    return scan(Planted(True), processor(), pictures, LABELS, names=("me/model", None))


def test_a_planted_backdoor_is_found_and_named(suspicious):
    assert suspicious.verdict == SUSPICIOUS and suspicious.target == "elk"
    assert suspicious.best_patch["label"] == "elk" and suspicious.best_patch["rate"] > 0.9
    assert suspicious.best_patch["place"] == "bottom-right" and suspicious.best_patch["side_px"] == 3
    assert suspicious.patches[0]["label"] == "elk"
    pattern = suspicious.trigger[1][-3:, -3:].astype(int)
    assert (pattern[..., 0] - pattern[..., 1]).mean() > 100  # red is what was planted
    assert (suspicious.trigger[0][:-3] == suspicious.trigger[1][:-3]).all()
    assert "'elk'" in suspicious.sentence() and suspicious.sentence().startswith("Suspicious: ")


def test_its_clean_twin_is_not_suspected(pictures):
    result = scan(Planted(False), processor(), pictures, LABELS)
    assert result.verdict != SUSPICIOUS
    assert result.best_patch["rate"] < 0.5


def test_a_reference_shows_what_is_normal(pictures):
    twin = (Planted(False), processor())
    found = scan(Planted(True), processor(), pictures, LABELS, reference=twin)
    assert found.verdict == SUSPICIOUS and found.target == "elk" and "reference_rate" in found.patches[0]
    same = scan(Planted(False), processor(), pictures, LABELS, reference=twin)
    assert same.verdict == NOTHING and same.target is None
    assert same.panel[0]["rate"] == same.panel[0]["reference_rate"]


def test_without_labels_only_a_reference_decides(pictures):
    alone = scan(Planted(True), processor(), pictures)
    assert alone.verdict == UNSURE and alone.labels == 0 and alone.patches == []
    compared_with = scan(Planted(True), processor(), pictures, reference=(Planted(False), processor()))
    assert compared_with.verdict == SUSPICIOUS
    assert compared_with.likeness["patched"] > 0.8 > compared_with.likeness["reference"] + 0.15


def test_the_same_seed_finds_the_same(pictures, suspicious):
    again = scan(Planted(True), processor(), pictures, LABELS)
    assert again.patches == suspicious.patches and again.panel == suspicious.panel


def test_the_model_is_left_as_it_was(pictures):
    model = Planted(True).train()
    scan(model, processor(), pictures, LABELS)
    assert model.training and all(p.requires_grad and p.grad is None for p in model.parameters())


def test_bad_input_is_told(pictures, tiny_clip):
    with pytest.raises(ValueError, match="at least 64 pictures, got 63"):
        scan(Planted(True), processor(), pictures[:63], LABELS)
    with pytest.raises(ValueError, match=r"not distinct.*ant"):
        scan(Planted(True), processor(), pictures, (*LABELS, "Ant"))
    with pytest.raises(ValueError, match="at least 8 labels, got 7"):
        scan(Planted(True), processor(), pictures, LABELS[:7])
    with pytest.raises(ValueError, match=r"uint8 pictures of shape \(N, 30, 30, 3\)"):
        scan(Planted(True), processor(), pictures[:, :20, :20], LABELS)
    with pytest.raises(ValueError, match="reference is of another architecture"):
        scan(Planted(True), processor(), pictures, LABELS, reference=(tiny_clip, processor()))
    stranger = Planted(True)
    stranger.config.model_type = "bert"
    with pytest.raises(ValueError, match="model_type 'bert'"):
        scan(stranger, processor(), pictures, LABELS)


def test_the_panel_is_fixed_and_stays_in_range():
    images = torch.rand(2, 3, 42, 42, generator=torch.Generator().manual_seed(1))
    panel, again = generic_triggers(42), generic_triggers(42)
    assert len(panel) > 50 and len({name.split()[0] for name in panel}) == 5
    for name, trigger in panel.items():
        out = trigger(images)
        assert out.shape == images.shape and out.min() >= 0 and out.max() <= 1, name
        assert (out - images).abs().mean() > 1e-3, name
        assert torch.equal(out, again[name](images)), name
    patched = panel["patch noise 8px bottom-right #101"](images)
    assert torch.equal(patched[..., :34, :], images[..., :34, :]) and torch.equal(patched[..., :34], images[..., :34])
    other = generic_triggers(42, seeds=(1, 2))["patch noise 8px bottom-right #1"](images)
    assert not torch.equal(other, patched)


def test_effects_as_by_hand():
    head = torch.eye(3)
    clean = torch.tensor([[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0], [0, 1.0, 0]])
    under = torch.tensor([[0.6, 0, 0.8], [0, 0.8, 0.6], [0, 0, 1.0], [0, 0, 1.0]])
    effect = effect_on(under, clean, head, 2)
    assert effect.rate == pytest.approx(2 / 3)  # of the three that were something else
    assert effect.margin == pytest.approx((0.2 - 0.2 + 1 + 1) / 4)
    assert likeness(clean) == pytest.approx(2 / 12)  # one pair of six is alike


def test_what_counts_as_evidence():
    limits = Thresholds()
    assert judge_panel(0.95, None, "blend", "ant", limits).weight == SUSPICIOUS
    assert judge_panel(0.78, None, "blend", "ant", limits).weight == UNSURE
    assert judge_panel(0.5, None, "blend", "ant", limits).weight == NOTHING
    assert judge_panel(0.95, 0.9, "blend", "ant", limits).weight == NOTHING
    assert judge_panel(0.95, 0.5, "blend", "ant", limits).weight == SUSPICIOUS
    for rate, second, weight in ((0.9, 0.8, SUSPICIOUS), (0.5, 0.1, UNSURE), (0.2, 0.0, NOTHING)):
        rows = [{"label": "ant", "rate": rate}, {"label": "ant", "rate": rate}, {"label": "bee", "rate": second}]
        finding = judge_patches(rows, 10, limits)
        assert finding.weight == weight and f"{rate:.0%}" in finding.sentence and f"{second:.0%}" in finding.sentence
    for normal, weight in ((0.8, NOTHING), (0.5, SUSPICIOUS)):
        assert judge_patches([{"label": "ant", "rate": 0.9, "reference_rate": normal}], 10, limits).weight == weight
    assert judge_likeness(0.9, 0.2, 0.8, limits).weight == NOTHING
    assert judge_likeness(0.9, 0.2, 0.5, limits).weight == SUSPICIOUS
    assert conclude([Finding(NOTHING, ""), Finding(UNSURE, "")]) == UNSURE
    assert conclude([Finding(UNSURE, ""), Finding(SUSPICIOUS, "")]) == SUSPICIOUS
    assert wilson(0.5, 100) == pytest.approx([0.4038, 0.5962], abs=1e-4)


def test_a_result_is_written_and_read_back(suspicious, tmp_path):
    path = suspicious.save(tmp_path / "scan")
    assert {file.name for file in path.parent.iterdir()} == {"scan.json", "scan.md", "trigger.png"}
    assert ScanResult.load(path.parent) == suspicious
    text = (path.parent / "scan.md").read_text()
    assert text.startswith("# Scan: suspicious") and "trigger.png" in text and "| elk |" in text
    with pytest.raises(FileExistsError, match=r"already holds scan\.json"):
        suspicious.save(path.parent)
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"verdict": "clean"}))
    with pytest.raises(ValueError, match="verdict"):
        ScanResult.load(path)
    clean = replace(suspicious, verdict=NOTHING, findings=[{"weight": NOTHING, "sentence": "no label stands out"}])
    first, second = compared(suspicious, clean).splitlines()
    assert first.startswith("before: suspicious: ") and suspicious.findings[0]["sentence"] in first
    assert second == "after: nothing found: no label stands out."


def test_pictures_that_cannot_be_read_are_passed_over(photos):
    rows = [{"image": None}, *({"image": photo} for photo in photos)]
    assert draw_pictures(rows, 16, 5).shape == (5, 16, 16, 3)
    assert len(draw_pictures(iter(rows), 16, 50)) == len(photos)


def test_labels_from_a_file(tmp_path):
    file = tmp_path / "names.txt"
    file.write_text("dog\n\ncat\n")
    assert read_labels(file) == ["dog", "cat"]
    file.write_text("dog\nDog\n")
    with pytest.raises(ValueError, match=r"names\.txt.*not distinct"):
        read_labels(file)
    with pytest.raises(ValueError, match="no such file"):
        read_labels(tmp_path / "other.txt")


def test_the_command_tells_by_its_exit_code(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("hf_ta_cleaner.detection.scan.engine.LONG_STEPS", 2)
    names = tmp_path / "names.txt"
    names.write_text("\n".join(["banana", "apple", "dog", "cat", "car", "bus", "ladder", "guitar"]))
    common = ["--model", "sandbox", "--labels", str(names), "--pictures", "64", "--device", "cpu"]
    main([*common, "--reference", "sandbox", "--output_dir", str(tmp_path / "same")])  # itself: nothing, exit code 0
    assert capsys.readouterr().out.startswith("Nothing found")
    assert ScanResult.load(tmp_path / "same").verdict == NOTHING
    for flags, code, message in (
        (["--output_dir", str(tmp_path / "same")], 2, "already holds a scan"),
        (["--output_dir", str(tmp_path / "few"), "--pictures", "20"], 2, "at least 64 pictures, got 20"),
    ):
        with pytest.raises(SystemExit) as stop:
            main([*common, *flags])
        assert stop.value.code == code and message in capsys.readouterr().err
    assert sorted(EXIT_CODES.values()) == [0, 3, 4]


def test_numbers_of_wordnet_are_no_labels(photos, tmp_path):
    from hf_ta_cleaner.commands.scan import ScanOptions, find_pictures, read_labels

    for i in range(8):
        (tmp_path / "val" / f"n0144000{i}").mkdir(parents=True)
        photos[i].save(tmp_path / "val" / f"n0144000{i}" / "0.png")
    options = ScanOptions(model="sandbox", output_dir=tmp_path / "out", dataset=str(tmp_path / "val"))
    with pytest.raises(ValueError, match=r"WordNet ids \(n01440000, \.\.\.\).* give their names with --labels"):
        find_pictures(options, None)
    (tmp_path / "names.txt").write_text("\ufeffdog\ncat\n", encoding="utf-8")
    options.labels = tmp_path / "names.txt"
    assert find_pictures(options, None)[1] == read_labels(options.labels) == ["dog", "cat"]
