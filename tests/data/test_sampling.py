"""The sampler: exactly K chosen in every batch of every process, and nothing that depends on history."""

from __future__ import annotations

import logging
import pickle

import pytest
import torch
from datasets import Dataset
from torch.utils.data import BatchSampler, DataLoader

from hf_ta_cleaner.data.sampling import CleaningPairs, CleaningSampler, SampleKey
from hf_ta_cleaner.views.collator import DataCollatorForTACleaner


def sampler(eligible=200, total=None, *, batch_size=16, fraction=0.25, seed=0, processes=1) -> CleaningSampler:
    """`eligible` of `total` rows are eligible, spread over the dataset."""
    total = eligible if total is None else total
    flags = [i * eligible // total != (i + 1) * eligible // total for i in range(total)]
    return CleaningSampler(flags, batch_size=batch_size, fraction=fraction, seed=seed, processes=processes)


def epoch(s: CleaningSampler, number: int = 0) -> list[SampleKey]:
    s.set_epoch(number)
    return list(s)


def batches(keys: list[SampleKey], size: int) -> list[list[SampleKey]]:
    return list(BatchSampler(keys, size, drop_last=True))


@pytest.mark.parametrize(
    ("batch_size", "fraction", "processes", "k"),
    [
        (16, 0.25, 1, 4),
        (16, 0.25, 4, 4),
        (12, 0.25, 2, 3),
        (10, 0.33, 1, 3),
        (10, 0.33, 2, 3),
        (16, 0.1, 4, 2),
        (7, 0.5, 3, 4),
        (16, 0.0, 2, 0),
        (8, 1.0, 2, 8),
        (5, 0.2, 1, 1),
    ],
)
def test_every_batch_of_every_process_holds_exactly_k(batch_size, fraction, processes, k):
    s = sampler(203, batch_size=batch_size, fraction=fraction, processes=processes)
    assert s.chosen == k
    # Processes take whole batches in turn, and the last round counts only when there is one for each of them.
    per_process = batches(epoch(s), batch_size)
    used = len(per_process) // processes * processes
    assert used == 203 // (batch_size * processes) * processes
    assert [sum(key.chosen for key in batch) for batch in per_process[:used]] == [k] * used


@pytest.mark.parametrize("total", [64, 200, 203])
@pytest.mark.parametrize("fraction", [0.0, 0.25, 1.0])
def test_an_epoch_is_a_permutation_of_all_rows(total, fraction):
    keys = epoch(sampler(total, fraction=fraction))
    assert sorted(key.index for key in keys) == list(range(total))
    assert [key.index for key in keys] != list(range(total))
    assert len(sampler(total)) == total


def test_order_and_choice_are_new_each_epoch():
    s = sampler()
    first, second = epoch(s, 0), epoch(s, 1)
    assert {key.epoch for key in first} == {0} and {key.epoch for key in second} == {1}
    assert [key.index for key in first] != [key.index for key in second]
    chosen = [{key.index for key in keys if key.chosen} for keys in (first, second)]
    assert len(chosen[0]) == len(chosen[1]) == 200 // 16 * 4
    assert chosen[0] != chosen[1]


def test_over_the_epochs_every_row_is_chosen_about_equally_often():
    s, counts = sampler(64), [0] * 64
    for number in range(200):
        for key in epoch(s, number):
            counts[key.index] += key.chosen
    # 200 epochs at 1/4: 50 +- 6.1; six standard deviations.
    assert min(counts) > 13 and max(counts) < 87


def test_the_order_depends_on_seed_and_epoch_alone():
    used = sampler(seed=3)
    for number in (0, 1, 2):
        epoch(used, number)
    assert epoch(used, 1) == epoch(sampler(seed=3), 1)
    assert epoch(used, 1) == epoch(used, 1)
    assert epoch(used, 1) == epoch(pickle.loads(pickle.dumps(used)), 1)
    assert epoch(sampler(seed=3)) != epoch(sampler(seed=4))


def test_the_epoch_counts_from_when_the_order_is_drawn():
    s = sampler()
    keys = iter(s)
    first = next(keys)
    s.set_epoch(5)
    assert first.epoch == 0 and {key.epoch for key in keys} == {0}


def test_processes_share_the_order_and_the_choice():
    one = epoch(sampler(300, batch_size=64, processes=1))
    two = epoch(sampler(300, batch_size=32, processes=2))
    four = epoch(sampler(300, batch_size=16, processes=4))
    assert one == two == four
    assert sum(key.chosen for key in one) == 300 // 64 * 16


@pytest.mark.parametrize("processes", [1, 2])
def test_rows_without_sub_texts_are_never_chosen(processes):
    flags = [i % 3 == 0 for i in range(240)]
    s = CleaningSampler(flags, batch_size=16 // processes, fraction=0.25, seed=0, processes=processes)
    for number in range(20):
        keys = epoch(s, number)
        assert all(flags[key.index] for key in keys if key.chosen)
        assert sorted(key.index for key in keys) == list(range(240))
        assert [sum(key.chosen for key in batch) for batch in batches(keys, 16)] == [4] * 15


@pytest.mark.parametrize(("processes", "k"), [(1, 2), (2, 1)])
def test_too_few_eligible_rows_lower_k_everywhere_alike(caplog, processes, k):
    with caplog.at_level(logging.WARNING):
        s = sampler(30, 240, batch_size=16 // processes, processes=processes)  # 15 steps ask for 4 each, 60 in all
    assert s.chosen == k
    assert "30 of 240" in caplog.text
    assert [sum(key.chosen for key in batch) for batch in batches(epoch(s), 16)] == [2] * 15


def test_enough_eligible_rows_give_no_warning(caplog):
    with caplog.at_level(logging.WARNING):
        sampler(200, batch_size=16, fraction=0.1, processes=4)
        sampler(200, batch_size=10, fraction=0.25)
        sampler(60, 240)
        sampler(0, 240, fraction=0)
    assert not caplog.records


def test_nobody_eligible_nobody_chosen():
    s = sampler(0, 64)
    assert s.chosen == 0
    assert not any(key.chosen for key in epoch(s))


@pytest.mark.parametrize(
    ("total", "batch_size", "processes", "advice"), [(15, 16, 1, "at most 15"), (30, 16, 2, "at most 15")]
)
def test_too_small_a_dataset(total, batch_size, processes, advice):
    with pytest.raises(ValueError, match=f"{total} usable pairs.*{batch_size * processes}.*{advice}"):
        sampler(total, batch_size=batch_size, processes=processes)
    assert len(batches(epoch(sampler(16, batch_size=16)), 16)) == 1


@pytest.mark.parametrize(("fraction", "advice"), [(25, r"Did you mean 0\.25"), (-0.1, "0, 1"), (1.01, "0, 1")])
def test_fraction_outside_its_range(fraction, advice):
    with pytest.raises(ValueError, match=f"subtext_fraction.*{advice}"):
        sampler(fraction=fraction)


# --- CleaningPairs ---------------------------------------------------------------------------------------------------


@pytest.fixture
def pairs() -> CleaningPairs:
    return CleaningPairs(Dataset.from_dict({"caption": [f"caption {i}" for i in range(40)]}))


def test_a_key_says_all_about_a_sample(pairs):
    assert pairs[SampleKey(7, 3, True)] == {"caption": "caption 7", "sample_id": 7, "epoch": 3, "chosen": True}
    assert pairs[7] == {"caption": "caption 7", "sample_id": 7, "epoch": 0, "chosen": False}
    assert len(pairs) == 40


@pytest.mark.parametrize("workers", [0, 2])
def test_keys_travel_to_the_workers(pairs, workers):
    s = CleaningSampler([True] * 40, batch_size=8, fraction=0.5, seed=1)
    s.set_epoch(4)
    loader = DataLoader(pairs, batch_size=8, sampler=s, num_workers=workers, collate_fn=list)
    seen = [(row["sample_id"], row["epoch"], row["chosen"]) for batch in loader for row in batch]
    assert seen == [tuple(key) for key in epoch(s, 4)]


def test_pictures_are_left_encoded_for_the_collator(photos, tiny_processor):
    """One after the other it decodes them, to the pixels that `datasets` makes."""
    data = Dataset.from_dict({"image": photos, "caption": ["a dog"] * 8})
    examples = [CleaningPairs(data)[i] for i in range(8)]
    assert all(isinstance(example["image"]["bytes"], bytes) for example in examples)
    collate = DataCollatorForTACleaner(tiny_processor)
    decoded = [{**example, "image": row["image"]} for example, row in zip(examples, data, strict=True)]
    assert torch.equal(collate(examples)["pixel_values"], collate(decoded)["pixel_values"])
    grey = data.with_transform(lambda rows: {**rows, "image": [image.convert("L") for image in rows["image"]]})
    assert CleaningPairs(grey)[0]["image"].mode == "L"  # what a user makes of the rows stays
