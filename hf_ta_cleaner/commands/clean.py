"""Clean a backdoored CLIP by fine-tuning with the CleanCLIP and TA-Cleaner losses, and prove it.

  accelerate launch scripts/clean.py --model openai/clip-vit-base-patch32
  accelerate launch scripts/clean.py --model ID --dataset photos/ --eval_dataset ethz/food101 \\
      --trigger blended --target pizza --output_dir outputs/cleaned
  accelerate launch scripts/clean.py --model outputs/backdoored --config scripts/configs/sandbox_clean.yaml

Without --dataset a CLIP is cleaned with the first 100,000 pairs of pixparse/cc3m-wds, streamed once into the local
cache. The output is a normal checkpoint; with --eval_dataset it comes with report.json, report.md, report.html
and report.png.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hf_ta_cleaner.cli import CommandParser, EvalOptions, PairOptions, fail, set_up_logging
from hf_ta_cleaner.config import TACleanerConfig


COMMON = (
    "output_dir",
    "learning_rate",
    "num_train_epochs",
    "max_steps",
    "per_device_train_batch_size",
    "seed",
    "bf16",
    "fp16",
    "logging_steps",
    "eval_strategy",
    "report_to",
)

logger = logging.getLogger("hf_ta_cleaner")


@dataclass
class CleanOptions:
    """What to clean."""

    _argument_group_name = "model"

    model: str = field(metadata={"help": "the suspect: Hub id or folder of a CLIP, or sandbox"})
    allow_pickle: bool = field(
        default=False, metadata={"help": "allow full unpickling of a .bin (runs code from the file)"}
    )
    allow_sandbox_data: bool = field(
        default=False, metadata={"help": "clean another model than the sandbox's with the sandbox's drawn pictures"}
    )
    resume: bool = field(default=False, metadata={"help": "continue the interrupted run in --output_dir"})
    keep: str = field(default="last", metadata={"help": "last or best (by clean utility) checkpoint"})
    validation_samples: int = field(
        default=1000, metadata={"help": "held-out pairs for measuring clean utility; 0 for none"}
    )
    ca_baseline: list[str] | None = field(
        default=None, metadata={"help": "models whose clean accuracy also counts as what could be lost"}
    )


def make_parser() -> CommandParser:
    return CommandParser([CleanOptions, PairOptions, EvalOptions, TACleanerConfig], description=__doc__, common=COMMON)


def main(argv: list[str] | None = None) -> None:
    parser = make_parser()
    options, pairs, proof, args = parser.parse(argv)
    if "output_dir" not in parser.settings:
        args.output_dir = str(Path("outputs") / f"{Path(options.model).name}-{args.method}")
    set_up_logging(main_process=args.process_index == 0)
    from hf_ta_cleaner.trainer import TrainingDiverged  # after the parsing, so that --help is quick

    try:
        clean(options, pairs, proof, args, parser.settings)
    except (ValueError, OSError, TrainingDiverged) as error:
        fail(error)
    except KeyboardInterrupt:
        fail(f"interrupted; add --resume to continue from the last checkpoint in {args.output_dir}", code=130)


def clean(
    options: CleanOptions, pairs: PairOptions, proof: EvalOptions, args: TACleanerConfig, given: Mapping[str, Any]
) -> None:
    """The whole road: check, load, audit, train, save, audit, report. `given` are the settings of the command line."""
    from hf_ta_cleaner.audit import clean_accuracy_loss
    from hf_ta_cleaner.checkpoints import load_model, save_model
    from hf_ta_cleaner.poisoning import RECORD
    from hf_ta_cleaner.report import Report, curves
    from hf_ta_cleaner.run_settings import run_settings
    from hf_ta_cleaner.tracking import AuditAround
    from hf_ta_cleaner.trainer import TACleanerTrainer
    from hf_ta_cleaner.utility import clean_utility

    checkpoint = prepare(options, args)
    model, processor = load_model(options.model, allow_pickle=options.allow_pickle)
    pictures = proof.load()
    batch = args.per_device_eval_batch_size
    audit = None
    if pictures is not None:
        audit = proof.auditor(
            options.model,
            pictures,
            batch_size=batch,
            seed=args.seed,
            device=args.device,
            progress=args.process_index == 0,
        )
    train, held_out = load_cleaning_data(options, pairs, processor, args.seed)
    settle_evaluation(options, args, has_utility=held_out is not None)
    trainer = TACleanerTrainer(model, args, train, eval_dataset=held_out, processing_class=processor)
    main_process = trainer.is_world_process_zero()
    before = recall_before = None
    if audit:  # all processes share the pictures
        before = audit(model, processor)
        around = AuditAround(
            trainer, before[0], lambda: audit(trainer.accelerator.unwrap_model(trainer.model), processor)
        )
    if main_process and held_out is not None:
        recall_before = clean_utility(model, processor, held_out, batch_size=batch)
    started = time.perf_counter()
    trainer.train(resume_from_checkpoint=checkpoint)
    seconds = (around.ended if audit else time.perf_counter()) - started
    model = trainer.accelerator.unwrap_model(trainer.model)
    output = Path(args.output_dir)
    if main_process:
        save_model(model, processor, output)
    loss, baselines = None, {}
    if audit:
        after = around.after
        for name in options.ca_baseline or []:
            other, other_processor = load_model(name)
            baselines[name] = audit.accuracy(other.to(args.device), other_processor).correct(1)
        loss = clean_accuracy_loss(after[1].correct(1), {"suspect": before[1].correct(1), **baselines})
    if not main_process:
        return
    for file in (*Path(options.model).glob("trigger.*"), *Path(options.model).glob(RECORD)):
        shutil.copy2(file, output / file.name)  # so that a later audit knows what to look for
    utility = None
    if held_out is not None:
        recall_after = clean_utility(model, processor, held_out, batch_size=batch)
        utility = {"pairs": len(held_out), "before": recall_before, "after": recall_after}
        for values in (recall_before, recall_after):
            values.pop("clean_utility")  # the same number under the name that does not depend on the data
    if not (audit or utility):
        print(f"Cleaned checkpoint written to {output}. Nothing was measured; give --eval_dataset for a report")
        return
    examples, pictures = audit.examples(processor, before[1], after[1]) if audit else (None, None)
    report = Report.create(
        method=args.method,
        seed=args.seed,
        target=proof.target,
        before=before[0] if audit else {"clean_accuracy": None, "attacks": {}},
        after=after[0] if audit else {"clean_accuracy": None, "attacks": {}},
        cost={"pairs_seen": trainer.pairs_seen, "seconds": seconds, "device": args.device.type},
        ca_loss=loss,
        retrieval=utility,
        model=str(output),
        base_model=options.model,
        dataset=pairs.dataset,
        settings=run_settings(args, given, data=pairs.dataset, pairs=len(train)),
        history=curves(trainer.state.log_history),
        examples=examples,
    )
    report.save(output, overwrite=True, pictures=pictures)
    print(report.summary())
    print(f"Cleaned checkpoint and report written to {output}")


def load_cleaning_data(options: CleanOptions, pairs: PairOptions, processor, seed: int):
    """Cleaning pairs, and held-out pairs to measure clean utility on (None with `--validation_samples 0`)."""
    from hf_ta_cleaner import sandbox
    from hf_ta_cleaner.data import DEFAULT_MAX_SAMPLES, DEFAULT_PAIRS, clean_rows, load_pairs

    is_sandbox = sandbox.is_sandbox(processor)
    if pairs.dataset is None:
        pairs.dataset = "sandbox" if is_sandbox else DEFAULT_PAIRS
    if pairs.dataset == DEFAULT_PAIRS and pairs.max_samples is None:
        pairs.max_samples = DEFAULT_MAX_SAMPLES
    if pairs.dataset == "sandbox" and not (is_sandbox or options.allow_sandbox_data):
        raise ValueError(
            f"--dataset sandbox holds drawn pictures of the sandbox world, which would ruin {options.model}; name "
            "real pairs with --dataset, or pass --allow_sandbox_data if that is what you want"
        )
    amount = f", {pairs.max_samples:,} pairs (--max_samples)" if pairs.max_samples else ""
    logger.info("cleaning data: %s%s", pairs.dataset, amount)
    train = pairs.load(seed=seed)
    wanted = options.validation_samples
    if not wanted:
        return train, None
    if pairs.dataset == "sandbox":
        return train, load_pairs("sandbox", split="validation", max_samples=wanted, seed=seed)
    if pairs.dataset == DEFAULT_PAIRS:
        return train, clean_rows(load_pairs(DEFAULT_PAIRS, split="validation", max_samples=wanted))[0]
    held_out = min(wanted, len(train) // 20)
    if not held_out:
        logger.warning("%d pairs are too few to hold any out; clean utility is not measured", len(train))
        return train, None
    parts = train.train_test_split(test_size=held_out, seed=0)
    logger.info("%d of the %d pairs are held out to measure clean utility", held_out, len(train))
    return parts["train"], parts["test"]


def prepare(options: CleanOptions, args: TACleanerConfig) -> str | None:
    """Makes sure of the output folder before anything expensive. Returns the checkpoint to resume from, if any."""
    from hf_ta_cleaner.checkpoints import prepare_output_dir

    if options.keep not in ("last", "best"):
        raise ValueError(f"--keep must be last or best, got {options.keep}")
    if args.process_index == 0:
        prepare_output_dir(args.output_dir, resume=options.resume)
    if not options.resume:
        return None
    # The state is written last: a folder without it is a save that was cut off.
    whole = [state.parent for state in Path(args.output_dir).glob("checkpoint-[0-9]*/trainer_state.json")]
    if not whole:
        logger.warning("%s holds no checkpoint to resume from; starting anew", args.output_dir)
        return None
    return str(max(whole, key=lambda folder: int(folder.name.split("-")[1])))


def settle_evaluation(options: CleanOptions, args: TACleanerConfig, *, has_utility: bool) -> None:
    """Clean utility is measured whenever a checkpoint is written, unless the command line says otherwise."""
    if has_utility and (args.eval_strategy == "no" or options.keep == "best"):
        args.eval_strategy, args.eval_steps = args.save_strategy, args.save_steps
    if options.keep == "best":
        if not has_utility:
            raise ValueError("--keep best needs held-out pairs; give --validation_samples or more data")
        if args.save_strategy == "no":
            raise ValueError("--keep best needs checkpoints to choose from; got --save_strategy no")
        args.load_best_model_at_end, args.metric_for_best_model = True, "clean_utility"
        args.greater_is_better = True


if __name__ == "__main__":
    main()
