"""A search: from a Select to a Select that runs as one statement.

    WITH shortlist AS MATERIALIZED (
        SELECT <key>, <full> FROM … WHERE <the caller's filters> AND <gate>
        ORDER BY <short> <=> <short of the query> LIMIT <shortlist>
    )
    SELECT <the caller's columns>, winners.distance
    FROM …, (SELECT <key>, <full> <=> :query AS distance FROM shortlist ORDER BY distance, <key> LIMIT <k>) AS winners
    WHERE <the caller's filters> AND <key> = winners.<key>
    ORDER BY winners.distance, <key>

The gate sets the scan's parameters for this statement alone: it becomes an InitPlan and so runs before the index scan
opens. There is no SET round trip, and nothing is left behind in a pooled connection.

The CTEs nest in the Select they belong to, so a statement can hold two searches. With a filter, pages or thresholds the
winners are those of pgmrl.searching.fallback.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVarTuple, cast

from sqlalchemy import Float, Integer, Select, literal_column

from pgmrl.searching import statement as parts
from pgmrl.searching.fallback import Ranking, prepare_search
from pgmrl.searching.options import Page, SearchOptions, labels
from pgmrl.searching.query import BoundQuery
from pgmrl.searching.statement import SHORTLIST, WINNERS, Winners, materialized
from pgmrl.searching.subject import AnySelect

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import ColumnElement, FromClause
    from sqlalchemy.orm import InstrumentedAttribute

    from pgmrl.model.shortening import Definition
    from pgmrl.searching.statement import Candidates

__all__ = ["Ts", "search"]

Ts = TypeVarTuple("Ts")


def search(
    statement: Select[*Ts],
    column: InstrumentedAttribute[Any] | ColumnElement[Any],
    query: Any,
    *,
    k: int = 10,
    shortlist: int | None = None,
    oversample: float | None = None,
    ef_search: int | None = None,
    exact: bool = False,
    complete: bool | None = None,
    offset: int | None = None,
    after: Sequence[Any] | None = None,
    max_distance: float | None = None,
    similarity: str | None = None,
    counts: bool = False,
    label: str = "distance",
) -> Select[*Ts, float]:
    """Turn a Select into one that returns its k rows nearest to a query vector, nearest first.

    The Select keeps its filters and joins; a join to many takes no more than one place of the shortlist for each row.
    Rows at the same distance are ordered by primary key. Rows whose vector is NULL, or zero under cosine, have no
    distance and are never returned.

    A search whose filter leaves fewer rows in the shortlist than were asked for ranks all rows of the filter in the
    same statement: see `complete`.

    In a transaction the scan's parameters last until its end; a later statement of pgmrl sets its own.

    Args:
        statement: selects the model (or its Table), without LIMIT, ORDER BY, GROUP BY or DISTINCT.
        column: the Matryoshka attribute or column, also of an alias.
        query: the query's full vector, shape (dims,); or a `bindparam("name")`, for a Select that is built once and
            executed with `{"name": vector}`; or `more_like_this(…)`, examples; or an expression of SQL for one vector,
            such as a scalar subquery, which the server refuses where it is NULL or zero under cosine.
        k: rows to return.
        shortlist: rows that are ranked exactly; default what tuning stored and `load_settings` loaded, else
            `oversample` times k, at least 40.
        oversample: shortlist rows for each result; default 10. Give this or `shortlist`.
        ef_search: candidates HNSW keeps, 1 to 1,000; default with the stored shortlist what was stored beside it, else
            the shortlist's size.
        exact: rank every row that the filters leave instead: the truth, in time that grows with the table.
        complete: where the shortlist yields fewer rows than asked for, rank every row that the filters leave. Default:
            for a Select with conditions or joins, and with `after`. Say True where row-level security or many deleted
            rows filter, which Python cannot see.
        offset: rows to leave out at the start; 0 for the first page. Offset and k must lie within the shortlist, whose
            size is to be the same for every page. With an offset the exact branch answers all pages of a shortlist
            that is not full.
        after: (distance, *key) of the last row of the page before: go on behind it. No row comes twice, whatever is
            written between pages.
        max_distance: rows that are farther away do not come back. Not part of the scan of the index.
        similarity: the name of one more column: the cosine, the inner product, or 1 / (1 + L2 distance).
        counts: two more columns, `requested` (k) and `returned` (rows of the searched table that came back).
        label: the name of the distance in the result.

    Returns:
        The Select with the distance as one more column, smaller is nearer, and behind it the other columns asked for.
        An inner product is negated.

    Raises:
        SearchError: arguments or a Select that cannot be searched.
        VectorError: the query is NULL, of other dimensions, not finite, or zero under cosine.
        DefinitionError: `column` is no Matryoshka column.

    Warns:
        ExactSearchWarning: the column's rotation has not been learned, so the search is exact.

    """
    if counts or similarity is not None:
        labels(label, similarity, *(("requested", "returned") if counts else ()))
    asked = SearchOptions.of(statement, column, k, shortlist, oversample, ef_search, exact)
    select_ = cast("AnySelect", statement)
    definition = asked.definition
    rows, sent = prepare_search(asked, select_, query)
    cut = Page.of(asked, len(rows.keys), offset, after, max_distance)
    if asked.exact and cut.plain and not counts and not sent.ctes:
        winners: FromClause = rows.exactly(definition, sent.vector, asked.k).subquery(WINNERS)
        found = parts.result(select_, rows.keys, winners)
    else:
        winners, ctes = _winners(asked, rows, sent, cut, complete)
        found = parts.result(select_, rows.keys, winners).add_cte(*ctes, nest_here=True)
    more = _more_columns(definition, similarity, asked.k if counts else None)
    return found.add_columns(winners.c.distance.label(label), *more)


def _winners(asked: SearchOptions, rows: Candidates, sent: BoundQuery, cut: Page, complete: bool | None) -> Winners:
    ranking = Ranking(asked.definition, rows, sent, cut)
    if asked.exact:
        return ranking.exact()
    nearest = rows.nearest(asked.definition, sent.short, asked.scan)
    if complete is None:
        complete = rows.filtered or cut.after is not None
    if cut.plain and not complete:
        return parts.winners(asked.definition, nearest, sent, len(rows.keys), asked.k)
    return ranking.of_shortlist([materialized(nearest, SHORTLIST)], asked.scan.shortlist, complete=complete)


def _more_columns(definition: Definition, similarity: str | None, requested: int | None) -> list[ColumnElement[Any]]:
    more: list[ColumnElement[Any]] = []
    if similarity is not None:
        value = definition.metric.similarity_sql(f"{WINNERS}.distance")
        more.append(literal_column(value, Float()).label(similarity))
    if requested is not None:
        returned = f"(SELECT count(*) FROM {WINNERS} WHERE distance != 'NaN')"  # noqa: S608
        more.append(literal_column(str(requested), Integer()).label("requested"))
        more.append(literal_column(returned, Integer()).label("returned"))
    return more
