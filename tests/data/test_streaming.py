"""Streams of pairs: split among processes, in runs with the right number of chosen, the same again after resuming."""

from __future__ import annotations

import io
import json
from itertools import islice

import pytest
import torch
from datasets import Dataset, Features, Image, Value, concatenate_datasets

from hf_ta_cleaner.data.streaming import CleaningStream


NOUNS = ("dog", "cat", "bus", "apple", "chair", "horse", "boat", "bird")
COUNT = 48


@pytest.fixture(scope="module")
def rows(photos) -> Dataset:
    """48 pairs, every fourth caption without a noun; row 5 has no picture and row 7 no caption."""
    encoded = []
    for photo in photos:
        buffer = io.BytesIO()
        photo.save(buffer, "PNG")
        encoded.append(buffer.getvalue())
    captions = [f"{i} !!" if i % 4 == 0 else f"a {NOUNS[i % 8]} on chair {i}" for i in range(COUNT)]
    captions[7] = " "
    images = [{"bytes": encoded[i % 8], "path": None} for i in range(COUNT)]
    images[5] = {"bytes": b"no picture", "path": None}
    features = Features({"image": Image(decode=False), "caption": Value("string")})
    return Dataset.from_dict({"image": images, "caption": captions}, features=features)


def make(rows: Dataset, shards: int = 4, **options) -> CleaningStream:
    given = {"batch_size": 4, "fraction": 0.5, "seed": 3, **options}
    return CleaningStream(rows.to_iterable_dataset(num_shards=shards), **given)


def first(stream: CleaningStream, count: int) -> list[dict]:
    return list(islice(stream, count))


@pytest.mark.parametrize(("processes", "shards"), [(1, 4), (2, 4), (2, 3), (4, 4)])
def test_processes_share_a_pass(rows, processes, shards):
    """Every usable pair at most once a pass, whether shards can be dealt out or not; no process sees another's."""
    seen: list[str] = []
    numbers: list[int] = []
    for rank in range(processes):
        examples = first(make(rows, shards, rank=rank, processes=processes, batch_size=2), 200)
        own = [example for example in examples if example["epoch"] == 0]
        assert len(own) % 2 == 0 and len(own) >= COUNT // processes - 6
        seen += [example["caption"] for example in own]
        numbers += [example["sample_id"] for example in own]
        assert examples[-1]["epoch"] > 1  # endless
    assert len(seen) == len(set(seen)) and len(numbers) == len(set(numbers))
    assert not {rows["caption"][5], rows["caption"][7]} & set(seen)


def test_every_run_has_its_chosen(rows):
    examples = first(make(rows), 80)
    for start in range(0, 80, 4):
        run = examples[start : start + 4]
        assert sum(example["chosen"] for example in run) == 2
        eligible = [not example["caption"].endswith("!!") for example in run]
        taken = [e for e, example in zip(eligible, run, strict=True) if example["chosen"]]
        assert sum(taken) == min(2, sum(eligible))  # those with sub-texts first
        assert all(("parts" in example) == example["chosen"] for example in run)
    passes = [[e["caption"] for e in examples if e["epoch"] == number] for number in (0, 1)]
    assert passes[0] != passes[1]  # shuffled anew


def test_the_same_again(rows):
    def short(examples):
        return [(e["caption"], e["sample_id"], e["epoch"], e["chosen"]) for e in examples]

    assert short(first(make(rows), 60)) == short(first(make(rows), 60))
    assert short(first(make(rows), 60)) != short(first(make(rows, seed=4), 60))


def test_held_out_captions_stay_out(rows):
    held = frozenset(rows["caption"][:16])
    assert not held & {example["caption"] for example in first(make(rows, held_out=held), 100)}


def test_streams_that_cannot_be_used(rows):
    with pytest.raises(ValueError, match=r"found image, txt, missing caption"):
        make(rows.rename_column("caption", "txt"))
    with pytest.raises(ValueError, match=r"a pass over the stream gives 46 usable pairs.*fewer than one batch of 64"):
        first(make(rows, batch_size=64), 1)


def test_readers_share_the_shards(rows):
    loader = torch.utils.data.DataLoader(make(rows, batch_size=2), 2, num_workers=2, collate_fn=list)
    examples = [example for batch in islice(loader, 30) for example in batch]
    own = [example for example in examples if example["epoch"] == 0]
    captions = [example["caption"] for example in own]
    assert len(captions) == len(set(captions)) and len(captions) >= COUNT - 6
    assert len({example["sample_id"] for example in own}) == len(own)


def test_a_reader_with_less_than_a_batch_says_so(rows):
    """Not a short run: all that is read here is lost, and where every reader has too little nothing is trained."""
    loader = torch.utils.data.DataLoader(make(rows, 4, batch_size=16), 16, collate_fn=list, num_workers=2)
    assert len(next(iter(loader))) == 16
    loader = torch.utils.data.DataLoader(make(rows, 4, batch_size=16), 16, collate_fn=list, num_workers=4)
    with pytest.raises(
        ValueError, match=r"reader 1 of 4, fewer than one batch of 16; .* lower dataloader_num_workers"
    ):
        next(iter(loader))


def test_few_pairs_are_not_all_held_out(rows, photos, tmp_path, capsys):
    """Of 60 pairs three are held out, whatever was asked for; a reader's error is told without its traceback."""
    from hf_ta_cleaner.commands.clean import main

    many = concatenate_datasets([rows, rows.select(range(8, 20))]).cast_column("image", Image())
    many.save_to_disk(tmp_path / "pairs")
    run = ["--model", "sandbox", "--dataset", str(tmp_path / "pairs"), "--streaming", "--max_steps", "1"]
    run += ["--method", "ft", "--per_device_train_batch_size", "8", "--max_unreadable", "0.5", "--no_check_data"]
    main([*run, "--output_dir", str(tmp_path / "out")])
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["retrieval"]["pairs"] <= 3
    with pytest.raises(SystemExit):
        main([*run, "--dataloader_num_workers", "8", "--output_dir", str(tmp_path / "none")])
    said = capsys.readouterr().err
    assert "error: a pass over the stream gives" in said and "Traceback" not in said
    assert not (tmp_path / "none" / "model.safetensors").exists()


def test_a_trainer_takes_a_stream_and_resumes_it(rows, make_trainer):
    """Six steps at once, and the last three from a checkpoint after three: the same weights."""
    options = {"max_steps": 6, "per_device_train_batch_size": 4, "subtext_fraction": 0.5}
    saving = {"save_strategy": "steps", "save_steps": 3}
    again = make_trainer(make(rows), folder="again", **saving, **options)
    again.train()
    rest = make_trainer(make(rows), folder="rest", **options)
    rest.train(resume_from_checkpoint=again.args.output_dir + "/checkpoint-3")
    for (name, one), (_, other) in zip(again.model.named_parameters(), rest.model.named_parameters(), strict=True):
        assert torch.equal(one, other), name
    assert {"loss/subtext", "loss/inmodal"} <= again.state.log_history[0].keys()
