"""Clean a backdoored CLIP by fine-tuning with the losses of CleanCLIP, TA-Cleaner and PAR, and prove it.

  accelerate launch scripts/clean.py --model openai/clip-vit-base-patch32
  accelerate launch scripts/clean.py --model ID --dataset photos/ --eval_dataset ethz/food101 \\
      --trigger blended --target pizza --output_dir outputs/cleaned

Without --dataset a CLIP is cleaned with the first 100,000 pairs of pixparse/cc3m-wds, streamed once into the local
cache; a sample is checked for poison. The output is a normal checkpoint with a card; with --eval_dataset it comes with
report.json, .md, .html and .png, and a sentence that says what to do. --push_to_hub publishes all in one commit.
"""

from __future__ import annotations

import copy
import logging
import shutil
import time
from pathlib import Path
from typing import Any

from hf_ta_cleaner.commands.clean.options import CleanOptions, check_options, prepare, settle_evaluation
from hf_ta_cleaner.commands.options import EvalOptions, PairOptions
from hf_ta_cleaner.commands.parser import CommandParser, fail, set_up_logging
from hf_ta_cleaner.training.config import TACleanerConfig


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
    "push_to_hub",
    "hub_model_id",
    "hub_private_repo",
    "hub_strategy",
)

logger = logging.getLogger("hf_ta_cleaner")


def make_parser() -> CommandParser:
    return CommandParser([CleanOptions, PairOptions, EvalOptions, TACleanerConfig], description=__doc__, common=COMMON)


def main(argv: list[str] | None = None) -> None:
    parser = make_parser()
    options, pairs, proof, args = parser.parse(argv)
    if "output_dir" not in parser.settings:
        args.output_dir = str(Path("outputs") / f"{Path(options.model).name}-{args.method}")
    set_up_logging(main_process=args.process_index == 0)
    from hf_ta_cleaner.training.trainer import TrainingDiverged  # after the parsing, so that --help is quick

    try:
        clean(options, pairs, proof, args, parser.settings)
    except (ValueError, OSError, ImportError, TrainingDiverged) as error:
        fail(error)
    except KeyboardInterrupt:
        fail(f"interrupted; add --resume to continue from the last checkpoint in {args.output_dir}", code=130)


