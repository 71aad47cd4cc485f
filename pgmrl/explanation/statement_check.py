"""The arguments of `explain` and its kin, checked before the server is asked anything."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.sql import visitors
from sqlalchemy.sql.expression import SelectBase

from pgmrl import database
from pgmrl.errors import SearchError
from pgmrl.reprs import safe_repr
from pgmrl.searching.hybrid import FUSED
from pgmrl.searching.statement import RESULTS

__all__ = ["check_arguments"]


def check_arguments(connection: Any, statement: Any, parameters: Any = None) -> Connection:
    """The connection of a Connection or Session.

    Raises:
        WrongConnection: it is neither.
        SearchError: the statement is not a search of pgmrl's, or the parameters are no mapping of names.

    """
    if parameters is not None and not _names_values(parameters):
        raise SearchError(
            f"parameters={safe_repr(parameters)}: expected a mapping from the parameters' names to values"
        )
    through = database.sqlalchemy_connection(connection)
    if not isinstance(statement, SelectBase) or not _names(statement) & {RESULTS, FUSED}:
        raise SearchError(
            "expected a statement that search() or another search function of pgmrl returned, got "
            f"{_kind(statement)}; for other statements run EXPLAIN (ANALYZE, BUFFERS)"
        )
    return through


def _names(statement: SelectBase) -> set[str]:
    return {str(getattr(element, "name", "")) for element in visitors.iterate(statement)}


def _names_values(parameters: Any) -> bool:
    try:
        return isinstance(parameters, Mapping) and all(isinstance(name, str) for name in parameters)
    except Exception:  # whatever the value's own __iter__ raises
        return False


def _kind(statement: Any) -> str:
    return "another Select" if isinstance(statement, SelectBase) else type(statement).__name__
