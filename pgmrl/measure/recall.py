"""Measure recall on the database as it is: with its confidence interval, its causes, and the queries that lose most."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from sqlalchemy import Select, select, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import CompileError, DBAPIError

from pgmrl import database
from pgmrl.database.connection import sqlstate
from pgmrl.database.sql import load as load_sql
from pgmrl.errors import MeasureError, NotMigrated, SearchError
from pgmrl.limits import EF_SEARCH_LIMIT
from pgmrl.measure.attribution import QUERY, Loss, SearchTrial
from pgmrl.measure.intervals import Interval, mean_interval
from pgmrl.measure.queries import Queries, sampled_queries
from pgmrl.measure.scan_limits import EndedScan, ScanLimit, ended_scan, remedy, scan_limit
from pgmrl.measure.session import CANCELLED, CONFLICT, ended_by_standby, measuring, until
from pgmrl.measure.table_truth import TableTruth, queries_at_once, truth_statement
from pgmrl.model.argument_types import callable_argument, whole_number
from pgmrl.model.columns import attachment_of, base_column, vectors_table
from pgmrl.model.server_names import server_name
from pgmrl.searching.arguments import check_seconds, flag, positive_integer
from pgmrl.searching.plans import expected_rows, explained, index_serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from sqlalchemy import Connection
    from sqlalchemy.orm import Session

    from pgmrl.measure.table_truth import QueryTruth
    from pgmrl.searching.plans import Serving
    from pgmrl.searching.subject import AnySelect

__all__ = ["SAMPLE", "Recall", "Worst", "measure_recall"]

SAMPLE: Final = 200
"""Queries, unless the caller says otherwise: enough for an interval of about .02 where recall is .95."""

SECONDS: Final = 60.0
WORST: Final = 5
LOOKED: Final = 10
"""Queries whose scan under a filter is run once more, to see what ended it."""

SEARCHED: Final = 20
SEARCH_SECONDS: Final = 10.0
"""Where no index serves the shortlist, each search reads the rows of the filter again and sorts them, to the exact
shortlist that the pass over the table has found. So once this many searches have lost what the pass says, and have
taken this long together, the losses of the others are computed."""

MOST_WORKERS: Final = 1024  # that PostgreSQL takes

READING: Final = 0.7
"""Of the time there is, so much may go into reading the table; the rest is for searches."""


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
        index: the HNSW index that the shortlist comes through, of a partitioned table each, of a distributed one that
            on its shards; None where the plan does something else.
        instead: what the plan does instead, in words; None where the index is used.
        k: results that count.
        shortlist: rows that are ranked exactly.
        ef_search: candidates HNSW keeps.
        filter: the conditions of the searches, as SQL; None for none.
        source: what the queries are, in words.
        requested: queries that were to be tried.
        losses: of each query that was tried, in order.
        recall: recall@k: its mean over the queries, with a 95 % interval.
        truncation: mean loss by the short vectors.
        ann: mean loss by the scan of the index.
        shortfall: mean loss because fewer rows came back.
        completed: mean of what the exact fallback gave back.
        p50_ms: the median time of a search, in milliseconds, as the client sees it.
        p95_ms: the time within which 95 of 100 came back.
        row_count: rows of the table, as the server estimates; None before the first ANALYZE.
        seconds: that measuring took.
        worst: the queries that lose most, the first most.
        scan_limit: the limit of pgvector's that ended scans before the shortlist was full; None where none did, or
            where there was no filter and no loss of that kind, or a distributed table, so that nobody looked.

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
    requested: int
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
    scan_limit: ScanLimit | None = None

    @property
    def queries(self) -> int:
        """How many were tried."""
        return len(self.losses)

    @property
    def searched(self) -> int:
        """How many were searched for: all, where an index serves the shortlist; of others the loss is computed."""
        return sum(loss.ms is not None for loss in self.losses)


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
    complete: bool = True,
    seconds: float = SECONDS,
    parallel: int = 0,
    seed: int = 0,
    worst: int = WORST,
    progress: Callable[[str, int, int], None] | None = None,
    on_estimate: Callable[[float], None] | None = None,
) -> Recall:
    """Search as the application does, search exactly, and compare.

    Reads only, in one snapshot, also on a hot standby; the shards of a distributed table have none in common, and what
    is written as they are taken may count as a loss. The truth of all queries comes from one pass over the rows that
    the searches see, whose full and short vectors are sent to the client: in batches, so that memory (some 150 MB, and
    for long shortlists 130 MB more) does not depend on the table. Then the searches are sent, one by one.

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
        seconds: when to end: fewer queries are tried where that is not enough for all, and the rest is reported.
        parallel: processes that help with the statements that read the table.
        seed: of the sampling.
        worst: how many of the worst queries to look into.
        progress: called with what is being done, how much of it is done and how much there is.
        on_estimate: called once, near the beginning, with about how many seconds it will take.

    Raises:
        MeasureError: there is nothing to measure with, or not one query was tried in time.
        NotMigrated: the column has no short vectors, or no valid index on them.
        RotationError: the column's rotation is not installed.
        SearchError: a number out of range, or a Select that cannot be searched.
        DefinitionError: `column` is no Matryoshka column.

    """
    connection = database.sqlalchemy_connection(connection)
    started = time.monotonic()
    seconds, seed = check_seconds(seconds), whole_number("seed", seed, MeasureError)
    k, worst = positive_integer("k", k), whole_number("worst", worst, SearchError, 0)
    parallel = whole_number("parallel", parallel, SearchError, 0, MOST_WORKERS)
    option: Any = complete
    complete = option is None or flag("complete", option)
    callable_argument("progress", progress, MeasureError)
    callable_argument("on_estimate", on_estimate, MeasureError)
    if not isinstance(queries, Queries):
        queries = whole_number("queries", queries, MeasureError, 1)
    clock = Clock(connection, started, seconds)
    base = base_column(column)
    own: Any = select(*base.table.primary_key.columns) if statement is None else statement
    with _in_time(clock), measuring(connection, seconds=seconds, parallel=parallel):
        _check_index(connection, column, filtered=isinstance(own, Select) and own.whereclause is not None)
        until(connection, clock.end)
        sample = sampled_queries(connection, column, queries, seed=seed) if isinstance(queries, int) else queries
        numbers: dict[str, Any] = {"k": k, "shortlist": shortlist, "oversample": oversample, "ef_search": ef_search}
        trial = SearchTrial.of(own, column, complete=complete, **numbers)
        until(connection, clock.end)
        serving = _serving(connection, trial, sample)
        tried = _Tried.of(clock, trial, sample, progress or _silent, on_estimate, through_index=serving.used)
        tried.all()
        one_server = not attachment_of(column).distributed  # whose plan says how its scan ended
        if one_server and serving.used and (own.whereclause is not None or tried.short):
            tried.look_at_scans(range(min(LOOKED, len(tried.losses))))
        limit = scan_limit(tried.scans.values())
        looked_into = tried.worst(worst)
        table = vectors_table(column)
        rows = None if tried.cancelled else database.row_estimate(connection, server_name(connection, table))
    losses = tried.losses
    means = np.asarray([loss[3:7] for loss in losses], np.float64).mean(axis=0)
    # the first one compiles the statement and opens files
    times = [loss.ms for loss in losses[1:] or losses if loss.ms is not None]
    return Recall(
        column=str(base),
        short_column=str(attachment_of(column).short),
        index=", ".join(serving.indexes) if serving.used else None,
        instead=serving.instead,
        k=k,
        shortlist=trial.shortlist,
        ef_search=trial.ef_search,
        filter=_conditions(own),
        source=sample.source,
        requested=len(sample),
        losses=losses,
        recall=mean_interval([loss.recall for loss in losses]),
        truncation=float(means[0]),
        ann=float(means[1]),
        shortfall=float(means[2]),
        completed=float(means[3]),
        p50_ms=float(np.percentile(times, 50)),
        p95_ms=float(np.percentile(times, 95)),
        row_count=None if rows is None else round(rows),
        worst=looked_into,
        scan_limit=limit,
        seconds=time.monotonic() - started,
    )


# -- before --------------------------------------------------------------------------------------------------------


def _check_index(connection: Connection, column: Any, *, filtered: bool) -> None:
    """Without an index on the short vectors a search reads the table: it loses nothing to HNSW, and takes long."""
    attachment, base = attachment_of(column), base_column(column)
    if attachment.short is None or not attachment.definition.learned:
        raise NotMigrated(f"{base} has no short vectors, so searches are exact: `pgmrl reshape` plans how to add them")
    table = vectors_table(column)
    row = database.catalogue_result(
        connection,
        text(
            "SELECT bool_or(i.indisvalid), count(*), bool_and(i.indpred IS NOT NULL) FROM pg_index AS i "  # noqa: S608
            "JOIN pg_class AS c ON c.oid = i.indexrelid JOIN pg_am AS m ON m.oid = c.relam AND m.amname = 'hnsw' "
            "LEFT JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0] "
            f"LEFT JOIN ({load_sql('expression_indexes')}) AS e ON e.index_oid = i.indexrelid "
            "WHERE i.indrelid = to_regclass(:name) AND coalesce(a.attname, e.short_column) = :short"
        ),
        {"name": server_name(connection, table), "short": attachment.short},
    ).one()
    if not row[0]:
        what = "only an invalid HNSW index: REINDEX it concurrently" if row[1] else "no HNSW index: create one"
        raise NotMigrated(f"{table.name}.{attachment.short} has {what}; until then a search reads the whole table")
    if row[2] and not filtered:
        raise NotMigrated(
            f"{table.name}.{attachment.short} has only partial HNSW indexes, so a search without their filter reads "
            "the whole table: measure with a filter that implies the condition of one (`pgmrl columns` lists them)"
        )


def _serving(connection: Connection, trial: SearchTrial, queries: Queries) -> Serving:
    """What serves the shortlist, by the plan of the statement that is measured."""
    searched = trial.plain.searched.params(**{QUERY: queries.vectors[0]})
    return index_serving(explained(connection, searched)["Plan"])


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
class Clock:
    """Where and until when queries are tried.

    Attributes:
        connection: of the database.
        started: by `time.monotonic`.
        seconds: there are.

    """

    connection: Connection
    started: float
    seconds: float

    @property
    def end(self) -> float:
        return self.started + self.seconds

    @property
    def left(self) -> float:
        return self.end - time.monotonic()


@dataclass(slots=True)
class _Tried:
    """Queries that were tried.

    Attributes:
        clock: where and until when.
        trial: the statements.
        queries: to try.
        truth: reads the truth.
        report: of progress.
        through_index: whether an HNSW index serves the shortlist.
        losses: of each query that was tried.
        truths: likewise.
        cancelled: whether the server ended a statement because the time was over; then it takes no other one.
        on_estimate: is told how long all takes; None where nobody is, or was told.
        scans: how those that were looked into ended, by the query's number.
        reading_since: by `time.monotonic`.
        search_seconds: that the searches of one query take, about.
        search_ms: that searches took until now.
        settled: whether the losses of the queries that follow are computed.

    """

    clock: Clock
    trial: SearchTrial
    queries: Queries
    truth: TableTruth
    report: Callable[[str, int, int], None]
    through_index: bool
    losses: list[Loss] = field(default_factory=list)
    truths: list[QueryTruth] = field(default_factory=list)
    cancelled: bool = False
    on_estimate: Callable[[float], None] | None = None
    scans: dict[int, EndedScan] = field(default_factory=dict)
    reading_since: float = 0.0
    search_seconds: float = 0.0
    search_ms: float = 0.0
    settled: bool = False

    @classmethod
    def of(
        cls,
        clock: Clock,
        trial: SearchTrial,
        queries: Queries,
        report: Callable[[str, int, int], None],
        on_estimate: Callable[[float], None] | None,
        *,
        through_index: bool,
    ) -> _Tried:
        definition = trial.definition
        plan = explained(clock.connection, truth_statement(trial.rows, definition))["Plan"]
        truth = TableTruth.of(clock.connection, trial.rows, definition, expected_rows(plan))
        return cls(clock, trial, queries, truth, report, through_index, on_estimate=on_estimate)

    @property
    def short(self) -> bool:
        """Whether rows were missing, or came from the exact fallback."""
        return any(loss.shortfall > 0 or loss.completed > 0 for loss in self.losses)

    def all(self) -> None:
        """Try as many queries as there is time for; as many at once as memory holds the lists of."""
        count = queries_at_once(self.trial.shortlist)
        for first in range(0, len(self.queries), count):
            if not self._try(first, min(first + count, len(self.queries))):
                break
        if not self.losses:
            raise _none_in_time(self.clock.seconds)

    def _try(self, first: int, end: int) -> bool:
        """Read the truth of some queries and search; whether there was time for all of them."""
        connection, keys = self.clock.connection, self.queries.keys
        try:
            if self.on_estimate is not None:
                self._time_search()
            until(connection, self.clock.end)
            self.reading_since = time.monotonic()
            truths = self.truth.read(
                self.queries.vectors[first:end],
                None if keys is None else keys[first:end],
                k=self.trial.k,
                shortlist=self.trial.shortlist,
                deadline=time.monotonic() + READING * self.clock.left,
                progress=self._read,
            )
            for number, truth in enumerate(truths, first):
                if self.clock.left <= 0:
                    return False
                self.losses.append(self._loss(number, truth))
                self.truths.append(truth)
                self.report("queries", len(self.losses), len(self.queries))
        except DBAPIError as error:
            if sqlstate(error) != CANCELLED or self.clock.left > 1:
                raise
            self.cancelled = True
            return False
        return len(truths) == end - first

    def _loss(self, number: int, truth: QueryTruth) -> Loss:
        key = None if self.queries.keys is None else self.queries.keys[number]
        if self.settled:
            return self.trial.computed(number, key, truth)
        vector, clock = self.queries.vectors[number], self.clock
        loss = self.trial.run(clock.connection, number, vector, key, truth, clock.end, through_index=self.through_index)
        self.search_ms += loss.ms or 0.0
        if not self.through_index and number + 1 >= SEARCHED and self.search_ms >= 1000 * SEARCH_SECONDS:
            differing = (each.ann or each.shortfall or each.completed for each in [*self.losses, loss])
            self.settled = not any(differing)
        return loss

    def _searches_seconds(self) -> float:
        """How long the searches take, about."""
        whole = len(self.queries) * self.search_seconds
        return whole if self.through_index else min(whole, max(SEARCHED * self.search_seconds, SEARCH_SECONDS))

    def _read(self, rows: int) -> None:
        expected = max(rows, round(self.truth.expected))
        self.report("reading the table", rows, expected)
        if self.on_estimate is not None:
            reading = (time.monotonic() - self.reading_since) * expected / max(1, rows)
            passes = -(-len(self.queries) // queries_at_once(self.trial.shortlist))
            whole = self.reading_since - self.clock.started + passes * reading + self._searches_seconds()
            self.on_estimate(min(whole, self.clock.seconds))
            self.on_estimate = None

    def _time_search(self) -> None:
        """How long a query takes: through an index with a fallback it is searched for twice, with that and without."""
        searches, parameters = self.trial.plain, {QUERY: self.queries.vectors[0]}
        until(self.clock.connection, self.clock.end)
        self.clock.connection.execute(searches.searched, parameters).all()  # compiled, and files opened
        started = time.monotonic()
        self.clock.connection.execute(searches.searched, parameters).all()
        twice = self.through_index and searches.scanned is not None
        self.search_seconds = (time.monotonic() - started) * (2 if twice else 1)

    def worst(self, count: int) -> list[Worst]:
        """The queries that lose most, with their causes."""
        losing = [pair for pair in zip(self.losses, self.truths, strict=True) if pair[0].recall < 1]
        worst = []
        for loss, truth in sorted(losing, key=lambda pair: pair[0].recall)[:count]:
            needed = self._needed(loss, truth) if loss.truncation > 0 else None
            if self.scans:
                self.look_at_scans([loss.number])
            worst.append(Worst(loss, needed, _why(self.trial, loss, needed, self.scans.get(loss.number))))
        return worst

    def look_at_scans(self, numbers: Iterable[int]) -> None:
        """See how the scans of some queries end, as far as there is time."""
        for number in numbers:
            if self.cancelled or self.clock.left <= 0:
                return
            if number in self.scans:
                continue
            statement, shortlist = self.trial.scanned(self.queries.vectors[number], self.truths[number])
            try:
                until(self.clock.connection, self.clock.end)
                scan = ended_scan(self.clock.connection, statement, shortlist)
            except DBAPIError as error:
                if sqlstate(error) != CANCELLED:
                    raise
                self.cancelled = True
                return
            if scan is not None:
                self.scans[number] = scan

    def _needed(self, loss: Loss, truth: QueryTruth) -> int | None:
        if self.cancelled or self.clock.left <= 0:
            return None
        vector = self.queries.vectors[loss.number]
        try:
            return self.trial.needed(self.clock.connection, vector, loss.key, truth, self.clock.end)
        except DBAPIError as error:
            if sqlstate(error) != CANCELLED:
                raise
            self.cancelled = True
            return None


@contextmanager
def _in_time(clock: Clock) -> Iterator[None]:
    try:
        yield
    except DBAPIError as error:
        if sqlstate(error) == CONFLICT:
            raise ended_by_standby() from error
        if sqlstate(error) == CANCELLED and clock.left <= 1:
            raise _none_in_time(clock.seconds) from error
        raise


def _none_in_time(seconds: float) -> MeasureError:
    return MeasureError(
        f"not one query was tried in {seconds:g} s: the truth takes a pass over the whole table. Give more seconds, or "
        "measure on a standby"
    )


def _why(trial: SearchTrial, loss: Loss, needed: int | None, scan: EndedScan | None) -> str:
    """The causes of one query's loss, the largest first, each with what would help."""
    if needed is None:
        more = "a longer shortlist would hold them; there was no time to find out how long"
    elif needed > EF_SEARCH_LIMIT:  # beyond it the scan iterates, and each row of it is read in full
        more = f"no shortlist within reach ({needed:,}): more short dimensions or a rotation, see `pgmrl tune`"
    else:
        more = f"a shortlist of {needed:,} would hold them"
    passed = f"the scan with ef_search {trial.ef_search:,} passes by rows of the shortlist: raise it"
    if scan is not None and scan.why:
        passed = f"{scan.why}: {remedy(scan.end)}"
    causes = {
        f"the short vectors rank true neighbours behind the shortlist of {trial.shortlist:,}: {more}": loss.truncation,
        passed: loss.ann,
        f"{loss.returned} of {loss.expected} rows came back: leave complete=False out": loss.shortfall - loss.completed,
    }
    return "; ".join(sorted((why for why, share in causes.items() if share > 0), key=lambda why: -causes[why]))


def _silent(_what: str, _done: int, _whole: int) -> None:
    """No progress."""
