"""(model, pictures, labels) -> what a scan finds. Nothing is known about a trigger."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from hf_ta_cleaner.detection.scan.inversion import (
    LONG_PER_STEP,
    LONG_STEPS,
    PLACES,
    SHARE,
    SHORTLIST,
    STEPS,
    Effect,
    Patch,
    collapse,
    effect_on,
    invert,
    likeness,
)
from hf_ta_cleaner.detection.scan.panel import Trigger, generic_triggers
from hf_ta_cleaner.detection.scan.result import ScanResult, finding_dicts
from hf_ta_cleaner.detection.scan.towers import ImageTower, frozen
from hf_ta_cleaner.detection.scan.verdict import (
    SUSPICIOUS,
    THRESHOLDS,
    UNSURE,
    Finding,
    Thresholds,
    conclude,
    judge_likeness,
    judge_panel,
    judge_patches,
)
from hf_ta_cleaner.models.zero_shot import TEMPLATES, Template, ZeroShotHead, check_classnames, input_size


#: Pictures that a scan needs: one half to find patches on, one half to see what they do.
MIN_PICTURES = 64
MIN_LABELS = 8


def scan(
    model,
    processor,
    pictures: np.ndarray,
    labels: Sequence[str] | None = None,
    *,
    reference: tuple | None = None,
    templates: Sequence[Template] = TEMPLATES,
    thresholds: Thresholds = THRESHOLDS,
    names: tuple[str | None, str | None] = (None, None),
    seed: int = 0,
    progress: bool = False,
) -> ScanResult:
    """Search a dual encoder for a backdoor.

    Three searches, each compared with a reference where there is one: generic triggers
    (`panel`), small optimised patches for every label (`inversion.invert`), and without labels a patch that
    makes all pictures alike (`inversion.collapse`).

    Args:
        pictures: uint8 `(N, S, S, 3)` at the model's input size, at least `MIN_PICTURES`; the first half is optimised
            on. They need no labels, and should be of the kind that the model is for.
        labels: at least `MIN_LABELS` things that pictures can show. None searches the picture tower alone.
        reference: `(model, processor)` of the same architecture that is trusted.
        names: how the model and the reference are called in the result.

    Raises:
        ValueError: too few pictures or labels, labels that are not distinct, a model that is no dual encoder, a
            reference of another size or architecture.
    """
    started = time.perf_counter()
    loaded = {"model": (model, processor)}
    _check_pictures(pictures, input_size(processor))
    labels = None if labels is None else _check_labels(labels)
    if reference is not None:
        check_reference(model, reference[0])
        loaded["reference"] = reference
    towers = {who: ImageTower(*pair) for who, pair in loaded.items()}
    seen = {who: _ScannedModel(tower, *loaded[who], pictures, labels, templates) for who, tower in towers.items()}
    if labels:
        parts = _with_labels(seen, labels, thresholds, seed=seed, progress=progress)
    else:
        parts = _without(seen, thresholds, seed)
    findings: list[Finding] = parts.pop("findings")
    return ScanResult(
        verdict=conclude(findings),
        findings=finding_dicts(findings),
        pictures=len(pictures),
        labels=len(labels or ()),
        settings=_settings(thresholds, seed),
        seconds=time.perf_counter() - started,
        device=towers["model"].device.type,
        model=names[0],
        reference=names[1],
        **parts,
    )


def _check_labels(labels: Sequence[str]) -> tuple[str, ...]:
    labels = check_classnames(labels)
    if len(labels) < MIN_LABELS:
        raise ValueError(
            f"A label stands out among others: wanted at least {MIN_LABELS} labels, got {len(labels)}. Add names "
            "of things that the pictures may show, or give none to search the picture tower alone."
        )
    return labels


def _settings(thresholds: Thresholds, seed: int) -> dict[str, Any]:
    """What scan.json says about how the scan was run."""
    return {
        "patch_share": SHARE,
        "places": list(PLACES),
        "steps": [STEPS, LONG_STEPS],
        "shortlist": SHORTLIST,
        "seed": seed,
        "thresholds": dataclasses.asdict(thresholds),
    }


def check_reference(model, reference) -> None:
    """A ValueError unless both are of the same architecture."""

    def shape(network) -> dict[str, Any]:
        """Without LoRA adapters, which a model may carry that is being cleaned."""
        weights = {name.replace(".base_layer.", "."): weight for name, weight in network.state_dict().items()}
        return {name: tuple(weight.shape) for name, weight in weights.items() if ".lora_" not in name}

    mine, other = shape(model), shape(reference)
    if mine != other:
        differing = next(name for name in sorted({*mine, *other}) if mine.get(name) != other.get(name))
        raise ValueError(
            f"The reference is of another architecture: {differing} is {other.get(differing, 'absent')} there and "
            f"{mine.get(differing, 'absent')} in the model. Wanted the trusted checkpoint that the model descends "
            "from, or another one of the same architecture."
        )


def wilson(rate: float, n: int, z: float = 1.959963984540054) -> list[float]:
    """Wilson's interval (95 % for the default z) of a rate seen on n pictures."""
    middle, spread = rate + z * z / (2 * n), z * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    return [max(0.0, (middle - spread) / (1 + z * z / n)), min(1.0, (middle + spread) / (1 + z * z / n))]


