"""The result of an audit or a cleaning: `Report`, its file format, and how it is written for people.

`content` holds the figures, `verdict` judges an attack by them, `schema` checks report.json. `markdown` writes
report.md, `html` report.html (by template.html) and `plot` report.png; they share `numbers`, `sentences`, `tables`.
`document` is the `Report` that joins these, `trackers` its names in a training log. See docs/report.md.
"""

from __future__ import annotations

from .content import package_versions
from .document import FILES, Report
from .numbers import percent, with_interval
from .schema import SCHEMA_PATH, SCHEMA_VERSION, validate
from .sentences import SCAN_NOTE, TARGET_NOTE, largest_loss, scanned, utility_lost
from .tables import table, target_rows
from .trackers import curves, figures
from .verdict import CLOSE, Verdict


__all__ = [
    "CLOSE",
    "FILES",
    "SCAN_NOTE",
    "SCHEMA_PATH",
    "SCHEMA_VERSION",
    "TARGET_NOTE",
    "Report",
    "Verdict",
    "curves",
    "figures",
    "largest_loss",
    "package_versions",
    "percent",
    "scanned",
    "table",
    "target_rows",
    "utility_lost",
    "validate",
    "with_interval",
]
