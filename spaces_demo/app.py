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
from inputs import MAX_CHARACTERS, MAX_FILE_MB, ProbeError, read_prompts
from live import MAX_STEPS, METHODS, RATE
from PIL import Image
from probe import HERE, PAIRS, START, examples, look
from starlette.middleware import Middleware
from triggers import PLACES, available_attacks

from hf_ta_cleaner import sandbox
from hf_ta_cleaner.pictures import fit


# Fonts of the system: the page loads nothing from anywhere else.
FONT, MONO = ["system-ui", "-apple-system", "Segoe UI", "sans-serif"], ["ui-monospace", "Consolas", "monospace"]


# The page.


def build() -> gr.Blocks:
    """The whole page, with the first pair and its first example already looked at."""
    pair, problem, first = (
        None,
        "",
        views.message("Load two models on the Models tab; then their answers appear here."),
    )
    try:
        pair = PAIRS.get(*START)
    except ProbeError as error:
        problem = (
            f"The models cannot be opened. {error} `python scripts/build_space.py` makes the pair that belongs here."
        )
    samples = examples(pair)
    choices = trigger_choices(pair)
    attack = pair.trigger() if pair else available_attacks()[choices[0][1]]
    knobs = knob_props(attack, pair.size if pair else sandbox.PICTURE_SIZE)
    narrow = {"min_width": 200, "buttons": []}
    if pair is not None:
        pixels = fit(Image.fromarray(samples[0][1]), pair.size)
        first = views.answers(look(pair, pixels, attack, read_prompts(", ".join(pair.labels))), pair.target)
    with gr.Blocks(title="TA-Cleaner: is there a backdoor in this CLIP?", delete_cache=(600, 3600)) as page:
        models, tuned = gr.State(START), gr.State(0)
        gr.HTML(views.intro(), apply_default_css=False)
        loaded = gr.HTML(views.pair_line(pair) if pair else views.message(problem, "error"), apply_default_css=False)
        with gr.Tab("Probe", id="probe"), gr.Row(elem_id="probe-row"):
            with gr.Column(elem_id="pick"):
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
                # The number of the example is the value, so that an event that had to wait still reads the last click.
                shown = gr.HTML(
                    0,
                    html_template=views.thumbnails(samples),
                    apply_default_css=False,
                    js_on_load="let asked; element.addEventListener('click', event => {"
                    "const button = event.target.closest('button[data-example]');"
                    "if (!button) return; props.value = Number(button.dataset.example);"
                    "clearTimeout(asked); asked = setTimeout(() => trigger('click'), 50); });",
                )
                trigger = gr.Dropdown(
                    choices,
                    value=choices[0][1],
                    label="Trigger",
                    info=views.about(choices[0][1]),
                    elem_id="trigger",
                )
            with gr.Column(elem_id="tune"):
                with gr.Row():
                    size = gr.Slider(**{"minimum": 1, "maximum": 72, "value": 5, "step": 1} | knobs[0], **narrow)
                    strength = gr.Slider(**{"maximum": 1, "value": 0.2, "step": 0.01} | knobs[1], **narrow)
                with gr.Row():
                    place = gr.Dropdown(PLACES, **knobs[2], min_width=140)
                    target = gr.Textbox(
                        (pair and pair.target) or "", label="Target of the attack", max_length=200, min_width=140
                    )
                k = gr.Slider(1, 10, 5, step=1, label="Answers shown", buttons=[], elem_id="answers")
            with gr.Column(elem_id="seen"):
                result = gr.HTML(first, apply_default_css=False, elem_id="result", min_height=420)
                kind = gr.Radio(KINDS, value=KINDS[0], label="The models choose between", elem_id="kind")
                text = gr.Textbox(
                    ", ".join(pair.labels if pair else read_prompts("dog, cat").texts),
                    label="Labels or sentences",
                    lines=3,
                    max_lines=6,
                    max_length=MAX_CHARACTERS,
                    elem_id="texts",
                )
                ask = gr.Button("Ask both models", variant="primary", elem_id="ask")
        with gr.Tab("Compare", id="compare"):
            measure = gr.Button("Measure now, with the trigger of the Probe tab", elem_id="measure")
            line, found = show_report(START)
            measured = gr.HTML(line, apply_default_css=False, elem_id="measured", min_height=44)
            report = gr.HTML(found, apply_default_css=False, elem_id="report", min_height=300)
        with gr.Tab("Batch", id="batch"):
            gr.HTML(views.batch_help(), apply_default_css=False)
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
            table = gr.HTML(
                views.message("The rates appear here."), apply_default_css=False, elem_id="rates", min_height=330
            )
        with gr.Tab("Clean", id="clean"):
            gr.HTML(views.clean_help(), apply_default_css=False)
            with gr.Row():
                method = gr.Radio(METHODS, value=METHODS[0], label="Method", min_width=240, elem_id="method")
                steps = gr.Slider(6, MAX_STEPS, 60, step=6, label="Steps of 32 pairs", min_width=200, buttons=[])
                rate = gr.Slider(1e-4, 2e-3, RATE, step=1e-4, label="Learning rate", min_width=200, buttons=[])
            with gr.Row():
                start = gr.Button("Clean the suspect", variant="primary", elem_id="start")
                stop = gr.Button("Stop", interactive=False, elem_id="stop")
            empty = views.curves([], 60, "The curves appear here while it runs.")
            curves = gr.HTML(empty, apply_default_css=False, elem_id="curves")
        with gr.Tab("Models", id="models"):
            gr.HTML(views.models_help(), apply_default_css=False)
            with gr.Row():
                named = {"max_length": 200, "min_width": 240, "placeholder": "empty: the one this page began with"}
                suspect = gr.Textbox(label="Suspect model", **named)
                cleaned = gr.Textbox(label="Cleaned model", **named)
            load = gr.Button("Load both", variant="primary", elem_id="load")
            status = gr.HTML("", apply_default_css=False, elem_id="status", min_height=60)
        gr.HTML(views.footer(), apply_default_css=False)

        tuning = [trigger, size, strength, place]
        probing = {
            "fn": on_probe,
            "inputs": [models, picture, *tuning, target, text, kind, k],
            "outputs": result,
            "show_progress": "minimal",
            "preprocess": False,  # the picture comes as its file: gradio would decode it before it was judged
            "api_visibility": "private",
            "concurrency_id": "probe",
            "trigger_mode": "always_last",
        }
        hidden = {"api_visibility": "private"}
        # One listener for everything that asks the models: two could answer in the wrong order.
        moved = [size.release, strength.release, k.release, place.input, kind.input, target.submit, text.blur]
        gr.on([ask.click, picture.change, tuned.change, *moved], **probing)

        def on_example(number):
            return samples[int(number) % len(samples)][1]

        shown.click(on_example, shown, picture, show_progress="hidden", trigger_mode="always_last", **hidden)
        knobs = [size, strength, place, tuned]
        trigger.input(on_trigger, [models, trigger, tuned], [trigger, *knobs], show_progress="hidden", **hidden)
        measure.click(
            on_measure,
            [models, *tuning, target],
            [measured, report, measure],
            concurrency_limit=1,
            show_progress="minimal",
            show_progress_on=measured,
            **hidden,
        )
        go.click(
            on_batch,
            [models, source, files, n, *tuning, target, text, kind],
            [table, csv],
            preprocess=False,
            concurrency_limit=1,
            show_progress="minimal",
            show_progress_on=table,
            **hidden,
        )
        start.click(
            on_clean,
            [models, *tuning, target, method, steps, rate],
            [curves, start, stop],
            concurrency_limit=1,
            concurrency_id="clean",
            show_progress="minimal",
            show_progress_on=curves,
            **hidden,
        )
        stop.click(on_stop, queue=False, **hidden)
        page.unload(on_stop)
        changed = load.click(
            on_load,
            [suspect, cleaned, tuned],
            [status, models, loaded, target, text, trigger, *knobs],
            concurrency_limit=1,
            concurrency_id="load",
            show_progress="hidden",
            **hidden,
        )
        changed.then(show_report, models, [measured, report], **hidden)
        gr.api(api.probe, concurrency_id="probe")
        gr.api(api.batch, concurrency_limit=1)
        gr.api(api.triggers)
        gr.api(api.report)
    return page.queue(max_size=64, default_concurrency_limit=2)


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
