"""HNSW indexes built while the table is in use: valid in the end, or the error says why; no INVALID one stays.

An interrupted `CREATE INDEX CONCURRENTLY` leaves an index that every write maintains and no search uses, and
`IF NOT EXISTS` keeps it for ever. So each step looks at what is there first, and can be run again after any failure.
"""

from __future__ import annotations

import logging
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from pgmrl.database import execute_plain
from pgmrl.ddl import Hnsw, create_index
from pgmrl.errors import MigrationError
from pgmrl.names import identifier, qualified, quoted
from pgmrl.online.locks import in_transaction

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Connection, Engine

    from pgmrl.online.target import Target
    from pgmrl.shortening import Definition

__all__ = ["Build", "BuildProgress", "IndexState", "build", "build_progress", "drop", "index_states", "rebuild"]

log = logging.getLogger("alembic.pgmrl")

POLL: Final = 1.0


@dataclass(frozen=True, slots=True)
class Build:
    """How an index is built.

    Attributes:
        concurrently: while others read and write; False locks writers out, and runs inside a transaction.
        maintenance_work_mem: for this build alone, such as "8GB"; the server's setting where None.
        parallel_workers: `max_parallel_maintenance_workers` for this build alone.
    """

    concurrently: bool = True
    maintenance_work_mem: str | None = None
    parallel_workers: int | None = None

    def settings(self) -> list[tuple[str, str]]:
        """The parameters to set, and their values."""
        wanted = {
            "maintenance_work_mem": self.maintenance_work_mem,
            "max_parallel_maintenance_workers": self.parallel_workers,
        }
        return [(name, str(value)) for name, value in wanted.items() if value is not None]


@dataclass(frozen=True, slots=True)
class IndexState:
    """An HNSW index on a short column, as the catalogue has it.

    Attributes:
        oid: of the index.
        name: its name.
        operator_class: of its column.
        index: build parameters.
        valid: False after an interrupted build, and while one runs.
        bytes: its size.
        builder: the process that is building it, or None.
    """

    oid: int
    name: str
    operator_class: str
    index: Hnsw
    valid: bool
    bytes: int
    builder: int | None


@dataclass(frozen=True, slots=True)
class BuildProgress:
    """What the server says of an index build.

    Attributes:
        table: being indexed.
        index: being built.
        pid: the server process.
        phase: in the server's words.
        done: blocks (or tuples) done in this phase.
        total: of how many; 0 where the server does not say.
        waiting_for: processes it waits for.
    """

    table: str
    index: str
    pid: int
    phase: str
    done: int
    total: int
    waiting_for: int


_STATES = """
SELECT i.oid, i.relname, o.opcname, i.reloptions, x.indisvalid AND x.indisready AS valid,
    CASE WHEN i.relkind = 'I' THEN (SELECT sum(pg_relation_size(r.relid)) FROM pg_partition_tree(i.oid) AS r)::bigint
        ELSE pg_relation_size(i.oid) END AS bytes,
    (SELECT p.pid FROM pg_stat_progress_create_index AS p WHERE p.index_relid = i.oid LIMIT 1) AS builder
FROM pg_index AS x
JOIN pg_class AS i ON i.oid = x.indexrelid
JOIN pg_am AS am ON am.oid = i.relam AND am.amname = 'hnsw'
JOIN pg_opclass AS o ON o.oid = x.indclass[0]
JOIN pg_attribute AS a ON a.attrelid = x.indrelid AND a.attnum = x.indkey[0]
WHERE x.indrelid = to_regclass(:owner) AND a.attname = :short AND x.indnatts = 1 AND x.indpred IS NULL
ORDER BY i.relname
"""

