"""The function `…_search`: the rows nearest to a vector."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgmrl.functions.callable_function import (
    callable_function,
    no_key,
    passed_filters,
    query_and_k,
    row_limit,
    shared_arguments,
)
from pgmrl.functions.plpgsql import value_of
from pgmrl.functions.shortlist_ranking import K, ShortlistRanking, exact_shortlist, nearest_distance, winner_arrays
from pgmrl.model.ranking_sql import nearest_sql

if TYPE_CHECKING:
    from pgmrl.functions.searched_column import SearchedColumn

__all__ = ["nearest_ranking", "search_function"]


def nearest_ranking(column: SearchedColumn) -> ShortlistRanking:
    """The k nearest of the shortlist, as `search` ranks it."""
    keys = column.key_names
    nearest = nearest_sql(nearest_distance(column), keys, "shortlist", value_of(K))
    arrays = winner_arrays(column, ", ".join(["distance", *keys]))
    ranking = (
        f", ranked AS ({nearest}) SELECT (SELECT count(*) FROM shortlist) AS listed, {arrays} FROM ranked "
        "WHERE distance <> 'NaN'"
    )
    # each shard sends as many rows as there are asked for
    exact = exact_shortlist(column) if column.distributed is None else exact_shortlist(column, K)
    return ShortlistRanking("search", exact, ranking, rows=f"{K}::numeric")


def search_function(column: SearchedColumn) -> list[str]:
    """The statements that make the function people call."""
    return callable_function(
        column,
        "search",
        [*query_and_k(column), *shared_arguments(column)],
        "search",
        ["$1", "$2", "$3", "$4", *no_key(column), *passed_filters(column, 5)],
        row_limit("$2"),
        f"the rows of {column.table} nearest to a vector",
    )
