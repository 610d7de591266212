"""Audit a CLIP: clean accuracy, and for each trigger its success rate, no-trigger floor and accuracy under it.

    python scripts/audit.py --model outputs/backdoored --eval_dataset sandbox --output_dir outputs/audit
    python scripts/audit.py --model ID --eval_dataset ethz/food101 --trigger blended badnet:place=middle \\
        --target pizza --output_dir outputs/audit

Writes report.json, report.md, report.html and report.png. Without --trigger, the one beside the checkpoint is used.
Under `accelerate launch` several processes share the pictures; --retrieval_dataset and --linear_probe measure more.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from hf_ta_cleaner.cli import CommandParser, EvalOptions, fail, set_up_logging


@dataclass
class AuditOptions:
    """What to audit."""

    _argument_group_name = "audit"

    model: str = field(metadata={"help": "sandbox, Hub id or folder of the CLIP to audit"})
    output_dir: Path = field(metadata={"help": "where the report goes; must not hold one"})
    batch_size: int = field(default=256, metadata={"help": "pictures a batch"})
    seed: int = field(default=0, metadata={"help": "of the choice of pictures under --max_eval_samples"})
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

    from hf_ta_cleaner.checkpoints import load_model
    from hf_ta_cleaner.report import Report

    state = PartialState()
    device = state.device if options.device == "auto" else options.device
    pictures = data.load()
    if pictures is None:
        raise ValueError("an audit needs labelled pictures; give --eval_dataset")
    audit = data.auditor(
        options.model,
        pictures,
        batch_size=options.batch_size,
        seed=options.seed,
        device=device,
        progress=state.is_main_process,
    )
    model, processor = load_model(options.model)
    section, predictions = audit(model.to(device), processor)  # every process its share of the pictures
    if not state.is_main_process:
        return
    examples, shown = audit.examples(processor, predictions)
    report = Report.create(
        method="audit",
        seed=options.seed,
        target=data.target,
        before=section,
        model=options.model,
        base_model=data.reference,
        dataset=data.eval_dataset,
        examples=examples,
    )
    path = report.save(options.output_dir, pictures=shown)
    print(report.summary())
    print(f"Written to {path.parent}: report.json, report.md, report.html, report.png")


if __name__ == "__main__":
    main()
