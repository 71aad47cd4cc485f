"""`pgmrl backfill` and `pgmrl progress`: fill a column of a table in use, and watch what runs."""

from __future__ import annotations

import signal
import threading
import time
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import Progress

from pgmrl import database
from pgmrl.cli.common import Json, Searched, Url, console, engine, errors, escaped, progress, write_json
from pgmrl.database.index_states import BuildProgress, build_progress
from pgmrl.database.table_state import TableState, table_state
from pgmrl.errors import MigrationError
from pgmrl.names import column_parts, qualified
from pgmrl.online import backfill as jobs
from pgmrl.online.backfill import Fill, Job, Throttle
from pgmrl.online.preflight import parse_size
from pgmrl.online.target import Target

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection, Engine

__all__ = [
    "Bars",
    "BatchSeconds",
    "MaxLag",
    "MaxLockWaits",
    "MaxRows",
    "WithoutTriggers",
    "Workers",
    "backfill",
    "interrupted",
    "running",
    "throttle",
]

Workers = Annotated[int, typer.Option(help="Connections that work at once.")]
MaxRows = Annotated[float | None, typer.Option("--max-rows-per-second", help="At most, for each worker.")]
BatchSeconds = Annotated[float, typer.Option(help="How long a batch may hold its rows.")]
MaxLag = Annotated[str, typer.Option(help="Wait while a standby is further behind.")]
MaxLockWaits = Annotated[int, typer.Option(help="Wait while more sessions than this wait for locks.")]
WithoutTriggers = Annotated[
    bool, typer.Option("--without-triggers", help="The application's triggers do not fire (needs the right to say so).")
]


def backfill(
    column: Searched,
    short: Annotated[str | None, typer.Option(help="Only this short column.")] = None,
    workers: Workers = 1,
    max_rows: MaxRows = None,
    batch_seconds: BatchSeconds = 0.2,
    max_lag: MaxLag = "64MB",
    max_lock_waits: MaxLockWaits = 10,
    without_triggers: WithoutTriggers = False,
    status: Annotated[bool, typer.Option("--status", help="Say how far it is, and do nothing.")] = False,
    stop: Annotated[bool, typer.Option("--stop", help="Stop the workers that run, after their batches.")] = False,
    url: Url = None,
    json: Json = False,
) -> None:
    """Fill the short columns of a table in use, in batches by primary key.

    For columns that were added online (`op.add_short(..., online=True)`), which a trigger keeps in step from then on.
    The job is kept in the database: stop it with Ctrl-C, kill it, run it again, run it twice at once. Exit code 1 where
    it was stopped before its end.

    Example: `pgmrl backfill documents.embedding --workers 2 --max-rows-per-second 5000`
    """
    how = throttle(max_rows, batch_seconds, max_lag, max_lock_waits, without_triggers)
    with engine(url) as opened:
        with opened.connect() as connection:
            fills = _fills(connection, column, short)
        if status or stop:
            _report(opened, fills, ask_to_stop=stop, json=json)
            return
        with progress(quiet=json) as bars, interrupted() as over:
            shown = Bars(bars)
            done = [
                jobs.backfill(opened, fill, how, workers=workers, progress=shown, stop_event=over) for fill in fills
            ]
    if json:
        write_json([asdict(job) for job in done])
    else:
        for job in done:
            console.print(_told(job))
    if not all(job.finished for job in done):
        raise typer.Exit(1)


def running(
    watch: Annotated[bool, typer.Option("--watch", help="Until nothing runs any more.")] = False,
    url: Url = None,
    json: Json = False,
) -> None:
    """Show the backfills of the database and the index builds that run now, from any terminal.

    Example: `pgmrl progress --watch`
    """
    with engine(url) as opened, opened.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        if json:
            found, builds = _running(connection)
            write_json({"backfills": [asdict(job) for job in found], "indexes": [asdict(one) for one in builds]})
            return
        if watch:
            _watch(connection)
            return
        found, builds = _running(connection)
        lines = [*(_told(job) for job in found), *(_building(one) for one in builds)]
        console.print("\n".join(lines) or "No backfill was ever started here, and no index is being built.")


def throttle(
    max_rows: float | None, batch_seconds: float, max_lag: str, max_lock_waits: int, without_triggers: bool
) -> Throttle:
    """The options of a backfill as one value."""
    try:
        lag = parse_size(max_lag)
    except ValueError as error:
        raise typer.BadParameter(f"--max-lag: {error}") from error
    return Throttle(
        batch_seconds=batch_seconds,
        max_rows_per_second=max_rows,
        max_lag_bytes=lag,
        max_lock_waits=max_lock_waits,
        without_triggers=without_triggers,
    )


