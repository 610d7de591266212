"""Two processes do what one does: gathering with gradient, and whole trainings at the same global batch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file
from datasets import Dataset
from transformers import CLIPConfig, CLIPModel

from hf_ta_cleaner.distributed import gather, world_size
from hf_ta_cleaner.subtexts import SubTextMap
from tests.training.distributed_run import RUNS, measure, train


HERE = Path(__file__).parent
LAUNCH = HERE.parents[1] / "scripts" / "configs" / "accelerate"


@pytest.fixture(scope="module")
def folder(tmp_path_factory, photos, tiny_processor):
    """The tiny CLIP, its processor and 20 pairs on disk: two whole batches of 8 an epoch, four pairs left over."""
    folder = tmp_path_factory.mktemp("distributed")
    tower = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    tokens = {name: getattr(tiny_processor.tokenizer, name) for name in ("bos_token_id", "eos_token_id")}
    config = CLIPConfig(
        text_config={**tower, **tokens, "vocab_size": len(tiny_processor.tokenizer)},
        vision_config={**tower, "image_size": 32, "patch_size": 8},
        projection_dim=16,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        CLIPModel(config).save_pretrained(folder / "model")
    tiny_processor.save_pretrained(folder / "model")
    nouns = ("dog", "elephant", "bus", "apple", "chair", "umbrella", "ox", "bird", "boat", "bicycle")
    captions = [
        f"a {color} {noun} on the {nouns[i - 3]}" for color in ("red", "yellow") for i, noun in enumerate(nouns)
    ]
    captions[3] = "a dog"  # one positive at most, and true of other captions
    data = Dataset.from_dict({"image": (photos * 3)[:20], "caption": captions}).map(SubTextMap(), batched=True)
    data.save_to_disk(folder / "data")
    return folder


@pytest.fixture(scope="module")
def two_processes(folder) -> list[dict]:
    """What each of two processes wrote, as `torchrun` starts them."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONHASHSEED"}
    environment |= {"PYTHONPATH": str(HERE.parents[1]), "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [*launch, str(HERE / "distributed_run.py"), str(folder)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr[-4000:]
    return [torch.load(folder / f"rank-{rank}.pt") for rank in range(2)]


def test_one_process_gathers_what_it_has():
    local = torch.arange(3.0)
    assert world_size() == 1
    assert gather(local) is local


def test_gather_by_hand(two_processes):
    own = torch.arange(4.0).view(2, 2)
    everything = torch.cat([own, own + 10])
    for rank, result in enumerate(two_processes):
        assert result["world_size"] == 2
        got = result["gather"]
        assert torch.equal(got["everything"], everything)
        # d/dx of (1 + 2) * x^2: the losses of both processes reach the part of each.
        assert torch.equal(got["gradient"], 3 * 2 * (own + 10 * rank))
        assert got["integers"].tolist() == [0, 5, 1, 5]
        assert got["flags"].tolist() == [[True, True], [False, True]]
        assert torch.equal(got["strided"], torch.cat([own.T, own.T + 10]))
        assert got["empty"].shape == (4, 0, 3)


@pytest.mark.parametrize("name", RUNS)
def test_two_processes_train_like_one(two_processes, folder, name):
    # The one process takes its batch whole.
    weights, history = train(folder, name, **{**RUNS[name], "mini_batch_size": None})
    start = dict(CLIPModel.from_pretrained(folder / "model").named_parameters())
    plain = {key.removeprefix("base_model.model."): weights[key] for key in weights}
    moved = max((value - start.get(key, 0)).abs().max() for key, value in plain.items() if "lora_A" not in key)
    assert moved > 1e-2  # a thousand times the tolerance
    for result in two_processes:
        theirs, their_history = result[name]
        assert theirs.keys() == weights.keys()
        for key in weights:
            assert torch.allclose(theirs[key], weights[key], rtol=0, atol=1e-5), key
        for line, their_line in zip(history[:-1], their_history[:-1], strict=True):
            assert line.keys() == their_line.keys()
            for key in line.keys() - {"eval_runtime"}:
                assert their_line[key] == pytest.approx(line[key], rel=1e-4, abs=1e-6), key
    term = "loss/distill" if RUNS[name].get("method") == "ta-cleaner-plus" else "loss/clip"
    assert {key for line in history for key in line} >= {term, "eval_clean_utility"}


def test_processes_agree_to_the_bit(two_processes):
    first, second = two_processes
    for name in RUNS:
        assert [key for key in first[name][0] if not torch.equal(first[name][0][key], second[name][0][key])] == []


def test_two_processes_share_a_stream(two_processes, folder):
    """Each reads pairs of its own; the step is that of both, so the weights are the same to the bit."""
    first, second = (result["stream"] for result in two_processes)
    start = dict(CLIPModel.from_pretrained(folder / "model").named_parameters())
    assert len(first["captions"]) == len(second["captions"]) == 8
    assert not set(first["captions"]) & set(second["captions"])
    for name, weight in first["weights"].items():
        assert torch.equal(weight, second["weights"][name]), name
        assert not torch.equal(weight, start[name]) or weight.ndim < 2, name


@pytest.mark.parametrize("file", sorted(LAUNCH.glob("*.yaml")), ids=lambda file: file.stem)
def test_the_launch_configurations_are_accelerates(file):
    config = load_config_from_file(str(file))
    assert config.num_processes % config.num_machines == 0
    assert str(config.distributed_type).endswith("MULTI_GPU") and str(config.mixed_precision) == "no"
    assert config.use_cpu == (file.stem == "cpu")


def test_two_processes_audit_like_one(two_processes, folder):
    """Each looks at its share of seven pictures, and both know everything afterwards."""
    section, rankings = measure(folder)
    for result in two_processes:
        theirs, their_rankings = result["audit"]
        assert their_rankings == rankings
        assert theirs == section
    assert section["clean_accuracy"]["n"] == section["linear_probe"]["n"] == section["retrieval"]["images"] == 7


def test_dealt_rows_come_together_again(monkeypatch):
    """Five rows over four processes, and two over four: some get none."""
    import numpy as np

    from hf_ta_cleaner import distributed

    for n in (5, 2):
        rows = np.arange(10, 10 + n)
        hands = []
        monkeypatch.setattr(distributed, "world_size", lambda: 4)
        for rank in range(4):
            monkeypatch.setattr(distributed.dist, "get_rank", lambda rank=rank: rank)
            own = distributed.dealt(rows)
            hands.append({"x": own, "y": np.stack([own, -own], axis=1)} if len(own) else {})
        assert [len(hand.get("x", ())) for hand in hands] == [len(rows[rank::4]) for rank in range(4)]

        def share(out, own, hands=hands):
            out[:] = hands

        monkeypatch.setattr(distributed.dist, "all_gather_object", share)
        whole = distributed.undeal(hands[3])
        assert whole["x"].tolist() == rows.tolist()
        assert whole["y"].tolist() == [[i, -i] for i in rows]
