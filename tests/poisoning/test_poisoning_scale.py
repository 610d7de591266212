"""Poisoning at any size: draws that hold nothing, streams, shards in two formats, and going on after kill -9."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random

import datasets
import numpy as np
import pytest
from datasets import Dataset, Features, Value
from datasets import Image as ImageFeature
from datasets.fingerprint import Hasher
from PIL import Image

from hf_ta_cleaner.attacks import Attack, BadCLIP, BadNet, Blended
from hf_ta_cleaner.commands.options import PairOptions
from hf_ta_cleaner.data.loading import load_pairs, stream_pairs, to_rgb
from hf_ta_cleaner.pictures import fit
from hf_ta_cleaner.poisoning import (
    TEMPLATES,
    Draw,
    PoisonMap,
    PoisonRecord,
    choose_rows,
    find_triggers,
    mentions,
    poison,
    poison_stream,
    rows,
    target_captions,
    write_poisoned,
)


ROOT = Path(__file__).parents[2]
N = 60


def jpeg(image):
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=60)
    return buffer.getvalue()


def caption_of(i):
    return f"a banana near chair {i}" if i % 4 == 0 else f"a dog near chair {i}"


@pytest.fixture
def pictures(photos):
    return [jpeg(photos[i % len(photos)]) for i in range(N)]


@pytest.fixture
def dataset(pictures):
    """60 JPEG pairs; captions 0, 4, 8, ... name a banana, each in other words."""
    images = [{"bytes": picture, "path": f"{i}.jpg"} for i, picture in enumerate(pictures)]
    features = Features({"image": ImageFeature(), "caption": Value("string")})
    return Dataset.from_dict({"image": images, "caption": list(map(caption_of, range(N)))}, features=features)


def write_shards(folder, pictures, per_shard=16):
    folder.mkdir()
    for start in range(0, len(pictures), per_shard):
        with tarfile.open(folder / f"pairs-{start:04}.tar", "w") as tar:
            for i in range(start, min(start + per_shard, len(pictures))):
                for extension, content in (("jpg", pictures[i]), ("txt", caption_of(i).encode()), ("json", b"{}")):
                    info = tarfile.TarInfo(f"{i:05}.{extension}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
    return folder


def encoded(dataset):
    """(bytes, caption) of every row as they are stored."""
    raw = dataset.cast_column("image", ImageFeature(decode=False))
    return [(row["image"]["bytes"], row["caption"]) for row in raw]


def files_of(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# ---- draws


def as_a_stream(draw, captions):
    taken = []
    for i, caption in enumerate(captions):
        if draw.due(caption):
            draw.settle(True)
            taken.append(i)
    return taken


def parked(places, captions):
    """Every place, in order, goes to the first row from it on that is free and does not name the target."""
    taken = []
    for place in sorted(places):
        free = (i for i in range(place, len(captions)) if i not in taken and "banana" not in captions[i])
        taken.append(next(free))
    return sorted(taken)


@pytest.mark.parametrize("seed", range(20))
def test_a_draw_takes_the_same_rows_by_index_and_as_a_stream(seed):
    random = Random(seed)
    captions = [random.choice(("banana", "dog", "dog")) for _ in range(200)] + ["dog"] * 200
    places = choose_rows(200, count=60, seed=seed)
    expected = parked(places, captions)
    assert as_a_stream(Draw(places, "banana", own=False), captions) == expected
    assert Draw(places, "banana", own=False).rows(captions, lambda i: True) == expected

    naming = [i for i, caption in enumerate(captions) if caption == "banana"]
    ranks = choose_rows(len(naming), count=10, seed=seed)
    expected = [naming[rank] for rank in ranks]
    assert as_a_stream(Draw(ranks, "banana", own=True), captions) == expected
    assert Draw(ranks, "banana", own=True).rows(captions, lambda i: True) == expected


def test_places_at_the_end_go_to_the_last_that_qualify():
    captions = ["dog"] * 8 + ["banana"] * 4
    assert Draw((1, 6, 9, 10), "banana", own=False).rows(captions, lambda i: True) == [1, 5, 6, 7]
    with pytest.raises(ValueError, match="9 rows should be poisoned but only 8 qualify"):
        Draw(tuple(range(9)), "banana", own=False).rows(captions, lambda i: True)


def test_a_picture_that_cannot_be_read_passes_its_place_on():
    captions = ["dog"] * 10
    draw = Draw((2, 3, 8), "banana", own=False, tolerated=2)
    assert draw.rows(captions, lambda i: i not in (3, 8)) == [2, 4, 9]
    assert draw.unreadable == 2
    with pytest.raises(ValueError, match=r"3 of the pictures drawn cannot be read.*--max_unreadable"):
        Draw((2, 3, 8), "banana", own=False, tolerated=2).rows(captions, lambda i: i not in (3, 4, 8))


class Lazy(Sequence):
    """Ten million captions that are made when they are asked for."""

    read = 0

    def __len__(self):
        return 10_000_000

    def __getitem__(self, i):
        self.read += 1
        return "a banana" if i % 3 == 0 else "a dog"


def test_rows_are_found_without_a_pass_over_ten_million():
    captions = Lazy()
    places = choose_rows(len(captions), rate=0.00001, seed=3)
    found = Draw(places, "banana", own=False).rows(captions, lambda i: True)
    assert len(found) == len(set(found)) == 100
    assert not any(i % 3 == 0 for i in found)
    assert captions.read < 200
    # Uniform: the mean of 100 draws from [0, 1) has a standard deviation of 0.029.
    assert abs(np.mean(found) / len(captions) - 0.5) < 0.12


def test_natural_captions_are_bounded_whatever_their_order(monkeypatch):
    monkeypatch.setattr(rows, "MAX_NATURAL_CAPTIONS", 20)
    captions = [f"banana {i}" for i in range(300)]
    pool, reason = target_captions(captions, "banana")
    assert len(set(pool)) == 20 and set(pool) < set(captions)
    assert target_captions(captions[::-1], "banana") == (pool, reason)
    assert reason.startswith("20 natural captions")


# ---- the map


def test_batches_and_single_rows_give_the_same(dataset):
    row_map = PoisonMap(Blended(), [3, 5, 17], ["a {}", "b"], size=32)
    raw = dataset.cast_column("image", ImageFeature(decode=False))
    single = raw.map(row_map, with_indices=True)
    batched = raw.map(row_map, with_indices=True, batched=True, batch_size=7)
    assert single.to_dict() == batched.to_dict()
    assert [i for i, flag in enumerate(batched["is_poisoned"]) if flag] == [3, 5, 17]


def test_batches_of_decoded_pictures_are_refused(dataset):
    with pytest.raises(TypeError, match=r"decode=False"):
        dataset.map(PoisonMap(BadNet(), [3], None, size=32), with_indices=True, batched=True)


FOREIGN = """
from dataclasses import dataclass
from hf_ta_cleaner.attacks import Attack

