"""Give a table to Citus: what has to be looked at and set before `create_distributed_table`, and that call.

Written against Citus' documentation and source (12 to 14); see docs/citus.md for what was run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import text

from pgmrl.database.extension import check_pgvector
from pgmrl.database.function_sets import installed_markers
from pgmrl.database.search_path import catalogue_result, relation_name
from pgmrl.database.shards import citus_version, distributed_table, node_faults, nodes
from pgmrl.database.table_state import table_state
from pgmrl.errors import MigrationError
from pgmrl.model import ddl
from pgmrl.model.shortening import Rotation
from pgmrl.names import literal, qualified
from pgmrl.online.node_preparation import preparation_statements

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from pgmrl.database.table_state import TableState

__all__ = [
    "check_functions",
    "check_triggers",
    "create_distributed_table",
    "distribution_statements",
    "undistribute_table",
]


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
        Plain SQL; empty where the table is distributed by that column already.

    Raises:
        MigrationError: there is no Citus, no such table or column; the primary key does not contain the column; the
            table is distributed otherwise, has a side table, a queue, or functions for a table of one node; a node has no
            pgvector, an old one, or lacks a rotation.

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
    rules = [state.shorts[name].definition.short.by for name in state.sync_triggers if name in state.shorts]
    rotations = sorted({str(rule.id) for rule in rules if isinstance(rule, Rotation)})
    states = nodes(connection)
    faults = node_faults(states)
    if faults:
        raise MigrationError(
            f"{'; '.join(faults)}: start it, or remove it by citus_remove_node; pgvector comes to all of them by SELECT * "
            "FROM run_command_on_workers('CREATE EXTENSION IF NOT EXISTS vector')"
        )
    prepared = preparation_statements(connection, states, rotations, check_pgvector(connection))
    if current is not None:
        return prepared
    storage = [
        ddl.set_storage(owner, name, "main")
        for name, short in state.shorts.items()
        if short.kept_by != "index" and short.definition.short.type != "bit" and state.columns[name].storage != "main"
    ]  # which Citus refuses of a distributed table
    triggers = (
        [
            "SELECT pg_catalog.set_config('citus.enable_unsafe_triggers', 'on', true)",
            "SELECT pg_catalog.set_config('citus.multi_shard_modify_mode', 'sequential', true)",
        ]
        if state.sync_triggers
        else []
    )
    return [*prepared, *storage, *triggers, create_distributed_table(owner, by, shards)]


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
