"""Push to the Hub what another command wrote: a checkpoint, poisoned pairs, or the report of an audit.

    python scripts/push.py --folder outputs/cleaned --repo_id me/clip-cleaned
    python scripts/push.py --folder outputs/audit --repo_id somebody/clip

It also continues a failed push: files that reached the Hub are not sent again. A checkpoint, its card, its report and
its config are pushed in one commit. A report is offered by pull request. Backdoored models and poisoned pairs need
--allow_publishing_backdoor; they are tagged and their card begins with a warning.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from hf_ta_cleaner.commands.parser import CommandParser, fail, set_up_logging


@dataclass
class PushOptions:
    """What to push, and where to."""

    _argument_group_name = "push"

    folder: Path = field(metadata={"help": "checkpoint, poisoned dataset or report, as another command wrote it"})
    repo_id: str = field(metadata={"help": "owner/name on the Hub; a new repository is made where there is none"})
    hub_private_repo: bool | None = field(
        default=None, metadata={"help": "true or false: make a new repository private (default: your account's)"}
    )
    allow_publishing_backdoor: bool = field(
        default=False, metadata={"help": "publish a backdoored model or poisoned data"}
    )
    report_only: bool = field(
        default=False, metadata={"help": "offer only the report of a checkpoint, by pull request"}
    )


def make_parser() -> CommandParser:
    return CommandParser([PushOptions], description=__doc__)


def main(argv: list[str] | None = None) -> None:
    (options,) = make_parser().parse(argv)
    set_up_logging(main_process=True)
    try:
        push(options)
    except (ValueError, OSError) as error:
        fail(error)


def push(options: PushOptions) -> None:
    """Finds out what the folder holds and pushes it."""
    from hf_ta_cleaner.poisoning import RECORD
    from hf_ta_cleaner.publishing.hub import push_checkpoint, push_dataset, push_report

    kinds = ("config.json", RECORD, "report.json")
    folder, has = options.folder, {name: (options.folder / name).is_file() for name in kinds}
    choices = {"private": options.hub_private_repo, "allow_backdoor": options.allow_publishing_backdoor}
    if options.report_only:
        print(f"Pull request: {push_report(folder, options.repo_id)}")
    elif has["config.json"]:  # a backdoored checkpoint has all three
        print(f"Pushed to {push_checkpoint(folder, options.repo_id, **choices)}")
    elif has[RECORD]:
        print(f"Pushed to {push_dataset(folder, options.repo_id, **choices)}")
    elif has["report.json"]:
        print(f"Pull request: {push_report(folder, options.repo_id)}")
    else:
        raise ValueError(f"{folder} holds none of {', '.join(kinds)}; give a folder that another command wrote")


if __name__ == "__main__":
    main()
