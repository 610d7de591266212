"""Imports point one way, and importing the package is cheap."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from graphlib import TopologicalSorter
from itertools import product
from pathlib import Path

import pytest

import hf_ta_cleaner


PACKAGE = Path(hf_ta_cleaner.__file__).parent
SCRIPTS = PACKAGE.parent / "scripts"
NAME = PACKAGE.name

#: The rooms, lowest first. A room imports only from rooms in lines above its own.
ROOMS = """
    _version seeding pictures distributed losses metrics
    attacks subtexts models
    sandbox
    data
    poisoning views
    crafting evaluation detection
    publishing
    training
    commands
"""
LEVEL = {room: level for level, line in enumerate(ROOMS.strip().splitlines()) for room in line.split()}

#: Libraries that a room does not import, not even inside a function.
FORBIDDEN = {
    "attacks": {"transformers", "datasets"},
    "losses": {"transformers", "datasets", "accelerate"},
    "metrics seeding pictures poisoning subtexts": {"torch", "transformers"},
    "data.loading data.sources data.classnames": {"torch", "transformers"},
    "publishing.report": {"torch", "transformers", "datasets", "numpy"},
}

#: Rooms on the defender's side. They know no trigger.
DEFENDERS = ("subtexts", "data", "views", "detection", "training")


@cache
def files(room: str = "") -> tuple[Path, ...]:
    """The files of a room ("" for the whole package): one file, or all in its folder."""
    place = PACKAGE.joinpath(*filter(None, room.split(".")))
    return tuple(sorted(place.rglob("*.py"))) if place.is_dir() else (place.with_suffix(".py"),)


def imports(file: Path, *, late: bool = True, checkers: bool = False) -> list[tuple[str, str]]:
    """(module, name) of every import statement; `name` is "" for a plain import. Relative imports come out absolute.

    Args:
        file: A file of the package or a script.
        late: Also imports within functions.
        checkers: Also imports that only type checkers run.
    """
    found: list[tuple[str, str]] = []
    here = [NAME, *file.relative_to(PACKAGE).parent.parts] if file.is_relative_to(PACKAGE) else []

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test) and not checkers:
            return
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)) and not late:
            return
        if isinstance(node, ast.Import):
            found.extend((alias.name, "") for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            found.extend((module, alias.name) for alias in node.names)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(file.read_text(encoding="utf-8")))
    return found


def target(module: str, name: str) -> Path | None:
    """The file of ours that an import reads, None for other libraries."""
    if module.split(".")[0] != NAME:
        return None
    place = PACKAGE.joinpath(*module.split(".")[1:])
    candidates = (place / name / "__init__.py", place / f"{name}.py", place.with_suffix(".py"), place / "__init__.py")
    return next(path for path in candidates if path.is_file())


def room_of(file: Path) -> str:
    return file.relative_to(PACKAGE).with_suffix("").parts[0]


def test_every_room_has_its_place():
    found = {room_of(file) for file in files()}
    assert found - {"__init__"} == set(LEVEL)


def test_imports_between_rooms_point_one_way():
    for file in files():
        for other in filter(None, (target(*found) for found in imports(file, checkers=True))):
            room, used = room_of(file), room_of(other)
            if "__init__" not in (room, used) and room != used:
                assert LEVEL[used] < LEVEL[room], f"{file.relative_to(PACKAGE)} must not import {used}"


def test_there_is_no_import_circle():
    graph = {}
    for file in files():
        package = file.with_name("__init__.py")
        others = {target(*found) for found in imports(file, checkers=True)} - {None, file}
        graph[file] = others - ({package} if file.parent != PACKAGE else set())
    tuple(TopologicalSorter(graph).static_order())  # raises CycleError


@pytest.mark.parametrize("rooms", FORBIDDEN)
def test_rooms_do_without_these_libraries(rooms):
    for room in rooms.split():
        for file, library in product(files(room), FORBIDDEN[rooms]):
            used = {module.split(".")[0] for module, _ in imports(file)}
            assert library not in used, f"{file.relative_to(PACKAGE)} imports {library}"


@pytest.mark.parametrize("room", DEFENDERS)
def test_the_defender_knows_no_trigger(room):
    for file in files(room):
        used = {room_of(other) for other in filter(None, (target(*found) for found in imports(file)))}
        assert not used & {"attacks", "poisoning", "crafting"}, file.relative_to(PACKAGE)


def test_metrics_stand_alone():
    """`evaluate.load` copies a metric's folder elsewhere: nothing relative, nothing of ours."""
    for file in files("metrics"):
        assert not [found for found in imports(file) if target(*found)], file


@pytest.mark.parametrize("file", sorted(SCRIPTS.glob("*.py")), ids=lambda file: file.name)
def test_scripts_use_public_names_and_not_each_other(file):
    siblings = {other.stem for other in SCRIPTS.glob("*.py")}
    for module, name in imports(file):
        assert module not in siblings
        assert not (module.startswith(NAME) and any(part.startswith("_") for part in [*module.split("."), name]))


def test_no_file_uses_the_private_names_of_another_room():
    for file in files():
        for module, name in imports(file):
            other = target(module, name)
            if other and room_of(other) != room_of(file) and name.startswith("_"):
                assert name == "__version__", f"{file.relative_to(PACKAGE)} imports {module}.{name}"


def test_the_package_never_imports_the_scripts():
    assert not [found for file in files() for found in imports(file) if found[0].split(".")[0] == "scripts"]


def test_every_public_name_is_where_the_package_says():
    for name in hf_ta_cleaner._PUBLIC:
        assert getattr(hf_ta_cleaner, name) is not None
        assert name in dir(hf_ta_cleaner)
    with pytest.raises(AttributeError, match="no_such_name"):
        hf_ta_cleaner.no_such_name  # noqa: B018


def test_a_room_is_not_a_corridor():
    """A room with more files, or a root with more, is not told in one line."""
    folders = {PACKAGE, *(file.parent for file in files())}
    crowded = {f.name: n for f in folders if (n := len(list(f.glob("*.py")))) > (6 if f == PACKAGE else 12)}
    assert not crowded


HEAVY = "['torch', 'transformers', 'datasets', 'matplotlib']"


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import hf_ta_cleaner", HEAVY),
        ("import hf_ta_cleaner.attacks, hf_ta_cleaner.poisoning, hf_ta_cleaner.publishing.report", HEAVY),
        ("import hf_ta_cleaner.losses, hf_ta_cleaner.sandbox, hf_ta_cleaner.views.augment", HEAVY),
        ("import hf_ta_cleaner.subtexts, hf_ta_cleaner.data.loading", "['torch', 'transformers']"),
    ],
)
def test_importing_is_cheap(statement, absent):
    """In a fresh interpreter, so that nothing imported by another test counts."""
    code = f"import sys\n{statement}\nprint(*[name for name in {absent} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
