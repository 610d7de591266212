"""Upload the metrics as Spaces, so that `evaluate.load("OWNER/attack_success_rate")` works for everyone.

    python scripts/publish_metrics.py --owner OWNER --dry_run
    python scripts/publish_metrics.py --owner OWNER --only retrieval_recall --private

Each folder of hf_ta_cleaner/metrics becomes one Space of the same name, in one commit. Log in with `hf auth login`
first. An existing Space gets a new commit; its other files and its visibility do not change.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import hf_ta_cleaner
from hf_ta_cleaner.commands.parser import fail


METRICS = Path(hf_ta_cleaner.__file__).parent / "metrics"
FOLDERS = {file.parent.name: file.parent for file in sorted(METRICS.glob("*/README.md"))}
NEEDED = ("README.md", "app.py", "requirements.txt")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--owner", required=True, help="user or organization that the Spaces belong to")
    parser.add_argument("--only", nargs="+", choices=sorted(FOLDERS), help="these metrics (default: all)")
    parser.add_argument("--private", action="store_true", help="make new Spaces private")
    parser.add_argument("--dry_run", action="store_true", help="say what would be uploaded, and upload nothing")
    args = parser.parse_args(argv)
    try:
        for name in args.only or FOLDERS:
            publish(FOLDERS[name], f"{args.owner}/{name}", private=args.private, dry_run=args.dry_run)
    except Exception as error:  # HTTP, transfer and login errors have no common base
        fail(f"{error}\nThe Spaces printed above are up. Run `hf auth login` if need be, and the same command again.")


def publish(folder: Path, repo_id: str, *, private: bool = False, dry_run: bool = False) -> None:
    """One metric folder -> one Space.

    Raises:
        ValueError: the folder lacks a file that a Space needs.
        Exception: whatever the Hub's client raises: not logged in, no such owner, no connection.
    """
    needed = (*NEEDED, f"{folder.name}.py")
    if missing := [name for name in needed if not (folder / name).is_file()]:
        raise ValueError(f"{folder} has no {', '.join(missing)}; wanted {', '.join(needed)}.")
    if dry_run:
        print(f"would upload {', '.join(needed)} to https://huggingface.co/spaces/{repo_id}")
        return
    from huggingface_hub import HfApi

    api = HfApi(library_name="hf_ta_cleaner", library_version=hf_ta_cleaner.__version__)
    api.create_repo(repo_id, repo_type="space", space_sdk="gradio", private=private, exist_ok=True)
    api.upload_folder(
        repo_id=repo_id,
        repo_type="space",
        folder_path=folder,
        allow_patterns=list(needed),
        commit_message=f"Update {folder.name} to hf_ta_cleaner {hf_ta_cleaner.__version__}",
    )
    print(f"https://huggingface.co/spaces/{repo_id}")


if __name__ == "__main__":
    main()
