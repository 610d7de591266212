"""An audit with fixed data and triggers for several models: the suspect, the cleaned one, baselines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_ta_cleaner.evaluation.audit import Predictions, audit
from hf_ta_cleaner.evaluation.examples import draw_examples
from hf_ta_cleaner.evaluation.linear_probe import linear_probe
from hf_ta_cleaner.evaluation.retrieval_audit import audit_retrieval
from hf_ta_cleaner.models.zero_shot import TEMPLATES, Template


@dataclass(frozen=True)
class FullAudit:
    """The data, triggers and options that every model is audited with.

    Attributes:
        pictures: Labelled, with the columns `image` and `label`.
        attacks: Triggers by name; `target` is their class.
        reference: `(model, processor)` that was never poisoned, or None.
        captioned: Pictures with captions, for retrieval, or None.
        probe: Labelled pictures to train a linear probe on, or None.
        cache_dir: Where text heads are kept.
    """

    pictures: Any
    attacks: Mapping[str, Any]
    target: str | None = None
    templates: Sequence[Template] = TEMPLATES
    reference: tuple | None = None
    captioned: Any = None
    probe: Any = None
    geometry: str | None = None
    batch_size: int = 256
    seed: int = 0
    cache_dir: Path | None = None
    progress: bool = True

    def __call__(self, model, processor) -> tuple[dict, Predictions]:
        """The report's section and the predictions behind it. Every process calls this and gets the whole result."""
        section, predictions = self._classify(model, processor, self.attacks, self.reference)
        how = {"geometry": self.geometry, "batch_size": self.batch_size}
        if self.probe is not None:
            section["linear_probe"] = linear_probe(model, processor, self.probe, self.pictures, seed=self.seed, **how)
        if self.captioned is not None:
            section["retrieval"] = audit_retrieval(
                model, processor, self.captioned, self.attacks, target=self.target, reference=self.reference, **how
            )
        return section, predictions

    def accuracy(self, model, processor) -> Predictions:
        """The predictions on clean pictures alone, of a baseline for example."""
        return self._classify(model, processor, {}, None)[1]

    def examples(self, processor, before: Predictions, after: Predictions | None = None) -> tuple[dict, dict]:
        """What `Report.examples` and the `pictures` of `Report.save` take."""
        return draw_examples(
            self.pictures, self.attacks, processor, before, after, geometry=self.geometry, seed=self.seed
        )

    def _classify(self, model, processor, attacks: Mapping[str, Any], reference: tuple | None):
        return audit(
            model,
            processor,
            self.pictures,
            attacks,
            target=self.target,
            templates=self.templates,
            reference=reference,
            geometry=self.geometry,
            batch_size=self.batch_size,
            seed=self.seed,
            progress=self.progress,
            return_predictions=True,
            cache_dir=self.cache_dir,
        )
