"""Whether what searches read fits in memory, and what the next index build needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pgmrl.doctor.checks.registry import column_check, database_check
from pgmrl.doctor.checks.vacuum import PRIMARY_ONLY
from pgmrl.doctor.finding import Problem, Unchecked
from pgmrl.names import literal
from pgmrl.online.plan import graph_bytes
from pgmrl.units import shown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgmrl.doctor.check_context import CheckContext
    from pgmrl.doctor.checked_columns import CheckedColumn

__all__ = ["build_memory", "memory"]

MEMORY_SQL: Final = (
    "SELECT pg_size_bytes(current_setting('shared_buffers')) AS shared_buffers,\n"
    "    pg_size_bytes(current_setting('effective_cache_size')) AS cache,\n"
    "    (SELECT source = 'default' FROM pg_settings WHERE name = 'effective_cache_size') AS is_default"
)


@database_check("memory", "warning", "short indexes, and their tables, larger than the server's memory")
def memory(context: CheckContext) -> Iterator[Problem]:
    """All short indexes against the server's memory."""
    row = context.row(MEMORY_SQL)
    indexes = sum(index.bytes for column in context.columns for index in column.all_indexes if index.valid)
    tables = sum({column.owner: column.size.table for column in context.columns}.values())
    values = {
        "index_bytes": indexes,
        "table_bytes": tables,
        "shared_buffers": row.shared_buffers,
        "cache_bytes": row.cache,
    }
    origin = "the default, which may not be this server's memory" if row.is_default else "as configured"
    cache = f"effective_cache_size, {shown(row.cache)} ({origin})"
    names = ", ".join(literal(column.owner) for column in context.columns)
    sql = (
        f"SELECT t::regclass AS table, pg_size_pretty(pg_indexes_size(t::regclass)) AS indexes, "
        f"pg_size_pretty(pg_table_size(t::regclass)) AS rows FROM unnest(ARRAY[{names}]) AS t"
        if names
        else ""
    )
    if indexes > row.cache:
        yield Problem(
            f"the short indexes have {shown(indexes)} together, more than {cache}: searches read from disk",
            "Add memory to the server, or configure the memory it has (ALTER SYSTEM SET effective_cache_size). Else "
            "fewer short dimensions or `bit`: `pgmrl reshape start`; REINDEX CONCURRENTLY where an index is bloated.",
            sql,
            values,
        )
        return
    if indexes > row.shared_buffers:
        yield Problem(
            f"the short indexes have {shown(indexes)} together, more than shared_buffers, {shown(row.shared_buffers)}: "
            "what does not fit is read from the operating system's cache, at the cost of a copy for each page",
            "Set shared_buffers above their size, if the machine has the memory. It takes a restart.",
            sql,
            values,
            "info",
        )
    if indexes + tables > row.cache:
        yield Problem(
            f"the short indexes and their tables have {shown(indexes + tables)} together, more than {cache}: the full "
            "vectors of a shortlist are partly read from disk",
            "Nothing, if searches are fast enough. Full vectors in half precision take half: `pgmrl reshape start`.",
            sql,
            values,
            "info",
        )


@column_check("build-memory", "info", "maintenance_work_mem too small to rebuild the index")
def build_memory(context: CheckContext, column: CheckedColumn) -> Iterator[Problem | Unchecked]:
    """Whether a REINDEX would keep its graph in memory."""
    if not column.indexes or column.partitioned:
        return  # partitions are built one at a time: the memory of all together says nothing
    if context.server.standby:
        yield Unchecked(PRIMARY_ONLY)
        return
    sql = "SELECT pg_size_bytes(current_setting('maintenance_work_mem')) AS bytes"
    configured = context.row(sql).bytes
    largest = max(column.indexes, key=lambda index: index.index.m)
    needed = graph_bytes(column.target, largest.index, column.size.rows)
    if needed > configured:
        yield Problem(
            f"rebuilding the index of {column.size.rows:,} rows needs about {shown(needed)}, maintenance_work_mem is "
            f"{shown(configured)}: a build that needs more memory is many times slower",
            f"Before a REINDEX: SET maintenance_work_mem = '{needed // 1024**2 + 1}MB';  in that session.",
            sql,
            {"needed_bytes": needed, "maintenance_work_mem": configured},
        )
