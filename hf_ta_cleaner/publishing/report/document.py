"""`Report`: the content of a report, and how it is saved, loaded and written for people.

The file format is described in docs/report.md and checked by schema.json. Standard library only; `validate`
needs jsonschema, `plot` matplotlib and `to_html` jinja2, all imported when called.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from importlib import util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .content import ReportContent
from .markdown import markdown
from .schema import validate
from .sentences import summary


if TYPE_CHECKING:
    from typing_extensions import Self

FILES = ("report.json", "report.md", "report.html", "report.png")


class Report(ReportContent):
    """The result of an audit or a cleaning, see `ReportContent` for the fields.

    It is saved as report.json, and written for people as text, as a page and as a picture.
    """

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
    def load(cls, path: str | Path) -> Self:
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

    def summary(self) -> str:
        """The report in a few lines, for a console."""
        return summary(self)

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
                examples; without them the page shows only the named classes. Needs Pillow.
        """
        from .html import render

        return render(self, pictures)


def _as_json(content: Any) -> str:
    """Indented, with a list of numbers on one line."""
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    return re.sub(r"\[\n\s+([-+.,e\d\s]+?)\n\s+\]", lambda match: f"[{' '.join(match[1].split())}]", text)
