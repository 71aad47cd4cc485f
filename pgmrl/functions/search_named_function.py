"""The function `…_search_named`: the rows nearest to a named query of `pgmrl.queries`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgmrl.functions.callable_function import callable_function, no_key, passed_filters, row_limit, shared_arguments
from pgmrl.names import literal, qualified

if TYPE_CHECKING:
    from pgmrl.functions.searched_column import SearchedColumn

__all__ = ["search_named_function"]


def search_named_function(column: SearchedColumn) -> list[str]:
    """The statements that make the function people call."""
    place = f"{literal(qualified(column.schema, column.table))}, {literal(column.full_column)}"
    return callable_function(
        column,
        "search_named",
        ["name text", "k integer DEFAULT 10", *shared_arguments(column)],
        "search",
        [
            f"pgmrl.query_v1({place}, $1)::{column.vector_type}",
            *("$2", "$3", "$4"),
            *no_key(column),
            *passed_filters(column, 5),
        ],
        row_limit("$2"),
        f"the rows of {column.table} nearest to a named query (pgmrl.queries)",
    )
