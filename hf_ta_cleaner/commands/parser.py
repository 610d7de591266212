"""Command lines shared by the scripts: grouped help on a screen, YAML below flags, unknown keys refused."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import logging
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn, get_type_hints

import yaml
from tqdm.auto import tqdm
from transformers import HfArgumentParser, TrainingArguments


logger = logging.getLogger(__name__)

#: Earlier names of settings -> their names now. Accepted for one release in flags, in YAML and in `run.json`.
RENAMED_SETTINGS = {"retain_weight": "distill_weight", "image_disturb": "image_structured_noise"}


class ConfigError(ValueError):
    """A configuration file cannot be used."""


class CommandParser(HfArgumentParser):
    """A command line made from dataclasses.

    Each dataclass is a group of the help; its `_argument_group_name` is the title. `--help` shows only the `common`
    settings of those inherited from `TrainingArguments`; `--help-all` shows them all.

    Args:
        dataclass_types: The dataclasses whose fields are flags. A field's help is in its metadata.
        description: Shown first; its examples are commands that can be run.
        common: Inherited settings worth showing.
    """

    def __init__(self, dataclass_types: Sequence[type], *, description: str, common: Sequence[str] = ()) -> None:
        super().__init__(
            list(dataclass_types),
            description=description,
            formatter_class=_Help,
            allow_abbrev=False,
            add_help=False,
        )
        run = self.add_argument_group("help and configuration")
        run.add_argument("--config", type=Path, metavar="FILE", help="YAML of any flag; flags given here win over it")
        run.add_argument(
            "--print_config", action="store_true", help="print the settings as a file for --config, and stop"
        )
        run.add_argument("-h", "--help", action="help", help="show this help")
        run.add_argument("--help-all", action=_HelpAll, help="also list the inherited training settings")
        inherited = {f.name for f in dataclasses.fields(TrainingArguments)} - set(common)
        for kind in dataclass_types:
            if not issubclass(kind, TrainingArguments):
                inherited -= {f.name for f in dataclasses.fields(kind)}
        for action in self._actions:
            if action.dest not in _OWN:  # HfArgumentParser adds --some-flag beside --some_flag
                action.option_strings = [o for o in action.option_strings if "-" not in o[2:]]
            if isinstance(action, argparse._StoreFalseAction):
                action.help = f"the opposite of --{action.dest}"
            if action.dest in inherited:
                action.hidden_help, action.help = action.help, argparse.SUPPRESS
            elif "default" not in (action.help or "") and _worth_showing(action):
                action.help = f"{action.help} (default: {action.default})"
        self._declared = {
            action.dest: self._get_value(action, action.default) if isinstance(action.default, str) else action.default
            for action in reversed(self._actions)
        }

    def parse(self, argv: Sequence[str] | None = None) -> tuple[Any, ...]:
        """Parses `argv` (default: `sys.argv`) into one object per dataclass. Ends the program on bad input."""
        argv = [self._renamed_flag(word) for word in (sys.argv[1:] if argv is None else argv)]
        known, _ = _config_parser().parse_known_args(argv)
        try:
            if known.config is not None:
                self._apply(known.config)
            namespace = self.parse_args(argv)
            if namespace.print_config:
                print(yaml.safe_dump(self._settings(namespace), sort_keys=True), end="")
                self.exit()
            return self._build(namespace)
        except (ValueError, OSError) as error:
            self.error(str(error))

    def error(self, message: str) -> NoReturn:
        """Ends the program; the message suggests a flag for a misspelt one."""
        flags = [option for action in self._actions for option in action.option_strings]
        if message.startswith("unrecognized arguments: "):
            wrong = [word.partition("=")[0] for word in message.split()[2:] if word.startswith("--")]
            close = [(word, difflib.get_close_matches(word, flags, n=1)) for word in wrong]
            meant = [f"{found[0]} for {word}" for word, found in close if found]
            message += f"; did you mean {', '.join(meant)}?" if meant else "; --help lists what there is"
        super().error(message)

    def _renamed_flag(self, word: str) -> str:
        """The word of a command line, with an earlier name of a flag replaced by the name now."""
        flag, equals, value = word.partition("=")
        name = self._current_name(flag[2:]) if flag.startswith("--") else None
        return f"--{name}{equals}{value}" if name else word

    def _current_name(self, name: str) -> str | None:
        """The name now of a setting that is given by an earlier name, with a warning; None for any other name."""
        current = RENAMED_SETTINGS.get(name)
        if current is None or not any(action.dest == current for action in self._actions):
            return None
        logger.warning("%s is deprecated and goes away in the next release; use %s", name, current)
        return current

    def _rename(self, values: dict[Any, Any], path: Path) -> dict[Any, Any]:
        """The settings of a file under their names now."""
        renamed: dict[Any, Any] = {}
        for name, value in values.items():
            current = self._current_name(name) or name
            if current in renamed:
                raise ConfigError(f"--config {path}: {current} is given twice, once by an earlier name; keep one")
            renamed[current] = value
        return renamed

    def _apply(self, path: Path) -> None:
        """Makes the file's values the defaults."""
        try:
            values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        except (OSError, yaml.YAMLError) as error:
            raise ConfigError(f"--config {path} cannot be read: {' '.join(str(error).split())}") from error
        if not isinstance(values, dict):
            raise ConfigError(f"--config {path} must map flags to values, got {type(values).__name__}")
        values = self._rename(values, path)
        actions = {action.dest: action for action in reversed(self._actions) if action.dest not in _OWN}
        if unknown := sorted(set(values) - set(actions), key=str):
            raise ConfigError(f"--config {path}: unknown keys {', '.join(map(str, unknown))}; --help-all lists all")
        hints = {name: str(hint) for kind in self.dataclass_types for name, hint in get_type_hints(kind).items()}
        for name, value in values.items():
            try:
                self.set_defaults(**{name: _from_yaml(value, actions[name], hints[name])})
            except ConfigError as error:
                raise ConfigError(f"--config {path}: {name}: {error}") from error
            actions[name].required = False

    def _settings(self, namespace: argparse.Namespace) -> dict[str, Any]:
        """The settings that differ from their declared defaults, as plain values."""
        given = {k: v for k, v in vars(namespace).items() if k not in _OWN and v != self._declared[k]}
        return {k: str(v) if isinstance(v, Path) else v for k, v in given.items()}

    def _build(self, namespace: argparse.Namespace) -> tuple[Any, ...]:
        values = vars(namespace)
        built = []
        for kind in self.dataclass_types:
            names = {item.name for item in dataclasses.fields(kind) if item.init}
            built.append(kind(**{name: values[name] for name in names if name in values}))
        self.settings = self._settings(namespace)
        return tuple(built)


