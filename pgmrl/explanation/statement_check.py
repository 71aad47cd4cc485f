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
from pgmrl.searching.plans import reads_distributed
from pgmrl.searching.statement import RESULTS

__all__ = ["check_arguments", "check_parameters"]


def check_parameters(parameters: Any) -> dict[str, Any]:
    """The values of a statement's own parameters, by name; None for none.

    Raises:
        SearchError: they are no mapping from names.

    """
    values: dict[Any, Any] = {}
    try:
        if parameters is not None:
            values = {name: parameters[name] for name in parameters} if isinstance(parameters, Mapping) else {0: None}
    except Exception:  # whatever the mapping's own methods raise
        values = {0: None}
    if not all(isinstance(name, str) for name in values):
        raise SearchError(
            f"parameters={safe_repr(parameters)}: expected a mapping from the parameters' names to values"
        )
    return values


def check_arguments(connection: Any, statement: Any) -> Connection:
    """The connection of a Connection or Session.

    Args:
        connection: as given.
        statement: as given.

    Raises:
        WrongConnection: it is neither.
        SearchError: the statement is not a search of pgmrl's.

    """
    through = database.sqlalchemy_connection(connection)
    if isinstance(statement, SelectBase) and reads_distributed(statement):  # whose results may have the table's name
        return through
    if not isinstance(statement, SelectBase) or not _names(statement) & {RESULTS, FUSED}:
        raise SearchError(
            "expected a statement that search() or another search function of pgmrl returned, got "
            f"{_kind(statement)}; for other statements run EXPLAIN (ANALYZE, BUFFERS)"
        )
    return through


def _names(statement: SelectBase) -> set[str]:
    return {str(getattr(element, "name", "")) for element in visitors.iterate(statement)}


def _kind(statement: Any) -> str:
    return "another Select" if isinstance(statement, SelectBase) else type(statement).__name__
