"""Writes a poisoned data set of any size shard by shard, in constant memory, and resumes after an interruption.

A shard is written to a temporary file and renamed when it is complete, so the files show the progress. The hidden
folder `.unfinished` holds the state for a resume. It is deleted after the record is written.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm.auto import tqdm

from ..attacks import Attack
from ..attacks.pixels import require_choice
from .card import write_card
from .files import SHARD_FILES, close_arrow, fetched, open_shard
from .record import RECORD, PoisonRecord, write_json
from .row_map import PoisonMap
from .rows import Draw, Plan, make_plan
from .whole import (
    TRIED,
    Captions,
    check_columns,
    check_target,
    make_record,
    poison_rows,
    rows_of,
    stream_captions,
    try_on_stream,
    undecoded,
)


if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset

FORMATS = tuple(SHARD_FILES)
UNFINISHED = ".unfinished"
#: `max_unreadable` is a share of the poisoned rows, or of this number if there are fewer.
SOME = 20


def write_poisoned(
    dataset: Dataset | IterableDataset,
    attack: Attack,
    folder: str | Path,
    *,
    target: str,
    rate: float | None = None,
    count: int | None = None,
    seed: int,
    size: int,
    n: int | None = None,
    captions: str | Sequence[str] = "auto",
    geometry: str = "crop",
    image_column: str = "image",
    caption_column: str = "caption",
    output_format: str = "arrow",
    shard_rows: int = 10_000,
    num_proc: int | None = None,
    max_unreadable: float = 0.05,
    source: str | None = None,
    resume: bool = False,
) -> PoisonRecord:
    """Poison a data set or a stream, and write it to a folder with its trigger, record and dataset card.

    The function poisons the same rows as `poison`, and their number is exact. It first reads a stream once for the
    captions if `n` is not given, or if the attack depends on which captions name the target ("natural" and "own").
    Memory grows only with the number of poisoned rows, because their captions are recorded.

    Args:
        dataset: has an image column and a text column; only these two are written, as `image` and `caption`.
        folder: the output folder. It is new or empty, or, with `resume`, the folder of an interrupted call with the
            same arguments.
        n: number of rows to take from a stream; None takes and counts all rows.
        output_format: "arrow" is the format of `load_from_disk`, with a column `is_poisoned`; "webdataset" is shards
            of `<row>.jpg` (the picture's suffix), `<row>.txt`, and `<row>.json` with `row` and `is_poisoned`.
        shard_rows: rows in a shard; after an interruption at most one shard per process is written again.
        num_proc: number of processes that write shards in parallel; only for a `Dataset`.
        max_unreadable: largest share of the drawn rows whose pictures may be unreadable; other rows replace them.
        source: name of the data set in the dataset card.
        resume: continue an interrupted call. A finished data set does not change.
        attack, target, rate, count, seed, size, captions, geometry, image_column, caption_column: as for `poison`.

    Returns:
        The record that is written to the folder.

    Raises:
        FileExistsError: the folder holds files, and `resume` is not set or they are not from an interrupted call.
        ValueError: the interrupted call had other arguments or data; or as for `poison`.
    """
    from datasets import Dataset, IterableDataset

    if not isinstance(dataset, (Dataset, IterableDataset)):
        raise TypeError(f"Expected a datasets.Dataset or IterableDataset, got {type(dataset).__name__}.")
    require_choice("output_format", output_format, FORMATS)
    if shard_rows < 1:
        raise ValueError(f"shard_rows must be at least 1, got {shard_rows}.")
    streams = isinstance(dataset, IterableDataset)
    if streams and (num_proc or 1) > 1:
        raise ValueError(f"num_proc={num_proc} needs a data set with random access; only one process reads a stream.")
    folder = Path(folder)
    if check_folder(folder, resume):
        shutil.rmtree(folder / UNFINISHED, ignore_errors=True)
        asked = {"target": target, "seed": seed, "size": size, "geometry": geometry}
        if not streams:  # a stream may have fewer rows than requested
            asked |= {"n": len(dataset), "count": count if rate is None else round(rate * len(dataset))}
        return _finished(folder, attack, output_format, **asked)
    check_columns(dataset, image_column, caption_column)
    check_target(attack, target)
    raw = dataset if streams else dataset.with_format(None)
    raw = undecoded(raw.select_columns([image_column, caption_column]), image_column)
    names = {image_column: "image", caption_column: "caption"}
    raw = raw.rename_columns({old: new for old, new in names.items() if old != new})
    if not streams:
        Captions(raw, "caption").require_all()
        n = len(raw)
    asked = {
        "trigger": _identity(attack),
        "code": PoisonMap(attack, (), None, size).code,
        "target": target,
        "rate": rate,
        "count": count,
        "seed": seed,
        "size": size,
        "n": n,
        "captions": captions if isinstance(captions, str) else list(captions),
        "geometry": geometry,
        "format": output_format,
        "shard_rows": shard_rows,
        "data": _first_rows(raw),
    }
    start = _known_start(folder, asked)
    if start is None:
        caption_source = attack.caption_source if captions == "auto" else captions
        read = partial(stream_captions, raw, "caption", n) if streams else partial(Captions, raw, "caption")
        plan = make_plan(read, target, caption_source, n=n, rate=rate, count=count, seed=seed)
        tolerated = max_unreadable * max(len(plan.places), SOME)
        rows = () if streams else rows_of(plan, raw, target, "image", "caption", tolerated)
        row_map = PoisonMap(attack, rows, plan.pool, size, geometry, seed)
        tried = (
            try_on_stream(row_map, raw) if streams else row_map.trigger_rms((i, raw[i]["image"]) for i in rows[:TRIED])
        )
        start = _Start(plan, list(rows), tried)
        start.save(folder, asked)
    plan = start.plan
    row_map = PoisonMap(attack, start.rows, plan.pool, size, geometry, seed)
    attack.save(folder)
    job = _Job(raw, row_map, folder, output_format, shard_rows)
    if streams:
        tolerated = max_unreadable * max(len(plan.places), SOME)
        plan = job.write_stream(plan, Draw(plan.places, target, plan.own, tolerated=tolerated))
    else:
        job.write_by_index(plan.n, num_proc or 1)

    parts = [job.part(k) for k in range(job.shards())]
    poisoned = [tuple(row) for part in parts for row in part["poisoned"]]
    if not poisoned:
        raise ValueError(f"None of {plan.n} rows could be poisoned: {plan.reason}. Check the target and the captions.")
    record = make_record(attack, target, plan, row_map, start.trigger_rms, poisoned)
    shard_names = [job.shard_name(k) for k in range(job.shards())]
    if output_format == "arrow":
        close_arrow(folder, shard_names, attack, record)
    write_card(folder, attack, record, output_format, source)
    record.save(folder / RECORD)
    shutil.rmtree(folder / UNFINISHED)
    return record


def check_folder(folder: str | Path, resume: bool) -> bool:
    """Whether the folder holds a finished data set, which `resume` does not change.

    Raises:
        FileExistsError: the folder holds files that could be lost.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"{folder} is a file; give another output folder.")
    names = sorted(entry.name for entry in folder.iterdir()) if folder.exists() else []
    if (folder / UNFINISHED / "plan.json").is_file():
        if resume:
            return (folder / RECORD).is_file()
        raise FileExistsError(
            f"{folder} holds an unfinished poisoned data set ({', '.join(names[:8])}). Continue it with "
            "resume (--resume), or give another output folder."
        )
    if resume and (folder / RECORD).is_file():
        return True
    if names := [name for name in names if not name.startswith(".")]:
        raise FileExistsError(
            f"{folder} holds files: {', '.join(names[:8])}{', ...' if len(names) > 8 else ''}. The output "
            "folder must be new or empty; give another one."
        )
    return False


