"""Another short vector for a table in use, without embedding again: expand, switch, contract.

Expand builds the new short column (and, for another full type, the new full column) beside the old, keeps both in step
and gives the new one its index. The application switches with its next deploy; old and new code run side by side.
Contract drops the old one when nothing reads it any more.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import text

from pgmrl import database
from pgmrl.database.connection import execute_plain
from pgmrl.database.table_state import table_state
from pgmrl.errors import MigrationError
from pgmrl.model import ddl
from pgmrl.model.hnsw import Hnsw
from pgmrl.model.shortening import Prefix, Rotation
from pgmrl.names import identifier, qualified, quoted
from pgmrl.online import backfill, index_builds, locks, plan, preflight, steps
from pgmrl.online.index_builds import Build
from pgmrl.online.target import Target

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from sqlalchemy import Connection, Engine

    from pgmrl.database.table_state import ShortState, TableState
    from pgmrl.model.metrics import FullType
    from pgmrl.model.shortening import Definition
    from pgmrl.online.backfill import Job, Throttle
    from pgmrl.online.index_builds import BuildProgress
    from pgmrl.online.plan import PlannedStep
    from pgmrl.online.preflight import Finding

__all__ = ["Reshape", "contract", "expand", "plan_contract", "plan_expand", "reshape", "undo"]


@dataclass(frozen=True, slots=True)
class Reshape:
    """From one short vector to another.

    Attributes:
        old: the short column that the application reads now.
        new: the one it will read.
        old_index: how the old one's index was built; None where it has none.
        new_index: how the new one's is built.
        rotation: to be installed first, with its axes; None where it is there, or none is needed.
    """

    old: Target
    new: Target
    old_index: Hnsw | None
    new_index: Hnsw
    rotation: Rotation | None = None

    @property
    def same_columns(self) -> bool:
        """Whether only the index changes, which no application notices."""
        return self.old.short == self.new.short and self.old.full == self.new.full

    @property
    def moves_full(self) -> bool:
        """Whether the full vector moves to another column."""
        return self.old.full != self.new.full

    @property
    def model(self) -> str:
        """What the application's model says from its next deploy on."""
        definition, short = self.new.definition, self.new.definition.short
        by = f"Rotation.load('rotations/{short.by.id}.npy')" if isinstance(short.by, Rotation) else "Prefix()"
        named = "" if self._usual_name else f", name={short.name!r}"
        kind = "" if short.type == "halfvec" else f", type={short.type!r}"
        column = f", name={self.new.full!r}" if self.moves_full else ""
        made = f"Short({short.dims}, by={by}{kind}{named})"
        index = f"index=Hnsw(m={self.new_index.m}, ef_construction={self.new_index.ef_construction})"
        return (
            f"matryoshka({definition.dims}, {made}, metric={definition.metric.name!r}, full={definition.full!r}, "
            f"{index}{column})"
        )

    @property
    def _usual_name(self) -> bool:
        definition = self.new.definition
        plain = replace(definition, short=replace(definition.short, name=None))
        return plain.short_name(self.new.full) == self.new.short


def reshape(
    connection: Connection,
    table: str,
    full: str,
    *,
    schema: str | None = None,
    dims: int | None = None,
    by: Prefix | Rotation | None = None,
    type_: Any = None,
    index: Hnsw | None = None,
    full_type: FullType | None = None,
    full_name: str | None = None,
    name: str | None = None,
) -> Reshape:
    """What changes: everything that is not given stays as the database has it.

    Args:
        connection: of the database.
        table: the table.
        full: the full vector's column.
        schema: of the table.
        dims: short dimensions.
        by: the shortening.
        type_: of the short column.
        index: build parameters of the index.
        full_type: another type for the full vector, in a column of its own.
        full_name: that column's name.
        name: the new short column's.

    Raises:
        MigrationError: there is no short column to start from, nothing would change, or a name is taken.
        DefinitionError: dimensions or types that cannot work.
    """
    state = _state(connection, schema, table)
    before = _current(state, full)
    old = Target(table, full, before.definition, schema)
    had = before.indexes[0].index if before.indexes else None
    short = before.definition.short
    kind = full_type or before.definition.full
    moved = kind != before.definition.full
    new_full = (full_name or identifier(f"{full}_{kind}")) if moved else full
    changed = replace(short, dims=dims or short.dims, by=by or short.by, type=type_ or short.type, name=name)
    definition = replace(before.definition, short=changed, full=kind)
    if not moved and name is None and _means(definition) == _means(before.definition):
        definition = replace(definition, short=replace(changed, name=short.name))
    new = Target(table, new_full, definition, schema)
    rotation = changed.by if isinstance(changed.by, Rotation) and changed.by.axes is not None else None
    if rotation is not None and rotation.id in database.installed_rotations(connection):
        rotation = None
    change = Reshape(old, new, had, index or had or Hnsw(), rotation)
    _check(connection, state, change)
    return change


