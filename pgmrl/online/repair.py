"""Rows that were written past the triggers: found by comparing all rows, in batches by key, and repaired.

A replica's session (`session_replication_role`), a disabled trigger and logical replication write one of two columns
that a trigger else keeps in step. Before a column is dropped every row is compared: what only it holds would be lost.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from pgmrl.errors import MigrationError
from pgmrl.model import ddl
from pgmrl.names import qualified, quoted
from pgmrl.online import backfill, locks
from pgmrl.online.jobs import Throttle, jobs
from pgmrl.online.target import Target
from pgmrl.online.validation import differs

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import Connection

    from pgmrl.database.table_state import ShortState, TableState
    from pgmrl.online.jobs import Fill, Job

__all__ = ["Side", "check_same", "full_comparison", "reinstall", "repairs", "short_comparison"]

Side = Literal["old", "new"]
"""Of two full columns between which an application moves."""

COMPARING = Throttle(max_lag_bytes=None, max_lock_waits=None)  # it writes nothing that a standby or a lock could feel


def short_comparison(connection: Connection, target: Target) -> Fill:
    """The rows whose short vector is not what the definition computes of the full one.

    Raises:
        MigrationError: there is no such table, or it has no primary key.
    """
    short, full = f"t.{quoted(target.short)}", f"t.{quoted(target.full)}"
    wrong = f"({short} IS NULL) <> ({full} IS NULL) OR coalesce({differs(target)}, false)"
    return replace(backfill.short_fill(connection, target), task="compare", wrong=wrong)


def full_comparison(connection: Connection, state: TableState, kept: str, dropped: str) -> Fill:
    """The rows in which a full column holds a vector that the one beside it does not.

    Args:
        connection: of the database.
        state: of the table.
        kept: the column that stays.
        dropped: the column whose vectors would be lost.

    Raises:
        MigrationError: as `short_comparison`.
    """
    # the narrower of the two types: rounding is no difference
    columns = [state.columns[name] for name in (kept, dropped)]
    narrow = next((column.name for column in columns if column.kind == "halfvec"), kept)
    values = (f"ROW(t.{quoted(name)}::{_full_type(state, narrow)})" for name in (kept, dropped))
    wrong = f"t.{quoted(dropped)} IS NOT NULL AND record_image_ne({', '.join(values)})"
    owner = qualified(state.schema, state.table)
    fill = backfill.full_fill(connection, owner, dropped, kept, _full_type(state, kept))
    # the rule by which the triggers know that the new column is not to be written back
    rule = "mirror" if (dropped, kept) in state.mirrors else "mirror old"
    return replace(fill, rule=rule, task="compare", wrong=wrong)


def repairs(
    connection: Connection, state: TableState, full: str, shorts: Sequence[ShortState], take: Side | None
) -> list[Fill]:
    """What repairs short columns, and before them their full one where that stands beside another.

    Args:
        connection: of the database.
        state: of the table.
        full: the full column.
        shorts: its short columns that triggers keep.
        take: the full column whose vector is right where two differ.

    Raises:
        MigrationError: two full columns stand side by side and `take` is None, or the reverse.
    """
    targets = [Target(state.table, full, short.definition, state.schema) for short in shorts]
    short_repairs = [replace(short_comparison(connection, target), task="repair") for target in targets]
    mirror = next((pair for pair in state.mirrors if full in pair), None)
    if (mirror is None) != (take is None):
        columns = f"{mirror[0]} (old) and {mirror[1]} (new)" if mirror else f"{full} alone"
        raise MigrationError(
            f"{state.table} has {columns}: give --take old or --take new where there are two full columns, only there"
        )
    if mirror is None:
        return short_repairs
    old, new = mirror
    kept, right = (new, old) if take == "old" else (old, new)
    repair = replace(full_comparison(connection, state, kept, right), task="repair")
    if take == "old":
        return [repair, *short_repairs]
    # where the new column has none, the old one's is the only one
    fill = backfill.full_fill(connection, repair.owner, old, new, _full_type(state, new))
    return [fill, repair, *short_repairs]


def _full_type(state: TableState, column: str) -> str:
    """With pgvector's schema, where that has to be said."""
    types = {short.full: short.definition.full_type for short in state.shorts.values()}
    return types.get(column, state.columns[column].type)


def reinstall(connection: Connection, state: TableState, full: str, shorts: Sequence[ShortState]) -> None:
    """Install triggers anew that go by the old name of a column; arguments as of `repairs`, in autocommit.

    Raises:
        Locked: others hold the table.
    """
    renamed = [short for short in shorts if state.sync_triggers[short.short].renamed]
    statements = [
        ddl.create_mirror_triggers(state.schema, state.table, old, new)
        for old, new in state.mirrors
        if full in {old, new}
    ]
    statements += [
        ddl.create_short_sync_triggers(short.definition, state.schema, state.table, full) for short in renamed
    ]
    if statements:
        owner = qualified(state.schema, state.table)
        locks.in_transaction(connection, [locks.lock_table(owner), *statements], owner)


def check_same(
    connection: Connection, comparison: Fill, remedy: str, progress: Callable[[Job], None] | None = None
) -> None:
    """Compare all rows; goes on where a comparison that was interrupted stopped.

    Args:
        connection: in autocommit.
        comparison: from `short_comparison` or `full_comparison`.
        remedy: the command that repairs what differs.
        progress: called after each batch.

    Raises:
        MigrationError: rows differ, with their number and the remedy; or the column is still being filled.
    """
    key = (comparison.schema, comparison.table, comparison.target)
    for job in jobs(connection):
        filling = not job.finished and job.task != "compare"
        if filling and (job.table_schema, job.table_name, job.target_column) == key:
            raise MigrationError(
                f"{comparison.title} is still being filled ({job.state}): `pgmrl progress` shows how far"
            )
    job = backfill.backfill_on(connection, comparison, COMPARING, progress=progress)
    if job.rows_written:
        what = f"another vector in {comparison.target} than in {comparison.source}"
        if not comparison.rule.startswith("mirror"):
            what = f"a {comparison.target} that is not computed from {comparison.source}"
        raise MigrationError(
            f"{job.rows_written:,} of {job.rows_seen:,} rows of {comparison.owner} have {what}: they were written past "
            "the triggers (session_replication_role, DISABLE TRIGGER, logical replication). Nothing was dropped. "
            f"{remedy}"
        )
