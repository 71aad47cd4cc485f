"""Searches of an index as it is: which true neighbours a scan returns, and how long a whole search takes."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import psycopg
from psycopg.rows import tuple_row

from pgmrl.measure.score import within
from pgmrl.model.ranking_sql import key_names
from pgmrl.model.types import Wire, to_wire
from pgmrl.names import quoted
from pgmrl.searching.scan import Scan, gate
from pgmrl.searching.statement import RESULTS, SHORTLIST, rerank_sql
from pgmrl.tune.models import Timed
from pgmrl.tune.trial_index import short_wire
from pgmrl.tune.tuning_transaction import driver_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from pgmrl.model.shortening import Definition
    from pgmrl.tune.table_reader import Source
    from pgmrl.tune.truth import Truth

__all__ = ["Asked", "Index", "Scans", "Search", "force_index", "time_searches", "timed_trials", "trial_search"]

BLOCK: Final = 20  # queries of one setting before the next one's turn: what disturbs the machine disturbs all
WARM_UP: Final = 3

Search = tuple[str, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Asked:
    """Query vectors in binary form, full and short.

    Attributes:
        vectors: shape (n, dims), float32.
        full: for the distances.
        short: for the scans.

    """

    vectors: NDArray[np.float32]
    full: list[Wire]
    short: list[Wire]

    @classmethod
    def of(cls, definition: Definition, vectors: NDArray[np.float32]) -> Asked:
        """For one way to shorten, which holds its axes."""
        shorts = definition.shorten(vectors)
        full = [to_wire(one, definition.full) for one in vectors]
        return cls(vectors, full, [Wire(short_wire(definition, one)) for one in shorts])

    def __len__(self) -> int:
        """How many."""
        return len(self.vectors)


@dataclass(frozen=True, slots=True)
class Index:
    """Something to scan: a table for trials, or the column that there is.

    Attributes:
        source: the table of the full vectors.
        definition: of the short ones.
        name: the table that is scanned, as SQL text.
        short: its short column.
        trial: whether it is a table for trials, which knows the places of the rows in the source.

    """

    source: Source
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
        distance = f"f.{_text(self.source.full)} {definition.full_operator} %(full)s::{definition.full_type}"
        return (
            f"SELECT {distance} FROM (SELECT *, row_number() OVER () AS n FROM "  # noqa: S608
            f"{self._nearest(ef_search, ef_search)}) AS s "
            f"JOIN {_escaped(self.source.name)} AS f ON {same} ORDER BY s.n"
        )

    def searched(self, shortlist: int, ef_search: int, k: int) -> str:
        """A whole search, with the scan of the trial in place of that of the column."""
        definition, table = self.definition, _escaped(self.source.name)
        keys = [_text(key.name) for key in self.source.table.primary_key]
        labels = key_names(len(keys))
        listed = ", ".join(f"f.{key} AS {label}" for key, label in zip(keys, labels, strict=True))
        same = " AND ".join(f"f.{key} = w.{label}" for key, label in zip(keys, labels, strict=True))
        order = ", ".join(f"f.{key}" for key in keys)
        ranked = rerank_sql(definition, f"%(full)s::{definition.full_type}", len(keys), k)
        return (
            f"WITH {SHORTLIST} AS MATERIALIZED (SELECT {listed}, f.{_text(self.source.full)} AS full_vector "  # noqa: S608
            f"FROM (SELECT place FROM {self._nearest(shortlist, ef_search)}) AS s JOIN {table} AS f "
            f"ON f.ctid = s.place), {RESULTS} AS ({ranked}) "
            f"SELECT {order}, w.distance FROM {RESULTS} AS w JOIN {table} AS f ON {same} ORDER BY w.distance, {order}"
        )

    def _nearest(self, count: int, ef_search: int) -> str:
        distance = f"{_text(self.short)} {self.definition.short_operator} %(short)s::{self.definition.short_type}"
        columns = "id, place" if self.trial else "tableoid, ctid"
        # LIMIT is a literal, as in the statement of a search
        return (
            f"(SELECT {columns} FROM {_escaped(self.name)} WHERE {gate(Scan(count, ef_search)).text} "  # noqa: S608
            f"ORDER BY {distance} LIMIT {count}) AS nearest"
        )


@dataclass(slots=True)
class Scans:
    """Where a scan returns the true neighbours of each query, for each ef_search that was tried.

    Attributes:
        index: that is scanned.
        asked: the queries.
        truth: their neighbours.
        found: for each ef_search the place of each neighbour in the list, counted from 0; infinite where it is not in
            it. Shape (queries, kept).
        ended_at: the ef_search at which time ran out; None where it sufficed.

    """

    index: Index
    asked: Asked
    truth: Truth
    found: dict[int, NDArray[np.float64]] = field(default_factory=dict)
    ended_at: int | None = None

    def scan(self, ef_search: int) -> None:
        """Ask all queries with one ef_search."""
        if ef_search in self.found:
            return
        counts = self.truth.neighbours
        crowded = self.truth.crowded
        places = np.full(counts.shape, np.inf)
        listed, judged = self.index.listed(ef_search).encode(), self.index.judged(ef_search).encode()
        driver = driver_of(self.index.source.connection)
        with psycopg.Cursor(driver, row_factory=tuple_row) as cursor:
            for number, short in enumerate(self.asked.short):
                if crowded[number]:
                    given = {"short": short, "full": self.asked.full[number]}
                    places[number] = self._near(cursor.execute(judged, given, binary=True).fetchall(), number)
                else:
                    rows = cursor.execute(listed, {"short": short}, binary=True, prepare=_prepare(driver)).fetchall()
                    ids = self._ids(rows)
                    same = self.truth.places[number][:, np.newaxis] == ids
                    places[number] = np.where(same.any(axis=1) & counts[number], same.argmax(axis=1), np.inf)
        self.found[ef_search] = places

    def per_query(self, shortlist: float, ef_search: int) -> NDArray[np.float64]:
        """The recall of each query; of a shortlist between two sizes, between their recalls."""
        found = np.clip(shortlist - self.found[ef_search], 0, 1).sum(axis=1)
        return np.asarray(np.minimum(1.0, found / max(1, self.truth.wanted)))

    def _ids(self, rows: list[Any]) -> NDArray[np.int64]:
        if not rows:
            return np.empty((1, 0), np.int64)
        if self.index.trial:
            return np.array([row[0] for row in rows], np.int64)[np.newaxis]
        ids = self.index.source.numbered(rows)
        left = self.index.source.left_out
        return (ids if left is None or not len(left) else ids[~np.isin(ids, left)])[np.newaxis]

    def _near(self, rows: list[Any], number: int) -> NDArray[np.float64]:
        """Places of rows that are as near as the k-th neighbour, whichever they are; as many as fit."""
        limit = within(float(self.truth.distances[number, self.truth.wanted - 1]))
        near = np.flatnonzero(np.array([row[0] for row in rows], np.float64) <= limit)
        found = np.full(self.truth.distances.shape[1], np.inf)
        found[: len(near)] = near[: len(found)]
        return found


def time_searches(
    source: Source,
    searches: Sequence[Callable[[int], Search]],
    queries: int,
    told: Callable[[int, int], None] | None = None,
) -> list[float]:
    """The median time of searches, in milliseconds, as the client sees them; each has its turn.

    A query's time is taken once by each search, so that it does not find in the processor's caches what it read itself.
    Before each turn some are asked without a clock: those of the turn before, before the first turn the last ones.

    Args:
        source: of the connection.
        searches: each gives the statement and its parameters for a query's number.
        queries: how many to ask.
        told: called before each round of turns, with the queries that were asked and how many there are.

    """
    times: list[list[float]] = [[] for _ in searches]
    driver = driver_of(source.connection)
    with psycopg.Cursor(driver, row_factory=tuple_row) as cursor:

        def ask(search: Callable[[int], Search], number: int) -> float:
            statement, given = search(number)
            encoded = statement.encode()
            start = time.perf_counter()
            cursor.execute(encoded, given, binary=True, prepare=_prepare(driver)).fetchall()
            return (time.perf_counter() - start) * 1e3

        for block in range(0, queries, BLOCK):
            if told is not None:
                told(block, queries)
            for search, took in zip(searches, times, strict=True):
                for number in range(WARM_UP):  # the server's plan, and what the turn of the others has displaced
                    ask(search, (block - number - 1) % queries)
                took += [ask(search, number) for number in range(block, min(block + BLOCK, queries))]
    return [statistics.median(took) for took in times]


def trial_search(index: Index, asked: Asked, shortlist: int, ef_search: int, k: int) -> Callable[[int], Search]:
    """A whole search through a table for trials."""
    statement = index.searched(shortlist, ef_search, k)
    return lambda number: (statement, {"short": asked.short[number], "full": asked.full[number]})


def timed_trials(
    index: Index, asked: Asked, settings: Sequence[tuple[int, int]], k: int, rows: int, queries: int
) -> list[Timed]:
    """Times of whole searches through a table for trials."""
    searches = [trial_search(index, asked, *setting, k) for setting in settings]
    found = time_searches(index.source, searches, min(queries, len(asked)))
    return [Timed(rows, *setting, ms) for setting, ms in zip(settings, found, strict=True)]


def force_index(source: Source) -> None:
    """Small tables are read faster without an index, and few rows are joined faster otherwise: not here."""
    for name in ("seqscan", "sort", "bitmapscan", "hashjoin", "mergejoin"):
        source.connection.exec_driver_sql(f"SET LOCAL enable_{name} = off")


def _escaped(sql: str) -> str:
    """SQL text in a statement with parameters: a percent sign is none."""
    return sql.replace("%", "%%")


def _text(name: str) -> str:
    return _escaped(quoted(name))


def _prepare(driver: psycopg.Connection[Any]) -> bool | None:
    """Unless the caller's connection must not, such as behind a pooler."""
    return None if driver.prepare_threshold is None else True
