"""What the page does: one handler for each thing a visitor can do, with the results as HTML or as changes to controls.

Every handler says in the page what went wrong; nothing of the server's insides comes along.
"""

from __future__ import annotations

import os
import uuid
from pathlib import Path

import gradio as gr
import views
from batch import MAX_BATCH, batch, rates, sample_pictures, to_csv
from inputs import ProbeError, label_of, read_picture, read_prompts, uploaded
from live import AUDITED, Cleaning, audit_pair
from probe import PAIRS, START, Pair, look
from triggers import Controls, available_attacks, controls, describe

from hf_ta_cleaner import sandbox


SENTENCES = "Sentences, one a line"
KINDS = ("Labels, separated by commas", SENTENCES)
SOURCES = ("Sandbox pictures", "My pictures")
RUNS: dict[str, Cleaning] = {}


def on_probe(models, picture, trigger, size, strength, place, target, text, kind, k):
    try:
        pair = PAIRS.get(*models)
        pixels, notes = read_picture(uploaded(picture), pair.size, pair.geometry)
        prompts = read_prompts(text, kind == SENTENCES)
        found = look(pair, pixels, pair.trigger(trigger, size, strength, place), prompts, k)
    except ProbeError as error:
        return views.message(str(error), "error")
    other_than = pair.own if trigger != pair.own else None
    return views.answers(found, target.strip(), other_than) + "".join(map(views.message, notes))


def on_trigger(models, trigger, tuned):
    """A word about another trigger, and its controls, those it has no use for switched off.

    Counting up `tuned` asks the models.
    """
    try:
        pair = PAIRS.get(*models)
        attack, side = pair.triggers.get(trigger), pair.size
    except ProbeError:
        attack, side = available_attacks().get(trigger), sandbox.PICTURE_SIZE
    return gr.update(info=views.about(trigger)), *(gr.update(**props) for props in knob_props(attack, side)), tuned + 1


def knob_props(attack, side: int) -> list[dict]:
    """Properties of the three controls for an attack: size, strength, place."""
    present = controls(attack, side) if attack is not None else Controls(None, None, None)
    props = []
    for title, found in (("Size", present.size), ("Strength", present.strength)):
        if found is None:
            props.append({"label": f"{title} (none)", "interactive": False})
            continue
        span = {"minimum": found.low, "maximum": found.high, "step": found.step, "value": found.value}
        props.append({**span, "label": found.title, "interactive": True})
    used = present.place is not None
    props.append(
        {"value": present.place or "random", "label": "Place" if used else "Place (none)", "interactive": used}
    )
    return props


def on_batch(models, source, files, n, trigger, size, strength, place, target, text, kind):
    off = gr.update(interactive=False)
    try:
        pair = PAIRS.get(*models)
        attack = pair.trigger(trigger, size, strength, place)
        prompts = read_prompts(text, kind == SENTENCES)
        if source == SOURCES[0]:
            if not pair.is_sandbox:
                raise ProbeError("The sandbox's drawn pictures say nothing about this model. Upload your own.")
            pictures, total = sample_pictures(pair, int(n)), int(n)
        else:
            files = files or []
            if not 1 <= len(files) <= MAX_BATCH:
                raise ProbeError(f"Wanted 1 to {MAX_BATCH} pictures; got {len(files)}.")
            pictures, total = (read_named(file, pair, prompts.texts) for file in files), len(files)
        if target.strip() not in prompts.texts:
            raise ProbeError(f"The target {target.strip()[:100]!r} is not among the labels. Add it on the Probe tab.")
        yield views.progress(0, total, "Pictures"), off
        rows = []
        for part in batch(pair, pictures, attack, prompts):
            rows += part
            yield views.progress(len(rows), total, "Pictures"), off
        found = rates(rows, prompts.texts, target.strip())
    except ProbeError as error:
        yield views.message(str(error), "error"), off
        return
    path = Path(os.environ["GRADIO_TEMP_DIR"]) / uuid.uuid4().hex / "batch.csv"
    path.parent.mkdir(parents=True)
    path.write_text(to_csv(rows), encoding="utf-8")
    result = views.batch_result(found, len(rows), describe(attack), target.strip())
    yield result, gr.update(value=str(path), interactive=True)


