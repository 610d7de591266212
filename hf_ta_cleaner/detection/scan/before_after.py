"""The same scan of a model before it is cleaned and after, for its report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from hf_ta_cleaner.detection.scan.engine import scan
from hf_ta_cleaner.detection.scan.pictures import draw_pictures
from hf_ta_cleaner.detection.scan.result import FILES, ScanResult
from hf_ta_cleaner.models.zero_shot import input_geometry, input_size


#: As many pictures as `ta-cleaner scan` takes.
PICTURES = 128
#: The fields of the best patch that a report keeps.
PATCH = ("label", "rate", "interval95", "n", "side_px", "place")


class ScanBothTimes:
    """`search("before", model, processor, name)`, then `"after"`: equal pictures, labels, draws and reference.

    Each scan is written to a folder of its own, `scan-before` and `scan-after`, and replaces the scan
    of an interrupted run.

    Attributes:
        entries: "before" and "after" -> `{"verdict", "target", "evidence", "best_patch", "seconds"}`, `Report.scan`.

    Args:
        pictures: Rows with the column `image`; some are drawn by `seed`.
        labels: The classes that the pictures may show.
        folder: Where the scans' own folders go.
        reference_name: How the reference is called in the results.
        geometry: Of the pictures; by default as the model's processor makes them.
        how: `reference`, `templates`, `seed` and `progress` of `scan`.
    """

    def __init__(
        self,
        pictures: Any,
        labels: list[str],
        folder: str | Path,
        *,
        reference_name: str | None = None,
        geometry: str | None = None,
        **how: Any,
    ) -> None:
        self.rows, self.labels, self.folder, self.geometry, self.how = pictures, labels, Path(folder), geometry, how
        self.reference_name = reference_name
        self.entries: dict[str, dict[str, Any]] = {}
        self._pictures: np.ndarray | None = None

    @classmethod
    def of(cls, proof: Any, folder: str | Path, *, reference_name: str | None = None) -> ScanBothTimes:
        """With the labelled pictures, the reference, the prompts, the geometry and the seed of a `FullAudit`."""
        return cls(
            proof.pictures,
            proof.pictures.features["label"].names,
            folder,
            reference_name=reference_name,
            geometry=proof.geometry,
            reference=proof.reference,
            templates=proof.templates,
            seed=proof.seed,
            progress=proof.progress,
        )

    def __call__(self, when: str, model: Any, processor: Any, name: str) -> ScanResult:
        """Scan a model, write the scan, and note it for the report.

        Args:
            when: "before" or "after".
            name: How the model is called in the result.

        Raises:
            ValueError: As `scan`.
        """
        if self._pictures is None:
            geometry = self.geometry or input_geometry(processor)
            self._pictures = draw_pictures(
                self.rows, input_size(processor), PICTURES, geometry=geometry, seed=self.how.get("seed", 0)
            )
        result = scan(model, processor, self._pictures, self.labels, names=(name, self.reference_name), **self.how)
        folder = self.folder / f"scan-{when}"
        for file in FILES:
            (folder / file).unlink(missing_ok=True)
        result.save(folder)
        decisive_first = sorted(result.findings, key=lambda finding: finding["weight"] != result.verdict)
        self.entries[when] = {
            "verdict": result.verdict,
            "target": result.target,
            "evidence": [finding["sentence"] for finding in decisive_first],
            "best_patch": {key: result.best_patch[key] for key in PATCH},
            "seconds": result.seconds,
        }
        return result
