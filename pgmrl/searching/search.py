"""`search`: from a Select to a Select that runs as one statement, whose text pgmrl.searching.statement shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, NamedTuple, Unpack, cast

import numpy as np
from sqlalchemy import ColumnElement, Float, Integer, literal_column
from sqlalchemy.orm import InstrumentedAttribute

from pgmrl.errors import SearchError
from pgmrl.model.columns import base_column
from pgmrl.model.compat import Select
from pgmrl.names import quoted
from pgmrl.searching.arguments import check_labels, flag
from pgmrl.searching.carried_rows import carried_columns, carried_statement
from pgmrl.searching.fallback import Ranking
from pgmrl.searching.options import SearchOptions, SearchParameters
from pgmrl.searching.pages import Page
from pgmrl.searching.search_result import Ts, search_result, with_joined
from pgmrl.searching.statement import RESULTS, Results, join_results, labelled, results_table, shaped
from pgmrl.searching.subject import AnySelect
from pgmrl.searching.templates import search_of_shape

if TYPE_CHECKING:
    from sqlalchemy import FromClause

    from pgmrl.model.metrics import Metric
    from pgmrl.searching.query import BoundQuery
    from pgmrl.searching.selected_rows import SelectedRows

__all__ = ["Ts", "search"]


def search(
    statement: Select[*Ts],
    column: InstrumentedAttribute[Any] | ColumnElement[Any],
    query: Any = None,
    *,
    text: str | None = None,
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
        text: instead of `query`: words, embedded by the model that the column declares (`embed=Embed(…)`), within this
            call: see `query_vector`.
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
        DefinitionError: `column` is not a Matryoshka column, or says no model for `text`.
        EmbedderError: the model cannot embed `text`.

    Warns:
        ExactSearchWarning: the column's rotation has not been learned, so the search is exact.

    """
    counts = flag("counts", counts)
    check_labels(label, similarity, *(("requested", "returned") if counts else ()))
    parameters = SearchParameters.of(statement, column, k, options)
    if text is not None:
        if query is not None:
            raise SearchError("expected a query or text=, got both: give one of them")
        from pgmrl.searching.text_query import query_vector  # noqa: PLC0415 - most applications bring vectors

        query = query_vector(column, text)
    select_ = cast("AnySelect", statement)
    names = _Names(label, similarity, counts)
    page = Page.of(parameters, offset, after, max_distance)

    # what counts the results reads them by name
    carried = {} if counts else carried_columns(parameters, select_)
    if carried and isinstance(query, np.ndarray | list):  # it may be built once more, when the array holds another one
        query = query.copy()
    return _made(parameters, select_, query, page, names, carried)


class _Names(NamedTuple):
    """What a search adds to the caller's columns."""

    distance: str
    similarity: str | None
    counts: bool


def _made(
    parameters: SearchParameters,
    statement: AnySelect,
    query: Any,
    page: Page,
    names: _Names,
    carried: Mapping[str, Any],
) -> Select[Any]:
    def build(rows: SelectedRows, bound: BoundQuery) -> Select[Any]:
        built = _built(parameters, statement, rows, bound, page, names)
        if not rows.extra:
            return built
        return with_joined(built, partial(_made, parameters, statement, query, page, names, {}))

    own = list(page.parameters.values())
    shape = shaped(parameters, statement, query, build, "search", names, page.shape, own=own, extra=carried)
    return search_of_shape(statement, shape)


def _built(
    parameters: SearchParameters,
    statement: AnySelect,
    rows: SelectedRows,
    bound: BoundQuery,
    page: Page,
    names: _Names,
) -> Select[Any]:
    definition = parameters.definition
    if rows.sharded and rows.extra:
        searched = carried_statement(Ranking(definition, rows, bound, page), parameters, statement)
        source = quoted(base_column(parameters.column).table.name)
        return search_result(searched.add_columns(*_carried_distance(source, definition.metric, names)))
    if parameters.exact and page.plain and not names.counts and not bound.ctes:
        exact = rows.exact_ranking(definition, bound.vector, parameters.k).cte(RESULTS)
        results = Results(results_table(len(rows.keys)), (exact,))
    else:
        results = _results(parameters, rows, bound, page)
    searched = join_results(statement, rows.keys, results.table).add_cte(*results.ctes, nest_here=True)
    return search_result(searched.add_columns(*_added_columns(results.table, definition.metric, names, parameters.k)))


def _results(parameters: SearchParameters, rows: SelectedRows, bound: BoundQuery, page: Page) -> Results:
    ranking = Ranking(parameters.definition, rows, bound, page)
    if parameters.exact:
        return ranking.exact()
    shortlist = rows.shortlist(parameters.definition, bound, parameters.scan)
    return ranking.of_shortlist(shortlist, fallback=parameters.complete)


@lru_cache(maxsize=256)
def _carried_distance(source: str, metric: Metric, names: _Names) -> tuple[ColumnElement[Any], ...]:
    """The columns behind the caller's, where they are in the same relation as these."""
    distance: ColumnElement[Any] = literal_column(f"{source}.distance", Float())
    added = [distance.label(names.distance)]
    if names.similarity is not None:
        added.append(literal_column(metric.similarity_sql(f"{source}.distance"), Float()).label(names.similarity))
    return tuple(added)


@lru_cache(maxsize=256)
def _added_columns(results: FromClause, metric: Metric, names: _Names, k: int) -> tuple[ColumnElement[Any], ...]:
    """The columns behind the caller's; the same objects for all searches of a shape, as `labelled` makes them."""
    added: list[ColumnElement[Any]] = [labelled(results.c.distance, names.distance)]
    if names.similarity is not None:
        value = metric.similarity_sql(f"{RESULTS}.distance")
        added.append(literal_column(value, Float()).label(names.similarity))
    if names.counts:
        returned = f"(SELECT count(*) FROM {RESULTS} WHERE distance != 'NaN')"  # noqa: S608
        added.append(literal_column(str(k), Integer()).label("requested"))
        added.append(literal_column(returned, Integer()).label("returned"))
    return tuple(added)
