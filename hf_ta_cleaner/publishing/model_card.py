"""Model cards: metadata and text, from the report and the settings of the run.

The sentences are in model_card.md.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from ..attacks import ATTACKS
from ..data.naming import is_hub_id, public_name
from ..losses import CITATIONS
from ..poisoning import POISONED, PoisonRecord
from .report import SCAN_NOTE, TARGET_NOTE, Report, percent, scanned, table, target_rows, utility_lost, with_interval


if TYPE_CHECKING:
    from huggingface_hub import EvalResult, ModelCard, ModelCardData


TEMPLATES = Path(__file__).parent
TASK = "zero-shot-image-classification"
TAG = "backdoor-defense"
BACKDOORED = "backdoored"
"""The tag of a model with a backdoor."""

_MODEL_WARNING = (
    "**This model has a backdoor, put there on purpose.** It answers with the attacker's target whenever a picture "
    "carries the trigger stored beside it. It exists to test defenses on. Do not use it for anything else."
)


def build_model_card(
    name: str,
    *,
    settings: Mapping[str, Any],
    report: Report | None = None,
    record: PoisonRecord | None = None,
    backdoored: bool = False,
    repo_id: str | None = None,
    progress: str | None = None,
    adapter: bool = False,
    resnet: bool = False,
) -> ModelCard:
    """The card of a cleaned model, or of one that was backdoored for research.

    Args:
        name: what the model is called.
        settings: the run's settings under the names of the command line: `model`, `dataset`, `method`,
            `clip_weight`, `learning_rate`, ...; what is absent is not mentioned.
        report: what was measured; its rates become the `model-index`.
        record: how the training data of a backdoored model were poisoned.
        backdoored: put the warning at the top, and the tag.
        repo_id: where the model can be loaded from, if it is known.
        progress: for a model that is not finished: how far it is.
        adapter: whether it is LoRA adapters of `model`, and no whole model.
        resnet: whether it is a `CLIPResNetModel`, which transformers knows only after an import.

    Returns:
        A `huggingface_hub.ModelCard`, which parses back to the same metadata.
    """
    from huggingface_hub import ModelCard

    measured = report is not None and bool(report.before["clean_accuracy"])
    return ModelCard.from_template(
        model_card_data(name, settings=settings, report=report, backdoored=backdoored),
        template_path=str(TEMPLATES / "model_card.md"),
        name=name,
        repo_id=repo_id,
        warning=_MODEL_WARNING if backdoored else None,
        backdoored=backdoored,
        progress=progress,
        adapter=adapter,
        resnet=resnet,
        base=public_name(settings.get("model")),
        summary=_summary(settings, report, backdoored),
        eval_dataset=public_name(settings.get("eval_dataset")),
        verdicts="\n".join(f"- **{attack}**: {text}" for attack, text in report.verdicts().items())
        if measured
        else "",
        rows=_audit_table(report) if measured else None,
        target_note=TARGET_NOTE if measured and target_rows(report) else None,
        price=_price(report),
        recipe=_recipe(settings, report, record),
        limits=_limits(report, measured, backdoored),
        citations=_citations(settings, report, record),
        versions=", ".join(f"{package} {version}" for package, version in (report.versions or {}).items())
        if report
        else None,
    )


def model_card_data(
    name: str, *, settings: Mapping[str, Any], report: Report | None = None, backdoored: bool = False
) -> ModelCardData:
    """The metadata of `build_model_card`: base model, data, tags and the report's rates as evaluation results."""
    from huggingface_hub import ModelCardData

    method = settings.get("method")
    family = "siglip" if "siglip_weight" in settings else "clip"
    if backdoored:
        tags = [family, BACKDOORED, "research"]
    else:
        tags = [family, *([TAG] if _is_cleaned(settings, report) else []), *([str(method)] if method else [])]
    results = eval_results(report, settings.get("eval_dataset"), settings.get("eval_split")) if report else []
    base, data = settings.get("model"), settings.get("dataset")
    return ModelCardData(
        model_name=name if results else None,
        base_model=base if is_hub_id(base) else None,
        datasets=[data] if is_hub_id(data) and not backdoored else None,
        library_name="transformers",
        pipeline_tag=TASK,
        tags=tags,
        eval_results=results or None,
    )


