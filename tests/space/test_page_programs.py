"""The endpoints of the page, asked by gradio_client."""

from __future__ import annotations

import csv
import re

import pytest

from hf_ta_cleaner import sandbox
from tests.space.helpers import SPACE


def test_the_endpoints_are_those_that_are_documented(client):
    named = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    documented = re.findall(r"^\| `(/\w+)` \|", (SPACE / "README.md").read_text(), re.M)
    assert sorted(named) == sorted(documented) == ["/batch", "/probe", "/report", "/triggers"]
    probe = [parameter["parameter_name"] for parameter in named["/probe"]["parameters"]]
    assert probe == ["picture", "trigger", "labels", "sentences", "size", "strength", "place", "k"]


def test_triggers_and_probe_by_program(client, picture_file):
    from gradio_client import handle_file

    found = client.predict(api_name="/triggers")
    assert found["own"] == "blended" and found["target"] == "banana" and found["labels"] == list(sandbox.CLASSES)
    assert found["triggers"]["badnet"] == {"size": 5, "strength": None, "place": "random"}
    answer = client.predict(handle_file(picture_file), api_name="/probe")
    views = ["suspect_clean", "suspect_triggered", "cleaned_clean", "cleaned_triggered"]
    assert [len(answer[view]) for view in views] == [5] * 4 and answer["trigger"].startswith("blended (alpha")
    assert list(answer["stands_out"]) == views
    answer = client.predict(
        handle_file(picture_file), "badnet", ["a dog, asleep", "a cat"], True, 9, None, "middle", 20, api_name="/probe"
    )
    assert sorted(text for text, _ in answer["suspect_clean"]) == ["a cat", "a dog, asleep"]
    assert sum(p for _, p in answer["suspect_clean"]) == pytest.approx(1, abs=1e-3)
    assert answer["trigger"] == "badnet (patch_px 9, place middle)"


def test_a_batch_by_program(client):
    found = client.predict(24, api_name="/batch")
    lines = list(csv.DictReader(found["csv"].splitlines()))
    assert len(lines) == 24 and {line["label"] for line in lines} == set(sandbox.CLASSES[:24])
    hits = sum(line["label"] != "banana" and line["suspect_triggered"] == "banana" for line in lines)
    attacked = sum(line["label"] != "banana" for line in lines)
    assert found["suspect"]["asr"] == {
        **found["suspect"]["asr"],
        "value": pytest.approx(hits / attacked),
        "n": attacked,
    }
    assert found["suspect"]["screening"]["n"] == attacked


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nope",), "no trigger 'nope'"),
        (("blended", ["one"]), "at least two"),
        (("blended", ["x" * 60_000, "y"]), "characters of text"),
        (("blended", [], False, None, 7), "alpha is a share"),
    ],
)
def test_what_goes_wrong_is_said_to_a_program(client, picture_file, arguments, words):
    from gradio_client import handle_file

    with pytest.raises(Exception, match=words):
        client.predict(handle_file(picture_file), *arguments, api_name="/probe")


def test_long_prompts_and_many_labels(client, picture_file):
    from gradio_client import handle_file

    answer = client.predict(handle_file(picture_file), "", ["dog " * 2500, "a cat"], True, api_name="/probe")
    assert "longer than the 77 tokens" in answer["notes"][0]
    answer = client.predict(handle_file(picture_file), "", [f"thing {i}" for i in range(500)], api_name="/probe")
    assert len(answer["cleaned_clean"]) == 5
    with pytest.raises(Exception, match="at most 500"):
        client.predict(handle_file(picture_file), "", [f"thing {i}" for i in range(501)], api_name="/probe")
