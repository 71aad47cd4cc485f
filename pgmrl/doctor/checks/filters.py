"""Filters of searches: those that no covering index answers, and covering indexes that do not do their work.

A covering index is a B-tree whose leading columns are a filter's and that carries the short vector and the key: an
index-only scan of it is an exact shortlist, and the wide rows of the table are not read for it.
"""

from __future__ import annotations

import re
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final

from pgmrl.database.index_states import FilterIndexState, filter_index_states
from pgmrl.database.policies import policies_sql
from pgmrl.database.table_state import table_state
from pgmrl.doctor.checked_columns import partitions_sql
from pgmrl.doctor.checks.registry import column_check
from pgmrl.doctor.finding import Problem, Unchecked
from pgmrl.errors import PgmrlError
from pgmrl.model.filter_index import FilterIndex
from pgmrl.names import literal, qualified, quoted
from pgmrl.online.filter_columns import completed
from pgmrl.online.index_statements import create_statement, drop_statement
from pgmrl.searching.selected_rows import CANDIDATES
from pgmrl.units import shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import Row

    from pgmrl.doctor.check_context import CheckContext
    from pgmrl.doctor.checked_columns import CheckedColumn

__all__ = ["covering_index_unused", "filter_without_index", "policy_without_index", "visibility_map"]

_NAME: Final = r'(?:"(?:[^"]|"")+"|[A-Za-z_\u0080-\U0010ffff][\w$]*)'
_CANDIDATES: Final = re.compile(
    rf"{CANDIDATES} AS MATERIALIZED \s*\(\s*SELECT .*?\sFROM (?:(?P<schema>{_NAME})\.)?(?P<table>{_NAME})"
    rf"(?: AS (?P<alias>{_NAME}))?\s+WHERE (?P<where>.*?) ORDER BY (?P<order>.*?)\s+LIMIT ",
    re.DOTALL,
)


# -- covering indexes ----------------------------------------------------------------------------------------------


def _covering_indexes(context: CheckContext, column: CheckedColumn) -> list[FilterIndexState]:
    """The valid ones of a column."""
    states = filter_index_states(context.connection, column.owner, column.short) if column.definition.has_column else []
    return [state for state in states if state.valid]


def _covered(states: list[FilterIndexState], wanted: FilterIndex) -> bool:
    """Whether an index begins with these columns, in any order, and carries the key."""
    columns, keys = set(wanted.columns), set(wanted.include)
    return any(
        set(state.index.columns[: len(columns)]) == columns and keys <= {*state.index.columns, *state.index.include}
        for state in states
    )


def _possible(context: CheckContext, column: CheckedColumn, filters: Sequence[str]) -> FilterIndex | None:
    """A covering index by these columns, with the key's; None where none can be: too wide, or nothing to carry."""
    if not column.definition.has_column:
        return None
    try:
        index = completed(context.connection, column.target, FilterIndex(*filters))
    except PgmrlError:
        return None
    return index if isinstance(index, FilterIndex) else None


def _create_remedy(column: CheckedColumn, index: FilterIndex, include: Sequence[str] = ()) -> str:
    """The statement that makes a covering index, and what a model says."""
    complete = FilterIndex(*index.columns, include=[*index.include, *include])
    declared = FilterIndex(*index.columns, include=include)
    return (
        f"{create_statement(column.target, complete, concurrently=not column.partitioned)};  or in the model "
        f"filters=[{declared!r}]"
    )


# -- filters that are used -----------------------------------------------------------------------------------------


@column_check("filter-without-index", "warning", "a filter that is often used, without a covering index")
def filter_without_index(context: CheckContext, column: CheckedColumn) -> Iterator[Problem | Unchecked]:
    """From what pg_stat_statements has of searches, where it is installed in this database."""
    schema = next((row[0] for row in context.rows(_STATEMENTS_SCHEMA)), None)
    if schema is None or not column.definition.has_column:
        return
    if not context.server.monitors:
        yield Unchecked(f"statements of other roles are hidden: GRANT pg_read_all_stats TO {context.server.role}")
    sql = (
        f"SELECT s.query, s.calls, s.mean_exec_time AS ms FROM {quoted(schema)}.pg_stat_statements AS s\n"
        "JOIN pg_database AS d ON d.oid = s.dbid AND d.datname = current_database()\n"
        f"WHERE s.query LIKE '%{CANDIDATES}%' ORDER BY s.calls DESC"
    )
    calls: dict[tuple[str, ...], int] = defaultdict(int)
    further: dict[tuple[str, ...], set[str]] = defaultdict(set)
    slowest: dict[tuple[str, ...], float] = defaultdict(float)
    for row in context.rows(sql):
        filters, others = _filter_columns(context, column, row.query)
        calls[filters] += row.calls
        further[filters] |= set(others)
        slowest[filters] = max(slowest[filters], row.ms)
    states = _covering_indexes(context, column)
    for filters, count in calls.items():
        index = _possible(context, column, filters) if filters else None
        if index is None or count < context.thresholds.filter_calls or _covered(states, index):
            continue
        names = " and ".join(filters)
        yield Problem(
            f"{count:,} searches filtered by {names} (up to {slowest[filters]:,.1f} ms on average), and no covering "
            "index has the short vectors by it: each walks the graph past rows that the filter does not let through, "
            "or reads their wide rows",
            _create_remedy(column, index, sorted(further[filters])),
            sql,
            {"filter": list(filters), "calls": count, "ms": slowest[filters]},
        )


_STATEMENTS_SCHEMA: Final = (
    "SELECT n.nspname FROM pg_extension AS e JOIN pg_namespace AS n ON n.oid = e.extnamespace "
    "WHERE e.extname = 'pg_stat_statements' AND has_schema_privilege(n.oid, 'USAGE')"
)


