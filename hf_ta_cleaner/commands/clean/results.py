"""What a finished run leaves: trigger files, report, config, card, and the model on the Hub if that was asked for."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from ...data.naming import public_name
from ...evaluation.audit import clean_accuracy_loss
from ...poisoning import RECORD
from ...publishing.advice import advice
from ...publishing.hub import push_checkpoint, write_card
from ...publishing.report import Report, curves
from ...publishing.settings import run_settings, save_config
from ...training.config import TACleanerConfig
from .measuring import Measurements
from .options import CleanOptions
from .run import CleaningRun
from .training import Cleaned


#: The section of a report for a model that was not audited.
NOT_AUDITED = {"clean_accuracy": None, "attacks": {}}


def write_results(
    run: CleaningRun,
    cleaned: Cleaned,
    before: Measurements,
    after: Measurements,
    baselines: dict[str, np.ndarray],
) -> None:
    """Writes everything beside the weights and prints the result. The main process alone calls this."""
    copy_trigger(run.options.model, run.output)
    if after.section or after.utility:
        report = make_report(run, cleaned, before, after, baselines)
        save_report(run, report, before, after)
    else:
        print(f"Cleaned checkpoint written to {run.output}. Nothing was measured; give --eval_dataset for a report")
    save_config(run.output, settings_to_repeat(run, cleaned))
    write_card(run.output, repo_id=run.args.hub_model_id if run.args.push_to_hub else None, backdoored=False)


def copy_trigger(suspect: str, output: Path) -> None:
    """Copies the trigger and the poison record that lie beside a suspect, so that a later audit knows the trigger."""
    for file in (*Path(suspect).glob("trigger.*"), *Path(suspect).glob(RECORD)):
        shutil.copy2(file, output / file.name)


def make_report(
    run: CleaningRun,
    cleaned: Cleaned,
    before: Measurements,
    after: Measurements,
    baselines: dict[str, np.ndarray],
) -> Report:
    """The report of a run, still without example pictures."""
    trainer, args = cleaned.trainer, run.args
    pairs = trainer.pairs_seen if run.options.streaming else len(run.train_data)
    return Report.create(
        method=args.method,
        seed=args.seed,
        target=run.evaluation.target,
        before=before.section or NOT_AUDITED,
        after=after.section or NOT_AUDITED,
        cost={**cleaned.cost, "device": args.device.type},
        ca_loss=clean_accuracy_loss(after.predictions.correct(1), baselines) if after.predictions else None,
        retrieval=retrieval_of(run, before, after),
        scan=run.scans.entries if run.scans else None,
        model=public_name(run.output),
        base_model=public_name(run.options.model),
        dataset=public_name(run.pairs.dataset),
        settings=run_settings(trainer.args, run.settings, data=run.pairs.dataset, pairs=pairs),
        history=curves(trainer.state.log_history),
        notes=notes_on(run.options, args, cleaned.cost),
    )


def save_report(run: CleaningRun, report: Report, before: Measurements, after: Measurements) -> None:
    """Adds the example pictures, writes the report's files, and prints its summary and its advice."""
    drawn = None
    if run.auditor:
        report.examples, drawn = run.auditor.examples(run.processor, before.predictions, after.predictions)
    report.save(run.output, overwrite=True, pictures=drawn)
    print(report.summary())
    print(f"Cleaned checkpoint and report written to {run.output}")
    print(advice(report, run.output))


def retrieval_of(run: CleaningRun, before: Measurements, after: Measurements) -> dict[str, Any] | None:
    """Retrieval on the held-out pairs before and after, as a report stores it; None without held-out pairs."""
    if run.held_out is None:
        return None

    def metrics(measured: Measurements) -> dict[str, float]:
        # Clean utility repeats one of the others under a name that does not depend on the data.
        return {name: value for name, value in measured.utility.items() if name != "clean_utility"}

    return {"pairs": len(run.held_out), "before": metrics(before), "after": metrics(after)}


def notes_on(options: CleanOptions, args: TACleanerConfig, cost: dict[str, float]) -> list[str]:
    """Sentences for the report on how the model was cleaned: adapters and strength."""
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


def settings_to_repeat(run: CleaningRun, cleaned: Cleaned) -> dict[str, Any]:
    """The settings that repeat the training that was kept, for `config.yaml`.

    They hold the learning rate and weights as they were used, so strength 1 and no search.
    """
    data = {"dataset": run.pairs.dataset, "max_samples": run.pairs.max_samples}
    settings = {**run.settings, **cleaned.trainer.args.recipe, **data, "strength": None, "utility_budget": None}
    return {name: value for name, value in settings.items() if value is not None}


def publish(run: CleaningRun) -> None:
    """Pushes the output folder to the Hub in one commit, with `--push_to_hub`."""
    args = run.args
    if args.push_to_hub:
        url = push_checkpoint(run.output, args.hub_model_id, private=args.hub_private_repo, token=args.hub_token)
        print(f"Pushed to {url}")
