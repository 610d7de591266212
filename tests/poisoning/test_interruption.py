"""An interrupted poisoning loses and doubles nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from hf_ta_cleaner.attacks import BadNet, Blended
from hf_ta_cleaner.data.loading import load_pairs, stream_pairs
from hf_ta_cleaner.poisoning import (
    choose_rows,
    write_poisoned,
)
from tests.poisoning.helpers import ROOT, N, encoded, files_of, write_shards


RUN = """
import sys, time
from hf_ta_cleaner.attacks import Blended
from hf_ta_cleaner.data.loading import stream_pairs
from hf_ta_cleaner.poisoning import files, whole, write_poisoned

whole.HELD = 7

def slowly(write):
    def patched(*args):
        time.sleep(0.01)
        write(*args)
    return patched

for kind in (files.ArrowShard, files.TarShard):
    kind.write = slowly(kind.write)
pairs, n = stream_pairs(sys.argv[1])
write_poisoned(pairs, Blended(), sys.argv[2], target="banana", count=9, seed=2, size=32, n=n, shard_rows=5,
               output_format=sys.argv[3], num_proc=int(sys.argv[4]))
"""


@pytest.mark.parametrize(
    ("source", "output_format", "num_proc"),
    [("shards", "webdataset", 1), ("shards", "arrow", 1), ("saved", "arrow", 2)],
)
def test_kill_9_loses_and_doubles_nothing(source, output_format, num_proc, dataset, pictures, tmp_path, monkeypatch):
    monkeypatch.setattr("hf_ta_cleaner.poisoning.whole.HELD", 7)  # as in the process: else 60 rows are read at once
    write_shards(tmp_path / "shards", pictures)
    dataset.save_to_disk(tmp_path / "saved")
    whole, out = tmp_path / "whole", tmp_path / "out"
    shard = {"arrow": "data-{:05}.arrow", "webdataset": "train-{:05}.tar"}[output_format].format
    options = {"target": "banana", "count": 9, "seed": 2, "size": 32, "shard_rows": 5, "output_format": output_format}

    command = [sys.executable, "-c", RUN, str(tmp_path / source), str(out), output_format, str(num_proc)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 120
        while not all((out / shard(i)).exists() for i in range(4)):  # two workers finish in any order
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < deadline, "no shard was written"
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    time.sleep(0.1)  # for its workers to notice
    assert not (out / "poison.json").exists() and not (out / shard(11)).exists()
    done = {path.name: path.stat().st_mtime_ns for path in out.glob(shard(0).replace("00000", "*"))}

    pairs, n = stream_pairs(tmp_path / source)
    with pytest.raises(FileExistsError, match=r"unfinished .*--resume"):
        write_poisoned(pairs, Blended(), out, n=n, **options)
    with pytest.raises(ValueError, match=r"other settings \(count was 9, is 8\)"):
        write_poisoned(pairs, Blended(), out, n=n, resume=True, **{**options, "count": 8})
    with pytest.raises(ValueError, match="data was"):
        write_poisoned(pairs.skip(1), Blended(), out, n=n, resume=True, **options)
    record = write_poisoned(stream_pairs(tmp_path / source)[0], Blended(), out, n=n, resume=True, **options)

    expected = write_poisoned(stream_pairs(tmp_path / source)[0], Blended(), whole, n=n, **options)
    assert record == expected and record.count == 9
    assert encoded(load_pairs(out)) == encoded(load_pairs(whole))
    assert files_of(out).keys() == files_of(whole).keys()
    if output_format == "webdataset":
        assert files_of(out) == files_of(whole)
    # Of the finished shards at most the last was written again.
    kept = [name for name, written in done.items() if (out / name).stat().st_mtime_ns == written]
    assert len(kept) >= len(done) - 1 >= 3

    again = write_poisoned(stream_pairs(tmp_path / source)[0], Blended(), out, n=n, resume=True, **options)
    assert again == record
    with pytest.raises(FileExistsError, match=r"holds files: README\.md"):
        write_poisoned(pairs, Blended(), out, n=n, **options)
    with pytest.raises(ValueError, match="another poisoned data set"):
        write_poisoned(pairs, Blended(alpha=0.9), out, n=n, resume=True, **options)


def test_a_run_that_stops_at_the_very_end_goes_on(dataset, tmp_path, monkeypatch):
    """Where places are left over: they go back to rows of shards that may have been written when it stopped."""
    monkeypatch.setattr("hf_ta_cleaner.poisoning.whole.HELD", 25)
    captions = [*dataset["caption"][:54], *[f"a banana near door {i}" for i in range(6)]]
    dataset = dataset.remove_columns("caption").add_column("caption", captions)
    options = {"target": "banana", "count": 18, "seed": 2, "size": 32, "n": N, "shard_rows": 5}
    assert any(place >= 54 for place in choose_rows(N, count=18, seed=2))
    expected = write_poisoned(dataset, BadNet(), tmp_path / "whole", **options)
    assert expected.count == 18 and max(expected.rows) < 54
    with monkeypatch.context() as context:
        context.setattr("hf_ta_cleaner.poisoning.shards.write_card", lambda *args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            write_poisoned(dataset.to_iterable_dataset(), BadNet(), tmp_path / "out", **options)
    assert not (tmp_path / "out" / "poison.json").exists()
    record = write_poisoned(dataset.to_iterable_dataset(), BadNet(), tmp_path / "out", resume=True, **options)
    assert (record.rows, record.captions, record.reason) == (expected.rows, expected.captions, expected.reason)
    assert encoded(load_pairs(tmp_path / "out")) == encoded(load_pairs(tmp_path / "whole"))


def test_nothing_of_others_is_touched(dataset, tmp_path):
    (tmp_path / "notes.txt").write_text("precious")
    for resume in (False, True):
        with pytest.raises(FileExistsError, match=r"notes\.txt"):
            write_poisoned(dataset, BadNet(), tmp_path, target="banana", count=3, seed=0, size=32, resume=resume)
    assert files_of(tmp_path) == {"notes.txt": b"precious"}
    with pytest.raises(ValueError, match="only 45 qualify"):
        write_poisoned(dataset, BadNet(), tmp_path / "new", target="banana", count=46, seed=0, size=32)
    assert not (tmp_path / "new").exists()
