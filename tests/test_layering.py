"""Imports point one way, and importing the package is cheap.

`LAYERS` lists every top-level module, lowest first, with all that it may import of ours; each may only name modules
above it in the table. What a folder's own files import from each other is the folder's business, except in `metrics/`.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import hf_ta_cleaner


PACKAGE = Path(hf_ta_cleaner.__file__).parent
SCRIPTS = PACKAGE.parent / "scripts"
COMMANDS = PACKAGE / "commands"

LAYERS: dict[str, set[str]] = {
    "_version": set(),
    "__init__": {"_version"},
    # Know nothing of each other.
    "seeding": set(),
    "allocator": set(),
    "losses": set(),
    "metrics": set(),
    "distributed": set(),
    "families": set(),
    "wordnet": set(),
    "sources": set(),
    "mapping": set(),
    "naming": set(),
    "classnames": {"sources"},
    "report": set(),
    "config": set(),
    "runs": {"naming", "wordnet"},
    "attacks": {"seeding"},
    "sandbox": {"allocator", "distributed", "seeding"},
    # The stages: what is done to pairs, pictures and checkpoints.
    "poisoning": {"attacks", "mapping", "naming", "seeding"},
    "subtexts": {"seeding", "wordnet"},
    "augment": {"wordnet"},
    "data": {"attacks", "classnames", "mapping", "sources", "seeding", "sandbox"},
    "checkpoints": {"families"},
    "open_clip": {"checkpoints"},
    "zero_shot": {"families"},
    "outliers": set(),
    "regions": set(),
    "retrieval": {"metrics"},
    "suspect": {"zero_shot"},
    "lora": {"families"},
    "crafting": {"attacks", "families", "poisoning", "seeding", "zero_shot"},
    "presets": {"attacks", "poisoning"},
    "mmpoison": {"attacks", "poisoning", "seeding", "zero_shot"},
    # What a training step and a measurement are made of.
    "sampling": {"seeding"},
    "streaming": {"seeding", "subtexts"},
    "collator": {"attacks", "augment", "data", "families", "seeding", "subtexts", "zero_shot"},
    "acceleration": set(),
    "resizing": {"attacks", "data", "mapping"},
    "adversary": {"distributed", "seeding"},
    "disturbances": {"distributed", "seeding"},
    "embedding": {"collator", "distributed", "families", "losses", "suspect"},
    "cached": {"embedding", "losses"},
    "utility": {"attacks", "data", "retrieval", "zero_shot"},
    "tracking": {"report"},
    # Trouble whose trigger is not known: in a model, in pairs, on a picture.
    "scan": {"attacks", "data", "families", "seeding", "sources", "zero_shot"},
    "pair_check": {"attacks", "data", "naming", "outliers", "regions", "seeding", "zero_shot"},
    "screening": {"seeding", "zero_shot"},
    # What is published, and said about it.
    "model_card": {"attacks", "losses", "naming", "poisoning", "report"},
    "hub_errors": set(),
    "hub": {
        "_version",
        "attacks",
        "checkpoints",
        "families",
        "hub_errors",
        "model_card",
        "naming",
        "poisoning",
        "report",
        "runs",
    },
    "publishing": {"checkpoints", "hub", "hub_errors", "report"},
    # The engines: training, its strength, and the measurement, which knows nothing of the others.
    "batches": {"config", "mapping", "resizing", "sampling", "streaming", "subtexts", "zero_shot"},
    "trainer": {
        "acceleration",
        "adversary",
        "allocator",
        "batches",
        "cached",
        "checkpoints",
        "collator",
        "config",
        "distributed",
        "disturbances",
        "embedding",
        "families",
        "lora",
        "losses",
        "publishing",
        "seeding",
        "suspect",
        "utility",
    },
    "strength": {"checkpoints", "config", "runs", "trainer"},
    "audit_inputs": {"attacks", "zero_shot"},
    "audit": {"audit_inputs", "distributed", "metrics", "seeding", "zero_shot"},
    "retrieval_audit": {"audit_inputs", "distributed", "poisoning", "retrieval", "zero_shot"},
    "linear_probe": {"audit_inputs", "distributed", "metrics", "seeding", "zero_shot"},
    "examples": {"audit_inputs", "seeding", "zero_shot"},
    "proof": {"audit", "examples", "linear_probe", "retrieval_audit", "zero_shot"},
    "estimate": {"config", "sampling"},
    "advice": {"report"},
    "cli": set(),
    "options": {"audit_inputs", "checkpoints", "classnames", "data", "poisoning", "proof", "zero_shot"},
    "cleaning_options": {"checkpoints", "config", "hub", "options", "tracking"},
    "cleaning_data": {"options", "config", "data", "sandbox", "streaming"},
}

#: On the defender's side a trigger is unknown: of `attacks`, these take only the geometry of a picture.
DEFENDERS = ("collator", "utility", "audit_inputs", "scan", "pair_check")

#: Libraries that a module must not import, not even inside a function.
FORBIDDEN: dict[str, set[str]] = {
    "allocator": {"torch", "transformers", "datasets", "numpy"},
    "seeding": {"torch", "transformers", "datasets"},
    "attacks": {"transformers", "datasets"},  # PyTorch only where a trained encoder is applied, see LIGHT
    "poisoning": {"torch", "transformers"},
    "subtexts": {"torch", "transformers"},
    "augment": {"torch", "transformers", "datasets"},
    "wordnet": {"torch", "transformers", "datasets"},
    "losses": {"transformers", "datasets", "accelerate"},
    "metrics": {"torch", "transformers"},
    "sources": {"torch", "transformers"},
    "classnames": {"torch", "transformers", "datasets"},
    "data": {"torch", "transformers"},
    "distributed": {"transformers", "datasets"},
    "sampling": {"transformers"},
    "report": {"torch", "transformers", "datasets", "numpy"},
    "config": {"datasets"},
}

#: What these may import when they are imported themselves; the rest is loaded when it is used.
LIGHT: dict[str, set[str]] = {
    "__init__": set(),
    "report": set(),
    "seeding": {"numpy"},
    "attacks": {"numpy", "PIL"},
    "poisoning": {"numpy", "PIL", "tqdm"},
    "losses": set(),
}


@cache
def files(module: str) -> tuple[Path, ...]:
    """The files of a top-level module: one file, or all in its folder."""
    folder = PACKAGE / module
    return tuple(sorted(folder.rglob("*.py"))) if folder.is_dir() else (PACKAGE / f"{module}.py",)


def imports(file: Path, *, package: str, at_import_time: bool = False) -> list[tuple[str, str, str]]:
    """(module, name, asked) of every import statement of a file that can run: not those for type checkers only.

    Relative imports come out absolute. `name` is what is imported from the module, "" for plain imports.
    """
    found: list[tuple[str, str, str]] = []

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for child in node.orelse:
                visit(child)
            return
        if at_import_time and isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            return
        if isinstance(node, ast.Import):
            found.extend((alias.name, "", ast.unparse(node)) for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            found.extend((module, alias.name, ast.unparse(node)) for alias in node.names)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(file.read_text(encoding="utf-8")))
    return found


def package_of(file: Path) -> str:
    return ".".join(("hf_ta_cleaner", *file.relative_to(PACKAGE).parent.parts))


def ours(file: Path, package: str) -> set[tuple[str, str]]:
    """(top-level module, imported name) of every import of ours in a file."""
    found = set()
    for module, name, _ in imports(file, package=package):
        parts = module.split(".")
        if parts[0] != "hf_ta_cleaner":
            continue
        if len(parts) == 1:  # from hf_ta_cleaner import x: a module, or a public name of one
            found.add((hf_ta_cleaner._PUBLIC.get(name, name), name))
        else:
            found.add((parts[1], name))
    return found


def top_level() -> set[str]:
    plain = {file.stem for file in PACKAGE.glob("*.py")}
    return plain | {file.parent.name for file in PACKAGE.glob("*/__init__.py")}


def test_every_module_has_its_place_in_the_table():
    assert top_level() - {"commands"} == set(LAYERS)  # the commands stand above everything, like the scripts


def test_the_table_points_one_way():
    above: set[str] = set()
    for module, allowed in LAYERS.items():
        assert allowed <= above, f"{module} stands below what it may import: {sorted(allowed - above)}"
        above.add(module)


@pytest.mark.parametrize("module", LAYERS)
def test_a_module_imports_what_the_table_allows_and_no_more(module):
    used = {other for file in files(module) for other, _ in ours(file, package_of(file))} - {module}
    assert used <= LAYERS[module], f"{module} must not import {sorted(used - LAYERS[module])}"
    assert used >= LAYERS[module], f"the table is out of date: {module} no longer imports {LAYERS[module] - used}"


@pytest.mark.parametrize("module", DEFENDERS)
def test_the_defender_takes_only_geometry_from_the_attacks(module):
    names = {name for file in files(module) for other, name in ours(file, package_of(file)) if other == "attacks"}
    assert names == {"fit"}


@pytest.mark.parametrize("module", FORBIDDEN)
def test_a_module_does_without_these_libraries(module):
    for file in files(module):
        for library, _, statement in imports(file, package=package_of(file), at_import_time=module == "losses"):
            assert library.split(".")[0] not in FORBIDDEN[module], f"{file.name}: {statement}"


@pytest.mark.parametrize("module", LIGHT)
def test_importing_these_loads_little(module):
    allowed = LIGHT[module] | {"hf_ta_cleaner"} | set(sys.stdlib_module_names)
    for file in files(module):
        for library, _, statement in imports(file, package=package_of(file), at_import_time=True):
            assert library.split(".")[0] in allowed, f"{file.name}: {statement}"


def test_metrics_stand_alone():
    """`evaluate.load` copies a metric's folder elsewhere: nothing relative, nothing of ours."""
    for file in files("metrics"):
        for module, _, statement in imports(file, package=package_of(file)):
            assert not module.startswith("hf_ta_cleaner"), f"{file.name}: {statement}"