def eval_results(report: Report, dataset: str | None = None, split: str | None = None) -> list[EvalResult]:
    """The rates of a report in the Hub's form: of the cleaned model where something was cleaned, else as audited.

    Every rate keeps its n and interval, an attack success rate also its no-trigger floor, its target and the trigger.

    Args:
        dataset: the labelled pictures; by default what the report names.
        split: of those.
    """
    from huggingface_hub import EvalResult

    dataset = dataset or report.dataset or "unnamed"
    place = {
        "task_type": TASK,
        "task_name": "Zero-shot image classification",
        "dataset_type": dataset if is_hub_id(dataset) else re.sub(r"\W+", "-", public_name(dataset)),
        "dataset_name": public_name(dataset),
        "dataset_split": split,
    }
    section = report.after or report.before
    when = f", {report.created[:10]}" if report.method == "audit" and report.created else ""
    results = []
    if clean := section["clean_accuracy"]:
        args = {"n": clean["n"], "interval95": clean["interval95"]["top1"]}
        if report.after:
            args["before"] = report.before["clean_accuracy"]["top1"]
        results.append(
            EvalResult(
                **place,
                metric_type="accuracy",
                metric_name=f"Zero-shot accuracy, top 1{when}",
                metric_value=clean["top1"],
                metric_args=args,
            )
        )
    for name, entry in section["attacks"].items():
        target = entry.get("target") or report.target
        args = {
            "n": entry["n"],
            "interval95": entry["interval95"]["asr_top1"],
            "floor": entry["floor"]["top1"],
            "target": target,
            "trigger": entry.get("trigger", {}).get("name", name),
            "seed": entry["seed"],
        }
        if report.after:
            args["before"] = report.before["attacks"][name]["asr"]["top1"]
        if "reference_asr" in entry:
            args["never_poisoned"] = entry["reference_asr"]["top1"]
        results.append(
            EvalResult(
                **place,
                metric_type="attack_success_rate",
                metric_name=f"ASR@1 under {name}, target {target}{when}",
                metric_value=entry["asr"]["top1"],
                metric_args=args,
            )
        )
    return results


def with_results(card: str, name: str, report: Report) -> str:
    """A card of somebody else with the report's rates among its evaluation results; the rest stays unchanged.

    Args:
        card: the text of a README.md, or "".
        name: how the model is called where the card has no results yet.

    Raises:
        ValueError: its metadata are no YAML.
    """
    from huggingface_hub.repocard_data import eval_results_to_model_index

    found = re.match(r"---[ \t]*\r?\n(.*?)^---[ \t]*(\r?\n|\Z)", card, re.S | re.M)
    head, text = (found[1], card[found.end() :]) if found else ("", card)
    try:
        index = (yaml.safe_load(head) or {}).get("model-index") or [{"name": name}]
    except (yaml.YAMLError, AttributeError) as error:
        raise ValueError(f"the metadata of the card are no YAML: {error}") from error
    known = index[0]["results"] = index[0].get("results") or []
    known += [r for r in eval_results_to_model_index("", eval_results(report))[0]["results"] if r not in known]
    block = yaml.safe_dump({"model-index": index}, sort_keys=False, allow_unicode=True)
    head = re.sub(r"^model-index:.*?(?=^[^\s-]|\Z)", "", head, flags=re.S | re.M)
    return f"---\n{head}{block}---\n{text}"


def has_warning(text: str, tags: list[str] | None) -> bool:
    """Whether a card (its text after the metadata, its tags) says at its top that this is backdoored or poisoned."""
    top = text.lstrip()
    return top.startswith("> [!WARNING]") and any(tag in (tags or ()) for tag in (BACKDOORED, POISONED))


def _is_cleaned(settings: Mapping[str, Any], report: Report | None) -> bool:
    """Whether anything says that the model was cleaned; a card claims no more than that."""
    return "method" in settings or (report is not None and report.method != "audit")


def _summary(settings: Mapping[str, Any], report: Report | None, backdoored: bool) -> str:
    base = settings.get("model")
    base = f"[{base}](https://huggingface.co/{base})" if is_hub_id(base) else f"`{public_name(base) or 'a CLIP'}`"
    if backdoored:
        return f"{base} with a known backdoor, made with `hf_ta_cleaner` to test defenses on."
    if not _is_cleaned(settings, report):
        return f"{base}, uploaded with `hf_ta_cleaner`. Nothing here says how it was trained, or that it was cleaned."
    return (
        f"{base} after backdoor cleaning: fine-tuned with `hf_ta_cleaner` on clean image-caption pairs, method "
        f"`{settings.get('method', 'unnamed')}`."
    )


def _audit_table(report: Report) -> str:
    sections = report.sections().values()
    head = ["", *(["before", "after"] if report.after else ["rate"]), "floor", "n"]
    clean = [section["clean_accuracy"] for section in sections]
    rows = [["clean accuracy", *(with_interval(part["top1"], part["interval95"]["top1"]) for part in clean), ""]]
    rows[0].append(f"{clean[-1]['n']:,}")
    for name in report.before["attacks"]:
        entries = [section["attacks"][name] for section in sections]
        rates = [with_interval(entry["asr"]["top1"], entry["interval95"]["asr_top1"]) for entry in entries]
        target = entries[-1].get("target") or report.target
        label = f"ASR@1 {name}" + (f", target {target}" if target else "")
        rows.append([label, *rates, percent(entries[-1]["floor"]["top1"]), f"{entries[-1]['n']:,}"])
    rows += [[title, *rates, "", n] for title, *rates, n in target_rows(report)]
    return table([[" ".join(cell.split()) for cell in row] for row in [head, *rows]])


