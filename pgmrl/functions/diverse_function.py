"""The function `…_search_diverse`: rows near to a vector that differ from each other."""

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
from pgmrl.functions.plpgsql import Refusal, value_of
from pgmrl.functions.shortlist_ranking import (
    OPTION,
    K,
    ShortlistRanking,
    distances,
    exact_shortlist,
    winner_arrays,
)
from pgmrl.model.ranking_sql import diverse_sql, numbered_sql

if TYPE_CHECKING:
    from pgmrl.functions.searched_column import SearchedColumn

__all__ = ["diverse_function", "diverse_ranking"]


def diverse_ranking(column: SearchedColumn) -> ShortlistRanking:
    """Maximal marginal relevance over the shortlist, as `search_diverse` picks."""
    keys = column.key_names
    numbered = numbered_sql(f"{distances(column, 'full_vector')} AS d", keys)
    winners = diverse_sql(column.qualified_definition, "numbered", keys, value_of(OPTION), value_of(K))
    ranking = (
        f", numbered AS MATERIALIZED ({numbered}), winners AS ({winners}) "
        f"SELECT (SELECT count(*) FROM shortlist) AS listed, {winner_arrays(column, 'place')} FROM winners"
    )
    return ShortlistRanking(
        "search_diverse",
        exact_shortlist(column),
        ranking,
        rows=f"{K}::numeric",
        tuned=False,
        carried="" if column.distributed is None else f", {column.full_vector} AS full_vector",
        argument="relevance double precision",
        refusals=(
            Refusal(
                f"{OPTION} IS NULL OR {OPTION} NOT BETWEEN 0 AND 1",  # NaN is greater than 1
                f"'relevance is ' || coalesce({OPTION}::text, 'NULL')",
                "Give 1 for the nearest rows, less for rows that differ from each other.",
            ),
        ),
    )


def diverse_function(column: SearchedColumn) -> list[str]:
    """The statements that make the function people call."""
    return callable_function(
        column,
        "search_diverse",
        [*query_and_k(column), "relevance double precision DEFAULT 0.5", *shared_arguments(column)],
        "search_diverse",
        ["$1", "$2", "$4", "$5", "$3", *no_key(column), *passed_filters(column, 6)],
        row_limit("$2"),
        f"rows of {column.table} near to a vector that differ from each other (maximal marginal relevance)",
    )
