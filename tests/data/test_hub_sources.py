"""Pairs of the Hub: streamed, cut off, refused."""

from __future__ import annotations

import datasets
import pytest

from hf_ta_cleaner.data.loading import DataError, load_pairs
from tests.data.helpers import CAPTIONS, as_metadata_jsonl, as_parquet_in_webdataset_layout, as_webdataset


class Hub:
    """Serves the pictures as a stream in webdataset layout, counts what is read, and can break."""

    def __init__(self, pictures, features=True, fail_after=None, error=None, rows=1000):
        self.pictures, self.fail_after, self.error, self.rows = pictures, fail_after, error, rows
        self.calls, self.read = 0, 0
        self.features = None
        if features:
            text = datasets.Value("string")
            self.features = datasets.Features({"__key__": text, "jpg": datasets.Image(), "txt": text})

    def generate(self):
        for i in range(self.rows):
            if i == self.fail_after:
                raise OSError("connection reset")
            self.read += 1
            picture = self.pictures[i % len(self.pictures)]
            yield {"__key__": str(i), "jpg": {"path": f"{i}.jpg", "bytes": picture}, "txt": f"caption {i}"}

    def load_dataset(self, name, streaming=False, cache_dir=None):
        self.calls += 1
        if self.error:
            raise self.error
        stream = datasets.IterableDataset.from_generator(self.generate, features=self.features)
        return datasets.IterableDatasetDict(train=stream, validation=stream) if streaming else None


@pytest.fixture
def hub(monkeypatch, pictures):
    def start(**kwargs):
        server = Hub(pictures, **kwargs)
        monkeypatch.setattr(datasets, "load_dataset", server.load_dataset)
        return server

    return start


@pytest.mark.parametrize("features", [True, False])
def test_hub_streams_only_what_is_asked_for_and_only_once(hub, pictures, tmp_path, features):
    server = hub(features=features)
    pairs = load_pairs("owner/pairs", max_samples=8, cache_dir=tmp_path)
    assert pairs["caption"][:] == [f"caption {i}" for i in range(8)]
    assert pairs.features == datasets.Features({"image": datasets.Image(), "caption": datasets.Value("string")})
    stored = pairs.cast_column("image", datasets.Image(decode=False))
    assert [row["image"]["bytes"] for row in stored] == [pictures[i % 6] for i in range(8)]
    assert server.read <= 8 + 2 and server.calls == 1

    again = load_pairs("owner/pairs", max_samples=8, cache_dir=tmp_path)
    assert server.calls == 1 and again["caption"][:] == pairs["caption"][:]
    assert again._fingerprint == pairs._fingerprint  # what `map` made of it is found again
    assert len(load_pairs("owner/pairs", max_samples=3, cache_dir=tmp_path)) == 3 and server.calls == 2


@pytest.mark.parametrize("builder", ["webdataset", "imagefolder", "parquet"])
def test_hub_layouts_stream_through_their_real_builders(builder, folder, pictures, tmp_path, monkeypatch):
    root = {
        "webdataset": as_webdataset,
        "imagefolder": as_metadata_jsonl,
        "parquet": as_parquet_in_webdataset_layout,
    }[builder](folder, pictures)
    real = datasets.load_dataset
    monkeypatch.setattr(
        datasets, "load_dataset", lambda name, streaming, cache_dir: real(builder, data_dir=str(root), streaming=True)
    )
    pairs = load_pairs("owner/pairs", max_samples=5, cache_dir=tmp_path / "cache")
    assert pairs["caption"][:] == CAPTIONS[:5]
    stored = pairs.cast_column("image", datasets.Image(decode=False))
    assert [row["image"]["bytes"] for row in stored] == pictures[:5]


@pytest.mark.parametrize("fail_after", [0, 5, 150])
def test_a_broken_stream_leaves_nothing_that_is_taken_for_whole(hub, tmp_path, fail_after):
    hub(fail_after=fail_after)
    with pytest.raises(DataError, match=r"broke off: .*connection reset.*Run the same command again"):
        load_pairs("owner/pairs", max_samples=200, cache_dir=tmp_path)
    assert not list(tmp_path.rglob("*.arrow")) and not [
        d for d in (tmp_path / "hf_ta_cleaner").iterdir() if d.is_dir()
    ]
    hub()
    assert len(load_pairs("owner/pairs", max_samples=200, cache_dir=tmp_path)) == 200


def test_a_killed_process_leaves_nothing_that_is_taken_for_whole(hub, tmp_path, monkeypatch):
    hub(fail_after=150)
    with monkeypatch.context() as context:
        context.setattr("shutil.rmtree", lambda *args, **kwargs: None)  # as if there had been no time to clean up
        with pytest.raises(DataError):
            load_pairs("owner/pairs", max_samples=200, cache_dir=tmp_path)
    assert list(tmp_path.rglob("*.arrow"))
    hub()
    pairs = load_pairs("owner/pairs", max_samples=200, cache_dir=tmp_path)
    assert pairs["caption"][:] == [f"caption {i}" for i in range(200)]
    assert len(list(tmp_path.rglob("*.arrow"))) == 1


def test_ctrl_c_leaves_nothing(hub, tmp_path):
    server = hub(fail_after=150)
    server.generate = lambda: (_ for _ in ()).throw(KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        load_pairs("owner/pairs", max_samples=200, cache_dir=tmp_path)
    assert not list(tmp_path.rglob("*.arrow"))


def test_an_empty_stream_and_a_wrong_split(hub, tmp_path):
    hub(rows=0)
    with pytest.raises(DataError, match="no rows"):
        load_pairs("owner/pairs", max_samples=5, cache_dir=tmp_path)
    hub()
    with pytest.raises(DataError, match=r"no split 'dev'; found: train, validation"):
        load_pairs("owner/pairs", split="dev", max_samples=5, cache_dir=tmp_path)
    with pytest.raises(DataError, match=r"no column 'alt'; found: __key__, jpg, txt"):
        load_pairs("owner/pairs", caption_column="alt", max_samples=5, cache_dir=tmp_path)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (datasets.exceptions.DatasetNotFoundError("is a gated dataset"), r"gated.*spelling.*hf auth login"),
        (ConnectionError("Couldn't reach 'owner/pairs'"), r"not reached.*HF_HUB_OFFLINE"),
        (ValueError("Config name is missing."), r"Config name is missing.*save_to_disk"),
    ],
)
@pytest.mark.parametrize("max_samples", [5, None])
def test_hub_errors_name_cause_and_remedy(hub, tmp_path, error, message, max_samples):
    hub(error=error)
    with pytest.raises(DataError, match=message):
        load_pairs("owner/pairs", max_samples=max_samples, cache_dir=tmp_path)


def test_offline_hub_for_real(tmp_path):
    with pytest.raises(DataError, match="HF_HUB_OFFLINE"):
        load_pairs("owner/no-such-pairs", max_samples=5, cache_dir=tmp_path)
