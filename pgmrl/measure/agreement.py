"""How far two columns of one table answer alike: the same queries, each by its own model's vectors."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from sqlalchemy import bindparam, select, tuple_

from pgmrl.errors import MeasureError
from pgmrl.measure.intervals import Interval, mean_interval
from pgmrl.measure.queries import Queries, sampled_queries, searchable
from pgmrl.measure.session import measuring
from pgmrl.model.columns import attachment_of, base_column
from pgmrl.searching.arguments import positive_integer
from pgmrl.searching.search import search

if TYPE_CHECKING:
    from sqlalchemy import Column, Connection

__all__ = ["Agreement", "measure_agreement", "row_queries"]


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far two columns answer alike.

    Attributes:
        first: the column that serves.
        second: the one that may take its place.
        k: results that count.
        queries: that were asked.
        source: where they are from, in words.
        overlap: the share of the first's k answers that the second's k have as well, its mean over the queries.
        same_best: the share of the queries whose best answer is the same row.
        p50_ms: of a search, by column.

    """

    first: str
    second: str
    k: int
    queries: int
    source: str
    overlap: Interval
    same_best: float
    p50_ms: tuple[float, float]


def row_queries(
    connection: Connection, first: Column[Any], second: Column[Any], count: int, *, seed: int = 0
) -> tuple[Queries, Queries]:
    """Rows that have a vector of both models, as queries for each.

    Raises:
        MeasureError: there are none, or the columns are of two tables.
    """
    _check_one_table(first, second)
    sample, keys = sampled_queries(connection, first, count, seed=seed), [*second.table.primary_key.columns]
    sampled_keys = sample.keys or []
    chosen = connection.execute(select(*keys, second).where(tuple_(*keys).in_(sampled_keys)))
    rows = {tuple(row[:-1]): row[-1] for row in chosen}
    vectors = list(searchable(second, [rows.get(key) for key in sampled_keys], sample.source))
    both = [place for place, vector in enumerate(vectors) if vector is not None]
    if not both:
        raise MeasureError(
            f"of {sample.source} none has a vector in {second.name}: let the workers fill it first (`pgmrl embed`)"
        )
    source, common = f"{len(both):,} rows with both vectors", [sampled_keys[place] for place in both]
    others = np.stack([vector for vector in vectors if vector is not None])
    return Queries(sample.vectors[both], common, 0, source), Queries(others, common, 0, source)


def measure_agreement(
    connection: Connection,
    first: Column[Any],
    second: Column[Any],
    queries: tuple[Queries, Queries],
    *,
    k: int = 10,
    seconds: float = 60.0,
) -> Agreement:
    """Search both columns as the application does, and compare what comes.

    Args:
        connection: of the database; reads only.
        first: a Matryoshka column.
        second: another of the same table.
        queries: for each column the same queries in the same order, in its own model's vectors. A row that is a query
            does not count as an answer to it.
        k: results that count.
        seconds: when to end: fewer queries are asked where that is not enough for all.

    Raises:
        MeasureError: no query, or the columns are of two tables.
    """
    k = positive_integer("k", k)
    _check_one_table(first, second)
    if len(queries[0]) != len(queries[1]) or not len(queries[0]):
        raise MeasureError(f"expected queries for both columns, got {len(queries[0]):,} and {len(queries[1]):,}")
    statements = [
        search(select(*column.table.primary_key.columns), column, bindparam("query"), k=k + 1, exact=_unindexed(column))
        for column in (first, second)
    ]
    overlaps: list[float] = []
    best: list[bool] = []
    times: tuple[list[float], list[float]] = ([], [])
    end = time.monotonic() + seconds
    with measuring(connection, seconds=seconds):
        for place in range(len(queries[0])):
            answers: list[list[tuple[Any, ...]]] = []
            for statement, column_queries, spent in zip(statements, queries, times, strict=True):
                began = time.perf_counter()
                rows = connection.execute(statement, {"query": column_queries.vectors[place]}).all()
                spent.append(1000 * (time.perf_counter() - began))
                own = column_queries.keys and column_queries.keys[place]
                answers.append([tuple(row[:-1]) for row in rows if tuple(row[:-1]) != own][:k])
            overlaps.append(len({*answers[0]} & {*answers[1]}) / max(1, len(answers[0])))
            best.append(answers[0][:1] == answers[1][:1])
            if time.monotonic() > end:
                break
    median = [sorted(spent)[len(spent) // 2] for spent in times]
    return Agreement(
        first=str(base_column(first)),
        second=str(base_column(second)),
        k=k,
        queries=len(overlaps),
        source=queries[0].source,
        overlap=mean_interval(overlaps),
        same_best=sum(best) / len(best),
        p50_ms=(median[0], median[1]),
    )


def _check_one_table(first: Column[Any], second: Column[Any]) -> None:
    if first.table.fullname != second.table.fullname:
        raise MeasureError(f"expected two columns of one table, got {first} and {second}")


def _unindexed(column: Column[Any]) -> bool:
    attachment = attachment_of(column)
    return attachment.short is None or not attachment.definition.learned
