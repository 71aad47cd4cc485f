"""Fill a column of a table in use: in batches by primary key, by any number of workers, resumable after each of them.

The job lives in the database (`pgmrl.backfills`). A worker takes the next range of keys in a short transaction, then
writes its rows and forgets the range in a second. Whatever kills it in between, the range is still there, unlocked, and
the next worker takes it. Rows that somebody else holds are skipped and come back later: a backfill that waits for no
row can be part of no deadlock. At the end the whole table is asked whether a row is left.
"""

from __future__ import annotations

import logging
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from pgmrl.database import execute_plain
from pgmrl.ddl import rule_of
from pgmrl.errors import MigrationError
from pgmrl.names import literal, quoted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sqlalchemy import Connection, Engine

    from pgmrl.online.target import Target

__all__ = ["Fill", "Job", "Throttle", "backfill", "backfill_on", "full_fill", "jobs", "left", "short_fill", "stop"]

log = logging.getLogger("alembic.pgmrl")

BATCH_FIRST: Final = 200
BATCH_LARGEST: Final = 20_000
MISSED_AT_ONCE: Final = 5_000


@dataclass(frozen=True, slots=True)
class Fill:
    """What is filled from what.

    Attributes:
        schema: of the table, as the catalogue has it.
        table: its name.
        owner: the table as SQL text.
        source: the column that is read.
        target: the column that is written.
        value: the new value as SQL text.
        rule: what the triggers know this computation by.
        keys: the primary key's columns and their types as SQL text.
    """

    schema: str
    table: str
    owner: str
    source: str
    target: str
    value: str
    rule: str
    keys: tuple[tuple[str, str], ...]

    @property
    def missing(self) -> str:
        """The rows still to be filled, as SQL text."""
        return f"t.{quoted(self.target)} IS NULL AND t.{quoted(self.source)} IS NOT NULL"

    @property
    def title(self) -> str:
        """For people."""
        return f"{self.schema}.{self.table}.{self.target}"

    def statement(self, where: str = "true", limit: str = "") -> str:
        """The statement of a batch. Rows that others hold are skipped, so that it waits for nobody.

        Args:
            where: a condition on `t`, as SQL text.
            limit: `LIMIT n `, or nothing.
        """
        listed = ", ".join(f"t.{quoted(name)} AS pgmrl_key_{n}" for n, (name, _) in enumerate(self.keys))
        joined = " AND ".join(f"t.{quoted(name)} = p.pgmrl_key_{n}" for n, (name, _) in enumerate(self.keys))
        names = ", ".join(f"t.{quoted(name)}" for name, _ in self.keys)
        order = "" if limit else f"ORDER BY {names} "
        return (
            f"WITH picked AS MATERIALIZED (SELECT {listed} FROM {self.owner} AS t WHERE {where} AND {self.missing} "
            f"{order}{limit}FOR NO KEY UPDATE SKIP LOCKED) "
            f"UPDATE {self.owner} AS t SET {quoted(self.target)} = {self.value} FROM picked AS p WHERE {joined}"
        )