def clean(
    options: CleanOptions, pairs: PairOptions, proof: EvalOptions, args: TACleanerConfig, settings: dict[str, Any]
) -> None:
    """The whole road: check, load, audit, train, save, audit, report."""
    from hf_ta_cleaner.commands.clean.pairs import choose_dataset, cleaning_pairs, cleaning_stream
    from hf_ta_cleaner.data.naming import public_name
    from hf_ta_cleaner.detection.pair_check import warn_of_poison
    from hf_ta_cleaner.detection.scan import ScanBothTimes
    from hf_ta_cleaner.evaluation.audit import clean_accuracy_loss
    from hf_ta_cleaner.evaluation.clean_utility import clean_utility
    from hf_ta_cleaner.models.checkpoints import load_model, save_model
    from hf_ta_cleaner.models.lora import merge
    from hf_ta_cleaner.models.open_clip import load_open_clip
    from hf_ta_cleaner.poisoning import RECORD
    from hf_ta_cleaner.publishing.advice import advice
    from hf_ta_cleaner.publishing.hub import push_checkpoint, write_card
    from hf_ta_cleaner.publishing.report import Report, curves
    from hf_ta_cleaner.publishing.settings import run_settings, save_config
    from hf_ta_cleaner.sandbox import is_sandbox
    from hf_ta_cleaner.training.estimate import steps_of
    from hf_ta_cleaner.training.runs import RunLog, taken_over
    from hf_ta_cleaner.training.strength import clear, train_strongest, with_strength
    from hf_ta_cleaner.training.tracking import AuditAround
    from hf_ta_cleaner.training.trainer import TACleanerTrainer

    if options.dry_run:
        print(dry_run(options, pairs, proof, args).text())
        return
    checkpoint = prepare(options, proof, args)
    log = RunLog(args.output_dir, settings, resume=options.resume, write=args.process_index == 0)
    automatic = options.strength == "auto"
    strong = args if automatic else with_strength(args, float(options.strength))
    load = load_open_clip if options.from_open_clip else load_model
    model, processor = load(options.model, allow_pickle=options.allow_pickle)
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
    choose_dataset(
        pairs, options.model, processor, streaming=options.streaming, allow_sandbox=options.allow_sandbox_data
    )
    if is_sandbox(processor) and "learning_rate" not in settings:
        logger.warning(
            "the rate of %g is for a real CLIP; the sandbox's is small and wants --config %s",
            args.learning_rate, "scripts/configs/sandbox_clean.yaml",
        )  # fmt: skip
    held = options.validation_samples
    if options.streaming:
        train, held_out = cleaning_stream(pairs, args, held_out=held)
    else:
        train, held_out = cleaning_pairs(pairs, held_out=held, seed=args.seed)
    if automatic and held_out is None:
        raise ValueError("--strength auto measures on held-out pairs, and the data are too few for any; give more")
    settle_evaluation(options, strong, has_utility=held_out is not None)
    if not options.streaming:
        steps = steps_of(args, len(train))
        logger.info("%d pairs, %d steps; --dry_run says what they cost in time and memory", len(train), steps)

    def make_trainer(strong: TACleanerConfig, model=model, callbacks=()) -> TACleanerTrainer:
        return TACleanerTrainer(
            model, strong, train, eval_dataset=held_out, processing_class=processor, callbacks=list(callbacks)
        )

    # At once, to refuse early what it cannot do.
    trainer = make_trainer(strong, copy.deepcopy(model)) if automatic else make_trainer(strong, callbacks=[log])
    model.to(args.device)
    main_process = trainer.is_world_process_zero()
    sample = held_out if options.streaming else train
    if main_process and options.check_data and sample is not None:
        warn_of_poison(model, processor, sample, seed=args.seed)
    before = recall_before = around = None
    if audit:  # all processes share the pictures
        before = audit(model, processor)
        baselines = {"suspect": before[1].correct(1)}

        def right(name: str):  # a function, so that no baseline is kept while the suspect trains
            other, its_processor = load_model(name)
            return audit.accuracy(other.to(args.device), its_processor).correct(1)

        for name in options.ca_baseline or []:
            baselines[public_name(name) if public_name(name) not in baselines else name] = right(name)
    search = None
    if main_process and options.scan:
        search = ScanBothTimes.of(audit, args.output_dir, reference_name=public_name(proof.reference))
        search("before", model, processor, public_name(options.model))
    if main_process and held_out is not None:
        recall_before = clean_utility(model, processor, held_out, batch_size=batch)
    if automatic:
        del trainer
        model.cpu()  # every run gets a copy of it
        log.begin()
        trainer, found = train_strongest(
            lambda strong: make_trainer(strong, copy.deepcopy(model)),
            strong,
            budget=options.utility_budget,
            resume=options.resume,
        )
        cost = found.cost()
    else:
        if taken_over(trainer, checkpoint):
            log.begin()
        else:
            if audit:
                around = AuditAround(
                    trainer, before[0], lambda: audit(trainer.accelerator.unwrap_model(trainer.model), processor)
                )
            trainer.train(resume_from_checkpoint=checkpoint)
        seconds = log.seconds_until(around.ended if around else time.perf_counter())
        cost = {"pairs_seen": trainer.pairs_seen, "seconds": seconds, "strength": float(options.strength)}
    model = trainer.accelerator.unwrap_model(trainer.model)
    if options.merge_adapter:
        model = merge(model)
    output = Path(args.output_dir)
    if main_process:
        save_model(model, processor, output)
        if automatic:
            clear(output)
    loss, after = None, None
    if audit:
        after = around.after if around else audit(model, processor)
        loss = clean_accuracy_loss(after[1].correct(1), baselines)
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
    if search:
        search("after", model, processor, public_name(output))
    if audit or utility:
        examples, drawn = audit.examples(processor, before[1], after[1]) if audit else (None, None)
        report = Report.create(
            method=args.method,
            seed=args.seed,
            target=proof.target,
            before=before[0] if audit else {"clean_accuracy": None, "attacks": {}},
            after=after[0] if audit else {"clean_accuracy": None, "attacks": {}},
            cost={**cost, "device": args.device.type},
            ca_loss=loss,
            retrieval=utility,
            scan=search.entries if search else None,
            model=public_name(output),
            base_model=public_name(options.model),
            dataset=public_name(pairs.dataset),
            settings=run_settings(
                trainer.args,
                settings,
                data=pairs.dataset,
                pairs=trainer.pairs_seen if options.streaming else len(train),
            ),
            history=curves(trainer.state.log_history),
            examples=examples,
            notes=notes_on(options, args, cost),
        )
        report.save(output, overwrite=True, pictures=drawn)
        print(report.summary())
        print(f"Cleaned checkpoint and report written to {output}")
        print(advice(report, output))
    else:
        print(f"Cleaned checkpoint written to {output}. Nothing was measured; give --eval_dataset for a report")
    # What repeats the chosen run: its rates as they were, strength 1, and no search.
    data = {"dataset": pairs.dataset, "max_samples": pairs.max_samples, "strength": None, "utility_budget": None}
    repeated = {**settings, **trainer.args.recipe, **data}
    save_config(output, {name: value for name, value in repeated.items() if value is not None})
    write_card(output, repo_id=args.hub_model_id if args.push_to_hub else None, backdoored=False)
    if args.push_to_hub:
        url = push_checkpoint(output, args.hub_model_id, private=args.hub_private_repo, token=args.hub_token)
        print(f"Pushed to {url}")


