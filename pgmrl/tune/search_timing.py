"""How long whole searches take, as the client sees them."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING, Any, Final

import psycopg
from psycopg.rows import tuple_row

from pgmrl.tune.growth_models import Timed
from pgmrl.tune.tuning_transaction import driver_of, prepares

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pgmrl.tune.index_scans import ScannedIndex, TrialQueries
    from pgmrl.tune.tuned_table import TunedTable

__all__ = ["BoundSearch", "force_index", "time_searches", "time_trial", "trial_search"]

BLOCK: Final = 20
"""Queries of one setting before the next one's turn: what disturbs the machine disturbs all."""

WARM_UP: Final = 3

BoundSearch = tuple[str, dict[str, Any]]
"""A statement and its parameters."""


def time_searches(
    table: TunedTable,
    searches: Sequence[Callable[[int], BoundSearch]],
    queries: int,
    progress: Callable[[int, int], None] | None = None,
    seconds: float | None = None,
) -> list[float]:
    """The median time of searches, in milliseconds, as the client sees them; each has its turn.

    A query's time is taken once by each search, so that it does not find in the processor's caches what it read itself.
    Before each turn some are asked without a clock: those of the turn before, before the first turn the last ones.

    Args:
        table: of the connection.
        searches: each gives the statement and its parameters for a query's number.
        queries: how many to ask.
        progress: called before each round of turns, with the queries that were asked and how many there are.
        seconds: after which no further round begins; the first one is finished in any case.

    """
    times: list[list[float]] = [[] for _ in searches]
    began = time.monotonic()
    driver = driver_of(table.connection)
    with psycopg.Cursor(driver, row_factory=tuple_row) as cursor:

        def ask(search: Callable[[int], BoundSearch], number: int) -> float:
            statement, parameters = search(number)
            encoded = statement.encode()
            start = time.perf_counter()
            cursor.execute(encoded, parameters, binary=True, prepare=prepares(driver)).fetchall()
            return (time.perf_counter() - start) * 1e3

        for block in range(0, queries, BLOCK):
            if block and seconds is not None and time.monotonic() - began > seconds:
                break
            if progress is not None:
                progress(block, queries)
            for search, took in zip(searches, times, strict=True):
                for number in range(WARM_UP):  # the server's plan, and what the turn of the others has displaced
                    ask(search, (block - number - 1) % queries)
                took += [ask(search, number) for number in range(block, min(block + BLOCK, queries))]
    return [statistics.median(took) for took in times]


def trial_search(
    index: ScannedIndex, queries: TrialQueries, shortlist: int, ef_search: int, k: int
) -> Callable[[int], BoundSearch]:
    """A whole search through a trial table."""
    statement = index.searched(shortlist, ef_search, k)
    return lambda number: (statement, {"short": queries.short[number], "full": queries.full[number]})


def time_trial(
    index: ScannedIndex, queries: TrialQueries, settings: Sequence[tuple[int, int]], k: int, rows: int, count: int
) -> list[Timed]:
    """Times of whole searches through a trial table.

    Args:
        index: of that table.
        queries: to ask.
        settings: shortlist and ef_search of each search.
        k: rows that each returns.
        rows: of the table.
        count: queries to ask at most.

    """
    searches = [trial_search(index, queries, *setting, k) for setting in settings]
    medians = time_searches(index.table, searches, min(count, len(queries)))
    return [Timed(rows, *setting, ms) for setting, ms in zip(settings, medians, strict=True)]


def force_index(table: TunedTable) -> None:
    """Small tables are read faster without an index, and few rows are joined faster otherwise: not here."""
    for name in ("seqscan", "sort", "bitmapscan", "hashjoin", "mergejoin"):
        table.connection.exec_driver_sql(f"SET LOCAL enable_{name} = off")