def _finished(folder: Path, attack: Attack, output_format: str, **asked: Any) -> PoisonRecord:
    """The record of a finished call. Raise a ValueError if its known settings differ from this call's."""
    record = PoisonRecord.load(folder / RECORD)
    is_it = Attack.load(folder) == attack and bool(list(folder.glob("*.tar"))) == (output_format == "webdataset")
    if not is_it or any(getattr(record, key) != value for key, value in asked.items()):
        raise ValueError(f"{folder} holds another poisoned data set: {record}. Give another output folder.")
    return record


@dataclass
class _Start:
    """The state that a resumed call reuses: the plan, the rows of a `Dataset`, and the trigger's RMS."""

    plan: Plan
    rows: list[int]
    trigger_rms: float

    def save(self, folder: Path, asked: dict[str, Any]) -> None:
        write_json(folder / UNFINISHED / "plan.json", {"asked": asked, **asdict(self)})


def _known_start(folder: Path, asked: dict[str, Any]) -> _Start | None:
    file = folder / UNFINISHED / "plan.json"
    if not file.is_file():
        return None
    known = json.loads(file.read_text(encoding="utf-8"))
    before, now = known["asked"], json.loads(json.dumps(asked))
    if changed := [key for key in now if now[key] != before.get(key)]:
        differences = "; ".join(f"{key} was {before.get(key)}, is {now[key]}" for key in changed)
        raise ValueError(
            f"{folder} was started with other settings ({differences}). Resume with those, or give another folder."
        )
    plan = known["plan"]
    pool = None if plan["pool"] is None else tuple(plan["pool"])
    return _Start(Plan(**{**plan, "places": tuple(plan["places"]), "pool": pool}), known["rows"], known["trigger_rms"])


def _identity(attack: Attack) -> dict[str, Any]:
    return {
        "name": attack.name,
        "seed": attack.seed,
        "parameters": attack.parameters(),
        "patterns": {name: pattern.sha256 for name, pattern in attack.patterns().items()},
    }


def _first_rows(raw: Dataset | IterableDataset) -> str:
    """A digest of the first rows. It is enough to detect a different data set."""
    digest = hashlib.blake2b(digest_size=8)
    for row in islice(raw, 4):
        image = row["image"] or {"bytes": None, "path": None}
        digest.update(repr((row["caption"], image["bytes"] or Path(image["path"] or "").name)).encode())
    return digest.hexdigest()


