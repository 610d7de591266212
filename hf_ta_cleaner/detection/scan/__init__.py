"""Is there a backdoor in this model? Asked without a trigger: generic triggers, inversion, a verdict with evidence.

result = scan(model, processor, pictures, labels)
print(result.sentence())
"""

from __future__ import annotations

from hf_ta_cleaner.detection.scan.before_after import ScanBothTimes
from hf_ta_cleaner.detection.scan.engine import MIN_LABELS, MIN_PICTURES, check_reference, scan
from hf_ta_cleaner.detection.scan.inversion import Patch, collapse, invert
from hf_ta_cleaner.detection.scan.panel import generic_triggers
from hf_ta_cleaner.detection.scan.pictures import draw_pictures, load_pictures
from hf_ta_cleaner.detection.scan.result import ScanResult, compared
from hf_ta_cleaner.detection.scan.verdict import EXIT_CODES, NOTHING, SUSPICIOUS, UNSURE, Thresholds


__all__ = [
    "EXIT_CODES",
    "MIN_LABELS",
    "MIN_PICTURES",
    "NOTHING",
    "SUSPICIOUS",
    "UNSURE",
    "Patch",
    "ScanBothTimes",
    "ScanResult",
    "Thresholds",
    "check_reference",
    "collapse",
    "compared",
    "draw_pictures",
    "generic_triggers",
    "invert",
    "load_pictures",
    "scan",
]
