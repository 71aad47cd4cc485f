"""HNSW indexes: missing, invalid, of the wrong operator class, duplicate or unused."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING

from pgmrl.doctor.checked_columns import partitions_sql
from pgmrl.doctor.checks.registry import column_check
from pgmrl.doctor.finding import Problem
from pgmrl.model.columns import attachment_of
from pgmrl.names import literal, qualified, quoted
from pgmrl.online.index_statements import beside, create_statement, drop_statement
from pgmrl.units import shown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgmrl.database.index_states import IndexState
    from pgmrl.doctor.check_context import CheckContext
    from pgmrl.doctor.checked_columns import CheckedColumn
    from pgmrl.model.hnsw import Hnsw

__all__ = ["index_duplicate", "index_invalid", "index_missing", "index_operator_class", "index_unused"]


def _indexes_sql(column: CheckedColumn) -> str:
    """The statement that lists the indexes on a short column, of any kind."""
    return (
        "SELECT x.indexrelid::regclass AS index, m.amname AS kind, o.opcname AS operator_class, x.indisvalid AS valid, "
        "x.indpred IS NOT NULL AS partial, pg_size_pretty(pg_relation_size(x.indexrelid)) AS size\n"
        "FROM pg_index AS x JOIN pg_class AS i ON i.oid = x.indexrelid JOIN pg_am AS m ON m.oid = i.relam\n"
        "JOIN pg_opclass AS o ON o.oid = x.indclass[0]\n"
        f"WHERE x.indrelid = {literal(column.owner)}::regclass AND {_indexed(column)}"
    )


def _indexed(column: CheckedColumn) -> str:
    """What the index is on, as a condition."""
    if column.definition.has_column:
        return (
            "x.indkey[0] = (SELECT a.attnum FROM pg_attribute AS a "
            f"WHERE a.attrelid = x.indrelid AND a.attname = {literal(column.short)})"
        )
    indexes = ", ".join(str(index.oid) for index in column.all_indexes) or "0"
    return f"x.indexrelid IN ({indexes})"


def _declared(column: CheckedColumn) -> Hnsw:
    """The index of all rows as the model declares it, or would."""
    return replace(attachment_of(column.searched).index, where=None)


def _default_name(column: CheckedColumn) -> str:
    """The name that models and migrations give the index."""
    return _declared(column).index_name(column.target.table, column.short)


def _create_sql(context: CheckContext, column: CheckedColumn) -> tuple[str, str]:
    """The statement that builds the index that searches need, and its name: another one where the default is taken."""
    name = _default_name(column)
    qualified_name = literal(qualified(column.target.schema, name))
    if context.row(f"SELECT to_regclass({qualified_name}) IS NOT NULL AS taken").taken:
        name, _ = beside(name)
    # on a partitioned table the server refuses CONCURRENTLY; op.create_short_index goes by partition
    index, concurrently = _declared(column), not column.partitioned
    return create_statement(column.target, index, concurrently=concurrently, name=name), name


def _drop_sql(column: CheckedColumn, index: IndexState) -> str:
    """The statement that drops an index; for a partitioned table the server refuses CONCURRENTLY."""
    return drop_statement(column.target.schema, index.name, concurrently=not column.partitioned)


@column_check("index-missing", "warning", "no HNSW index on the short column")
def index_missing(context: CheckContext, column: CheckedColumn) -> Iterator[Problem]:
    """No HNSW index, nor a valid one of another kind."""
    sql = _indexes_sql(column)
    if column.indexes or any(row.valid and not row.partial for row in context.rows(sql)):
        return
    partial = [index for index in column.partial_indexes if index.valid]
    if partial:
        yield _only_partial(context, column, partial)
        return
    rows = column.size.rows
    idle = column.stage is not None or rows < context.thresholds.small_rows
    yield Problem(
        f"{column.short} has no HNSW index: each search reads all {rows:,} rows",
        f"{_create_sql(context, column)[0]};  or op.create_short_index in a migration",
        sql,
        {"rows": rows},
        "info" if idle else "warning",
    )


def _only_partial(context: CheckContext, column: CheckedColumn, partial: list[IndexState]) -> Problem:
    """Nothing is wrong where every search has the filter."""
    names = " and ".join(f"{index.name} (WHERE {index.index.predicate})" for index in partial)
    return Problem(
        f"{column.short} has no HNSW index of all rows, only the partial {names}: a search whose filter does not imply "
        f"the condition reads all {column.size.rows:,} rows",
        f"Nothing, where every search has that filter. Else {_create_sql(context, column)[0]};  or Hnsw() beside "
        "Hnsw(where=...) in the model",
        _indexes_sql(column),
        {"rows": column.size.rows, "partial": {index.name: index.index.predicate for index in partial}},
        "info",
    )


@column_check("index-invalid", "warning", "an index left INVALID by an interrupted concurrent build")
def index_invalid(context: CheckContext, column: CheckedColumn) -> Iterator[Problem]:
    """An index that every write maintains and no search uses."""
    for index in column.all_indexes:
        if index.valid:
            continue
        name = qualified(column.target.schema, index.name)
        values = {"index": index.name, "bytes": index.bytes}
        if index.builder is not None:
            message = f"index {index.name} is being built by process {index.builder}"
            yield Problem(message, "Wait: `pgmrl progress`.", values=values, severity="info")
            continue
        message = f"index {index.name} is INVALID, left by an interrupted CREATE INDEX CONCURRENTLY: every write "
        message += "maintains it and no search uses it"
        repair, sql = _repair(context, column, name)
        if index.index.predicate is not None and index.operator_class == column.operator_class:
            remedy = repair
        elif column.indexed:
            remedy = f"{_drop_sql(column, index)};  another index serves the searches"
        elif index.operator_class != column.operator_class:
            remedy = f"{_drop_sql(column, index)};  it is for another metric than the searches'"
        else:
            message += f", so each search reads all {column.size.rows:,} rows"
            remedy = repair
        yield Problem(message, remedy, sql, values)


def _repair(context: CheckContext, column: CheckedColumn, name: str) -> tuple[str, str]:
    """What makes an index valid, and the statement that shows what is wrong."""
    if not column.partitioned:
        return f"REINDEX INDEX CONCURRENTLY {name};", _indexes_sql(column)
    sql = (
        "SELECT t.relid::regclass AS partition_without_index\n"
        f"FROM pg_partition_tree({literal(column.owner)}::regclass) AS t\n"
        f"WHERE t.isleaf AND NOT EXISTS (SELECT FROM pg_partition_tree({literal(name)}::regclass) AS i "
        "JOIN pg_index AS x ON x.indexrelid = i.relid WHERE x.indrelid = t.relid AND x.indisvalid)"
    )
    partitions = ", ".join(str(row[0]) for row in context.rows(sql))
    return f"Run op.create_short_index again: it builds the missing index on {partitions or 'each partition'}.", sql


@column_check("index-operator-class", "warning", "an index for another metric than the searches'")
def index_operator_class(context: CheckContext, column: CheckedColumn) -> Iterator[Problem]:
    """An index for another metric, and none for the searches'."""
    expected = column.operator_class
    index = next((index for index in column.indexes if index.valid and index.operator_class != expected), None)
    if index is None or column.indexed:
        return
    if any(index.operator_class == expected for index in column.indexes):
        remedy = f"First the remedy of `index-invalid` for the other index;  then {_drop_sql(column, index)};"
    else:
        create, name = _create_sql(context, column)
        remedy = f"{create};  then {_drop_sql(column, index)};"
        if index.name == _default_name(column):
            new = qualified(column.target.schema, name)
            remedy += f"  then ALTER INDEX {new} RENAME TO {quoted(index.name)};"
    yield Problem(
        f"index {index.name} has the operator class {index.operator_class}, searches by "
        f"{column.definition.metric.name} need {expected}: each reads all {column.size.rows:,} rows",
        remedy,
        _indexes_sql(column),
        {"index": index.name, "operator_class": index.operator_class, "expected": expected},
    )


