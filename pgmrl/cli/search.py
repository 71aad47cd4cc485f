"""`pgmrl search`: ask a table a question."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from rich.table import Table
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError

from pgmrl.cli.common import Json, Metric, Searched, Url, console, engine, escaped, metric_name, write_json
from pgmrl.cli.runs import Run, run
from pgmrl.database.reflection import reflect
from pgmrl.embedders import DEFAULT, embed_query, load_embedder
from pgmrl.errors import DatabaseError, DefinitionError, VectorError
from pgmrl.model.types import NumpyVector
from pgmrl.searching.plans import explained

if TYPE_CHECKING:
    from sqlalchemy import Column, Connection, Select

    from pgmrl.model.vectors import VectorArray

__all__ = [
    "EfSearch",
    "Exact",
    "K",
    "QueryModel",
    "QueryVector",
    "Question",
    "ShortlistSize",
    "Where",
    "check_condition",
    "conditioned",
    "filtered",
    "print_run",
    "query_vector",
    "search",
]

Question = Annotated[str | None, typer.Argument(help="What to look for, in words.")]
QueryVector = Annotated[
    str | None, typer.Option("--vector", help="Instead of words: a JSON array, or a .npy or .json file with one.")
]
QueryModel = Annotated[str, typer.Option("--embedder", help="The model the table was embedded with.")]
K = Annotated[int, typer.Option("-k", help="Rows to return.")]
ShortlistSize = Annotated[
    int | None,
    typer.Option(
        "--shortlist",
        help="Rows that are ranked exactly; default the stored setting, else 10 times k (at least 40).",
    ),
]
EfSearch = Annotated[
    int | None,
    typer.Option(
        "--ef-search", help="HNSW's candidates; default the stored setting, else the shortlist, at most 1,000."
    ),
]
Where = Annotated[str | None, typer.Option("--where", help="A filter as SQL, such as \"section = 'games'\".")]
Exact = Annotated[bool, typer.Option("--exact", help="Read every row: the truth.")]

CELL = 200  # characters of a value that a table shows


def search(
    column: Searched,
    question: Question = None,
    vector: QueryVector = None,
    model: QueryModel = DEFAULT,
    k: K = 10,
    shortlist: ShortlistSize = None,
    ef_search: EfSearch = None,
    where: Where = None,
    show: Annotated[list[str] | None, typer.Option(help="A column to show; repeat for more. Default: all.")] = None,
    metric: Metric = None,
    exact: Exact = False,
    compare: Annotated[bool, typer.Option(help="Search exactly as well, and say the recall.")] = False,
    url: Url = None,
    json: Json = False,
) -> None:
    """Search a table by meaning.

    Example: `pgmrl search packages.embedding "a game with trains" --where "section = 'games'" --show name`
    """
    query = query_vector(question, vector, model)
    with engine(url) as opened, opened.connect() as connection:
        searched = reflect(connection, column, metric=metric_name(metric))
        check_condition(connection, searched, where)
        statement = filtered(searched, show, where)
        options: dict[str, Any] = {"k": k, "shortlist": shortlist, "ef_search": ef_search, "exact": exact}
        found = run(connection, statement, searched, query, compare=compare, **options)
    if json:
        write_json(as_json(found))
    else:
        print_run(found)


def filtered(searched: Column[Any], show: list[str] | None, where: str | None) -> Select[*tuple[Any, ...]]:
    """The rows that are searched, with the columns to show.

    Raises:
        DefinitionError: a column that the table does not have.
    """
    return conditioned(select(*_shown(searched, show)), where)


def conditioned(statement: Select[*tuple[Any, ...]], where: str | None) -> Select[*tuple[Any, ...]]:
    """A Select with the filter of `--where`."""
    return statement if where is None else statement.where(text(where.replace(":", "\\:")))  # a colon is no parameter


def check_condition(connection: Connection, searched: Column[Any], where: str | None) -> None:
    """Have the server plan the filter of `--where` alone: what it says of a search quotes the whole statement.

    Raises:
        DatabaseError: it refuses the filter.
    """
    if where is None:
        return
    try:
        explained(connection, conditioned(select(*searched.table.primary_key.columns), where))
    except DBAPIError as error:
        said: Any = getattr(error.orig, "diag", None)
        shown = getattr(said, "message_primary", None) or str(error.orig).strip()
        hint = getattr(said, "message_hint", None)
        raise DatabaseError(f"--where {where!r}: {shown}{f' ({hint})' if hint else ''}") from None


def as_json(found: Run) -> dict[str, Any]:
    """A run as a JSON document."""
    return {
        "hits": [dict(row._mapping) for row in found.rows],
        "total_ms": found.total_ms,
        "shortlist_ms": found.shortlist_ms,
        "rerank_ms": found.rerank_ms,
        "index": found.index,
        "exact_ms": found.exact_ms,
        "recall": found.recall,
    }


def print_run(found: Run) -> None:
    """A run as a table and a line on its cost."""
    if not found.rows:
        console.print("no rows")
        return
    names = [str(name) for name in found.rows[0]._mapping]
    cells = [[f"{row[-1]:.4f}", *map(_cell, list(row)[:-1])] for row in found.rows]
    table = Table(box=None, header_style="dim")
    for name, width in zip(["distance", *names[:-1]], _widths([["distance", *names[:-1]], *cells]), strict=True):
        table.add_column(name, no_wrap=True, overflow="ellipsis", width=width)
    for row in cells:
        table.add_row(*map(escaped, row))
    console.print(table)
    console.print(cost(found), style="dim", soft_wrap=True)


def cost(found: Run) -> str:
    """What a run cost, in a line."""
    parts = [f"{found.total_ms:.1f} ms"]
    if found.shortlist_ms is not None and found.rerank_ms is not None:
        through = "the short index" if found.index else "the whole table (the planner's choice)"
        parts.append(f"shortlist {found.shortlist_ms:.1f} ms through {through}, rerank {found.rerank_ms:.1f} ms")
    if found.exact_ms is not None:
        parts.append(f"exact search {found.exact_ms:.1f} ms")
    if found.recall is not None:
        parts.append(f"recall@{len(found.rows)} {found.recall:.2f}")
    return "; ".join(parts)


def query_vector(question: str | None, vector: str | None, model: str) -> VectorArray:
    """The vector of a question in words, or of `--vector`.

    Raises:
        VectorError: it is no array of numbers.
    """
    if (question is None) == (vector is None):
        raise typer.BadParameter("give a question or --vector")
    if question is not None:
        return embed_query(load_embedder(model), question)
    return _vector(vector or "")


def _vector(given: str) -> VectorArray:
    try:
        if given.endswith(".npy"):
            return np.asarray(np.load(given, allow_pickle=False), np.float32)
        written = Path(given).read_text(encoding="utf-8") if given.endswith(".json") else given
        return np.asarray(jsonlib.loads(written), np.float32)
    except OSError as error:
        raise VectorError(f"{given} cannot be read: {error.strerror or error}") from None
    except (ValueError, TypeError) as error:
        raise VectorError(f"--vector {given[:40]!r} is no array of numbers: {error}") from error


def _shown(searched: Column[Any], names: list[str] | None) -> list[Column[Any]]:
    table = searched.table
    for name in names or ():
        if name not in table.c:
            raise DefinitionError(f"--show {name}: the table has {', '.join(table.c.keys())}")
    if names:
        return [table.c[name] for name in names]
    # vectors are not for reading
    plain = [c for c in table.c if not isinstance(c.type, NumpyVector) and not _is_vector(c)]
    return plain or list(table.primary_key)


def _is_vector(column: Column[Any]) -> bool:
    return type(column.type).__name__.upper() in {"VECTOR", "HALFVEC", "BIT", "SPARSEVEC", "TSVECTOR"}


def _widths(rows: list[list[str]]) -> list[int]:
    """Widths that fit the terminal, taken from the widest column first."""
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    room = max(console.width - 2 * len(widths), 8 * len(widths))
    while sum(widths) > room:
        widths[widths.index(max(widths))] -= 1
    return widths


def _cell(value: Any) -> str:
    shown = "" if value is None else " ".join(str(value).split())
    return shown if len(shown) <= CELL else shown[: CELL - 1] + "…"