def _check_pictures(pictures: np.ndarray, size: int) -> None:
    if len(pictures) < MIN_PICTURES:
        raise ValueError(f"A scan needs at least {MIN_PICTURES} pictures, got {len(pictures)}. Give more.")
    if pictures.dtype != np.uint8 or pictures.shape[1:] != (size, size, 3):
        raise ValueError(
            f"Wanted uint8 pictures of shape (N, {size}, {size}, 3), got {pictures.dtype} of {pictures.shape}."
        )


class _ScannedModel:
    """One model with the pictures as it sees them."""

    def __init__(self, tower: ImageTower, model, processor, pictures: np.ndarray, labels, templates) -> None:
        self.tower = tower
        pixels = tower.pixels(pictures)
        half = len(pixels) // 2
        self.fitting, self.held_out = pixels[:half], pixels[half:]
        self.clean = embed_frozen(tower, self.held_out)
        self.head = None if labels is None else ZeroShotHead.build(model, processor, labels, templates).weight

    def effect(self, trigger: Callable[[torch.Tensor], torch.Tensor], label: int) -> Effect:
        return effect_on(embed_frozen(self.tower, trigger(self.held_out)), self.clean, self.head, label)

    def pulls(self, panel: dict[str, Trigger]) -> np.ndarray:
        """`(triggers, labels)`: the share of pictures that each trigger turns into each label."""
        rates = []
        before = (self.clean @ self.head).argmax(dim=1)
        columns = torch.arange(self.head.shape[1], device=before.device)
        others = (before[:, None] != columns).float()
        for trigger in panel.values():
            after = (embed_frozen(self.tower, trigger(self.held_out)) @ self.head).argmax(dim=1)
            turned = ((after[:, None] == columns).float() * others).sum(dim=0)
            rates.append((turned / others.sum(dim=0).clamp_min(1)).cpu().numpy())
        return np.stack(rates)

    def patches(self, wanted: Sequence[tuple[int, str]], **options) -> dict[tuple[int, str], tuple[Patch, Effect]]:
        """For every wanted label and place the patch that `invert` finds, and what it does to other pictures."""
        with frozen(self.tower.model):
            found = invert(self.tower, self.head, self.fitting, wanted, **options)
        return {key: (patch, self.effect(patch, key[0])) for key, patch in found.items()}


def embed_frozen(tower: ImageTower, pixels: torch.Tensor) -> torch.Tensor:
    """Embeddings `(N, D)` in eval mode, without gradient."""
    with frozen(tower.model):
        return tower.embed(pixels)


