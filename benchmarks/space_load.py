"""How the Space holds up: so many people at once, each with a picture of their own, asking again and again.

    python spaces_demo/app.py &            # or make space
    python benchmarks/space_load.py --url http://127.0.0.1:7860 --people 20 --asks 5 --pid PID

Prints answers a second, how long they took and, with --pid on Linux, the server's memory before, at most and after.
"""

from __future__ import annotations

import argparse
import re
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from gradio_client import Client, handle_file
from PIL import Image


def rss_mb(pid: int) -> float:
    return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:7860")
    parser.add_argument("--people", type=int, default=20)
    parser.add_argument("--asks", type=int, default=5, help="questions of each, one after the other (default: 5)")
    parser.add_argument(
        "--side", type=int, default=2000, help="side of the uploaded pictures in pixels (default: 2000)"
    )
    parser.add_argument("--pid", type=int, help="process of the server, to watch its memory")
    args = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        paths = [str(picture(Path(folder), i, args.side)) for i in range(args.people)]
        people = [Client(args.url, verbose=False, httpx_kwargs={"timeout": 120}) for _ in paths]
        people[0].predict(handle_file(paths[0]), api_name="/probe")  # the first question computes the text sides
        before, memory, over = args.pid and rss_mb(args.pid), [], threading.Event()

        def watch() -> None:
            while args.pid and not over.wait(0.1):
                memory.append(rss_mb(args.pid))

        def visit(i: int) -> list[float]:
            seconds = []
            for _ in range(args.asks):
                started = time.perf_counter()
                people[i].predict(handle_file(paths[i]), api_name="/probe")
                seconds.append(time.perf_counter() - started)
            return seconds

        watcher = threading.Thread(target=watch)
        watcher.start()
        started = time.perf_counter()
        with ThreadPoolExecutor(args.people) as pool:
            seconds = np.array([s for one in pool.map(visit, range(args.people)) for s in one])
        total = time.perf_counter() - started
        over.set()
        watcher.join()
    print(f"{args.people} people, {len(seconds)} answers in {total:.1f} s: {len(seconds) / total:.1f} a second")
    print("seconds an answer: " + ", ".join(f"{p}% {np.percentile(seconds, p):.2f}" for p in (50, 95, 100)))
    if args.pid:
        print(f"memory of the server: {before:.0f} MB before, {max(memory):.0f} at most, {rss_mb(args.pid):.0f} after")


def picture(folder: Path, seed: int, side: int) -> Path:
    tiles = np.random.default_rng(seed).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    Image.fromarray(tiles).resize((side, side), Image.Resampling.NEAREST).save(folder / f"{seed}.png")
    return folder / f"{seed}.png"


if __name__ == "__main__":
    main()
