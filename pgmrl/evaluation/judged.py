"""Judged queries: what was asked, and which documents people (or anybody else) found relevant to it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy.exc import DBAPIError

from pgmrl import database
from pgmrl.errors import MeasureError
from pgmrl.evaluation import files
from pgmrl.model.argument_types import argument_list, name_argument, path_argument, plain_text, whole_number
from pgmrl.reprs import safe_repr, safe_str

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection
    from sqlalchemy.orm import Session

__all__ = ["Judged", "Query", "beir_judgements", "file_judgements", "selected_judgements", "some"]

COLUMNS: Final = ("query", "document", "relevance")
NAMED: Final = 5


class Query(NamedTuple):
    """One query.

    Attributes:
        id: as the judgements name it.
        text: in words; None where there is only a vector.
        vector: shape (dims,), or what can become one; None where the text is to be embedded.

    """

    id: str
    text: str | None = None
    vector: Any = None


@dataclass(frozen=True, slots=True)
class Judged:
    """Queries and judgements.

    Attributes:
        queries: each with an id of its own.
        relevance: for each query's id the judged documents' names and their grades; above 0 is relevant.
        source: where they are from, in words.

    Raises:
        MeasureError: there are none, two queries share an id, or no query is judged.

    """

    queries: Sequence[Query]
    relevance: Mapping[str, Mapping[str, int]]
    source: str = "given judgements"

    def __post_init__(self) -> None:
        object.__setattr__(self, "source", safe_str(self.source, 500))
        object.__setattr__(self, "queries", _checked_queries(self.queries))
        object.__setattr__(self, "relevance", _checked_relevance(self.relevance))
        if not self.queries:
            raise MeasureError(f"{self.source}: there are no queries")
        if not self.relevance:
            raise MeasureError(f"{self.source}: there are no judgements")
        known: set[str] = set()
        for query in self.queries:
            if query.id in known:
                raise MeasureError(f"{self.source}: two queries have the id {safe_repr(query.id)}: give each its own")
            known.add(query.id)
        if known.isdisjoint(self.relevance):
            raise MeasureError(
                f"{self.source}: no query is judged: the queries are {some(sorted(known))}, the judgements are for "
                f"{some(sorted(self.relevance))}"
            )


def _checked_queries(queries: Any) -> list[Query]:
    listed = argument_list("queries", queries, MeasureError, "a list of Query(id, text, vector)")
    wrong = [query for query in listed if not isinstance(query, Query) or plain_text(query.id) is None]
    if wrong:
        raise MeasureError(f"{safe_repr(wrong[0])} among the queries: expected Query(id, text, vector), the id a text")
    return listed


def _checked_relevance(relevance: Any) -> dict[str, dict[str, int]]:
    try:
        copied = {query: dict(grades.items()) for query, grades in relevance.items()}
    except Exception:  # whatever the mappings' own methods raise
        copied = {None: {}}
    names = [*copied, *(document for grades in copied.values() for document in grades)]
    if any(plain_text(name) is None for name in names):
        raise MeasureError(
            f"relevance={safe_repr(relevance)}: expected for each query's id a mapping from documents' names to grades"
        )
    return {
        query: {document: whole_number("relevance", grade, MeasureError) for document, grade in grades.items()}
        for query, grades in copied.items()
    }


def file_judgements(queries: str | Path, qrels: str | Path, vectors: str | Path | None = None) -> Judged:
    """Judged queries of two files.

    Args:
        queries: a query a line: `id<TAB>text`, or JSON objects with `_id` (or `id`), and `text`, `vector` or both.
        qrels: a judgement a line: TREC's `query 0 document relevance`, or BEIR's three fields between tabs under a
            header.
        vectors: a `.npy` file of shape (queries, dims): row n is the vector of the n-th query.

    Raises:
        MeasureError: a file that cannot be read, with the line; judgements that contradict each other; none at all.
        VectorError: `vectors` is no such array.

    """
    named = [Query(*query) for query in files.queries(path_argument("queries", queries, MeasureError))]
    relevance = files.qrels(path_argument("qrels", qrels, MeasureError))
    return Judged(_with_vectors(named, vectors), relevance, f"{queries} and {qrels}")


def beir_judgements(folder: str | Path, split: str = "test", vectors: str | Path | None = None) -> Judged:
    """Judged queries of a folder as the BEIR benchmark has it: `queries.jsonl` and `qrels/test.tsv`.

    Thakur et al.: "BEIR: A Heterogeneous Benchmark for Zero-shot Evaluation of Information Retrieval Models",
    NeurIPS 2021. Queries of other splits, which are in the same file, are left out.

    Args:
        folder: the data set's; its `corpus.jsonl` is not read, since the documents are in the database.
        split: `test`, `dev` or `train`.
        vectors: as `file_judgements`, a row for each query of the file.

    Raises:
        MeasureError: as `file_judgements`.
        VectorError: as `file_judgements`.

    """
    folder, split = path_argument("folder", folder, MeasureError), name_argument("split", split, MeasureError)
    every = file_judgements(folder / "queries.jsonl", folder / "qrels" / f"{split}.tsv", vectors)
    judged = [query for query in every.queries if query.id in every.relevance]
    return Judged(judged, every.relevance, f"{folder}, {split}")


def selected_judgements(
    connection: Connection | Session,
    statement: str,
    queries: str | Path | None = None,
    vectors: str | Path | None = None,
) -> Judged:
    """Judged queries that a statement selects.

    Args:
        connection: of the database.
        statement: a SELECT of query, document and relevance, a row for each judgement. The query is its own text
            unless a fourth column, called `text`, or `queries` has it. A column called `vector` has its vector.
        queries: as `file_judgements`, for the texts or vectors of the queries that the statement names.
        vectors: as `file_judgements`, a row for each query in `queries`.

    Raises:
        MeasureError: the server refuses the statement, it selects something else, or as `file_judgements`.
        VectorError: as `file_judgements`.

    """
    if vectors is not None and queries is None:
        raise MeasureError("vectors of a file need the queries' file, whose order they have: give both")
    names, rows = _selected(database.sqlalchemy_connection(connection), statement)
    relevance: dict[str, dict[str, int]] = {}
    by_id: dict[str, Query] = {}
    for number, row in enumerate(rows, 1):
        where = f"row {number} of the judgements"
        if any(value is None for value in row[:3]):
            raise MeasureError(f"{where} has a NULL {COLUMNS[list(row).index(None)]}: leave such rows out")
        query, document = str(row[0]), str(row[1])
        grade = files.grade(_whole(row[2]), where)
        if relevance.setdefault(query, {}).setdefault(document, grade) != grade:
            raise MeasureError(
                f"{where}: document {safe_repr(document)} has relevance {grade} for query {safe_repr(query)}, "
                f"an earlier row says {relevance[query][document]}: keep one of them"
            )
        if query not in by_id:
            more = dict(zip(names[3:], row[3:], strict=True))
            text = more.get("text", query if "vector" not in more else None)
            by_id[query] = Query(query, text, more.get("vector"))
    if queries is not None:
        named = [Query(*one) for one in files.queries(path_argument("queries", queries, MeasureError))]
        return Judged(_with_vectors(named, vectors), relevance, f"judgements that were selected, and {queries}")
    return Judged(list(by_id.values()), relevance, "judgements that were selected")


def _selected(connection: Connection, statement: str) -> tuple[list[str], Sequence[Any]]:
    remedy = "give a SELECT of query, document, relevance"
    if plain_text(statement) is None:
        raise MeasureError(f"the statement for judgements: expected a text, got {safe_repr(statement)}")
    try:
        # which leaves a transaction of the caller's as it was
        with database.snapshot(connection), database.caller_path(connection):
            connection.exec_driver_sql("SET LOCAL transaction_read_only = on")
            result = database.execute_plain(connection, statement)
            if not result.returns_rows:
                raise MeasureError(f"the statement for judgements selects nothing: {remedy}")
            names, rows = list(result.keys()), result.fetchall()
    except DBAPIError as error:
        raise MeasureError(f"the statement for judgements: {str(error.orig).strip()}") from error
    if len(names) < 3 or not set(names[3:]) <= {"text", "vector"}:
        raise MeasureError(
            f"the statement for judgements selects {', '.join(names)}: {remedy}, and, if there are such, text and "
            "vector under these names"
        )
    return names, rows


def _whole(value: Any) -> Any:
    """A number of a type that may have a fraction, but has none, as an int."""
    whole = isinstance(value, float | Decimal) and math.isfinite(value) and value == value // 1
    return int(value) if whole else value


def _with_vectors(queries: list[Query], path: str | Path | None) -> list[Query]:
    if path is None:
        return queries
    array = files.vectors(path_argument("vectors", path, MeasureError))
    if len(array) != len(queries):
        raise MeasureError(
            f"{path} has {len(array):,} vectors for {len(queries):,} queries: row n is the vector of query n"
        )
    return [query._replace(vector=vector) for query, vector in zip(queries, array, strict=True)]


def some(names: Sequence[str]) -> str:
    """The first few of many names, for a message."""
    return ", ".join(map(repr, names[:NAMED])) + (", …" if len(names) > NAMED else "")