_OWN = {"config", "print_config", "help", "help_all"}


class _Help(argparse.RawDescriptionHelpFormatter):
    """Help with a narrow column of flags and short placeholders for their values."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=36, width=min(118, max(80, _columns())))

    def _metavar_formatter(self, action: argparse.Action, default_metavar: str):
        if action.metavar is None and action.choices is None:
            kind = getattr(action.type, "__name__", "")
            default_metavar = {"int": "N", "float": "X", "Path": "PATH"}.get(kind, "VALUE")
        return super()._metavar_formatter(action, default_metavar)

    def add_usage(self, usage, actions, groups, prefix=None) -> None:
        required = [action for action in actions if action.required]
        super().add_usage(usage, required, groups, prefix)


class _HelpAll(argparse.Action):
    def __init__(self, option_strings, dest, **kwargs) -> None:
        super().__init__(option_strings, dest, nargs=0, **kwargs)

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        for action in parser._actions:
            action.help = getattr(action, "hidden_help", action.help)
        parser.print_help()
        parser.exit()


def _columns() -> int:
    try:
        return os.get_terminal_size().columns
    except OSError:
        return 118


def _config_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config", type=Path)
    return parser


def _from_yaml(value: Any, action: argparse.Action, hint: str) -> Any:
    """The value as the default of its flag. argparse converts strings, because YAML reads 1e-3 as a string."""
    if value is None:
        if action.default is not None or action.required:
            raise ConfigError("got nothing; give a value, or leave the key out")
        return None
    if action.nargs == "+":
        return [str(item) for item in (value if isinstance(value, list) else [value])]
    if isinstance(value, bool) and "bool" not in hint:
        raise ConfigError(f"got {value}; YAML reads yes, no, on and off as true or false, so write it in quotes")
    if isinstance(value, (list, dict)) and type(value).__name__ not in hint:
        raise ConfigError(f"wanted one value, got {value}")
    return value if isinstance(value, (bool, list, dict)) else str(value)


def _worth_showing(action: argparse.Action) -> bool:
    return bool(action.option_strings) and action.default not in (None, "", [], argparse.SUPPRESS, False)


def begin_step(folder: Path, command: Sequence[str], done: str) -> bool:
    """Whether a step of several has to run: it has not run, has not finished, or ran with another command.

    The folder of a step holds its command. The folder of an unfinished or outdated step is deleted.

    Args:
        folder: Where the step writes.
        command: The whole command, and whatever else the result depends on.
        done: The file in `folder` that is written last.

    Raises:
        ValueError: The folder holds files of something else; nothing is changed.
    """
    mark, text = folder / ".step", "\n".join(command) + "\n"
    if folder.exists() and any(folder.iterdir()):
        if not mark.is_file():
            raise ValueError(
                f"{folder} exists and was not made by this program; move it, or give another --output_dir"
            )
        if mark.read_text(encoding="utf-8") == text and (folder / done).exists():
            return False
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    mark.write_text(text, encoding="utf-8")
    return True


def fast_precision() -> list[str]:
    """`["--bf16"]` if this machine multiplies matrices faster in bfloat16 than in float32, else no flag.

    A CPU needs AMX for that: with AVX512-BF16 alone, PyTorch's products take twice as long as in float32.
    """
    import torch

    if torch.cuda.is_available():
        return ["--bf16"] if torch.cuda.is_bf16_supported() else []
    return ["--bf16"] if torch.cpu.get_capabilities().get("amx_bf16") else []


def set_up_logging(*, main_process: bool) -> None:
    """One line per message on stderr. Only the main process logs messages below a warning."""
    logging.basicConfig(
        level=logging.INFO if main_process else logging.WARNING, format="%(message)s", stream=sys.stderr, force=True
    )
    for noisy in ("httpx", "datasets", "filelock", "matplotlib", "fsspec", "PIL", "huggingface_hub", "accelerate"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # On a CPU accelerate expects mpirun to start several processes. Alone it starts one and sets these variables.
    if os.environ.get("ACCELERATE_USE_CPU") == "True" and "MASTER_PORT" in os.environ and "RANK" not in os.environ:
        logger.warning(
            "this is one process: accelerate launch --cpu --num_processes N starts N only under mpirun. Use "
            "accelerate launch --config_file scripts/configs/accelerate/cpu.yaml --num_processes N"
        )


def fail(error: Exception | str, code: int = 2) -> NoReturn:
    """Ends the program with the error's message, which says what to do, and without a traceback."""
    # The message of an error from a data loader's worker holds a traceback.
    text = str(error).rstrip().rsplit(f"\n{type(error).__name__}: ", 1)[-1]
    tqdm.write(f"error: {text}", file=sys.stderr)  # on a line of its own, even below a progress bar
    raise SystemExit(code)
