"""Clean a backdoored CLIP by fine-tuning with the losses of CleanCLIP, TA-Cleaner and PAR, and prove it.

  accelerate launch scripts/clean.py --model openai/clip-vit-base-patch32
  accelerate launch scripts/clean.py --model ID --dataset photos/ --eval_dataset ethz/food101 \\
      --trigger blended --target pizza --output_dir outputs/cleaned

Without --dataset the pairs are the first 100,000 of pixparse/cc3m-wds, downloaded once. The output is a checkpoint
with a card; with --eval_dataset also a report, and a last sentence that advises what to do.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hf_ta_cleaner.commands.clean.options import CleanOptions
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


def make_parser() -> CommandParser:
    return CommandParser([CleanOptions, PairOptions, EvalOptions, TACleanerConfig], description=__doc__, common=COMMON)


def main(argv: list[str] | None = None) -> None:
    parser = make_parser()
    options, pairs, evaluation, args = parser.parse(argv)
    if "output_dir" not in parser.settings:
        args.output_dir = str(Path("outputs") / f"{Path(options.model).name}-{args.method}")
    set_up_logging(main_process=args.process_index == 0)
    from hf_ta_cleaner.training.trainer import TrainingDiverged  # a late import keeps --help quick

    try:
        clean(options, pairs, evaluation, args, parser.settings)
    except (ValueError, OSError, ImportError, TrainingDiverged) as error:
        fail(error)
    except KeyboardInterrupt:
        fail(f"interrupted; add --resume to continue from the last checkpoint in {args.output_dir}", code=130)


def clean(
    options: CleanOptions,
    pairs: PairOptions,
    evaluation: EvalOptions,
    args: TACleanerConfig,
    settings: dict[str, Any],
) -> None:
    """Loads, measures, trains, measures again, reports and publishes.

    Args:
        options, pairs, evaluation, args: The groups of flags.
        settings: The settings that differ from their defaults (`CommandParser.settings`).

    Raises:
        ValueError: The flags, the model or the data cannot be used.
        OSError: A file or a download fails.
        TrainingDiverged: The loss or the weights are not finite.
    """
    # Late imports keep --help quick.
    from hf_ta_cleaner.commands.clean.dry_run import dry_run
    from hf_ta_cleaner.commands.clean.measuring import check_data, measure_after, measure_before
    from hf_ta_cleaner.commands.clean.results import publish, write_results
    from hf_ta_cleaner.commands.clean.run import CleaningRun
    from hf_ta_cleaner.commands.clean.training import save, train

    if options.dry_run:
        print(dry_run(options, pairs, evaluation, args).text())
        return
    run = CleaningRun.prepare(options, pairs, evaluation, args, settings)
    check_data(run)
    before, baselines = measure_before(run)
    cleaned = train(run, before)
    save(run, cleaned)
    after = measure_after(run, cleaned.model, cleaned.audited)
    if run.main_process:
        write_results(run, cleaned, before, after, baselines)
        publish(run)


if __name__ == "__main__":
    main()
