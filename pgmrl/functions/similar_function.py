"""The function `…_similar`: the rows most like one of the table's own, without that one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgmrl.functions.callable_function import callable_function, passed_filters, row_limit, shared_arguments
from pgmrl.functions.plpgsql import numbered

if TYPE_CHECKING:
    from pgmrl.functions.searched_column import SearchedColumn

__all__ = ["similar_function"]


def similar_function(column: SearchedColumn) -> list[str]:
    """The statements that make the function people call."""
    count = len(column.key_columns)
    key, (k, shortlist, exact) = numbered(1, count), numbered(count + 1, 3)
    vector = f"{column.qualified_name('vector')}({', '.join(key)})"
    return callable_function(
        column,
        "similar",
        [*column.key_arguments, "k integer DEFAULT 10", *shared_arguments(column)],
        "search",
        [vector, k, shortlist, exact, *key, *passed_filters(column, count + 4)],
        row_limit(k),
        f"the rows of {column.table} most like one of them, without that one",
    )