_PROGRESS = """
SELECT p.relid::regclass::text AS table, p.index_relid::regclass::text AS index, p.pid, p.phase,
    CASE WHEN p.blocks_total > 0 THEN p.blocks_done ELSE p.tuples_done END AS done,
    CASE WHEN p.blocks_total > 0 THEN p.blocks_total ELSE p.tuples_total END AS total,
    p.lockers_total - p.lockers_done AS waiting_for
FROM pg_stat_progress_create_index AS p JOIN pg_database AS d ON d.oid = p.datid AND d.datname = current_database()
ORDER BY 1, 2
"""


def index_states(connection: Connection, owner: str, short: str) -> list[IndexState]:
    """The HNSW indexes on a short column, partial ones left out.

    Args:
        connection: of the database.
        owner: the table as SQL text.
        short: the short column's name.
    """
    rows = connection.execute(text(_STATES), {"owner": owner, "short": short})
    return [
        IndexState(row.oid, row.relname, row.opcname, _hnsw(row.reloptions), row.valid, row.bytes or 0, row.builder)
        for row in rows
    ]


def build_progress(connection: Connection) -> list[BuildProgress]:
    """The index builds that run in this database now."""
    return [BuildProgress(*row) for row in connection.execute(text(_PROGRESS))]


def build(
    connection: Connection,
    target: Target,
    index: Hnsw,
    how: Build | None = None,
    *,
    name: str | None = None,
    progress: Callable[[BuildProgress], None] | None = None,
) -> None:
    """Build the index on a short column concurrently; does nothing where it is there and valid.

    Can be run again after any failure: an INVALID leftover is removed first, and a build that is still running (its
    client was killed) is waited for.

    Args:
        connection: in autocommit.
        target: the short column.
        index: build parameters.
        how: memory and workers.
        name: of the index; by default as the model names it.
        progress: called about once a second.

    Raises:
        MigrationError: an index of this name is something else, or the server could not build it.
    """
    wanted = name or index.index_name(target.table, target.short)
    there = _cleared(connection, target, wanted, progress)
    if there is not None:
        if _same(there, target, index):
            return
        raise MigrationError(
            f"{wanted} is there with {there.operator_class}, m={there.index.m}, "
            f"ef_construction={there.index.ef_construction}: rebuild it (op.rebuild_short_index)"
        )
    _check_name_free(connection, target, wanted)
    kind = connection.execute(
        text("SELECT relkind FROM pg_class WHERE oid = to_regclass(:owner)"), {"owner": target.owner}
    ).scalar_one()
    with _settings(connection, how or Build()), _watched(connection, progress):
        if kind == "p":
            _build_partitioned(connection, target, index, wanted)
        else:
            _build_one(connection, target, index, wanted)


def rebuild(
    connection: Connection,
    target: Target,
    index: Hnsw,
    how: Build | None = None,
    *,
    progress: Callable[[BuildProgress], None] | None = None,
) -> None:
    """Replace the index by one with other parameters; the old one serves until the new one is valid.

    The two exist side by side until the names are exchanged, so it needs room for both. Can be run again after any
    failure.

    Raises:
        MigrationError: as `build`.
    """
    name = index.index_name(target.table, target.short)
    new, old = beside(name)
    there = _cleared(connection, target, name, progress)
    if there is None:
        build(connection, target, index, how, progress=progress)
    elif not _same(there, target, index):
        ready = _cleared(connection, target, new, progress)
        if ready is not None and not _same(ready, target, index):
            drop(connection, target.schema, new)
        build(connection, target, index, how, name=new, progress=progress)
        in_transaction(connection, rename_statements(target, name, new, old), target.owner)
    for leftover in (new, old):
        if any(state.name == leftover for state in index_states(connection, target.owner, target.short)):
            drop(connection, target.schema, leftover)


def beside(name: str) -> tuple[str, str]:
    """The names of the new and of the old index while one replaces the other."""
    return identifier(f"{name}_new"), identifier(f"{name}_old")


