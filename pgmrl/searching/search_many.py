"""Many query vectors searched in one statement."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVarTuple, Unpack, cast

import numpy as np
from sqlalchemy import ColumnElement, Float, Integer, literal_column, select, text, union_all
from sqlalchemy.orm import InstrumentedAttribute

from pgmrl.errors import SearchError
from pgmrl.model.compat import Select
from pgmrl.model.ranking_sql import key_names
from pgmrl.model.vectors import query_vectors
from pgmrl.searching.arguments import check_labels
from pgmrl.searching.distributed_statement import over_shards, searched_rows
from pgmrl.searching.fallback import Ranking
from pgmrl.searching.more_like_this import MoreLikeThis
from pgmrl.searching.options import SearchOptions, SearchParameters
from pgmrl.searching.pages import Page
from pgmrl.searching.query import QUERIES, BoundQuery, query_rows, vectors_parameters
from pgmrl.searching.search import search
from pgmrl.searching.search_result import search_result
from pgmrl.searching.statement import RESULTS, join_results
from pgmrl.searching.subject import AnySelect
from pgmrl.searching.templates import Shaped, search_of_shape

if TYPE_CHECKING:
    from sqlalchemy import CTE, FromClause

    from pgmrl.model.vectors import VectorArray
    from pgmrl.searching.selected_rows import SelectedRows

__all__ = ["search_many"]

Ts = TypeVarTuple("Ts")


def search_many(
    statement: Select[*Ts],
    column: InstrumentedAttribute[Any] | ColumnElement[Any],
    queries: Any,
    *,
    k: int = 10,
    label: str = "distance",
    query_label: str = "query",
    **options: Unpack[SearchOptions],
) -> Select[*Ts, int, float]:
    """Search for many query vectors in one statement, each as `search` would.

    `statement`, `column`, `k`, `label` and the options are those of `search`, and so are the errors. Over all shards
    of a distributed table the queries are searched one after the other, within the statement.

    Args:
        queries: shape (n, dims), n at least 1.
        query_label: the name of the query's number in the result.
        **options: for each query: see `SearchOptions`.

    Returns:
        The Select with the query's number (counted from 0) and the distance as two more columns, ordered by both.

    Raises:
        VectorError: a query that cannot be searched with; the first is named by its number.

    """
    check_labels(label, query_label)
    parameters = SearchParameters.of(statement, column, k, options)
    vectors = _checked(parameters, queries)
    definition = parameters.definition
    own = vectors_parameters(definition, vectors)
    select_ = cast("AnySelect", statement)

    def joined(rows: SelectedRows, results: FromClause, numbered: AnySelect) -> Select[Any]:
        searched = join_results(numbered, rows.keys, results, results.c["number"])
        return search_result(searched.add_columns(*_added_columns(query_label, label)))

    if over_shards(select_, column, parameters.attachment):
        rows = searched_rows(select_, column, parameters.attachment)
        return joined(rows, _over_shards(select_, rows, column, vectors, k=parameters.k, **options), select_)

    def build() -> Select[Any]:
        query_table = query_rows(definition, *own)
        rows = searched_rows(select_, column, parameters.attachment)
        number: ColumnElement[int] = query_table.c["number"]
        results = _exact(parameters, rows, query_table) if parameters.exact else _of_shortlist(parameters, rows)
        # equal by construction; it comes first, since a LATERAL reads what stands before it
        numbered = select_.where(number == results.c["number"]).add_cte(query_table, nest_here=True)
        return joined(rows, results, numbered)

    subjects = (parameters.column, parameters.attachment)
    shape = ("many", parameters.k, parameters.scan, parameters.exact, parameters.complete, query_label, label)
    return search_of_shape(select_, Shaped(build, shape, subjects, own))


@lru_cache(maxsize=64)
def _added_columns(number: str, distance: str) -> tuple[ColumnElement[Any], ...]:
    """The columns behind the caller's, by name: those of the results belong to one search."""
    return (
        literal_column(f"{RESULTS}.number", Integer()).label(number),
        literal_column(f"{RESULTS}.distance", Float()).label(distance),
    )


def _checked(parameters: SearchParameters, queries: Any) -> VectorArray:
    if isinstance(queries, MoreLikeThis):
        raise SearchError(
            "search_many: expected vectors of shape (n, dims), got more_like_this(...): give it to search"
        )
    definition = parameters.definition
    name, check = parameters.name, definition.query if parameters.exact else definition.short_query
    vectors = query_vectors(queries, definition.dims, f"the queries for {name}")
    if not len(vectors):
        raise SearchError("there are no queries: give at least one vector")
    return np.stack([check(vector, f"query {row} for {name}") for row, vector in enumerate(vectors)])


def _exact(parameters: SearchParameters, rows: SelectedRows, query_table: CTE) -> FromClause:
    """The results of one query of many, of all rows."""
    own_rows = replace(rows, select=rows.select.correlate(query_table))
    ranked = own_rows.exact_ranking(parameters.definition, query_table.c.full_query, parameters.k)
    return ranked.add_columns(query_table.c["number"].label("number")).correlate(query_table).lateral(RESULTS)


def _of_shortlist(parameters: SearchParameters, rows: SelectedRows) -> FromClause:
    """The results of one query of many; in text, since its parts are CTEs inside a LATERAL."""
    bound = BoundQuery(None, f"{QUERIES}.full_query", f"{QUERIES}.short_query")
    # inside a LATERAL SQLAlchemy would take the caller's table for one of the outer statement's
    own_rows = replace(rows, select=rows.select.correlate(None))
    shortlist = own_rows.shortlist(parameters.definition, bound, parameters.scan)
    ranking = Ranking(parameters.definition, own_rows, bound, Page(parameters.k))
    table, ctes = ranking.of_shortlist(shortlist, fallback=parameters.complete)
    names = [column.name for column in table.c]
    body = text(f"SELECT {', '.join(names)}, {QUERIES}.number FROM {RESULTS}")  # noqa: S608 - names of our own
    return (
        body.columns(*(literal_column(name) for name in (*names, "number")))
        .add_cte(*ctes, nest_here=True)
        .lateral(RESULTS)
    )


def _over_shards(
    statement: AnySelect, rows: SelectedRows, column: Any, vectors: VectorArray, **options: Any
) -> FromClause:
    """The results of all queries: each a search of its own, since Citus has no LIMIT inside a LATERAL over shards."""
    width = len(rows.keys)
    # what is joined hangs on the columns that are there
    keyed = statement.with_only_columns(*rows.keys) if rows.direct else statement.add_columns(*rows.keys)
    parts = []
    for number, vector in enumerate(vectors):
        found = search(keyed, column, vector, label="pgmrl_distance", **options).subquery(f"pgmrl_query_{number}")
        *keys, distance = list(found.c)[-width - 1 :]
        named = [key.label(name) for name, key in zip(key_names(width), keys, strict=True)]
        parts.append(select(literal_column(str(number), Integer()).label("number"), *named, distance.label("distance")))
    return union_all(*parts).subquery(RESULTS)
