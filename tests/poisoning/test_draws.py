"""Which rows are drawn, by index and as a stream; the map."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from random import Random

import numpy as np
import pytest
from datasets import Image as ImageFeature
from datasets.fingerprint import Hasher

from hf_ta_cleaner.attacks import BadNet, Blended
from hf_ta_cleaner.poisoning import (
    Draw,
    PoisonMap,
    choose_rows,
    rows,
    target_captions,
)


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
    with pytest.raises(ValueError, match=r"3 of the drawn pictures cannot be read.*--max_unreadable"):
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
