"""Tables of picture paths: csv with any usual separator, tsv, jsonl, a JSON list; with or without a header line."""

from __future__ import annotations

import csv
import json
import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import datasets

from .cache import Cache, path_dataset
from .columns import Columns, DataError, check_no_addresses, find_columns, is_address, matching_columns
from .place import IMAGE_SUFFIXES, Place, Splits, by_split, find_pictures


logger = logging.getLogger(__name__)

SUFFIXES = (".csv", ".tsv", ".jsonl", ".json")
SEPARATORS = {"\t": "tabs", ",": "commas", ";": "semicolons", "|": "vertical bars"}
#: Rows that a table's separator and header are judged by.
SNIFFED = 20


@dataclass
class Table:
    """The cells of a file; `how` says what was taken for its separator and header."""

    names: list[str]
    rows: list[list[Any]]
    how: str


def claims(place: Place) -> list[Path]:
    """The file itself; in a folder, all called metadata, or else the only table beside pictures.

    Raises:
        DataError: A folder of pictures has several tables, none of them called metadata.
    """
    if place.path.is_file():
        return [f for f in place.files if f.suffix.lower() in (*SUFFIXES, ".txt") and _is_table(f)]
    tables = place.with_suffix(*SUFFIXES)
    if metadata := [file for file in tables if file.stem == "metadata" and _is_table(file)]:
        return metadata
    if not place.images or "caption" not in place.columns:
        return []
    tables = [file for file in tables if _is_table(file)]
    if len(tables) > 1:
        listed = ", ".join(str(file.relative_to(place.root)) for file in tables[:5])
        raise DataError(
            f"'{place.path}' holds {len(place.images)} pictures and {len(tables)} tables ({listed}). "
            "Wanted one table. Give its file with --dataset, or call it metadata.csv."
        )
    return tables


def open_splits(place: Place, files: list[Path]) -> Splits:
    """{split: how to open it}; a file's split is named in its path."""
    groups = by_split(place.root, files)
    return {split: partial(_open, part, place.columns, place.cache_dir) for split, part in groups.items()}


def grouped(values: dict[str, list], image: str, caption: str) -> dict[str, list]:
    """One row for each picture. Where a picture has several captions, the column of captions holds lists."""
    captions: dict[Any, list[str]] = {}
    for row, (path, cell) in enumerate(zip(values[image], values[caption], strict=True)):
        own = cell if isinstance(cell, list) else [cell]
        # Rows without a picture stay apart: each is counted as unreadable.
        captions.setdefault(path if path is not None else row, []).extend(own)
    if len(captions) < len(values[image]):
        logger.info("%d rows are %d pictures, some with several captions", len(values[image]), len(captions))
    several = any(isinstance(cell, list) for cell in values[caption]) or len(captions) < len(values[image])
    images = [key if isinstance(key, str) else None for key in captions]
    return {image: images, caption: list(captions.values()) if several else [own[0] for own in captions.values()]}


def _is_table(file: Path) -> bool:
    """Whether a JSON file begins like a list. All other files may be tables."""
    if file.suffix.lower() != ".json":
        return True
    with file.open("rb") as opened:
        return opened.read(1024).removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"["


def _open(files: list[Path], columns: Columns, cache_dir: Cache) -> datasets.Dataset:
    """The picture column and the other one of tables. Paths are relative to the table."""
    values: dict[str, list] = {}
    for file in files:
        table = _read(file, columns)
        found = find_columns(str(file), table.names, columns)
        logger.info("%s: %s; %s", file, table.how, ", ".join(f"{role} from '{name}'" for role, name in found.items()))
        for role, name in found.items():
            column = table.names.index(name)
            cells = [row[column] if column < len(row) else None for row in table.rows]
            if role == "image":
                check_no_addresses(file, name, cells)
                if wrong := [cell for cell in cells if not isinstance(cell, (str, type(None)))]:
                    raise DataError(f"'{file}': column '{name}' holds {wrong[0]!r:.40}. Wanted paths of pictures.")
                cells = find_pictures(file.parent, cells)
            values.setdefault(name, []).extend(cells)
    if len({len(cells) for cells in values.values()}) > 1 or len(values) != len(columns):
        raise DataError(f"{', '.join(map(str, files))} name their columns differently. Give all the same header.")
    if "caption" in found:
        values = grouped(values, found["image"], found["caption"])
    return path_dataset(files[0].parent, found["image"], values, cache_dir)


