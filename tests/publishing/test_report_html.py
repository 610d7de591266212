"""The page: complete, self-contained, harmless, and with shapes that stay inside their frames."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from hf_ta_cleaner.publishing.report import Report, curves, figures
from hf_ta_cleaner.publishing.report.html import HEIGHT, WIDTH, as_data_uri, ticks
from tests.publishing.test_report import FULL, report


class Page(HTMLParser):
    """Collects tags and text, and finds tags that are not closed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.words = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "line", "path", "circle"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())

    def all(self, tag, **wanted):
        return [a for t, a in self.tags if t == tag and all(a.get(k) == v for k, v in wanted.items())]


PICTURE = np.arange(32 * 32 * 3, dtype=np.uint8).reshape(32, 32, 3)
EXAMPLES = {
    "blended": [
        {
            "sample_id": 7,
            "label": "sea lion",
            "before": {"clean": "sea lion", "triggered": "banana"},
            "after": {"clean": "sea lion", "triggered": "walrus"},
        }
    ]
}
HISTORY = {
    "loss": {"step": [1, 2, 3], "value": [3.0, 2.0, 2.5]},
    "loss/inmodal": {"step": [1, 2, 3], "value": [1.0, 1.0, 1.0]},
    "learning_rate": {"step": [1, 2, 3], "value": [1e-5, 5e-6, 0.0]},
}


def full() -> Report:
    made = replace(
        report(**FULL), examples=EXAMPLES, history=HISTORY, settings={"learning_rate": 1e-5, "wordnet": "absent"}
    )
    for part, start in ((made.before, 0.62), (made.after, 0.1)):
        part["attacks"]["blended"]["similarity"] = {"start": start, "width": 0.01, "counts": [1, 0, 6, 3]}
    return made


def test_everything_is_on_the_page():
    page = Page(full().to_html({("blended", 7): (PICTURE, PICTURE[::-1])}))
    for part in (
        "Before and after ta-cleaner",
        "The backdoor is removed: ASR 95.4% → 1.0%",
        "[94.4, 96.4]",
        "66.3%",
        "floor 1.9",
        "sea lion → banana",
        "sea lion → walrus",
        "Similarity to the target",
        "in-modal loss",
        "recall@1 (100 held-out pairs) 40.0 50.0",
        "learning_rate 1e-05",
        "wordnet absent",
        "torch 2.13.0",
        "One seed.",
        "may hide others",
    ):
        assert part in page.text, part
    assert len(page.all("svg")) == 1 + 3
    widths = [a["style"] for a in page.all("i") if a["class"].startswith("fill")]
    assert widths == ["width:66.30%", "width:64.50%", "width:95.40%", "width:1.00%"]


def test_the_page_needs_nothing_else_and_runs_nothing():
    text = full().to_html({("blended", 7): (PICTURE, PICTURE)})
    page = Page(text)
    assert not {"script", "link", "iframe", "object", "base"} & {tag for tag, _ in page.tags}
    assert not re.search(r"https?:|@import|url\(", text)
    for _, attributes in page.tags:
        assert attributes.get("src", "data:").startswith("data:") and "href" not in attributes
        assert not any(name.startswith("on") for name in attributes)
    assert page.all("meta", name="viewport") and "prefers-color-scheme: dark" in text


def test_pictures_are_in_the_page_pixel_by_pixel():
    page = Page(full().to_html({("blended", 7): (PICTURE, PICTURE[::-1])}))
    found = [a["src"] for a in page.all("img")]
    for uri, expected in zip(found, (PICTURE, PICTURE[::-1]), strict=True):
        kind, data = uri.split(",")
        assert kind == "data:image/png;base64"
        assert np.array_equal(Image.open(io.BytesIO(base64.b64decode(data))), expected)
    assert as_data_uri(np.zeros((224, 224, 3), np.uint8)).startswith("data:image/jpeg;base64,")
    assert Page(full().to_html()).all("img") == []


def test_names_cannot_break_the_page():
    evil = '<script>alert("x")</script>'
    made = full()
    made.model = made.notes[0] = evil
    made.examples["blended"][0]["label"] = evil
    try:
        page = Page(made.to_html())
    finally:
        made.examples["blended"][0]["label"] = "sea lion"
    assert page.all("script") == [] and page.text.count(evil) >= 3


