"""A result that does not say the same thing ten times: maximal marginal relevance, in one statement.

Carbonell and Goldstein, "The use of MMR, diversity-based reranking for reordering documents and producing summaries",
SIGIR 1998. Each pick maximises

    relevance * similarity(query, row) - (1 - relevance) * max(similarity(row, picked) over the rows picked so far)

    pgmrl_ranked  the shortlist by full distance, numbered
    pgmrl_results the picks: a recursion that carries, for each row, its distance to the nearest row picked so far, so
                  that a pick costs one distance for each row of the shortlist
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVarTuple, Unpack, cast

from sqlalchemy import Float, Integer, bindparam, text, type_coerce

from pgmrl.searching.arguments import check_fraction, check_labels
from pgmrl.searching.fallback import EXACT, RERANKED, distances_sql, falls_short, falls_short_sql
from pgmrl.searching.options import SearchOptions, SearchParameters, with_shortlist
from pgmrl.searching.selected_rows import key_names
from pgmrl.searching.statement import RESULTS, SHORTLIST, join_results, materialized, prepare_search, results_table
from pgmrl.searching.subject import AnySelect

if TYPE_CHECKING:
    from sqlalchemy import CTE, ColumnElement, Select
    from sqlalchemy.orm import InstrumentedAttribute

    from pgmrl.model.shortening import Definition
    from pgmrl.searching.query import BoundQuery
    from pgmrl.searching.selected_rows import SelectedRows

__all__ = ["search_diverse"]

RANKED = "pgmrl_ranked"

Ts = TypeVarTuple("Ts")


def search_diverse(
    statement: Select[*Ts],
    column: InstrumentedAttribute[Any] | ColumnElement[Any],
    query: Any,
    *,
    k: int = 10,
    relevance: float = 0.5,
    label: str = "distance",
    rank_label: str = "rank",
    score_label: str = "score",
    **options: Unpack[SearchOptions],
) -> Select[*Ts, float, int, float]:
    """Search for k rows that are near to the query and far from one another.

    The rows are picked one after the other out of the shortlist by maximal marginal relevance, the nearest first.
    Similarities are the metric's own: the cosine, the inner product, 1 / (1 + L2 distance).

    `statement`, `column`, `query`, `k` and `label` are those of `search`, and so are the errors and the warning.

    Args:
        relevance: 1 asks for the nearest rows, as `search` gives them; 0 for the most different ones.
        rank_label: the name of the pick's number, counted from 1.
        score_label: the name of the pick's score: its marginal relevance when it was picked. It may rise again from one
            pick to the next only where the first has nothing to be compared with.
        **options: see `SearchOptions`. The shortlist is what there is to pick from; its default is 10 times k, at least
            40, whatever tuning stored, and time grows with k times its size. An exact search picks from as many of the
            nearest rows by the full vectors.

    Returns:
        The Select with distance, number and score as three more columns, in the order of the picks.

    Raises:
        SearchError: `relevance` is no number from 0 to 1.

    """
    share = check_fraction("relevance", relevance)
    check_labels(label, rank_label, score_label)
    # what is tuned brings the nearest rows; here the shortlist is what there is to pick from
    parameters = SearchParameters.of(statement, column, k, with_shortlist(options, k))
    select_ = cast("AnySelect", statement)
    rows, bound = prepare_search(parameters, select_, query)
    picks = text(_picks(parameters.definition, key_names(len(rows.keys)), parameters.k))
    picks = picks.bindparams(bindparam("pgmrl_relevance", share, type_=Float(), unique=True))
    ctes = (*_ranked(parameters, rows, bound), picks.columns().cte(RESULTS))
    results = results_table(len(rows.keys), "place", "score")
    searched = join_results(select_, rows.keys, results, results.c.place).add_cte(*ctes, nest_here=True)
    rank, score = type_coerce(results.c.place, Integer()), type_coerce(results.c.score, Float())
    return searched.add_columns(results.c.distance.label(label), rank.label(rank_label), score.label(score_label))


def _ranked(parameters: SearchParameters, rows: SelectedRows, bound: BoundQuery) -> list[CTE]:
    """What there is to pick from, numbered by distance."""
    definition, k, size = parameters.definition, parameters.k, parameters.scan.shortlist
    names = ", ".join(key_names(len(rows.keys)))
    carry = {"full_vector": rows.full}
    if parameters.exact:
        exact = rows.exact_ranking(definition, bound.vector, size, carry=carry)
        return [*bound.ctes, exact.cte(EXACT), _numbered(EXACT, names)]
    shortlist = materialized(rows.shortlist(definition, bound.short, parameters.scan), SHORTLIST)
    distances = distances_sql(definition, bound, f"{names}, full_vector", SHORTLIST)
    reranked = bound.text(distances).columns().cte(RERANKED)
    if not parameters.falls_back(rows.filtered):
        return [*bound.ctes, shortlist, reranked, _numbered(RERANKED, names)]
    exact = rows.exact_ranking(definition, bound.vector, size, falls_short(k), carry=carry)
    either = f"(SELECT * FROM {RERANKED} WHERE NOT {falls_short_sql(k)} UNION ALL TABLE {EXACT}) AS ranked"  # noqa: S608
    return [*bound.ctes, shortlist, reranked, exact.cte(EXACT), _numbered(either, names)]


def _numbered(source: str, names: str) -> CTE:
    body = (
        f"SELECT CAST(row_number() OVER (ORDER BY distance, {names}) AS integer) AS number, {names}, full_vector, "  # noqa: S608
        f"distance FROM {source} WHERE distance != 'NaN'"
    )
    return text(body).columns().cte(RANKED).prefix_with("MATERIALIZED", dialect="postgresql")


def _picks(definition: Definition, keys: list[str], k: int) -> str:
    """The recursion; `nearest` holds for each row its distance to the nearest row picked so far."""
    share = "CAST(:pgmrl_relevance AS double precision)"
    similarity = definition.metric.similarity_sql
    names = ", ".join(f"{RANKED}.{name}" for name in keys)
    between = f"r.full_vector {definition.full_operator} l.full_vector"
    first = (
        f"SELECT 1 AS place, number, {share} * {similarity('distance')} AS score, ARRAY[number] AS picked, "  # noqa: S608
        f"array_fill(CAST('infinity' AS double precision), ARRAY[(SELECT CAST(count(*) AS integer) FROM {RANKED})]) "
        f"AS nearest FROM {RANKED} WHERE number = 1"
    )
    compared = (
        f"SELECT r.number, r.distance, least(p.nearest[r.number], {between}) AS near "  # noqa: S608
        f"FROM {RANKED} AS r, {RANKED} AS l WHERE l.number = p.number OFFSET 0"
    )
    scored = (
        f"SELECT number, near, {share} * {similarity('distance')} - (1 - {share}) * {similarity('near')} AS score "  # noqa: S608
        f"FROM ({compared}) AS compared"
    )
    unpicked = "FILTER (WHERE number != ALL (p.picked))"
    best = (
        f"SELECT (array_agg(number ORDER BY score DESC, number) {unpicked})[1] AS number, "  # noqa: S608
        f"max(score) {unpicked} AS score, array_agg(near ORDER BY number) AS nearest FROM ({scored}) AS scored"
    )
    return (
        f"WITH RECURSIVE picks AS ({first} UNION ALL "  # noqa: S608
        f"SELECT p.place + 1, best.number, best.score, p.picked || best.number, best.nearest "
        f"FROM picks AS p, LATERAL ({best}) AS best WHERE p.place < {k} AND best.number IS NOT NULL) "
        f"SELECT {names}, {RANKED}.distance, picks.place, picks.score "
        f"FROM picks JOIN {RANKED} ON {RANKED}.number = picks.number LIMIT {k}"  # for the planner: there are no more
    )