def dry_run(options: CleanOptions, pairs: PairOptions, proof: EvalOptions, args: TACleanerConfig):
    """What the cleaning would cost: an `estimate.Estimate` from a few steps on a copy of the model."""
    from hf_ta_cleaner.commands.clean.pairs import choose_dataset, few_pairs
    from hf_ta_cleaner.models.checkpoints import load_model
    from hf_ta_cleaner.models.open_clip import load_open_clip
    from hf_ta_cleaner.training.estimate import estimate, pairs_timed
    from hf_ta_cleaner.training.strength import with_strength
    from hf_ta_cleaner.training.trainer import TACleanerTrainer

    check_options(options, proof, args)
    automatic = options.strength == "auto"
    load = load_open_clip if options.from_open_clip else load_model
    model, processor = load(options.model, allow_pickle=options.allow_pickle)
    choose_dataset(
        pairs, options.model, processor, streaming=options.streaming, allow_sandbox=options.allow_sandbox_data
    )
    train, amount = few_pairs(pairs, pairs_timed(args), held_out=options.validation_samples, seed=args.seed)
    strong = args if automatic else with_strength(args, float(options.strength))
    return estimate(
        lambda short, few: TACleanerTrainer(model, short, few, processing_class=processor),
        strong,
        train,
        amount,
        runs=(2, 3) if automatic else (1, 1),  # what train_strongest usually takes
    )


def notes_on(options: CleanOptions, args: TACleanerConfig, cost: dict) -> list[str]:
    """What a reader of the report should know of how the model was cleaned."""
    notes = []
    if args.use_peft:
        form = "merged into the model" if options.merge_adapter else "beside the suspect's untouched weights"
        notes.append(f"Cleaned with LoRA adapters of rank {args.lora_rank}, {form}.")
    if "search_runs" not in cost and cost["strength"] != 1:
        notes.append(f"Cleaned at strength {cost['strength']:g}: it multiplies learning rate and repel weight.")
    if "search_runs" in cost:
        notes.append(
            f"Strength {cost['strength']:g} was found by --strength auto (budget {options.utility_budget:g} points), "
            f"at the extra cost of {cost['search_runs']} runs, {cost['search_pairs_seen']:,} pairs seen and "
            f"{cost['search_seconds']:,.0f} s."
        )
    return notes


if __name__ == "__main__":
    main()