def rename_statements(target: Target, name: str, new: str, old: str) -> list[str]:
    """Exchange two indexes by name; takes no lock that readers or writers would notice."""
    return [
        f"ALTER INDEX {qualified(target.schema, name)} RENAME TO {quoted(old)}",
        f"ALTER INDEX {qualified(target.schema, new)} RENAME TO {quoted(name)}",
    ]


def drop(connection: Connection, schema: str | None, name: str) -> None:
    """Drop an index without stopping readers or writers; does nothing where it is not there.

    Args:
        connection: in autocommit.
        schema: of the index.
        name: of the index.
    """
    partitioned = connection.execute(
        text("SELECT relkind = 'I' FROM pg_class WHERE oid = to_regclass(:name)"), {"name": qualified(schema, name)}
    ).scalar()
    if partitioned:  # PostgreSQL does not drop these concurrently
        in_transaction(connection, [f"DROP INDEX IF EXISTS {qualified(schema, name)}"], qualified(schema, name))
    else:
        execute_plain(connection, drop_statement(schema, name))


def drop_statement(schema: str | None, name: str, *, concurrently: bool = True) -> str:
    """The statement that drops an index."""
    return f"DROP INDEX {'CONCURRENTLY ' if concurrently else ''}IF EXISTS {qualified(schema, name)}"


def create_statement(
    target: Target, index: Hnsw, *, concurrently: bool, name: str | None = None, only: bool = False
) -> str:
    """The statement that builds the index."""
    return create_index(
        target.definition,
        target.schema,
        target.table,
        target.short,
        index,
        name=name,
        concurrently=concurrently,
        only=only,
    )


# -- one table -----------------------------------------------------------------------------------------------------


def _build_one(connection: Connection, target: Target, index: Hnsw, name: str) -> None:
    statement = create_statement(target, index, concurrently=True, name=name)
    try:
        execute_plain(connection, statement)
    except DBAPIError as error:
        if error.connection_invalidated:
            raise
        execute_plain(connection, drop_statement(target.schema, name))
        raise MigrationError(
            f"index {name} could not be built: {str(error.orig).strip()}\nNothing of it is left; run this again."
        ) from error
    state = _state(connection, target, name)
    if state is None or not state.valid:
        raise MigrationError(f"index {name} is INVALID after its build: run this again, it begins anew")


def _cleared(
    connection: Connection, target: Target, name: str, progress: Callable[[BuildProgress], None] | None
) -> IndexState | None:
    """The valid index of this name; one being built is waited for, an INVALID one removed."""
    state = _state(connection, target, name)
    while state is not None and state.builder is not None:
        log.info("index %s is being built by process %s: waiting for it", name, state.builder)
        _wait(connection, state.builder, progress)
        state = _state(connection, target, name)
    if state is None or state.valid or _partitioned(connection, target):
        return state
    log.info("index %s is INVALID: an earlier build was interrupted; removing it", name)
    drop(connection, target.schema, name)
    return None


def _wait(connection: Connection, pid: int, progress: Callable[[BuildProgress], None] | None) -> None:
    while builds := [one for one in build_progress(connection) if one.pid == pid]:
        if progress is not None:
            progress(builds[0])
        time.sleep(POLL)


def _state(connection: Connection, target: Target, name: str) -> IndexState | None:
    states = index_states(connection, target.owner, target.short)
    return next((state for state in states if state.name == name), None)


def _same(state: IndexState, target: Target, index: Hnsw) -> bool:
    definition = target.definition
    return state.index == index and state.operator_class == definition.metric.operator_class(definition.short.type)


def _check_name_free(connection: Connection, target: Target, name: str) -> None:
    query = text(
        "SELECT c.relkind FROM pg_class AS c WHERE c.relname = :name AND c.relnamespace = "
        "(SELECT t.relnamespace FROM pg_class AS t WHERE t.oid = to_regclass(:owner))"
    )
    kind = connection.execute(query, {"name": name, "owner": target.owner}).scalar()
    if kind is not None and _state(connection, target, name) is None:
        raise MigrationError(f"{name} is there already and is no HNSW index on {target.title}: rename or drop it")


