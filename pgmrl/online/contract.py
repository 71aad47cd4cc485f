"""Contract: drop the old short column of a reshape when nothing reads it any more, or the new one instead."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import text

from pgmrl.database.connection import execute_plain
from pgmrl.database.search_path import catalogue_result
from pgmrl.database.shards import distributed_table
from pgmrl.errors import MigrationError
from pgmrl.model import ddl
from pgmrl.names import qualified, quoted
from pgmrl.online import index_builds, locks, plan, repair, steps
from pgmrl.online.preconditions import existing_table
from pgmrl.online.target import Target

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import Connection

    from pgmrl.database.table_state import ShortState
    from pgmrl.online.jobs import Job
    from pgmrl.online.plan import PlannedStep

__all__ = [
    "Contraction",
    "check_unread",
    "contract",
    "pending_contraction",
    "plan_contract",
    "plan_undo",
    "readers",
    "undo",
]


@dataclass(frozen=True, slots=True)
class Contraction:
    """What is left to drop once the application has switched.

    Attributes:
        new: the short column that stays.
        old: those that go.
        old_full: a full column that goes too, or None.
        schema: of the table.
        table: the table.
    """

    new: ShortState
    old: tuple[ShortState, ...]
    old_full: str | None
    schema: str | None
    table: str

    @property
    def owner(self) -> str:
        """The table as SQL text."""
        return qualified(self.schema, self.table)

    def target(self, short: ShortState) -> Target:
        """One of the short columns."""
        return Target(self.table, short.full, short.definition, self.schema)


def pending_contraction(connection: Connection, table: str, full: str, *, schema: str | None = None) -> Contraction:
    """What is left to drop after a reshape.

    Args:
        connection: of the database.
        table: the table.
        full: the full column, the old one or the new one.
        schema: of the table.

    Raises:
        MigrationError: no reshape is under way here.
    """
    state = existing_table(connection, schema, table)
    shards = distributed_table(connection, qualified(schema, table))
    if shards is not None:  # the coordinator does not know which index is searched, and cannot compare in batches
        raise MigrationError(
            f"{table} is {shards.describe()}: op.drop_short drops the old column, when nothing reads it any more"
        )
    mirror = next((pair for pair in state.mirrors if full in pair), None)
    fulls = set(mirror) if mirror else {full}
    shorts = [short for short in state.shorts.values() if short.full in fulls]
    arriving = [short for short in shorts if short.stage == "arriving"]
    if not arriving and any(short.stage == "retired" for short in shorts):  # by a migration
        arriving = [short for short in shorts if short.stage is None]
    if len(arriving) != 1 or len(shorts) < 2:
        listed = ", ".join(f"{short.short} ({short.stage or 'in use'})" for short in shorts) or "none"
        raise MigrationError(f"no reshape of {table}.{full} is under way; its short columns: {listed}")
    old = tuple(short for short in shorts if short is not arriving[0])
    return Contraction(arriving[0], old, mirror[0] if mirror else None, schema, table)


def plan_contract(pending: Contraction) -> list[PlannedStep]:
    """The steps of `contract` as they will run."""
    title = f"drop {', '.join(short.short for short in pending.old)}"
    compared = pending.old_full is not None or pending.new.kept_by != "generated"
    return [
        *([plan.compare(pending.owner)] if compared else []),
        *(plan.drop_index(pending.target(short), index.name) for short in pending.old for index in short.indexes),
        plan.statements(title, pending.owner, _drop_statements(pending)),
    ]


def plan_undo(pending: Contraction) -> list[PlannedStep]:
    """The steps of `undo` as they will run."""
    return [
        *([plan.compare(pending.owner)] if pending.old_full is not None else []),
        *(plan.drop_index(pending.target(pending.new), index.name) for index in pending.new.indexes),
        plan.statements(f"drop {pending.new.short}", pending.owner, _undo_statements(pending)),
    ]


def contract(
    connection: Connection,
    pending: Contraction,
    *,
    watch: float = 60.0,
    force: bool = False,
    progress: Callable[[Job], None] | None = None,
) -> None:
    """Drop what the application no longer reads, when every row has been compared: what stays holds all of it.

    Args:
        connection: in autocommit.
        pending: from `pending_contraction`.
        watch: seconds in which no search may use the old index before it is dropped.
        force: drop it although it is searched; the rows are compared all the same.
        progress: called as the comparison gets on.

    Raises:
        MigrationError: it is still read, a view depends on it, the new index is not valid, or rows differ; nothing was
            dropped.
        Locked: others hold the table.
    """
    if not any(index.valid for index in pending.new.indexes):
        raise MigrationError(f"{pending.new.short} has no valid index yet: run the reshape to its end first")
    columns = [short.short for short in pending.old] + ([pending.old_full] if pending.old_full else [])
    for problem in readers(connection, pending.owner, columns):
        raise MigrationError(problem)
    if not force:
        check_unread(connection, pending.old, watch)
    _compare(connection, pending, progress)
    for short in pending.old:
        for index in short.indexes:
            index_builds.drop(connection, pending.schema, index.name)
    locks.in_transaction(connection, [locks.lock_table(pending.owner), *_drop_statements(pending)], pending.owner)


def undo(connection: Connection, pending: Contraction, *, progress: Callable[[Job], None] | None = None) -> None:
    """Go back: drop the arriving column instead of the old one, when the old full column holds all of its vectors.

    Args:
        connection: in autocommit.
        pending: from `pending_contraction`.
        progress: called as the comparison gets on.

    Raises:
        MigrationError: a view depends on it, or rows differ; nothing was dropped.
        Locked: others hold the table.
    """
    if pending.old_full is not None:
        _compare_full(connection, pending, "new", progress)
    for index in pending.new.indexes:
        index_builds.drop(connection, pending.schema, index.name)
    locks.in_transaction(connection, [locks.lock_table(pending.owner), *_undo_statements(pending)], pending.owner)


def _undo_statements(pending: Contraction) -> list[str]:
    statements = steps.drop_short(pending.schema, pending.table, pending.new.short)
    if pending.old_full is None:
        return statements
    return [_drop_mirror(pending), *statements, _drop_column(pending, pending.new.full)]


def _drop_statements(pending: Contraction) -> list[str]:
    statements = [
        statement for short in pending.old for statement in steps.drop_short(pending.schema, pending.table, short.short)
    ]
    if pending.old_full is not None:
        statements = [_drop_mirror(pending), *statements, _drop_column(pending, pending.old_full)]
    return [*statements, steps.mark(pending.schema, pending.table, pending.new.short, None)]


def _drop_mirror(pending: Contraction) -> str:
    return ddl.drop_mirror_triggers(pending.schema, pending.table, pending.new.full)


def _drop_column(pending: Contraction, column: str) -> str:
    return f"ALTER TABLE {pending.owner} DROP COLUMN {quoted(column)}"


# -- what only the dropped one holds -------------------------------------------------------------------------------


def _compare(connection: Connection, pending: Contraction, progress: Callable[[Job], None] | None) -> None:
    if pending.old_full is not None:
        _compare_full(connection, pending, "old", progress)
    if pending.new.kept_by != "generated":
        comparison = repair.short_comparison(connection, pending.target(pending.new))
        repair.check_same(connection, comparison, f"Repair them: `{_repair_command(pending)}`", progress)


def _compare_full(
    connection: Connection, pending: Contraction, dropped: repair.Side, progress: Callable[[Job], None] | None
) -> None:
    state, old, new = existing_table(connection, pending.schema, pending.table), pending.old_full, pending.new.full
    kept, lost = (new, old) if dropped == "old" else (old, new)
    comparison = repair.full_comparison(connection, state, str(kept), str(lost))
    command = _repair_command(pending)
    remedy = (
        f"Repair them: `{command} --take {dropped}` keeps the vectors of {lost}, `--take` the other those of {kept}"
    )
    repair.check_same(connection, comparison, remedy, progress)


def _repair_command(pending: Contraction) -> str:
    path = ".".join(part for part in (pending.schema, pending.table, pending.new.full) if part)
    return f"pgmrl backfill {path} --repair"


# -- who still reads it --------------------------------------------------------------------------------------------

_VIEWS: Final = (
    "SELECT DISTINCT r.ev_class::regclass::text FROM pg_depend AS d "
    "JOIN pg_rewrite AS r ON r.oid = d.objid "
    "JOIN pg_attribute AS a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid "
    "WHERE d.classid = 'pg_rewrite'::regclass AND d.refobjid = to_regclass(:owner) AND a.attname = :column ORDER BY 1"
)
_FUNCTIONS: Final = (
    "SELECT p.oid::regprocedure::text FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace "
    "WHERE p.prosrc ~ :word AND p.prosrc ~ :table AND p.proname NOT LIKE 'z_\\_pgmrl\\_%' "
    "AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pgmrl') ORDER BY 1"
)
_SCANS: Final = (
    "SELECT coalesce(sum(s.idx_scan), 0)::bigint FROM pg_stat_all_indexes AS s "
    "WHERE s.indexrelid = ANY (SELECT relid FROM unnest(CAST(:oids AS oid[])) AS i "
    "CROSS JOIN LATERAL (SELECT i AS relid UNION SELECT t.relid FROM pg_partition_tree(i) AS t) AS all_parts)"
)


def readers(connection: Connection, owner: str, columns: Sequence[str], *, table: str | None = None) -> list[str]:
    """Views and functions of the database that read a table's columns; a sentence for each.

    Args:
        connection: of the database.
        owner: the table as SQL text.
        columns: which would be dropped.
        table: its name, where only functions count that name it as well: of columns whose names others have, too.
    """
    sentences = []
    words = {"table": "" if table is None else rf"\m{re.escape(table)}\M"}
    for column in columns:
        views = catalogue_result(connection, text(_VIEWS), {"owner": owner, "column": column}).scalars()
        words["word"] = rf"\m{re.escape(column)}\M"
        functions = catalogue_result(connection, text(_FUNCTIONS), words).scalars()
        names = [*(f"view {view}" for view in views), *(f"function {function}" for function in functions)]
        sentences += [f"{name} reads {column}: change it first" for name in names]
    return sentences


def index_scans(connection: Connection, shorts: Sequence[ShortState]) -> int:
    """How often the indexes on short columns have been searched so far, on this server; a standby counts its own."""
    oids = [index.oid for short in shorts for index in short.indexes]
    return int(catalogue_result(connection, text(_SCANS), {"oids": oids}).scalar_one())


def check_unread(connection: Connection, shorts: Sequence[ShortState], watch: float) -> None:
    """Look for a while whether a search uses the indexes on short columns.

    Args:
        connection: in autocommit.
        shorts: the short columns.
        watch: seconds.

    Raises:
        MigrationError: one does.
    """
    scans_before = index_scans(connection, shorts)
    time.sleep(watch)
    execute_plain(connection, "SELECT pg_stat_clear_snapshot()")
    scans = index_scans(connection, shorts) - scans_before
    if scans:
        names = ", ".join(short.short for short in shorts)
        raise MigrationError(
            f"{names} was searched {scans:,} times in the last {watch:g} s: old code still runs. Wait until it is "
            "gone, or say --force"
        )
