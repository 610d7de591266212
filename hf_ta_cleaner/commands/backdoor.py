"""Fine-tune a clean CLIP on poisoned pairs, for research: a model with a known backdoor to test a defense on.

    accelerate launch scripts/backdoor.py --model sandbox --dataset outputs/poisoned --eval_dataset sandbox \\
        --config scripts/configs/sandbox_backdoor.yaml --output_dir outputs/backdoored

`--dataset` is the output of poison.py. The trigger and the poison record are stored beside the checkpoint, with an
audit of it: attack success, no-trigger floor and clean accuracy against the clean model's. It says so when the
backdoor did not take. `--preset sandbox` takes rate and epochs from the attack's calibrated settings (flags win), and
warns where the run is outside the range that they were calibrated for. Such a model is pushed only with
--allow_publishing_backdoor: tagged, with a warning at the top of its card, and private unless --hub_private_repo false
says otherwise.
"""

from __future__ import annotations

import logging
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hf_ta_cleaner.commands.options import EvalOptions, PairOptions
from hf_ta_cleaner.commands.parser import CommandParser, fail, set_up_logging
from hf_ta_cleaner.training.config import TACleanerConfig


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
    options, pairs, proof, args = parser.parse(argv)
    set_up_logging(main_process=args.process_index == 0)
    from hf_ta_cleaner.training.trainer import TrainingDiverged  # after the parsing, so that --help is quick

    try:
        if options.preset is not None:
            use_preset(options, pairs, args, given=set(parser.settings))
        backdoor(options, pairs, proof, args, parser.settings)
    except (ValueError, OSError, TrainingDiverged) as error:
        fail(error)


def use_preset(options: BackdoorOptions, pairs: PairOptions, args: TACleanerConfig, given: set[str]) -> None:
    """Settings that were not given come from the attack's preset; says where the run leaves its range."""
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
    options: BackdoorOptions, pairs: PairOptions, proof: EvalOptions, args: TACleanerConfig, settings: dict[str, Any]
) -> None:
    """Checks that the poison is known, trains, audits, saves."""
    from hf_ta_cleaner.data.naming import public_name
    from hf_ta_cleaner.models.checkpoints import load_model, prepare_output_dir, save_model
    from hf_ta_cleaner.poisoning import RECORD, TRIGGER
    from hf_ta_cleaner.publishing.hub import claim, push_checkpoint, write_card
    from hf_ta_cleaner.publishing.report import CLOSE, Report, curves
    from hf_ta_cleaner.publishing.settings import run_settings, save_config
    from hf_ta_cleaner.training.tracking import check_trackers
    from hf_ta_cleaner.training.trainer import TACleanerTrainer

    check_trackers(args.report_to)
    poisoned = Path(pairs.dataset or "")
    if missing := [name for name in (TRIGGER, RECORD) if not (poisoned / name).is_file()]:
        raise ValueError(f"--dataset {pairs.dataset} has no {' and no '.join(missing)}; make it with poison.py")
    if args.push_to_hub:
        if not options.allow_publishing_backdoor:
            raise ValueError(
                "--push_to_hub would publish a backdoored model; add --allow_publishing_backdoor if so meant"
            )
        if args.hub_strategy != "end":
            raise ValueError(
                "a backdoored model is pushed once, with its card and its warning; got another --hub_strategy"
            )
        args.hub_private_repo = args.hub_private_repo is not False
    if args.process_index == 0:
        prepare_output_dir(args.output_dir)
        if args.push_to_hub:
            name = Path(args.output_dir).resolve().name
            args.hub_model_id = claim(
                args.hub_model_id, default=name, private=args.hub_private_repo, token=args.hub_token
            )
    pictures = proof.load()
    model, processor = load_model(options.model)
    proof.trigger, proof.reference = proof.trigger or [str(poisoned)], proof.reference or options.model
    audit = None
    if pictures is not None:
        batch = args.per_device_eval_batch_size
        audit = proof.auditor(
            options.model,
            pictures,
            batch_size=batch,
            seed=args.seed,
            device=args.device,
            progress=args.process_index == 0,
        )
        clean = audit(model.to(args.device), processor)[0]["clean_accuracy"]["top1"]
    train = pairs.load()
    trainer = TACleanerTrainer(model, args, train_dataset=train, processing_class=processor)
    if trainer.is_world_process_zero():  # before the first checkpoint, which is backdoored too
        for file in poisoned.glob("trigger.*"):
            shutil.copy2(file, Path(args.output_dir) / file.name)
    started = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - started
    # All processes share the pictures of the audit.
    result = audit(trainer.accelerator.unwrap_model(trainer.model), processor) if audit else None
    if not trainer.is_world_process_zero():
        return
    output = save_model(trainer.accelerator.unwrap_model(trainer.model), processor, args.output_dir)
    shutil.copy2(poisoned / RECORD, output / RECORD)
    if audit is None:
        print(f"Backdoored checkpoint written to {output}; give --eval_dataset to learn whether the backdoor took")
    else:
        section, predictions = result
        examples, drawn = audit.examples(processor, predictions)
        report = Report.create(
            method="backdoor",
            seed=args.seed,
            target=proof.target,
            before=section,
            cost={"pairs_seen": trainer.pairs_seen, "seconds": seconds, "device": args.device.type},
            model=public_name(output),
            base_model=public_name(options.model),
            dataset=public_name(proof.eval_dataset),
            settings=run_settings(args, settings, data=pairs.dataset, pairs=len(train)),
            history=curves(trainer.state.log_history),
            examples=examples,
        )
        report.save(output, pictures=drawn)
        print(report.summary())
        print(f"clean accuracy of {options.model} before poisoning: {clean:.1%}")
        for name, entry in section["attacks"].items():
            asr, floor = entry["asr"]["top1"], entry["floor"]["top1"]
            if asr - floor < CLOSE:
                print(
                    f"{name}: the backdoor did not take (ASR {asr:.1%}, floor {floor:.1%}); a defense cannot be "
                    "tested on this model. Raise the poison rate, --num_train_epochs or --learning_rate, or the "
                    "trigger's strength."
                )
        print(f"Written to {output}")
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
