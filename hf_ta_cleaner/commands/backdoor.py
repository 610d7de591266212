"""Fine-tune a clean CLIP on poisoned pairs, for research: a model with a known backdoor to test a defense on.

    accelerate launch scripts/backdoor.py --model sandbox --dataset outputs/poisoned --eval_dataset sandbox \\
        --config scripts/configs/sandbox_backdoor.yaml --output_dir outputs/backdoored

--dataset is the output of poison.py. The output folder holds the checkpoint, the trigger and the poison record, and
with --eval_dataset an audit: attack success, no-trigger floor and clean accuracy against the clean model's. A message
says so if the backdoor did not take. --preset sandbox takes learning rate and epochs from the attack's calibrated
settings (flags win), and warns if the run is outside the range that they were calibrated for. A backdoored model is
pushed only with --allow_publishing_backdoor. It is tagged, its card begins with a warning, and it is private unless
you give --hub_private_repo false.
"""

from __future__ import annotations

import logging
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_ta_cleaner.commands.options import EvalOptions, PairOptions
from hf_ta_cleaner.commands.parser import CommandParser, fail, set_up_logging
from hf_ta_cleaner.training.config import TACleanerConfig


if TYPE_CHECKING:
    from hf_ta_cleaner.publishing.report import Report
    from hf_ta_cleaner.training.trainer import TACleanerTrainer

logger = logging.getLogger(__name__)

COMMON = (
    "output_dir",
    "learning_rate",
    "num_train_epochs",
    "per_device_train_batch_size",
    "seed",
    "bf16",
    "fp16",
    "push_to_hub",
    "hub_model_id",
    "hub_private_repo",
)


@dataclass
class BackdoorOptions:
    """What to backdoor."""

    _argument_group_name = "model"

    model: str = field(metadata={"help": "clean CLIP: sandbox, Hub id or folder"})
    preset: str | None = field(
        default=None, metadata={"help": "sandbox: the settings calibrated for this attack there"}
    )
    allow_publishing_backdoor: bool = field(
        default=False, metadata={"help": "let --push_to_hub publish a model with a backdoor"}
    )


def make_parser() -> CommandParser:
    return CommandParser(
        [BackdoorOptions, PairOptions, EvalOptions, TACleanerConfig], description=__doc__, common=COMMON
    )


def main(argv: list[str] | None = None) -> None:
    parser = make_parser()
    parser.set_defaults(method="ft", save_strategy="no")
    options, pairs, evaluation, args = parser.parse(argv)
    set_up_logging(main_process=args.process_index == 0)
    from hf_ta_cleaner.training.trainer import TrainingDiverged  # a late import keeps --help quick

    try:
        if options.preset is not None:
            use_preset(options, pairs, args, given=set(parser.settings))
        backdoor(options, pairs, evaluation, args, parser.settings)
    except (ValueError, OSError, TrainingDiverged) as error:
        fail(error)


def use_preset(options: BackdoorOptions, pairs: PairOptions, args: TACleanerConfig, given: set[str]) -> None:
    """Takes the settings that were not given from the attack's preset, and warns of a run outside its range.

    Args:
        options, pairs, args: The groups of flags; `args` is changed.
        given: The names of the settings that were given.

    Raises:
        ValueError: There is no such preset, or none for the attack.
    """
    from hf_ta_cleaner.crafting.presets import find_preset
    from hf_ta_cleaner.poisoning import RECORD, PoisonRecord

    if options.preset != "sandbox":
        raise ValueError(f"--preset {options.preset} is not known; choose sandbox")
    path = Path(pairs.dataset or "") / RECORD
    if not path.is_file():
        return  # backdoor() says what is missing
    record = PoisonRecord.load(path)
    name, preset = find_preset(record)
    for setting, value in preset.training.items():
        if setting not in given:
            setattr(args, setting, value)
    departures = preset.departures(record, options.model, {key: getattr(args, key) for key in preset.training})
    if departures:
        logger.warning("outside the range that the preset %s was calibrated for: %s", name, "; ".join(departures))


def backdoor(
    options: BackdoorOptions,
    pairs: PairOptions,
    evaluation: EvalOptions,
    args: TACleanerConfig,
    settings: dict[str, Any],
) -> None:
    """Checks that the poison is known, trains, audits, saves and publishes.

    Raises:
        ValueError: The flags, the model or the data cannot be used.
        OSError: A file or a download fails.
        TrainingDiverged: The loss or the weights are not finite.
    """
    from hf_ta_cleaner.models.checkpoints import load_model, save_model
    from hf_ta_cleaner.poisoning import RECORD
    from hf_ta_cleaner.publishing.settings import run_settings
    from hf_ta_cleaner.training.trainer import TACleanerTrainer

    poisoned = check(options, pairs, args)
    claim_output(args)
    evaluation.trigger = evaluation.trigger or [str(poisoned)]
    evaluation.reference = evaluation.reference or options.model
    auditor = evaluation.auditor_of_run(options.model, args)
    model, processor = load_model(options.model)
    clean_accuracy = None
    if auditor is not None:
        clean_accuracy = auditor(model.to(args.device), processor)[0]["clean_accuracy"]["top1"]
    train = pairs.load()
    trainer = TACleanerTrainer(model, args, train_dataset=train, processing_class=processor)
    if trainer.is_world_process_zero():  # before the first checkpoint, because checkpoints have the backdoor too
        for file in poisoned.glob("trigger.*"):
            shutil.copy2(file, Path(args.output_dir) / file.name)
    started = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - started
    model = trainer.accelerator.unwrap_model(trainer.model)
    audited = auditor(model, processor) if auditor else None  # the processes share the pictures
    if not trainer.is_world_process_zero():
        return
    output = save_model(model, processor, args.output_dir)
    shutil.copy2(poisoned / RECORD, output / RECORD)
    if audited is None:
        print(f"Backdoored checkpoint written to {output}; give --eval_dataset to learn whether the backdoor took")
    else:
        section, predictions = audited
        report = make_report(
            options.model,
            evaluation,
            trainer,
            section=section,
            seconds=seconds,
            settings=run_settings(args, settings, data=pairs.dataset, pairs=len(train)),
        )
        report.examples, drawn = auditor.examples(processor, predictions)
        report.save(output, pictures=drawn)
        print_verdict(report, options.model, clean_accuracy)
        print(f"Written to {output}")
    publish(options, trainer, settings)


