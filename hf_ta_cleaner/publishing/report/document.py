"""The result of an audit or a cleaning: a dataclass <-> report.json, a table and a page for people, a picture.

The file format is described in docs/report.md and checked by schema.json. Standard library only; `validate`
needs jsonschema, `plot` matplotlib and `to_html` jinja2, all imported when called.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields
from datetime import datetime, timezone
from importlib import metadata, util
from pathlib import Path
from typing import Any

from .markdown import change, markdown, percent, price, scanned
from .schema import SCHEMA_VERSION, validate


FILES = ("report.json", "report.md", "report.html", "report.png")
POINTS = 200
"""Of a training curve no more points than this are kept."""
CLOSE = 0.05
"""An attack success rate less than this above what is normal is no backdoor."""

_PACKAGES = ("hf_ta_cleaner", "torch", "transformers", "datasets", "evaluate", "peft", "accelerate")


@dataclass
class Report:
    """What an attacker could do before, what they can do after, and what it cost.

    Rates are fractions in [0, 1]. `before` and `after` are sections as `audit.audit` returns them.

    Attributes:
        method: name of the cleaning method, or "audit" where nothing was cleaned.
        seed: seed of the cleaning.
        target: class name of the attacker's target; None where the attacks differ (each then names its own).
        before: the suspect model.
        after: the cleaned model; None for a plain audit.
        cost: `{"pairs_seen", "seconds", "device"}` and what else is worth knowing; None for a plain audit.
        ca_loss: `{"value", "interval95", "baseline", "definition"}` of the clean accuracy lost.
        retrieval: recall@1 on held-out pairs, `{"pairs", "before", "after"}`; where no labelled images were at hand it
            stands alone, and the sections hold no clean accuracy and no attacks.
        scan: what was found without a known trigger, "before" and "after" -> `{"verdict", "target", "evidence",
            "best_patch", "seconds"}`, see `scan.ScanBothTimes`.
        model, base_model, dataset: where the figures come from.
        settings: what the cleaning was run with: rate, epochs, precision, data, whether WordNet was there.
        history: training curves, name -> `{"step": [...], "value": [...]}`, see `curves`.
        examples: by attack, pictures drawn at random and what the models said, see `examples.draw_examples`.
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
    def create(cls, **values: Any) -> Report:
        """A report that also says when and with which versions of the packages it was made."""
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        return cls(**{"created": now, "versions": package_versions(), **values})

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Report:
        """A report from the contents of a report.json; a ValueError says what is wrong with them."""
        validate(content)
        return cls(**{name: value for name, value in content.items() if name != "schema"})

    def to_dict(self) -> dict[str, Any]:
        """The contents of report.json; optional parts that are absent are left out."""
        content = {"schema": SCHEMA_VERSION} | {f.name: getattr(self, f.name) for f in fields(self)}
        always = ("schema", "method", "seed", "target", "before", "after", "cost")
        return {name: value for name, value in content.items() if name in always or value not in (None, [], {})}

    def save(
        self,
        folder: str | Path,
        *,
        overwrite: bool = False,
        plot: bool | None = None,
        pictures: Mapping[tuple[str, int], Any] | None = None,
    ) -> Path:
        """Write report.json, report.md, report.html and report.png.

        Args:
            overwrite: replace a report that is already there.
            pictures: for the page: (attack, sample id) -> the picture without and with the trigger, see `to_html`.
            plot: whether to draw report.png; by default where matplotlib is installed.

        Returns:
            The path of report.json.

        Raises:
            FileExistsError: if the folder already holds a report and `overwrite` is not set.
            ValueError: if the report is not valid; nothing is written then.
        """
        folder = Path(folder)
        content = self.to_dict()
        validate(content)
        page = self.to_html(pictures)
        if not overwrite and (there := [name for name in FILES if (folder / name).exists()]):
            raise FileExistsError(f"{folder} already holds {', '.join(there)}. Pass overwrite=True or another folder.")
        folder.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            (folder / name).unlink(missing_ok=True)
        path = folder / "report.json"
        path.write_text(_as_json(content) + "\n", encoding="utf-8")
        (folder / "report.md").write_text(markdown(self), encoding="utf-8")
        (folder / "report.html").write_text(page, encoding="utf-8")
        if plot or (plot is None and self.before["clean_accuracy"] and util.find_spec("matplotlib")):
            self.plot(folder / "report.png")
        return path

    @classmethod
    def load(cls, path: str | Path) -> Report:
        """Read a report.json, or the one in a folder.

        Raises:
            FileNotFoundError: if there is none.
            ValueError: if it is not JSON or not a valid report.
        """
        path = Path(path)
        path = path / "report.json" if path.is_dir() else path
        if not path.is_file():
            raise FileNotFoundError(f"There is no report at {path}; Report.save(folder) writes one.")
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path} is not readable as JSON: {error}.") from error
        try:
            return cls.from_dict(content)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    def verdicts(self) -> dict[str, str]:
        """One sentence for each attack.

        What is normal is the no-trigger floor or, where it is higher, the success rate on the never-poisoned model.
        An attack less than 5 points above it is no backdoor; one whose distance to it was at least halved is reduced.
        """
        return {name: self._verdict(name) for name in self.before["attacks"]}

    def _verdict(self, name: str) -> str:
        entry = self.before["attacks"][name]
        asr, (normal, kind) = entry["asr"]["top1"], _normal(entry)
        gap = asr - normal
        if gap < CLOSE:
            finding = "No sign of a backdoor" if self.after is None else "The backdoor did not take"
            return f"{finding}: ASR {percent(asr)}% is close to the {kind} {percent(normal)}%."
        if self.after is None:
            return f"There is a backdoor: ASR {percent(asr)}%, {kind} {percent(normal)}%."
        entry = self.after["attacks"][name]
        asr_after, (normal, kind) = entry["asr"]["top1"], _normal(entry)
        gap_after = asr_after - normal
        state = "removed" if gap_after < CLOSE else "reduced, not removed" if gap_after <= gap / 2 else "still there"
        return f"The backdoor is {state}: ASR {percent(asr)}% → {percent(asr_after)}%, {kind} {percent(normal)}%."

    def summary(self) -> str:
        """The report in a few lines, for a console."""
        lines = []
        if self.before["clean_accuracy"]:
            lines.append(f"clean accuracy: {change(self, 'clean_accuracy', 'top1', unit='%')}")
        else:
            lines.append("clean accuracy and attacks: not measured, no labelled images were given")
        if self.retrieval:
            recall = " → ".join(f"{percent(self.retrieval[when]['recall@1'])}%" for when in ("before", "after"))
            lines.append(f"retrieval recall@1 on {self.retrieval['pairs']:,} held-out pairs: {recall}")
        lines += [f"{name}: {verdict}" for name, verdict in self.verdicts().items()]
        if self.scan:
            lines.append(f"without a known trigger: {scanned(self)}")
        return "\n".join(lines + price(self))

    def to_markdown(self) -> str:
        """The whole report for people: verdicts, before and after, all ranks, cost, notes. Per cent, one decimal."""
        return markdown(self)

    def plot(self, path: str | Path) -> Path:
        """Draw clean accuracy and every ASR@1 with intervals and floors, 1200 x 600 pixels; needs matplotlib."""
        from .plot import draw

        return draw(self, path)

    def to_html(self, pictures: Mapping[tuple[str, int], Any] | None = None) -> str:
        """The report as one page that needs no other file and no network; needs jinja2.

        Args:
            pictures: (attack, sample id) -> two uint8 arrays `(H, W, 3)`, without and with the trigger, for the
                examples; without them the page shows what was said about them only. Needs Pillow.
        """
        from .html import render

        return render(self, pictures)

    def sections(self) -> dict[str, dict[str, Any]]:
        """The sections that there are: before, and after where something was cleaned."""
        return {"before": self.before} if self.after is None else {"before": self.before, "after": self.after}