@dataclass(frozen=True, slots=True)
class Throttle:
    """How much of the server a worker takes.

    Attributes:
        batch_seconds: how long a batch, and so its row locks, may last; its size follows.
        max_rows_per_second: of this worker.
        max_lag_bytes: waits while a standby is further behind than this.
        max_lock_waits: waits while more sessions of this database than this wait for locks.
        pause: seconds between looks at a server that is too busy.
        without_triggers: the application's own triggers do not fire; needs the right to set session_replication_role.
    """

    batch_seconds: float = 0.2
    max_rows_per_second: float | None = None
    max_lag_bytes: int | None = 64 * 1024 * 1024
    max_lock_waits: int | None = 10
    pause: float = 1.0
    without_triggers: bool = False

    def __post_init__(self) -> None:
        for name in ("batch_seconds", "max_rows_per_second", "pause"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise MigrationError(f"{name}={value}: give a number above 0")


@dataclass(frozen=True, slots=True)
class Job:
    """A backfill as the database has it.

    Attributes:
        id: of the job.
        table_schema: of the table.
        table_name: the table.
        source_column: read.
        target_column: written.
        rows_estimated: rows of the table when it began.
        rows_seen: rows in the ranges that are done.
        rows_written: rows that were filled by workers; triggers fill others.
        state: running, or why the last worker that reported waits.
        finished: whether every row has its value.
        seconds: since it began, or until it was finished.
        idle_seconds: since a worker last reported.
    """

    id: int
    table_schema: str
    table_name: str
    source_column: str
    target_column: str
    rows_estimated: int
    rows_seen: int
    rows_written: int
    state: str
    finished: bool
    seconds: float
    idle_seconds: float

    @property
    def part(self) -> float:
        """How much is done, 0 to 1; an estimate until it is finished."""
        return 1.0 if self.finished else min(0.999, self.rows_seen / max(1, self.rows_estimated))


_JOBS = """
SELECT id, table_schema, table_name, source_column, target_column, rows_estimated, rows_seen, rows_written, state,
    finished_at IS NOT NULL AS finished,
    extract(epoch FROM coalesce(finished_at, clock_timestamp()) - started_at)::float8 AS seconds,
    extract(epoch FROM clock_timestamp() - updated_at)::float8 AS idle_seconds
FROM pgmrl.backfills
"""


def jobs(connection: Connection) -> list[Job]:
    """All backfills, running and finished; needs pgmrl's schema."""
    return [Job(*tuple(row)) for row in execute_plain(connection, _JOBS + " ORDER BY id")]


def stop(connection: Connection, job_id: int) -> None:
    """Ask the workers of a backfill to stop after the batch at hand; another `backfill` goes on."""
    connection.execute(text("UPDATE pgmrl.backfills SET stop_requested = true WHERE id = :id"), {"id": job_id})


# -- what to fill --------------------------------------------------------------------------------------------------


def short_fill(connection: Connection, target: Target) -> Fill:
    """The backfill of a short column.

    Raises:
        MigrationError: there is no such table, or it has no primary key.
    """
    return _fill(connection, target.owner, target.full, target.short, target.value, rule_of(target.definition))


def full_fill(connection: Connection, owner: str, source: str, target: str, type_: str) -> Fill:
    """The backfill of a full column from the one it takes over from.

    Args:
        connection: of the database.
        owner: the table as SQL text.
        source: the old full column.
        target: the new one.
        type_: of the new one, as SQL text.

    Raises:
        MigrationError: as `short_fill`.
    """
    return _fill(connection, owner, source, target, f"{quoted(source)}::{type_}", "mirror")


def _fill(connection: Connection, owner: str, source: str, target: str, value: str, rule: str) -> Fill:
    place = connection.execute(
        text(
            "SELECT n.nspname, c.relname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace "
            "WHERE c.oid = to_regclass(:owner)"
        ),
        {"owner": owner},
    ).first()
    if place is None:
        raise MigrationError(f"there is no table {owner}: check its name and schema")
    keys = connection.execute(
        text(
            "SELECT a.attname, format_type(a.atttypid, a.atttypmod) FROM pg_index AS x "
            "CROSS JOIN LATERAL unnest(x.indkey) WITH ORDINALITY AS k (attnum, n) "
            "JOIN pg_attribute AS a ON a.attrelid = x.indrelid AND a.attnum = k.attnum "
            "WHERE x.indrelid = to_regclass(:owner) AND x.indisprimary ORDER BY k.n"
        ),
        {"owner": owner},
    ).all()
    if not keys:
        raise MigrationError(f"table {owner} has no primary key, by which a backfill goes: add one")
    return Fill(place[0], place[1], owner, source, target, value, rule, tuple((name, type_) for name, type_ in keys))


# -- the job -------------------------------------------------------------------------------------------------------


def backfill(
    engine: Engine,
    fill: Fill,
    throttle: Throttle | None = None,
    *,
    workers: int = 1,
    progress: Callable[[Job], None] | None = None,
    over: threading.Event | None = None,
) -> Job:
    """Fill a column until no row is left, or until told to stop. Begins anew or goes on, alone or beside others.

    Args:
        engine: of the database; each worker takes one connection.
        fill: from `short_fill` or `full_fill`.
        throttle: how much of the server each worker takes.
        workers: threads of this process; other processes can work at the same job.
        progress: called after each batch, by one worker at a time.
        over: set it to stop after the batches at hand.

    Returns:
        The job as it is now; `finished` says whether every row has its value.

    Raises:
        MigrationError: missing rights, row-level security, or a value that cannot be computed; named.
    """
    if workers < 1:
        raise MigrationError(f"workers={workers}: give at least 1")
    ending, lock, failed = over or threading.Event(), threading.Lock(), list[BaseException]()

    def told(job: Job) -> None:
        if progress is not None:
            with lock:
                progress(job)

    def work() -> None:
        try:
            with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                backfill_on(connection, fill, throttle, progress=told, over=ending)
        except BaseException as error:  # told to the caller below
            failed.append(error)
            ending.set()

    _all_of(work, workers, ending)
    if failed:
        raise failed[0]
    with engine.connect() as connection:
        return _job(connection, fill)


def _all_of(work: Callable[[], None], count: int, ending: threading.Event) -> None:
    threads = [threading.Thread(target=work, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            thread.join()
    except BaseException:  # Ctrl-C: the batches at hand are finished
        ending.set()
        for thread in threads:
            thread.join()
        raise


def backfill_on(
    connection: Connection,
    fill: Fill,
    throttle: Throttle | None = None,
    *,
    progress: Callable[[Job], None] | None = None,
    over: threading.Event | None = None,
) -> Job:
    """One worker of `backfill`, on a connection in autocommit."""
    _check_rights(connection, fill)
    job_id = _begin(connection, fill)
    worker = _Worker(connection, fill, job_id, throttle or Throttle(), over or threading.Event(), progress)
    try:
        worker.run()
    except DBAPIError as error:
        if error.connection_invalidated:
            raise MigrationError(
                f"the connection was lost while {fill.title} was filled: run it again, it goes on where it was"
            ) from error
        raise
    return _job(connection, fill)


def left(connection: Connection, fill: Fill) -> int:
    """The number of rows that still have no value; reads the whole table, but no vector in TOAST."""
    query = f"SELECT count(*) FROM {fill.owner} AS t WHERE {fill.missing}"
    return int(execute_plain(connection, query).scalar_one())


def _job(connection: Connection, fill: Fill) -> Job:
    where = f"WHERE table_schema = {literal(fill.schema)} AND table_name = {literal(fill.table)}"
    rows = execute_plain(connection, f"{_JOBS} {where} AND target_column = {literal(fill.target)}")
    return Job(*tuple(rows.one()))


def _check_rights(connection: Connection, fill: Fill) -> None:
    query = text(
        "SELECT row_security_active(to_regclass(:owner)) AS hidden, "
        "has_table_privilege(to_regclass(:owner), 'SELECT, UPDATE') AS may, "
        "to_regclass('pgmrl.backfills') IS NOT NULL AS there, "
        "has_table_privilege(to_regclass('pgmrl.backfills'), 'INSERT') "
        "AND has_table_privilege(to_regclass('pgmrl.backfill_ranges'), 'INSERT') AS writes, current_user AS who"
    )
    row = connection.execute(query, {"owner": fill.owner}).one()
    if not row.there:
        raise MigrationError("pgmrl's schema is missing or older than 0002: run `pgmrl upgrade`, or op.upgrade_pgmrl")
    if not row.may:
        raise MigrationError(f"{row.who} may not update {fill.owner}: run this as its owner, or GRANT SELECT, UPDATE")
    if row.hidden:
        raise MigrationError(
            f"row-level security hides rows of {fill.owner} from {row.who}: run this as its owner or with BYPASSRLS"
        )
    if not row.writes:
        raise MigrationError(
            f"{row.who} may not keep a backfill: GRANT SELECT, INSERT, UPDATE, DELETE ON pgmrl.backfills, "
            f"pgmrl.backfill_ranges TO {quoted(row.who)}"
        )


_BEGIN = """
INSERT INTO pgmrl.backfills (table_schema, table_name, source_column, target_column, rule, table_oid, target_number,
    rows_estimated)
SELECT :schema, :table, :source, :target, :rule, c.oid, a.attnum,
    coalesce((SELECT sum(greatest(p.reltuples, 0)) FROM pg_partition_tree(c.oid) AS t
              JOIN pg_class AS p ON p.oid = t.relid WHERE t.isleaf), greatest(c.reltuples, 0))
FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attname = :target
WHERE c.oid = to_regclass(:owner)
ON CONFLICT (table_schema, table_name, target_column) DO UPDATE SET stop_requested = false, state = 'running'
RETURNING id, finished_at IS NOT NULL AS finished, (rule, source_column) IS DISTINCT FROM (:rule, :source)
    OR NOT EXISTS (SELECT FROM pg_attribute AS a WHERE a.attrelid = to_regclass(:owner) AND a.attname = :target
                   AND (a.attrelid, a.attnum) = (table_oid, target_number)) AS other
"""


def _begin(connection: Connection, fill: Fill) -> int:
    """The job's id; one that was for another column of this name, or is finished and yet rows are left, begins anew."""
    given = {
        "schema": fill.schema,
        "table": fill.table,
        "source": fill.source,
        "target": fill.target,
        "rule": fill.rule,
        "owner": fill.owner,
    }
    row = connection.execute(text(_BEGIN), given).first()
    if row is None:
        raise MigrationError(f"{fill.title} is not there: add the column first")
    if row.other or (row.finished and _any_left(connection, fill)):
        execute_plain(connection, f"DELETE FROM pgmrl.backfills WHERE id = {row.id}")
        return int(connection.execute(text(_BEGIN), given).one().id)
    return int(row.id)


def _any_left(connection: Connection, fill: Fill) -> bool:
    query = f"SELECT EXISTS (SELECT FROM {fill.owner} AS t WHERE {fill.missing})"
    return bool(execute_plain(connection, query).scalar_one())


# -- a worker ------------------------------------------------------------------------------------------------------


class _Worker:
    """One connection's part of a job."""

    def __init__(
        self,
        connection: Connection,
        fill: Fill,
        job_id: int,
        throttle: Throttle,
        over: threading.Event,
        progress: Callable[[Job], None] | None,
    ) -> None:
        self.connection = connection
        self.fill = fill
        self.job_id = job_id
        self.throttle = throttle
        self.over = over
        self.progress = progress
        self.batch = BATCH_FIRST
        self.looked = 0.0

    def run(self) -> None:
        """Work until the job is finished or is to stop."""
        while not self._ending():
            self._wait_while_busy()
            began = time.perf_counter()
            written = self._write_next()
            if written is None and not self._hand_out() and self._finish():
                return
            if written is not None:
                self._paced(written, time.perf_counter() - began)

    def _ending(self) -> bool:
        if self.over.is_set():
            self._report("stopped")
            return True
        asked = self._one(f"SELECT stop_requested FROM pgmrl.backfills WHERE id = {self.job_id}")
        if asked is None:
            raise MigrationError(f"the backfill of {self.fill.title} was removed while it ran: run it again")
        if asked:
            self._report("stopped")
        return bool(asked)

    # -- ranges ----------------------------------------------------------------------------------------------------

    def _hand_out(self) -> bool:
        """Take the next range of keys from the table and leave it for whichever worker is free."""
        with _transaction(self.connection):
            row = self._row(f"SELECT position, exhausted FROM pgmrl.backfills WHERE id = {self.job_id} FOR UPDATE")
            if row is None or row.exhausted:
                return False
            page = self._page(row.position)
            last = page is None or page.size < self.batch
            self.connection.execute(
                text(
                    "INSERT INTO pgmrl.backfill_ranges (backfill_id, after_key, up_to_key, size) "
                    "VALUES (:id, :after, :up_to, :size)"
                ),
                {
                    "id": self.job_id,
                    "after": row.position,
                    "up_to": None if page is None or last else page.key,  # the last is open: rows may be added
                    "size": 0 if page is None else page.size,
                },
            )
            self.connection.execute(
                text("UPDATE pgmrl.backfills SET position = :key, exhausted = :last WHERE id = :id"),
                {"key": row.position if page is None else page.key, "last": last, "id": self.job_id},
            )
        return True

    def _page(self, after: list[str] | None) -> Any:
        names = ", ".join(f"t.{quoted(name)}" for name, _ in self.fill.keys)
        texts = ", ".join(f"p.k{n}::text" for n, _ in enumerate(self.fill.keys))
        listed = ", ".join(f"t.{quoted(name)} AS k{n}" for n, (name, _) in enumerate(self.fill.keys))
        backwards = ", ".join(f"p.k{n} DESC" for n, _ in enumerate(self.fill.keys))
        return self._row(
            f"WITH page AS MATERIALIZED (SELECT {listed} FROM {self.fill.owner} AS t WHERE {self._after(after)} "
            f"ORDER BY {names} LIMIT {self.batch}) "
            f"SELECT ARRAY[{texts}] AS key, (SELECT count(*) FROM page) AS size FROM page AS p "
            f"ORDER BY {backwards} LIMIT 1"
        )

    def _after(self, key: list[str] | None) -> str:
        return "true" if key is None else f"({self._names()}) > ({self._key(key)})"

    def _up_to(self, key: list[str] | None) -> str:
        return "true" if key is None else f"({self._names()}) <= ({self._key(key)})"

    def _names(self) -> str:
        return ", ".join(f"t.{quoted(name)}" for name, _ in self.fill.keys)

    def _key(self, key: Sequence[str]) -> str:
        return ", ".join(f"{literal(value)}::{type_}" for value, (_, type_) in zip(key, self.fill.keys, strict=True))

    # -- rows ------------------------------------------------------------------------------------------------------

    def _write_next(self) -> int | None:
        """Write the rows of a range that was handed out; the number in the range, None where there is no range."""
        query = (
            f"SELECT id, after_key, up_to_key, size FROM pgmrl.backfill_ranges WHERE backfill_id = {self.job_id} "
            "ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED"
        )
        with _transaction(self.connection):
            taken = self._row(query)
            if taken is None:
                return None
            where = f"{self._after(taken.after_key)} AND {self._up_to(taken.up_to_key)}"
            written = self._write(where)
            self._plain(f"DELETE FROM pgmrl.backfill_ranges WHERE id = {taken.id}")
            self._plain(
                f"UPDATE pgmrl.backfills SET rows_seen = rows_seen + {taken.size}, "
                f"rows_written = rows_written + {written}, updated_at = clock_timestamp(), state = 'running' "
                f"WHERE id = {self.job_id}"
            )
        if self.progress is not None:
            self.progress(_job(self.connection, self.fill))
        return int(taken.size)

    def _write(self, where: str, limit: str = "") -> int:
        if self.throttle.without_triggers:
            self._plain("SET LOCAL session_replication_role = replica")
        self._plain(f"SELECT set_config('pgmrl.computed_by', {literal(self.fill.rule)}, true)")
        try:
            return int(self._plain(self.fill.statement(where, limit)).rowcount)
        except DBAPIError as error:
            if str(getattr(error.orig, "sqlstate", "")).startswith("22"):
                raise self._explained(error, where) from error
            raise

    def _explained(self, error: DBAPIError, where: str) -> MigrationError:
        """Which row it was."""
        self._plain("ROLLBACK")
        texts = ", ".join(f"t.{quoted(name)}::text" for name, _ in self.fill.keys)
        rows = self._plain(f"SELECT ARRAY[{texts}] FROM {self.fill.owner} AS t WHERE {where} AND {self.fill.missing}")
        said = str(error.orig).strip()
        for (key,) in rows.all():
            try:
                self._plain(
                    f"SELECT {self.fill.value} FROM {self.fill.owner} AS t WHERE ({self._names()}) = ({self._key(key)})"
                )
            except DBAPIError:
                name = ", ".join(f"{k[0]}={v}" for k, v in zip(self.fill.keys, key, strict=True))
                return MigrationError(f"{self.fill.title} of row {name} cannot be computed: {said}\nCorrect it.")
        return MigrationError(f"{self.fill.title} cannot be computed: {said}")

    # -- the end ---------------------------------------------------------------------------------------------------

    def _finish(self) -> bool:
        """Rows that were held, or whose key moved: the whole table is asked until none is left."""
        if self._one(f"SELECT count(*) FROM pgmrl.backfill_ranges WHERE backfill_id = {self.job_id}"):
            time.sleep(0.1)  # another worker is at the last ranges
            return False
        with _transaction(self.connection):
            written = self._write("true", f"LIMIT {MISSED_AT_ONCE} ")
            self._plain(f"UPDATE pgmrl.backfills SET rows_written = rows_written + {written} WHERE id = {self.job_id}")
        if written:
            return False
        if _any_left(self.connection, self.fill):
            self._report("waiting for rows that others hold")
            self.over.wait(self.throttle.pause)
            return False
        self._plain(
            "UPDATE pgmrl.backfills SET finished_at = coalesce(finished_at, clock_timestamp()), state = 'finished', "
            f"updated_at = clock_timestamp(), rows_seen = greatest(rows_seen, 1), "
            f"rows_estimated = greatest(rows_seen, 1) WHERE id = {self.job_id}"
        )
        if self.progress is not None:
            self.progress(_job(self.connection, self.fill))
        return True

    # -- pace ------------------------------------------------------------------------------------------------------

    def _paced(self, rows: int, seconds: float) -> None:
        how = self.throttle
        factor = min(2.0, max(0.5, how.batch_seconds / max(seconds, 1e-4)))
        self.batch = int(min(BATCH_LARGEST, max(10, self.batch * factor)))
        if how.max_rows_per_second is not None:
            self.batch = max(1, min(self.batch, int(how.max_rows_per_second)))
            self.over.wait(max(0.0, rows / how.max_rows_per_second - seconds))

    def _wait_while_busy(self) -> None:
        if time.monotonic() - self.looked < self.throttle.pause:
            return
        while (reason := self._busy()) is not None and not self.over.is_set():
            self._report(reason)
            self.over.wait(self.throttle.pause)
        self.looked = time.monotonic()

    def _busy(self) -> str | None:
        how = self.throttle
        if how.max_lag_bytes is not None:
            lag = self._one(
                "SELECT max(pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn)) FROM pg_stat_replication "
                "WHERE NOT pg_is_in_recovery()"
            )
            if lag is not None and lag > how.max_lag_bytes:
                return f"waiting: a standby is {int(lag) / 1e6:,.0f} MB behind"
        if how.max_lock_waits is not None:
            waits = self._one(
                "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
            )
            if waits > how.max_lock_waits:
                return f"waiting: {waits} sessions wait for locks"
        return None

    def _report(self, state: str) -> None:
        log.info("%s: %s", self.fill.title, state)
        self._plain(
            f"UPDATE pgmrl.backfills SET state = {literal(state)}, updated_at = clock_timestamp() "
            f"WHERE id = {self.job_id}"
        )
        if self.progress is not None:
            self.progress(_job(self.connection, self.fill))

    # -- asking ----------------------------------------------------------------------------------------------------

    def _plain(self, statement: str) -> Any:
        return execute_plain(self.connection, statement)

    def _row(self, statement: str) -> Any:
        return self._plain(statement).first()

    def _one(self, statement: str) -> Any:
        return self._plain(statement).scalar()


@contextmanager
def _transaction(connection: Connection) -> Iterator[None]:
    """A transaction on a connection in autocommit."""
    execute_plain(connection, "BEGIN")
    try:
        yield
    except BaseException:
        with suppress(DBAPIError):  # a lost connection has rolled back
            execute_plain(connection, "ROLLBACK")
        raise
    execute_plain(connection, "COMMIT")
