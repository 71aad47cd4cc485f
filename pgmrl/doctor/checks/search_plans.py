"""The plan that the server makes for a search."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import select

from pgmrl.doctor.checks.registry import column_check
from pgmrl.doctor.checks.search_settings import search_numbers
from pgmrl.doctor.finding import Problem
from pgmrl.explanation.reasons import reasons
from pgmrl.measure import sampled_queries
from pgmrl.model.columns import attachment_of, base_column
from pgmrl.searching.plans import explained, index_serving
from pgmrl.searching.search import search

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import SelectBase

    from pgmrl.doctor.check_context import CheckContext
    from pgmrl.doctor.checked_columns import CheckedColumn
    from pgmrl.searching.plans import Node

__all__ = ["compiles", "jit", "plan"]


def _planned_search(context: CheckContext, column: CheckedColumn) -> tuple[SelectBase, Node]:
    """A search for the vector of a row, and its plan; made once for all checks."""
    key = (_planned_search, column.owner, column.short)
    if key not in context.cache:
        connection, searched = context.connection, base_column(column.searched)
        numbers = search_numbers(connection, searched)
        with context.path_of(column):
            query = sampled_queries(connection, searched, 1, seed=context.seed).vectors[0]
            statement = search(select(*searched.table.primary_key), searched, query, **numbers._asdict())
            context.cache[key] = statement, explained(connection, statement, "VERBOSE")["Plan"]
    planned: tuple[SelectBase, Node] = context.cache[key]
    return planned


@column_check("plan", "warning", "a search that the server plans without the short index")
def plan(context: CheckContext, column: CheckedColumn) -> Iterator[Problem]:
    """Whether the short index serves the shortlist."""
    # the checks of indexes report that there is none
    if attachment_of(column.searched).distributed:  # whose plan is made by the shards
        return
    if not column.serves or not column.indexed or column.size.rows < context.thresholds.small_rows:
        return
    statement, top = _planned_search(context, column)
    serving = index_serving(top)
    if serving.indexes:  # of a partitioned table, small partitions are rightly read whole
        return
    with context.path_of(column):
        why = "; ".join(reasons(context.connection, statement, top))
    operator, short = column.definition.short_operator, column.definition.short_sql(column.target.full)
    row = f"SELECT {short} FROM {column.owner} WHERE {short} IS NOT NULL LIMIT 1"
    yield Problem(
        f"a search of {column.size.rows:,} rows is planned without the short index: {serving.instead}. Why: {why}",
        f"ANALYZE {column.owner};  then see the checks `settings` and `statistics`, and random_page_cost (1.1 on "
        "SSDs). `pgmrl explain` shows the stages.",
        f"EXPLAIN SELECT 1 FROM {column.owner} ORDER BY {short} {operator} ({row}) LIMIT 100",
        {"instead": serving.instead, "why": why, "cost": top["Total Cost"]},
    )


@column_check("jit", "warning", "searches that the server compiles first")
def jit(context: CheckContext, column: CheckedColumn) -> Iterator[Problem]:
    """Whether the server would compile each search before it runs it."""
    if not column.serves or not column.indexed or attachment_of(column.searched).distributed:
        return
    sql = (
        "SELECT pg_jit_available() AS available, current_setting('jit')::boolean AS enabled,\n"
        "    current_setting('jit_above_cost')::float8 AS threshold"
    )
    row = context.row(sql)
    if not row.enabled:
        return
    cost = float(_planned_search(context, column)[1]["Total Cost"])
    if compiles(row.available, row.threshold, cost):
        yield Problem(
            f"a search has the estimated cost {cost:,.0f}, above jit_above_cost ({row.threshold:,.0f}): the server "
            "compiles it each time, which takes longer than the search",
            "ALTER DATABASE … SET jit = off;",
            sql,
            {"cost": cost, "jit_above_cost": row.threshold},
        )


def compiles(available: bool, threshold: float, cost: float) -> bool:
    """Whether a server with JIT enabled compiles a statement of this cost; a threshold of -1 is never reached."""
    return available and 0 <= threshold < cost