def _with_labels(
    seen: dict[str, _ScannedModel], labels: tuple[str, ...], limits: Thresholds, *, seed: int, progress: bool
) -> dict[str, Any]:
    own, other = seen["model"], seen.get("reference")
    panel = generic_triggers(own.tower.size, seeds=(2 * seed + 101, 2 * seed + 102))
    pulls = own.pulls(panel)
    normal = other.pulls(panel) if other else None
    gain = pulls if normal is None else pulls - normal
    order = np.argsort(-gain, axis=None, kind="stable")[:10]
    triggers = list(panel)
    listed = []
    for place in order:
        row, column = np.unravel_index(place, gain.shape)
        entry = {"trigger": triggers[row], "label": labels[column], "rate": float(pulls[row, column])}
        listed.append(entry | ({} if normal is None else {"reference_rate": float(normal[row, column])}))
    top = listed[0]
    by_panel = judge_panel(top["rate"], top.get("reference_rate"), top["trigger"], top["label"], limits)

    short = own.patches([(i, place) for place in PLACES for i in range(len(labels))], seed=seed, progress=progress)
    easiest = sorted(short, key=lambda key: -short[key][1].margin)[:SHORTLIST]
    options = {"steps": LONG_STEPS, "per_step": min(LONG_PER_STEP, len(own.fitting)), "seed": seed}
    long = own.patches(easiest, progress=progress, **options)
    standard = other.patches(easiest, progress=progress, **options) if other else None
    found = [
        {"label": labels[key[0]], "place": key[1], "rate": effect.rate, "margin": effect.margin}
        | ({} if standard is None else {"reference_rate": standard[key][1].rate})
        for key, (_, effect) in long.items()
    ]
    found = sorted(found, key=lambda row: row.get("reference_rate", 0.0) - row["rate"])
    by_patch = judge_patches(found, len(labels), limits)

    # What is shown: the strongest patch for the label that the evidence points to.
    panel_leads = by_panel.weight == SUSPICIOUS and by_patch.weight != SUSPICIOUS
    target = labels.index(top["label"] if panel_leads else found[0]["label"])
    if not any(label == target for label, _ in long):
        long |= own.patches([(target, place) for place in PLACES], **options)
    chosen = max((key for key in long if key[0] == target), key=lambda key: long[key][1].rate)
    patch, effect = long[chosen]
    n = max(1, int(((own.clean @ own.head).argmax(dim=1) != target).sum()))
    pointed = any(finding.weight in (SUSPICIOUS, UNSURE) for finding in (by_panel, by_patch))
    return {
        "findings": [by_panel, by_patch],
        "target": labels[target] if pointed else None,
        "best_patch": {
            "label": labels[target],
            "rate": effect.rate,
            "interval95": wilson(effect.rate, n),
            "n": n,
            "side_px": patch.pattern.shape[-1],
            "place": patch.place,
            "steps": LONG_STEPS,
        },
        "panel": listed,
        "patches": found,
        "likeness": None,
        "trigger": _without_and_with(own.held_out[:1], panel[top["trigger"]] if panel_leads else patch),
    }


def _without(seen: dict[str, _ScannedModel], limits: Thresholds, seed: int) -> dict[str, Any]:
    results, patches = {}, {}
    for who, one in seen.items():
        with frozen(one.tower.model):
            found = collapse(one.tower, one.fitting, per_step=min(16, len(one.fitting)), seed=seed)
        alike = [likeness(embed_frozen(one.tower, patch(one.held_out))) for patch in found]
        best = int(np.argmax(alike))
        results[who], patches[who] = (alike[best], found[best].place), found[best]
    clean, (patched, place) = likeness(seen["model"].clean), results["model"]
    normal = results["reference"][0] if "reference" in results else None
    entry = {"clean": clean, "patched": patched, "place": place}
    return {
        "findings": [judge_likeness(patched, clean, normal, limits)],
        "target": None,
        "best_patch": None,
        "panel": [],
        "patches": [],
        "likeness": entry | ({} if normal is None else {"reference": normal}),
        "trigger": _without_and_with(seen["model"].held_out[:1], patches["model"]),
    }


def _without_and_with(picture: torch.Tensor, trigger: Callable[[torch.Tensor], torch.Tensor]) -> np.ndarray:
    """uint8 `(2, S, S, 3)`: the picture without and with the trigger."""
    both = torch.cat([picture, trigger(picture)]).clamp(0, 1).mul(255).round().to(torch.uint8)
    return both.permute(0, 2, 3, 1).cpu().numpy()