def _read(file: Path, columns: Columns) -> Table:
    kind = file.suffix.lower()[1:]
    try:
        with file.open(newline="", encoding="utf-8-sig") as lines:
            if kind == "json":
                table = _from_objects(json.load(lines), "a JSON list")
            elif kind == "jsonl":
                table = _from_objects([json.loads(line) for line in lines if line.strip()], "a JSON object a line")
            else:
                table = _read_lines(lines, kind, columns)
    except (ValueError, csv.Error) as error:
        raise DataError(f"'{file}' cannot be read: {error}. Wanted {kind} in UTF-8. Save it as that.") from error
    bad = next((i for i, row in enumerate(table.rows, 1) if len(row) > len(table.names)), None)
    if bad is not None:
        raise DataError(f"'{file}': row {bad} does not fit the others. Wanted as many cells as names; quote commas.")
    if not table.rows:
        raise DataError(f"'{file}' holds no rows. Wanted a row for each image, below a header if it is csv or tsv.")
    return table


def _from_objects(rows: list, how: str) -> Table:
    names = list(rows[0]) if rows and isinstance(rows[0], dict) else []
    bad = next((i for i, row in enumerate(rows, 1) if not isinstance(row, dict)), None)
    if bad is not None:
        raise ValueError(f"entry {bad} is {rows[bad - 1]!r:.40} and no JSON object")
    return Table(names, [[row.get(name) for name in names] for row in rows], how)


def _read_lines(lines: Iterable[str], kind: str, columns: Columns) -> Table:
    """A table of lines, its separator found by the first ones."""
    text = list(lines)
    separator, header = _sniff(text, kind, columns)
    rows = _cells(text, separator)
    # Where nothing is quoted, a caption that begins with a quotation mark would swallow the lines below it.
    if separator in "\t|" and any("\n" in cell or separator in cell for row in rows for cell in row):
        unquoted = _cells(text, separator, quoting=csv.QUOTE_NONE)
        if len({len(row) for row in unquoted}) == 1:
            rows = unquoted
    how = f"a table with {SEPARATORS[separator]} between its cells"
    if header:
        return Table([name.strip() for name in rows[0]] if rows else [], rows[1:], how)
    names = _names_without_header(rows, columns)
    return Table(names, rows, f"{how} and without a header line")


def _sniff(text: list[str], kind: str, columns: Columns) -> tuple[str, bool]:
    """The separator, and whether the first line is a header.

    A header names the wanted columns, and only the right separator takes their names apart. A table without one has a
    picture's path in its first line.
    """
    samples = {separator: list(islice(_cells(text[: 2 * SNIFFED], separator), SNIFFED)) for separator in SEPARATORS}
    for separator, rows in samples.items():
        if rows and all(_has_column(role, given, rows[0]) for role, given in columns.items()):
            return separator, True
    headless = [s for s, rows in samples.items() if rows and len(rows[0]) > 1 and any(map(_is_picture, rows[0]))]
    if headless:
        # A comma in a caption parts some lines, the separator all of them.
        return min(headless, key=lambda s: len({len(row) for row in samples[s]})), False
    usual = {"tsv": "\t", "csv": ","}.get(kind, "\t")
    widest = max(samples, key=lambda separator: len(samples[separator][0]) if samples[separator] else 0)
    return (usual if not samples[usual] or len(samples[usual][0]) > 1 else widest), True


def _has_column(role: str, given: str | None, header: list[str]) -> bool:
    names = [name.strip() for name in header]
    return given in names if given is not None else bool(matching_columns(role, names))


def _is_picture(cell: str) -> bool:
    return is_address(cell) or os.path.splitext(cell.strip())[1].lower() in IMAGE_SUFFIXES


def _cells(text: list[str], separator: str, **options: Any) -> list[list[str]]:
    """The rows that are not blank, cells without the spaces around them."""
    rows = csv.reader(text, delimiter=separator, **options)
    return [[cell.strip() for cell in row] for row in rows if row]


def _names_without_header(rows: list[list[str]], columns: Columns) -> list[str]:
    """Names for the columns of a table without a header: "1", "2", ..., unless their roles are clear.

    The only column of pictures is called `image`, and of two columns the other one by the other role.
    """
    width = max(map(len, rows), default=0)
    names = [str(i + 1) for i in range(width)]
    pictures = [i for i in range(width) if all(_is_picture(row[i]) for row in rows[:SNIFFED] if i < len(row))]
    if len(pictures) == 1 and columns["image"] is None:
        names[pictures[0]] = "image"
        other = next((role for role, given in columns.items() if role != "image" and given is None), None)
        if width == 2 and other:
            names[1 - pictures[0]] = other
    return names