def _filter_columns(context: CheckContext, column: CheckedColumn, query: str) -> tuple[tuple[str, ...], list[str]]:
    """The columns that a search's filter compares with values, in the table's order, and others that it reads.

    Empty where the statement is not a search of this column, or filters by something else.
    """
    shortlist = _CANDIDATES.search(query)
    if shortlist is None or _unquoted(shortlist["table"]) != column.target.table:
        return (), []
    schema = shortlist["schema"]
    if schema is not None and _unquoted(schema) != column.target.schema:
        return (), []
    if quoted(column.short) not in shortlist["order"]:
        return (), []
    prefix = shortlist["alias"] or shortlist["table"]
    where = shortlist["where"].partition(" AND (SELECT ")[0]  # the gate comes behind the caller's conditions
    own = rf'(?<![\w$"]){re.escape(prefix)}\.({_NAME})'
    read = set(map(_unquoted, re.findall(own, where)))
    compared = set(map(_unquoted, re.findall(rf"{own} (?:= |IN \(|IS NOT DISTINCT FROM )", where)))
    order = _columns_in_order(context, column)
    filters = tuple(name for name in order if name in compared)
    return filters, [name for name in order if name in read - compared]


def _columns_in_order(context: CheckContext, column: CheckedColumn) -> list[str]:
    """The table's columns but vectors."""
    key: tuple[Any, ...] = (_columns_in_order, column.owner)
    if key not in context.cache:
        state = table_state(context.connection, column.target.schema, column.target.table)
        columns = {} if state is None else state.columns
        context.cache[key] = [name for name, each in columns.items() if each.dims is None]
    names: list[str] = context.cache[key]
    return names


def _unquoted(name: str) -> str:
    return name[1:-1].replace('""', '"') if name.startswith('"') else name


# -- row-level security --------------------------------------------------------------------------------------------


@column_check("policy-without-index", "info", "row-level security by columns without a covering index")
def policy_without_index(context: CheckContext, column: CheckedColumn) -> Iterator[Problem]:
    """Each search of a role under a policy is filtered by it."""
    if column.stage == "retired":
        return
    sql = policies_sql(column.owner)
    leading = {state.index.columns[0] for state in _covering_indexes(context, column)}
    for row in context.rows(sql):
        index = _possible(context, column, row.columns)
        if index is None or leading & set(row.columns):
            continue
        yield Problem(
            f"the policy {row.policy} filters each search by {' and '.join(row.columns)}, and no covering index begins "
            "with it: for a role with few of the rows a search walks the graph past the others' rows",
            _create_remedy(column, index),
            sql,
            {"policy": row.policy, "columns": list(row.columns)},
        )


# -- covering indexes that do not do their work --------------------------------------------------------------------


@column_check("covering-index-unused", "info", "a covering index that no search uses")
def covering_index_unused(context: CheckContext, column: CheckedColumn) -> Iterator[Problem]:
    """Never scanned since the statistics began."""
    for index in _covering_indexes(context, column):
        name = qualified(column.target.schema, index.name)
        sql = (
            "SELECT coalesce(sum(pg_stat_get_numscans(p.relid)), 0) AS scans,\n"
            "    extract(epoch FROM now() - coalesce(d.stats_reset, pg_postmaster_start_time()))::float8 AS seconds,\n"
            "    (SELECT count(*) FROM pg_stat_replication) AS standbys\n"
            f"FROM {partitions_sql(literal(name) + '::regclass')} AS p, pg_stat_database AS d\n"
            "WHERE d.datname = current_database() GROUP BY d.stats_reset"
        )
        row = context.row(sql)
        if row.scans or row.seconds < context.thresholds.unused_seconds:
            continue
        where = _elsewhere(context, row)
        drop = drop_statement(column.target.schema, index.name, concurrently=not column.partitioned)
        yield Problem(
            f"nothing has used the covering index {index.name} ({shown(index.bytes)}) in {row.seconds / 86_400:,.1f} "
            f"days{where}: every write maintains it",
            f"If it is new, or its filter rare, wait. Else {drop};  and remove it from the model",
            sql,
            {"index": index.name, "seconds": row.seconds, "bytes": index.bytes},
        )


def _elsewhere(context: CheckContext, row: Row[Any]) -> str:
    return " on this server, whose statistics are its own" if row.standbys or context.server.standby else ""


@column_check("visibility-map", "warning", "VACUUM behind, so that a covering index is not enough")
def visibility_map(context: CheckContext, column: CheckedColumn) -> Iterator[Problem]:
    """An index-only scan reads the table for each entry of a page that VACUUM has not marked all visible."""
    if not _covering_indexes(context, column):
        return
    sql = (
        "SELECT p.relid::regclass::text AS table, c.relallvisible AS visible,\n"
        "    greatest(c.relpages, pg_relation_size(p.relid) / current_setting('block_size')::integer) AS pages\n"
        f"FROM {partitions_sql(literal(column.owner) + '::regclass')} AS p\n"
        "JOIN pg_class AS c ON c.oid = p.relid AND c.relkind IN ('r', 'm')"
    )
    for row in context.rows(sql):
        if row.pages < context.thresholds.visible_pages or row.visible >= context.thresholds.visible_share * row.pages:
            continue
        yield Problem(
            f"{row.visible:,} of {row.pages:,} pages of {row.table} are marked all visible "
            f"({row.visible / row.pages:.0%}): for the entries of the others an index-only scan reads the wide rows",
            f"VACUUM {row.table};  and lower its autovacuum_vacuum_insert_scale_factor",
            sql,
            {"table": row.table, "visible": row.visible, "pages": row.pages},
        )
