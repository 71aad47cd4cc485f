"""Give a table to Citus: what has to be looked at and set before `create_distributed_table`, and that call.

See docs/citus.md for the versions of Citus that it was run on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import text

from pgmrl.database.function_sets import installed_markers
from pgmrl.database.search_path import catalogue_result, relation_name
from pgmrl.database.shards import citus_version, distributed_table
from pgmrl.database.table_state import table_state
from pgmrl.errors import MigrationError
from pgmrl.model import ddl
from pgmrl.names import literal, qualified, quoted
from pgmrl.online import steps
from pgmrl.online.node_preparation import preparation_statements

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from pgmrl.database.table_state import TableState
    from pgmrl.online.target import Target

__all__ = [
    "add_to_shards",
    "check_functions",
    "check_triggers",
    "create_distributed_table",
    "distribution_statements",
    "fill_shards",
    "undistribute_table",
]

TRIGGER_SETTINGS: Final = (
    "SELECT pg_catalog.set_config('citus.enable_unsafe_triggers', 'on', true)",
    "SELECT pg_catalog.set_config('citus.multi_shard_modify_mode', 'sequential', true)",
)
"""With which Citus makes triggers on shards, in the transaction; writes that fire them need neither."""


def create_distributed_table(owner: str, by: str, shards: int | None = None) -> str:
    """The statement that distributes a table.

    Args:
        owner: the table as SQL text.
        by: the distribution column.
        shards: how many; None for `citus.shard_count`, 32 by default.

    """
    more = "" if shards is None else f", shard_count => {shards}"
    return f"SELECT pg_catalog.create_distributed_table({literal(owner)}, {literal(by)}{more})"


def undistribute_table(owner: str) -> str:
    """The statement that makes an ordinary table of it again."""
    return f"SELECT pg_catalog.undistribute_table({literal(owner)})"


def distribution_statements(
    connection: Connection, schema: str | None, table: str, by: str, shards: int | None = None
) -> list[str]:
    """The statements that distribute a table with Matryoshka columns; to be run in one transaction.

    Nothing is written here: the catalogue and the nodes are read.

    Args:
        connection: of the database, on the coordinator.
        schema: of the table; None where the search_path finds it.
        table: its name.
        by: the distribution column.
        shards: how many.

    Returns:
        Plain SQL. The first brings pgvector, and for triggers pgmrl's schema and rotations, to nodes that lack them,
        outside that transaction; where nothing is missing it is left out. Of a table that is distributed by that column
        already there is no other.

    Raises:
        MigrationError: there is no Citus, no such table or column; the primary key does not contain the column; the
            table is distributed otherwise, or has a side table, a queue, or functions for a table of one node; a node
            is out of reach, or has an old pgvector.

    """
    if citus_version(connection) is None:
        raise MigrationError(
            "expected the extension citus in this database, got none: CREATE EXTENSION citus, on the coordinator"
        )
    state = table_state(connection, schema, table)
    if state is None:
        raise MigrationError(f"there is no table {qualified(schema, table)}: check its name and schema")
    owner = relation_name(connection, qualified(state.schema, state.table))
    _check_column(connection, state, owner, by)
    if state.sides:
        raise MigrationError(
            f"{owner} has a side table ({state.sides[0].side}), into which a trigger copies: over shards its inserts "
            "fail; keep the short column in the table itself, by add_short"
        )
    check_triggers(connection, state, owner)
    check_functions(connection, state, by)
    current = distributed_table(connection, owner)
    if current is not None and current.column != by:
        raise MigrationError(f"{owner}: expected an ordinary table, got {current.describe()}: undistribute_table first")
    shorts = [state.shorts[name].definition for name in state.sync_triggers if name in state.shorts]
    prepared = preparation_statements(connection, shorts)
    if current is not None:
        return prepared
    storage = [
        ddl.set_storage(owner, name, "main")
        for name, short in state.shorts.items()
        if short.kept_by != "index" and short.definition.short.type != "bit" and state.columns[name].storage != "main"
    ]  # which Citus refuses of a distributed table
    # anew: those that were made before the extension have a savepoint
    triggers = [
        ddl.create_short_sync_triggers(
            state.shorts[name].definition, state.schema, state.table, state.shorts[name].full
        )
        for name in state.sync_triggers
        if name in state.shorts
    ]
    settings = TRIGGER_SETTINGS if state.sync_triggers else ()
    return [*prepared, *storage, *triggers, *settings, create_distributed_table(owner, by, shards)]


def add_to_shards(connection: Connection, target: Target, *, filled: bool) -> list[str]:
    """The statements that add a short column to a distributed table; to be run in one transaction.

    A prefix that is filled is a generated column, which each shard computes. Everything else has triggers, of which
    one UPDATE makes use: of an expression that reads the rotation Citus says that it is not immutable.

    Args:
        connection: of the database, on the coordinator.
        target: the short column.
        filled: at once, in that transaction; else by `fill_shards`.

    Raises:
        MigrationError: a node is out of reach, or has an old pgvector.

    """
    if filled and ddl.rule_of(target.definition) == "prefix":
        return steps.add_in_place(target, inline=False)
    added = steps.add_online(target, inline=False)
    fill = [fill_shards(target)] if filled else []
    return [*preparation_statements(connection, [target.definition]), *TRIGGER_SETTINGS, *added, *fill]


def fill_shards(target: Target) -> str:
    """The statement by which the triggers of each shard fill a short column, all in one transaction."""
    return f"UPDATE {target.owner} SET {quoted(target.short)} = NULL WHERE {target.missing}"


def check_triggers(connection: Connection, state: TableState, owner: str) -> None:
    """Check that of pgmrl's triggers a table has none but those of its short columns.

    On a shard the others would write into that node's own queue, which nobody works off, or compute with models that it
    does not have; and where a rotation has Citus take triggers at all, it takes them too.

    Args:
        connection: of the database.
        state: of the table.
        owner: the table as SQL text.

    Raises:
        MigrationError: it has one.

    """
    query = text(
        "SELECT DISTINCT g.tgname FROM pg_trigger AS g JOIN pg_proc AS p ON p.oid = g.tgfoid "
        "WHERE g.tgrelid = to_regclass(:owner) AND NOT g.tgisinternal AND p.proname LIKE 'z_\\_pgmrl\\_%' "
        "AND p.proname <> ALL (CAST(:names AS text[])) ORDER BY 1"
    )
    names = [trigger.name for trigger in state.sync_triggers.values()]
    triggers = list(catalogue_result(connection, query, {"owner": owner, "names": names}).scalars())
    if triggers:
        raise MigrationError(
            f"{owner} has the triggers {', '.join(triggers)}, which embed or cut its texts, or belong to a reshape "
            "under way: over shards they would write elsewhere. End that first: `pgmrl embed --drop`, `pgmrl chunk "
            "--drop`, `pgmrl model keep --stop` or `pgmrl reshape contract`"
        )


def check_functions(connection: Connection, state: TableState, by: str) -> None:
    """Check that the SQL functions of a table, where it has any, are those for its shards.

    Others would set the scan's parameters on the coordinator, and each shard would give 40 rows, whatever is asked.

    Args:
        connection: of the database.
        state: of the table.
        by: the distribution column.

    Raises:
        MigrationError: it has others.

    """
    names = [
        f"{qualified(schema, marker['name'])}_…"
        for schema, marker in installed_markers(connection)
        if (marker["schema"], marker["table"]) == (state.schema, state.table) and marker.get("distributed") != by
    ]
    if names:
        raise MigrationError(
            f"{qualified(state.schema, state.table)} is searched by the functions {', '.join(names)}, made for a table "
            "of one node. Drop them (`pgmrl functions drop`) and install them once it is distributed, or declare "
            f"distributed={by!r} and install them again before"
        )


def _check_column(connection: Connection, state: TableState, owner: str, by: str) -> None:
    if by not in state.columns:
        raise MigrationError(f"{owner} has no column {by}, by which it is to be distributed: it has {_names(state)}")
    query = text(
        "SELECT a.attname FROM pg_index AS x JOIN pg_attribute AS a ON a.attrelid = x.indrelid "
        "AND a.attnum = ANY (x.indkey[0:x.indnkeyatts - 1]) WHERE x.indrelid = to_regclass(:owner) AND x.indisprimary"
    )
    key = list(catalogue_result(connection, query, {"owner": owner}).scalars())
    if by not in key:
        raise MigrationError(
            f"{owner}: expected the distribution column {by} in the primary key, got ({', '.join(key) or 'none'}): "
            "Citus has unique keys only where they contain it"
        )


def _names(state: TableState) -> str:
    return ", ".join(state.columns)
