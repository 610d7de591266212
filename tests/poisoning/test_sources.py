"""Pairs of every source are streamed; the command line."""

from __future__ import annotations

import importlib.util
import io
import sys
import tarfile

import datasets
import numpy as np
import pytest
from datasets import Dataset, Features, Value
from datasets import Image as ImageFeature
from PIL import Image

from hf_ta_cleaner.attacks import Blended
from hf_ta_cleaner.commands.options import PairOptions
from hf_ta_cleaner.data.loading import load_pairs, stream_pairs, to_rgb
from hf_ta_cleaner.pictures import fit
from hf_ta_cleaner.poisoning import (
    TEMPLATES,
    PoisonRecord,
    find_triggers,
    mentions,
    write_poisoned,
)
from tests.poisoning.helpers import ROOT, N, caption_of, encoded, write_shards


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
