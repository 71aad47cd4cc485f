"""What a search of the command line is: a question or a vector, a filter, the columns to show."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError

from pgmrl import database
from pgmrl.embedders import embed_query, load_embedder
from pgmrl.errors import DatabaseError, DefinitionError, VectorError
from pgmrl.model.argument_types import is_unicode
from pgmrl.model.types import NumpyVector
from pgmrl.model.vectors import as_float32
from pgmrl.reprs import safe_repr
from pgmrl.searching.plans import explained

if TYPE_CHECKING:
    from sqlalchemy import Column, Connection, Select

    from pgmrl.model.vectors import VectorArray

__all__ = ["QueryVector", "Question", "Show", "Where", "check_filter", "filtered", "query_vector", "shown_columns"]

Question = Annotated[str | None, typer.Argument(help="What to look for, in words.")]
QueryVector = Annotated[
    str | None, typer.Option("--vector", help="Instead of words: a JSON array, or a .npy or .json file with one.")
]
Where = Annotated[str | None, typer.Option("--where", help="A filter as SQL, such as \"section = 'games'\".")]
Show = Annotated[
    list[str] | None, typer.Option("--show", help="A column to fetch; repeat for more. Default: all but vectors.")
]

UNREADABLE_TYPES = {"VECTOR", "HALFVEC", "BIT", "SPARSEVEC", "TSVECTOR"}


def query_vector(question: str | None, vector: str | None, model: str) -> VectorArray:
    """The vector of a question in words, or of `--vector`; shape (dims,).

    Raises:
        BadParameter: neither is given, or both are.
        VectorError: it is no array of numbers.
    """
    if (question is None) == (vector is None):
        raise typer.BadParameter("give a question or --vector")
    return embed_query(load_embedder(model), question) if question is not None else _vector(vector or "")


def _vector(text_or_file: str) -> VectorArray:
    try:
        if text_or_file.endswith(".npy"):
            return as_float32(np.load(text_or_file, allow_pickle=False), f"the array of {text_or_file}")
        is_file = text_or_file.endswith(".json")
        array = json.loads(Path(text_or_file).read_text(encoding="utf-8") if is_file else text_or_file)
        return as_float32(array, "--vector")
    except VectorError:
        raise
    except OSError as error:
        raise VectorError(f"{text_or_file} cannot be read: {error.strerror or error}") from None
    except (ValueError, EOFError, RecursionError) as error:
        raise VectorError(f"--vector {safe_repr(text_or_file[:40])} is no array of numbers: {error}") from error


def filtered(statement: Select[*tuple[Any, ...]], where: str | None) -> Select[*tuple[Any, ...]]:
    """A Select with the filter of `--where`."""
    return statement if where is None else statement.where(text(where.replace(":", "\\:")))  # a colon is no parameter


def check_filter(connection: Connection, searched: Column[Any], where: str | None) -> None:
    """Have the server plan the filter of `--where` alone: what it says of a search quotes the whole statement.

    From here on names mean what they mean to the role: the filter is the user's own.

    Raises:
        DatabaseError: it refuses the filter.
    """
    if where is None:
        return
    if not is_unicode(where):
        raise DatabaseError(f"--where {safe_repr(where)} is no valid Unicode: it has half of a surrogate pair")
    database.leave_pinned(connection)
    try:
        explained(connection, filtered(select(*searched.table.primary_key.columns), where))
    except DBAPIError as error:
        diagnosis: Any = getattr(error.orig, "diag", None)
        message = getattr(diagnosis, "message_primary", None) or str(error.orig).strip()
        hint = getattr(diagnosis, "message_hint", None)
        raise DatabaseError(f"--where {safe_repr(where)}: {message}{f' ({hint})' if hint else ''}") from None


def shown_columns(searched: Column[Any], names: list[str] | None) -> list[Column[Any]]:
    """The columns of `--show`; by default all but vectors, which are not for reading.

    Raises:
        DefinitionError: a column that the table does not have.
    """
    table = searched.table
    for name in names or ():
        if name not in table.c:
            raise DefinitionError(f"--show {name}: the table has {', '.join(table.c.keys())}")
    if names:
        return [table.c[name] for name in names]
    readable = [
        column
        for column in table.c
        if not isinstance(column.type, NumpyVector) and type(column.type).__name__.upper() not in UNREADABLE_TYPES
    ]
    return readable or list(table.primary_key)