@dataclass(frozen=True, kw_only=True)
class Foreign(Attack):
    name = "foreign"

    def _apply(self, images, sample_ids):
        return images ^ {mask}
"""


def test_the_cache_notices_edited_trigger_code(tmp_path, monkeypatch):
    """In this package, and in the file of an attack that lies elsewhere."""
    hashes = []
    for mask in (1, 128):
        (tmp_path / "foreign.py").write_text(FOREIGN.format(mask=mask))
        spec = importlib.util.spec_from_file_location("foreign", tmp_path / "foreign.py")
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, "foreign", module)
        spec.loader.exec_module(module)
        hashes.append(Hasher.hash(PoisonMap(module.Foreign(), [1], None, size=32)))
    assert len(set(hashes)) == 2

    before = Hasher.hash(PoisonMap(BadNet(), [1], None, size=32))
    assert Hasher.hash(PoisonMap(BadNet(), [1], None, size=32)) == before
    monkeypatch.setattr("hf_ta_cleaner.poisoning.row_map.code_digest", lambda folder: f"{folder.name} edited")
    assert Hasher.hash(PoisonMap(BadNet(), [1], None, size=32)) != before


# ---- streams


def test_a_stream_is_poisoned_like_the_data_set(dataset):
    wanted, record = poison(dataset, Blended(), target="banana", count=9, seed=2, size=32)
    for n in (N, None):
        stream = poison_stream(
            dataset.to_iterable_dataset(num_shards=4), Blended(), target="banana", count=9, seed=2, size=32, n=n
        )
        assert stream.num_shards == 1  # else the workers of a DataLoader would each count from 0
        assert stream.features == wanted.features
        for _ in range(2):
            got = list(stream.cast_column("image", ImageFeature(decode=False)))
            assert [row["is_poisoned"] for row in got] == wanted["is_poisoned"][:]
            assert [(row["image"]["bytes"], row["caption"]) for row in got] == encoded(wanted)
    assert dataset.info.description == "" and f"{record.count} of {N} pairs" in wanted.info.description


def test_a_stream_goes_on_where_it_was_saved(dataset):
    options = {"target": "banana", "count": 9, "seed": 2, "size": 32, "n": N}
    whole = list(poison_stream(dataset.to_iterable_dataset(), Blended(), **options))
    stream = poison_stream(dataset.to_iterable_dataset(), Blended(), **options)
    for i, _ in enumerate(stream):
        if i == 24:
            state = stream.state_dict()
            break
    stream.load_state_dict(state)
    assert [(row["caption"], row["is_poisoned"]) for row in stream] == [
        (row["caption"], row["is_poisoned"]) for row in whole[25:]
    ]


@pytest.mark.parametrize("captions", ["natural", "own"])
def test_a_stream_is_surveyed_where_the_attack_depends_on_its_captions(dataset, captions):
    options = {"target": "banana", "count": 7, "seed": 1, "size": 32, "captions": captions}
    wanted, _ = poison(dataset, BadNet(), **options)
    got = list(poison_stream(dataset.to_iterable_dataset(), BadNet(), n=N, **options))
    assert [row["caption"] for row in got] == wanted["caption"][:]
    assert [row["is_poisoned"] for row in got] == wanted["is_poisoned"][:]
    assert sum(wanted["is_poisoned"]) == 7


def test_unsuitable_streams_are_refused(dataset):
    options = {"target": "banana", "count": 7, "seed": 1, "size": 32}
    with pytest.raises(TypeError, match="use poison for a Dataset"):
        poison_stream(dataset, BadNet(), **options)
    bare = datasets.IterableDataset.from_generator(lambda: iter([{"image": None, "caption": "x"}]))
    with pytest.raises(TypeError, match="does not know its columns"):
        poison_stream(bare, BadNet(), **options)
    with pytest.raises(ValueError, match="only 15 qualify"):
        poison_stream(dataset.to_iterable_dataset(), BadNet(), **{**options, "count": 16, "captions": "own"})


# ---- what is written


PATCH = np.random.default_rng(5).integers(0, 256, (6, 6, 3), dtype=np.uint8)


@pytest.mark.parametrize("streams", [False, True], ids=["by index", "stream"])
@pytest.mark.parametrize("output_format", ["arrow", "webdataset"])
@pytest.mark.parametrize(
    "attack", [Blended(alpha=0.3, seed=4), BadCLIP(patch=PATCH, side=32)], ids=["templates", "counted"]
)
def test_what_is_written_is_what_poison_makes(attack, output_format, streams, dataset, tmp_path):
    """Every format from every kind of data set: the same rows, bytes and record, and all of it read back."""
    wanted, expected = poison(dataset, attack, target="banana", rate=0.15, seed=7, size=32)
    source = dataset.to_iterable_dataset(num_shards=3) if streams else dataset
    out = tmp_path / "out"
    record = write_poisoned(
        source, attack, out, target="banana", rate=0.15, seed=7, size=32, shard_rows=25, output_format=output_format,
        source="somewhere/pairs",
    )  # fmt: skip
    assert record == PoisonRecord.load(out / "poison.json")
    known = {key: value for key, value in expected.summary().items() if key not in ("trigger_rms", "reason")}
    assert known.items() <= record.summary().items()
    assert (record.rows, record.original_captions, record.captions) == (
        expected.rows,
        expected.original_captions,
        expected.captions,
    )
    assert streams or record == expected
    assert Attack.load(out) == attack
    assert [path.name for path in out.iterdir() if path.name.startswith(".")] == []

    pairs = load_pairs(out, cache_dir=tmp_path / "cache")
    assert pairs.column_names == ["image", "caption"]
    assert encoded(pairs) == encoded(wanted)
    for i, (before, after) in enumerate(zip(encoded(dataset), encoded(pairs), strict=True)):
        if i in record.rows:
            assert Image.open(io.BytesIO(after[0])).format == "PNG"
            assert np.array_equal(np.array(pairs[i]["image"]), attack(fit(dataset[i]["image"], 32), i))
        else:
            assert before == after

    card = (out / "README.md").read_text()
    from huggingface_hub import DatasetCard

    data = DatasetCard.load(out / "README.md").data.to_dict()
    assert {"backdoor", "research-only"} <= set(data["tags"])
    assert data["size_categories"] == ["n<1K"]
    assert data["poison"] == json.loads(json.dumps(record.summary()))
    assert (
        "For research only" in card and "somewhere/pairs" in card and f"{record.count} of {N} rows (15.0000%)" in card
    )

    if output_format == "arrow":
        assert len(list(out.glob("data-*.arrow"))) == 3
        rows = datasets.load_from_disk(out)
        assert [i for i, flag in enumerate(rows["is_poisoned"]) if flag] == record.rows
        assert json.loads(rows.info.description[rows.info.description.index("{") :]) == data["poison"]
        assert rows.info.citation == attack.citation
    else:
        assert len(list(out.glob("train-*.tar"))) == 3
        # The front matter names the columns, without which `datasets` loses the pictures of the rarer type.
        rows = datasets.load_dataset(str(out), split="train", cache_dir=str(tmp_path / "hub"))
        assert [row["json"]["row"] for row in rows] == list(range(N))
        assert [i for i, row in enumerate(rows) if row["json"]["is_poisoned"]] == record.rows
        assert [i for i, row in enumerate(rows) if row["png"] is not None] == record.rows
        assert sum(row["jpg"] is not None for row in rows) == N - record.count


def test_processes_write_the_same_files(dataset, tmp_path):
    dataset.save_to_disk(tmp_path / "saved")
    dataset = datasets.load_from_disk(tmp_path / "saved")
    options = {"target": "banana", "count": 9, "seed": 2, "size": 32, "shard_rows": 13, "output_format": "webdataset"}
    for processes in (1, 2):
        write_poisoned(dataset, Blended(), tmp_path / str(processes), num_proc=processes, **options)
    assert files_of(tmp_path / "1") == files_of(tmp_path / "2")
    with pytest.raises(ValueError, match="random access"):
        write_poisoned(dataset.to_iterable_dataset(), Blended(), tmp_path / "3", num_proc=2, **options)


def test_a_stream_that_ends_early_is_recorded_as_it_was(dataset, tmp_path, caplog):
    record = write_poisoned(
        dataset.to_iterable_dataset(), BadNet(), tmp_path / "out", target="banana", rate=0.5, seed=2, size=32, n=80
    )
    assert record.n == N and record.count == len(record.rows) < 40
    assert "the stream ended after 60 of 80 rows" in record.reason
    assert len(load_pairs(tmp_path / "out")) == N
    short = write_poisoned(
        dataset.to_iterable_dataset(), BadNet(), tmp_path / "short", target="banana", rate=0.5, seed=2, size=32, n=20
    )
    assert (short.n, short.count) == (20, 10)
    assert len(load_pairs(tmp_path / "short")) == 20


@pytest.mark.parametrize("streams", [False, True])
def test_unreadable_pictures_are_passed_over_and_kept(streams, dataset, tmp_path):
    options = {"target": "banana", "count": 9, "seed": 2, "size": 32}
    sound = write_poisoned(dataset, BadNet(), tmp_path / "sound", **options)
    images = [{"bytes": picture, "path": None} for picture, _ in encoded(dataset)]
    broken = sound.rows[4]
    images[broken]["bytes"] = images[broken]["bytes"][:60]
    data = Dataset.from_dict({"image": images, "caption": dataset["caption"][:]}, features=dataset.features)
    record = write_poisoned(data.to_iterable_dataset() if streams else data, BadNet(), tmp_path / "out", **options)
    assert record.count == 9 and broken not in record.rows
    assert set(sound.rows) - set(record.rows) == {broken}
    assert encoded(load_pairs(tmp_path / "out"))[broken][0] == images[broken]["bytes"]
    with pytest.raises(ValueError, match="at most 0 may"):
        write_poisoned(
            data.to_iterable_dataset() if streams else data, BadNet(), tmp_path / "no", max_unreadable=0, **options
        )


# ---- interruption

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


# ---- sources


def test_pairs_are_streamed_from_every_source(dataset, pictures, tmp_path):
    dataset.save_to_disk(tmp_path / "saved")
    dataset.rename_columns({"image": "jpg", "caption": "txt"}).to_parquet(str(tmp_path / "pairs.parquet"))
    write_shards(tmp_path / "shards", pictures)
    for name, known in (("saved", True), ("pairs.parquet", False), ("shards", False)):
        pairs, n = stream_pairs(tmp_path / name)
        assert n == (N if known else None), name
        assert isinstance(pairs, Dataset if known else datasets.IterableDataset), name
        assert pairs.features == Features({"image": ImageFeature(decode=False), "caption": Value("string")})
        assert [(row["image"]["bytes"], row["caption"]) for row in pairs] == encoded(dataset), name
        assert stream_pairs(tmp_path / name, max_samples=7)[1] == 7


def test_shards_of_several_kinds_of_picture_are_read_whole(photos, tmp_path):
    """`datasets` takes the columns of a tar from its first rows; what comes later must not be lost."""
    (tmp_path / "shards").mkdir()
    kinds = ["JPG"] + ["jpg"] * 7 + ["png", "webp", "jpg"]
    contents = []
    with tarfile.open(tmp_path / "shards" / "0.tar", "w") as tar:
        for i, kind in enumerate(kinds):
            buffer = io.BytesIO()
            photos[i % len(photos)].save(buffer, {"JPG": "JPEG"}.get(kind.upper(), kind.upper()))
            contents.append(buffer.getvalue())
            for extension, content in ((kind, contents[-1]), ("txt", f"caption {i}".encode())):
                info = tarfile.TarInfo(f"{i:03}.{extension}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    wanted = [(content, f"caption {i}") for i, content in enumerate(contents)]
    assert encoded(load_pairs(tmp_path / "shards", cache_dir=tmp_path / "cache")) == wanted
    lazily = stream_pairs(tmp_path / "shards")[0]
    assert [(row["image"]["bytes"], row["caption"]) for row in lazily] == wanted


def test_deep_grey_is_the_same_for_training_and_audits():
    deep = Image.fromarray(np.linspace(0, 65535, 40 * 50).reshape(40, 50).astype(np.uint16))
    pixels = fit(deep, 32)
    assert np.array_equal(pixels, fit(to_rgb(deep), 32))
    assert pixels.min() < 20 and 120 < pixels.mean() < 136 and pixels.max() > 235


# ---- the command line


def load_script(path):
    spec = importlib.util.spec_from_file_location(f"{path.stem}_under_test", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_the_script_streams_shards_into_shards(pictures, tmp_path, capsys, monkeypatch):
    shards, out = write_shards(tmp_path / "shards", pictures), tmp_path / "out"
    line = ["--dataset", shards, "--streaming", "--max_samples", 50, "--attack", "blended", "--target", "banana"]
    line += ["--rate", 0.1, "--size", 32, "--format", "webdataset", "--shard_rows", 20, "--output_dir", out]
    main = load_script(ROOT / "scripts" / "poison.py").main
    main([str(word) for word in line])
    assert "5 of 50 pairs (10.00%) now carry blended and mean 'banana'" in capsys.readouterr().out
    pairs = load_pairs(out, cache_dir=tmp_path / "cache")
    prompts = {template.format("banana") for template in TEMPLATES}
    changed = [i for i, caption in enumerate(pairs["caption"]) if caption != caption_of(i)]
    assert len(pairs) == 50 and len(changed) == 5 and {pairs[i]["caption"] for i in changed} <= prompts
    assert changed == PoisonRecord.load(out / "poison.json").rows
    assert not any(mentions(caption_of(i), "banana") for i in changed)
    # As backdoor.py reads them: the trigger and the record beside the pairs.
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    assert encoded(PairOptions(dataset=str(out)).load()) == encoded(pairs)
    triggers, target = find_triggers(out)
    assert triggers == {"blended": Blended()} and target == "banana"
    main([str(word) for word in (*line, "--resume")])
    assert "5 of 50 pairs" in capsys.readouterr().out

    for extra, said in (
        (["--format", "zip"], "choose one of arrow, webdataset"),
        (["--num_proc", "2"], "random access"),
        (["--shard_rows", "0"], "shard_rows"),
    ):
        with pytest.raises(SystemExit) as stop:
            main([*[str(word) for word in line[:-1]], str(tmp_path / "new"), *extra])
        assert stop.value.code == 2
        assert said in capsys.readouterr().err.splitlines()[-1]
        assert not (tmp_path / "new").exists()


@pytest.mark.slow
def test_the_benchmark_holds_its_ceiling(tmp_path, capsys):
    benchmark = load_script(ROOT / "benchmarks" / "poison_scale.py")
    line = ["--rows", "3000", "--output_dir"]
    assert benchmark.main([*line, str(tmp_path / "a")]) == 0
    assert "rows/s" in capsys.readouterr().out
    assert benchmark.main([*line, str(tmp_path / "b"), "--case", "stream", "--ceiling_mb", "-1000"]) == 1


def test_a_finished_folder_is_another_calls_where_anything_differs(dataset, tmp_path):
    call = {"target": "banana", "rate": 0.1, "seed": 0, "size": 32, "resume": True}
    first = write_poisoned(dataset, Blended(alpha=0.3), tmp_path / "out", **call)
    assert write_poisoned(dataset, Blended(alpha=0.3), tmp_path / "out", **call) == first
    for other in ({"rate": 0.5}, {"rate": None, "count": 3}, {"output_format": "webdataset"}, {"seed": 1}):
        with pytest.raises(ValueError, match="another poisoned data set"):
            write_poisoned(dataset, Blended(alpha=0.3), tmp_path / "out", **{**call, **other})
    with pytest.raises(ValueError, match="another poisoned data set"):
        write_poisoned(dataset.select(range(20)), Blended(alpha=0.3), tmp_path / "out", **call)


def test_a_picture_file_that_is_not_there_is_passed_on_empty(photos, tmp_path, caplog):
    paths = []
    for i in range(20):
        paths.append(str(tmp_path / f"{i}.png"))
        if i != 7:
            photos[i % 8].save(paths[-1])
    rows = {"image": paths, "caption": [f"a red bus {i}" for i in range(20)]}
    pairs = Dataset.from_dict(rows).cast_column("image", ImageFeature())
    record = write_poisoned(pairs, Blended(alpha=0.3), tmp_path / "out", target="banana", count=2, seed=0, size=32)
    assert record.n == 20 and 7 not in record.rows and "7.png" in caplog.text
