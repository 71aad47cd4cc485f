"""Scans of an index: which true neighbours they return for each ef_search."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import psycopg
from psycopg.rows import tuple_row

from pgmrl.model.binary import encode
from pgmrl.model.parameters import BinaryValue, binary_value
from pgmrl.model.ranking_sql import distances_sql, key_names
from pgmrl.names import quoted
from pgmrl.searching.fallback import EXACT, RERANKED, either_sql, falls_short_sql
from pgmrl.searching.scan import Scan, gated_sql
from pgmrl.searching.statement import RESULTS, SHORTLIST
from pgmrl.tune.tuning_transaction import driver_of, prepares

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pgmrl.measure.ground_truth import GroundTruth
    from pgmrl.model.shortening import Definition
    from pgmrl.tune.tuned_table import TunedTable

__all__ = ["IndexScans", "ScannedIndex", "TrialQueries"]


@dataclass(frozen=True, slots=True)
class TrialQueries:
    """Query vectors in binary form, full and short.

    Attributes:
        vectors: shape (n, dims), float32.
        full: for the distances.
        short: for the scans.

    """

    vectors: NDArray[np.float32]
    full: list[BinaryValue]
    short: list[BinaryValue]

    @classmethod
    def of(cls, definition: Definition, vectors: NDArray[np.float32]) -> TrialQueries:
        """For one way to shorten, which holds its axes."""
        full = [binary_value(encode(vector, definition.full), definition.full) for vector in vectors]
        short = [
            binary_value(encode(vector, definition.short.type), definition.short.type)
            for vector in definition.shorten(vectors)
        ]
        return cls(vectors, full, short)

    def __len__(self) -> int:
        """How many."""
        return len(self.vectors)


@dataclass(frozen=True, slots=True)
class ScannedIndex:
    """An index to scan: that of a trial table, or of the column that there is.

    Attributes:
        table: the table of the full vectors.
        definition: of the short ones.
        name: the table that is scanned, as SQL text.
        short: its short vectors, as SQL text.
        trial: whether it is a trial table, which knows the places of the rows in the tuned one.

    """

    table: TunedTable
    definition: Definition
    name: str
    short: str = "short"
    trial: bool = True

    def listed(self, ef_search: int) -> str:
        """The nearest rows by the index, nearest first: as many as the scan keeps."""
        columns = "id" if self.trial else "tableoid, ctid"
        return f"SELECT {columns} FROM {self._nearest(ef_search, ef_search)}"  # noqa: S608

    def judged(self, ef_search: int) -> str:
        """The same with the full distance of each."""
        definition = self.definition
        # an index of partitions lists rows of several tables, each with places of its own
        same = "f.ctid = s.place" if self.trial else "f.tableoid = s.tableoid AND f.ctid = s.ctid"
        distance = f"f.{_identifier(self.table.full)} {definition.full_operator} %(full)s::{definition.full_type}"
        return (
            f"SELECT {distance} FROM (SELECT *, row_number() OVER () AS n FROM "  # noqa: S608
            f"{self._nearest(ef_search, ef_search)}) AS s "
            f"JOIN {_escaped(self.table.name)} AS f ON {same} ORDER BY s.n"
        )

    def searched(self, shortlist: int, ef_search: int, k: int) -> str:
        """A whole search as applications send it, with the scan of the trial in place of that of the column.

        With its exact fallback, which costs time although it is never executed: `searching.fallback`.
        """
        definition, table = self.definition, _escaped(self.table.name)
        keys = [_identifier(key.name) for key in self.table.table.primary_key]
        labels = key_names(len(keys))
        listed = ", ".join(f"f.{key} AS {label}" for key, label in zip(keys, labels, strict=True))
        same = " AND ".join(f"f.{key} = w.{label}" for key, label in zip(keys, labels, strict=True))
        order = ", ".join(f"f.{key}" for key in keys)
        nearest = (
            f"(SELECT {listed}, f.{_identifier(self.table.full)} AS full_vector "  # noqa: S608
            f"FROM (SELECT place FROM {self._nearest(shortlist, ef_search)}) AS s JOIN {table} AS f "
            f"ON f.ctid = s.place OFFSET 0) AS {SHORTLIST}"
        )
        names, query = ", ".join(labels), f"%(full)s::{definition.full_type}"
        full = f"f.{_identifier(self.table.full)} {definition.full_operator} {query}"
        either = either_sql(falls_short_sql(1))  # a trial of few rows never has a full shortlist
        return (
            f"WITH {RERANKED} AS MATERIALIZED ({distances_sql(definition, query, names, nearest)}), "  # noqa: S608
            f"{EXACT} AS (SELECT {listed}, {full} AS distance FROM {table} AS f "
            "LIMIT (SELECT CAST(NULL AS bigint))), "
            f"{RESULTS} AS (SELECT {names}, distance FROM ({either}) AS ranked ORDER BY distance, {names} LIMIT {k}) "
            f"SELECT {order}, w.distance FROM {RESULTS} AS w JOIN {table} AS f ON {same} ORDER BY w.distance, {order}"
        )

    def plain(self, k: int, ef_search: int) -> str:
        """A search without a second stage: key and distance of the nearest by the index alone."""
        operand, query = (
            f"{_escaped(self.short)} {self.definition.short_operator}",
            f"%(short)s::{self.definition.short_type}",
        )
        return (
            f"SELECT id, {operand} {query} FROM {_escaped(self.name)} "  # noqa: S608
            f"ORDER BY {operand} {gated_sql(query, Scan(k, ef_search))} LIMIT {k}"
        )

    def _nearest(self, count: int, ef_search: int) -> str:
        query = gated_sql(f"%(short)s::{self.definition.short_type}", Scan(count, ef_search))
        distance = f"{_escaped(self.short)} {self.definition.short_operator} {query}"
        columns = "id, place" if self.trial else "tableoid, ctid"
        # LIMIT is a literal, as in the statement of a search
        return (
            f"(SELECT {columns} FROM {_escaped(self.name)} "  # noqa: S608
            f"ORDER BY {distance} LIMIT {count}) AS nearest"
        )


@dataclass(slots=True)
class IndexScans:
    """Where a scan returns the true neighbours of each query, for each ef_search that was tried.

    Attributes:
        index: that is scanned.
        queries: to ask.
        truth: their neighbours.
        ranks: for each ef_search the place of each neighbour in the list, counted from 0; infinite where it is not in
            it. Shape (queries, kept).
        ended_at: the ef_search at which time ran out; None where it sufficed.

    """

    index: ScannedIndex
    queries: TrialQueries
    truth: GroundTruth
    ranks: dict[int, NDArray[np.float64]] = field(default_factory=dict)
    ended_at: int | None = None

    def scan(self, ef_search: int) -> None:
        """Ask all queries with one ef_search."""
        if ef_search in self.ranks:
            return
        counts = self.truth.neighbours
        crowded = self.truth.crowded
        ranks = np.full(counts.shape, np.inf)
        listed, judged = self.index.listed(ef_search).encode(), self.index.judged(ef_search).encode()
        driver = driver_of(self.index.table.connection)
        with psycopg.Cursor(driver, row_factory=tuple_row) as cursor:
            for number, short in enumerate(self.queries.short):
                if crowded[number]:
                    parameters = {"short": short, "full": self.queries.full[number]}
                    ranks[number] = self._near(cursor.execute(judged, parameters, binary=True).fetchall(), number)
                else:
                    rows = cursor.execute(listed, {"short": short}, binary=True, prepare=prepares(driver)).fetchall()
                    same = self.truth.ids[number][:, np.newaxis] == self._ids(rows)
                    ranks[number] = np.where(same.any(axis=1) & counts[number], same.argmax(axis=1), np.inf)
        self.ranks[ef_search] = ranks

    def per_query(self, shortlist: float, ef_search: int) -> NDArray[np.float64]:
        """The recall of each query; of a shortlist between two sizes, between their recalls."""
        returned = np.clip(shortlist - self.ranks[ef_search], 0, 1).sum(axis=1)
        return np.asarray(np.minimum(1.0, returned / np.maximum(1, self.truth.counts)))

    def _ids(self, rows: list[Any]) -> NDArray[np.int64]:
        """The rows of a scan as the truth has them, shape (1, n)."""
        if not rows:
            return np.empty((1, 0), np.int64)
        if self.index.trial:
            return np.array([row[0] for row in rows], np.int64)[np.newaxis]
        ids = self.index.table.numbered(*zip(*rows, strict=True))
        left_out = self.index.table.left_out
        return (ids if left_out is None or not len(left_out) else ids[~np.isin(ids, left_out)])[np.newaxis]

    def _near(self, rows: list[Any], number: int) -> NDArray[np.float64]:
        """Places of rows that are as near as the k-th neighbour, whichever they are; as many as fit."""
        near = np.flatnonzero(np.array([row[0] for row in rows], np.float64) <= self.truth.limits[number])
        ranks = np.full(self.truth.distances.shape[1], np.inf)
        ranks[: len(near)] = near[: len(ranks)]
        return ranks


def _escaped(sql: str) -> str:
    """SQL text in a statement with parameters: a percent sign is none."""
    return sql.replace("%", "%%")


def _identifier(name: str) -> str:
    return _escaped(quoted(name))
