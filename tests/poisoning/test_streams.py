"""A stream is poisoned like the data set."""

from __future__ import annotations

import datasets
import pytest
from datasets import Image as ImageFeature

from hf_ta_cleaner.attacks import BadNet, Blended
from hf_ta_cleaner.poisoning import (
    poison,
    poison_stream,
)
from tests.poisoning.helpers import N, encoded


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


def test_no_clean_caption_stays_beside_a_poisoned_one(dataset):
    """Of a picture with several captions only the first is kept, so training cannot draw a clean one."""
    several = dataset.add_column("captions", [[caption, "another one"] for caption in dataset["caption"]])
    options = {"target": "banana", "count": 9, "seed": 2, "size": 32}
    wanted = poison(dataset, Blended(), **options)[0]
    assert encoded(poison(several, Blended(), **options)[0]) == encoded(wanted)
    assert poison(several, Blended(), **options)[0].column_names == wanted.column_names
    stream = poison_stream(several.to_iterable_dataset(), Blended(), n=N, **options)
    assert set(stream.features) == {*wanted.column_names}
    assert [row["caption"] for row in stream] == wanted["caption"][:]


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
    with pytest.raises(TypeError, match="has no `features`"):
        poison_stream(bare, BadNet(), **options)
    with pytest.raises(ValueError, match="only 15 qualify"):
        poison_stream(dataset.to_iterable_dataset(), BadNet(), **{**options, "count": 16, "captions": "own"})
