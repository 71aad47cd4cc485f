"""The functions that people call: SQL around a worker, which the planner inlines.

So it knows how many rows `k => 50` returns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgmrl.functions.filter_arguments import filter_arguments
from pgmrl.functions.plpgsql import numbered
from pgmrl.functions.search_worker import COST
from pgmrl.names import literal, quoted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pgmrl.functions.searched_column import SearchedColumn

__all__ = [
    "callable_function",
    "comment_text",
    "no_key",
    "passed_filters",
    "query_and_k",
    "row_limit",
    "shared_arguments",
]


def shared_arguments(column: SearchedColumn) -> list[str]:
    """The arguments behind those of a function's own: shortlist, exact and the filters."""
    return ["shortlist integer DEFAULT NULL", "exact boolean DEFAULT false", *filter_arguments(column)]


def query_and_k(column: SearchedColumn) -> list[str]:
    """The first arguments of a function that searches by a vector."""
    return [f"query {column.vector_type}", "k integer DEFAULT 10"]


def no_key(column: SearchedColumn) -> list[str]:
    """What is passed to a worker where no row is left out."""
    return ["NULL"] * len(column.key_columns)


def passed_filters(column: SearchedColumn, first: int) -> list[str]:
    """The filters as they are passed to a worker.

    Args:
        column: the column.
        first: number of the first one's argument.
    """
    return numbered(first, len(column.functions.tests))


def row_limit(argument: str) -> str:
    """A number of rows for the planner; the worker refuses what is NULL or less than 1."""
    return f"GREATEST({argument}, 1)"


def comment_text(column: SearchedColumn, description: str) -> str:
    """A comment as a string constant: what something is, and of which column."""
    place = f"{column.schema}.{column.table}.{column.full_column} by {column.definition.metric.name}"
    return literal(f"{description}; {place}")


def callable_function(
    column: SearchedColumn,
    kind: str,
    arguments: Sequence[str],
    worker: str,
    passed: Sequence[str],
    limit: str,
    description: str,
    *,
    result: str = "hit",
    columns: Sequence[str] = ("distance", "similarity", "rank"),
) -> list[str]:
    """The statements that make one of them, with its comment.

    Args:
        column: the column.
        kind: of the function, such as `search_diverse`.
        arguments: with their types and defaults.
        worker: kind of the worker.
        passed: the worker's arguments, as SQL text.
        limit: the rows it returns at most, as SQL text.
        description: what it is.
        result: the type it returns.
        columns: of that type, between the key and `requested`, `returned`.
    """
    name = column.qualified_name(kind)
    names = [*column.result_key_names, *columns, "requested", "returned"]
    function = (
        f"CREATE OR REPLACE FUNCTION {name}({', '.join(arguments)}) RETURNS SETOF {column.qualified_name(result)}\n"
        f"LANGUAGE sql STABLE ROWS 10 COST {COST} SECURITY INVOKER\nBEGIN ATOMIC\n"
        f"    SELECT {', '.join(f's.{quoted(name)}' for name in names)}\n"
        f"    FROM {column.worker_name(worker)}({', '.join(passed)}) AS s\n    LIMIT {limit}; END"
    )
    return [function, f"COMMENT ON FUNCTION {name} IS {comment_text(column, description)}"]
