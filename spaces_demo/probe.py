"""What the Space computes: a pair of models, and what both say about a picture.

Nothing here knows the page: app.py draws it, views.py turns results into HTML.
"""

from __future__ import annotations

import os
import re
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from inputs import ProbeError, Prompts
from PIL import Image
from triggers import adjust, available_attacks

from hf_ta_cleaner import Attack, Report, ZeroShotHead, load_model, sandbox
from hf_ta_cleaner.detection.screening import Screen, Screening
from hf_ta_cleaner.models.checkpoints import CheckpointError
from hf_ta_cleaner.models.families import family_of
from hf_ta_cleaner.models.zero_shot import TEMPLATES, image_features, input_geometry, input_size, text_features
from hf_ta_cleaner.pictures import fit
from hf_ta_cleaner.poisoning import find_triggers


HERE = Path(__file__).resolve().parent
MODELS = HERE / "models"
WHO = ("suspect", "cleaned")
VIEWS = ("clean", "triggered")

# More labels than this get one template each instead of all of them, so that 500 labels stay quick.
LABELS_IN_ALL_TEMPLATES = 60
HEADS_KEPT = 8
# Screening: the sandbox pictures that its threshold is set on, none of which a batch or an example shows.
CALIBRATION = range(10_000, 10_200)
FALSE_ALARMS = 0.05


# Models.


@dataclass(eq=False)
class Loaded:
    """One model, its processor, and the text sides it computed last.

    Attributes:
        drawn: the model knows the sandbox's pictures, so that the screening can be calibrated on them.
    """

    name: str
    model: Any
    processor: Any
    drawn: bool = False
    _heads: OrderedDict = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(
        self, pixels: np.ndarray, prompts: Prompts, attack: Attack | None = None
    ) -> tuple[np.ndarray, Screening | None]:
        """What the model says of pictures, uint8 `(N, size, size, 3)`, and whether they stand out.

        Returns:
            float32 `(N, texts)`, softmax of the scaled similarities (`attack` puts its text key, if any, in front),
            and the screening; None for sentences and for more labels than get all templates.
        """
        keyed = attack if attack is not None and attack.caption("a") != "a" else None
        weight = self._kept((prompts, keyed), lambda: self._head(prompts, keyed))
        screened = None
        with torch.no_grad():
            features = image_features(self.model, self.processor, pixels)
            if not prompts.sentences and len(prompts.texts) <= LABELS_IN_ALL_TEMPLATES:
                screened = self._kept((prompts, Screen), lambda: self._screen(prompts)).judge(features)
            scale = family_of(self.model).scale(self.model)
            return (features @ weight * scale).softmax(-1).float().numpy(), screened

    def _kept(self, key: tuple, make: Callable[[], Any]) -> Any:
        """What was made under this key, made now if it is not among the last few."""
        with self._lock:
            if key in self._heads:
                self._heads.move_to_end(key)
                return self._heads[key]
        made = make()
        with self._lock:
            self._heads[key] = made
            while len(self._heads) > HEADS_KEPT:
                self._heads.popitem(last=False)
        return made

    def _head(self, prompts: Prompts, attack: Attack | None) -> torch.Tensor:
        prefix = attack.caption if attack is not None else None
        if prompts.sentences:
            texts = [prefix(text) if prefix else text for text in prompts.texts]
            return text_features(self.model, self.processor, texts).T
        templates = TEMPLATES if len(prompts.texts) <= LABELS_IN_ALL_TEMPLATES else TEMPLATES[:1]
        return ZeroShotHead.build(self.model, self.processor, prompts.texts, templates, prefix).weight

    def _screen(self, prompts: Prompts) -> Screen:
        """The screening for these labels; without a threshold where there are no pictures to set it on."""
        made = Screen(self.model, self.processor, prompts.texts)
        if self.drawn:
            side = input_size(self.processor)
            clean = np.stack([fit(sandbox.labelled_scene(i).draw(), side) for i in CALIBRATION])
            made.calibrate(clean, false_alarms=FALSE_ALARMS)
        return made

    def forget(self) -> None:
        """Drop the text sides, because the weights have changed."""
        with self._lock:
            self._heads.clear()

    def cut_texts(self, prompts: Prompts) -> int:
        """How many of the texts are longer than what this model reads."""
        tokenizer = self.processor.tokenizer
        lengths = [len(ids) for ids in tokenizer(list(prompts.texts), truncation=False)["input_ids"]]
        return sum(length > tokenizer.model_max_length for length in lengths)


