"""Backfills as the database keeps them: what is filled from what, how far each job is, how it begins and stops."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from pgmrl import database
from pgmrl.database.connection import execute_plain, sqlstate
from pgmrl.database.search_path import caller_path, catalogue_result, pinned, pinned_block
from pgmrl.errors import MigrationError
from pgmrl.names import literal, quoted
from pgmrl.online.preconditions import check_sees_all_rows

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import Connection

__all__ = ["Fill", "Job", "Throttle", "begin", "check", "clear_errors", "job_of", "jobs", "stop", "transaction"]

RETRYABLE: Final = {"40001", "40P01"}  # serialization_failure, deadlock_detected: another try gets through


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
        task: `fill` the rows without a value, `repair` those with a wrong one, or only `compare` and count these.
        wrong: the condition that a row of `t` has a wrong value, as SQL text, where wrong ones are looked for.
    """

    schema: str
    table: str
    owner: str
    source: str
    target: str
    value: str
    rule: str
    keys: tuple[tuple[str, str], ...]
    task: Literal["fill", "repair", "compare"] = "fill"
    wrong: str | None = None

    @property
    def missing(self) -> str:
        """The condition that a row of `t` is still to be filled, or has a wrong value, as SQL text."""
        if self.wrong is not None:
            return self.wrong
        return f"t.{quoted(self.target)} IS NULL AND t.{quoted(self.source)} IS NOT NULL"

    @property
    def title(self) -> str:
        """For people."""
        return f"{self.schema}.{self.table}.{self.target}"

    @property
    def job_rule(self) -> str:
        """What the job is known by: comparing or repairing a column is another job than filling it."""
        return self.rule if self.task == "fill" else f"{self.task} {self.rule}"

    @property
    def key_names(self) -> str:
        """The primary key's columns of `t`, as SQL text."""
        return ", ".join(f"t.{quoted(name)}" for name, _ in self.keys)

    @property
    def key_texts(self) -> str:
        """A row's key as an array of texts, as SQL text."""
        return "ARRAY[" + ", ".join(f"t.{quoted(name)}::text" for name, _ in self.keys) + "]"

    def key(self, values: Sequence[str]) -> str:
        """A key that was read by `key_texts`, as SQL text in brackets."""
        typed = (f"{literal(value)}::{type_}" for value, (_, type_) in zip(values, self.keys, strict=True))
        return f"({', '.join(typed)})"

    def after(self, key: Sequence[str] | None) -> str:
        """The condition that a row comes after a key; None: before the first."""
        return "true" if key is None else f"({self.key_names}) > {self.key(key)}"

    def up_to(self, key: Sequence[str] | None) -> str:
        """The condition that a row comes no later than a key; None: after the last."""
        return "true" if key is None else f"({self.key_names}) <= {self.key(key)}"

    def among(self, keys: Sequence[Sequence[str]]) -> str:
        """The condition that a row has one of these keys."""
        return f"({self.key_names}) IN (VALUES {', '.join(map(self.key, keys))})"

    def key_title(self, key: Sequence[str]) -> str:
        """A key for people."""
        return ", ".join(f"{name}={value}" for (name, _), value in zip(self.keys, key, strict=True))

    def statement(self, where: str = "true") -> str:
        """The statement of a batch. Rows that others hold are skipped, so that it waits for nobody.

        Args:
            where: a condition on `t`, as SQL text.
        """
        listed = ", ".join(f"t.{quoted(name)} AS pgmrl_key_{n}" for n, (name, _) in enumerate(self.keys))
        joined = " AND ".join(f"t.{quoted(name)} = p.pgmrl_key_{n}" for n, (name, _) in enumerate(self.keys))
        return (
            f"WITH picked AS MATERIALIZED (SELECT {listed} FROM {self.owner} AS t WHERE {where} AND ({self.missing}) "
            f"ORDER BY {self.key_names} FOR NO KEY UPDATE SKIP LOCKED) "
            f"UPDATE {self.owner} AS t SET {quoted(self.target)} = {self.value} FROM picked AS p WHERE {joined}"
        )


