"""The layout: imports run one way, in a circle nowhere, and a name means one thing."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

import pgmrl

PACKAGE = Path(pgmrl.__file__).parent
# A folder imports from its own row's folder and from the rows above; imports for type checking count as any other.
LAYERS = (
    ("errors", "names", "units", "limits", "reprs", "urls", "model_cards"),
    ("model", "embedders", "local"),
    ("database",),
    ("searching", "ingestion", "functions", "online"),
    ("measure", "explanation", "alembic", "embedding_queue"),
    ("tune", "evaluation", "doctor", "demo"),
    ("cli",),
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}


@cache
def modules() -> dict[str, Path]:
    """Every module of the package by its name without `pgmrl.`; a package by its folder's."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    found.pop("", None)  # the public names: it imports everything
    return found


@cache
def imports() -> dict[str, set[str]]:
    """For each module the modules of the package that it imports, wherever in it."""
    return {name: {*_imported(path)} - {name} for name, path in modules().items()}


def _imported(path: Path) -> list[str]:
    """The modules of the package that a file imports."""
    return [name.removeprefix("pgmrl.") for name in _named(path) if name.startswith("pgmrl.")]


def _named(path: Path) -> list[str]:
    found: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.extend(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.append(inner if inner.removeprefix("pgmrl.") in modules() else node.module)
    return found


def test_every_folder_has_its_place() -> None:
    """A new folder or loose module is put into LAYERS on purpose."""
    assert {name.split(".")[0] for name in modules()} == set(LEVEL)


def test_imports_run_one_way() -> None:
    """From the ground up; between folders of one row not at all, but for the ground's own modules."""
    wrong = [
        f"{name} imports {other}"
        for name, others in imports().items()
        for other in others
        for here, there in [(name.split(".")[0], other.split(".")[0])]
        if here != there and (LEVEL[there], LEVEL[there]) >= (LEVEL[here], 1)
    ]
    assert not wrong


def test_no_circles() -> None:
    """Not inside a folder either."""
    left = {name: set(others) for name, others in imports().items()}
    while free := [name for name, others in left.items() if not others & left.keys()]:
        for name in free:
            del left[name]
    assert not left


def test_alembics_entry_point_stands_apart() -> None:
    """Alembic loads it with itself: it imports nothing of pgmrl, and nothing of pgmrl imports it."""
    assert not [name for name in _named(PACKAGE.parent / "pgmrl_alembic" / "__init__.py") if name.startswith("pgmrl")]
    assert not [name for name, path in modules().items() if "pgmrl_alembic" in _named(path)]


def test_a_public_name_is_no_module() -> None:
    """`pgmrl.search` is the function, whatever has been imported."""
    assert not set(pgmrl.__all__) & {name.split(".")[0] for name in modules()}


def test_a_file_name_means_one_thing() -> None:
    """Only the command line's modules, called like their commands, may share a name with what they run."""
    names = Counter(name.rsplit(".", 1)[-1] for name in modules() if not name.startswith("cli.") and "." in name)
    assert not [name for name, count in names.items() if count > 1]


@pytest.mark.parametrize("heavy", ["alembic", "typer", "click", "rich", "matplotlib", "model2vec", "torch"])
def test_importing_is_light(heavy: str) -> None:
    """What an application does not use is not loaded with `import pgmrl`."""
    code = f"import sys, pgmrl; sys.exit({heavy!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0  # noqa: S603
