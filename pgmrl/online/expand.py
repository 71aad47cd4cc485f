"""Expand: the new short column of a reshape beside the old one, filled, indexed, and both kept in step."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pgmrl import database
from pgmrl.database.connection import execute_plain
from pgmrl.errors import MigrationError
from pgmrl.model import ddl
from pgmrl.names import identifier, quoted
from pgmrl.online import backfill, index_builds, locks, plan, preconditions, preflight, steps
from pgmrl.online.fill_durations import fill_durations
from pgmrl.online.preflight import LEVELS
from pgmrl.online.validation import validate

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from sqlalchemy import Connection, Engine

    from pgmrl.database.index_states import BuildProgress
    from pgmrl.online.backfill import Fill, Job, Throttle
    from pgmrl.online.index_statements import Build
    from pgmrl.online.plan import PlannedStep
    from pgmrl.online.preflight import Finding
    from pgmrl.online.reshape import Reshape

__all__ = ["expand", "plan_expand"]


def plan_expand(
    connection: Connection, change: Reshape, build: Build, *, free_space: int | None = None
) -> tuple[list[PlannedStep], list[Finding]]:
    """The steps of `expand` as they will run, and what stands in their way.

    Args:
        connection: of the database.
        change: from `reshape`.
        build: how the index is built.
        free_space: bytes free on the server's disk, where the caller knows.
    """
    planned = _steps(connection, change, build)
    findings = preflight.check(
        connection,
        change.old if change.moves_full else change.new,  # the new full column is not there yet
        planned,
        by_trigger=not change.same_columns,
        index=change.new_index,
        build=build,
        free_space=free_space,
        kept=change.moves_full or change.same_columns,
        installs=change.rotation is not None,  # `expand` puts a rotation's file into the database first
    )
    findings += fill_durations(connection, change)
    return planned, sorted(findings, key=lambda finding: LEVELS.index(finding.level))


def _steps(connection: Connection, change: Reshape, build: Build) -> list[PlannedStep]:
    new, size = change.new, plan.size_of(connection, change.new.owner)
    if change.same_columns:
        return [plan.rebuild(new, change.new_index, build, size)]
    planned = [plan.statements(f"add {new.title}, empty, and its triggers", new.owner, _add_statements(change))]
    size_left = size
    if change.moves_full:
        planned.append(plan.fill_full(new, size, _full_fill(connection, change).statement()))
        # the triggers compute the short vector of each row that is copied
        size_left = replace(size, rows=0, heap=0)
    planned.append(plan.fill(new, size_left, backfill.short_fill(connection, new).statement()))
    indexes = [plan.index(new, index, build, size) for index in change.new_indexes]
    indexes += [plan.index(new, filter_index, build, size) for filter_index in change.filters]
    return [*planned, *indexes, plan.validate(new)]


def expand(
    engine: Engine,
    change: Reshape,
    build: Build,
    throttle: Throttle | None = None,
    *,
    workers: int = 1,
    on_step: Callable[[str], None] | None = None,
    progress: Callable[[Job | BuildProgress], None] | None = None,
    stop_event: threading.Event | None = None,
) -> bool:
    """Build the new short column beside the old one; can be run again after any failure.

    Args:
        engine: of the database.
        change: from `reshape`.
        build: how the index is built.
        throttle: how much of the server the backfill takes.
        workers: of the backfill.
        on_step: called with the title of each step.
        progress: called as the backfill and the build get on.
        stop_event: set it to stop after the batch at hand.

    Returns:
        Whether it is complete; False where it was stopped.

    Raises:
        MigrationError: something is in the way; what was done stays, and the next run goes on.
        Locked: others hold the table.
    """
    start_step = on_step or (lambda _: None)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        if change.same_columns:
            start_step(f"rebuilding the index on {change.new.title}")
            index_builds.rebuild(connection, change.new, change.new_index, build, progress=progress)
            return True
        _install(engine, change)
        start_step(f"adding {change.new.title}, empty, and its triggers")
        _add(connection, change)
        fills = [backfill.short_fill(connection, change.new)]
        if change.moves_full:
            fills.insert(0, _full_fill(connection, change))
        for fill in fills:
            start_step(f"filling {fill.title}")
            job = backfill.backfill(engine, fill, throttle, workers=workers, progress=progress, stop_event=stop_event)
            if not job.finished:
                return False
        start_step(f"building the index on {change.new.title}")
        for index in change.new_indexes:
            index_builds.build(connection, change.new, index, build, progress=progress)
        for filter_index in change.filters:
            start_step(f"building the index on {', '.join(filter_index.columns)} that includes {change.new.short}")
            index_builds.build(connection, change.new, filter_index, build, progress=progress)
        start_step(f"checking {change.new.title}")
        _set_not_null(connection, change)
        validate(connection, change.new)
    return True


def _install(engine: Engine, change: Reshape) -> None:
    with engine.begin() as connection:
        database.upgrade(connection)
        if change.rotation is not None:
            database.install_rotation(connection, change.rotation)


def _add(connection: Connection, change: Reshape) -> None:
    state = preconditions.existing_table(connection, change.new.schema, change.new.table)
    trigger = state.sync_triggers.get(change.new.short)
    if change.new.short in state.shorts and trigger is not None and trigger.complete:
        return
    if not change.moves_full:
        preconditions.check_add(connection, change.new, by_trigger=True)
    elif change.new.full in state.columns and (change.old.full, change.new.full) not in state.mirrors:
        raise MigrationError(f"a column {change.new.full} is in the way: rename it, or give the new one a --full-name")
    else:
        preconditions.check_owner(connection, change.new.owner)
    locks.in_transaction(connection, [locks.lock_table(change.new.owner), *_add_statements(change)], change.new.owner)


def _add_statements(change: Reshape) -> list[str]:
    """A full column and its mirror where the full vector moves; the short column; both say what they are for."""
    new = change.new
    full_column = (
        [
            f"ALTER TABLE {new.owner} ADD COLUMN IF NOT EXISTS {quoted(new.full)} {new.definition.full_type}",
            ddl.set_storage(new.owner, new.full, ddl.default_storage(new.definition)),
            ddl.create_mirror_triggers(new.schema, new.table, change.old.full, new.full),
        ]
        if change.moves_full
        else []
    )
    return [*full_column, *steps.add_online(new), steps.mark(new.schema, new.table, new.short, "arriving")]


def _full_fill(connection: Connection, change: Reshape) -> Fill:
    new = change.new
    return backfill.full_fill(connection, new.owner, change.old.full, new.full, new.definition.full_type)


def _set_not_null(connection: Connection, change: Reshape) -> None:
    """The new full column refuses NULL where the old one does; checked without stopping anybody."""
    if not change.moves_full:
        return
    new, state = change.new, preconditions.existing_table(connection, change.new.schema, change.new.table)
    if not state.columns[change.old.full].not_null or state.columns[new.full].not_null:
        return
    name, column = quoted(identifier(f"{new.table}_{new.full}_arriving")), quoted(new.full)
    drop = f"ALTER TABLE {new.owner} DROP CONSTRAINT IF EXISTS {name}"
    add = f"ALTER TABLE {new.owner} ADD CONSTRAINT {name} CHECK ({column} IS NOT NULL) NOT VALID"
    locks.in_transaction(connection, [drop, add], new.owner)
    execute_plain(connection, f"ALTER TABLE {new.owner} VALIDATE CONSTRAINT {name}")
    locks.in_transaction(connection, [f"ALTER TABLE {new.owner} ALTER COLUMN {column} SET NOT NULL", drop], new.owner)
