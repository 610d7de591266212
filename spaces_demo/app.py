"""The page of the Space. What it does is in handlers.py; what it computes, in probe.py, triggers.py,
batch.py and live.py; how results look, in views.py.

make space                                   # from the repository, with the models in models/
SUSPECT_MODEL=... CLEANED_MODEL=... make space   # Hub ids or folders
"""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import sys
import tempfile
from types import SimpleNamespace


# A folder of our own, gone with the process: gradio serves files from nowhere else.
if "GRADIO_TEMP_DIR" not in os.environ:
    os.environ["GRADIO_TEMP_DIR"] = tempfile.mkdtemp(prefix="ta-cleaner-space-")
    atexit.register(shutil.rmtree, os.environ["GRADIO_TEMP_DIR"], ignore_errors=True)
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

import api
import gradio as gr
import views
from gate import Gate, refuse_addresses
from handlers import (
    KINDS,
    SOURCES,
    knob_props,
    on_batch,
    on_clean,
    on_load,
    on_measure,
    on_probe,
    on_stop,
    on_trigger,
    show_report,
    trigger_choices,
)
from inputs import MAX_CHARACTERS, MAX_FILE_MB, ProbeError, Prompts
from live import MAX_STEPS, METHODS, RATE
from PIL import Image
from probe import HERE, PAIRS, START, Pair, examples, look
from starlette.middleware import Middleware
from triggers import PLACES, available_attacks

from hf_ta_cleaner import sandbox
from hf_ta_cleaner.pictures import fit


# Fonts of the system: the page loads nothing from anywhere else.
FONT, MONO = ["system-ui", "-apple-system", "Segoe UI", "sans-serif"], ["ui-monospace", "Consolas", "monospace"]

Part = SimpleNamespace
#: Of an HTML component: gradio's own style is not wanted.
PLAIN = {"apply_default_css": False}
#: Of an event: it is not an endpoint of the API.
HIDDEN = {"api_visibility": "private"}

# A click on an example. Its number is the component's value, so that an event that had to wait reads the last click.
EXAMPLE_CLICKS = (
    "let asked; element.addEventListener('click', event => {"
    "const button = event.target.closest('button[data-example]');"
    "if (!button) return; props.value = Number(button.dataset.example);"
    "clearTimeout(asked); asked = setTimeout(() => trigger('click'), 50); });"
)


def build() -> gr.Blocks:
    """The whole page; the first pair has already answered for the first example."""
    pair, problem = None, ""
    try:
        pair = PAIRS.get(*START)
    except ProbeError as error:
        problem = (
            f"The models cannot be opened. {error} `python scripts/build_space.py` makes the pair that belongs here."
        )
    samples = examples(pair)
    with gr.Blocks(title="TA-Cleaner: is there a backdoor in this CLIP?", delete_cache=(600, 3600)) as page:
        state = Part(models=gr.State(START), tuned=gr.State(0))
        gr.HTML(views.intro(), **PLAIN)
        state.loaded = gr.HTML(views.pair_line(pair) if pair else views.message(problem, "error"), **PLAIN)
        with gr.Tab("Probe", id="probe"), gr.Row(elem_id="probe-row"):
            probe = _probe_tab(pair, samples)
        with gr.Tab("Compare", id="compare"):
            compare = _compare_tab()
        with gr.Tab("Batch", id="batch"):
            batch = _batch_tab()
        with gr.Tab("Clean", id="clean"):
            clean = _clean_tab()
        with gr.Tab("Models", id="models"):
            chosen = _models_tab()
        gr.HTML(views.footer(), **PLAIN)

        _connect_probe(state, probe, samples)
        _connect_measurements(state, probe, compare, batch)
        _connect_cleaning(page, state, probe, clean)
        _connect_models(state, probe, compare, chosen)
        gr.api(api.probe, concurrency_id="probe")
        gr.api(api.batch, concurrency_limit=1)
        gr.api(api.triggers)
        gr.api(api.report)
    return page.queue(max_size=64, default_concurrency_limit=2)


# The tabs: what is on them.


