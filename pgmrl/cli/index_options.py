"""`--m` and `--ef-construction`: how an index is built, with what is not given as in the index there is."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from pgmrl.errors import MigrationError
from pgmrl.model.hnsw import Hnsw
from pgmrl.online.reshape import current_index

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = ["EfConstruction", "M", "index_of_options"]

M = Annotated[int | None, typer.Option("--m", help="Links of each element; default as in the index there is.")]
EfConstruction = Annotated[
    int | None,
    typer.Option("--ef-construction", help="Candidates while building; default as in the index there is."),
]


def index_of_options(
    connection: Connection, table: str, full: str, m: int | None, ef_construction: int | None, *, schema: str | None
) -> Hnsw | None:
    """The index of the two options; None where neither is given.

    Raises:
        DefinitionError: numbers that pgvector does not take.
    """
    if m is None and ef_construction is None:
        return None
    try:
        current = current_index(connection, table, full, schema=schema) or Hnsw()
    except MigrationError:  # there is no short column to start from
        current = Hnsw()
    links = current.m if m is None else m
    if ef_construction is None:
        ef_construction = max(current.ef_construction, 2 * links)
    return replace(current, m=links, ef_construction=ef_construction)
