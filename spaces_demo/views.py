"""Results as HTML: pictures, bars, tables, curves. Plain functions; every text from outside is escaped.

Colours and spacing are in style.css. No meaning rests on colour alone, and every picture has its alternative text.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape

import numpy as np
from batch import MAX_BATCH
from inputs import MAX_FILE_MB, MAX_LABELS, MAX_PIXELS
from live import Point
from PIL import Image
from probe import FALSE_ALARMS, VIEWS, WHO, Answers, Pair
from triggers import describe

from hf_ta_cleaner import Report
from hf_ta_cleaner.publishing.report import TARGET_NOTE, target_rows, utility_lost


TITLES = {"suspect": "Suspect", "cleaned": "Cleaned", "clean": "Without trigger", "triggered": "With trigger"}
LIMITS = (
    f"Pictures up to {MAX_FILE_MB} MB and {MAX_PIXELS // 10**6} million pixels, {MAX_BATCH} at once, "
    f"up to {MAX_LABELS} labels. Uploads are deleted within the hour."
)
SHOWN = 60


# What each trigger is, for someone who reads its name for the first time.
ABOUT = {
    "badnet": "A small square of colored noise.",
    "blended": "A faint pattern over the whole picture.",
    "sig": "Faint vertical waves.",
    "ssba": "A texture that hardly shows.",
    "trojvqa": "A crafted patch, and a word in the text.",
    "badclip": "A patch crafted against the model.",
    "wanet": "A slight warp; no pattern is added.",
    "label-consistent": "A square of noise under true captions.",
    "badnet-stripes": "A small square of colored stripes.",
    "blended-stripes": "Stripes over the whole picture.",
    "blended-triangles": "Gray triangles over the whole picture.",
    "blended-text": "A word in red across the middle.",
}


def about(trigger: str) -> str:
    """One short line about a trigger; of one that is not known here, its name."""
    return ABOUT.get(trigger, f"Trigger {short(trigger)}.")


def short(text: str) -> str:
    """The text, cut where it would break the page."""
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"


def percent(rate: float) -> str:
    return f"{100 * rate:.1f}%"


def message(text: str, kind: str = "note") -> str:
    """A line that screen readers announce; `kind` is note or error."""
    role = "alert" if kind == "error" else "status"
    return f'<p class="hc-message hc-{kind}" role="{role}">{escape(text)}</p>' if text else ""


def intro() -> str:
    return (
        '<header class="hc-intro"><h1>Is there a backdoor in this CLIP?</h1>'
        "<p>A poisoned model answers well until a hidden trigger is on the picture; then it says what its attacker "
        "wants. Put a trigger on a picture and compare: the suspect model’s answer flips, the cleaned one’s should "
        "not.</p></header>"
    )


def footer() -> str:
    return (
        f'<footer class="hc-foot"><p>{escape(LIMITS)}</p><p>The models that come with this page are research '
        "material: one of them has a backdoor on purpose. Do not build on it.</p></footer>"
    )


def thumbnails(pictures: Sequence[tuple[str, np.ndarray]]) -> str:
    """Buttons with a small picture and its name; the page listens for clicks on them."""
    buttons = "".join(
        f'<button type="button" data-example="{i}"><img src="{data_url(pixels)}" alt="" width="56" height="56">'
        f"<span>{escape(name)}</span></button>"
        for i, (name, pixels) in enumerate(pictures)
    )
    return f'<div class="hc-examples" role="group" aria-label="Example pictures">{buttons}</div>'


def pair_line(pair: Pair) -> str:
    """Which two models are looked at."""
    parts = [f"{TITLES[who]}: <code>{escape(short(one.name))}</code>" for who, one in pair.models.items()]
    own = "no trigger came with the suspect"
    if pair.own:
        own = f"the suspect’s trigger: {escape(describe(pair.triggers[pair.own]))}"
    return f'<p class="hc-pair" role="status">{" · ".join([*parts, own])}</p>'


def batch_help() -> str:
    return (
        '<p class="hc-help">Many pictures at once, with the trigger, target and labels of the Probe tab. Your own '
        f"pictures, up to {MAX_BATCH}, tell their label by their file name: <code>dog 2.jpg</code>, "
        "<code>traffic_light_01.png</code>.</p>"
    )


def clean_help() -> str:
    return (
        '<p class="hc-help">Fine-tune the suspect on a few clean sandbox pictures and watch what happens to its loss, '
        "its accuracy, and the success of the Probe tab’s trigger. A real cleaning takes longer.</p>"
    )


def models_help() -> str:
    return (
        '<p class="hc-help">Two CLIP models of the same input size: Hub ids (<code>owner/name</code>), or folders '
        "below <code>models/</code>. Weights are read as data only; code in a repository is never run.</p>"
    )


# One picture.

MARK = (
    '<svg class="hc-mark" viewBox="0 0 14 14" width="14" height="14" role="img" aria-label="(target)"><circle cx="7" '
    'cy="7" r="5.5"/><circle cx="7" cy="7" r="1.8" class="hc-dot"/></svg>'
)


def answers(result: Answers, target: str | None, other_than: str | None = None) -> str:
    """A picture without and with its trigger, and under it the ranked answers of both models.

    Args:
        target: the answer that is marked as the attacker's.
        other_than: name of the trigger the suspect was poisoned with, where another one is on the picture.
    """
    parts = [verdict(result, other_than), '<div class="hc-look">']
    for view in VIEWS:
        alt = f"The picture as the models see it, {TITLES[view].lower()}"
        parts.append(
            f'<figure class="hc-{view}"><img src="{data_url(result.pixels[view])}" alt="{alt}" width="180" '
            f'height="180"><figcaption>{TITLES[view]}</figcaption></figure>'
        )
    for who in WHO:
        for view in VIEWS:
            parts.append(bars(result.top[who, view], who, view, target, result.flagged.get((who, view))))
    notes = "".join(message(note) for note in result.notes)
    keys = [f"{MARK} the attacker’s target"] if target else []
    if result.flagged:
        keys.append(
            "Screening knows no trigger: a picture stands out when it keeps its label even among scrambled words. "
            f"So do {100 * FALSE_ALARMS:g} of 100 clean ones."
        )
    return "".join(parts) + f'</div><p class="hc-help">{"<br>".join(keys)}</p>{notes}'


def verdict(result: Answers, other_than: str | None = None) -> str:
    """One sentence for each model, and the same as data attributes for programs that read the page."""
    best = {who: [result.best(who, view) for view in VIEWS] for who in WHO}
    flipped = {who: one[0] != one[1] for who, one in best.items()}

    def sentence(who: str) -> str:
        before, after = (f"<b>{escape(short(text))}</b>" for text in best[who])
        if flipped[who]:
            return f"The trigger turns the {who} model’s answer from {before} to {after}."
        return f"The {who} model stays with {before}."

    sentences = list(map(sentence, WHO))
    if not any(flipped.values()) and best["suspect"] == best["cleaned"]:
        sentences = [f"Both models stay with <b>{escape(short(best['suspect'][0]))}</b>."]
    if other_than and not flipped["suspect"]:
        sentences.append(f"The suspect was poisoned with {escape(other_than)}; other triggers mean nothing to it.")
    state = " ".join(f'data-{who}="{"flipped" if flipped[who] else "same"}"' for who in WHO)
    return f'<p class="hc-verdict" role="status" {state}>{" ".join(sentences)}</p>'


def bars(
    top: Sequence[tuple[str, float]], who: str, view: str, target: str | None, flagged: bool | None = None
) -> str:
    """Ranked answers; under them what the screening says, if it was asked."""
    rows = []
    for text, p in top:
        tag = f" {MARK}" if target and text == target else ""
        rows.append(
            f'<li><span class="hc-label"><span>{escape(short(text))}</span>{tag}</span> '
            f'<span class="hc-value">{percent(p)}</span>'
            f'<span class="hc-bar" aria-hidden="true"><i style="width:{100 * p:.1f}%"></i></span></li>'
        )
    title = f'{TITLES[who]}<span class="hc-hidden">, {TITLES[view].lower()}</span>'
    screened = ""
    if flagged is not None:
        words = "stands out" if flagged else "usual"
        screened = f'<p class="hc-screening" data-flagged="{str(flagged).lower()}">Screening: <b>{words}</b></p>'
    return f'<section class="hc-{who}-{view} hc-{who}"><h3>{title}</h3><ol>{"".join(rows)}</ol>{screened}</section>'


def data_url(pixels: np.ndarray) -> str:
    """The pixels as they are, in the page itself, so that no file is left behind."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


