"""What is there under an index's name: a build that still runs is waited for, an INVALID leftover removed.

An interrupted `CREATE INDEX CONCURRENTLY` leaves an index that every write maintains and no search uses, and
`IF NOT EXISTS` keeps it for ever.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from pgmrl.database.connection import execute_plain, sqlstate
from pgmrl.database.index_states import (
    FilterIndexState,
    IndexState,
    build_progress,
    filter_index_states,
    index_states,
)
from pgmrl.database.job_log import log
from pgmrl.database.search_path import catalogue_result
from pgmrl.errors import MigrationError
from pgmrl.model.filter_index import FilterIndex
from pgmrl.names import qualified
from pgmrl.online import build_session
from pgmrl.online.index_statements import Build, ShortIndex, beside, drop_statement
from pgmrl.online.locks import Patience, in_transaction

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from pgmrl.online.build_session import Progress
    from pgmrl.online.target import Target

__all__ = [
    "PARTITIONS",
    "check_name_free",
    "drop",
    "drop_rebuild_leftover",
    "index_state",
    "is_for",
    "is_partitioned",
    "settled_index",
    "usual_name",
]

DEADLOCK: Final = "40P01"
ENDING: Final = 0.01  # seconds between looks at a commit that is under way
_ENDING = """
SELECT EXISTS (SELECT FROM pg_index AS x JOIN pg_locks AS l ON l.transactionid = x.xmax AND l.granted
    WHERE x.indexrelid = :index)
"""
"""Whether a transaction that has not ended yet has changed an index's row."""

PARTITIONS: Final = """
SELECT n.nspname, c.relname,
    (SELECT x.indexrelid::regclass::text FROM pg_inherits AS h JOIN pg_index AS x ON x.indexrelid = h.inhrelid
     WHERE h.inhparent = to_regclass(CAST(:index AS text)) AND x.indrelid = c.oid) AS attached
FROM pg_partition_tree(to_regclass(:owner)) AS t
JOIN pg_class AS c ON c.oid = t.relid JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE t.parentrelid = to_regclass(:owner) AND c.relkind IN ('r', 'p')
ORDER BY 1, 2
"""
"""The partitions one level below a table, with the index of each that is attached to a parent's index."""


def index_state(connection: Connection, target: Target, name: str) -> IndexState | FilterIndexState | None:
    """The index of this name on a short column, or that includes it; None where there is none."""
    states: list[IndexState | FilterIndexState] = [
        *index_states(connection, target.owner, target.short),
        *filter_index_states(connection, target.owner, target.short),
    ]
    return next((state for state in states if state.name == name), None)


def is_for(state: IndexState | FilterIndexState, target: Target, index: ShortIndex) -> bool:
    """Whether an index has these parameters, this condition and the definition's operator class, or these columns."""
    if isinstance(index, FilterIndex) or isinstance(state, FilterIndexState):
        return isinstance(index, FilterIndex) and isinstance(state, FilterIndexState) and state.index.same(index)
    definition = target.definition
    return state.index == index and state.operator_class == definition.metric.operator_class(definition.short.type)


def usual_name(target: Target, index: ShortIndex) -> str:
    """The name of an index as the model names it; of a partition one of its own."""
    if isinstance(index, FilterIndex):
        return index.partition_name(target.table, target.short)
    return index.index_name(target.table, target.short)


def is_partitioned(connection: Connection, target: Target) -> bool:
    """Whether the table is a partitioned parent."""
    query = text("SELECT relkind = 'p' FROM pg_class WHERE oid = to_regclass(:owner)")
    return bool(catalogue_result(connection, query, {"owner": target.owner}).scalar())


def check_name_free(connection: Connection, target: Target, name: str) -> None:
    """Check that an index of this name can be built.

    Raises:
        MigrationError: something else has the name.
    """
    taken = catalogue_result(
        connection, text("SELECT to_regclass(:name) IS NOT NULL"), {"name": qualified(target.schema, name)}
    ).scalar_one()
    if taken and index_state(connection, target, name) is None:
        raise MigrationError(
            f"{qualified(target.schema, name)} is there already and is no index of {target.title}: rename or drop it"
        )


def settled_index(
    connection: Connection, target: Target, name: str, progress: Progress | None
) -> IndexState | FilterIndexState | None:
    """The index of this name; one being built is waited for, an INVALID one removed unless it lacks partitions."""
    state, settled = _built_index(connection, target, name, progress), None
    while state is not None and not state.valid and not is_partitioned(connection, target):
        if state.oid == settled:
            log.info("index %s is INVALID: an earlier build was interrupted; removing it", name)
            if _dropped(connection, target, name):
                return None
            settled, state = None, _built_index(connection, target, name, progress)
            continue
        _wait_for_commit(connection, target, state.oid)
        settled = state.oid
        state = _built_index(connection, target, name, progress)
    return state


def _dropped(connection: Connection, target: Target, name: str) -> bool:
    """Whether it was dropped; not where another session was quicker, which builds it anew and waits for this one."""
    try:
        drop(connection, target.schema, name)
    except MigrationError as error:
        if isinstance(error.__cause__, DBAPIError) and sqlstate(error.__cause__) == DEADLOCK:
            return False
        raise
    return True


def _built_index(
    connection: Connection, target: Target, name: str, progress: Progress | None
) -> IndexState | FilterIndexState | None:
    """The index of this name, when the build that the server reports is over."""
    state = index_state(connection, target, name)
    while state is not None and state.builder is not None:
        log.info("index %s is being built by process %s: waiting for it", name, state.builder)
        _wait_for_build(connection, state.builder, progress)
        state = index_state(connection, target, name)
    return state


def _wait_for_build(connection: Connection, pid: int, progress: Progress | None) -> None:
    while builds := [build for build in build_progress(connection) if build.pid == pid]:
        if progress is not None:
            progress(builds[0])
        time.sleep(build_session.POLL)


def _wait_for_commit(connection: Connection, target: Target, oid: int) -> None:
    """Wait until an index that nobody seems to build is what it looks like.

    The server reports a build only after the index has come into the catalogue, and no longer when it makes it valid.
    From before to almost after that the build holds a lock on its table, at the very end only the row of pg_index.
    """
    lock = f"LOCK TABLE {target.owner} IN SHARE UPDATE EXCLUSIVE MODE"
    in_transaction(connection, [lock], target.owner, Patience(lock_timeout=0, attempts=1))  # 0 is no limit
    while catalogue_result(connection, text(_ENDING), {"index": oid}).scalar():
        time.sleep(ENDING)


def drop(connection: Connection, schema: str | None, name: str) -> None:
    """Drop an index without stopping readers or writers; does nothing where it is not there.

    Args:
        connection: in autocommit.
        schema: of the index.
        name: of the index.

    Raises:
        MigrationError: the server refused, or was told to end it.
    """
    partitioned = catalogue_result(
        connection,
        text("SELECT relkind = 'I' FROM pg_class WHERE oid = to_regclass(:name)"),
        {"name": qualified(schema, name)},
    ).scalar()
    if partitioned:  # PostgreSQL does not drop these concurrently
        statement = drop_statement(schema, name, concurrently=False)
        in_transaction(connection, [statement], qualified(schema, name))
        return
    problem = f"index {name} could not be dropped"
    with build_session.settings(connection, Build()), build_session.clear_errors(problem):
        execute_plain(connection, drop_statement(schema, name))


def drop_rebuild_leftover(connection: Connection, target: Target, index: ShortIndex, name: str, position: int) -> None:
    """Drop what a rebuild has left; in partitions also what was not attached yet.

    Args:
        connection: in autocommit.
        target: the short column.
        index: what was rebuilt.
        name: of the index in its place.
        position: of what is left in `beside(name)`: 0 the new one, 1 the old one.
    """
    leftover = beside(name)[position]
    if index_state(connection, target, leftover) is not None:
        drop(connection, target.schema, leftover)
    if is_partitioned(connection, target):
        partitions = catalogue_result(connection, text(PARTITIONS), {"owner": target.owner, "index": None}).all()
        for schema, table, _ in partitions:
            partition = replace(target, schema=schema, table=table)
            drop_rebuild_leftover(connection, partition, index, usual_name(partition, index), position)
