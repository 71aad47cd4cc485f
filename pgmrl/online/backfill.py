"""Fill a column of a table in use: in batches by primary key, by any number of workers, resumable after each of them.

The job lives in the database (`jobs`); each connection that works at it is a `worker`.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from pgmrl.database.search_path import catalogue_result
from pgmrl.database.shards import distributed_table
from pgmrl.errors import MigrationError
from pgmrl.model.ddl import rule_of
from pgmrl.names import qualified, quoted
from pgmrl.online.jobs import Fill, Job, Throttle, begin, check, clear_errors, job_of, jobs, stop
from pgmrl.online.printed_scripts import backfill_script
from pgmrl.online.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection, Engine

    from pgmrl.online.target import Target

__all__ = [
    "Fill",
    "Job",
    "Throttle",
    "backfill",
    "backfill_on",
    "batch_statement",
    "full_fill",
    "jobs",
    "short_fill",
    "stop",
]


# -- what to fill --------------------------------------------------------------------------------------------------


def short_fill(connection: Connection, target: Target) -> Fill:
    """The backfill of a short column.

    Raises:
        MigrationError: there is no such table, or it has no primary key.
    """
    return _fill(connection, target.owner, target.full, target.short, target.value, rule_of(target.definition))


def batch_statement(connection: Connection, target: Target) -> str:
    """The statement of each batch of a short column's backfill; as it is printed, where it cannot run yet."""
    try:
        return short_fill(connection, target).statement()
    except MigrationError:  # no table yet, or no key: the findings say so
        return backfill_script(target)


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
    place = catalogue_result(
        connection,
        text(
            "SELECT n.nspname, c.relname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace "
            "WHERE c.oid = to_regclass(:owner)"
        ),
        {"owner": owner},
    ).first()
    if place is None:
        raise MigrationError(f"there is no table {owner}: check its name and schema")
    table = distributed_table(connection, owner)
    if table is not None:
        raise MigrationError(
            f"{owner} is {table.describe()}, and Citus has no FOR UPDATE over shards, which batches need. A generated "
            "column is in step; one that has triggers they compute anew: "
            f"UPDATE {owner} SET {quoted(target)} = NULL, with WHERE {quoted(target)} IS NULL where it is only to be "
            "filled (op.backfill_short does that)"
        )
    keys = catalogue_result(
        connection,
        text(
            "SELECT a.attname, format_type(a.atttypid, a.atttypmod) FROM pg_index AS x "
            "CROSS JOIN LATERAL unnest(x.indkey[0:x.indnkeyatts - 1]) WITH ORDINALITY AS k (attnum, n) "
            "JOIN pg_attribute AS a ON a.attrelid = x.indrelid AND a.attnum = k.attnum "
            "WHERE x.indrelid = to_regclass(:owner) AND x.indisprimary ORDER BY k.n"
        ),
        {"owner": owner},
    ).all()
    if not keys:
        raise MigrationError(f"table {owner} has no primary key, by which a backfill goes: add one")
    # with its schema: a worker's search_path may be another one
    owner = qualified(place.nspname, place.relname)
    key_columns = tuple((name, type_) for name, type_ in keys)
    return Fill(place.nspname, place.relname, owner, source, target, value, rule, key_columns)


# -- the job -------------------------------------------------------------------------------------------------------


def backfill(
    engine: Engine,
    fill: Fill,
    throttle: Throttle | None = None,
    *,
    workers: int = 1,
    progress: Callable[[Job], None] | None = None,
    stop_event: threading.Event | None = None,
) -> Job:
    """Fill a column until no row is left, or until told to stop. Begins anew or goes on, alone or beside others.

    Args:
        engine: of the database; each worker takes one connection.
        fill: from `short_fill` or `full_fill`.
        throttle: how much of the server each worker takes.
        workers: threads of this process; other processes can work at the same job.
        progress: called after each batch, by one worker at a time.
        stop_event: set it to stop after the batches at hand; set here where a worker fails.

    Returns:
        The job as it is now; `finished` says whether every row has its value.

    Raises:
        MigrationError: missing rights, row-level security, or a value that cannot be computed; named.
        NotMigrated: pgmrl's schema is missing or too old.
    """
    if workers < 1:
        raise MigrationError(f"workers: expected at least 1, got {workers}")
    throttle, stop_event, lock = throttle or Throttle(), stop_event or threading.Event(), threading.Lock()
    errors: list[BaseException] = []

    def report(job: Job) -> None:
        if progress is not None:
            with lock:
                progress(job)

    def work() -> None:
        try:
            with _autocommit(engine) as connection, clear_errors(fill):
                _work(Worker(connection, fill, job_id, throttle, stop_event, report))
        except BaseException as error:  # raised to the caller below
            errors.append(error)
            stop_event.set()

    with _autocommit(engine) as connection, clear_errors(fill):
        check(connection, fill, throttle)
        job_id, done = begin(connection, fill)  # once: a worker that starts late must not undo a stop
    if not done:
        _run_threads(work, workers, stop_event)
    if errors:
        raise errors[0]
    with _autocommit(engine) as connection, clear_errors(fill):
        return job_of(connection, fill, job_id)


def backfill_on(
    connection: Connection,
    fill: Fill,
    throttle: Throttle | None = None,
    *,
    progress: Callable[[Job], None] | None = None,
    stop_event: threading.Event | None = None,
) -> Job:
    """One worker of `backfill`, on a connection in autocommit."""
    throttle = throttle or Throttle()
    with clear_errors(fill):
        check(connection, fill, throttle)
        job_id, done = begin(connection, fill)
        if not done:
            _work(Worker(connection, fill, job_id, throttle, stop_event or threading.Event(), progress))
        return job_of(connection, fill, job_id)


def _work(worker: Worker) -> None:
    try:
        worker.run()
    except Exception as error:
        with suppress(SQLAlchemyError, MigrationError):  # the connection may be lost, the job removed
            worker.report(f"failed: {error}")
        raise


def _autocommit(engine: Engine) -> Connection:
    return engine.connect().execution_options(isolation_level="AUTOCOMMIT")


def _run_threads(work: Callable[[], None], count: int, stop_event: threading.Event) -> None:
    threads = [threading.Thread(target=work, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            thread.join()
    except BaseException:  # Ctrl-C: the batches at hand are finished
        stop_event.set()
        for thread in threads:
            thread.join()
        raise
