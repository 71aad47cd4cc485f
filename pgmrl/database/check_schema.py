"""Check that the database has what the model declares: at an application's start, or as a deployment's last step."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from pgmrl.database.catalogue import columns, table_schema
from pgmrl.database.connection import sqlalchemy_connection
from pgmrl.database.extension import check_pgvector
from pgmrl.database.index_states import filter_index_states
from pgmrl.database.ownership import strangers_objects
from pgmrl.database.policies import policies
from pgmrl.database.search_path import catalogue_result, relation_name
from pgmrl.database.shards import citus_version, distributed_table, node_faults, nodes, shard_faults, shards
from pgmrl.database.side_triggers import broken_copy
from pgmrl.database.table_state import table_state
from pgmrl.errors import NotMigrated, PartialIndexWarning, PolicyIndexWarning
from pgmrl.model.columns import attachment_of, base_column, vectors_table
from pgmrl.model.distribution import distribution_column
from pgmrl.model.index_predicate import loose_predicate
from pgmrl.model.server_names import server_name, translated_schema
from pgmrl.model.shortening import Rotation
from pgmrl.names import qualified, quoted

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Connection, Table
    from sqlalchemy.orm import Session

    from pgmrl.database.catalogue import ColumnInfo
    from pgmrl.model.columns import Attachment
    from pgmrl.model.hnsw import Hnsw

__all__ = ["check_column_types", "check_schema", "short_column_infos"]


def check_schema(connection: Connection | Session, column: Any) -> ColumnInfo | None:
    """Check that the database has what a Matryoshka column declares; reads the catalogue only.

    Args:
        connection: of the database.
        column: the Matryoshka attribute or column.

    Returns:
        What the catalogue says of it; None before its rotation has been learned.

    Raises:
        PgvectorMissing: pgvector is not installed or too old.
        NotMigrated: a table, column, trigger or index is missing or of another type, with its name, or an object of
            pgmrl's belongs to a stranger; where Citus is in the database, a table that is not distributed as declared,
            or a shard or node that lacks something.
        DefinitionError: it is no Matryoshka column.

    Warns:
        PartialIndexWarning: there is no index of all rows.
        PolicyIndexWarning: row-level security filters by columns without a covering index.
    """
    connection = sqlalchemy_connection(connection)
    attachment, table = attachment_of(column), vectors_table(column)
    check_pgvector(connection)
    check_column_types(connection, table, attachment)
    _check_distribution(connection, table, attachment)
    for stranger in strangers_objects(connection, server_name(connection, table)):
        raise NotMigrated(f"{stranger.describe()}: {stranger.remedy()}")
    if attachment.side is not None:
        _check_copied(connection, column, table)
    return None if attachment.short is None else _check_short_column(connection, table, attachment)


def _check_distribution(connection: Connection, table: Table, attachment: Attachment) -> None:
    """A distributed table, as it is declared, with an index on each shard; where Citus is in the database."""
    if citus_version(connection) is None:
        return
    distributed = distributed_table(connection, server_name(connection, table))
    if attachment.distributed is False:
        if distributed is not None and distributed.column is not None:
            raise NotMigrated(
                f"{table.fullname} is {distributed.describe()}: declare distributed={distributed.column!r}"
            )
        return
    declared = distribution_column(table, attachment.distributed).name
    if distributed is None or distributed.column != declared:
        own = "a table of this node alone" if distributed is None else distributed.describe()
        raise NotMigrated(
            f"{table.fullname}: expected a table distributed by {declared}, got {own}: "
            f"`pgmrl distribute {table.fullname} --by {declared}`"
        )
    rule, definition = attachment.definition.short.by, attachment.definition
    faults = node_faults(nodes(connection), [rule.id] if isinstance(rule, Rotation) and rule.id else [])
    if attachment.short is not None and attachment.indexes:
        short = attachment.short if definition.has_column else None
        operator_class = definition.metric.operator_class(definition.short.type)
        partial = {index.predicate is not None for index in attachment.indexes}
        faults += shard_faults(shards(connection, server_name(connection, table)), short, operator_class, partial)
    if faults:
        raise NotMigrated(f"{table.fullname}: {'; '.join(faults)}: `pgmrl doctor` says what mends it")


def check_column_types(connection: Connection, table: Table, attachment: Attachment) -> None:
    """Check that the table has the full and the short column, of their types.

    Args:
        connection: of the database.
        table: that holds the vectors.
        attachment: of the column.

    Raises:
        NotMigrated: it has not, with the name of what is missing.
    """
    definition = attachment.definition
    types = _column_types(connection, table)
    if not types:
        raise NotMigrated(f"there is no table {table.fullname}: run the application's migrations")
    _check_type(table, attachment.full, types, f"{definition.full}({definition.dims})")
    if attachment.short is not None and definition.has_column:
        _check_type(table, attachment.short, types, f"{definition.short.type}({definition.short.dims})")


def _check_short_column(connection: Connection, table: Table, attachment: Attachment) -> ColumnInfo:
    """What computes the short column, and its index, against the model."""
    name = f"{table.fullname}.{attachment.short}"
    infos = short_column_infos(connection, table, attachment, columns(connection))
    if not infos and not attachment.definition.has_column:
        raise NotMigrated(_no_expression_index(table, attachment))
    if not infos:
        raise NotMigrated(f"nothing keeps {name} in step with {attachment.full}: run the migration that adds it")
    operator_class = attachment.definition.metric.operator_class(attachment.definition.short.type)
    info = max(
        infos,
        key=lambda each: (
            each.operator_class == operator_class,
            bool(each.index_valid),
            each.index_predicate is None,
        ),
    )
    by = attachment.definition.short.by
    rotation = by.id if isinstance(by, Rotation) else None
    if info.rotation != rotation:
        raise NotMigrated(f"{name}: expected {rotation or 'a prefix'} (the model), got {info.rotation or 'a prefix'}")
    if info.index_name is None:
        raise NotMigrated(
            f"{name} has no HNSW index, so a search reads the whole table: run the migration that adds it"
        )
    if not info.index_valid:
        raise NotMigrated(f"index {info.index_name} is invalid: REINDEX INDEX CONCURRENTLY {info.index_name}")
    _check_reads(connection, info)
    _check_filter_indexes(connection, table, attachment)
    if info.operator_class != operator_class:
        raise NotMigrated(
            f"index {info.index_name}: expected operator class {operator_class}, which searches by "
            f"{attachment.definition.metric.name} use, got {info.operator_class}: rebuild it"
        )
    serving = [each for each in infos if each.operator_class == operator_class and each.index_valid]
    for index in attachment.indexes:
        _check_rows(name, table, attachment, index, serving)
    if info.index_predicate is not None:
        warnings.warn(_only_partial(name, info), PartialIndexWarning, stacklevel=4)
    if attachment.definition.has_column:
        _warn_of_policies(connection, table, attachment)
    return info


def _warn_of_policies(connection: Connection, table: Table, attachment: Attachment) -> None:
    """Each search of a role under a policy is filtered by it, whatever the application writes."""
    owner = relation_name(connection, server_name(connection, table))
    leading = {state.index.columns[0] for state in filter_index_states(connection, owner, attachment.short)}
    for policy, filtered in policies(connection, owner):
        if not leading & set(filtered):
            names = ", ".join(map(repr, filtered))
            warnings.warn(
                f"the policy {policy} filters each search of {table.fullname} by {' and '.join(filtered)}, and no "
                f"covering index begins with it: declare filters=[FilterIndex({names})]",
                PolicyIndexWarning,
                stacklevel=5,
            )


def _check_filter_indexes(connection: Connection, table: Table, attachment: Attachment) -> None:
    """The covering indexes that the model declares, whatever their names."""
    if not attachment.filters:
        return
    existing = filter_index_states(connection, server_name(connection, table), attachment.short)
    for declared in attachment.filters:
        states = [state for state in existing if state.index.serves(declared)]
        if not states:
            raise NotMigrated(
                f"{table.fullname} has no index on {', '.join(declared.columns)} that includes {attachment.short} and "
                f"{', '.join(declared.include) or 'nothing else'}, so a search with that filter is slow: run the "
                "migration that adds it"
            )
        if not any(state.valid for state in states):
            raise NotMigrated(f"index {states[0].name} is invalid: REINDEX INDEX CONCURRENTLY {states[0].name}")


def _check_rows(name: str, table: Table, attachment: Attachment, index: Hnsw, serving: list[ColumnInfo]) -> None:
    """A declared index is there: one of all rows, or one under its condition, however the server prints that."""
    predicate, own_name = loose_predicate(index.predicate), index.index_name(table.name, str(attachment.short))
    if index.predicate is None and all(each.index_predicate is not None for each in serving):
        raise NotMigrated(f"{_only_partial(name, serving[0])}: run the migration that adds the index of all rows")
    for each in serving:
        named = each.index_name in {quoted(own_name), qualified(each.table_schema, own_name)}
        if index.predicate is None or named or loose_predicate(each.index_predicate) == predicate:
            return
    raise NotMigrated(f"{name} has no valid HNSW index WHERE {index.predicate}: run the migration that adds it")


def _only_partial(name: str, info: ColumnInfo) -> str:
    return (
        f"{name} has only a partial HNSW index ({info.index_name}), so a search whose filter does not imply its "
        f"condition {info.index_predicate} reads the whole table"
    )


def _check_reads(connection: Connection, info: ColumnInfo) -> None:
    """The trigger of a short column still reads the full one: a name in it may have become another column's."""
    state = table_state(connection, info.table_schema, info.table_name)
    trigger = None if state is None else state.sync_triggers.get(info.short_column)
    if state is not None and trigger is not None and trigger.misread(state.columns):
        place = f"{info.table_schema}.{info.table_name}.{info.full_column}"
        raise NotMigrated(
            f"columns of {info.table_name} were renamed: the trigger of {info.short_column} reads "
            f"{' and '.join(trigger.installed_names or ())}, expected {info.full_column} and {info.short_column}: "
            f"`pgmrl backfill {place} --repair`"
        )