@contextmanager
def interrupted() -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set, so that the batch at hand is finished first."""
    over = threading.Event()

    def ask(_number: int, _frame: Any) -> None:
        over.set()
        errors.print("stopping after the batch at hand; run it again to go on")

    before = {one: signal.signal(one, ask) for one in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield over
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Bars:
    """Progress of backfills and builds as bars; as a line now and then where there is no terminal."""

    def __init__(self, bars: Progress, every: float = 10.0) -> None:
        self.bars = bars
        self.every = every
        self.tasks: dict[str, Any] = {}
        self.last = time.monotonic()

    def __call__(self, now: Job | BuildProgress) -> None:
        """Show how far it is."""
        if isinstance(now, Job):
            name = f"{now.table_name}.{now.target_column}"
            done, total, state = now.rows_seen, now.rows_estimated, now.state
        else:
            name, done, total, state = now.index, now.done, now.total, now.phase
        if self.bars.disable:
            self._line(f"{name}: {done:,} of {total:,}, {state}")
            return
        if name not in self.tasks:
            self.tasks[name] = self.bars.add_task(escaped(name), total=max(total, done))
        description = escaped(name if state in {"running", "finished"} else f"{name}: {state}")
        self.bars.update(self.tasks[name], completed=done, total=max(total, done), description=description)

    def _line(self, line: str) -> None:
        if time.monotonic() - self.last >= self.every:
            self.last = time.monotonic()
            errors.print(escaped(line), soft_wrap=True)


def _fills(connection: Connection, column: str, short: str | None) -> list[Fill]:
    schema, table, full = column_parts(column)
    state = table_state(connection, schema, table)
    if state is None:
        raise MigrationError(f"there is no table {qualified(schema, table)}: check its name and schema")
    if full not in state.columns:
        raise MigrationError(f"table {table} has no column {full!r}: give the full vectors' column")
    fills = _mirrored(connection, state, full)
    for one in state.shorts.values():
        if one.full == full and one.kept_by == "trigger" and short in {None, one.short}:
            fills.append(jobs.short_fill(connection, Target(table, full, one.definition, schema)))
    if not fills:
        shorts = ", ".join(f"{one.short} (kept by {one.kept_by})" for one in state.shorts.values()) or "none"
        raise MigrationError(
            f"{column} has no short column{f' {short}' if short else ''} that a trigger keeps (there: {shorts}); a "
            "generated column needs no backfill, another is added by op.add_short(..., online=True)"
        )
    return fills


def _mirrored(connection: Connection, state: TableState, full: str) -> list[Fill]:
    owner = qualified(state.schema, state.table)
    types = {short.full: short.definition.full_type for short in state.shorts.values()}
    return [
        jobs.full_fill(connection, owner, old, new, types[new])
        for old, new in state.mirrors
        if new == full and new in types
    ]


def _report(opened: Engine, fills: list[Fill], *, ask_to_stop: bool, json: bool) -> None:
    names = {(fill.schema, fill.table, fill.target) for fill in fills}
    with opened.begin() as connection:
        found = [job for job in _jobs(connection) if (job.table_schema, job.table_name, job.target_column) in names]
        if ask_to_stop:
            for job in found:
                jobs.stop(connection, job.id)
    if json:
        write_json([asdict(job) for job in found])
    else:
        console.print("\n".join(_told(job) for job in found) or "It was never started: run it without --status.")


def _jobs(connection: Connection) -> list[Job]:
    database.require_schema(connection)
    return jobs.jobs(connection)


def _running(connection: Connection) -> tuple[list[Job], list[BuildProgress]]:
    installed = database.installed_revision(connection) is not None
    return (jobs.jobs(connection) if installed else []), build_progress(connection)


def _watch(connection: Connection) -> None:
    with progress(quiet=False) as bars:
        shown = Bars(bars, every=2.0)
        while True:
            found, builds = _running(connection)
            active = [job for job in found if not job.finished and job.state != "stopped" and job.idle_seconds < 60]
            for job in active:
                shown(job)
            for build in builds:
                shown(build)
            if not active and not builds:
                return
            time.sleep(1)


def _told(job: Job) -> str:
    name = escaped(f"{job.table_schema}.{job.table_name}.{job.target_column}")
    if job.finished:
        return f"{name}: finished, {job.rows_written:,} rows filled in {job.seconds:,.0f} s"
    silent = f", silent for {job.idle_seconds:,.0f} s" if job.idle_seconds > 30 else ""
    return (
        f"{name}: {job.part:.0%}, {job.rows_seen:,} of about {job.rows_estimated:,} rows, "
        f"{escaped(job.state)}{silent}{_remaining(job)}"
    )


def _remaining(job: Job) -> str:
    if job.rows_seen == 0 or job.seconds <= 0:
        return ""
    rate = job.rows_seen / job.seconds
    return f", about {max(0, job.rows_estimated - job.rows_seen) / rate:,.0f} s left at the pace so far"


def _building(one: BuildProgress) -> str:
    part = f"{one.done / one.total:.0%} of " if one.total else ""
    waits = f", waits for {one.waiting_for} older transactions" if one.waiting_for > 0 else ""
    return f"{escaped(one.index)} on {escaped(one.table)}: {part}{escaped(one.phase)}{waits} (process {one.pid})"
