"""One way to take cleaning steps, timed: the trainer, a bare loop around the same parts, or the reference style."""

from __future__ import annotations

import itertools
import tempfile
import time
from typing import Any

import torch
from torch.utils.data import DataLoader
from transformers import TrainerCallback

from benchmarks.speed.reference import Reference, keeps_suspect
from benchmarks.speed.worlds import flops, make_model, make_pairs, make_processor, repeated
from hf_ta_cleaner.data.resizing import resized_once
from hf_ta_cleaner.data.sampling import CleaningPairs, CleaningSampler
from hf_ta_cleaner.losses import LOSSES
from hf_ta_cleaner.models.acceleration import compile_blocks, group_texts, text_groups, use_silu
from hf_ta_cleaner.models.allocator import keep_freed_memory
from hf_ta_cleaner.models.families import FAMILIES
from hf_ta_cleaner.models.suspect import Suspect
from hf_ta_cleaner.models.zero_shot import input_size
from hf_ta_cleaner.subtexts import Parts, SubTextMap, Vocabulary
from hf_ta_cleaner.training.config import TACleanerConfig
from hf_ta_cleaner.training.embedding import Embedder, normalise
from hf_ta_cleaner.training.perturbations import Perturbations
from hf_ta_cleaner.training.trainer import TACleanerTrainer
from hf_ta_cleaner.views.collator import DataCollatorForTACleaner


#: Rows that are held; more are repeats of them, so that the data's own memory is the same for every batch.
HELD = 512


def measure(
    shape: str,
    how: str,
    method: str,
    batch: int,
    steps: int,
    options: dict[str, Any],
    warmup: int = 1,
    profile: bool = False,
) -> dict[str, Any]:
    """Seconds a step, the mean of `steps`, with the first loss and what passed through the towers.

    Args:
        how: trainer, bare, reference, or towers: forward and backward of one batch that is already there.
        options: Settings of the run, such as `bf16`.
        warmup: Steps before those that are timed: memory is fetched, the optimiser's state is made, and, where others
            prepare the batches, what they prepared beforehand is used up.
        profile: Also return where the time of the last steps went.
    """
    model, processor = make_model(shape), make_processor(shape)
    n = batch * (warmup + steps + 1)
    pairs = make_pairs(shape, min(n, HELD))
    with tempfile.TemporaryDirectory() as folder:
        args = TACleanerConfig(
            folder,
            method=method,
            per_device_train_batch_size=batch,
            max_steps=warmup + steps,
            warmup_steps=0,
            adversarial_search=0,  # before the first step, and not a part of any
            rewind=0.0,  # a copy of the weights there and back in half of the steps, which no other way takes
            save_strategy="no",
            disable_tqdm=True,
            **options,
        )
        if args.resize_once:  # before the rows are repeated
            pairs, args.resize_once = resized_once(pairs, input_size(processor)), False
        if args.weights["subtext"]:
            pairs = pairs.map(SubTextMap(), batched=True, keep_in_memory=True)
        take = {"trainer": in_trainer, "bare": in_bare_loop, "reference": in_reference, "towers": in_towers}[how]
        precision = "bf16" if args.bf16 else "fp32"
        return {"precision": precision} | take(
            model, processor, repeated(pairs, n), args, Clock(warmup, steps, profile)
        )


class Clock(TrainerCallback):
    """Notes the time after the warm-up and after the last step, waiting for the device there and nowhere else."""

    def __init__(self, warmup: int, steps: int, profile: bool = False) -> None:
        self.warmup, self.steps, self.done, self.started, self.seconds = warmup, steps, 0, 0.0, 0.0
        activities = [torch.profiler.ProfilerActivity.CPU]
        if torch.cuda.is_available():
            activities.append(torch.profiler.ProfilerActivity.CUDA)
        self.profiler = torch.profiler.profile(activities=activities) if profile else None
        self.losses: list[torch.Tensor] = []

    def step_done(self) -> None:
        self.done += 1
        if self.done == self.warmup:
            wait()
            if self.profiler is not None:
                self.profiler.start()
            self.started = time.perf_counter()
        if self.done == self.warmup + self.steps:
            wait()
            self.seconds = (time.perf_counter() - self.started) / self.steps
            if self.profiler is not None:
                self.profiler.stop()

    def on_step_end(self, args, state, control, **kwargs) -> None:
        self.step_done()

    def result(self, **more: Any) -> dict[str, Any]:
        profile = {}
        if self.profiler is not None:
            key = "self_cuda_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
            profile = {"profile": self.profiler.key_averages().table(sort_by=key, row_limit=25)}
        return {"seconds": self.seconds, **more, **profile}


def wait() -> None:
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()


def seen(model, batch: dict[str, torch.Tensor], size: int, repels: bool) -> dict[str, Any]:
    """What passed the towers in a step, and its operations: forward, backward (twice that), the suspect's forward."""
    mask = batch["attention_mask"]
    images, (texts, longest) = len(batch["pixel_values"]), mask.shape
    groups = text_groups(mask) if mask.device.type == "cpu" else [(mask, longest)]
    views = flops(model.config, images, 0, 0) + sum(flops(model.config, 0, len(rows), n) for rows, n in groups)
    suspect = flops(model.config, size, size, longest) if repels else 0
    return {"images": images, "texts": texts, "length": longest, "flops": 3 * views + suspect}


def in_trainer(model, processor, pairs, args: TACleanerConfig, clock: Clock) -> dict[str, Any]:
    trainer = TACleanerTrainer(model, args, pairs, processing_class=processor, callbacks=[clock])
    first: list[float] = []
    trainer.add_callback(_FirstLoss(trainer, first))
    trainer.train()
    batch = next(iter(trainer.get_train_dataloader()))
    size = args.per_device_train_batch_size
    more = seen(model, batch, size, keeps_suspect(args))
    return clock.result(loss=first[0], **more)


