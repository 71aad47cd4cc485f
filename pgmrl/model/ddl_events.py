"""Listeners of a Table's DDL events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import DDL

from pgmrl.model.server_names import translated_schema

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection, Table

__all__ = ["table_statement"]


def table_statement(make: Callable[[str | None, str], str]) -> Callable[..., None]:
    """A listener that runs a statement on the table that has just been created or dropped.

    Args:
        make: the statement, of the schema and the name of the table as the server has them.

    """

    def run(target: Table, connection: Connection, **_: Any) -> None:
        if connection.dialect.name != "postgresql":  # a model that is also created elsewhere, as in unit tests
            return
        statement = make(translated_schema(connection, target.schema), target.name)
        connection.execute(DDL(statement.replace("%", "%%")))  # type: ignore[no-untyped-call]  # DDL formats its text

    return run