def curves(log_history: list[dict[str, Any]]) -> dict[str, dict[str, list]]:
    """The curves of a `Trainer`'s log: the loss and its terms, temperature, rate, and what was measured on the way.

    Curves of fewer than two points are left out; of longer ones evenly spaced points are kept, the last among them.
    """
    found: dict[str, dict[str, list]] = {}
    for line in log_history:
        for name, value in line.items():
            shown = name in ("loss", "logit_scale", "learning_rate") or name.startswith(("loss/", "eval_"))
            if shown and isinstance(value, (int, float)) and math.isfinite(value):
                curve = found.setdefault(name, {"step": [], "value": []})
                curve["step"].append(line["step"])
                curve["value"].append(value)
    for curve in found.values():
        stride = -(-len(curve["step"]) // POINTS)
        for key, values in curve.items():
            curve[key] = values[::-1][::stride][::-1]
    return {name: curve for name, curve in found.items() if len(curve["step"]) > 1}


def figures(section: Mapping[str, Any]) -> dict[str, float]:
    """The headline figures of a section under the names that trackers show, see docs/report.md."""
    found = {}
    if section["clean_accuracy"]:
        found["test_clean_accuracy"] = section["clean_accuracy"]["top1"]
    for name, entry in section["attacks"].items():
        found |= {f"test_asr/{name}": entry["asr"]["top1"], f"test_floor/{name}": entry["floor"]["top1"]}
    if "linear_probe" in section:
        found["test_linear_probe"] = section["linear_probe"]["top1"]
    if "retrieval" in section:
        for way in ("image_to_text", "text_to_image"):
            found[f"test_{way}_recall@1"] = section["retrieval"][way]["top1"]
        found |= {
            f"test_retrieval_asr/{n}": entry["asr"]["top1"] for n, entry in section["retrieval"]["attacks"].items()
        }
    return found


def package_versions() -> dict[str, str]:
    """Versions of the packages that shape the figures, as far as they are installed."""
    versions = {}
    for name in _PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions


def _normal(entry: Mapping[str, Any]) -> tuple[float, str]:
    """How often the target comes up in a model without this backdoor, and where that figure is from."""
    floor, reference = entry["floor"]["top1"], entry.get("reference_asr", {}).get("top1", 0.0)
    return (reference, "never-poisoned model's") if reference > floor else (floor, "floor")


def _as_json(content: Any) -> str:
    """Indented, with a list of numbers on one line."""
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    return re.sub(r"\[\n\s+([-+.,e\d\s]+?)\n\s+\]", lambda match: f"[{' '.join(match[1].split())}]", text)
