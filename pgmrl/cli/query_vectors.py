"""Where the commands that measure take their queries from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from pgmrl.measure.queries import file_queries, selected_queries

if TYPE_CHECKING:
    from sqlalchemy import Column, Connection

    from pgmrl.measure.queries import Queries

__all__ = ["QueryFile", "QuerySelect", "queries_of_options"]

QueryFile = Annotated[str | None, typer.Option("--queries", help="A file of query vectors: .npy, or JSON lines.")]
QuerySelect = Annotated[
    str | None,
    typer.Option("--query-sql", metavar="SELECT", help="A SELECT of query vectors, such as those of a log."),
]


def queries_of_options(
    connection: Connection, searched: Column[Any], count: int, file: str | None, statement: str | None
) -> Queries | None:
    """The queries of `--queries` or `--query-sql`, so many at most; None where neither is given.

    Raises:
        BadParameter: both are.
        VectorError: they are no vectors of the column's.
        MeasureError: they cannot be read, or none can be searched with.
    """
    if file is not None and statement is not None:
        raise typer.BadParameter("give --queries or --query-sql")
    if file is not None:
        return file_queries(searched, file, limit=count)
    return None if statement is None else selected_queries(connection, searched, statement, limit=count)
