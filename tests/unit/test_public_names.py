"""The package's own names: each is there, also those that are loaded when they are first asked for."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import pgmrl

LATE = pgmrl._MODULES


@pytest.mark.parametrize("name", pgmrl.__all__)
def test_each_public_name_is_there(name: str) -> None:
    """And listed, for those who look."""
    assert getattr(pgmrl, name) is not None
    assert name in dir(pgmrl)


def test_a_late_name_is_the_one_a_type_checker_sees() -> None:
    """The table of late names and the imports for type checkers say the same."""
    tree = ast.parse(Path(pgmrl.__file__).read_text(encoding="utf-8"))
    checked = next(node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    imports = [node for node in checked.body if isinstance(node, ast.ImportFrom)]
    assert {alias.name: node.module for node in imports for alias in node.names} == LATE
    assert set(LATE) <= set(pgmrl.__all__)
    for name, module in LATE.items():
        assert getattr(pgmrl, name) is getattr(import_module(module), name)


def test_a_wrong_name_is_an_error() -> None:
    """As in any module."""
    with pytest.raises(AttributeError, match="module 'pgmrl' has no attribute 'serach'"):
        pgmrl.serach  # type: ignore[attr-defined]  # noqa: B018
    assert not hasattr(pgmrl, "serach")


@pytest.mark.parametrize("code", ["import pgmrl", "from pgmrl import search, matryoshka, check_schema, reflect"])
def test_what_not_every_application_uses_comes_late(code: str) -> None:
    """So that importing stays light; asking for it loads it."""
    late = sorted(set(LATE.values()))
    seen = f"print(*(name for name in {late} if name in sys.modules))"
    script = f"import sys\n{code}\n{seen}\nfrom pgmrl import *\n{seen}\n"
    ran = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)  # noqa: S603
    assert ran.stdout.splitlines() == ["", " ".join(late)]