def _hnsw(options: list[str] | None) -> Hnsw:
    given = dict(option.split("=", 1) for option in options or ())
    # pgvector's own defaults, not ours
    return Hnsw(int(given.get("m", 16)), int(given.get("ef_construction", 64)))


# -- partitions ----------------------------------------------------------------------------------------------------

_LEAVES = """
SELECT n.nspname, c.relname,
    (SELECT x.indexrelid::regclass::text FROM pg_inherits AS h JOIN pg_index AS x ON x.indexrelid = h.inhrelid
     WHERE h.inhparent = to_regclass(:index) AND x.indrelid = c.oid) AS attached
FROM pg_partition_tree(to_regclass(:owner)) AS t
JOIN pg_class AS c ON c.oid = t.relid JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE t.parentrelid = to_regclass(:owner)
ORDER BY 1, 2
"""


def _partitioned(connection: Connection, target: Target) -> bool:
    query = text("SELECT relkind = 'p' FROM pg_class WHERE oid = to_regclass(:owner)")
    return bool(connection.execute(query, {"owner": target.owner}).scalar())


def _build_partitioned(connection: Connection, target: Target, index: Hnsw, name: str) -> None:
    """An index on the parent alone, one on each partition, and each attached: the last makes the parent's valid."""
    if _state(connection, target, name) is None:
        statement = create_statement(target, index, concurrently=False, name=name, only=True)
        in_transaction(connection, [statement], target.owner)
    parent = qualified(target.schema, name)
    for schema, table, attached in connection.execute(text(_LEAVES), {"owner": target.owner, "index": parent}).all():
        if attached is not None:
            continue
        leaf = replace(target, table=table, schema=schema, definition=_named(target))
        own = identifier(f"{table}_{target.short}_hnsw")
        build(connection, leaf, index, name=own)
        in_transaction(connection, [f"ALTER INDEX {parent} ATTACH PARTITION {qualified(schema, own)}"], target.owner)
    state = _state(connection, target, name)
    if state is None or not state.valid:
        raise MigrationError(f"index {name} is not valid: a partition was added meanwhile; run this again")


def _named(target: Target) -> Definition:
    definition = target.definition  # a name made of the partition's would be another column
    return replace(definition, short=replace(definition.short, name=target.short))


# -- around a build ------------------------------------------------------------------------------------------------


@contextmanager
def _settings(connection: Connection, how: Build) -> Iterator[None]:
    """Parameters for one build; and no time limits: a build that was nearly done is lost whole."""
    wanted = [*how.settings(), ("lock_timeout", "0"), ("statement_timeout", "0")]
    before = {
        name: connection.execute(text("SELECT current_setting(:n)"), {"n": name}).scalar_one() for name, _ in wanted
    }
    for name, value in wanted:
        connection.execute(text("SELECT set_config(:n, :v, false)"), {"n": name, "v": value})
    try:
        yield
    finally:
        if not connection.invalidated and not connection.closed:
            for name, value in before.items():
                connection.execute(text("SELECT set_config(:n, :v, false)"), {"n": name, "v": value})


@contextmanager
def _watched(connection: Connection, progress: Callable[[BuildProgress], None] | None) -> Iterator[None]:
    """Tell how the server gets on, from a second connection; without one the build runs all the same."""
    if progress is None:
        yield
        return
    pid = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
    over = threading.Event()
    thread = threading.Thread(target=_watch, args=(connection.engine, pid, progress, over), daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(5 * POLL)


def _watch(engine: Engine, pid: int, progress: Callable[[BuildProgress], None], over: threading.Event) -> None:
    try:
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as second:
            while not over.wait(POLL):
                for one in build_progress(second):
                    if one.pid == pid:
                        progress(one)
    except SQLAlchemyError:
        log.info("no progress to show: a second connection was refused", exc_info=True)
