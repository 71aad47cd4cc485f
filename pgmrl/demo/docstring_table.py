"""The demo's table: docstrings of Python's standard library with their vectors, a short index and SQL functions."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Column, Integer, MetaData, Table, Text, func, inspect, select, text

from pgmrl import database
from pgmrl.demo.questions import QUESTIONS
from pgmrl.embedders import DEFAULT, embed_batches, embed_query
from pgmrl.embedders.token_model import load_token_model
from pgmrl.functions.install import drop_functions, install_functions
from pgmrl.functions.named_queries import add_query
from pgmrl.functions.text_models import install_model
from pgmrl.ingestion.ingest import ingest
from pgmrl.ingestion.new_table import create_without_indexes, vacuum_analyze
from pgmrl.model.columns import Matryoshka, attachment_of
from pgmrl.model.shortening import Short
from pgmrl.model.sql_functions import SqlFunctions
from pgmrl.online import index_builds
from pgmrl.online.target import Target

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sqlalchemy import Connection

    from pgmrl.demo.corpus import Docstring
    from pgmrl.embedders import Embedder

    Progress = Callable[[str, int, int], None]

__all__ = ["DOCSTRINGS", "SCHEMA", "loaded_rows", "prepare"]

SCHEMA: Final = "pgmrl_demo"
SHORT_DIMS: Final = 64

DOCSTRINGS: Final = Table(
    "docstrings",
    MetaData(schema=SCHEMA),
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("name", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("package", Text, nullable=False),
    Column("summary", Text, nullable=False),
    Column("embedding", Matryoshka(256, Short(SHORT_DIMS)), nullable=False),
)


def loaded_rows(connection: Connection) -> int:
    """How many docstrings an earlier run has loaded and indexed; 0 where it did not come to its end."""
    if not inspect(connection).has_table(DOCSTRINGS.name, schema=SCHEMA):
        return 0
    indexed = any(
        info.index_valid and (info.table_schema, info.short_dims) == (SCHEMA, SHORT_DIMS)
        for info in database.columns(connection)
    )
    count = select(func.count()).select_from(DOCSTRINGS)
    return int(connection.execute(count).scalar_one()) if indexed else 0


def prepare(
    connection: Connection, docstrings: Sequence[Docstring], model: Embedder, progress: Progress
) -> dict[str, float]:
    """Make the table anew: embed and load, install the SQL functions, build the index.

    Args:
        connection: outside a transaction and not in autocommit; in autocommit afterwards.
        docstrings: the rows.
        model: embeds them; 256 dimensions.
        progress: called with the step, how much of it is done and how much there is.

    Returns:
        The seconds of the steps `embed and load` and `index`.
    """
    seconds: dict[str, float] = {}
    with connection.begin():
        database.upgrade(connection)
        connection.execute(text(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}"))
        drop_functions(connection, DOCSTRINGS.c.embedding)
        DOCSTRINGS.drop(connection, checkfirst=True)
        create_without_indexes(connection, DOCSTRINGS)
    with _timed(seconds, "embed and load"):
        total = len(docstrings)
        ingest(
            connection,
            DOCSTRINGS.c.embedding,
            _rows(docstrings, model),
            progress=lambda done: progress("embedding and loading", done, total),
        )
    with connection.begin():
        _install(connection, model)
    connection.execution_options(isolation_level="AUTOCOMMIT")
    with _timed(seconds, "index"):
        _build_index(connection, progress)
    vacuum_analyze(connection, DOCSTRINGS)
    return seconds


def _rows(docstrings: Sequence[Docstring], model: Embedder) -> Iterator[dict[str, Any]]:
    texts = (f"{docstring.name}: {docstring.text}" for docstring in docstrings)
    vectors = (vector for _, array in embed_batches(model, texts) for vector in array)
    for number, (docstring, vector) in enumerate(zip(docstrings, vectors, strict=True), 1):
        yield {
            "id": number,
            "name": docstring.name,
            "kind": docstring.kind,
            "package": docstring.package,
            "summary": docstring.summary,
            "embedding": vector,
        }


def _install(connection: Connection, model: Embedder) -> None:
    """What a BI tool calls: SQL functions, the model that embeds its words, and the questions as named queries."""
    column = DOCSTRINGS.c.embedding
    install_model(connection, DEFAULT, load_token_model(DEFAULT))
    install_functions(connection, column, SqlFunctions(filters=("kind", "package"), model=DEFAULT))
    for question in QUESTIONS:
        add_query(connection, column, question, embed_query(model, question), question=question, embedder=DEFAULT)


def _build_index(connection: Connection, progress: Progress) -> None:
    attachment = attachment_of(DOCSTRINGS.c.embedding)
    target = Target(DOCSTRINGS.name, attachment.full, attachment.definition, SCHEMA)
    index_builds.build(
        connection,
        target,
        attachment.index,
        progress=lambda build: progress(f"building the short index: {build.phase}", build.done, build.total),
    )


@contextmanager
def _timed(seconds: dict[str, float], step: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[step] = time.perf_counter() - start
