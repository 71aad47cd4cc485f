"""The statement's text: its parts, their names, and how they become the caller's Select.

    WITH pgmrl_reranked AS (
        SELECT <key>, <full> <=> :query AS distance FROM (
            SELECT <key>, <full> FROM … WHERE <the caller's filters>
            ORDER BY <short> <=> (SELECT <short of the query> WHERE <gate>) LIMIT <shortlist>
        ) AS pgmrl_shortlist
    ), pgmrl_results AS (
        SELECT <key>, distance FROM pgmrl_reranked ORDER BY distance, <key> LIMIT <k>
    )
    SELECT <the caller's columns>, pgmrl_results.distance
    FROM …, pgmrl_results
    WHERE <the caller's filters> AND <key> = pgmrl_results.<key>
    ORDER BY pgmrl_results.distance, <key>

The gate sets the scan's parameters for this statement alone (pgmrl.searching.scan): the order of the index scan depends
on it, and so it runs before the scan opens. There is no SET round trip, and nothing is left behind in a pooled
connection. The shortlist's full vectors are not kept, only their distances.

The CTEs nest in the Select they belong to, so a statement can hold two searches. With a filter, pages or thresholds the
results are ranked by pgmrl.searching.fallback; groups, picks, cuts and fused lists have modules of their own.

The rerank is text and constants: as constructs of SQLAlchemy it would take most of the time that building a search
takes.
"""

from __future__ import annotations

from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from sqlalchemy import ColumnElement, Float, column, table, text

from pgmrl.model.ranking_sql import key_names
from pgmrl.searching.distributed_statement import searched_rows
from pgmrl.searching.more_like_this import MoreLikeThis
from pgmrl.searching.query import BoundQuery, bind_query, bound_vector, vector_parameters
from pgmrl.searching.selected_rows import SHORTLIST, SelectedRows, materialized
from pgmrl.searching.templates import Shaped

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping, Sequence

    from sqlalchemy import CTE, BindParameter, FromClause

    from pgmrl.searching.options import SearchParameters
    from pgmrl.searching.subject import AnySelect

__all__ = [
    "RESULTS",
    "SHORTLIST",
    "Results",
    "join_results",
    "labelled",
    "materialized",
    "results_table",
    "shaped",
]

T = TypeVar("T")

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


def shaped(
    parameters: SearchParameters,
    statement: AnySelect,
    query: Any,
    build: Callable[[SelectedRows, BoundQuery], T],
    *options: Hashable,
    own: Sequence[BindParameter[Any]] = (),
    extra: Mapping[str, Any] = MappingProxyType({}),
) -> Shaped[T]:
    """A search that has not been built, with its rows and its query, whatever that is given as.

    Args:
        parameters: column and options.
        statement: the caller's Select.
        query: a vector, the caller's parameter, an expression or examples.
        build: makes it from its rows and its query.
        *options: what else it depends on, compared by value; the first tells it from other kinds of search.
        own: its parameters besides the query.
        extra: further columns of the searched table, by the labels they get.

    Raises:
        VectorError: the vector cannot be searched with.

    """
    definition, exact = parameters.definition, parameters.exact
    what = f"the query for {parameters.name}"
    if isinstance(query, ColumnElement | MoreLikeThis):  # whose shape is not known without building it

        def build_for_query() -> T:
            rows = searched_rows(statement, parameters.column, parameters.attachment, extra)
            vector = query
            if isinstance(query, MoreLikeThis):
                vector, rows = query.vector(definition), query.without_examples(rows, parameters.column)
            return build(rows, bind_query(definition, vector, what, exact=exact))

        return Shaped(build_for_query, None)
    shorten = bool(parameters.attachment.distributed)  # the shards would do so, each for itself
    sent = vector_parameters(definition, query, what, exact=exact, shorten=shorten)

    def build_for_vector() -> T:
        rows = searched_rows(statement, parameters.column, parameters.attachment, extra)
        return build(rows, bound_vector(definition, *sent, exact=exact))

    subjects = (parameters.column, parameters.attachment, *extra.values())
    shape = (*options, parameters.k, parameters.scan, exact, parameters.complete, *extra)
    return Shaped(build_for_vector, shape, subjects, [*(value for value in sent if value is not None), *own])


@lru_cache(maxsize=512)
def labelled(element: ColumnElement[Any], label: str) -> ColumnElement[Any]:
    """A column that a search adds; the same object for all searches of a shape, which `PendingSearch` relies on."""
    return element.label(label)


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
