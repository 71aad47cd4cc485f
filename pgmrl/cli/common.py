"""What the commands share: the connection, options, output for people and for machines."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from pgmrl import database, local
from pgmrl.errors import DefinitionError, MigrationError
from pgmrl.model.hnsw import Hnsw
from pgmrl.model.metrics import metric_named
from pgmrl.online.reshape import current_index

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection, Engine

    from pgmrl.model.metrics import MetricName

__all__ = [
    "Json",
    "Metric",
    "Searched",
    "Url",
    "asked_index",
    "console",
    "engine",
    "errors",
    "escaped",
    "known_metric",
    "metric_name",
    "progress",
    "write_json",
]


def known_metric(given: str | None) -> str | None:
    """Refuse the name of no metric as a wrong use of the option."""
    try:
        return None if given is None else metric_named(given).name
    except DefinitionError as error:
        raise typer.BadParameter(str(error)) from None


console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)

Json = Annotated[bool, typer.Option("--json", help="Write one JSON document to standard output and nothing else.")]
Searched = Annotated[str, typer.Argument(help="table.column or schema.table.column, of the full vectors")]
Metric = Annotated[
    str | None, typer.Option(callback=known_metric, help="Where the catalogue does not say it: cosine, l2, …")
]
Url = Annotated[
    str | None,
    typer.Option(
        "--database-url",
        metavar="URL",
        help="The database; before DATABASE_URL and the embedded server. The process list shows it to others: keep a "
        "password in DATABASE_URL, PGPASSWORD or a password file.",
    ),
]


@contextmanager
def engine(url: str | None) -> Iterator[Engine]:
    """An Engine on the given database, DATABASE_URL's or the embedded server's.

    Raises:
        Unreachable: the server does not answer.
        LocalServerError: the embedded server cannot be used.
    """
    if url is not None:
        with database.connect(url) as given:
            yield given
    else:
        with local.server_url() as found, database.connect(found) as opened:
            yield opened


@contextmanager
def progress(*, quiet: bool) -> Iterator[Progress]:
    """Progress bars on standard error, none where it is no terminal or `quiet`."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    hidden = quiet or not sys.stderr.isatty()
    with Progress(*columns, console=errors, disable=hidden) as bars:
        yield bars


def write_json(value: Any) -> None:
    """One JSON document; numbers and texts as they are, everything else as text."""
    json.dump(value, sys.stdout, ensure_ascii=False, default=str, indent=2)
    sys.stdout.write("\n")


def metric_name(given: str | None) -> MetricName | None:
    """The metric of an option, which has been checked."""
    return None if given is None else metric_named(given).name


def asked_index(
    connection: Connection, table: str, full: str, m: int | None, ef_construction: int | None, *, schema: str | None
) -> Hnsw | None:
    """The index of `--m` and `--ef-construction`, with what is not given as in the index there is; None for neither.

    Raises:
        DefinitionError: numbers that pgvector does not take.

    """
    if m is None and ef_construction is None:
        return None
    try:
        had = current_index(connection, table, full, schema=schema) or Hnsw()
    except MigrationError:  # there is no short column to start from
        had = Hnsw()
    links = had.m if m is None else m
    return Hnsw(links, max(had.ef_construction, 2 * links) if ef_construction is None else ef_construction)


def escaped(value: object) -> str:
    """A text for rich that is no markup."""
    return escape(str(value))
