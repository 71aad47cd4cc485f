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

from pgmrl.database.connection import execute_plain, sqlstate
from pgmrl.database.index_states import BuildProgress, IndexState, build_progress, index_states
from pgmrl.errors import MigrationError
from pgmrl.model.hnsw import Hnsw, create_index
from pgmrl.names import identifier, qualified, quoted
from pgmrl.online.locks import Patience, in_transaction

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Connection, Engine

    from pgmrl.online.target import Target

    Progress = Callable[[BuildProgress], None]

__all__ = ["Build", "BuildProgress", "IndexState", "build", "build_progress", "drop", "index_states", "rebuild"]

log = logging.getLogger("alembic.pgmrl")

POLL: Final = 1.0
ENDING: Final = 0.01  # seconds between looks at a commit that is under way
_ENDING = """
SELECT EXISTS (SELECT FROM pg_index AS x JOIN pg_locks AS l ON l.transactionid = x.xmax AND l.granted
    WHERE x.indexrelid = :index)
"""
"""Whether a transaction that has not ended yet has changed an index's row."""

TAKEN: Final = "42P07"  # duplicate_table: somebody else built an index of this name meanwhile


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


def build(
    connection: Connection,
    target: Target,
    index: Hnsw,
    how: Build | None = None,
    *,
    name: str | None = None,
    progress: Progress | None = None,
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
    target = _placed(connection, target)
    with _settings(connection, how or Build()), _watched(connection, progress):
        _build(connection, target, index, wanted, progress)


def rebuild(
    connection: Connection,
    target: Target,
    index: Hnsw,
    how: Build | None = None,
    *,
    progress: Progress | None = None,
) -> None:
    """Replace the index by one with other parameters; the old one serves until the new one is valid.

    The two exist side by side until the names are exchanged, so it needs room for both. Can be run again after any
    failure.

    Raises:
        MigrationError: as `build`.
    """
    name = index.index_name(target.table, target.short)
    target = _placed(connection, target)
    new, old = beside(name)
    with _settings(connection, how or Build()), _watched(connection, progress):
        there = _cleared(connection, target, name, progress)
        if there is None or not there.valid:
            _build(connection, target, index, name, progress)
        elif not _same(there, target, index):
            _drop_leftover(connection, target, old)  # of a run that was killed after it had exchanged the names
            ready = _cleared(connection, target, new, progress)
            if ready is not None and not _same(ready, target, index):
                drop(connection, target.schema, new)
            _build(connection, target, index, new, progress)
            _check_name_free(connection, target, old)
            in_transaction(connection, _exchange(connection, target, name, new, old), target.owner)
        for leftover in (new, old):
            _drop_leftover(connection, target, leftover)


def beside(name: str) -> tuple[str, str]:
    """The names of the new and of the old index while one replaces the other."""
    return identifier(f"{name}_new"), identifier(f"{name}_old")


def rename_statements(target: Target, name: str, new: str, old: str) -> list[str]:
    """Exchange two indexes by name; takes no lock that readers or writers would notice."""
    return [_rename(target.schema, name, old), _rename(target.schema, new, name)]


def _rename(schema: str | None, before: str, after: str) -> str:
    return f"ALTER INDEX {qualified(schema, before)} RENAME TO {quoted(after)}"


def drop(connection: Connection, schema: str | None, name: str) -> None:
    """Drop an index without stopping readers or writers; does nothing where it is not there.

    Args:
        connection: in autocommit.
        schema: of the index.
        name: of the index.

    Raises:
        MigrationError: the server refused, or was told to end it.
    """
    partitioned = connection.execute(
        text("SELECT relkind = 'I' FROM pg_class WHERE oid = to_regclass(:name)"), {"name": qualified(schema, name)}
    ).scalar()
    if partitioned:  # PostgreSQL does not drop these concurrently
        in_transaction(connection, [f"DROP INDEX IF EXISTS {qualified(schema, name)}"], qualified(schema, name))
        return
    with _settings(connection, Build()), _clear_errors(f"index {name} could not be dropped"):
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


def _build(connection: Connection, target: Target, index: Hnsw, name: str, progress: Progress | None) -> None:
    there = _cleared(connection, target, name, progress)
    if there is not None and not _same(there, target, index):
        if there.valid:
            raise MigrationError(
                f"{name} is there with {there.operator_class}, m={there.index.m}, "
                f"ef_construction={there.index.ef_construction}: rebuild it (op.rebuild_short_index)"
            )
        drop(connection, target.schema, name)  # a partitioned table's, begun with other parameters
        there = None
    if there is not None and there.valid:
        return
    if there is None:
        _check_name_free(connection, target, name)  # passes where it has become this index in the meantime
    if _partitioned(connection, target):
        _build_partitioned(connection, target, index, name, progress)
    else:
        _build_one(connection, target, index, name, progress)


def _build_one(connection: Connection, target: Target, index: Hnsw, name: str, progress: Progress | None) -> None:
    statement = create_statement(target, index, concurrently=True, name=name)
    try:
        execute_plain(connection, statement)
    except DBAPIError as error:
        if error.connection_invalidated:
            raise MigrationError(
                f"the connection was lost while index {name} was built: run this again, it waits where the server is "
                "still at it and begins anew where it is not"
            ) from error
        if sqlstate(error) == TAKEN:  # by another run of this, most likely
            _build(connection, target, index, name, progress)
            return
        if _cleared(connection, target, name, progress) is None:
            raise MigrationError(
                f"index {name} could not be built: {str(error.orig).strip()}\n"
                "Nothing of it is left; correct this and run it again."
            ) from error
    state = _state(connection, target, name)
    if state is None or not state.valid:
        raise MigrationError(f"index {name} is INVALID after its build: run this again, it begins anew")


def _cleared(connection: Connection, target: Target, name: str, progress: Progress | None) -> IndexState | None:
    """The index of this name; one being built is waited for, an INVALID one removed unless it lacks partitions."""
    state, settled = _built(connection, target, name, progress), None
    while state is not None and not state.valid and not _partitioned(connection, target):
        if state.oid == settled:
            log.info("index %s is INVALID: an earlier build was interrupted; removing it", name)
            drop(connection, target.schema, name)
            return None
        _settle(connection, target, state.oid)
        settled = state.oid
        state = _built(connection, target, name, progress)
    return state


def _built(connection: Connection, target: Target, name: str, progress: Progress | None) -> IndexState | None:
    """The index of this name, when the build that the server reports is over."""
    state = _state(connection, target, name)
    while state is not None and state.builder is not None:
        log.info("index %s is being built by process %s: waiting for it", name, state.builder)
        _wait(connection, state.builder, progress)
        state = _state(connection, target, name)
    return state


def _settle(connection: Connection, target: Target, oid: int) -> None:
    """Wait until an index that nobody seems to build is what it looks like.

    The server reports a build only after the index has come into the catalogue, and no longer when it makes it valid.
    From before to almost after that the build holds a lock on its table, at the very end only the row of pg_index.
    """
    lock = f"LOCK TABLE {target.owner} IN SHARE UPDATE EXCLUSIVE MODE"
    in_transaction(connection, [lock], target.owner, Patience(lock_timeout=0, attempts=1))  # 0 is no limit
    while connection.execute(text(_ENDING), {"index": oid}).scalar():
        time.sleep(ENDING)


def _drop_leftover(connection: Connection, target: Target, name: str) -> None:
    """Of a rebuild, `_new` or `_old`; in partitions those that were not attached yet."""
    if _state(connection, target, name) is not None:
        drop(connection, target.schema, name)
    if _partitioned(connection, target):
        suffix = 0 if name == beside(_usual_name(target))[0] else 1
        for schema, table, _ in connection.execute(text(_CHILDREN), {"owner": target.owner, "index": None}).all():
            child = replace(target, schema=schema, table=table)
            _drop_leftover(connection, child, beside(_usual_name(child))[suffix])


def _usual_name(target: Target) -> str:
    return Hnsw().index_name(target.table, target.short)  # whatever its parameters


def _wait(connection: Connection, pid: int, progress: Progress | None) -> None:
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
    taken = connection.execute(
        text("SELECT to_regclass(:name) IS NOT NULL"), {"name": qualified(target.schema, name)}
    ).scalar_one()
    if taken and _state(connection, target, name) is None:
        raise MigrationError(
            f"{qualified(target.schema, name)} is there already and is no HNSW index on {target.title}: "
            "rename or drop it"
        )


def _placed(connection: Connection, target: Target) -> Target:
    """With its schema: an index is in its table's, which need not be the first of the search_path.

    Raises:
        MigrationError: there is no such table.
    """
    query = text(
        "SELECT n.nspname, n.nspname = current_schema() AS first FROM pg_class AS c "
        "JOIN pg_namespace AS n ON n.oid = c.relnamespace "
        "WHERE c.oid = to_regclass(:owner) AND c.relkind IN ('r', 'p')"
    )
    found = connection.execute(query, {"owner": target.owner}).first()
    if found is None:
        raise MigrationError(f"there is no table {target.owner}: check its name and schema=")
    schema = target.schema if found.first else found.nspname
    # a name made of another table's would be another column
    definition = replace(target.definition, short=replace(target.definition.short, name=target.short))
    return replace(target, schema=schema, definition=definition)


# -- partitions ----------------------------------------------------------------------------------------------------

_CHILDREN = """
SELECT n.nspname, c.relname,
    (SELECT x.indexrelid::regclass::text FROM pg_inherits AS h JOIN pg_index AS x ON x.indexrelid = h.inhrelid
     WHERE h.inhparent = to_regclass(CAST(:index AS text)) AND x.indrelid = c.oid) AS attached
FROM pg_partition_tree(to_regclass(:owner)) AS t
JOIN pg_class AS c ON c.oid = t.relid JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE t.parentrelid = to_regclass(:owner) AND c.relkind IN ('r', 'p')
ORDER BY 1, 2
"""

_TREE = """
SELECT n.nspname, i.relname, c.relname AS owner
FROM pg_partition_tree(to_regclass(CAST(:index AS text))) AS t
JOIN pg_class AS i ON i.oid = t.relid JOIN pg_namespace AS n ON n.oid = i.relnamespace
JOIN pg_index AS x ON x.indexrelid = i.oid JOIN pg_class AS c ON c.oid = x.indrelid
WHERE t.parentrelid IS NOT NULL
ORDER BY 1, 2
"""


def _partitioned(connection: Connection, target: Target) -> bool:
    query = text("SELECT relkind = 'p' FROM pg_class WHERE oid = to_regclass(:owner)")
    return bool(connection.execute(query, {"owner": target.owner}).scalar())


def _build_partitioned(
    connection: Connection, target: Target, index: Hnsw, name: str, progress: Progress | None
) -> None:
    """An index on the parent alone, one on each partition, and each attached: the last makes the parent's valid."""
    if _state(connection, target, name) is None:
        statement = create_statement(target, index, concurrently=False, name=name, only=True)
        in_transaction(connection, [statement], target.owner)
    parent = qualified(target.schema, name)
    suffix = "_new" if name == beside(index.index_name(target.table, target.short))[0] else ""
    children = connection.execute(text(_CHILDREN), {"owner": target.owner, "index": parent}).all()
    for schema, table, attached in children:
        if attached is not None:
            continue
        own, child = (
            identifier(index.index_name(table, target.short) + suffix),
            replace(target, table=table, schema=schema),
        )
        there = _state(connection, child, own) if suffix else None
        if there is not None and not _same(there, target, index):
            drop(connection, schema, own)  # of a rebuild to other parameters that was killed
        _build(connection, child, index, own, progress)
        in_transaction(connection, [f"ALTER INDEX {parent} ATTACH PARTITION {qualified(schema, own)}"], target.owner)
    state = _state(connection, target, name)
    if state is None or not state.valid:
        raise MigrationError(f"index {name} is not valid: a partition was added meanwhile; run this again")


def _exchange(connection: Connection, target: Target, name: str, new: str, old: str) -> list[str]:
    """The parents' names, and those of the partitions' indexes, which are named alike."""
    statements = rename_statements(target, name, new, old)
    before, after = (
        connection.execute(text(_TREE), {"index": qualified(target.schema, one)}).all() for one in (name, new)
    )
    arriving = {}
    for schema, own, table in after:
        usual = _usual_name(replace(target, table=table))
        if own == beside(usual)[0]:
            arriving[schema, usual] = own
    leaving = [(schema, own) for schema, own, _ in before if (schema, own) in arriving]
    statements += [_rename(schema, own, beside(own)[1]) for schema, own in leaving]
    return statements + [_rename(schema, own, usual) for (schema, usual), own in arriving.items()]


# -- around a build ------------------------------------------------------------------------------------------------


@contextmanager
def _settings(connection: Connection, how: Build) -> Iterator[None]:
    """Parameters for one build; and no time limits: a build that was nearly done is lost whole."""
    wanted = [*how.settings(), ("lock_timeout", "0"), ("statement_timeout", "0")]
    before = {
        name: connection.execute(text("SELECT current_setting(:n)"), {"n": name}).scalar_one() for name, _ in wanted
    }
    try:
        with _clear_errors("the settings of the build were refused"):
            for name, value in wanted:
                connection.execute(text("SELECT set_config(:n, :v, false)"), {"n": name, "v": value})
        yield
    finally:
        if not connection.invalidated and not connection.closed:
            for name, value in before.items():
                connection.execute(text("SELECT set_config(:n, :v, false)"), {"n": name, "v": value})


@contextmanager
def _clear_errors(what: str) -> Iterator[None]:
    try:
        yield
    except DBAPIError as error:
        raise MigrationError(f"{what}: {str(error.orig).strip()}\nCorrect this and run it again.") from error


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
    except Exception:  # whoever is told cannot end the build
        log.warning("progress is not shown any more", exc_info=True)
