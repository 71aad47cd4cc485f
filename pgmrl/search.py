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
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVarTuple, cast

from sqlalchemy import Select

from pgmrl import statement as parts
from pgmrl.columns import Attachment, attachment_of, base_column
from pgmrl.errors import ExactSearchWarning, SearchError
from pgmrl.limits import EF_SEARCH_LIMIT, OVERSAMPLE, SHORTLIST_LIMIT, SHORTLIST_MIN
from pgmrl.statement import Scan
from pgmrl.vectors import as_vectors

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, FromClause
    from sqlalchemy.orm import InstrumentedAttribute

    from pgmrl.shortening import Definition

__all__ = ["search", "search_many", "shortlist_size"]

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
    label: str = "distance",
) -> Select[*Ts, float]:
    """Turn a Select into one that returns its k rows nearest to a query vector, nearest first.

    The Select keeps its filters and joins; a join to many takes no more than one place of the shortlist for each row.
    Rows at the same distance are ordered by primary key. Rows whose vector is NULL, or zero under cosine, have no
    distance and are never returned.

    In a transaction the scan's parameters last until its end; a later statement of pgmrl sets its own.

    Args:
        statement: selects the model (or its Table), without LIMIT, ORDER BY, GROUP BY or DISTINCT.
        column: the Matryoshka attribute or column, also of an alias.
        query: the query's full vector, shape (dims,); or a `bindparam("name")`, for a Select that is built once and
            executed with `{"name": vector}`.
        k: rows to return.
        shortlist: rows that are ranked exactly; default `oversample` times k, at least 40.
        oversample: shortlist rows for each result; default 10. Give this or `shortlist`.
        ef_search: candidates HNSW keeps, 1 to 1,000; default the shortlist's size.
        exact: rank every row that the filters leave instead: the truth, in time that grows with the table.
        label: the name of the distance in the result.

    Returns:
        The Select with the distance as one more column, smaller is nearer. An inner product is negated.

    Raises:
        SearchError: arguments or a Select that cannot be searched.
        VectorError: the query is NULL, of other dimensions, not finite, or zero under cosine.
        DefinitionError: `column` is no Matryoshka column.

    Warns:
        ExactSearchWarning: the column's rotation has not been learned, so the search is exact.

    """
    plan = _Plan.of(statement, column, k, shortlist, oversample, ef_search, exact)
    definition = plan.definition
    sent = parts.sent_query(definition, query, f"the query for {plan.name}", exact=plan.exact)
    rows = parts.candidates(cast("parts.AnySelect", statement), column, plan.attachment)
    if plan.exact:
        winners: FromClause = rows.exactly(definition, sent.parameter, plan.k).subquery(parts.WINNERS)
        found = parts.result(cast("parts.AnySelect", statement), rows.keys, winners)
    else:
        nearest = rows.nearest(definition, sent.short, plan.scan)
        winners, ctes = parts.winners(definition, nearest, sent, len(rows.keys), plan.k)
        found = parts.result(cast("parts.AnySelect", statement), rows.keys, winners).add_cte(*ctes)
    return found.add_columns(winners.c.distance.label(label))


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
        label: as `search`.
        query_label: the name of the query's number in the result.

    Returns:
        The Select with the query's number (counted from 0) and the distance as two more columns, ordered by both.

    Raises:
        SearchError: as `search`.
        VectorError: as `search`, naming the first query that is wrong.
        DefinitionError: as `search`.

    """
    plan = _Plan.of(statement, column, k, shortlist, oversample, ef_search, exact)
    vectors = as_vectors(queries, plan.definition.dims, plan.definition.full, what=f"the queries for {plan.name}")
    check = plan.definition.query if plan.exact else plan.definition.short_query
    for row, vector in enumerate(vectors):
        check(vector, f"query {row} for {plan.name}")
    if not len(vectors):
        raise SearchError("there are no queries: give at least one vector")
    definition = plan.definition
    given = parts.queries(definition, vectors)
    rows = parts.candidates(cast("parts.AnySelect", statement), column, plan.attachment)
    number: ColumnElement[int] = given.c["number"]
    if plan.exact:
        ranked = rows.exactly(definition, given.c.full_query, plan.k)
    else:
        nearest = rows.nearest(definition, given.c.short_query, plan.scan).correlate(given)
        ranked = rows.reranked(definition, nearest.subquery(parts.SHORTLIST), given.c.full_query, plan.k)
    winners = ranked.add_columns(number.label("number")).correlate(given).lateral(parts.WINNERS)
    found = parts.result(cast("parts.AnySelect", statement), rows.keys, winners, number)
    # equal by construction; SQLAlchemy's linter wants to see that the two are related
    found = found.where(winners.c["number"] == number)
    return found.add_columns(number.label(query_label), winners.c.distance.label(label))


def shortlist_size(k: int, shortlist: int | None = None, oversample: float | None = None) -> int:
    """The number of rows that are ranked exactly.

    Raises:
        SearchError: a number out of range, or both of `shortlist` and `oversample`.

    """
    k = _positive("k", k)
    if shortlist is not None and oversample is not None:
        raise SearchError("shortlist and oversample say the same thing: give one of them")
    factor: Any = oversample
    if factor is not None and not (isinstance(factor, int | float) and 1 <= factor < math.inf):
        raise SearchError(f"oversample={oversample!r}: a shortlist holds at least the k results, so give 1 or more")
    if shortlist is None:
        shortlist = max(SHORTLIST_MIN, round(k * (oversample or OVERSAMPLE)))
    size = _positive("shortlist", shortlist)
    if size < k:
        raise SearchError(f"shortlist={size} is smaller than k={k}: the results come out of the shortlist")
    if size > SHORTLIST_LIMIT:
        raise SearchError(f"shortlist={size:,} is more than {SHORTLIST_LIMIT:,}: use exact=True for so many rows")
    return size


# -- the plan: every argument checked ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Plan:
    """One search's column and numbers, checked."""

    column: Any
    attachment: Attachment
    k: int
    scan: Scan
    exact: bool

    @property
    def definition(self) -> Definition:
        return self.attachment.definition

    @property
    def name(self) -> str:
        return str(base_column(self.column))

    @classmethod
    def of(
        cls,
        statement: Any,
        column: Any,
        k: int,
        shortlist: int | None,
        oversample: float | None,
        ef_search: int | None,
        exact: bool,
    ) -> _Plan:
        attachment = attachment_of(column)
        _check_statement(statement)
        size = shortlist_size(k, shortlist, oversample)
        effort = min(size, EF_SEARCH_LIMIT) if ef_search is None else _positive("ef_search", ef_search)
        if effort > EF_SEARCH_LIMIT:
            raise SearchError(f"ef_search={effort}: pgvector takes 1 to {EF_SEARCH_LIMIT}")
        if not attachment.definition.learned and not exact:
            warnings.warn(ExactSearchWarning.__doc__ or "", ExactSearchWarning, stacklevel=3)
            exact = True
        return cls(column, attachment, _positive("k", k), Scan(size, effort), exact)


def _positive(name: str, value: Any) -> int:
    if isinstance(value, bool) or (not isinstance(value, int) and not hasattr(value, "__index__")):
        raise SearchError(f"{name}={value!r} is no whole number")
    number = int(value)
    if number < 1:
        raise SearchError(f"{name}={number}: give at least 1")
    return number


def _check_statement(statement: Any) -> None:
    if not isinstance(statement, Select):
        raise SearchError(f"search takes a Select of the model, not {type(statement).__name__}: use select(Model)")
    for clause, found in (
        ("LIMIT", statement._limit_clause is not None or statement._fetch_clause is not None),
        ("OFFSET", statement._offset_clause is not None),
        ("GROUP BY", bool(statement._group_by_clauses) or bool(statement._having_criteria)),
        ("DISTINCT", statement._distinct),
        ("ORDER BY", bool(statement._order_by_clauses)),
        ("FOR UPDATE", statement._for_update_arg is not None),
    ):
        if found:
            raise SearchError(f"the Select has {clause}: search adds its own; apply yours to the result's subquery()")
