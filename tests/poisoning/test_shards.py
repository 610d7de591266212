"""What is written: shards of any format, from any number of processes."""

from __future__ import annotations

import io
import json

import datasets
import numpy as np
import pytest
from datasets import Dataset
from PIL import Image

from hf_ta_cleaner.attacks import Attack, BadCLIP, BadNet, Blended
from hf_ta_cleaner.data.loading import load_pairs
from hf_ta_cleaner.pictures import fit
from hf_ta_cleaner.poisoning import (
    PoisonRecord,
    poison,
    write_poisoned,
)
from tests.poisoning.helpers import N, encoded, files_of


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
    with pytest.raises(ValueError, match="at most 0 are allowed"):
        write_poisoned(
            data.to_iterable_dataset() if streams else data, BadNet(), tmp_path / "no", max_unreadable=0, **options
        )