@dataclass(frozen=True, slots=True)
class Throttle:
    """How much of the server a worker takes.

    Attributes:
        batch_seconds: how long a batch, and so its row locks, may last; its size follows.
        max_rows_per_second: that this worker writes.
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
                raise MigrationError(f"{name}: expected a number above 0, got {value}")


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
        state: running, or why the last worker that reported waits, stopped or failed.
        finished: whether every row has its value.
        seconds: since it began, or until it was finished.
        idle_seconds: since a worker last reported.
        task: `fill`, `repair` or `compare`: then `rows_written` are those that differ.
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
    task: str

    @property
    def part(self) -> float:
        """How much is done, 0 to 1; an estimate until it is finished."""
        return 1.0 if self.finished else min(0.999, self.rows_seen / max(1, self.rows_estimated))


_JOBS = """
SELECT id, table_schema, table_name, source_column, target_column, rows_estimated, rows_seen, rows_written, state,
    finished_at IS NOT NULL AS finished,
    extract(epoch FROM coalesce(finished_at, clock_timestamp()) - started_at)::float8 AS seconds,
    extract(epoch FROM clock_timestamp() - updated_at)::float8 AS idle_seconds,
    coalesce(substring(rule FROM '^(repair|compare) '), 'fill') AS task
FROM pgmrl.backfill_progress
"""


def jobs(connection: Connection) -> list[Job]:
    """All backfills, running and finished; needs pgmrl's schema."""
    return [Job(*tuple(row)) for row in catalogue_result(connection, _JOBS + " ORDER BY id")]


def job_of(connection: Connection, fill: Fill, job_id: int) -> Job:
    """One backfill.

    Raises:
        MigrationError: it was removed.
    """
    row = catalogue_result(connection, f"{_JOBS} WHERE id = {job_id}").first()
    if row is None:
        raise removed_error(fill)
    return Job(*tuple(row))


def removed_error(fill: Fill) -> MigrationError:
    """The error where a job is gone: the column was dropped and made again, or means something else now."""
    return MigrationError(f"the backfill of {fill.title} was removed or begun anew while it ran: run it again")


def stop(connection: Connection, job_id: int) -> None:
    """Ask the workers of a backfill to stop after the batch at hand; another `backfill` goes on."""
    with pinned(connection):
        connection.execute(text("UPDATE pgmrl.backfills SET stop_requested = true WHERE id = :id"), {"id": job_id})


# -- before it begins ----------------------------------------------------------------------------------------------

_RIGHTS = """
SELECT row_security_active(c.oid) AS hidden, current_user AS who,
    (SELECT bool_and(has_column_privilege(c.oid, a.attname, 'SELECT')) FROM pg_attribute AS a
     WHERE a.attrelid = c.oid AND a.attname = ANY (:read)) AS reads,
    has_column_privilege(c.oid, t.attname, 'UPDATE') AS updates, t.attgenerated <> '' AS generated,
    (SELECT bool_and(has_table_privilege(to_regclass(kept), needed))
     FROM unnest(ARRAY['pgmrl.backfills', 'pgmrl.backfill_ranges']) AS kept,
          unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS needed) AS keeps
FROM pg_class AS c
JOIN pg_attribute AS s ON s.attrelid = c.oid AND s.attname = :source AND s.attnum > 0 AND NOT s.attisdropped
JOIN pg_attribute AS t ON t.attrelid = c.oid AND t.attname = :target AND t.attnum > 0 AND NOT t.attisdropped
WHERE c.oid = to_regclass(:owner)
"""


def check(connection: Connection, fill: Fill, throttle: Throttle) -> None:
    """Check everything a backfill needs, before it writes anything.

    Raises:
        MigrationError: a column is not there, or missing rights.
        NotMigrated: as `database.require_schema`.
    """
    read = [fill.source, fill.target, *(name for name, _ in fill.keys)]
    parameters = {"owner": fill.owner, "source": fill.source, "target": fill.target, "read": read}
    row = catalogue_result(connection, text(_RIGHTS), parameters).first()
    if row is None:
        raise MigrationError(f"{fill.owner} has no columns {fill.source} and {fill.target}: add the column first")
    database.require_schema(connection)
    if row.generated:
        raise MigrationError(f"{fill.title} is a generated column, which is filled already")
    if not (row.reads and row.updates):
        raise MigrationError(f"{row.who} may not update {fill.owner}: run this as its owner, or GRANT SELECT, UPDATE")
    if row.hidden:
        check_sees_all_rows(connection, fill.owner)
    if not row.keeps:
        raise MigrationError(
            f"{row.who} may not keep a backfill: GRANT SELECT, INSERT, UPDATE, DELETE ON pgmrl.backfills, "
            f"pgmrl.backfill_ranges TO {quoted(row.who)}"
        )
    if throttle.without_triggers:
        _check_replica(connection, row.who)


def _check_replica(connection: Connection, who: str) -> None:
    try:
        with transaction(connection):
            execute_plain(connection, "SET LOCAL session_replication_role = replica")
    except DBAPIError as error:
        if sqlstate(error) != "42501":
            raise
        raise MigrationError(
            f"{who} may not switch triggers off: leave out --without-triggers, or as a superuser "
            f"GRANT SET ON PARAMETER session_replication_role TO {quoted(who)}"
        ) from error


