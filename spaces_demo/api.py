"""The same by program: named endpoints for gradio_client, on the pair the Space was started with.

    from gradio_client import Client, handle_file
    client = Client("http://127.0.0.1:7860")
    client.predict(handle_file("dog.png"), "blended", api_name="/probe")

The docstrings below are what the page's own API view shows.
"""

from __future__ import annotations

from functools import wraps

import gradio as gr
from batch import batch as run_batch
from batch import rates, sample_pictures, to_csv
from inputs import MAX_CHARACTERS, ProbeError, read_picture, read_prompts, uploaded
from probe import PAIRS, START, look
from triggers import controls, describe


MAX_ANSWERS = 20
MAX_SAMPLE = 480


def _told(function):
    """What a ProbeError says reaches the caller; of any other error only that there was one."""

    @wraps(function)
    def call(*args):
        try:
            return function(*args)
        except ProbeError as error:
            raise gr.Error(str(error), print_exception=False) from error

    return call


@_told
def triggers() -> dict:
    """The two models, the trigger beside the suspect, its target, the labels, every trigger with its controls."""
    pair = PAIRS.get(*START)
    found = {}
    for name, attack in pair.triggers.items():
        present = controls(attack, pair.size)
        values = {"size": present.size and present.size.value, "strength": present.strength and present.strength.value}
        found[name] = {**values, "place": present.place}
    models = {who: one.name for who, one in pair.models.items()}
    return {**models, "own": pair.own, "target": pair.target, "labels": list(pair.labels), "triggers": found}


@_told
def probe(
    picture: dict,
    trigger: str = "",
    labels: list[str] = [],  # noqa: B006 (gradio shows the default in its documentation; it is never written to)
    sentences: bool = False,
    size: float | None = None,
    strength: float | None = None,
    place: str | None = None,
    k: int = 5,
) -> dict:
    """Both models on one picture, handle_file(path), without and with a trigger: ranked [text, probability].

    `stands_out` says of each what the screening finds; it is empty for models that are not the sandbox's.
    """
    pair = PAIRS.get(*START)
    pixels, notes = read_picture(uploaded(picture), pair.size, pair.geometry)
    lines = "\n".join(map(str, labels or pair.labels))
    prompts = read_prompts(lines[: MAX_CHARACTERS + 1], bool(sentences))
    attack = pair.trigger(trigger, size, strength, place)
    found = look(pair, pixels, attack, prompts, min(max(1, int(k)), MAX_ANSWERS))
    answers = {f"{who}_{view}": [list(answer) for answer in top] for (who, view), top in found.top.items()}
    stands_out = {f"{who}_{view}": flagged for (who, view), flagged in found.flagged.items()}
    return {**answers, "stands_out": stands_out, "trigger": describe(attack), "notes": [*notes, *found.notes]}


@_told
def batch(
    n: int = 48,
    trigger: str = "",
    size: float | None = None,
    strength: float | None = None,
    place: str | None = None,
    target: str = "",
) -> dict:
    """Attack success, floor and accuracy of both models on n sandbox pictures, with 95% intervals, and the csv."""
    pair = PAIRS.get(*START)
    if not pair.is_sandbox or not 1 <= int(n) <= MAX_SAMPLE:
        raise ProbeError(f"Wanted models of the sandbox and 1 to {MAX_SAMPLE} pictures; got {n} pictures.")
    prompts = read_prompts(", ".join(pair.labels))
    attack = pair.trigger(trigger, size, strength, place)
    rows = [row for part in run_batch(pair, sample_pictures(pair, int(n)), attack, prompts) for row in part]
    return {**rates(rows, prompts.texts, target or pair.target or ""), "csv": to_csv(rows)}


@_told
def report() -> dict:
    """The report.json beside the cleaned model."""
    pair = PAIRS.get(*START)
    if pair.report is None:
        raise ProbeError("This pair came without a report.")
    return pair.report.to_dict()
