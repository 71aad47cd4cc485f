"""Many query vectors searched in one statement."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVarTuple, cast

from sqlalchemy import Select, literal_column, text

from pgmrl.errors import SearchError
from pgmrl.model.vectors import as_vectors
from pgmrl.searching import statement as parts
from pgmrl.searching.fallback import Ranking
from pgmrl.searching.more_like_this import MoreLikeThis
from pgmrl.searching.options import Page, SearchOptions
from pgmrl.searching.query import QUERIES, BoundQuery, query_rows
from pgmrl.searching.statement import SHORTLIST, WINNERS, materialized
from pgmrl.searching.subject import AnySelect

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, FromClause
    from sqlalchemy.orm import InstrumentedAttribute

    from pgmrl.searching.statement import Candidates

__all__ = ["search_many"]

Ts = TypeVarTuple("Ts")


def search_many(
    statement: Select[*Ts],
    column: InstrumentedAttribute[Any] | ColumnElement[Any],
    queries: Any,
    *,
    k: int = 10,
    shortlist: int | None = None,
    oversample: float | None = None,
    ef_search: int | None = None,
    exact: bool = False,
    complete: bool | None = None,
    label: str = "distance",
    query_label: str = "query",
) -> Select[*Ts, int, float]:
    """Search for many query vectors in one statement.

    Args:
        statement: as `search`.
        column: as `search`.
        queries: shape (n, dims), n at least 1.
        k: as `search`, for each query.
        shortlist: as `search`, for each query.
        oversample: as `search`.
        ef_search: as `search`.
        exact: as `search`.
        complete: as `search`, for each query.
        label: as `search`.
        query_label: the name of the query's number in the result.

    Returns:
        The Select with the query's number (counted from 0) and the distance as two more columns, ordered by both.

    Raises:
        SearchError: as `search`.
        VectorError: as `search`, naming the first query that is wrong.
        DefinitionError: as `search`.

    """
    plan = SearchOptions.of(statement, column, k, shortlist, oversample, ef_search, exact)
    if isinstance(queries, MoreLikeThis):
        raise SearchError("search_many takes vectors: give more_like_this(...) to search")
    vectors = as_vectors(queries, plan.definition.dims, plan.definition.full, what=f"the queries for {plan.name}")
    check = plan.definition.query if plan.exact else plan.definition.short_query
    for row, vector in enumerate(vectors):
        check(vector, f"query {row} for {plan.name}")
    if not len(vectors):
        raise SearchError("there are no queries: give at least one vector")
    definition = plan.definition
    given = query_rows(definition, vectors)
    rows = parts.candidates(cast("AnySelect", statement), column, plan.attachment)
    number: ColumnElement[int] = given.c["number"]
    if not plan.exact and (rows.filtered if complete is None else complete):
        winners = _completed_each(plan, rows)
    else:
        if plan.exact:
            alone = replace(rows, rows=rows.rows.correlate(given))
            ranked = alone.exactly(definition, given.c.full_query, plan.k)
        else:
            nearest = rows.nearest(definition, given.c.short_query, plan.scan).correlate(given)
            ranked = rows.reranked(definition, nearest.subquery(SHORTLIST), given.c.full_query, plan.k)
        winners = ranked.add_columns(number.label("number")).correlate(given).lateral(WINNERS)
    found = parts.result(cast("AnySelect", statement), rows.keys, winners, number).add_cte(given, nest_here=True)
    # equal by construction; SQLAlchemy's linter wants to see that the two are related
    found = found.where(winners.c["number"] == number)
    return found.add_columns(number.label(query_label), winners.c.distance.label(label))


def _completed_each(plan: SearchOptions, rows: Candidates) -> FromClause:
    """The winners of one query of many, with an exact branch; in text, since its parts are CTEs inside a LATERAL."""
    one = BoundQuery(None, f"{QUERIES}.full_query", literal_column(f"{QUERIES}.short_query"))
    # inside a LATERAL SQLAlchemy would take the caller's table for one of the outer statement's
    alone = replace(rows, rows=rows.rows.correlate(None))
    nearest = materialized(alone.nearest(plan.definition, one.short, plan.scan), SHORTLIST)
    ranking = Ranking(plan.definition, alone, one, Page(plan.k))
    table, ctes = ranking.of_shortlist([nearest], plan.scan.shortlist, complete=True)
    names = [one.name for one in table.c]
    body = text(f"SELECT {', '.join(names)}, {QUERIES}.number FROM {WINNERS}")  # noqa: S608 - names of our own
    return (
        body.columns(*(literal_column(name) for name in (*names, "number")))
        .add_cte(*ctes, nest_here=True)
        .lateral(WINNERS)
    )