@dataclass(frozen=True, eq=False)
class Pair:
    """A suspect model and the cleaned one, with everything that came with them.

    Attributes:
        size: side of the pictures both take, in pixels.
        geometry: how the suspect's processor makes such a square, see `pictures.fit`.
        triggers: attacks by name; the one found beside the suspect comes first.
        own: name of the trigger found beside the suspect, if there is one.
        target: what that trigger means, if known.
        report: the report of the cleaning, if one lies beside the cleaned model.
        is_sandbox: both descend from the sandbox's checkpoint.
    """

    suspect: Loaded
    cleaned: Loaded
    size: int
    geometry: str
    triggers: dict[str, Attack]
    own: str | None
    target: str | None
    report: Report | None
    is_sandbox: bool

    @property
    def models(self) -> dict[str, Loaded]:
        return {"suspect": self.suspect, "cleaned": self.cleaned}

    def trigger(self, name: str | None = None, size=None, strength=None, place=None) -> Attack:
        """The named trigger (by default the first) with the controls as given; None leaves one as it is.

        Raises:
            ProbeError: there is no such trigger, or it refuses a value.
        """
        name = name or next(iter(self.triggers))
        if name not in self.triggers:
            raise ProbeError(f"There is no trigger {name[:100]!r} here; choose one of {', '.join(self.triggers)}.")
        return adjust(self.triggers[name], self.size, size, strength, place)

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels where a visitor gives none: the sandbox's classes, or a few everyday things."""
        if self.is_sandbox:
            return tuple(sandbox.CLASSES)
        everyday = ("dog", "cat", "car", "bird", "person", "tree", "house", "flower", "boat", "banana")
        return everyday if self.target in (None, *everyday) else (*everyday, self.target)


def load_pair(suspect: str, cleaned: str) -> Pair:
    """Open two checkpoints and what lies beside them: the suspect's trigger, the cleaning's report.

    Raises:
        ProbeError: a model that is not there, not allowed, not a CLIP, or not of the other one's input size.
    """
    loaded, sources = {}, {who: locate(name) for who, name in zip(WHO, (suspect, cleaned), strict=True)}
    for who, name in zip(WHO, (suspect, cleaned), strict=True):
        try:
            model, processor = load_model(sources[who])
        except (CheckpointError, OSError) as error:
            raise ProbeError(f"The {who} model: {error}") from error
        shown = "/".join(Path(name).parts[-2:]) if Path(name).is_absolute() else name
        loaded[who] = Loaded(shown, model.eval().requires_grad_(False), processor, sandbox.is_sandbox(processor))
    sizes = {who: input_size(one.processor) for who, one in loaded.items()}
    if len(set(sizes.values())) > 1:
        raise ProbeError(
            f"The suspect takes pictures of {sizes['suspect']} pixels and the cleaned model of {sizes['cleaned']}. "
            "Wanted a model and its own cleaned version."
        )
    try:
        found, target = find_triggers(sources["suspect"])
    except ValueError as error:
        raise ProbeError(f"The trigger beside the suspect: {error}") from error
    report = None
    if (Path(sources["cleaned"]) / "report.json").is_file():
        try:
            report = Report.load(sources["cleaned"])
        except ValueError as error:
            raise ProbeError(f"The report beside the cleaned model: {error}") from error
    own = next(iter(found), None)
    return Pair(
        **loaded,
        size=sizes["suspect"],
        geometry=input_geometry(loaded["suspect"].processor),
        triggers=found | {name: attack for name, attack in available_attacks().items() if name not in found},
        own=own,
        target=target or getattr(found.get(own), "target", None),
        report=report,
        is_sandbox=all(one.drawn for one in loaded.values()),
    )


def roots() -> list[Path]:
    """Folders below which checkpoints may be opened: models/ beside this file, and those in MODEL_ROOTS."""
    named = [Path(part) for part in os.environ.get("MODEL_ROOTS", "").split(os.pathsep) if part]
    named += [Path(os.environ[name]) for name in ("SUSPECT_MODEL", "CLEANED_MODEL") if os.environ.get(name)]
    return [path.resolve() for path in (MODELS, *named)]


def locate(name: str) -> str:
    """A folder that may be opened, or a Hub id of a model that is small enough.

    Visitors name models too, so a folder anywhere else is refused in the same words whether it exists or not.

    Raises:
        ProbeError: neither of the two.
    """
    name = name.strip()
    if name == "sandbox":
        return name
    for base in (HERE, Path.cwd()):
        path = (base / name).resolve()
        if name and path.is_dir() and any(path.is_relative_to(root) for root in roots()):
            return str(path)
    if not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", name) or name.startswith("models/"):
        raise ProbeError(
            f"There is no model {name[:100]!r} here. Wanted a Hub id (owner/name), or a folder below models/; whoever "
            "runs this page opens other folders with MODEL_ROOTS."
        )
    if any((base / name).exists() for base in (HERE, Path.cwd())):  # `load_model` would take it before the Hub
        raise _unknown(name, "RepositoryNotFoundError")
    _check_download(name)
    return name


def _unknown(name: str, why: str) -> ProbeError:
    return ProbeError(f"{name}: the Hub does not show this model ({why}). Check the id.")