class _FirstLoss(TrainerCallback):
    def __init__(self, trainer: TACleanerTrainer, losses: list[float]) -> None:
        self.trainer, self.losses = trainer, losses

    def on_step_end(self, args, state, control, **kwargs) -> None:
        if not self.losses:
            control.should_log = True

    def on_log(self, args, state, control, logs=None, **kwargs) -> None:
        if "loss" in logs and not self.losses:
            terms = {name: logs.get(f"loss/{name}", 0.0) for name in self.trainer.objective.weights}
            self.losses.append(sum(self.trainer.objective.weights[name] * value for name, value in terms.items()))


def sampler_of(pairs, args: TACleanerConfig) -> CleaningSampler:
    eligible = (
        [Parts.from_row(row).eligible for row in pairs["parts"]] if args.weights["subtext"] else [False] * len(pairs)
    )
    return CleaningSampler(
        eligible,
        batch_size=args.per_device_train_batch_size,
        fraction=args.subtext_fraction if args.weights["subtext"] else 0.0,
        seed=args.seed,
    )


def collator_of(processor, pairs, args: TACleanerConfig) -> DataCollatorForTACleaner:
    return DataCollatorForTACleaner(
        processor,
        augment=bool(args.weights["inmodal"]),
        vocabulary=Vocabulary.from_parts(pairs["parts"]) if args.weights["subtext"] else None,
        num_positive=args.num_positive,
        num_negative=args.num_negative,
        seed=args.seed,
        noise=args.image_noise,
        erase=args.image_erase,
        noise_sigma=args.noise_sigma,
    )


def in_bare_loop(model, processor, pairs, args: TACleanerConfig, clock: Clock) -> dict[str, Any]:
    """The same parts without `Trainer`: what is left of the time beyond this is the trainer's own."""
    device, bf16 = args.device, args.bf16
    if device.type == "cpu":
        keep_freed_memory()
    use_silu(model)
    group_texts(model)
    if bf16 and device.type == "cpu":
        model.set_attn_implementation("eager")
    model.to(device).train()
    model.logit_scale.requires_grad_(args.train_logit_scale)
    suspect = Suspect(model) if keeps_suspect(args) else None
    decays = [p for n, p in model.named_parameters() if p.ndim >= 2 and "token" not in n and "position" not in n]
    kept = {id(p) for p in decays}
    rest = [p for p in model.parameters() if id(p) not in kept and p.requires_grad]
    groups = [{"params": decays, "weight_decay": args.weight_decay}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=args.learning_rate, fused=True)
    loader = DataLoader(
        CleaningPairs(pairs),
        args.per_device_train_batch_size,
        sampler=sampler_of(pairs, args),
        collate_fn=collator_of(processor, pairs, args),
        num_workers=args.dataloader_num_workers,
        pin_memory=args.dataloader_pin_memory,
        drop_last=True,
    )
    embedder = Embedder(
        FAMILIES["clip"], processor.image_processor, augmented=bool(args.weights["inmodal"]), suspect=suspect
    )
    perturbations = Perturbations(args, processor.image_processor, args.draw_seed)
    first = more = None
    for number, batch in enumerate(itertools.islice(loader, args.max_steps)):
        batch = {name: value.to(device, non_blocking=True) for name, value in batch.items()}
        batch = perturbations(batch, args.per_device_train_batch_size, number, 0)
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            views = embedder(model, batch)
        loss = sum(weight * LOSSES[name](views) for name, weight in args.weights.items() if weight)
        loss.backward()
        perturbations.ascend()
        torch.nn.utils.clip_grad_norm_(model.parameters(), args.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        first = loss.detach() if first is None else first
        if more is None:
            size = args.per_device_train_batch_size
            more = seen(model, batch, size, suspect is not None)
        clock.step_done()
    return clock.result(loss=first.item(), **more)


def in_towers(model, processor, pairs, args: TACleanerConfig, clock: Clock) -> dict[str, Any]:
    """What the towers alone take: no input, no loss, no optimiser."""
    use_silu(model)
    group_texts(model)
    if args.torch_compile:
        compile_blocks(model, backend=args.torch_compile_backend)
    model.to(args.device).train()
    size = args.per_device_train_batch_size
    keys, rows = itertools.islice(sampler_of(pairs, args), size), CleaningPairs(pairs)
    batch = collator_of(processor, pairs, args)([rows[key] for key in keys])
    pixels = normalise(batch["pixel_values"].to(args.device), processor.image_processor)
    texts = {name: batch[name].to(args.device) for name in ("input_ids", "attention_mask")}
    for _ in range(args.max_steps):
        with torch.autocast(args.device.type, torch.bfloat16, enabled=args.bf16):
            output = model(pixel_values=pixels, **texts)
        (output.image_embeds.float().sum() + output.text_embeds.float().sum()).backward()
        model.zero_grad()
        clock.step_done()
    return clock.result(**seen(model, {"pixel_values": pixels, **texts}, size, repels=False))


def in_reference(model, processor, pairs, args: TACleanerConfig, clock: Clock) -> dict[str, Any]:
    from datasets import Image

    vocabulary = Vocabulary.from_parts(pairs["parts"]) if args.weights["subtext"] else None
    reference = Reference(model, processor, args, vocabulary)
    rows = CleaningPairs(pairs.cast_column("image", Image(decode=False)))
    keys = iter(sampler_of(pairs, args))
    first = None
    for _ in range(args.max_steps):
        loss = reference.step([rows[key] for key in itertools.islice(keys, args.per_device_train_batch_size)])
        first = loss if first is None else first
        clock.step_done()
    return clock.result(loss=first.item())
