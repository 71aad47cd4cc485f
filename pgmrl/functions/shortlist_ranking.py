"""What a worker makes of its shortlist, and the parts that all rankings share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pgmrl.functions.plpgsql import dynamic_text, value_of
from pgmrl.limits import EF_SEARCH_LIMIT
from pgmrl.model.ranking_sql import distance_sql, distances_sql
from pgmrl.model.scan_settings import EXPECTED_CANDIDATES
from pgmrl.names import quoted

if TYPE_CHECKING:
    from pgmrl.functions.plpgsql import Refusal
    from pgmrl.functions.searched_column import SearchedColumn

__all__ = [
    "OPTION",
    "QUERY",
    "K",
    "ShortlistRanking",
    "all_rows",
    "distances",
    "exact_shortlist",
    "filtered_shortlist",
    "kept_shortlist",
    "nearest_distance",
    "shortlist",
    "winner_arrays",
]

SHARED_ARGUMENTS: Final = 4  # of every worker: query, k, shortlist, exact
QUERY: Final = "$1"
K: Final = "$2"
OPTION: Final = "$5"
"""A ranking's own argument."""


@dataclass(frozen=True, slots=True)
class ShortlistRanking:
    """How a worker ends its search; all parts are SQL text.

    A search without a filter runs it in a statement whose plan is kept.

    Attributes:
        kind: `search`, `search_groups` or `search_diverse`.
        exact_shortlist: an expression: the shortlist without the short index.
        ranking: from the shortlist to `listed`, which says how many were found, and arrays of distances and keys in
            their order; with `value_of` where values are put in.
        rows: how many rows are asked for, as `numeric`, by which the shortlist's default size goes.
        tuned: whether that is what tuning chose; not where the shortlist is what there is to pick from.
        incomplete: whether rows may be missing that the filters would let through; None: when the index gave up.
        returned: how many there are, for the result.
        carried: columns of the shortlist besides key and full vector, as SQL text that begins with a comma.
        argument: of its own, with its type, behind those of every worker.
        refusals: values of it that are refused.

    """

    kind: str
    exact_shortlist: str
    ranking: str
    rows: str
    tuned: bool = True
    incomplete: str | None = None
    returned: str = "pg_catalog.cardinality(winners.distance)"
    carried: str = ""
    argument: str | None = None
    refusals: tuple[Refusal, ...] = ()

    @property
    def fixed_arguments(self) -> int:
        """The number of arguments before the key and the filters."""
        return SHARED_ARGUMENTS + (self.argument is not None)


def all_rows(column: SearchedColumn, carried: str) -> str:
    """Key and full vector of all rows, ready for conditions; of a distributed table the distance for the vector.

    Args:
        column: the column.
        carried: of the ranking.
    """
    ranked = f"{column.full_vector} AS full_vector"
    if column.distributed is not None:
        ranked = f"{_distance(column)} AS distance"
    return f"SELECT {_keys(column)}, {ranked}{carried} FROM {column.from_clause} WHERE true"


def shortlist(nearest: str) -> str:
    """An expression: the shortlist of a search without a filter.

    Args:
        nearest: an order, ready for a limit.
    """
    return dynamic_text(
        f"WITH shortlist AS MATERIALIZED ({value_of('candidates')}{nearest}{value_of('shortlist_size')})"
    )


def kept_shortlist(candidates: str, nearest: str) -> str:
    """The same in a statement whose plan is kept, of at most so many rows as `ef_search` may be.

    The planner does not know the size then, and takes an unknown LIMIT for a tenth of what it is of; the limit inside
    keeps that to what a shortlist usually has. The rows come in order: as many are read as the outer one asks for.

    Args:
        candidates: what selects key and full vector.
        nearest: an order, ready for a limit.
    """
    listed = f"SELECT * FROM ({candidates}{nearest}{EF_SEARCH_LIMIT}) AS nearest LIMIT worker.shortlist_size"
    return f"WITH shortlist AS MATERIALIZED ({listed})"


def filtered_shortlist(column: SearchedColumn, nearest: str, carried: str) -> str:
    """An expression: the shortlist under a filter, found by key and short vector alone; see `SelectedRows.shortlist`.

    Args:
        column: the column.
        nearest: an order, ready for a limit.
        carried: of the ranking.
    """
    size, names = value_of("shortlist_size"), column.key_names
    same = " AND ".join(
        f"t.{quoted(name)} = nearest.{key}" for (name, _), key in zip(column.key_columns, names, strict=True)
    )
    return dynamic_text(
        f"WITH candidates AS MATERIALIZED (SELECT {_keys(column)} FROM {column.from_clause} WHERE true"
        f"{value_of('conditions')}{nearest}{value_of(f'{EXPECTED_CANDIDATES} * shortlist_size')}), "
        f"shortlist AS MATERIALIZED (SELECT {_keys(column)}, {column.full_vector} AS full_vector{carried} "
        f"FROM {column.from_clause} JOIN (SELECT {', '.join(names)} FROM candidates LIMIT {size}) AS nearest "
        f"ON {same} LIMIT {size})"
    )


def _keys(column: SearchedColumn) -> str:
    names = zip(column.key_columns, column.key_names, strict=True)
    return ", ".join(f"t.{quoted(name)} AS {key}" for (name, _), key in names)


def exact_shortlist(column: SearchedColumn, size: str = "shortlist_size") -> str:
    """An expression: the rows of the candidates that are nearest by their full vectors.

    Args:
        column: the column.
        size: how many, as an expression of PL/pgSQL.
    """
    keys = ", ".join(f"t.{quoted(name)}" for name, _ in column.key_columns)
    # + 0 keeps an index on the full vector out
    body = f"{value_of('candidates')} ORDER BY ({_distance(column)}) + 0, {keys} LIMIT {value_of(size)}"
    return dynamic_text(f"MATERIALIZED ({body})")


def distances(column: SearchedColumn, *more: str) -> str:
    """The shortlist's rows with their distances, as a subquery in parentheses.

    Args:
        column: the column.
        *more: columns of the shortlist that come along, besides the keys.
    """
    columns = ", ".join([*column.key_names, *more])
    if column.distributed is not None:
        return f"(SELECT {columns}, distance FROM shortlist)"
    return f"({distances_sql(column.qualified_definition, QUERY, columns, 'shortlist')})"


def nearest_distance(column: SearchedColumn) -> str:
    """The distance of a row of the shortlist: computed there, or by its shard."""
    return distance_sql(column.qualified_definition, QUERY) if column.distributed is None else "distance"


def _distance(column: SearchedColumn) -> str:
    return f"{column.full_vector} {column.qualified_definition.full_operator} {QUERY}"


def winner_arrays(column: SearchedColumn, order: str) -> str:
    """Distances and keys as arrays, in this order."""
    return ", ".join(f"array_agg({name} ORDER BY {order}) AS {name}" for name in ["distance", *column.key_names])