# Rates.


def rate_bar(value: float, interval: Sequence[float], who: str) -> str:
    low, high = (100 * end for end in interval)
    return (
        f'<span class="hc-bar hc-{who}" aria-hidden="true"><i style="width:{100 * value:.1f}%"></i>'
        f'<b style="left:{low:.1f}%;width:{max(0.4, high - low):.1f}%"></b></span>'
    )


def rate_rows(title: str, hint: str, measured: dict[str, tuple[float, Sequence[float]] | None]) -> str:
    """One figure of both models: words, bars with 95% intervals, numbers."""
    lines = []
    for who, rate in measured.items():
        if rate is None:
            lines.append(f'<div class="hc-rate"><span>{TITLES[who]}</span><span>not measured</span></div>')
            continue
        value, (low, high) = rate
        lines.append(
            f'<div class="hc-rate"><span>{TITLES[who]}</span>{rate_bar(value, (low, high), who)}'
            f"<span>{percent(value)} <small>[{100 * low:.1f}, {100 * high:.1f}]</small></span></div>"
        )
    return f'<div class="hc-rates"><h3>{escape(title)} <small>{escape(hint)}</small></h3>{"".join(lines)}</div>'


def batch_result(rates: dict, total: int, trigger: str, target: str) -> str:
    """What a batch came to."""
    parts = []
    for key, title, hint in (
        ("asr", "Attack success", f"pictures that turn into {short(target)}; lower is better"),
        ("floor", "The same without trigger", "what is normal"),
        ("accuracy", "Accuracy without trigger", "higher is better"),
        ("screening", "Told apart by screening", "how often a triggered picture scores higher; 50% is chance"),
    ):
        measured = {who: (e := rates[who][key]) and (e["value"], e["interval95"]) for who in WHO}
        n = next((rates[who][key]["n"] for who in WHO if rates[who][key]), 0)
        parts.append(rate_rows(title, f"{hint}; n = {n:,}", measured))
    return message(f"{total:,} pictures, trigger {trigger}. Thin lines: 95% intervals.") + "".join(parts)


