"""The demo's questions, and how one is answered."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import select

from pgmrl.demo.timed_search import TimedSearch, timed_search
from pgmrl.embedders import embed_query

if TYPE_CHECKING:
    from sqlalchemy import Column, Connection

    from pgmrl.embedders import Embedder

__all__ = ["QUESTIONS", "Answer", "answer"]

QUESTIONS: Final = (
    "read a file line by line",
    "wait for several threads to finish",
    "the difference between two dates",
    "send an email over an encrypted connection",
)


class Answer(NamedTuple):
    """What a question brought.

    Attributes:
        embedding_ms: the time that embedding it took.
        search: its hits (name, kind, summary, distance), and what they cost beside the exact search.
    """

    embedding_ms: float
    search: TimedSearch


def answer(
    connection: Connection, column: Column[Any], model: Embedder, question: str, *, k: int = 5, shortlist: int = 100
) -> Answer:
    """Answer a question by the docstrings nearest to it.

    Args:
        connection: of the database that holds them.
        column: the vectors' column of the demo's table.
        model: they were embedded with.
        question: in words.
        k: docstrings to bring.
        shortlist: rows that are ranked exactly.

    Raises:
        EmbedderError: the model knows none of the words.
    """
    start = time.perf_counter_ns()
    query = embed_query(model, question)
    embedding_ms = (time.perf_counter_ns() - start) / 1e6
    table = column.table
    statement = select(table.c.name, table.c.kind, table.c.summary)
    search = timed_search(connection, statement, column, query, compare=True, k=k, shortlist=shortlist)
    return Answer(embedding_ms, search)