def _probe_tab(pair: Pair | None, samples: list) -> Part:
    with gr.Column(elem_id="pick"):
        part = _pickers(pair, samples)
    with gr.Column(elem_id="tune"):
        vars(part).update(vars(_controls(pair)))
    with gr.Column(elem_id="seen"):
        first = views.message("Load two models on the Models tab; then their answers appear here.")
        if pair is not None:
            pixels = fit(Image.fromarray(samples[0][1]), pair.size)
            first = views.answers(look(pair, pixels, pair.trigger(), Prompts(pair.labels)), pair.target)
        part.result = gr.HTML(first, **PLAIN, elem_id="result", min_height=420)
        part.kind = gr.Radio(KINDS, value=KINDS[0], label="The models choose between", elem_id="kind")
        part.text = gr.Textbox(
            ", ".join(pair.labels if pair else ("dog", "cat")),
            label="Labels or sentences",
            lines=3,
            max_lines=6,
            max_length=MAX_CHARACTERS,
            elem_id="texts",
        )
        part.ask = gr.Button("Ask both models", variant="primary", elem_id="ask")
    part.tuning = [part.trigger, part.size, part.strength, part.place]
    return part


def _pickers(pair: Pair | None, samples: list) -> Part:
    """The picture, the examples, the trigger."""
    picture = gr.Image(
        samples[0][1],
        label="Picture",
        sources=["upload", "clipboard"],
        height=190,
        buttons=[],
        format="png",
        alt_text="The picture that is probed",
        elem_id="picture",
    )
    thumbnails = gr.HTML(0, html_template=views.thumbnails(samples), js_on_load=EXAMPLE_CLICKS, **PLAIN)
    choices = trigger_choices(pair)
    name = choices[0][1]
    trigger = gr.Dropdown(choices, value=name, label="Trigger", info=views.about(name), elem_id="trigger")
    return Part(picture=picture, thumbnails=thumbnails, trigger=trigger)


def _controls(pair: Pair | None) -> Part:
    """How the trigger is set, and how many answers appear."""
    attack = pair.trigger() if pair else available_attacks()[trigger_choices(pair)[0][1]]
    knobs = knob_props(attack, pair.size if pair else sandbox.PICTURE_SIZE)
    narrow = {"min_width": 200, "buttons": []}
    with gr.Row():
        size = gr.Slider(**{"minimum": 1, "maximum": 72, "value": 5, "step": 1} | knobs[0], **narrow)
        strength = gr.Slider(**{"maximum": 1, "value": 0.2, "step": 0.01} | knobs[1], **narrow)
    with gr.Row():
        place = gr.Dropdown(PLACES, **knobs[2], min_width=140)
        target = gr.Textbox((pair and pair.target) or "", label="Target of the attack", max_length=200, min_width=140)
    k = gr.Slider(1, 10, 5, step=1, label="Answers shown", buttons=[], elem_id="answers")
    return Part(size=size, strength=strength, place=place, target=target, k=k)


def _compare_tab() -> Part:
    measure = gr.Button("Measure now, with the trigger of the Probe tab", elem_id="measure")
    line, found = show_report(START)
    measured = gr.HTML(line, **PLAIN, elem_id="measured", min_height=44)
    report = gr.HTML(found, **PLAIN, elem_id="report", min_height=300)
    return Part(measure=measure, measured=measured, report=report)


def _batch_tab() -> Part:
    gr.HTML(views.batch_help(), **PLAIN)
    with gr.Row():
        source = gr.Radio(SOURCES, value=SOURCES[0], label="Pictures", min_width=240, elem_id="source")
        n = gr.Slider(24, 480, 96, step=24, label="How many", min_width=240, buttons=[], elem_id="many")
        files = gr.File(
            file_count="multiple",
            file_types=["image"],
            label="My pictures",
            height=150,
            min_width=240,
            elem_id="files",
        )
    with gr.Row():
        go = gr.Button("Run the batch", variant="primary", elem_id="go")
        csv = gr.DownloadButton("Download csv", interactive=False, elem_id="csv")
    table = gr.HTML(views.message("The rates appear here."), **PLAIN, elem_id="rates", min_height=330)
    return Part(source=source, n=n, files=files, go=go, csv=csv, table=table)


def _clean_tab() -> Part:
    gr.HTML(views.clean_help(), **PLAIN)
    with gr.Row():
        method = gr.Radio(METHODS, value=METHODS[0], label="Method", min_width=240, elem_id="method")
        steps = gr.Slider(6, MAX_STEPS, 60, step=6, label="Steps of 32 pairs", min_width=200, buttons=[])
        rate = gr.Slider(1e-4, 2e-3, RATE, step=1e-4, label="Learning rate", min_width=200, buttons=[])
    with gr.Row():
        start = gr.Button("Clean the suspect", variant="primary", elem_id="start")
        stop = gr.Button("Stop", interactive=False, elem_id="stop")
    curves = gr.HTML(views.curves([], 60, "The curves appear here while it runs."), **PLAIN, elem_id="curves")
    return Part(method=method, steps=steps, rate=rate, start=start, stop=stop, curves=curves)


