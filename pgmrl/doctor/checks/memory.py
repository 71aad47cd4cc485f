"""Whether what searches read fits in memory, and what the next index build needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgmrl.doctor.examination import PRIMARY, Check, Skipped
from pgmrl.doctor.finding import Finding
from pgmrl.names import literal
from pgmrl.online.plan import graph_bytes
from pgmrl.units import shown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgmrl.doctor.examination import Exam
    from pgmrl.doctor.examined_columns import Subject

__all__ = ["CHECKS"]

MEMORY_SQL = (
    "SELECT pg_size_bytes(current_setting('shared_buffers')) AS buffers,\n"
    "    pg_size_bytes(current_setting('effective_cache_size')) AS cache,\n"
    "    (SELECT source = 'default' FROM pg_settings WHERE name = 'effective_cache_size') AS untold"
)


def memory(exam: Exam) -> Iterator[Finding]:
    """All short indexes against the server's memory."""
    row = exam.one(MEMORY_SQL)
    indexes = sum(index.bytes for subject in exam.subjects for index in subject.indexes if index.valid)
    tables = sum({subject.owner: subject.size.table for subject in exam.subjects}.values())
    values = {"index_bytes": indexes, "table_bytes": tables, "shared_buffers": row.buffers, "cache_bytes": row.cache}
    told = "its default, which nobody has set" if row.untold else "what the server was told to count on"
    cache = f"effective_cache_size, {shown(row.cache)} ({told})"
    names = ", ".join(literal(subject.owner) for subject in exam.subjects)
    sql = (
        f"SELECT t::regclass AS table, pg_size_pretty(pg_indexes_size(t::regclass)) AS indexes, "
        f"pg_size_pretty(pg_table_size(t::regclass)) AS rows FROM unnest(ARRAY[{names}]) AS t"
        if names
        else ""
    )
    subject = "database"
    if indexes > row.cache:
        message = f"the short indexes have {shown(indexes)} together, more than {cache}: searches read from disk"
        remedy = (
            "Give the server memory, or tell it of what it has (ALTER SYSTEM SET effective_cache_size). Else fewer "
            "short dimensions or `bit`: `pgmrl reshape`; REINDEX CONCURRENTLY where an index has bloated."
        )
        yield Finding("memory", "warning", subject, message, remedy, sql, values)
        return
    if indexes > row.buffers:
        message = f"the short indexes have {shown(indexes)} together, more than shared_buffers, {shown(row.buffers)}: "
        message += "what does not fit comes from the system's cache, at the cost of a copy for each page"
        remedy = "Set shared_buffers above their size, where the machine has the memory. It takes a restart."
        yield Finding("memory", "info", subject, message, remedy, sql, values)
    if indexes + tables > row.cache:
        message = f"the short indexes and their tables have {shown(indexes + tables)} together, more than {cache}: "
        message += "the full vectors of a shortlist are partly read from disk"
        remedy = "Nothing, while searches are fast enough. Full vectors in half precision take half: `pgmrl reshape`."
        yield Finding("memory", "info", subject, message, remedy, sql, values)


def build_memory(exam: Exam, subject: Subject) -> Iterator[Finding]:
    """Whether a REINDEX would keep its graph in memory."""
    if not subject.indexes or subject.partitioned:
        return  # partitions are built one at a time: what all of them would take says nothing
    if exam.server.standby:
        raise Skipped(PRIMARY)
    sql = "SELECT pg_size_bytes(current_setting('maintenance_work_mem')) AS bytes"
    have = exam.one(sql).bytes
    needed = graph_bytes(subject.target, max(subject.indexes, key=lambda one: one.index.m).index, subject.size.rows)
    if needed <= have:
        return
    yield Finding(
        "build-memory",
        "info",
        subject.name,
        f"to build the index of {subject.size.rows:,} rows anew takes about {shown(needed)}; maintenance_work_mem is "
        f"{shown(have)}, past which a build is many times slower",
        f"Before a REINDEX: SET maintenance_work_mem = '{needed // 1024**2 + 1}MB';  in that session.",
        sql,
        {"needed_bytes": needed, "maintenance_work_mem": have},
    )


CHECKS = (
    Check("memory", "warning", "short indexes, and their tables, larger than the server's memory", once=memory),
    Check("build-memory", "info", "maintenance_work_mem too small to build the index anew", each=build_memory),
)
