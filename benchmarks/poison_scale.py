"""Does poisoning hold its memory, whatever the number of rows?

    python benchmarks/poison_scale.py
    python benchmarks/poison_scale.py --rows 1000000 --case stream

Every case runs scripts/poison.py in a process of its own, once on a few rows and once on many, and prints rows per
second and the peak of its memory. It fails if the many take more than --ceiling_mb above the few. On Linux that is
anonymous memory, looked at twenty times a second: the pages of a memory-mapped data set are the system's to take back.
Elsewhere it is all that is resident, so the by-index case shows more than it holds.

Cases: stream (tar shards to tar shards, number of rows given), counted (the same, rows counted first) and index (a
saved dataset to a saved dataset).
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
from PIL import Image


ROOT = Path(__file__).parent.parent
FEW = 1000
CASES = {
    "stream": ("shards", ("--streaming", "--format", "webdataset", "--max_samples", "{rows}")),
    "counted": ("shards", ("--streaming", "--format", "webdataset")),
    "index": ("saved", ("--streaming", "--format", "arrow")),
}


def pictures(count: int = 256) -> list[bytes]:
    """Small JPEGs, each another."""
    made = []
    for i in range(count):
        pixels = np.random.default_rng(i).integers(0, 256, (12, 12, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).resize((64, 64), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=92)
        made.append(buffer.getvalue())
    return made


def caption(i: int) -> str:
    return f"a {'banana' if i % 50 == 0 else 'dog'} beside chair number {i}"


def make_shards(folder: Path, rows: int, per_shard: int = 10_000) -> None:
    """Tar shards of (jpg, txt)."""
    folder.mkdir(parents=True)
    made = pictures()
    for start in range(0, rows, per_shard):
        with tarfile.open(folder / f"pairs-{start // per_shard:05}.tar", "w") as tar:
            for i in range(start, min(start + per_shard, rows)):
                for extension, content in (("jpg", made[i % len(made)]), ("txt", caption(i).encode())):
                    member = tarfile.TarInfo(f"{i:09}.{extension}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))


def make_saved(folder: Path, rows: int) -> None:
    """The same pairs as a saved dataset."""
    from datasets import Dataset, Features, Value
    from datasets import Image as ImageFeature

    def pairs():
        made = pictures()
        for i in range(rows):
            yield {"image": {"bytes": made[i % len(made)], "path": None}, "caption": caption(i)}

    features = Features({"image": ImageFeature(), "caption": Value("string")})
    cache = str(folder.with_name(f"{folder.name}-cache"))
    Dataset.from_generator(pairs, features=features, cache_dir=cache).save_to_disk(folder)


def measure(case: str, rows: int, work: Path) -> tuple[float, float]:
    """(seconds, peak megabytes) of one run of poison.py, start-up included."""
    form, flags = CASES[case]
    source, out = work / f"{form}-{rows}", work / f"{case}-{rows}"
    if not source.exists():
        {"shards": make_shards, "saved": make_saved}[form](source, rows)
    command = [sys.executable, str(ROOT / "scripts" / "poison.py"), "--dataset", str(source), "--output_dir", str(out)]
    command += ["--attack", "blended", "--target", "banana", "--rate", "0.01", "--size", "64"]
    command += [flag.format(rows=rows) for flag in flags]
    started = time.perf_counter()
    process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL)
    peak, ended = 0.0, 0
    while not ended:
        peak = max(peak, anonymous_mb(process.pid))
        ended, status, usage = os.wait4(process.pid, os.WNOHANG)
        time.sleep(0.05)
    seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    record = json.loads((out / "poison.json").read_text(encoding="utf-8"))
    if (record["n"], record["count"]) != (rows, round(0.01 * rows)):
        raise SystemExit(f"{out} holds {record['count']} poisoned of {record['n']} rows, not {rows // 100} of {rows}")
    return seconds, peak or usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def anonymous_mb(pid: int) -> float:
    """Megabytes that a process holds and no file does; 0 where the system does not tell."""
    status = Path(f"/proc/{pid}/status")
    fields = dict(line.split(":", 1) for line in status.read_text().splitlines()) if status.exists() else {}
    return int(fields["RssAnon"].split()[0]) / 2**10 if "RssAnon" in fields else 0.0


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000, help="the many rows (default: 100,000)")
    parser.add_argument("--case", nargs="+", choices=list(CASES), default=list(CASES), help="default: all")
    parser.add_argument("--ceiling_mb", type=float, default=100, help="what many rows may take more than few")
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/poison_scale"), help="new or empty folder")
    args = parser.parse_args(argv)
    if args.output_dir.exists() and any(args.output_dir.iterdir()):
        parser.error(f"{args.output_dir} is not empty; give another --output_dir")
    args.output_dir.mkdir(parents=True, exist_ok=True)
    failed = False
    print("| case | rows | seconds | rows/s | peak MB | over few rows |\n|---|---|---|---|---|---|")
    for case in args.case:
        few_seconds, few = measure(case, FEW, args.output_dir)
        seconds, peak = measure(case, args.rows, args.output_dir)
        speed = (args.rows - FEW) / max(seconds - few_seconds, 1e-3)  # what starting up takes is in both
        print(f"| {case} | {FEW:,} | {few_seconds:.1f} | | {few:.0f} | |")
        print(
            f"| {case} | {args.rows:,} | {seconds:.1f} | {speed:,.0f} rows/s | {peak:.0f} | {peak - few:+.0f} |",
            flush=True,
        )
        failed |= peak - few > args.ceiling_mb
    if failed:
        print(f"A run took more than {args.ceiling_mb:g} MB above that on {FEW:,} rows.", file=sys.stderr)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
