"""The result of an audit or a cleaning: `Report`, its file format, and how it is written for people.

`document` holds the report itself, `schema` checks report.json, `markdown` writes report.md, `plot` draws report.png,
and `html` writes report.html by template.html. The format is described in docs/report.md.
"""

from __future__ import annotations

from .document import CLOSE, FILES, Report, curves, figures, package_versions
from .markdown import SCAN_NOTE, percent, scanned
from .schema import SCHEMA_PATH, SCHEMA_VERSION, validate


__all__ = [
    "CLOSE",
    "FILES",
    "SCAN_NOTE",
    "SCHEMA_PATH",
    "SCHEMA_VERSION",
    "Report",
    "curves",
    "figures",
    "package_versions",
    "percent",
    "scanned",
    "validate",
]
