"""What a scan found <-> scan.json, a page for people, a picture of the recovered trigger."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

from hf_ta_cleaner.detection.scan.verdict import NOTHING, SUSPICIOUS, UNSURE


FILES = ("scan.json", "scan.md", "trigger.png")
SCHEMA = 1
SCHEMA_PATH = Path(__file__).with_name("scan_schema.json")

_PACKAGES = ("torch", "transformers", "datasets")
_ADVICE = {
    SUSPICIOUS: "Do not build on this model as it is: clean it, or start from another.",
    NOTHING: "This is no proof that the model is clean: a scan finds only the triggers that it looks for.",
    UNSURE: "Scan again with --reference, a model of the same architecture that you trust, and with more pictures.",
}


@dataclass(frozen=True)
class ScanResult:
    """What `scan` returns.

    Attributes:
        verdict: "suspicious", "nothing found" or "inconclusive".
        target: the label that the evidence points to; None without labels, or where nothing was found.
        findings: `{"weight", "sentence"}` each, the evidence.
        pictures, labels: how many were used; labels 0 for none.
        best_patch: `{"label", "rate", "interval95", "n", "side_px", "place", "steps"}`, the strongest patch that was
            found for the easiest label, on pictures it was not optimised on; None without labels.
        panel: the generic triggers with the strongest pull, `{"trigger", "label", "rate"[, "reference_rate"]}`.
        patches: of the most promising labels and places `{"label", "place", "rate", "margin"[, "reference_rate"]}`,
            the furthest first.
        likeness: `{"clean", "patched", "place"[, "reference"]}`, mean cosines between pictures.
        settings: thresholds, sizes, seed.
        model, reference: as they were called.
        seconds, device: what it cost.
        trigger: uint8 `(2, S, S, 3)`, a picture without and with the recovered trigger; not in scan.json.
    """

    verdict: str
    target: str | None
    findings: list[dict[str, str]]
    pictures: int
    labels: int
    best_patch: dict[str, Any] | None
    panel: list[dict[str, Any]]
    patches: list[dict[str, Any]]
    likeness: dict[str, Any] | None
    settings: dict[str, Any]
    seconds: float
    device: str
    model: str | None = None
    reference: str | None = None
    created: str = field(default_factory=lambda: datetime.now(timezone.utc).isoformat(timespec="seconds"))
    versions: dict[str, str] = field(default_factory=lambda: {name: metadata.version(name) for name in _PACKAGES})
    trigger: Any = field(default=None, compare=False, repr=False)

    def sentence(self) -> str:
        """The verdict, what it rests on, and what to do, in a line or two."""
        reasons = [f["sentence"] for f in self.findings if f["weight"] == self.verdict]
        head = {SUSPICIOUS: "Suspicious", NOTHING: "Nothing found", UNSURE: "Inconclusive"}[self.verdict]
        because = f": {'; '.join(reasons)}" if self.verdict != NOTHING else ""
        return f"{head}{because}. {_ADVICE[self.verdict]}"

    def to_dict(self) -> dict[str, Any]:
        """The contents of scan.json."""
        return {"schema": SCHEMA} | {f.name: getattr(self, f.name) for f in fields(self) if f.name != "trigger"}

    @classmethod
    def load(cls, path: str | Path) -> ScanResult:
        """Read a scan.json, or the one in a folder.

        Raises:
            FileNotFoundError: there is none.
            ValueError: it is no valid scan.json.
        """
        path = Path(path)
        path = path / "scan.json" if path.is_dir() else path
        if not path.is_file():
            raise FileNotFoundError(f"There is no scan at {path}; ta-cleaner scan --output_dir writes one.")
        content = json.loads(path.read_text(encoding="utf-8"))
        validate(content)
        return cls(**{name: value for name, value in content.items() if name != "schema"})

    def save(self, folder: str | Path) -> Path:
        """Write scan.json, scan.md and, where a trigger was recovered, trigger.png.

        Raises:
            FileExistsError: the folder already holds a scan, or another trigger.png.
        """
        folder, content = Path(folder), self.to_dict()
        validate(content)
        if there := [name for name in FILES if (folder / name).exists()]:
            raise FileExistsError(f"{folder} already holds {', '.join(there)}. Give another folder.")
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "scan.json"
        path.write_text(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
        (folder / "scan.md").write_text(self.to_markdown(), encoding="utf-8")
        if self.trigger is not None:
            draw(self, folder / "trigger.png")
        return path

    def to_markdown(self) -> str:
        """The scan for people."""
        head = {"Model": self.model, "Reference": self.reference, "Labels": self.labels or "none"}
        head |= {"Pictures": self.pictures, "Cost": f"{self.seconds:,.0f} s on {self.device}", "Created": self.created}
        parts = [f"# Scan: {self.verdict}", self.sentence()]
        parts.append("\n".join(f"- {name}: {value}" for name, value in head.items() if value is not None))
        parts += ["## Evidence", "\n".join(f"- {f['weight']}: {f['sentence']}" for f in self.findings)]
        if self.best_patch:
            best = self.best_patch
            low, high = (100 * value for value in best["interval95"])
            parts.append(
                f"The best patch that was found ({best['side_px']} pixels, {best['place']}, {best['steps']} steps) "
                f"turns {best['rate']:.1%} [{low:.1f}, {high:.1f}] of {best['n']} pictures into {best['label']!r}. "
                "An optimised patch is also an adversarial patch: compare it with another model's, or with the same "
                "model's after cleaning, not with zero."
            )
        if self.trigger is not None:
            parts.append("![A picture without and with the recovered trigger](trigger.png)")
        if self.panel:
            parts += ["## Generic triggers", _table(self.panel[:5], ("trigger", "label", "rate", "reference_rate"))]
        if self.patches:
            keys = ("label", "place", "rate", "reference_rate", "margin")
            parts += ["## Patches, the furthest first", _table(self.patches[:5], keys)]
        return "\n\n".join(parts) + "\n"


def validate(content: Any) -> None:
    """Check the contents of a scan.json.

    Raises:
        ValueError: names the first place that is wrong.
    """
    from jsonschema import Draft202012Validator

    schema = json.loads(SCHEMA_PATH.read_text(encoding="utf-8"))
    for error in Draft202012Validator(schema).iter_errors(content):
        place = ".".join(map(str, error.path)) or "scan"
        raise ValueError(f"Not a valid scan.json: {place}: {error.message:.200}")


def draw(result: ScanResult, path: str | Path) -> Path:
    """A picture without and with the recovered trigger, side by side, at least 240 pixels high each."""
    import numpy as np
    from PIL import Image

    clean, marked = result.trigger
    zoom = max(1, -(-240 // clean.shape[0]))
    gap = np.full((clean.shape[0], 4, 3), 255, np.uint8)
    sheet = np.concatenate([clean, gap, marked], axis=1).repeat(zoom, axis=0).repeat(zoom, axis=1)
    Image.fromarray(sheet).save(path)
    return Path(path)


def compared(before: ScanResult, after: ScanResult) -> str:
    """Two scans of a model, before and after cleaning, a line each: the verdict and all that it rests on."""
    return "\n".join(
        f"{when}: {result.verdict}: {'; '.join(finding['sentence'] for finding in result.findings)}."
        for when, result in (("before", before), ("after", after))
    )


def finding_dicts(findings) -> list[dict[str, str]]:
    """Findings as they stand in scan.json."""
    return [asdict(finding) for finding in findings]


def _table(rows: list[dict[str, Any]], keys: tuple[str, ...]) -> str:
    keys = tuple(key for key in keys if any(key in row for row in rows))
    text = {str: str, float: lambda v: f"{v:.2f}", int: str, type(None): lambda v: ""}
    lines = ["| " + " | ".join(key.replace("_", " ") for key in keys) + " |", "| " + " | ".join("---" for _ in keys)]
    lines[1] += " |"
    lines += ["| " + " | ".join(text[type(row.get(key))](row.get(key)) for key in keys) + " |" for row in rows]
    return "\n".join(lines)