def _check_copied(connection: Connection, column: Any, side_table: Table) -> None:
    """The application's table has a trigger that copies into the side table, and that finds what it names."""
    owner = base_column(column).table
    schema = translated_schema(connection, owner.schema)
    state = table_state(connection, schema, owner.name)
    copying = () if state is None else [side for side in state.sides if side.full == base_column(column).name]
    if state is None or not copying:
        raise NotMigrated(
            f"nothing copies {owner.name}.{base_column(column).name} into {side_table.fullname}: run the migration "
            "that adds the side table"
        )
    for side in copying:
        broken = broken_copy(connection, state, side)
        if broken is not None:
            raise NotMigrated(
                f"the trigger that copies {owner.name} into {side.side} fails: {broken.reason}: {broken.remedy}"
            )


def _no_expression_index(table: Table, attachment: Attachment) -> str:
    definition = attachment.definition
    expression = f"{definition.short_sql(attachment.full)} {definition.operator_class}"
    return (
        f"{table.fullname} has no HNSW index on ({expression}), so a search reads the whole table: run the migration "
        "that adds it"
    )


def short_column_infos(
    connection: Connection, table: Table, attachment: Attachment, infos: Iterable[ColumnInfo]
) -> list[ColumnInfo]:
    """The catalogue's rows for the short column of a Table: one for each of its indexes.

    Args:
        connection: of the database.
        table: that holds the vectors; without a schema the search_path decides.
        attachment: of the column.
        infos: of `database.columns`.
    """
    schema = translated_schema(connection, table.schema) or table_schema(connection, table.name)
    names = (schema, table.name, attachment.full, attachment.short)
    return [
        info for info in infos if (info.table_schema, info.table_name, info.full_column, info.short_column) == names
    ]


def _column_types(connection: Connection, table: Table) -> dict[str, str]:
    query = text(
        "SELECT a.attname, format_type(a.atttypid, a.atttypmod) FROM pg_attribute AS a "
        "WHERE a.attrelid = to_regclass(:name) AND a.attnum > 0 AND NOT a.attisdropped"
    )
    rows = catalogue_result(connection, query, {"name": server_name(connection, table)})
    return {name: type_.rsplit(".", 1)[-1] for name, type_ in rows}


def _check_type(table: Table, name: str, types: dict[str, str], expected: str) -> None:
    if name not in types:
        raise NotMigrated(f"table {table.fullname} has no column {name}: run the migration that adds it")
    if types[name] != expected:
        raise NotMigrated(
            f"{table.fullname}.{name}: expected {expected} (the model), got {types[name]}: migrate one of them"
        )