@pytest.mark.parametrize(
    "file", sorted([*SCRIPTS.glob("*.py"), *COMMANDS.glob("[a-z]*.py")]), ids=lambda f: f"{f.parent.name}-{f.name}"
)
def test_scripts_use_public_names_and_not_each_other(file):
    siblings = {other.stem for other in SCRIPTS.glob("*.py")} - {"audit"}  # `audit` is also a module of ours
    for module, name, statement in imports(file, package=""):
        assert module not in siblings, statement
        if module.startswith("hf_ta_cleaner"):
            assert not any(part.startswith("_") for part in [*module.split("."), name]), statement
            # The folders that grow are used by what they offer, not by the file it lies in.
            roomy = ("hf_ta_cleaner.sandbox", "hf_ta_cleaner.commands")
            assert module.count(".") <= 1 or module.startswith(roomy), statement


def test_no_module_uses_the_private_names_of_another():
    for module in LAYERS:
        for file in files(module):
            private = {(m, n) for m, n in ours(file, package_of(file)) if n.startswith("_") and m != module}
            assert private - {("_version", "__version__")} == set(), f"{file.name}: {private}"


def test_nothing_below_imports_the_commands():
    for module in LAYERS:
        for file in files(module):
            assert "commands" not in {other for other, _ in ours(file, package_of(file))}, file.name