def current_index(connection: Connection, table: str, full: str, *, schema: str | None = None) -> Hnsw | None:
    """How the index is built that searches use now; None where there is none.

    Raises:
        MigrationError: as `reshape`.
    """
    indexes_there = _current(_state(connection, schema, table), full).indexes
    return indexes_there[0].index if indexes_there else None


def _means(definition: Definition) -> tuple[Any, ...]:
    return (definition.short.dims, ddl.rule_of(definition), definition.short.type, definition.metric.name)


def _check(connection: Connection, state: TableState, change: Reshape) -> None:
    if change.moves_full and _is_side(connection, change.new.owner):
        raise MigrationError(
            f"{change.new.owner} is a side table, which a trigger fills by the full column's name: make another side "
            "table with the other type instead"
        )
    if change.same_columns and change.old_index == change.new_index:
        raise MigrationError(f"{change.new.title} is so already: say what is to change, such as --short-dims or --m")
    there = state.shorts.get(change.new.short)
    if not change.same_columns and there is not None and not there.is_for(change.new.full, change.new.definition):
        raise MigrationError(f"{change.new.title} is there and is something else: give the new one a --name")


def _is_side(connection: Connection, owner: str) -> bool:
    query = text(
        "SELECT EXISTS (SELECT FROM pg_trigger AS t JOIN pg_proc AS p ON p.oid = t.tgfoid "
        "WHERE p.proname LIKE 'zz\\_pgmrl\\_%' AND t.tgnargs = 1 "
        "AND to_regclass(convert_from(rtrim(t.tgargs, '\\x00'::bytea), 'UTF8')) = to_regclass(:owner))"
    )
    return bool(connection.execute(query, {"owner": owner}).scalar_one())


def _state(connection: Connection, schema: str | None, table: str) -> TableState:
    state = table_state(connection, schema, table)
    if state is None:
        raise MigrationError(f"there is no table {qualified(schema, table)}: check its name and schema")
    return state


def _current(state: TableState, full: str) -> ShortState:
    """The short column that the application reads: not one that is arriving."""
    mine = [short for short in state.shorts.values() if short.full == full and short.stage != "arriving"]
    if not mine:
        there = ", ".join(f"{short.full} -> {short.short}" for short in state.shorts.values()) or "none"
        raise MigrationError(f"{state.table}.{full} has no short column to start from (there: {there}): op.add_short")
    valid = [short for short in mine if any(one.valid for one in short.indexes)]
    staying = [short for short in valid or mine if short.stage is None] or valid or mine
    if len(staying) > 1:
        names = ", ".join(short.short for short in staying)
        raise MigrationError(f"{state.table}.{full} has several short columns ({names}): drop those that nothing reads")
    return staying[0]


# -- expand --------------------------------------------------------------------------------------------------------


def plan_expand(
    connection: Connection, change: Reshape, build: Build, *, free_space: int | None = None
) -> tuple[list[PlannedStep], list[Finding]]:
    """The steps of `expand` as they will run, and what stands in their way."""
    new, size = change.new, plan.size_of(connection, change.new.owner)
    if change.same_columns:
        planned = [plan.rebuild(new, change.new_index, build, size)]
        return planned, _found(connection, change, planned, build, free_space)
    planned = [plan.statements(f"add {new.title}, empty, and its triggers", new.owner, _added(change))]
    if change.moves_full:
        fill = _full_fill(connection, change)
        planned.append(plan.fill_full(new, size, fill.statement()))
        # the triggers compute the short vector of each row that is copied
        size_left = replace(size, rows=0, heap=0)
    else:
        size_left = size
    planned.append(plan.fill(new, size_left, backfill.short_fill(connection, new).statement()))
    planned += [plan.index(new, change.new_index, build, size), plan.validate(new)]
    return planned, _found(connection, change, planned, build, free_space)


