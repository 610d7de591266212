"""Audit a CLIP: clean accuracy, and for each trigger its success rate, no-trigger floor and accuracy under it.

    python scripts/audit.py --model outputs/backdoored --eval_dataset sandbox --output_dir outputs/audit
    python scripts/audit.py --model ID --eval_dataset ethz/food101 --trigger blended badnet:place=middle \\
        --target pizza --output_dir outputs/audit

Writes report.json, report.md, report.html and report.png. Without --trigger it uses the trigger beside the checkpoint.
Under `accelerate launch` several processes share the pictures. --retrieval_dataset and --linear_probe add
measurements. --push_report offers the results to the model's repository by pull request.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from hf_ta_cleaner.commands.options import EvalOptions, SuspectOptions
from hf_ta_cleaner.commands.parser import CommandParser, fail, set_up_logging


@dataclass(kw_only=True)
class AuditOptions(SuspectOptions):
    """What to audit."""

    _argument_group_name = "audit"

    output_dir: Path = field(metadata={"help": "where the report goes; must not hold one"})
    batch_size: int = field(default=256, metadata={"help": "pictures a batch"})
    seed: int = field(default=0, metadata={"help": "of the choice of pictures under --max_eval_samples"})
    push_report: bool = field(
        default=False, metadata={"help": "add the results to the model's repository by pull request"}
    )
    hub_model_id: str | None = field(
        default=None, metadata={"help": "the repository for --push_report (default: --model, if it is a Hub id)"}
    )
    device: str = field(default="auto", metadata={"help": "cpu, cuda, ... (default: an accelerator if there is one)"})


def make_parser() -> CommandParser:
    return CommandParser([AuditOptions, EvalOptions], description=__doc__)


def main(argv: list[str] | None = None) -> None:
    options, data = make_parser().parse(argv)
    set_up_logging(main_process=os.environ.get("RANK", "0") == "0")
    try:
        run(options, data)
    except (ValueError, OSError) as error:
        fail(error)


def run(options: AuditOptions, data: EvalOptions) -> None:
    """Loads model, triggers and pictures; audits; writes the report."""
    from accelerate import PartialState

    from hf_ta_cleaner.data.naming import is_hub_id, public_name
    from hf_ta_cleaner.publishing.hub import push_report
    from hf_ta_cleaner.publishing.report import FILES, Report

    repo_id = options.hub_model_id or options.model
    if options.push_report and not is_hub_id(repo_id):
        raise ValueError(
            f"--push_report needs a model on the Hub, got {repo_id}; name it with --hub_model_id owner/name"
        )
    if there := [name for name in FILES if (options.output_dir / name).exists()]:
        raise ValueError(f"{options.output_dir} already holds {', '.join(there)}; give another --output_dir")
    state = PartialState()
    device = state.device if options.device == "auto" else options.device
    audit = data.auditor(
        options.model,
        batch_size=options.batch_size,
        seed=options.seed,
        device=device,
        progress=state.is_main_process,
    )
    if audit is None:
        raise ValueError("an audit needs labelled pictures; give --eval_dataset")
    model, processor, _ = options.load_suspect()
    section, predictions = audit(model.to(device), processor)  # the processes share the pictures
    if not state.is_main_process:
        return
    examples, drawn = audit.examples(processor, predictions)
    report = Report.create(
        method="audit",
        seed=options.seed,
        target=data.target,
        before=section,
        model=public_name(options.model),
        base_model=public_name(data.reference),
        dataset=public_name(data.eval_dataset),
        examples=examples,
    )
    path = report.save(options.output_dir, pictures=drawn)
    print(report.summary())
    print(f"Written to {path.parent}: report.json, report.md, report.html, report.png")
    if options.push_report:
        print(f"Pull request: {push_report(path.parent, repo_id)}")


if __name__ == "__main__":
    main()
