"""A short cleaning of the sandbox suspect, step by step, and an audit of a pair that came without a report.

The cleaning is the package's own trainer in a thread of its own; what is drawn while it runs comes out of a queue.
"""

from __future__ import annotations

import queue
import tempfile
import threading
import time
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from inputs import ProbeError, Prompts
from probe import Loaded, Pair
from transformers import PrinterCallback, TrainerCallback

from hf_ta_cleaner import Attack, Report, SubTextMap, TACleanerConfig, TACleanerTrainer, sandbox
from hf_ta_cleaner.evaluation.audit import audit, clean_accuracy_loss
from hf_ta_cleaner.models.zero_shot import TEMPLATES, prompt
from hf_ta_cleaner.pictures import fit


METHODS = ("ta-cleaner", "cleanclip", "ft")
PAIRS = 640
BATCH = 32
MAX_STEPS = 150
MAX_SECONDS = 300
PICTURES = 96  # watched while it runs
AUDITED = 480
MEASUREMENTS = 12
RATE = 5e-4


@dataclass(frozen=True)
class Point:
    """The run after so many steps: mean loss since the last point, ASR and accuracy where they were measured."""

    step: int
    loss: float | None = None
    asr: float | None = None
    accuracy: float | None = None


class Cleaning:
    """One run. `points()` yields while it trains; `stop()` ends it after the step it is in, from any thread."""

    def __init__(
        self, pair: Pair, attack: Attack, target: str | None, *, method: str, steps: int, learning_rate: float = RATE
    ) -> None:
        if not pair.is_sandbox:
            raise ProbeError(
                "Only models of the sandbox are cleaned here, because its pictures are drawn on the spot. "
                "For this one run scripts/clean.py with pairs of your own."
            )
        if method not in METHODS:
            raise ProbeError(f"The method must be one of {', '.join(METHODS)}; got {method!r}.")
        if not 1 <= steps <= MAX_STEPS or not 0 < learning_rate <= 1e-2:
            raise ProbeError(
                f"Wanted 1 to {MAX_STEPS} steps and a rate up to 0.01; got {steps} and {learning_rate:g}."
            )
        if target not in sandbox.CLASSES:
            raise ProbeError(f"The target must be one of the sandbox's classes, such as banana; got {target!r}.")
        self.steps, self.method, self.rate = int(steps), method, float(learning_rate)
        self._pair, self._attack, self._target = pair, attack, target
        self._stop, self._points = threading.Event(), queue.Queue()
        self._thread = threading.Thread(target=self._run, daemon=True, name="cleaning")

    def points(self) -> Iterator[Point]:
        """Points in the order of their steps; the first is the suspect itself. Leaving early stops the run."""
        self._thread.start()
        try:
            while True:
                item = self._points.get()
                if item is None:
                    return
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            self.stop()
            self._thread.join()

    def stop(self) -> None:
        self._stop.set()

    @property
    def stopped(self) -> bool:
        return self._stop.is_set()

    def _run(self) -> None:
        try:
            with tempfile.TemporaryDirectory(prefix="cleaning-") as folder:
                self._train(folder)
        except Exception as error:  # carried to the thread that waits
            self._points.put(error)
        finally:
            self._points.put(None)

    def _train(self, folder: str) -> None:
        one = self._pair.suspect
        model = deepcopy(one.model).requires_grad_(True)
        args = TACleanerConfig(
            output_dir=folder,
            method=self.method,
            max_steps=self.steps,
            learning_rate=self.rate,
            per_device_train_batch_size=BATCH,
            warmup_steps=max(1, self.steps // 10),
            logging_steps=max(1, self.steps // 50),
            save_strategy="no",
            disable_tqdm=True,
            use_cpu=True,
        )
        watched = Loaded(one.name, model, one.processor)
        views = _watched_pictures(self._pair.size, self._target)
        views["triggered"] = self._attack.apply_batch(views["clean"], range(len(views["clean"])))
        self._points.put(Point(0, None, *self._measure(watched, views)))
        callback = _Watch(self, watched, views)
        trainer = TACleanerTrainer(model, args, cleaning_pairs(), processing_class=one.processor, callbacks=[callback])
        trainer.remove_callback(PrinterCallback)
        trainer.train()

    def _measure(self, one: Loaded, views: dict[str, np.ndarray]) -> tuple[float, float]:
        """(attack success, clean accuracy) on the watched pictures, as fractions."""
        prompts = Prompts(tuple(prompt(TEMPLATES[0], name) for name in sandbox.CLASSES), sentences=True)
        one.forget()
        triggered = one.answer(views["triggered"], prompts, self._attack)[0].argmax(1)
        clean = one.answer(views["clean"], prompts)[0].argmax(1)
        asr = float((triggered == sandbox.CLASSES.index(self._target)).mean())
        return asr, float((clean == views["labels"]).mean())


class _Watch(TrainerCallback):
    """Puts a point for every logged loss, measures now and then, and ends the run when it is told to."""

    def __init__(self, run: Cleaning, one: Loaded, views: dict[str, np.ndarray]) -> None:
        self.run, self.one, self.views = run, one, views
        self.every = max(1, run.steps // MEASUREMENTS)
        self.until = time.monotonic() + MAX_SECONDS

    def on_step_end(self, args, state, control, **kwargs) -> None:
        if self.run.stopped or time.monotonic() > self.until:
            control.should_training_stop = True
        if state.global_step % self.every == 0 or control.should_training_stop:
            asr, accuracy = self.run._measure(self.one, self.views)
            self.run._points.put(Point(state.global_step, None, asr, accuracy))

    def on_log(self, args, state, control, logs=None, **kwargs) -> None:
        if logs and "loss" in logs:
            self.run._points.put(Point(state.global_step, float(logs["loss"])))


@lru_cache(maxsize=1)
def cleaning_pairs():
    """The defender's clean pairs, with their captions parsed, in memory: drawn once, 640 of them."""
    from datasets import Dataset, Features, Image, Value

    scenes = [sandbox.pair_scene("clean", i) for i in range(PAIRS)]
    columns = {"image": [scene.draw() for scene in scenes], "caption": [sandbox.caption(scene) for scene in scenes]}
    pairs = Dataset.from_dict(columns, features=Features({"image": Image(), "caption": Value("string")}))
    return pairs.map(SubTextMap(), batched=True)


@lru_cache(maxsize=4)
def _scenes(size: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    labels = np.arange(n) % len(sandbox.CLASSES)
    return np.stack([fit(sandbox.labelled_scene(i).draw(), size) for i in range(n)]), labels


def _watched_pictures(size: int, target: str) -> dict[str, np.ndarray]:
    pixels, labels = _scenes(size, PICTURES)
    kept = labels != sandbox.CLASSES.index(target)
    return {"clean": pixels[kept], "labels": labels[kept]}


def audit_pair(pair: Pair, attack: Attack, target: str | None, n: int = AUDITED) -> Report:
    """The report of a sandbox pair that came without one, on `n` labelled pictures.

    Raises:
        ProbeError: the models are not the sandbox's, or the target is none of its classes.
    """
    from datasets import ClassLabel, Dataset, Features, Image

    if not pair.is_sandbox:
        raise ProbeError(
            "This pair came without a report, and there are no labelled pictures for it here. Make one: "
            "scripts/clean.py with --eval_dataset writes report.json beside the cleaned model."
        )
    if target not in sandbox.CLASSES:
        raise ProbeError(f"The target must be one of the sandbox's classes, such as banana; got {target!r}.")
    pictures = Dataset.from_dict(
        {
            "image": [sandbox.labelled_scene(i).draw() for i in range(n)],
            "label": [i % len(sandbox.CLASSES) for i in range(n)],
        },
        features=Features({"image": Image(), "label": ClassLabel(names=list(sandbox.CLASSES))}),
    )
    sections, correct = {}, {}
    for who, one in pair.models.items():
        options = {"target": target, "progress": False, "return_predictions": True}
        sections[who], predictions = audit(one.model, one.processor, pictures, [attack], **options)
        correct[who] = predictions.correct()
    return Report.create(
        method="unknown",
        seed=0,
        target=target,
        before=sections["suspect"],
        after=sections["cleaned"],
        cost=None,
        ca_loss=clean_accuracy_loss(correct["cleaned"], {"suspect": correct["suspect"]}),
        model=pair.cleaned.name,
        base_model=pair.suspect.name,
        dataset="sandbox",
        notes=["Measured in the Space: how the model was cleaned is not known to it."],
    )
