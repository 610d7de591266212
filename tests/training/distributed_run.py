"""What test_distributed.py runs in two processes: gather on known numbers, then a training. Each writes what it got.

torchrun --standalone --nproc_per_node 2 tests/distributed_run.py FOLDER
"""

from __future__ import annotations

import sys
from itertools import islice
from pathlib import Path

import torch
from datasets import ClassLabel, load_from_disk
from transformers import CLIPModel, CLIPProcessor

from hf_ta_cleaner.attacks import get_attack
from hf_ta_cleaner.data.streaming import CleaningStream
from hf_ta_cleaner.distributed import gather, world_size
from hf_ta_cleaner.evaluation.full_audit import FullAudit
from hf_ta_cleaner.training.config import TACleanerConfig
from hf_ta_cleaner.training.trainer import TACleanerTrainer


#: Pairs of a step, over all processes.
GLOBAL_BATCH = 8


def train(
    folder: Path, name: str, processes: int = 1, data=None, **options
) -> tuple[dict[str, torch.Tensor], list[dict]]:
    """Three steps with plain SGD, so that a wrong gradient shows in its size. Returns (weights, log)."""
    model = CLIPModel.from_pretrained(folder / "model")
    args = TACleanerConfig(
        output_dir=str(folder / f"{name}-{processes}"),
        per_device_train_batch_size=GLOBAL_BATCH // processes,
        max_steps=3,
        optim="sgd",
        max_grad_norm=1.0,
        warmup_steps=0,
        logging_steps=1,
        save_strategy="no",
        eval_strategy="steps",
        eval_steps=3,
        disable_tqdm=True,
        use_cpu=True,
        **{"learning_rate": 0.2} | options,
    )
    held_out = load_from_disk(folder / "data")
    data = held_out if data is None else data
    processor = CLIPProcessor.from_pretrained(folder / "model")
    trainer = TACleanerTrainer(model, args, data, eval_dataset=held_out.select(range(6)), processing_class=processor)
    trainer.train()
    weights = {name: parameter.detach().clone() for name, parameter in trainer.model.named_parameters()}
    return weights, trainer.state.log_history


def gather_known_numbers(rank: int) -> dict[str, torch.Tensor]:
    """Process r brings [[r0, r1], [r2, r3]] and weighs the sum of squares of all by r + 1."""
    local = (torch.arange(4.0).view(2, 2) + 10 * rank).requires_grad_()
    everything = gather(local)
    ((rank + 1) * everything.square().sum()).backward()
    return {
        "everything": everything.detach(),
        "gradient": local.grad,
        "integers": gather(torch.tensor([rank, 5])),
        "flags": gather(torch.tensor([[rank == 0, True]])),
        "strided": gather(local.detach().T),
        "empty": gather(torch.zeros(2, 0, 3)),
    }


def train_on_stream(folder: Path, rank: int, processes: int) -> dict:
    """Three steps on a process's part of a stream of four shards; the weights, and the captions of its first pass."""
    batch = GLOBAL_BATCH // processes
    stream = CleaningStream(
        load_from_disk(folder / "data").to_iterable_dataset(num_shards=4),
        batch_size=batch, fraction=0.5, seed=0, rank=rank, processes=processes,
    )  # fmt: skip
    weights, _ = train(folder, "stream", processes, stream, subtext_fraction=0.5)
    return {"weights": weights, "captions": [row["caption"] for row in islice(stream, 2 * batch)]}


def measure(folder: Path) -> tuple[dict, list]:
    """An audit of seven pictures, with everything in it. Returns (section, ranked predictions)."""
    model, processor = CLIPModel.from_pretrained(folder / "model"), CLIPProcessor.from_pretrained(folder / "model")
    data = load_from_disk(folder / "data").select(range(7))
    names = ClassLabel(names=["dog", "bus", "apple"])
    labelled = data.add_column("label", [0, 1, 2, 0, 1, 2, 0]).cast_column("label", names)
    captioned = data.map(lambda row: {"captions": [row["caption"]]})
    proof = FullAudit(
        labelled,
        {"blended": get_attack("blended")},
        target="apple",
        captioned=captioned,
        probe=labelled,
        batch_size=2,
        progress=False,
    )
    section, predictions = proof(model, processor)
    return section, [predictions.clean.tolist(), predictions.attacks["blended"].tolist()]


def main() -> None:
    folder = Path(sys.argv[1])
    state = TACleanerConfig(output_dir=str(folder / "unused"), use_cpu=True)  # joins the process group
    rank, processes = state.process_index, state.world_size
    result = {"world_size": world_size(), "gather": gather_known_numbers(rank)}
    for name, options in RUNS.items():
        result[name] = train(folder, name, processes, **options)
    result["stream"] = train_on_stream(folder, rank, processes)
    result["audit"] = measure(folder)
    torch.save(result, folder / f"rank-{rank}.pt")


#: Name of a training -> its settings.
RUNS: dict[str, dict] = {
    "ta-cleaner": {"num_positive": 2, "num_negative": 2, "subtext_fraction": 0.5},
    "no-negatives": {"num_negative": 0, "train_logit_scale": False},
    "cleanclip": {"method": "cleanclip"},
    "ta-cleaner-plus": {"method": "ta-cleaner-plus", "repel_weight": 2.0, "repel_share": 0.7, "mini_batch_size": 2},
    "adversary": {"method": "ta-cleaner-plus", "adversarial_search": 3, "adversarial_blend": 0.25},
    "lora": {"method": "par", "use_peft": True, "learning_rate": 2.0},
}


if __name__ == "__main__":
    main()
