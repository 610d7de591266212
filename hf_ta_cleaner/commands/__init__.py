"""`ta-cleaner COMMAND`: each name in `COMMANDS` is a module of this folder, imported only when it is called."""

from __future__ import annotations

import ast
import difflib
import importlib
import sys
from pathlib import Path

from hf_ta_cleaner import __version__


COMMANDS = ("poison", "craft", "backdoor", "scan", "check_data", "clean", "audit", "push", "subtexts")


def commands() -> dict[str, str]:
    """Name of every command -> the first line of its description, read without running it."""
    return {name: (ast.get_docstring(ast.parse(_source(name))) or "").split("\n")[0] for name in COMMANDS}


def _source(name: str) -> str:
    file = Path(__file__).with_name(f"{name}.py")
    return (file if file.is_file() else file.with_suffix("") / "__init__.py").read_text("utf-8")


def usage() -> str:
    """The help of the program itself."""
    lines = [f"  {name.replace('_', '-'):<12}{text}" for name, text in commands().items()]
    return "\n".join(
        [
            "usage: ta-cleaner COMMAND [OPTIONS]",
            "",
            "Fine-tunes backdoors out of CLIP models and proves it.",
            "",
            *lines,
            "",
            "ta-cleaner COMMAND --help lists the options of a command. On several processes:",
            "accelerate launch -m hf_ta_cleaner.commands COMMAND [OPTIONS]",
        ]
    )


def main(argv: list[str] | None = None) -> None:
    """Calls the command that is named first; the rest are its options."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(usage())
        return
    if argv[0] == "--version":
        print(__version__)
        return
    name, options = argv[0].replace("-", "_"), argv[1:]
    if name not in (known := commands()):
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0].replace('_', '-')}?" if close else f"wanted one of: {', '.join(known)}"
        print(f"error: ta-cleaner has no command {argv[0]!r}; {hint}", file=sys.stderr)
        raise SystemExit(2)
    sys.argv[0] = f"ta-cleaner {argv[0]}"  # how argparse calls the program
    importlib.import_module(f"hf_ta_cleaner.commands.{name}").main(options)
