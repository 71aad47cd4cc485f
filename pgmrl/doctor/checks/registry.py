"""The record of a check, and the decorators that make one of a function.

A module of this folder holds checks:

    @column_check("index-missing", "warning", "no HNSW index on the short column")
    def index_missing(context: CheckContext, column: CheckedColumn) -> Iterator[Problem]:
        ...
            yield Problem(message, remedy, sql, values)

`pgmrl.doctor.checks.CHECKS` has all of them; the run, `pgmrl doctor --list` and the test of the documentation read it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pgmrl.doctor.finding import Problem, Unchecked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import ModuleType

    from pgmrl.doctor.check_context import CheckContext
    from pgmrl.doctor.checked_columns import CheckedColumn
    from pgmrl.doctor.finding import Severity

    ColumnFunction = Callable[[CheckContext, CheckedColumn], Iterable[Problem | Unchecked]]
    DatabaseFunction = Callable[[CheckContext], Iterable[Problem | Unchecked]]

__all__ = ["Check", "checks_of", "column_check", "database_check"]


@dataclass(frozen=True, slots=True)
class Check:
    """One check.

    Attributes:
        name: as in `--only` and in findings.
        severity: the worst that it reports.
        description: what it looks for, one line.
        on_column: checks one short column; or None.
        on_database: checks the database as a whole; or None.

    """

    name: str
    severity: Severity
    description: str
    on_column: ColumnFunction | None = None
    on_database: DatabaseFunction | None = None


def column_check(name: str, severity: Severity, description: str) -> Callable[[ColumnFunction], Check]:
    """Make a function the check of each short column; arguments as in `Check`."""
    return lambda function: Check(name, severity, description, on_column=function)


def database_check(name: str, severity: Severity, description: str) -> Callable[[DatabaseFunction], Check]:
    """Make a function the check of the database as a whole; arguments as in `Check`."""
    return lambda function: Check(name, severity, description, on_database=function)


def checks_of(module: ModuleType) -> list[Check]:
    """The checks of a module, in the order in which they are defined there."""
    return [value for value in vars(module).values() if isinstance(value, Check)]