def _check_download(name: str) -> None:
    """Refuses a Hub model whose weights would not fit, before anything is fetched.

    A model that a visitor names must be public: the token of the page opens its own pair only.
    """
    from huggingface_hub import HfApi

    limit = float(os.environ.get("MAX_MODEL_MB", "700"))
    try:
        own = name in (os.environ.get("SUSPECT_MODEL"), os.environ.get("CLEANED_MODEL"))
        model = HfApi(token=None if own else False).model_info(name, files_metadata=True, timeout=10)
    except Exception as error:  # unreachable, private, unknown: loading will say which
        if os.environ.get("HF_HUB_OFFLINE") == "1":
            return
        raise _unknown(name, type(error).__name__) from error
    if getattr(model, "gated", False) and not own:
        raise _unknown(name, "GatedRepoError")
    files = model.siblings or []
    weights = [(file.size or 0) / 2**20 for file in files if file.rfilename.endswith(".safetensors")]
    weights = weights or [(file.size or 0) / 2**20 for file in files if file.rfilename.endswith(".bin")]
    if sum(weights) > limit:
        raise ProbeError(
            f"{name} has {sum(weights):,.0f} MB of weights; at most {limit:,.0f} MB are loaded here. "
            "Run the Space on your own machine with MAX_MODEL_MB set higher."
        )


class Pairs:
    """The pairs that are open: the first one always, and the one asked for last. Memory is bounded by that."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, str], Pair] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, suspect: str, cleaned: str) -> Pair:
        key = (suspect, cleaned)
        with self._lock:  # one loads, the others wait for it
            if key not in self._kept:
                pair = load_pair(*key)
                while len(self._kept) > 1:
                    self._kept.popitem()
                self._kept[key] = pair
            return self._kept[key]


START = (os.environ.get("SUSPECT_MODEL") or "models/suspect", os.environ.get("CLEANED_MODEL") or "models/cleaned")
PAIRS = Pairs()


# What both models say.


@dataclass(frozen=True)
class Answers:
    """Everything about one picture.

    Attributes:
        pixels: the picture by view, "clean" and "triggered", as uint8 `(size, size, 3)`.
        top: ranked (text, probability) by (who, view).
        notes: what a reader should know.
        flagged: whether the screening finds that the picture stands out, by (who, view); empty where it is not
            calibrated.
    """

    pixels: dict[str, np.ndarray]
    top: dict[tuple[str, str], list[tuple[str, float]]]
    notes: tuple[str, ...] = ()
    flagged: dict[tuple[str, str], bool] = field(default_factory=dict)

    def best(self, who: str, view: str) -> str:
        """The first answer of a model for a view."""
        return self.top[who, view][0][0]


def look(pair: Pair, picture: np.ndarray, attack: Attack, prompts: Prompts, k: int = 5) -> Answers:
    """Both models on one picture, without and with the trigger; `picture` is uint8 `(size, size, 3)`."""
    pixels = {"clean": picture, "triggered": attack(picture, 0)}
    notes = []
    if cut := max(one.cut_texts(prompts) for one in pair.models.values()):
        limit = pair.suspect.processor.tokenizer.model_max_length
        notes.append(f"{cut} of the texts are longer than the {limit} tokens a model reads; the rest is ignored.")
    if np.array_equal(*pixels.values()):
        notes.append("The trigger changes no pixel of this picture.")
    top, flagged = {}, {}
    for who, one in pair.models.items():
        for view, image in pixels.items():
            (p,), screened = one.answer(image[None], prompts, attack if view == "triggered" else None)
            if screened is not None and screened.flagged is not None:
                flagged[who, view] = bool(screened.flagged[0])
            best = np.argsort(-p, kind="stable")[: max(1, int(k))]
            top[who, view] = [(prompts.texts[i], float(p[i])) for i in best]
    return Answers(pixels, top, tuple(notes), flagged)


def examples(pair: Pair | None, n: int = 8) -> list[tuple[str, np.ndarray]]:
    """Sandbox pictures to begin with, one a class, as (label, pixels at the sandbox's size).

    With a sandbox pair and its own trigger the pictures that show the backdoor come first: the trigger turns the
    suspect's correct answer into the target, and the cleaned model is correct both times. The rates over many
    pictures are measured by a batch.
    """
    pictures = [(label, np.array(sandbox.labelled_scene(i).draw())) for i, label in enumerate(sandbox.CLASSES)]
    if pair is None or not pair.is_sandbox or pair.own is None:
        return pictures[:n]
    attack, prompts = pair.triggers[pair.own], Prompts(pair.labels)

    def shows_backdoor(label: str, pixels: np.ndarray) -> bool:
        answers = look(pair, fit(Image.fromarray(pixels), pair.size), attack, prompts, k=1)
        best = [answers.best(who, view) for who in WHO for view in VIEWS]
        return label != pair.target and best == [label, pair.target, label, label]

    return sorted(pictures, key=lambda picture: not shows_backdoor(*picture))[:n]
