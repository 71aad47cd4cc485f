"""A result that does not say the same thing ten times: maximal marginal relevance, in one statement.

Carbonell and Goldstein, "The use of MMR, diversity-based reranking for reordering documents and producing summaries",
SIGIR 1998. Each pick maximises

    relevance * similarity(query, row) - (1 - relevance) * max(similarity(row, picked) over the rows picked so far)

    pgmrl_ranked  the shortlist by full distance, numbered
    pgmrl_winners the picks: a recursion that carries, for each row, its distance to the nearest row picked so far, so
                  that a pick costs one distance for each row of the shortlist
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVarTuple, cast

from sqlalchemy import Float, Integer, bindparam, text, type_coerce

from pgmrl.searching import statement as parts
from pgmrl.searching.fallback import EXACT, FOUND, distances_sql, few_sql, prepare_search, too_few
from pgmrl.searching.options import SearchOptions, fraction, labels, shortlist_size
from pgmrl.searching.statement import SHORTLIST, WINNERS, key_names, materialized, winners_table
from pgmrl.searching.subject import AnySelect

if TYPE_CHECKING:
    from sqlalchemy import CTE, ColumnElement, Select
    from sqlalchemy.orm import InstrumentedAttribute

    from pgmrl.model.shortening import Definition
    from pgmrl.searching.query import BoundQuery
    from pgmrl.searching.statement import Candidates

__all__ = ["search_diverse"]

RANKED = "pgmrl_ranked"

Ts = TypeVarTuple("Ts")


def search_diverse(
    statement: Select[*Ts],
    column: InstrumentedAttribute[Any] | ColumnElement[Any],
    query: Any,
    *,
    k: int = 10,
    shortlist: int | None = None,
    ef_search: int | None = None,
    relevance: float = 0.5,
    exact: bool = False,
    complete: bool | None = None,
    label: str = "distance",
    rank_label: str = "rank",
    score_label: str = "score",
) -> Select[*Ts, float, int, float]:
    """Search for k rows that are near to the query and far from one another.

    The rows are picked one after the other out of the shortlist by maximal marginal relevance, the nearest first.
    Similarities are the metric's own: the cosine, the inner product, 1 / (1 + L2 distance).

    Args:
        statement: as for `search`.
        column: as for `search`.
        query: as for `search`.
        k: rows to return.
        shortlist: rows to pick from; default 10 times k, at least 40. Time grows with k times the shortlist.
        ef_search: as for `search`.
        relevance: 1 asks for the nearest rows, as `search` gives them; 0 for the most different ones.
        exact: pick from the nearest rows by the full vectors, as many as the shortlist holds.
        complete: as for `search`.
        label: the name of the distance to the query in the result.
        rank_label: the name of the pick's number, counted from 1.
        score_label: the name of the pick's score: its marginal relevance when it was picked. It may rise again from one
            pick to the next only where the first has nothing to be compared with.

    Returns:
        The Select with distance, number and score as three more columns, in the order of the picks.

    Raises:
        SearchError: as `search`; `relevance` is no number from 0 to 1.
        VectorError: as `search`.
        DefinitionError: as `search`.

    Warns:
        ExactSearchWarning: as `search`.

    """
    share = fraction("relevance", relevance)
    labels(label, rank_label, score_label)
    # what is tuned brings the nearest rows; here the shortlist is what there is to pick from
    pool = shortlist_size(k) if shortlist is None else shortlist
    asked = SearchOptions.of(statement, column, k, pool, None, ef_search, exact)
    select_ = cast("AnySelect", statement)
    rows, sent = prepare_search(asked, select_, query)
    complete = rows.filtered if complete is None else complete
    picks = text(_picks(asked.definition, key_names(len(rows.keys)), asked.k))
    bound = picks.bindparams(bindparam("pgmrl_relevance", share, type_=Float(), unique=True))
    ctes = (*_ranked(asked, rows, sent, complete=complete), bound.columns().cte(WINNERS))
    winners = winners_table(len(rows.keys), "place", "score")
    found = parts.result(select_, rows.keys, winners, winners.c.place).add_cte(*ctes, nest_here=True)
    place, score = type_coerce(winners.c.place, Integer()), type_coerce(winners.c.score, Float())
    return found.add_columns(winners.c.distance.label(label), place.label(rank_label), score.label(score_label))


def _ranked(asked: SearchOptions, rows: Candidates, sent: BoundQuery, *, complete: bool) -> list[CTE]:
    """What there is to pick from, numbered by distance."""
    definition, size = asked.definition, asked.scan.shortlist
    names = ", ".join(key_names(len(rows.keys)))
    carry = {"full_vector": rows.full}
    if asked.exact:
        exact = rows.exactly(definition, sent.vector, size, carry=carry)
        return [*sent.ctes, exact.cte(EXACT), _numbered(EXACT, names)]
    shortlist = materialized(rows.nearest(definition, sent.short, asked.scan), SHORTLIST)
    ranked = sent.text(distances_sql(definition, sent, f"{names}, full_vector", SHORTLIST)).columns().cte(FOUND)
    if not complete:
        return [*sent.ctes, shortlist, ranked, _numbered(FOUND, names)]
    exact = rows.exactly(definition, sent.vector, size, too_few(asked.k), carry=carry)
    both = f"(SELECT * FROM {FOUND} WHERE NOT {few_sql(asked.k)} UNION ALL TABLE {EXACT}) AS ranked"  # noqa: S608
    return [*sent.ctes, shortlist, ranked, exact.cte(EXACT), _numbered(both, names)]


def _numbered(source: str, names: str) -> CTE:
    body = (
        f"SELECT CAST(row_number() OVER (ORDER BY distance, {names}) AS integer) AS number, {names}, full_vector, "  # noqa: S608
        f"distance FROM {source} WHERE distance != 'NaN'"
    )
    return text(body).columns().cte(RANKED).prefix_with("MATERIALIZED", dialect="postgresql")


def _picks(definition: Definition, keys: list[str], k: int) -> str:
    """The recursion; `nearest` holds for each row its distance to the nearest row picked so far."""
    share = "CAST(:pgmrl_relevance AS double precision)"
    similar = definition.metric.similarity_sql
    names = ", ".join(f"{RANKED}.{name}" for name in keys)
    between = f"r.full_vector {definition.full_operator} l.full_vector"
    first = (
        f"SELECT 1 AS place, number, {share} * {similar('distance')} AS score, ARRAY[number] AS picked, "  # noqa: S608
        f"array_fill(CAST('infinity' AS double precision), ARRAY[(SELECT CAST(count(*) AS integer) FROM {RANKED})]) "
        f"AS nearest FROM {RANKED} WHERE number = 1"
    )
    compared = (
        f"SELECT r.number, r.distance, least(p.nearest[r.number], {between}) AS near "  # noqa: S608
        f"FROM {RANKED} AS r, {RANKED} AS l WHERE l.number = p.number OFFSET 0"
    )
    scored = (
        f"SELECT number, near, {share} * {similar('distance')} - (1 - {share}) * {similar('near')} AS score "  # noqa: S608
        f"FROM ({compared}) AS compared"
    )
    left = "FILTER (WHERE number != ALL (p.picked))"
    best = (
        f"SELECT (array_agg(number ORDER BY score DESC, number) {left})[1] AS number, max(score) {left} AS score, "  # noqa: S608
        f"array_agg(near ORDER BY number) AS nearest FROM ({scored}) AS scored"
    )
    return (
        f"WITH RECURSIVE picks AS ({first} UNION ALL "  # noqa: S608
        f"SELECT p.place + 1, best.number, best.score, p.picked || best.number, best.nearest "
        f"FROM picks AS p, LATERAL ({best}) AS best WHERE p.place < {k} AND best.number IS NOT NULL) "
        f"SELECT {names}, {RANKED}.distance, picks.place, picks.score "
        f"FROM picks JOIN {RANKED} ON {RANKED}.number = picks.number LIMIT {k}"  # for the planner: there are no more
    )
