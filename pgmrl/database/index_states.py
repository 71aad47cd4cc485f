"""Indexes of short vectors as the catalogue has them, HNSW and covering ones, and the builds that run now."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import text

from pgmrl.database.catalogue import relation_titles
from pgmrl.database.search_path import catalogue_result
from pgmrl.database.sql import load as load_sql
from pgmrl.model.filter_index import FilterIndex
from pgmrl.model.hnsw import Hnsw

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = [
    "BuildProgress",
    "FilterIndexState",
    "IndexState",
    "build_progress",
    "filter_index_states",
    "index_states",
]


@dataclass(frozen=True, slots=True)
class IndexState:
    """An HNSW index on a short column, as the catalogue has it.

    Attributes:
        oid: of the index.
        name: its name.
        operator_class: of its column.
        index: build parameters, and the condition of a partial index as the server prints it.
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
class FilterIndexState:
    """A B-tree that includes a short column, as the catalogue has it, whoever made it.

    Attributes:
        oid: of the index.
        name: its name.
        schema: of its table.
        table: its table.
        short: the short column that it includes.
        index: its columns, and what it includes beside the short vector.
        valid: False after an interrupted build, and while one runs.
        bytes: its size.
        builder: the process that is building it, or None.
    """

    oid: int
    name: str
    schema: str
    table: str
    short: str
    index: FilterIndex
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


_STATES = f"""
SELECT i.oid, i.relname, o.opcname, i.reloptions, pg_get_expr(x.indpred, x.indrelid) AS predicate,
    x.indisvalid AND x.indisready AS valid,
    CASE WHEN i.relkind = 'I' THEN (SELECT sum(pg_relation_size(r.relid)) FROM pg_partition_tree(i.oid) AS r)::bigint
        ELSE pg_relation_size(i.oid) END AS bytes,
    (SELECT p.pid FROM pg_stat_progress_create_index AS p WHERE p.index_relid = i.oid LIMIT 1) AS builder
FROM pg_index AS x
JOIN pg_class AS i ON i.oid = x.indexrelid
JOIN pg_am AS am ON am.oid = i.relam AND am.amname = 'hnsw'
JOIN pg_opclass AS o ON o.oid = x.indclass[0]
LEFT JOIN pg_attribute AS a ON a.attrelid = x.indrelid AND a.attnum = x.indkey[0]
LEFT JOIN ({load_sql("expression_indexes")}) AS e ON e.index_oid = x.indexrelid
WHERE x.indrelid = to_regclass(:owner) AND coalesce(a.attname, e.short_column) = :short
  AND x.indnatts = 1
ORDER BY x.indpred IS NOT NULL, i.relname
"""  # noqa: S608 - pgmrl's own text

# Of partitioned tables the parent's; with a predicate, an expression or UNIQUE an index is the application's own.
_FILTER_STATES: Final = """
SELECT i.oid, i.relname AS name, n.nspname AS schema, c.relname AS table, s.attname AS short,
    ARRAY(SELECT a.attname::text FROM unnest(x.indkey) WITH ORDINALITY AS k (number, place)
          JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = k.number
          WHERE k.place <= x.indnkeyatts ORDER BY k.place) AS columns,
    ARRAY(SELECT a.attname::text FROM unnest(x.indkey) WITH ORDINALITY AS k (number, place)
          JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = k.number
          WHERE k.place > x.indnkeyatts AND k.number <> s.attnum ORDER BY k.place) AS include,
    x.indisvalid AND x.indisready AS valid,
    CASE WHEN i.relkind = 'I' THEN (SELECT sum(pg_relation_size(r.relid)) FROM pg_partition_tree(i.oid) AS r)::bigint
        ELSE pg_relation_size(i.oid) END AS bytes,
    (SELECT p.pid FROM pg_stat_progress_create_index AS p WHERE p.index_relid = i.oid LIMIT 1) AS builder
FROM pg_index AS x
JOIN pg_class AS i ON i.oid = x.indexrelid
JOIN pg_am AS am ON am.oid = i.relam AND am.amname = 'btree'
JOIN pg_class AS c ON c.oid = x.indrelid
JOIN pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_attribute AS s ON s.attrelid = c.oid AND s.attnum = ANY (x.indkey[x.indnkeyatts:])
JOIN pg_type AS t ON t.oid = s.atttypid AND t.typname IN ('halfvec', 'vector', 'bit')
WHERE CASE WHEN CAST(:owner AS text) IS NULL THEN NOT c.relispartition ELSE c.oid = to_regclass(:owner) END
    AND x.indpred IS NULL AND x.indexprs IS NULL AND NOT x.indisunique
ORDER BY n.nspname, c.relname, i.relname, s.attname
"""

_PROGRESS = """
SELECT p.relid AS table, p.index_relid AS index, p.pid, p.phase,
    CASE WHEN p.blocks_total > 0 THEN p.blocks_done ELSE p.tuples_done END AS done,
    CASE WHEN p.blocks_total > 0 THEN p.blocks_total ELSE p.tuples_total END AS total,
    p.lockers_total - p.lockers_done AS waiting_for
FROM pg_stat_progress_create_index AS p JOIN pg_database AS d ON d.oid = p.datid AND d.datname = current_database()
ORDER BY p.relid::regclass::text, p.index_relid::regclass::text
"""


def index_states(connection: Connection, owner: str, short: str) -> list[IndexState]:
    """The HNSW indexes on a short column, or on an expression where no column holds the short vectors.

    Partial ones last.

    Args:
        connection: of the database.
        owner: the table as SQL text.
        short: the name of the short vectors, `Definition.short_name`.
    """
    rows = catalogue_result(connection, text(_STATES), {"owner": owner, "short": short})
    return [
        IndexState(
            row.oid,
            row.relname,
            row.opcname,
            _hnsw(row.reloptions, row.predicate),
            row.valid,
            row.bytes or 0,
            row.builder,
        )
        for row in rows
    ]


def filter_index_states(connection: Connection, owner: str | None, short: str | None = None) -> list[FilterIndexState]:
    """The B-trees that include a vector beside the columns that searches filter by.

    Args:
        connection: of the database.
        owner: the table as SQL text; None for all tables.
        short: the short column; None for any vector that an index includes.
    """
    rows = catalogue_result(connection, text(_FILTER_STATES), {"owner": owner})
    return [
        FilterIndexState(
            row.oid,
            row.name,
            row.schema,
            row.table,
            row.short,
            FilterIndex(*row.columns, include=row.include),
            row.valid,
            row.bytes or 0,
            row.builder,
        )
        for row in rows
        if short is None or row.short == short
    ]


def build_progress(connection: Connection) -> list[BuildProgress]:
    """The index builds that run in this database now."""
    rows = catalogue_result(connection, _PROGRESS).all()
    titles = relation_titles(connection, [oid for table, index, *_ in rows for oid in (table, index)])
    return [BuildProgress(titles.get(table, "-"), titles.get(index, "-"), *row) for table, index, *row in rows]


def _hnsw(options: list[str] | None, predicate: str | None) -> Hnsw:
    parameters = dict(option.split("=", 1) for option in options or ())
    # pgvector's own defaults, not ours
    return Hnsw(int(parameters.get("m", 16)), int(parameters.get("ef_construction", 64)), predicate)