_BEGIN = """
INSERT INTO pgmrl.backfills (table_schema, table_name, source_column, target_column, rule, key_columns, table_oid,
    target_number, rows_estimated)
SELECT :schema, :table, :source, :target, :rule, :keys, c.oid, a.attnum,
    coalesce((SELECT sum(greatest(p.reltuples, 0)) FROM pg_partition_tree(c.oid) AS t
              JOIN pg_class AS p ON p.oid = t.relid WHERE t.isleaf), greatest(c.reltuples, 0))
FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attname = :target
WHERE c.oid = to_regclass(:owner)
ON CONFLICT (table_schema, table_name, target_column) DO UPDATE SET stop_requested = false,
    state = CASE WHEN backfills.finished_at IS NULL THEN 'running' ELSE backfills.state END
RETURNING id, finished_at IS NOT NULL AS finished,
    (rule, source_column, key_columns) IS DISTINCT FROM (:rule, :source, :keys)
    OR NOT EXISTS (SELECT FROM pg_attribute AS a WHERE a.attrelid = to_regclass(:owner) AND a.attname = :target
                   AND (a.attrelid, a.attnum) = (table_oid, target_number)) AS other
"""


def begin(connection: Connection, fill: Fill) -> tuple[int, bool]:
    """The job's id, and whether there is nothing to do.

    A job that was for another column of this name or by another key, or is finished and yet rows are left, begins anew,
    and so does a comparison that is finished: rows have been written since.
    """
    parameters = {
        "schema": fill.schema,
        "table": fill.table,
        "source": fill.source,
        "target": fill.target,
        "rule": fill.job_rule,
        "keys": [f"{quoted(name)} {type_}" for name, type_ in fill.keys],
        "owner": fill.owner,
    }
    row = catalogue_result(connection, text(_BEGIN), parameters).one()
    if not row.other and not (row.finished and (fill.task == "compare" or _any_left(connection, fill))):
        return int(row.id), bool(row.finished)
    # its ranges may be held by workers for a batch
    with transaction(connection):
        execute_plain(connection, f"DELETE FROM pgmrl.backfill_ranges WHERE backfill_id = {row.id}")
        execute_plain(connection, f"DELETE FROM pgmrl.backfills WHERE id = {row.id}")
    row = catalogue_result(connection, text(_BEGIN), parameters).one()
    return int(row.id), bool(row.finished)


def _any_left(connection: Connection, fill: Fill) -> bool:
    with transaction(connection):
        query = f"SELECT EXISTS (SELECT FROM {fill.owner} AS t WHERE {fill.missing})"
        with caller_path(connection):
            return bool(execute_plain(connection, query).scalar_one())


# -- transactions --------------------------------------------------------------------------------------------------

# Keys are kept as text, which must read the same in every session; and what a role's limits end is lost.
_SETTINGS: Final = "SELECT " + ", ".join(
    f"pg_catalog.set_config('{name}', '{value}', true)"
    for name, value in {
        "statement_timeout": "0",
        "lock_timeout": "0",
        "DateStyle": "ISO, YMD",
        "IntervalStyle": "postgres",
        "extra_float_digits": "1",
        "bytea_output": "hex",
        "lc_monetary": "C",
    }.items()
)


@contextmanager
def transaction(connection: Connection) -> Iterator[None]:
    """A transaction on a connection in autocommit, whatever the role's defaults are; the search_path is pinned."""
    execute_plain(connection, "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE")
    try:
        execute_plain(connection, _SETTINGS)
        with pinned_block(connection):
            yield
    except BaseException:
        with suppress(SQLAlchemyError):  # a lost connection has rolled back
            execute_plain(connection, "ROLLBACK")
        raise
    execute_plain(connection, "COMMIT")


@contextmanager
def clear_errors(fill: Fill) -> Iterator[None]:
    """What the server refuses, as an error with a remedy."""
    try:
        yield
    except DBAPIError as error:
        raise _clear_error(error, fill) from error


def _clear_error(error: DBAPIError, fill: Fill) -> MigrationError:
    if error.connection_invalidated:
        return MigrationError(
            f"the connection was lost while {fill.title} was filled: run it again, it goes on where it was"
        )
    return MigrationError(
        f"{fill.title} could not be filled: {str(error.orig).strip()}\n"
        "Nothing of this batch was written. Correct it and run this again: it goes on where it was."
    )


def is_retryable(error: Any) -> bool:
    """Whether the same transaction may succeed at another try."""
    return isinstance(error, DBAPIError) and sqlstate(error) in RETRYABLE