def read_named(file: dict, pair: Pair, texts):
    """(name, label, pixels) of an uploaded file; an error names it."""
    name = Path(file.get("orig_name") or file.get("path") or "a picture").name
    try:
        pixels, _ = read_picture(uploaded(file), pair.size, pair.geometry)
    except ProbeError as error:
        raise ProbeError(f"{name}: {error}") from error
    return name, label_of(name, texts), pixels


def on_clean(models, trigger, size, strength, place, target, method, steps, rate, request: gr.Request):
    busy = gr.update(interactive=False), gr.update(interactive=True)
    free = gr.update(interactive=True), gr.update(interactive=False)
    points, session = [], request.session_hash
    try:
        pair = PAIRS.get(*models)
        attack = pair.trigger(trigger, size, strength, place)
        run = Cleaning(pair, attack, target.strip(), method=method, steps=int(steps), learning_rate=float(rate))
        RUNS[session] = run
        yield views.curves(points, run.steps, "Drawing the sandbox’s pictures…"), *busy
        for point in run.points():
            points.append(point)
            yield views.curves(points, run.steps, f"Cleaning with {method}; the attack is {describe(attack)}."), *busy
        done = f"Stopped after {points[-1].step} of {run.steps} steps." if run.stopped else "Done."
        first, last = (next(p for p in ps if p.asr is not None) for ps in (points, points[::-1]))
        done += f" Attack success {views.percent(first.asr)} → {views.percent(last.asr)}"
        done += f", accuracy {views.percent(first.accuracy)} → {views.percent(last.accuracy)}."
        yield views.curves(points, run.steps, done), *free
    except ProbeError as error:
        yield views.message(str(error), "error"), *free
    finally:
        RUNS.pop(session, None)


def on_stop(request: gr.Request) -> None:
    """The stop button, and a page that was closed."""
    if run := RUNS.get(request.session_hash):
        run.stop()


def on_measure(models, trigger, size, strength, place, target):
    """The report stays until another one is there; a line above it says what goes on."""
    off, on = gr.update(interactive=False), gr.update(interactive=True)
    began = f"Measuring both models on {AUDITED} sandbox pictures; this takes some seconds…"
    yield views.message(began), gr.skip(), off
    try:
        pair = PAIRS.get(*models)
        attack = pair.trigger(trigger, size, strength, place)
        found = audit_pair(pair, attack, target.strip())
        yield views.message(f"Measured just now with {describe(attack)}."), views.report(found), on
    except ProbeError as error:
        yield views.message(str(error), "error"), gr.skip(), on


def on_load(suspect, cleaned, tuned):
    """Another pair; where it cannot be opened, everything stays as it was and the page says why."""
    same = [gr.skip()] * 9  # everything but the status
    yield views.message("Loading…"), *same
    try:
        models = (suspect.strip() or START[0], cleaned.strip() or START[1])
        pair = PAIRS.get(*models)
    except ProbeError as error:
        yield views.message(str(error), "error"), *same
        return
    yield (
        views.message("Loaded."),
        models,
        views.pair_line(pair),
        pair.target or "",
        ", ".join(pair.labels),
        gr.update(choices=trigger_choices(pair), value=(name := next(iter(pair.triggers))), info=views.about(name)),
        *on_trigger(models, name, tuned)[1:],
    )


def show_report(models) -> tuple[str, str]:
    """A line about the report, and the report."""
    try:
        pair = PAIRS.get(*models)
    except ProbeError as error:
        return views.message(str(error), "error"), ""
    if pair.report is None:
        return views.message("This pair came without a report. “Measure now” makes one for models of the sandbox."), ""
    return views.message("The report that came with the cleaned model."), views.report(pair.report)


def trigger_choices(pair: Pair | None) -> list[tuple[str, str]]:
    own = pair.own if pair else None
    triggers = pair.triggers if pair else available_attacks()
    return [(f"{name} (the suspect’s own)" if name == own else name, name) for name in triggers]
