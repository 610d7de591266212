"""What a report holds: the figures, their dict form for report.json, and the verdicts. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields
from datetime import datetime, timezone
from importlib import metadata
from typing import TYPE_CHECKING, Any

from .schema import SCHEMA_VERSION, validate
from .verdict import Verdict, verdict


if TYPE_CHECKING:
    from typing_extensions import Self

_PACKAGES = ("hf_ta_cleaner", "torch", "transformers", "datasets", "evaluate", "peft", "accelerate")


@dataclass
class ReportContent:
    """The attacks before and after a cleaning, and what the cleaning costs.

    Rates are fractions in [0, 1]. `before` and `after` are sections as `audit.audit` returns them.

    Attributes:
        method: name of the cleaning method, or "audit" where nothing was cleaned.
        seed: seed of the cleaning.
        target: class name of the attacker's target; None where the attacks differ (each then names its own).
        before: the suspect model.
        after: the cleaned model; None for a plain audit.
        cost: `{"pairs_seen", "seconds", "device"}` and other facts; None for a plain audit.
        ca_loss: `{"value", "interval95", "baseline", "definition"}` of the clean accuracy lost, and
            `"against_suspect"` where the baseline is another model.
        retrieval: recall@1 on held-out pairs, `{"pairs", "before", "after"}`; without labelled images it
            stands alone, and the sections hold no clean accuracy and no attacks.
        scan: the scans without a known trigger, "before" and "after" -> `{"verdict", "target", "evidence",
            "best_patch", "seconds"}`, see `scan.ScanBothTimes`.
        model, base_model, dataset: where the figures come from.
        settings: what the cleaning was run with: rate, epochs, precision, data, whether WordNet was there.
        history: training curves, name -> `{"step": [...], "value": [...]}`, see `curves`.
        examples: by attack, pictures drawn at random and the classes that the models name, see
            `examples.draw_examples`.
        versions: package -> version.
        created: time in ISO 8601, UTC.
        notes: what a reader should know beside the numbers.
    """

    method: str
    seed: int
    target: str | None
    before: dict[str, Any]
    after: dict[str, Any] | None = None
    cost: dict[str, Any] | None = None
    ca_loss: dict[str, Any] | None = None
    retrieval: dict[str, Any] | None = None
    scan: dict[str, dict[str, Any]] | None = None
    model: str | None = None
    base_model: str | None = None
    dataset: str | None = None
    settings: dict[str, Any] | None = None
    history: dict[str, dict[str, list]] | None = None
    examples: dict[str, list[dict[str, Any]]] | None = None
    versions: dict[str, str] | None = None
    created: str | None = None
    notes: list[str] = field(default_factory=list)

    @classmethod
    def create(cls, **values: Any) -> Self:
        """A report that also says when and with which versions of the packages it was made."""
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        return cls(**{"created": now, "versions": package_versions(), **values})

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """A report from the contents of a report.json; a ValueError says what is wrong with them."""
        validate(content)
        return cls(**{name: value for name, value in content.items() if name != "schema"})

    def to_dict(self) -> dict[str, Any]:
        """The contents of report.json; optional parts that are absent are left out."""
        content = {"schema": SCHEMA_VERSION} | {f.name: getattr(self, f.name) for f in fields(self)}
        always = ("schema", "method", "seed", "target", "before", "after", "cost")
        return {name: value for name, value in content.items() if name in always or value not in (None, [], {})}

    def sections(self) -> dict[str, dict[str, Any]]:
        """The sections that exist: before, and after where something was cleaned."""
        return {"before": self.before} if self.after is None else {"before": self.before, "after": self.after}

    def judge(self) -> dict[str, Verdict]:
        """The verdict on each attack, by its name."""
        after = self.after["attacks"] if self.after else {}
        return {name: verdict(entry, after.get(name)) for name, entry in self.before["attacks"].items()}

    def verdicts(self) -> dict[str, str]:
        """The verdict on each attack as one sentence; docs/report.md has the rules."""
        return {name: judged.sentence() for name, judged in self.judge().items()}


def package_versions() -> dict[str, str]:
    """Versions of the packages that shape the figures, as far as they are installed."""
    versions = {}
    for name in _PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions
