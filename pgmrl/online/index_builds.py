"""Indexes built while the table is in use: valid in the end, or the error says why; no INVALID one stays.

Each step looks at what is there first (`index_leftovers`), and can be run again after any failure.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from pgmrl.database.catalogue import foreign_partitions_sql
from pgmrl.database.connection import execute_plain, sqlstate
from pgmrl.database.index_states import FilterIndexState
from pgmrl.database.search_path import caller_path, catalogue_result
from pgmrl.errors import MigrationError
from pgmrl.names import identifier, qualified
from pgmrl.online.build_session import progress_reported, settings
from pgmrl.online.filter_columns import completed
from pgmrl.online.index_leftovers import (
    PARTITIONS,
    check_name_free,
    drop,
    drop_rebuild_leftover,
    index_state,
    is_for,
    is_partitioned,
    settled_index,
    usual_name,
)
from pgmrl.online.index_statements import (
    Build,
    ShortIndex,
    beside,
    create_statement,
    exchange_statements,
    rename_statement,
)
from pgmrl.online.locks import in_transaction

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from pgmrl.database.index_states import IndexState
    from pgmrl.online.build_session import Progress
    from pgmrl.online.target import Target

__all__ = ["Build", "build", "drop", "rebuild"]

# by another run of this: duplicate_table, it was quicker; deadlock_detected, concurrent builds of one table wait for
# each other, and the server ends all but one
OVERTAKEN: Final = {"42P07", "40P01"}


def build(
    connection: Connection,
    target: Target,
    index: ShortIndex,
    options: Build | None = None,
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
        index: build parameters, or the columns of a covering index, to which the key's are added.
        options: memory and workers.
        name: of the index; by default as the model names it.
        progress: called about once a second.

    Raises:
        MigrationError: an index of this name is something else, the server could not build it, or no index can have
            its condition.
    """
    index_name = name or index.index_name(target.table, target.short)
    target = _with_schema(connection, target)
    index = completed(connection, target, index)
    with settings(connection, options or Build()), progress_reported(connection, progress):
        _build(connection, target, index, index_name, progress)


def rebuild(
    connection: Connection,
    target: Target,
    index: ShortIndex,
    options: Build | None = None,
    *,
    progress: Progress | None = None,
) -> None:
    """Replace the index by one with other parameters; the old one serves until the new one is valid.

    The two exist side by side until the names are exchanged, so it needs room for both. Can be run again after any
    failure. Arguments and errors as of `build`.
    """
    name = index.index_name(target.table, target.short)
    target = _with_schema(connection, target)
    index = completed(connection, target, index)
    new, old = beside(name)
    with settings(connection, options or Build()), progress_reported(connection, progress):
        existing = settled_index(connection, target, name, progress)
        if existing is None or not existing.valid:
            _build(connection, target, index, name, progress)
        elif not is_for(existing, target, index):
            drop_rebuild_leftover(
                connection, target, index, name, 1
            )  # of a run that was killed after it had exchanged the names
            arriving = settled_index(connection, target, new, progress)
            if arriving is not None and not is_for(arriving, target, index):
                drop(connection, target.schema, new)
            _build(connection, target, index, new, progress)
            check_name_free(connection, target, old)
            in_transaction(connection, _exchange(connection, target, index, name), target.owner)
        for position in (0, 1):
            drop_rebuild_leftover(connection, target, index, name, position)


def _with_schema(connection: Connection, target: Target) -> Target:
    """With its schema: an index is in its table's, which need not be the first of the search_path.

    Raises:
        MigrationError: there is no such table.
    """
    query = text(  # about the caller's path, and safe under any
        "SELECT n.nspname, n.nspname OPERATOR(pg_catalog.=) pg_catalog.current_schema() AS first "
        "FROM pg_catalog.pg_class AS c "
        "JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace "
        "WHERE c.oid OPERATOR(pg_catalog.=) CAST(pg_catalog.to_regclass(:owner) AS pg_catalog.oid) "
        "AND c.relkind OPERATOR(pg_catalog.=) ANY (CAST(ARRAY['r', 'p'] AS pg_catalog.\"char\"[]))"
    )
    with caller_path(connection):
        table = connection.execute(query, {"owner": target.owner}).first()
    if table is None:
        raise MigrationError(f"there is no table {target.owner}: check its name and schema=")
    schema = target.schema if table.first else table.nspname
    definition = target.definition
    if definition.has_column:  # a name made of another table's would be another column
        definition = replace(definition, short=replace(definition.short, name=target.short))
    return replace(target, schema=schema, definition=definition)


def _described(state: IndexState | FilterIndexState) -> str:
    if isinstance(state, FilterIndexState):
        return f"the columns of {state.index!r}"
    where = "" if state.index.predicate is None else f" WHERE {state.index.predicate}"
    return f"{state.operator_class}, m={state.index.m}, ef_construction={state.index.ef_construction}{where}"


# -- one table -----------------------------------------------------------------------------------------------------


def _build(connection: Connection, target: Target, index: ShortIndex, name: str, progress: Progress | None) -> None:
    existing = settled_index(connection, target, name, progress)
    if existing is not None and not is_for(existing, target, index):
        if existing.valid:
            raise MigrationError(f"{name} is there with {_described(existing)}: rebuild it (op.rebuild_short_index)")
        drop(connection, target.schema, name)  # a partitioned table's, begun with other parameters
        existing = None
    if existing is not None and existing.valid:
        return
    if existing is None:
        check_name_free(connection, target, name)  # passes where it has become this index in the meantime
    if is_partitioned(connection, target):
        _build_partitioned(connection, target, index, name, progress)
    else:
        _build_one(connection, target, index, name, progress)


def _build_one(connection: Connection, target: Target, index: ShortIndex, name: str, progress: Progress | None) -> None:
    statement = create_statement(target, index, concurrently=True, name=name)
    try:
        execute_plain(connection, statement)
    except DBAPIError as error:
        if error.connection_invalidated:
            raise MigrationError(
                f"the connection was lost while index {name} was built: run this again, it waits where the server is "
                "still at it and begins anew where it is not"
            ) from error
        if sqlstate(error) in OVERTAKEN:
            _build(connection, target, index, name, progress)
            return
        if settled_index(connection, target, name, progress) is None:
            raise MigrationError(
                f"index {name} could not be built: {str(error.orig).strip()}\n"
                "Nothing of it is left; correct this and run it again."
            ) from error
    state = index_state(connection, target, name)
    if state is None or not state.valid:
        raise MigrationError(f"index {name} is INVALID after its build: run this again, it begins anew")


# -- partitions ----------------------------------------------------------------------------------------------------

_INDEX_TREE = """
SELECT n.nspname, i.relname, c.relname AS owner
FROM pg_partition_tree(to_regclass(CAST(:index AS text))) AS t
JOIN pg_class AS i ON i.oid = t.relid JOIN pg_namespace AS n ON n.oid = i.relnamespace
JOIN pg_index AS x ON x.indexrelid = i.oid JOIN pg_class AS c ON c.oid = x.indrelid
WHERE t.parentrelid IS NOT NULL
ORDER BY 1, 2
"""


def _build_partitioned(
    connection: Connection, target: Target, index: ShortIndex, name: str, progress: Progress | None
) -> None:
    """An index on the parent alone, one on each partition, and each attached: the last makes the parent's valid."""
    query = text(foreign_partitions_sql("to_regclass(CAST(:owner AS text))"))
    foreign = catalogue_result(connection, query, {"owner": target.owner}).scalars().all()
    if foreign:
        raise MigrationError(
            f"{', '.join(foreign)}: foreign tables, beside which an index of {target.owner} that is built partition by "
            "partition never becomes valid. Detach them, or build it by a plain CREATE INDEX, which leaves them out "
            "and makes writers wait"
        )
    if index_state(connection, target, name) is None:
        statement = create_statement(target, index, concurrently=False, name=name, only=True)
        in_transaction(connection, [statement], target.owner)
    parent = qualified(target.schema, name)
    names = index.index_name(target.table, target.short), usual_name(target, index)  # its own, and as a partition's
    suffix = "_new" if name in {beside(usual)[0] for usual in names} else ""
    partitions = catalogue_result(connection, text(PARTITIONS), {"owner": target.owner, "index": parent}).all()
    for schema, table, attached in partitions:
        if attached is not None:
            continue
        partition = replace(target, table=table, schema=schema)
        own_name = identifier(usual_name(partition, index) + suffix)
        existing = index_state(connection, partition, own_name) if suffix else None
        if existing is not None and not is_for(existing, target, index):
            drop(connection, schema, own_name)  # of a rebuild to other parameters that was killed
        _build(connection, partition, index, own_name, progress)
        attach = f"ALTER INDEX {parent} ATTACH PARTITION {qualified(schema, own_name)}"
        in_transaction(connection, [attach], target.owner)
    state = index_state(connection, target, name)
    if state is None or not state.valid:
        raise MigrationError(f"index {name} is not valid: a partition was added meanwhile; run this again")


def _exchange(connection: Connection, target: Target, index: ShortIndex, name: str) -> list[str]:
    """Exchange the parents' names, and those of the partitions' indexes, which are named alike."""
    current, arriving = (
        catalogue_result(connection, text(_INDEX_TREE), {"index": qualified(target.schema, parent)}).all()
        for parent in (name, beside(name)[0])
    )
    arriving_names = {}
    for schema, index_name, table in arriving:
        partition_name = usual_name(replace(target, table=table), index)
        if index_name == beside(partition_name)[0]:
            arriving_names[schema, partition_name] = index_name
    replaced = [(schema, index_name) for schema, index_name, _ in current if (schema, index_name) in arriving_names]
    return [
        *exchange_statements(target.schema, name),
        *(rename_statement(schema, index_name, beside(index_name)[1]) for schema, index_name in replaced),
        *(rename_statement(schema, new, usual) for (schema, usual), new in arriving_names.items()),
    ]
