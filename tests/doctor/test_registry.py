"""A check is found where its name says, and nobody can add one without its documentation and its test."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

from pgmrl.doctor import CHECKS, Check, checks
from pgmrl.doctor.finding import SEVERITIES

MODULES = [path for path in Path(checks.__file__).parent.glob("*.py") if path.stem not in {"__init__", "registry"}]


def test_names_are_unique() -> None:
    """And every check has a severity, a description, and something that it looks at."""
    assert len({check.name for check in CHECKS}) == len(CHECKS)
    for check in CHECKS:
        assert check.severity in SEVERITIES
        assert check.description
        assert check.on_column or check.on_database


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_every_module_is_registered(path: Path) -> None:
    """A check of a module that `CHECKS` does not know would never run; each is called like its function."""
    module = import_module(f"{checks.__name__}.{path.stem}")
    own = {name: value for name, value in vars(module).items() if isinstance(value, Check)}
    assert own
    assert all(value in CHECKS and value.name == name.replace("_", "-") for name, value in own.items())


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
def test_every_check_has_a_planted_fault(check: Check) -> None:
    """A module of the planted faults names each check, or tests its rule."""
    folder = Path(__file__).parent
    planted = "".join(
        (folder / name).read_text(encoding="utf-8")
        for name in ("test_planted.py", "test_filters.py", "test_partitions.py", "test_distributed_tables.py")
    )
    assert f'"{check.name}"' in planted or f"_{check.name}_" in planted
