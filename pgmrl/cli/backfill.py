"""`pgmrl backfill`: fill a column of a table in use."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, cast

import typer

from pgmrl import database
from pgmrl.cli.backfill_options import (
    BatchSeconds,
    MaxLag,
    MaxLockWaits,
    MaxRows,
    WithoutTriggers,
    Workers,
    stop_requested,
    throttle,
)
from pgmrl.cli.connect import open_engine
from pgmrl.cli.job_lines import job_line
from pgmrl.cli.options import ColumnPath, DatabaseUrl, Json
from pgmrl.cli.output import console, write_json
from pgmrl.cli.progress_report import job_progress, progress_report
from pgmrl.database.table_state import TableState, table_state
from pgmrl.errors import MigrationError
from pgmrl.names import column_parts, qualified
from pgmrl.online import backfill as jobs
from pgmrl.online.repair import reinstall, repairs
from pgmrl.online.target import Target
from pgmrl.reprs import safe_repr

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

    from pgmrl.database.table_state import ShortState
    from pgmrl.online.backfill import Fill, Job
    from pgmrl.online.repair import Side

__all__ = ["backfill"]


def backfill(
    column: ColumnPath,
    short: Annotated[str | None, typer.Option(help="Only the short column of this name.")] = None,
    workers: Workers = 1,
    max_rows: MaxRows = None,
    batch_seconds: BatchSeconds = 0.2,
    max_lag: MaxLag = "64MB",
    max_lock_waits: MaxLockWaits = 10,
    without_triggers: WithoutTriggers = False,
    repair: Annotated[
        bool, typer.Option("--repair", help="Also what is wrong: rows that were written past the triggers.")
    ] = False,
    take: Annotated[
        str | None,
        typer.Option(help="With --repair, of two full columns that differ: the one whose vector is right, old or new."),
    ] = None,
    status: Annotated[bool, typer.Option("--status", help="Say how far it is, and do nothing.")] = False,
    stop: Annotated[bool, typer.Option("--stop", help="Stop the workers that run, after their batches.")] = False,
    url: DatabaseUrl = None,
    json: Json = False,
) -> None:
    """Fill the short columns of a table in use, in batches by primary key.

    For columns that were added online (`op.add_short(..., online=True)`), which a trigger keeps in step from then on.
    The job is kept in the database: stop it with Ctrl-C, kill it, run it again, run it twice at once. Exit code 1 where
    it was stopped before its end. With --repair every row is compared, and what differs is written anew; triggers
    that go by the old names of renamed columns are installed anew.

    Example: `pgmrl backfill documents.embedding --workers 2 --max-rows-per-second 5000`
    """
    if take not in {None, "old", "new"} or (take is not None and not repair):
        raise typer.BadParameter(f"--take: expected old or new, with --repair, got {take}")
    pace = throttle(max_rows, batch_seconds, max_lag, max_lock_waits, without_triggers)
    with open_engine(url, writes=not status) as engine:
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            fills = _repairs(connection, column, short, take) if repair else _fills(connection, column, short)
        if status or stop:
            _report(engine, fills, ask_to_stop=stop, json=json)
            return
        with progress_report(quiet=json) as report, stop_requested() as over:
            show = job_progress(report)
            finished = [
                jobs.backfill(engine, fill, pace, workers=workers, progress=show, stop_event=over) for fill in fills
            ]
    if json:
        write_json([asdict(job) for job in finished])
    else:
        for job in finished:
            console.print(job_line(job))
    if not all(job.finished for job in finished):
        raise typer.Exit(1)


def _fills(connection: Connection, column: str, short: str | None) -> list[Fill]:
    state, full = _state(connection, column)
    fills = _mirrored(connection, state, full)
    for kept in _kept(state, full, short):
        fills.append(jobs.short_fill(connection, Target(state.table, full, kept.definition, state.schema)))
    _check_any(fills, state, column, short)
    return fills


def _repairs(connection: Connection, column: str, short: str | None, take: str | None) -> list[Fill]:
    state, full = _state(connection, column)
    shorts = _kept(state, full, short)
    fills = repairs(connection, state, full, shorts, cast("Side | None", take))
    _check_any(fills, state, column, short)
    reinstall(connection, state, full, shorts)
    return fills


def _state(connection: Connection, column: str) -> tuple[TableState, str]:
    schema, table, full = column_parts(column)
    state = table_state(connection, schema, table)
    if state is None:
        raise MigrationError(f"there is no table {qualified(schema, table)}: check its name and schema")
    if full not in state.columns:
        raise MigrationError(f"table {table} has no column {safe_repr(full)}: give the full vectors' column")
    return state, full


def _kept(state: TableState, full: str, short: str | None) -> list[ShortState]:
    """The short columns of a full one that a trigger keeps."""
    candidates = (kept for kept in state.shorts.values() if kept.full == full and kept.kept_by == "trigger")
    return [kept for kept in candidates if short in {None, kept.short}]


def _check_any(fills: list[Fill], state: TableState, column: str, short: str | None) -> None:
    if not fills:
        shorts = ", ".join(f"{kept.short} (kept by {kept.kept_by})" for kept in state.shorts.values()) or "none"
        raise MigrationError(
            f"{column} has no short column{f' {short}' if short else ''} that a trigger keeps (there: {shorts}); a "
            "generated column needs no backfill, another is added by op.add_short(..., online=True)"
        )


def _mirrored(connection: Connection, state: TableState, full: str) -> list[Fill]:
    """The full column, where another one is on its way out."""
    owner = qualified(state.schema, state.table)
    types = {short.full: short.definition.full_type for short in state.shorts.values()}
    return [
        jobs.full_fill(connection, owner, old, new, types[new])
        for old, new in state.mirrors
        if new == full and new in types
    ]


def _report(engine: Engine, fills: list[Fill], *, ask_to_stop: bool, json: bool) -> None:
    names = {(fill.schema, fill.table, fill.target) for fill in fills}
    with engine.begin() as connection:
        current = [job for job in _jobs(connection) if (job.table_schema, job.table_name, job.target_column) in names]
        if ask_to_stop:
            for job in current:
                jobs.stop(connection, job.id)
    if json:
        write_json([asdict(job) for job in current])
    else:
        console.print("\n".join(map(job_line, current)) or "It was never started: run it without --status.")


def _jobs(connection: Connection) -> list[Job]:
    database.require_schema(connection)
    return jobs.jobs(connection)