@dataclass(frozen=True)
class _Job:
    """Writes the shards of one data set, whose columns are `image` (not decoded) and `caption`."""

    raw: Dataset | IterableDataset
    row_map: PoisonMap
    folder: Path
    output_format: str
    shard_rows: int

    def shard_name(self, number: int) -> str:
        return SHARD_FILES[self.output_format].format(number)

    def part_file(self, number: int) -> Path:
        return self.folder / UNFINISHED / f"{number:05}.json"

    def part(self, number: int) -> dict[str, Any]:
        """A finished shard: its poisoned rows and, for a stream, where to continue."""
        return json.loads(self.part_file(number).read_text(encoding="utf-8"))

    def is_done(self, number: int) -> bool:
        return (self.folder / self.shard_name(number)).is_file() and self.part_file(number).is_file()

    def shards(self) -> int:
        """The number of finished shards, counted from the first."""
        number = 0
        while self.is_done(number):
            number += 1
        return number

    def write_by_index(self, n: int, processes: int) -> None:
        todo = [k for k in range(-(-n // self.shard_rows)) if not self.is_done(k)]
        with tqdm(total=n, initial=n - min(n, len(todo) * self.shard_rows), unit=" rows", disable=None) as bar:
            if processes == 1:
                for rows in map(self.write_range, todo):
                    bar.update(rows)
                return
            with ProcessPoolExecutor(
                min(processes, len(todo)) or 1, initializer=_start_worker, initargs=(self,)
            ) as pool:
                for rows in pool.map(_work, todo):
                    bar.update(rows)

    def write_range(self, number: int) -> int:
        """Write one shard of a `Dataset`; return its number of rows."""
        start = number * self.shard_rows
        rows = range(start, min(start + self.shard_rows, len(self.raw)))

        def poisoned() -> Iterator[tuple[int, dict, str | None]]:
            for index, row in zip(rows, self.raw.select(rows), strict=True):
                change = self.row_map.poisoned(row, index) if self.row_map.poisons(index) else None
                yield index, change or row, row["caption"] if change else None

        return self._write(number, poisoned(), lambda: None)

    def write_stream(self, plan: Plan, draw: Draw) -> Plan:
        """Write the missing shards of a stream; return the plan with the actual number of rows."""
        number = self.shards()
        while number and self.part(number - 1)["next"] is None:
            number -= 1
        start = number * self.shard_rows
        if number:
            after = self.part(number - 1)["next"]
            draw.seen, draw.owed, draw.unreadable = after["seen"], after["owed"], after["unreadable"]
            self.raw.load_state_dict(after["stream"])

        # The state at the start of each shard. It is dropped at the end of the stream, because the rows still held
        # there may yet be poisoned.
        ahead: dict[int, dict[str, Any]] = {}

        def remember(index: int | None) -> None:
            if index is None:
                ahead.clear()
            elif index > start and index % self.shard_rows == 0:
                progress = {"seen": draw.seen, "owed": draw.owed, "unreadable": draw.unreadable}
                ahead[index] = {**progress, "stream": self.raw.state_dict()}

        index = start
        bar = tqdm(
            poison_rows(self.raw, draw, self.row_map, start, plan.n, remember),
            total=plan.n,
            initial=start,
            unit=" rows",
            disable=None,
        )
        rows = ((i, change or row, row["caption"] if change else None) for i, row, change in bar)
        while first := next(rows, None):
            index = first[0] + self._write(
                number,
                chain([first], islice(rows, self.shard_rows - 1)),
                partial(ahead.pop, (number + 1) * self.shard_rows, None),
            )
            number += 1
        remarks = [f"the stream ended after {index} of {plan.n} rows"] if index < plan.n else []
        if draw.owed:
            remarks.append(f"{draw.owed} places could not be moved to another row")
        return replace(plan, n=index, reason="; ".join([plan.reason, *remarks]))

    def _write(self, number: int, rows: Iterable[tuple[int, dict, str | None]], after: Callable[[], Any]) -> int:
        """Write a shard of (index, row, old caption if poisoned) and the state `after()`; return its row count."""
        unfinished = self.folder / UNFINISHED / f"{self.shard_name(number)}.{os.getpid()}"
        poisoned, written = [], 0
        with open_shard(self.output_format, unfinished) as shard:
            for index, row, original in rows:
                if original is not None:
                    poisoned.append((index, original, row["caption"]))
                shard.write(index, fetched(row["image"]), row["caption"], original is not None)
                written += 1
        with unfinished.open("rb") as file:
            os.fsync(file.fileno())
        write_json(self.part_file(number), {"poisoned": poisoned, "next": after()})
        os.replace(unfinished, self.folder / self.shard_name(number))
        return written


_job: _Job


def _start_worker(job: _Job) -> None:
    """Store the job in the worker, and stop the worker when its parent process ends. A fork does not copy the job."""
    import multiprocessing
    import threading

    global _job
    _job = job

    def follow() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def _work(number: int) -> int:
    return _job.write_range(number)
