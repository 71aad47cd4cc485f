"""`search`: from a Select to a Select that runs as one statement, whose text pgmrl.searching.statement shows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVarTuple, Unpack, cast

from sqlalchemy import Float, Integer, Select, literal_column

from pgmrl.searching.arguments import check_labels
from pgmrl.searching.fallback import Ranking
from pgmrl.searching.options import SearchOptions, SearchParameters
from pgmrl.searching.pages import Page
from pgmrl.searching.search_result import search_result
from pgmrl.searching.statement import RESULTS, join_results, prepare_search, reranked
from pgmrl.searching.subject import AnySelect

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import ColumnElement, FromClause
    from sqlalchemy.orm import InstrumentedAttribute

    from pgmrl.model.shortening import Definition
    from pgmrl.searching.query import BoundQuery
    from pgmrl.searching.selected_rows import SelectedRows
    from pgmrl.searching.statement import Results

__all__ = ["Ts", "search"]

Ts = TypeVarTuple("Ts")


def search(
    statement: Select[*Ts],
    column: InstrumentedAttribute[Any] | ColumnElement[Any],
    query: Any,
    *,
    k: int = 10,
    offset: int | None = None,
    after: Sequence[Any] | None = None,
    max_distance: float | None = None,
    similarity: str | None = None,
    counts: bool = False,
    label: str = "distance",
    **options: Unpack[SearchOptions],
) -> Select[*Ts, float]:
    """Turn a Select into one that returns its k rows nearest to a query vector, nearest first.

    The Select keeps its filters and joins; a join to many takes no more than one place of the shortlist for each row.
    Rows at the same distance are ordered by primary key. Rows whose vector is NULL, or zero under cosine, have no
    distance and are never returned.

    Where a filter leaves the scan of the index too few rows for the shortlist, the same statement ranks all rows of the
    filter: see `SearchOptions`, `complete`.

    In a transaction the scan's parameters last until its end; a later statement of pgmrl sets its own.

    Args:
        statement: selects the model (or its Table), without LIMIT, ORDER BY, GROUP BY or DISTINCT.
        column: the Matryoshka attribute or column, also of an alias.
        query: the query's full vector, shape (dims,); or a `bindparam("name")`, for a Select that is built once and
            executed with `{"name": vector}`; or `more_like_this(…)`, examples; or an expression of SQL for one vector,
            such as a scalar subquery, for which the server raises an error where it is NULL or zero under cosine.
        k: rows to return.
        offset: rows to leave out at the start; 0 for the first page. Offset and k must lie within the shortlist, whose
            size is to be the same for every page. The exact fallback answers all pages of a shortlist that is not full.
        after: (distance, *key) of the last row of the page before: go on behind it. No row comes twice, whatever is
            written between pages.
        max_distance: rows that are farther away do not come back. Not part of the scan of the index.
        similarity: the name of one more column: the cosine, the inner product, or 1 / (1 + L2 distance).
        counts: two more columns, `requested` (k) and `returned` (rows of the searched table that came back).
        label: the name of the distance in the result.
        **options: shortlist, oversample, ef_search, exact and complete: see `SearchOptions`.

    Returns:
        The Select with the distance as one more column, smaller is nearer, and behind it the other columns asked for.
        An inner product is negated.

    Raises:
        SearchError: arguments or a Select that cannot be searched.
        VectorError: the query is NULL, of other dimensions, not finite, or zero under cosine.
        DefinitionError: `column` is not a Matryoshka column.

    Warns:
        ExactSearchWarning: the column's rotation has not been learned, so the search is exact.

    """
    if counts or similarity is not None:
        check_labels(label, similarity, *(("requested", "returned") if counts else ()))
    parameters = SearchParameters.of(statement, column, k, options)
    select_ = cast("AnySelect", statement)
    definition = parameters.definition
    rows, bound = prepare_search(parameters, select_, query)
    page = Page.of(parameters, len(rows.keys), offset, after, max_distance)
    if parameters.exact and page.plain and not counts and not bound.ctes:
        results: FromClause = rows.exact_ranking(definition, bound.vector, parameters.k).subquery(RESULTS)
        searched = join_results(select_, rows.keys, results)
    else:
        results, ctes = _results(parameters, rows, bound, page)
        searched = join_results(select_, rows.keys, results).add_cte(*ctes, nest_here=True)
    more = _more_columns(definition, similarity, parameters.k if counts else None)
    return search_result(searched.add_columns(results.c.distance.label(label), *more))


def _results(parameters: SearchParameters, rows: SelectedRows, bound: BoundQuery, page: Page) -> Results:
    ranking = Ranking(parameters.definition, rows, bound, page)
    if parameters.exact:
        return ranking.exact()
    shortlist = rows.shortlist(parameters.definition, bound.short, parameters.scan)
    if page.plain and not parameters.complete:
        return reranked(parameters.definition, shortlist, bound, len(rows.keys), parameters.k)
    size = parameters.scan.shortlist
    return ranking.of_shortlist(shortlist, size, fallback=parameters.complete)


def _more_columns(definition: Definition, similarity: str | None, requested: int | None) -> list[ColumnElement[Any]]:
    more: list[ColumnElement[Any]] = []
    if similarity is not None:
        value = definition.metric.similarity_sql(f"{RESULTS}.distance")
        more.append(literal_column(value, Float()).label(similarity))
    if requested is not None:
        returned = f"(SELECT count(*) FROM {RESULTS} WHERE distance != 'NaN')"  # noqa: S608
        more.append(literal_column(str(requested), Integer()).label("requested"))
        more.append(literal_column(returned, Integer()).label("returned"))
    return more
