"""What the commands that measure share: where their queries come from, and their progress."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from pgmrl.measure.drawing import check_path
from pgmrl.measure.queries import file_queries, selected_queries

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from rich.progress import Progress, TaskID
    from sqlalchemy import Column, Connection

    from pgmrl.measure.queries import Queries

__all__ = ["QueryFile", "QuerySelect", "check_drawing", "given_queries", "sizes", "telling"]

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


def check_drawing(option: str, path: Path | None, suffixes: Sequence[str]) -> None:
    """Refuse a file that could not be drawn, before anything takes long.

    Raises:
        BadParameter: its name ends with something else.
        MeasureError: there is no such folder, or matplotlib is not installed.
    """
    if path is None:
        return
    if path.suffix.lower() not in suffixes:
        raise typer.BadParameter(f"{option} {path}: give a name that ends with {' or '.join(suffixes)}")
    check_path(path)


def sizes(option: str, given: str) -> list[int]:
    """Whole numbers with commas between.

    Raises:
        BadParameter: they are none.
    """
    try:
        return [int(one) for one in given.split(",") if one.strip()]
    except ValueError:
        raise typer.BadParameter(f"{option} {given!r}: write whole numbers with commas, such as 32,64,128") from None


def telling(bars: Progress) -> Callable[[str, int, int], None]:
    """A function that shows what is being done, how much of it is done and how much there is; a bar for each thing."""
    tasks: dict[str, TaskID] = {}

    def tell(what: str, done: int, whole: int) -> None:
        if what not in tasks:
            tasks[what] = bars.add_task(what, total=whole)
        bars.update(tasks[what], completed=done, total=whole)

    return tell