def test_shapes_stay_in_their_frames():
    page = Page(full().to_html())
    for path in page.all("path"):
        numbers = [float(n) for n in re.findall(r"-?\d+\.?\d*", path["d"])]
        assert min(numbers) >= 0 and max(numbers[::2]) <= WIDTH and max(numbers[1::2]) <= HEIGHT
        assert path["class"] in ("curve", "hist before", "hist after")
    # Counts 1, 0, 6, 3 of ten: the third bar is highest, and "before" lies right of "after".
    before, after = (
        [float(x) for x in re.findall(r"[ML]([\d.]+) ", page.all("path", **{"class": f"hist {when}"})[0]["d"])]
        for when in ("before", "after")
    )
    assert np.mean(before) < WIDTH and min(after) == min(before)


@pytest.mark.parametrize("kind", ["audit", "no attacks", "retrieval only"])
def test_less_makes_a_page_too(kind):
    made = report(**FULL)
    if kind == "retrieval only":
        nothing = {"clean_accuracy": None, "attacks": {}}
        made = replace(made, before=nothing, after=nothing, target=None, ca_loss=None)
    else:
        made = replace(made, after=None, cost=None, method="audit", retrieval=None)
    if kind == "no attacks":
        made.before["attacks"] = {}
    text = Page(made.to_html()).text
    assert ("Backdoor audit" in text) == (kind != "retrieval only")
    assert ("held-out pairs" in text) == (kind == "retrieval only")


def test_the_page_is_saved_with_the_report(tmp_path):
    full().save(tmp_path, plot=False, pictures={("blended", 7): (PICTURE, PICTURE)})
    assert "data:image/png" in (tmp_path / "report.html").read_text()
    assert Report.load(tmp_path) == full()
    assert '"counts": [1, 0, 6, 3]' in (tmp_path / "report.json").read_text()
    (tmp_path / "report.json").unlink()
    with pytest.raises(FileExistsError, match=r"report\.html"):
        full().save(tmp_path, plot=False)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 10, [0, 2.5, 5, 7.5, 10]), (0.12, 0.93, [0.2, 0.4, 0.6, 0.8]), (-1, 1, [-1, -0.5, 0, 0.5, 1]), (2, 2, [2])],
)
def test_ticks_are_round(low, high, expected):
    assert ticks(low, high, 4) == pytest.approx(expected)


def test_curves_come_from_the_log():
    log = [
        {"loss": 3.0, "loss/clip": 2.0, "grad_norm": 9.0, "epoch": 0.1, "step": 10},
        {"eval_recall@1": 0.5, "step": 10},
    ]
    log += [{"loss": 1.0, "loss/clip": float("nan"), "step": 20}, {"train_runtime": 5.0, "step": 20}]
    assert curves(log) == {"loss": {"step": [10, 20], "value": [3.0, 1.0]}}
    long = curves([{"loss": float(i), "step": i} for i in range(1, 1001)])["loss"]
    assert long["step"] == list(range(5, 1001, 5)) and long["value"][-1] == 1000.0
    assert len(curves([{"loss": 1.0, "step": i} for i in range(201)])["loss"]["step"]) == 101


def test_trackers_get_stable_names():
    from transformers.integrations.integration_utils import rewrite_logs

    section = full().before
    section["linear_probe"] = {"top1": 0.7}
    section["retrieval"] = {
        "image_to_text": {"top1": 0.4}, "text_to_image": {"top1": 0.3}, "attacks": {"blended": {"asr": {"top1": 0.9}}}
    }  # fmt: skip
    assert rewrite_logs(figures(section)) == {
        "test/clean_accuracy": 0.663,
        "test/asr/blended": 0.954,
        "test/floor/blended": 0.019,
        "test/linear_probe": 0.7,
        "test/image_to_text_recall@1": 0.4,
        "test/text_to_image_recall@1": 0.3,
        "test/retrieval_asr/blended": 0.9,
    }
    assert figures({"clean_accuracy": None, "attacks": {}}) == {}
