"""The statement's text: its parts, their names, and how they become the caller's Select.

    WITH pgmrl_shortlist AS MATERIALIZED (
        SELECT <key>, <full> FROM … WHERE <the caller's filters> AND <gate>
        ORDER BY <short> <=> <short of the query> LIMIT <shortlist>
    ), pgmrl_results AS (
        SELECT <key>, <full> <=> :query AS distance FROM pgmrl_shortlist ORDER BY distance, <key> LIMIT <k>
    )
    SELECT <the caller's columns>, pgmrl_results.distance
    FROM …, pgmrl_results
    WHERE <the caller's filters> AND <key> = pgmrl_results.<key>
    ORDER BY pgmrl_results.distance, <key>

The gate sets the scan's parameters for this statement alone (pgmrl.searching.scan): it becomes an InitPlan and so runs
before the index scan opens. There is no SET round trip, and nothing is left behind in a pooled connection.

The CTEs nest in the Select they belong to, so a statement can hold two searches. With a filter, pages or thresholds the
results are ranked by pgmrl.searching.fallback; groups, picks, cuts and fused lists have modules of their own.

The rerank is text and constants: as constructs of SQLAlchemy it would take most of the time that building a search
takes.
"""

from __future__ import annotations

from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import Float, column, table, text

from pgmrl.model.ranking_sql import key_names, nearest_sql
from pgmrl.searching.more_like_this import MoreLikeThis
from pgmrl.searching.query import BoundQuery, bind_query
from pgmrl.searching.selected_rows import SHORTLIST, SelectedRows, materialized, selected_rows

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import CTE, ColumnElement, FromClause

    from pgmrl.model.shortening import Definition
    from pgmrl.searching.options import SearchParameters
    from pgmrl.searching.subject import AnySelect

__all__ = [
    "RESULTS",
    "SHORTLIST",
    "Results",
    "join_results",
    "materialized",
    "prepare_search",
    "rerank_sql",
    "reranked",
    "results_table",
]

RESULTS: Final = "pgmrl_results"
HAS_DISTANCE: Final = text(f"{RESULTS}.distance != 'NaN'")  # nor NULL: a row without a vector has none


class Results(NamedTuple):
    """The rows of the result by key, as something to join.

    Attributes:
        table: key and distance; its columns are `key_1`, …, `distance`.
        ctes: what defines it, in order.

    """

    table: FromClause
    ctes: tuple[CTE, ...]


def prepare_search(
    parameters: SearchParameters, statement: AnySelect, query: Any, extra: Mapping[str, Any] = MappingProxyType({})
) -> tuple[SelectedRows, BoundQuery]:
    """The rows of a search and its query, whatever that is given as.

    Args:
        parameters: column and options.
        statement: the caller's Select.
        query: a vector, the caller's parameter, an expression or examples.
        extra: further columns of the searched table, by the labels they get.

    Raises:
        SearchError: as `selected_rows` and `bind_query`.
        VectorError: the vector cannot be searched with.
        DefinitionError: the table has no primary key.

    """
    definition = parameters.definition
    rows = selected_rows(statement, parameters.column, parameters.attachment, extra)
    if isinstance(query, MoreLikeThis):
        query, rows = query.vector(definition), query.without_examples(rows, parameters.column)
    return rows, bind_query(definition, query, f"the query for {parameters.name}", exact=parameters.exact)


def reranked(definition: Definition, shortlist: Sequence[CTE], query: BoundQuery, key_columns: int, k: int) -> Results:
    """The k nearest of a shortlist, for one query."""
    rerank = query.text(rerank_sql(definition, query.full, key_columns, k)).columns()
    ctes = (*query.ctes, *shortlist, rerank.cte(RESULTS))
    return Results(results_table(key_columns), ctes)


def rerank_sql(definition: Definition, query: str, key_columns: int, k: int) -> str:
    """The k nearest of the shortlist, as text.

    Args:
        definition: of the column.
        query: SQL text of the query's full vector.
        key_columns: columns of the primary key.
        k: how many.

    """
    return nearest_sql(definition, query, key_names(key_columns), SHORTLIST, str(k))


@lru_cache(maxsize=64)
def results_table(key_columns: int, *numbers: str) -> FromClause:
    """The results by name, with key, distance and further numbers."""
    return table(RESULTS, *map(column, key_names(key_columns)), column("distance", Float()), *map(column, numbers))


def join_results(
    statement: AnySelect, keys: Sequence[ColumnElement[Any]], results: FromClause, *first: ColumnElement[Any]
) -> AnySelect:
    """The caller's Select for the rows of the result only, nearest first.

    Args:
        statement: the caller's Select.
        keys: the key's columns in it.
        results: key and distance, called and with columns as `results_table` has them.
        *first: what they are ordered by before the distance.

    """
    same = [key == results.c[name] for name, key in zip(key_names(len(keys)), keys, strict=True)]
    return statement.where(*same, HAS_DISTANCE).order_by(*first, results.c.distance, *keys)