def _found(
    connection: Connection, change: Reshape, planned: list[PlannedStep], build: Build, free_space: int | None
) -> list[Finding]:
    return preflight.check(
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


def expand(
    engine: Engine,
    change: Reshape,
    build: Build,
    throttle: Throttle | None = None,
    *,
    workers: int = 1,
    told: Callable[[str], None] | None = None,
    progress: Callable[[Job | BuildProgress], None] | None = None,
    over: threading.Event | None = None,
) -> bool:
    """Build the new short column beside the old one; can be run again after any failure.

    Args:
        engine: of the database.
        change: from `reshape`.
        build: how the index is built.
        throttle: how much of the server the backfill takes.
        workers: of the backfill.
        told: called with the title of each step.
        progress: called as the backfill and the build get on.
        over: set it to stop after the batch at hand.

    Returns:
        Whether it is complete; False where it was stopped.

    Raises:
        MigrationError: something is in the way; what was done stays, and the next run goes on.
        Locked: others hold the table.
    """
    say = told or (lambda _: None)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        if change.same_columns:
            say(f"rebuilding the index on {change.new.title}")
            index_builds.rebuild(connection, change.new, change.new_index, build, progress=progress)
            return True
        _install(engine, change)
        say(f"adding {change.new.title}, empty, and its triggers")
        _add(connection, change)
        fills = [backfill.short_fill(connection, change.new)]
        if change.moves_full:
            fills.insert(0, _full_fill(connection, change))
        for fill in fills:
            say(f"filling {fill.title}")
            if not backfill.backfill(engine, fill, throttle, workers=workers, progress=progress, over=over).finished:
                return False
        say(f"building the index on {change.new.title}")
        index_builds.build(connection, change.new, change.new_index, build, progress=progress)
        say(f"checking {change.new.title}")
        _not_null(connection, change)
        steps.validate(connection, change.new)
    return True


def _install(engine: Engine, change: Reshape) -> None:
    with engine.begin() as connection:
        database.upgrade(connection)
        if change.rotation is not None:
            database.install_rotation(connection, change.rotation)


def _add(connection: Connection, change: Reshape) -> None:
    state = _state(connection, change.new.schema, change.new.table)
    keeper = state.sync_triggers.get(change.new.short)
    if change.new.short in state.shorts and keeper is not None and keeper.complete:
        return
    if not change.moves_full:
        steps.check_add(connection, change.new, by_trigger=True)
    elif change.new.full in state.columns and (change.old.full, change.new.full) not in state.mirrors:
        raise MigrationError(f"a column {change.new.full} is in the way: rename it, or give the new one a --full-name")
    else:
        steps.check_owner(connection, change.new.owner)
    whole = [locks.lock_table(change.new.owner), *_added(change)]
    locks.in_transaction(connection, whole, change.new.owner)


def _added(change: Reshape) -> list[str]:
    """A full column and its mirror where the full vector moves; the short column; both say what they are for."""
    new, before = change.new, []
    if change.moves_full:
        before = [
            f"ALTER TABLE {new.owner} ADD COLUMN IF NOT EXISTS {quoted(new.full)} {new.definition.full_type}",
            ddl.set_storage(new.owner, new.full, ddl.default_storage(new.definition)),
            ddl.create_mirror_triggers(new.schema, new.table, change.old.full, new.full),
        ]
    return [*before, *steps.add_online(new), steps.mark(new.schema, new.table, new.short, "arriving")]


def _full_fill(connection: Connection, change: Reshape) -> Any:
    new = change.new
    return backfill.full_fill(connection, new.owner, change.old.full, new.full, new.definition.full_type)


def _not_null(connection: Connection, change: Reshape) -> None:
    """The new full column refuses NULL where the old one does; checked without stopping anybody."""
    if not change.moves_full:
        return
    state, new = _state(connection, change.new.schema, change.new.table), change.new
    if not state.columns[change.old.full].not_null or state.columns[new.full].not_null:
        return
    name, column = quoted(identifier(f"{new.table}_{new.full}_arriving")), quoted(new.full)
    drop = f"ALTER TABLE {new.owner} DROP CONSTRAINT IF EXISTS {name}"
    add = f"ALTER TABLE {new.owner} ADD CONSTRAINT {name} CHECK ({column} IS NOT NULL) NOT VALID"
    locks.in_transaction(connection, [drop, add], new.owner)
    execute_plain(connection, f"ALTER TABLE {new.owner} VALIDATE CONSTRAINT {name}")
    locks.in_transaction(connection, [f"ALTER TABLE {new.owner} ALTER COLUMN {column} SET NOT NULL", drop], new.owner)


# -- contract ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Contraction:
    """What is left to drop once the application has switched.

    Attributes:
        kept: the short column that stays.
        old: those that go.
        old_full: a full column that goes too, or None.
        schema: of the table.
        table: the table.
    """

    kept: ShortState
    old: tuple[ShortState, ...]
    old_full: str | None
    schema: str | None
    table: str

    @property
    def owner(self) -> str:
        """The table as SQL text."""
        return qualified(self.schema, self.table)


def contraction(connection: Connection, table: str, full: str, *, schema: str | None = None) -> Contraction:
    """What is left to drop after a reshape.

    Args:
        connection: of the database.
        table: the table.
        full: the full column, the old one or the new one.
        schema: of the table.

    Raises:
        MigrationError: no reshape is under way here.
    """
    state = _state(connection, schema, table)
    mirror = next((pair for pair in state.mirrors if full in pair), None)
    family = set(mirror) if mirror else {full}
    mine = [short for short in state.shorts.values() if short.full in family]
    arriving = [short for short in mine if short.stage == "arriving"]
    if not arriving and any(short.stage == "retired" for short in mine):  # by a migration
        arriving = [short for short in mine if short.stage is None]
    if len(arriving) != 1 or len(mine) < 2:
        listed = ", ".join(f"{short.short} ({short.stage or 'in use'})" for short in mine) or "none"
        raise MigrationError(f"no reshape of {table}.{full} is under way; its short columns: {listed}")
    old = tuple(short for short in mine if short is not arriving[0])
    return Contraction(arriving[0], old, mirror[0] if mirror else None, schema, table)


def plan_contract(what: Contraction) -> list[PlannedStep]:
    """The steps of `contract` as they will run."""
    planned = [
        plan.drop_index(Target(what.table, short.full, short.definition, what.schema), index.name)
        for short in what.old
        for index in short.indexes
    ]
    sql = tuple(_dropped(what))
    return [*planned, plan.statements(f"drop {', '.join(short.short for short in what.old)}", what.owner, sql)]


def plan_undo(what: Contraction) -> list[PlannedStep]:
    """The steps of `undo` as they will run."""
    target = Target(what.table, what.kept.full, what.kept.definition, what.schema)
    planned = [plan.drop_index(target, index.name) for index in what.kept.indexes]
    return [*planned, plan.statements(f"drop {what.kept.short}", what.owner, _undone(what))]


def contract(connection: Connection, what: Contraction, *, watch: float = 60.0, force: bool = False) -> None:
    """Drop what the application no longer reads.

    Args:
        connection: in autocommit.
        what: from `contraction`.
        watch: seconds in which no search may use the old index before it is dropped.
        force: drop it all the same.

    Raises:
        MigrationError: it is still read, a view depends on it, or the new index is not valid; nothing was dropped.
        Locked: others hold the table.
    """
    if not any(index.valid for index in what.kept.indexes):
        raise MigrationError(f"{what.kept.short} has no valid index yet: run the reshape to its end first")
    for problem in readers(connection, what):
        raise MigrationError(problem)
    if not force:
        _check_unread(connection, what, watch)
    for short in what.old:
        for index in short.indexes:
            index_builds.drop(connection, what.schema, index.name)
    locks.in_transaction(connection, [locks.lock_table(what.owner), *_dropped(what)], what.owner)


def undo(connection: Connection, what: Contraction) -> None:
    """Go back: drop the arriving column instead of the old one.

    Raises:
        MigrationError: a view depends on it.
        Locked: others hold the table.
    """
    for index in what.kept.indexes:
        index_builds.drop(connection, what.schema, index.name)
    locks.in_transaction(connection, [locks.lock_table(what.owner), *_undone(what)], what.owner)


def _undone(what: Contraction) -> list[str]:
    statements = steps.drop_short(what.schema, what.table, what.kept.short)
    if what.old_full is None:
        return statements
    return [*_unmirrored(what), *statements, f"ALTER TABLE {what.owner} DROP COLUMN {quoted(what.kept.full)}"]


def _dropped(what: Contraction) -> list[str]:
    statements = [one for short in what.old for one in steps.drop_short(what.schema, what.table, short.short)]
    if what.old_full is not None:
        drop = f"ALTER TABLE {what.owner} DROP COLUMN {quoted(what.old_full)}"
        statements = [*_unmirrored(what), *statements, drop]
    return [*statements, steps.mark(what.schema, what.table, what.kept.short, None)]


def _unmirrored(what: Contraction) -> list[str]:
    return [ddl.drop_mirror_triggers(what.schema, what.table, what.kept.full)]


def readers(connection: Connection, what: Contraction) -> list[str]:
    """Views and functions of the database that read what would be dropped."""
    found = []
    for column in [*(short.short for short in what.old), *([what.old_full] if what.old_full else [])]:
        views = connection.execute(
            text(
                "SELECT DISTINCT r.ev_class::regclass::text FROM pg_depend AS d "
                "JOIN pg_rewrite AS r ON r.oid = d.objid "
                "JOIN pg_attribute AS a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid "
                "WHERE d.classid = 'pg_rewrite'::regclass AND d.refobjid = to_regclass(:owner) AND a.attname = :column"
            ),
            {"owner": what.owner, "column": column},
        ).scalars()
        functions = connection.execute(
            text(
                "SELECT p.oid::regprocedure::text FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace "
                "WHERE p.prosrc ~ :word AND p.proname NOT LIKE 'z_\\_pgmrl\\_%' "
                "AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pgmrl')"
            ),
            {"word": rf"\m{re.escape(column)}\M"},
        ).scalars()
        named = [*(f"view {one}" for one in views), *(f"function {one}" for one in functions)]
        found += [f"{one} reads {column}: change it first" for one in named]
    return found


_USES: Final = (
    "SELECT coalesce(sum(s.idx_scan), 0)::bigint FROM pg_stat_all_indexes AS s "
    "WHERE s.indexrelid = ANY (SELECT relid FROM unnest(CAST(:oids AS oid[])) AS i "
    "CROSS JOIN LATERAL (SELECT i AS relid UNION SELECT t.relid FROM pg_partition_tree(i) AS t) AS all_parts)"
)


def uses(connection: Connection, what: Contraction) -> int:
    """How often the old indexes have been searched so far, on this server; a standby counts its own."""
    oids = [index.oid for short in what.old for index in short.indexes]
    return int(connection.execute(text(_USES), {"oids": oids}).scalar_one())


def _check_unread(connection: Connection, what: Contraction, watch: float) -> None:
    before = uses(connection, what)
    time.sleep(watch)
    execute_plain(connection, "SELECT pg_stat_clear_snapshot()")
    times = uses(connection, what) - before
    if times:
        names = ", ".join(short.short for short in what.old)
        raise MigrationError(
            f"{names} was searched {times:,} times in the last {watch:g} s: old code still runs. Wait until it is "
            "gone, or say --force"
        )


def status(connection: Connection, table: str, full: str, *, schema: str | None = None) -> str:
    """One line for people: what stands beside what."""
    state = _state(connection, schema, table)
    family = {full, *(name for pair in state.mirrors if full in pair for name in pair)}
    parts = [
        f"{short.short} ({short.stage or 'in use'}, {short.definition.short_type}, kept by {short.kept_by}, "
        f"{'valid index' if any(one.valid for one in short.indexes) else 'no valid index'})"
        for short in state.shorts.values()
        if short.full in family
    ]
    return f"{table}.{full}: {'; '.join(parts) or 'no short column'}"