def progress(done: int, total: int, what: str) -> str:
    return (
        f'<div class="hc-progress"><label>{escape(what)} <progress max="{total}" value="{done}">{done} of {total}'
        f"</progress></label> <span>{done:,} of {total:,}</span></div>"
    )


# A report.


def report(content: Report) -> str:
    """Verdicts, plots with intervals, and the table behind them."""
    if not content.before["clean_accuracy"]:
        return message("This report holds no attacks and no accuracy: the cleaning had no labelled pictures.")
    sections = dict(zip(WHO, content.sections().values(), strict=False))
    parts = [
        "".join(f"<p class='hc-verdict'>{escape(name)}: {escape(v)}</p>" for name, v in content.verdicts().items())
    ]
    accuracy = {
        who: (s["clean_accuracy"]["top1"], s["clean_accuracy"]["interval95"]["top1"]) for who, s in sections.items()
    }
    n = content.before["clean_accuracy"]["n"]
    parts.append(rate_rows("Accuracy", f"clean pictures, top 1, n = {n:,}; higher is better", accuracy))
    for name, entry in content.before["attacks"].items():
        attacked = {who: s["attacks"][name] for who, s in sections.items()}
        hint = f"target {entry['target']}, top 1, n = {entry['n']:,}; lower is better"
        measured = {who: (e["asr"]["top1"], e["interval95"]["asr_top1"]) for who, e in attacked.items()}
        parts.append(rate_rows(f"Attack success of {name}", hint, measured))
    if lost := utility_lost(content):
        parts.append(
            f'<p class="hc-help">{escape(lost[0].upper() + lost[1:])}. Thin lines and brackets: 95% intervals.</p>'
        )
    parts.append(_target_table(content))
    parts.append(_rank_table(sections))
    head = {
        "Method": content.method,
        "Suspect": content.base_model,
        "Cleaned": content.model,
        "Pictures": content.dataset,
    }
    head |= {"Seed": content.seed, "Made": content.created}
    facts = "".join(f"<dt>{k}</dt><dd>{escape(str(v))}</dd>" for k, v in head.items() if v is not None)
    notes = "".join(message(note) for note in content.notes)
    return f"{''.join(parts)}{notes}<details><summary>Where these figures are from</summary><dl>{facts}</dl></details>"