@column_check("index-duplicate", "warning", "several indexes for the same searches")
def index_duplicate(_context: CheckContext, column: CheckedColumn) -> Iterator[Problem]:
    """Two indexes for the same searches; the one with the default name is kept, else the best one."""
    by_class: dict[str, list[IndexState]] = defaultdict(list)
    for index in column.indexes:
        if index.valid:
            by_class[index.operator_class].append(index)
    for indexes in by_class.values():
        if len(indexes) < 2:
            continue
        names = ", ".join(f"{index.name} (m={index.index.m}, {shown(index.bytes)})" for index in indexes)
        default = _default_name(column)
        kept = max(indexes, key=lambda i: (i.name == default, i.index.m, i.index.ef_construction, i.name))
        drops = "; ".join(_drop_sql(column, index) for index in indexes if index is not kept)
        yield Problem(
            f"{len(indexes)} indexes serve the same searches: {names}. Every write maintains all of them, and all take "
            "memory",
            f"Drop all but {kept.name}: {drops};",
            _indexes_sql(column),
            {"indexes": [index.name for index in indexes], "bytes": sum(index.bytes for index in indexes)},
        )


@column_check("index-unused", "warning", "an index that no search uses, while its table is read whole")
def index_unused(context: CheckContext, column: CheckedColumn) -> Iterator[Problem]:
    """Never scanned since the statistics began, while the table was read whole."""
    if column.stage is not None or column.size.rows < context.thresholds.small_rows:
        return
    for index in column.all_indexes:
        if not index.valid:
            continue
        sql = _scans_sql(column, qualified(column.target.schema, index.name))
        row = context.row(sql)
        if row.index_scans or row.seconds < context.thresholds.unused_seconds or not row.counted:
            continue
        replicated = row.standbys or context.server.standby
        many = row.reads >= context.thresholds.unused_reads and not replicated
        where = " on this server, whose statistics are its own;" if replicated else ","
        yield Problem(
            f"no search has used index {index.name} ({shown(index.bytes)}) in {row.seconds / 86_400:,.1f} days{where} "
            f"and its table was read whole {row.reads:,} times",
            "If it is new, wait. Else see the check `plan`, and whether searches use the metric's operator.",
            sql,
            {"index": index.name, "seconds": row.seconds, "reads": int(row.reads), "bytes": index.bytes},
            "warning" if many else "info",
        )


def _scans_sql(column: CheckedColumn, index: str) -> str:
    return (
        "SELECT (SELECT coalesce(sum(pg_stat_get_numscans(p.relid)), 0)\n"
        f"        FROM {partitions_sql(literal(index) + '::regclass')} AS p) AS index_scans,\n"
        "    (SELECT coalesce(sum(pg_stat_get_numscans(p.relid)), 0)\n"
        f"     FROM {partitions_sql(literal(column.owner) + '::regclass')} AS p) AS reads,\n"
        "    extract(epoch FROM now() - coalesce(d.stats_reset, pg_postmaster_start_time()))::float8 AS seconds,\n"
        "    (SELECT count(*) FROM pg_stat_replication) AS standbys,\n"
        "    current_setting('track_counts')::boolean AS counted\n"
        "FROM pg_stat_database AS d WHERE d.datname = current_database()"
    )