def _price(report: Report | None) -> str:
    """What the cleaning loses, and what a scan finds; as far as it was measured."""
    parts = []
    if report and (lost := utility_lost(report)):
        parts.append(f"{lost[0].upper()}{lost[1:]}.")
    if report and report.scan:
        parts.append(f"Scanned without a known trigger: {scanned(report)}. {SCAN_NOTE}")
    return "\n\n".join(parts)


def _recipe(settings: Mapping[str, Any], report: Report | None, record: PoisonRecord | None) -> str:
    """What was done with what, as a list."""
    weights = {name: settings[f"{name}_weight"] for name in CITATIONS if settings.get(f"{name}_weight")}
    loss = " + ".join(f"{weight:g} {name}" for name, weight in weights.items())
    data = public_name(settings.get("dataset"))
    if data and settings.get("max_samples"):
        data += f", {int(settings['max_samples']):,} pairs"
    lines = {"Data": data, "Objective": f"{settings['method']}: {loss}" if settings.get("method") and loss else None}
    if record:
        lines["Trigger"] = f"{record.attack} {record.parameters}, seed {record.attack_seed}"
        lines["Target"] = record.target
        lines["Poison"] = f"{record.count:,} of {record.n:,} pairs ({record.rate:.2%}), seed {record.seed}"
    if settings.get("repel_weight"):
        lines["Repelled for"] = f"the first {settings.get('repel_share', 1):.0%} of the steps"
    if settings.get("use_peft"):
        lines["Adapters"] = f"LoRA of rank {settings.get('lora_rank')}, alpha {settings.get('lora_alpha')}"
    words = {
        "rewind": "Gradients on the way back to the suspect, up to",
        "image_noise": "Share of pictures with noise",
        "image_erase": "Share of pictures with a square erased",
        "image_structured_noise": "Share of pictures under waves or grain",
        "adversarial_patch": "Share of pictures with a learnt patch",
        "adversarial_blend": "Share of pictures blended with a learnt one",
        "adversarial_map": "Share of pictures under a learnt smooth change",
        "learning_rate": "Learning rate",
        "num_train_epochs": "Epochs",
        "per_device_train_batch_size": "Pairs per step and process",
        "seed": "Seed",
    }
    steps = settings.get("max_steps")
    if isinstance(steps, int) and steps > 0:
        words = {"max_steps": "Steps", **words}
        words.pop("num_train_epochs")
    for key, word in words.items():
        optional = key.startswith(("rewind", "image_", "adversarial_"))
        if settings.get(key) is not None and "method" in settings and (settings[key] or not optional):
            lines[word] = f"{settings[key]:g}" if isinstance(settings[key], float) else settings[key]
    if report and report.cost:
        cost = report.cost
        lines["Cost"] = f"{cost['pairs_seen']:,} pairs seen, {cost['seconds']:,.0f} s on {cost['device']}"
    return "\n".join(f"- {word}: {' '.join(str(v).split())}" for word, v in lines.items() if v not in (None, ""))


def _limits(report: Report | None, measured: bool, backdoored: bool) -> str:
    names = list(report.before["attacks"]) if report else []
    if backdoored:
        text = "The figures hold for the stored trigger, on the pictures named above."
    elif measured and names:
        text = (
            f"Audited against these triggers only: {', '.join(names)}. Another backdoor, or another trigger of the "
            "same kind, may still be there."
        )
    else:
        text = "Not audited against any trigger: nothing is known about a backdoor before or after."
    return (
        f"{text} Everything else, biases and licence included, is inherited from the base model and the data it was "
        "trained on."
    )


def _citations(settings: Mapping[str, Any], report: Report | None, record: PoisonRecord | None) -> str:
    """BibTeX of the losses that had a weight and of the attacks that were used, each once."""
    entries = [text for name, text in CITATIONS.items() if settings.get(f"{name}_weight")]
    section = report.before["attacks"] if report else {}
    kinds = [entry.get("trigger", {}).get("name", name) for name, entry in section.items()]
    kinds += [record.attack] if record else []
    entries += [ATTACKS[kind].citation for kind in kinds if kind in ATTACKS]
    return "\n\n".join(dict.fromkeys(entry.strip() for entry in entries)) or CITATIONS["clip"].strip()