def check(options: BackdoorOptions, pairs: PairOptions, args: TACleanerConfig) -> Path:
    """Checks the flags. Returns the folder of the poisoned pairs.

    Raises:
        ValueError: The pairs have no trigger or no record, or the flags would publish the backdoor unasked.
    """
    from hf_ta_cleaner.poisoning import RECORD, TRIGGER
    from hf_ta_cleaner.publishing.tracking import check_trackers

    check_trackers(args.report_to)
    poisoned = Path(pairs.dataset or "")
    if missing := [name for name in (TRIGGER, RECORD) if not (poisoned / name).is_file()]:
        raise ValueError(f"--dataset {pairs.dataset} has no {' and no '.join(missing)}; make it with poison.py")
    if args.push_to_hub and not options.allow_publishing_backdoor:
        raise ValueError(
            "--push_to_hub would publish a backdoored model; add --allow_publishing_backdoor if you mean to"
        )
    if args.push_to_hub and args.hub_strategy != "end":
        raise ValueError(
            f"--hub_strategy {args.hub_strategy}: a backdoored model is pushed once, with its card and its warning; "
            "leave the flag out"
        )
    return poisoned


def claim_output(args: TACleanerConfig) -> None:
    """Makes sure of the output folder and, with `--push_to_hub`, of the repository, which is private by default."""
    from hf_ta_cleaner.models.checkpoints import prepare_output_dir
    from hf_ta_cleaner.publishing.hub import claim

    if args.push_to_hub:
        args.hub_private_repo = args.hub_private_repo is not False
    if args.process_index == 0:
        prepare_output_dir(args.output_dir)
        if args.push_to_hub:
            name = Path(args.output_dir).resolve().name
            args.hub_model_id = claim(
                args.hub_model_id, default=name, private=args.hub_private_repo, token=args.hub_token
            )


def make_report(
    clean_model: str,
    evaluation: EvalOptions,
    trainer: TACleanerTrainer,
    *,
    section: dict[str, Any],
    seconds: float,
    settings: dict[str, Any],
) -> Report:
    """The report of a backdoored model, still without example pictures.

    Args:
        clean_model: The model that it was trained from.
        evaluation: What it was audited on.
        trainer: The trainer after its training.
        section: The audit of the model (`FullAudit`).
        seconds: How long the training took.
        settings: What the report says about the training (`run_settings`).
    """
    from hf_ta_cleaner.data.naming import public_name
    from hf_ta_cleaner.publishing.report import Report, curves

    args = trainer.args
    return Report.create(
        method="backdoor",
        seed=args.seed,
        target=evaluation.target,
        before=section,
        cost={"pairs_seen": trainer.pairs_seen, "seconds": seconds, "device": args.device.type},
        model=public_name(Path(args.output_dir)),
        base_model=public_name(clean_model),
        dataset=public_name(evaluation.eval_dataset),
        settings=settings,
        history=curves(trainer.state.log_history),
    )


def print_verdict(report: Report, clean_model: str, clean_accuracy: float) -> None:
    """Prints the report's summary, the clean model's accuracy, and which backdoors did not take.

    Args:
        report: The report of the backdoored model.
        clean_model: The model that it was trained from.
        clean_accuracy: Its top-1 accuracy in [0, 1].
    """
    from hf_ta_cleaner.publishing.report import CLOSE

    print(report.summary())
    print(f"clean accuracy of {clean_model} before poisoning: {clean_accuracy:.1%}")
    for name, entry in report.before["attacks"].items():
        asr, floor = entry["asr"]["top1"], entry["floor"]["top1"]
        if asr - floor < CLOSE:
            print(
                f"{name}: the backdoor did not take (ASR {asr:.1%}, floor {floor:.1%}); a defense cannot be "
                "tested on this model. Raise the poison rate, --num_train_epochs or --learning_rate, or the "
                "trigger's strength."
            )


def publish(options: BackdoorOptions, trainer: TACleanerTrainer, settings: dict[str, Any]) -> None:
    """Writes config and card, and pushes the output folder with `--push_to_hub`."""
    from hf_ta_cleaner.publishing.hub import push_checkpoint, write_card
    from hf_ta_cleaner.publishing.settings import save_config

    args, output = trainer.args, Path(trainer.args.output_dir)
    save_config(output, {**settings, **args.recipe})
    write_card(output, repo_id=trainer.hub_model_id, backdoored=True)
    if args.push_to_hub:
        url = push_checkpoint(
            output,
            trainer.hub_model_id,
            private=args.hub_private_repo,
            token=args.hub_token,
            allow_backdoor=options.allow_publishing_backdoor,
        )
        print(f"Pushed to {url}")


if __name__ == "__main__":
    main()
