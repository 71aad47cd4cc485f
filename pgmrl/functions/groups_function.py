"""The function `…_search_groups`: the groups whose nearest rows are nearest, and the nearest rows of each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pgmrl.functions.callable_function import (
    callable_function,
    no_key,
    passed_filters,
    query_and_k,
    row_limit,
    shared_arguments,
)
from pgmrl.functions.plpgsql import Refusal, dynamic_text, value_of
from pgmrl.functions.shortlist_ranking import OPTION, K, ShortlistRanking, distances, winner_arrays
from pgmrl.model.ranking_sql import groups_sql
from pgmrl.names import quoted

if TYPE_CHECKING:
    from pgmrl.functions.searched_column import SearchedColumn

__all__ = ["groups_function", "groups_ranking"]

GROUP: Final = "group_key"
PER_GROUP_LIMIT: Final = 1000


def groups_ranking(column: SearchedColumn, group_by: str) -> ShortlistRanking:
    """The nearest groups of the shortlist, as `search_groups` ranks it.

    Args:
        column: the column.
        group_by: the column whose values are the groups.
    """
    numbers = (value_of(number) for number in (K, OPTION, f"{K} * {OPTION}"))
    groups = groups_sql(distances(column, GROUP), column.key_names, GROUP, *numbers)
    ranking = (
        f", grouped AS ({groups}) SELECT max(group_rank) AS listed, {winner_arrays(column, 'group_rank, place')} "
        "FROM grouped"
    )
    return ShortlistRanking(
        "search_groups",
        dynamic_text(f"({value_of('candidates')})"),  # a limit on rows would leave groups out
        ranking,
        rows=f"{K}::numeric * coalesce({OPTION}, 1)",
        tuned=False,
        incomplete=f"coalesce(winners.listed, 0) < {K}",
        returned="winners.listed::integer",
        carried=f", t.{quoted(group_by)} AS {GROUP}",
        argument="per_group integer",
        refusals=(
            Refusal(
                f"{OPTION} IS NULL OR {OPTION} NOT BETWEEN 1 AND {PER_GROUP_LIMIT}",
                f"'per_group is ' || coalesce({OPTION}::text, 'NULL')",
                f"Give 1 to {PER_GROUP_LIMIT} rows of each group.",
            ),
            Refusal(
                f"shortlist_size < {K}::bigint * {OPTION}",
                f"format('shortlist is %s, k is %s, per_group is %s', shortlist_size, {K}, {OPTION})",
                "The rows of all groups come out of the shortlist: give k times per_group or more.",
            ),
        ),
    )


def groups_function(column: SearchedColumn, group_by: str) -> list[str]:
    """The statements that make the function people call; arguments as `groups_ranking`."""
    return callable_function(
        column,
        "search_groups",
        [*query_and_k(column), "per_group integer DEFAULT 1", *shared_arguments(column)],
        "search_groups",
        ["$1", "$2", "$4", "$5", "$3", *no_key(column), *passed_filters(column, 6)],
        f"{row_limit('$2')} * {row_limit('$3')}",
        f"the nearest rows of {column.table} by {group_by}: k groups, nearest first",
    )
