"""What the commands that measure share: where their queries come from, and their progress."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from pgmrl.measure.queries import file_queries, selected_queries

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.progress import Progress, TaskID
    from sqlalchemy import Column, Connection

    from pgmrl.measure.queries import Queries

__all__ = ["QueryFile", "QuerySelect", "given_queries", "telling"]

QueryFile = Annotated[str | None, typer.Option("--queries", help="A file of query vectors: .npy, or JSON lines.")]
QuerySelect = Annotated[
    str | None,
    typer.Option("--query-sql", metavar="SELECT", help="A SELECT of query vectors, such as those of a log."),
]


def given_queries(
    connection: Connection, searched: Column[Any], count: int, file: str | None, statement: str | None
) -> Queries | None:
    """The queries of `--queries` or `--query-sql`, so many at most; None where neither is given.

    Raises:
        VectorError: they are no vectors of the column's.
        MeasureError: they cannot be read, or none can be searched with.
    """
    if file is not None and statement is not None:
        raise typer.BadParameter("give --queries or --query-sql")
    if file is not None:
        return file_queries(searched, file, limit=count)
    return None if statement is None else selected_queries(connection, searched, statement, limit=count)


def telling(bars: Progress) -> Callable[[str, int, int], None]:
    """A function that shows what is being done, how much of it is done and how much there is; a bar for each thing."""
    tasks: dict[str, TaskID] = {}

    def tell(what: str, done: int, whole: int) -> None:
        if what not in tasks:
            tasks[what] = bars.add_task(what, total=whole)
        bars.update(tasks[what], completed=done, total=whole)

    return tell