def _models_tab() -> Part:
    gr.HTML(views.models_help(), **PLAIN)
    with gr.Row():
        named = {"max_length": 200, "min_width": 240, "placeholder": "empty: the one this page began with"}
        suspect = gr.Textbox(label="Suspect model", **named)
        cleaned = gr.Textbox(label="Cleaned model", **named)
    load = gr.Button("Load both", variant="primary", elem_id="load")
    status = gr.HTML("", **PLAIN, elem_id="status", min_height=60)
    return Part(suspect=suspect, cleaned=cleaned, load=load, status=status)


# The events: what calls what.


def _connect_probe(state: Part, probe: Part, samples: list) -> None:
    # One listener for everything that asks the models: two could answer in the wrong order.
    changed = [probe.size.release, probe.strength.release, probe.k.release, probe.place.input, probe.kind.input]
    gr.on(
        [probe.ask.click, probe.picture.change, state.tuned.change, *changed, probe.target.submit, probe.text.blur],
        on_probe,
        [state.models, probe.picture, *probe.tuning, probe.target, probe.text, probe.kind, probe.k],
        probe.result,
        show_progress="minimal",
        preprocess=False,  # the picture comes as its file: gradio would decode it before it was judged
        concurrency_id="probe",
        trigger_mode="always_last",
        **HIDDEN,
    )

    def on_example(number):
        return samples[int(number) % len(samples)][1]

    probe.thumbnails.click(
        on_example, probe.thumbnails, probe.picture, show_progress="hidden", trigger_mode="always_last", **HIDDEN
    )
    probe.trigger.input(
        on_trigger,
        [state.models, probe.trigger, state.tuned],
        [*probe.tuning, state.tuned],
        show_progress="hidden",
        **HIDDEN,
    )


def _connect_measurements(state: Part, probe: Part, compare: Part, batch: Part) -> None:
    how = {"concurrency_limit": 1, "show_progress": "minimal", **HIDDEN}
    compare.measure.click(
        on_measure,
        [state.models, *probe.tuning, probe.target],
        [compare.measured, compare.report, compare.measure],
        show_progress_on=compare.measured,
        **how,
    )
    batch.go.click(
        on_batch,
        [state.models, batch.source, batch.files, batch.n, *probe.tuning, probe.target, probe.text, probe.kind],
        [batch.table, batch.csv],
        preprocess=False,
        show_progress_on=batch.table,
        **how,
    )


def _connect_cleaning(page: gr.Blocks, state: Part, probe: Part, clean: Part) -> None:
    clean.start.click(
        on_clean,
        [state.models, *probe.tuning, probe.target, clean.method, clean.steps, clean.rate],
        [clean.curves, clean.start, clean.stop],
        concurrency_limit=1,
        concurrency_id="clean",
        show_progress="minimal",
        show_progress_on=clean.curves,
        **HIDDEN,
    )
    clean.stop.click(on_stop, queue=False, **HIDDEN)
    page.unload(on_stop)


def _connect_models(state: Part, probe: Part, compare: Part, chosen: Part) -> None:
    loaded = chosen.load.click(
        on_load,
        [chosen.suspect, chosen.cleaned, state.tuned],
        [chosen.status, state.models, state.loaded, probe.target, probe.text, *probe.tuning, state.tuned],
        concurrency_limit=1,
        concurrency_id="load",
        show_progress="hidden",
        **HIDDEN,
    )
    loaded.then(show_report, state.models, [compare.measured, compare.report], **HIDDEN)


def launch(page: gr.Blocks, **options):
    """Start the server; `options` go on to gradio's own launch."""
    refuse_addresses()
    return page.launch(
        theme=gr.themes.Default(primary_hue="sky", neutral_hue="slate", font=FONT, font_mono=MONO),
        css_paths=HERE / "style.css",
        max_file_size=f"{MAX_FILE_MB}mb",
        app_kwargs={"middleware": [Middleware(Gate)]},
        state_session_capacity=200,
        max_threads=16,
        footer_links=["api"],
        run_history=False,
        enable_monitoring=False,
        ssr_mode=False,
        mcp_server=False,
        share=False,
        **options,
    )


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # so that the folder of uploads goes, too
    launch(build())
