"""Measure recall on the database as it is: with its confidence interval, its causes, and the queries that lose most."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from sqlalchemy import select, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import CompileError, DBAPIError

from pgmrl import database
from pgmrl.database.connection import sqlstate
from pgmrl.errors import MeasureError, NotMigrated, SearchError
from pgmrl.limits import EF_SEARCH_LIMIT
from pgmrl.measure.attribution import NO_ORDER, QUERY, Loss, Trial
from pgmrl.measure.intervals import Interval, mean_interval
from pgmrl.measure.queries import Queries, sampled_queries
from pgmrl.measure.session import CANCELLED, CONFLICT, ended_by_standby, measuring, until
from pgmrl.model.columns import attachment_of, base_column, vectors_table
from pgmrl.names import qualified
from pgmrl.searching.plans import explained, index_serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Connection, Select
    from sqlalchemy.orm import Session

    from pgmrl.searching.plans import Serving
    from pgmrl.searching.subject import AnySelect

__all__ = ["SAMPLE", "Recall", "Worst", "measure_recall"]

SAMPLE: Final = 200
"""Queries, unless the caller says otherwise: enough for an interval of about .02 where recall is .95."""

SECONDS: Final = 60.0
WORST: Final = 5


class Worst(NamedTuple):
    """A query that loses much, and why.

    Attributes:
        loss: what it lost.
        needed: how long an exact shortlist would have to be to hold all its neighbours; None where time ran out.
        why: in words, with what would help.

    """

    loss: Loss
    needed: int | None
    why: str


@dataclass(frozen=True, slots=True)
class Recall:
    """How much of the truth searches return.

    `1 - recall.mean` is `truncation + ann + shortfall - completed`, see `pgmrl.measure.attribution`.

    Attributes:
        column: what is searched, as `table.column`.
        short_column: the short vector's column.
        index: the HNSW index that the shortlist comes through, of a partitioned table each; None where the plan does
            something else.
        instead: what the plan does instead, in words; None where the index is used.
        k: results that count.
        shortlist: rows that are ranked exactly.
        ef_search: candidates HNSW keeps.
        filter: the conditions of the searches, as SQL; None for none.
        source: what the queries are, in words.
        asked: queries that were to be tried.
        losses: of each query that was tried, in order.
        recall: recall@k: its mean over the queries, with a 95 % interval.
        truncation: mean loss by the short vectors.
        ann: mean loss by the scan of the index.
        shortfall: mean loss because fewer rows came back.
        completed: mean of what the exact branch gave back.
        p50_ms: the median time of a search, in milliseconds, as the client sees it.
        p95_ms: the time within which 95 of 100 came back.
        row_count: rows of the table, as the server estimates; None before the first ANALYZE.
        seconds: that measuring took.
        worst: the queries that lose most, the first most.

    """

    column: str
    short_column: str
    index: str | None
    instead: str | None
    k: int
    shortlist: int
    ef_search: int
    filter: str | None
    source: str
    asked: int
    losses: list[Loss] = field(repr=False)
    recall: Interval
    truncation: float
    ann: float
    shortfall: float
    completed: float
    p50_ms: float
    p95_ms: float
    row_count: int | None
    seconds: float
    worst: list[Worst]

    @property
    def queries(self) -> int:
        """How many were tried."""
        return len(self.losses)


def measure_recall(
    connection: Connection | Session,
    column: Any,
    statement: Select[*tuple[Any, ...]] | None = None,
    *,
    queries: Queries | int = SAMPLE,
    k: int = 10,
    shortlist: int | None = None,
    oversample: float | None = None,
    ef_search: int | None = None,
    complete: bool | None = None,
    seconds: float = SECONDS,
    parallel: int = 0,
    seed: int = 0,
    worst: int = WORST,
    progress: Callable[[int, int], None] | None = None,
) -> Recall:
    """Search as the application does, search exactly, and compare.

    Reads only, each query in a snapshot of its own, also on a hot standby. Each costs an exact search by the full
    vectors and one by the short ones, which both read the table.

    Args:
        connection: of the database. Within a transaction of the caller's, its isolation holds.
        column: the Matryoshka attribute or column.
        statement: the Select of the searches, for its conditions; by default all rows of the table.
        queries: what to try, or how many rows of the table to sample as queries.
        k: results that count.
        shortlist: as for `search`.
        oversample: as for `search`.
        ef_search: as for `search`.
        complete: as for `search`.
        seconds: when to stop; what was tried until then is reported.
        parallel: processes that help with an exact search.
        seed: of the sampling.
        worst: how many of the worst queries to look into.
        progress: called after each query with the number tried and the number to try.

    Raises:
        MeasureError: there is nothing to measure with, or not one query was tried in time.
        NotMigrated: the column has no short vectors, or no valid index on them.
        SearchError: as `search`.
        DefinitionError: as `search`.

    """
    connection = database.sqlalchemy_connection(connection)
    started = time.monotonic()
    if seconds <= 0:
        raise SearchError(f"seconds={seconds}: give more than 0")
    base = base_column(column)
    own = select(*base.table.primary_key.columns) if statement is None else statement
    with _in_time(seconds), measuring(connection, seconds=seconds):
        _check_index(connection, column)
        until(connection, started + seconds)
        given = sampled_queries(connection, column, queries, seed=seed) if isinstance(queries, int) else queries
        numbers: dict[str, Any] = {"k": k, "shortlist": shortlist, "oversample": oversample, "ef_search": ef_search}
        trial = Trial.of(own, column, complete=complete, own=given.keys is not None, **numbers)
        until(connection, started + seconds)
        serving = _proven(connection, trial, given)
        table = vectors_table(column)
        rows = database.row_estimate(connection, qualified(table.schema, table.name))
    clock = _Clock(connection, started + seconds, parallel)
    losses = _tried(clock, trial, given, progress, seconds)
    means = np.asarray([loss[3:7] for loss in losses], np.float64).mean(axis=0)
    times = [loss.ms for loss in losses[1:] or losses]  # the first one compiles the statement and opens files
    return Recall(
        column=str(base),
        short_column=str(attachment_of(column).short),
        index=", ".join(serving.indexes) if serving.used else None,
        instead=serving.instead,
        k=k,
        shortlist=trial.shortlist,
        ef_search=trial.ef_search,
        filter=_conditions(own),
        source=given.source,
        asked=len(given),
        losses=losses,
        recall=mean_interval([loss.recall for loss in losses]),
        truncation=float(means[0]),
        ann=float(means[1]),
        shortfall=float(means[2]),
        completed=float(means[3]),
        p50_ms=float(np.percentile(times, 50)),
        p95_ms=float(np.percentile(times, 95)),
        row_count=None if rows is None else round(rows),
        worst=_looked_into(clock, trial, given, losses, worst),
        seconds=time.monotonic() - started,
    )


# -- before --------------------------------------------------------------------------------------------------------


def _check_index(connection: Connection, column: Any) -> None:
    """Without an index on the short vectors a search reads the table: it loses nothing to HNSW, and takes long."""
    attachment, base = attachment_of(column), base_column(column)
    if attachment.short is None or not attachment.definition.learned:
        raise NotMigrated(f"{base} has no short vectors, so searches are exact: `pgmrl reshape` plans how to add them")
    table = vectors_table(column)
    row = connection.execute(
        text(
            "SELECT bool_or(i.indisvalid), count(*) FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid "
            "JOIN pg_am AS m ON m.oid = c.relam AND m.amname = 'hnsw' JOIN pg_attribute AS a "
            "ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0] "
            "WHERE i.indrelid = to_regclass(:name) AND a.attname = :short"
        ),
        {"name": qualified(table.schema, table.name), "short": attachment.short},
    ).one()
    if not row[0]:
        what = "only an invalid HNSW index: REINDEX it concurrently" if row[1] else "no HNSW index: create one"
        raise NotMigrated(f"{table.name}.{attachment.short} has {what}; until then a search reads the whole table")


def _proven(connection: Connection, trial: Trial, given: Queries) -> Serving:
    """What serves the shortlist, by the plan.

    And a look at what is taken for the exact short order: if an index gave that, no loss would be found.
    """
    query = {QUERY: given.vectors[0]}
    used = index_serving(explained(connection, trial.searched.params(**query))["Plan"])
    connection.exec_driver_sql(NO_ORDER)
    if index_serving(explained(connection, trial.listed.params(**query))["Plan"]).used:
        raise MeasureError("the server uses the short index also with enable_indexscan = off: the loss cannot be split")
    return used


def _conditions(statement: AnySelect) -> str | None:
    clause = statement.whereclause
    if clause is None:
        return None
    dialect = postgresql.dialect(paramstyle="named")  # type: ignore[no-untyped-call]  # in others % is doubled
    try:
        return str(clause.compile(dialect=dialect, compile_kwargs={"literal_binds": True}))
    except (CompileError, NotImplementedError):  # a value that cannot be written out
        return str(clause.compile(dialect=dialect))


# -- the queries ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Clock:
    """Where and until when queries are tried.

    Attributes:
        connection: of the database.
        end: by `time.monotonic`.
        parallel: as for `measure_recall`.

    """

    connection: Connection
    end: float
    parallel: int

    @property
    def left(self) -> float:
        return self.end - time.monotonic()


def _tried(
    clock: _Clock,
    trial: Trial,
    given: Queries,
    progress: Callable[[int, int], None] | None,
    seconds: float,
) -> list[Loss]:
    losses: list[Loss] = []
    for number, vector in enumerate(given.vectors):
        key = None if given.keys is None else given.keys[number]
        try:
            if clock.left <= 0:
                break
            with measuring(clock.connection, seconds=clock.left, parallel=clock.parallel):
                losses.append(trial.run(clock.connection, number, vector, key, clock.end))
        except DBAPIError as error:
            if sqlstate(error) != CANCELLED or clock.left > 1:
                raise _explained(error) from error
            break
        if progress is not None:
            progress(len(losses), len(given))
    if not losses:
        raise _none_in_time(seconds)
    return losses


@contextmanager
def _in_time(seconds: float) -> Iterator[None]:
    try:
        yield
    except DBAPIError as error:
        raise _none_in_time(seconds) if sqlstate(error) == CANCELLED else _explained(error) from error


def _none_in_time(seconds: float) -> MeasureError:
    return MeasureError(
        f"not one query was tried in {seconds:g} s: an exact search reads the whole table. Give more seconds, "
        "parallel processes, or measure on a standby"
    )


def _explained(error: DBAPIError) -> Exception:
    return ended_by_standby() if sqlstate(error) == CONFLICT else error


def _looked_into(clock: _Clock, trial: Trial, given: Queries, losses: list[Loss], count: int) -> list[Worst]:
    found = []
    for loss in sorted((one for one in losses if one.recall < 1), key=lambda one: one.recall)[:count]:
        needed = None
        if loss.truncation > 0 and clock.left > 0:
            try:
                with measuring(clock.connection, seconds=clock.left, parallel=clock.parallel):
                    needed = trial.needed(clock.connection, given.vectors[loss.number], loss.key, clock.end)
            except DBAPIError as error:
                if sqlstate(error) != CANCELLED:
                    raise _explained(error) from error
        found.append(Worst(loss, needed, _why(trial, loss, needed)))
    return found


def _why(trial: Trial, loss: Loss, needed: int | None) -> str:
    """The causes of one query's loss, the largest first, each with what would help."""
    if needed is None:
        more = "a longer shortlist would hold them; there was no time to find out how long"
    elif needed > EF_SEARCH_LIMIT:  # beyond it the scan iterates, and each row of it is read in full
        more = f"no shortlist within reach ({needed:,}): more short dimensions or a rotation, see `pgmrl tune`"
    else:
        more = f"a shortlist of {needed:,} would hold them"
    causes = {
        f"the short vectors rank true neighbours behind the shortlist of {trial.shortlist:,}: {more}": loss.truncation,
        f"the scan with ef_search {trial.ef_search:,} passes by rows of the shortlist: raise it": loss.ann,
        f"{loss.returned} of {loss.wanted} rows came back: say complete=True": loss.shortfall - loss.completed,
    }
    return "; ".join(sorted((why for why, share in causes.items() if share > 0), key=lambda why: -causes[why]))
