"""What the server's catalogue says of Matryoshka columns and of tables."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

from sqlalchemy import Connection, text
from sqlalchemy.orm import Session

from pgmrl.database.connection import sqlalchemy_connection
from pgmrl.database.search_path import caller_path, catalogue_result, relation_name
from pgmrl.database.shards import shard_rows
from pgmrl.database.sql import load as load_sql
from pgmrl.names import qualified

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any


__all__ = [
    "ColumnInfo",
    "columns",
    "foreign_partitions_sql",
    "new_table_schema",
    "relation_titles",
    "row_estimate",
    "row_estimates",
    "table_schema",
]


@dataclass(frozen=True, slots=True)
class ColumnInfo:
    """One Matryoshka column, as the catalogue has it; the view pgmrl.columns has the same.

    Attributes:
        table_schema: schema of the table.
        table_name: the table.
        full_column: the full vector's column.
        full_type: `vector` or `halfvec`.
        full_dims: its dimensions.
        short_column: the short vector's column, or the name of short vectors that only an index computes.
        short_type: `halfvec`, `vector` or `bit`.
        short_dims: its dimensions.
        metric: from the operator class or the trigger; None for bits of a prefix, whose catalogue does not say.
        shortening: `prefix` or `rotation`.
        rotation: its id.
        index_name: the HNSW index on the short column; None where there is none.
        operator_class: of that index.
        index_predicate: the condition of a partial index, as the server prints it; None for an index of all rows.
        index_valid: False after an interrupted concurrent build.
        index_bytes: its size.
        table_bytes: the table's size with TOAST, without indexes.
        estimated_rows: as of the last ANALYZE; -1 before the first.
        kept_by: `generated` (a generated column), `trigger`, or `index` (its expression computes them).
        stage: `arriving` or `retired` while a reshape has two short columns side by side; else None.

    """

    table_schema: str
    table_name: str
    full_column: str
    full_type: str
    full_dims: int | None
    short_column: str
    short_type: str
    short_dims: int | None
    metric: str | None
    shortening: str
    rotation: str | None
    index_name: str | None
    operator_class: str | None
    index_predicate: str | None
    index_valid: bool | None
    index_bytes: int | None
    table_bytes: int
    estimated_rows: int
    kept_by: str
    stage: str | None


def row_estimate(connection: Connection, name: str) -> float | None:
    """A table's rows by its statistics and its size now, as the planner does, with its partitions.

    Args:
        connection: of the database.
        name: of the table, quoted.

    Returns:
        None where the table has pages and no statistics yet; 0 where there is no such table. Of a distributed table the
        rows of its shards as of their last ANALYZE.

    """
    estimate = row_estimates(connection, [name])[name]
    return shard_rows(connection, relation_name(connection, name)) if estimate == 0 else estimate


def row_estimates(connection: Connection, names: Sequence[str]) -> dict[str, float | None]:
    """As `row_estimate`, of several tables or indexes by one statement."""
    query = text(
        "SELECT relation.name, coalesce(estimate.rows, 0)::float8, estimate.unknown "
        "FROM unnest(CAST(:names AS text[])) AS relation(name) CROSS JOIN LATERAL (SELECT "
        "sum(p.reltuples / p.relpages * (pg_relation_size(p.oid) / current_setting('block_size')::integer)) "
        "FILTER (WHERE p.relpages > 0) AS rows, "
        "coalesce(bool_or(p.relpages = 0 AND pg_relation_size(p.oid) > 0), false) AS unknown "
        "FROM (SELECT to_regclass(relation.name)::oid AS oid UNION "
        "SELECT t.relid::oid FROM pg_partition_tree(to_regclass(relation.name)) AS t WHERE t.isleaf) AS leaf "
        "JOIN pg_class AS p ON p.oid = leaf.oid AND p.relkind NOT IN ('p', 'I')) AS estimate"
    )
    resolved = {name: relation_name(connection, name) for name in names}
    estimates = catalogue_result(connection, query, {"names": list(resolved.values())})
    rows_of = {name: None if unknown else rows for name, rows, unknown in estimates}
    return {name: rows_of[relation] for name, relation in resolved.items()}


def foreign_partitions_sql(relation: str) -> str:
    """A statement for the partitions of a table that are foreign tables: of them this server has no index.

    Args:
        relation: the partitioned table, as SQL text of a regclass.
    """
    return (
        f"SELECT t.relid::regclass::text AS foreign_partition FROM pg_partition_tree({relation}) AS t\n"  # noqa: S608
        "JOIN pg_class AS c ON c.oid = t.relid AND c.relkind = 'f' ORDER BY 1"
    )


def table_schema(connection: Connection, table: str) -> str | None:
    """The schema in which a table of this name is found by the search_path; None where there is none."""
    query = text(  # safe under the caller's path
        "SELECT n.nspname FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n "
        "ON n.oid OPERATOR(pg_catalog.=) c.relnamespace "
        "WHERE c.oid OPERATOR(pg_catalog.=) CAST(pg_catalog.to_regclass(:name) AS pg_catalog.oid)"
    )
    with caller_path(connection):
        schema: str | None = connection.execute(query, {"name": qualified(None, table)}).scalar()
    return schema


def new_table_schema(connection: Connection, table: str) -> str | None:
    """As `table_schema`; where there is no such table, the schema in which it would be made."""
    schema = table_schema(connection, table)
    if schema is None:
        with caller_path(connection):
            schema = connection.execute(text("SELECT pg_catalog.current_schema()")).scalar()
    return schema


def columns(connection: Connection | Session) -> list[ColumnInfo]:
    """All Matryoshka columns of the database; needs nothing of pgmrl's in it."""
    connection = sqlalchemy_connection(connection)
    names = ", ".join(field.name + ("::oid" if field.name == "index_name" else "") for field in fields(ColumnInfo))
    # of several indexes the one of all rows first, then by their conditions
    order = "ORDER BY 1, 2, 3, 6, index_predicate NULLS FIRST, index_name::oid"
    query = f"SELECT {names} FROM ({load_sql('columns')}) AS c {order}"  # noqa: S608
    infos = [ColumnInfo(*row) for row in catalogue_result(connection, query)]
    index_names = relation_titles(connection, [info.index_name for info in infos if info.index_name is not None])
    return [replace(info, index_name=index_names.get(info.index_name)) for info in infos]


def relation_titles(connection: Connection, oids: Iterable[Any]) -> dict[Any, str]:
    """Names of tables and indexes by their oid, as the caller would write them: with a schema where it needs one."""
    query = text(  # safe under the caller's path
        "SELECT r.oid, r.oid::pg_catalog.regclass::pg_catalog.text "
        "FROM pg_catalog.unnest(CAST(:oids AS pg_catalog.oid[])) AS r(oid)"
    )
    distinct = sorted(set(oids))
    if not distinct:
        return {}
    with caller_path(connection):
        return dict(tuple(row) for row in connection.execute(query, {"oids": distinct}))