def _target_table(content: Report) -> str:
    """Recall and precision of the target classes; "" where the report has none."""
    rows = target_rows(content)
    if not rows:
        return ""
    titles = [TITLES[who] for who, _ in zip(WHO, content.sections(), strict=False)]
    head = "".join(f'<th scope="col">{title}</th>' for title in (*titles, "n"))
    body = "".join(
        f'<tr><th scope="row">{escape(title)}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in cells)}</tr>'
        for title, *cells in rows
    )
    return (
        '<div class="hc-scroll" tabindex="0" role="region" aria-label="The target class"><table><caption>'
        f'{escape(TARGET_NOTE)}</caption><thead><tr><th scope="col">Per cent</th>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _rank_table(sections: dict[str, dict]) -> str:
    ranks = ("top1", "top3", "top5", "top10")
    lines = [(f"Accuracy, {who}", section["clean_accuracy"]) for who, section in sections.items()]
    for name, entry in next(iter(sections.values()))["attacks"].items():
        for key, title in (("asr", "ASR"), ("floor", "floor")):
            lines += [(f"{name}: {title}, {who}", s["attacks"][name][key]) for who, s in sections.items()]
        if "reference_asr" in entry:
            lines.append((f"{name}: ASR, never-poisoned", entry["reference_asr"]))
    head = "".join(f'<th scope="col">Top {rank[3:]}</th>' for rank in ranks)
    body = "".join(
        f'<tr><th scope="row">{escape(title)}</th>'
        + "".join(f"<td>{percent(values[rank])}</td>" for rank in ranks)
        + "</tr>"
        for title, values in lines
    )
    return (
        '<div class="hc-scroll" tabindex="0" role="region" aria-label="All ranks"><table><caption>All ranks. ASR: '
        "pictures of other classes that the trigger turns into the target; floor: the same without it.</caption>"
        f'<thead><tr><th scope="col">Rate</th>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )


# A cleaning.

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 360, 180, 34, 24, 12
DASHED = ' stroke-dasharray="6 4"'


def curves(points: Sequence[Point], steps: int, state: str) -> str:
    """Progress, the loss, and both rates as they are so far; `state` is given in words above them."""
    done = points[-1].step if points else 0
    losses = [(p.step, p.loss) for p in points if p.loss is not None]
    asr = [(p.step, p.asr) for p in points if p.asr is not None]
    accuracy = [(p.step, p.accuracy) for p in points if p.accuracy is not None]
    top = max([value for _, value in losses], default=1.0) or 1.0
    parts = [
        f'<p class="hc-verdict" role="status">{escape(state)}</p>',
        progress(done, steps, "Steps"),
        '<div class="hc-plots">',
        _plot("Loss", [("loss", losses, "hc-ink")], steps, top, f"{top:.1f}"),
        _plot(
            "Rates on sandbox pictures",
            [("attack success", asr, "hc-suspect"), ("accuracy", accuracy, "hc-cleaned")],
            steps,
            1.0,
            "100%",
        ),
        "</div>",
    ]
    return "".join(parts)


def _plot(title: str, lines: Sequence[tuple[str, list, str]], steps: int, top: float, top_text: str) -> str:
    def place(step: float, value: float) -> tuple[float, float]:
        x = LEFT + (WIDTH - LEFT - 8) * step / max(1, steps)
        return x, HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * min(1.0, max(0.0, value / top))

    drawn, words = [], []
    for i, (name, values, kind) in enumerate(lines):
        if values:
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*value) for value in values))
            drawn.append(f'<polyline class="{kind}" points="{path}"{DASHED if i else ""}/>')
            drawn += [
                f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="2.2"/>'
                for x, y in (place(*value) for value in values)
            ]
            last = percent(values[-1][1]) if top == 1.0 and top_text == "100%" else f"{values[-1][1]:.2f}"
            words.append(f"{name} {last}")
    described = f"{title} by step: {', '.join(words) or 'nothing yet'}"
    key = "".join(
        f'<span><svg width="26" height="8" aria-hidden="true"><line class="{kind}" x1="0" y1="4" x2="26" y2="4"'
        f"{DASHED if i else ''}/></svg> {name}</span>"
        for i, (name, _, kind) in enumerate(lines)
    )
    base = HEIGHT - BOTTOM
    return (
        f'<figure class="hc-plot"><figcaption>{escape(title)}</figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(described)}">'
        f'<path class="hc-axis" d="M{LEFT} {TOP}V{base}H{WIDTH - 8}"/>'
        f'<text x="{LEFT - 4}" y="{TOP + 8}" text-anchor="end">{top_text}</text>'
        f'<text x="{LEFT - 4}" y="{base}" text-anchor="end">0</text>'
        f'<text x="{LEFT}" y="{HEIGHT - 8}">0</text>'
        f'<text x="{WIDTH - 8}" y="{HEIGHT - 8}" text-anchor="end">{steps} steps</text>'
        f'{"".join(drawn)}</svg><div class="hc-key">{key}</div></figure>'
    )