def test_the_package_never_imports_the_scripts():
    for file in PACKAGE.rglob("*.py"):
        assert not [s for m, _, s in imports(file, package=package_of(file)) if m.split(".")[0] == "scripts"]


def test_every_public_name_is_where_the_package_says():
    for name, module in hf_ta_cleaner._PUBLIC.items():
        assert module in LAYERS
        assert getattr(hf_ta_cleaner, name) is not None
        assert name in dir(hf_ta_cleaner)
    with pytest.raises(AttributeError, match="no_such_name"):
        hf_ta_cleaner.no_such_name  # noqa: B018


HEAVY = "['torch', 'transformers', 'datasets', 'matplotlib']"


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import hf_ta_cleaner", HEAVY),
        ("import hf_ta_cleaner.attacks, hf_ta_cleaner.poisoning, hf_ta_cleaner.report", HEAVY),
        ("import hf_ta_cleaner.losses, hf_ta_cleaner.sandbox, hf_ta_cleaner.augment", HEAVY),
        ("import hf_ta_cleaner.subtexts, hf_ta_cleaner.data", "['torch', 'transformers']"),
    ],
)
def test_importing_is_cheap(statement, absent):
    """In a fresh interpreter, so that nothing imported by another test counts."""
    code = f"import sys\n{statement}\nprint(*[name for name in {absent} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
