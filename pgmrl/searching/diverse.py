"""A result that does not say the same thing ten times: maximal marginal relevance, in one statement.

pgmrl_ranked  the shortlist by full distance, numbered
pgmrl_results the picks, see `pgmrl.model.ranking_sql.diverse_sql`
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVarTuple, Unpack, cast

from sqlalchemy import ColumnElement, Float, Integer, bindparam, text, type_coerce
from sqlalchemy.orm import InstrumentedAttribute

from pgmrl.model.compat import Select
from pgmrl.model.ranking_sql import diverse_sql, key_names, numbered_sql
from pgmrl.searching.arguments import check_fraction, check_labels
from pgmrl.searching.fallback import EXACT, RERANKED, either_sql, falls_short_sql, unlimited, with_fallback
from pgmrl.searching.options import SearchOptions, SearchParameters, with_shortlist
from pgmrl.searching.search_result import search_result
from pgmrl.searching.statement import RESULTS, join_results, labelled, materialized, results_table, shaped
from pgmrl.searching.subject import AnySelect
from pgmrl.searching.templates import search_of_shape

if TYPE_CHECKING:
    from sqlalchemy import CTE, FromClause

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
    weight = bindparam("pgmrl_relevance", share, type_=Float(), unique=True)
    labels = (label, rank_label, score_label)

    def build(rows: SelectedRows, bound: BoundQuery) -> Select[Any]:
        keys = key_names(len(rows.keys))
        picks = text(diverse_sql(parameters.definition, RANKED, keys, ":pgmrl_relevance", str(parameters.k)))
        ctes = (*_ranked(parameters, rows, bound), picks.bindparams(weight).columns().cte(RESULTS))
        results = results_table(len(keys), "place", "score")
        searched = join_results(select_, rows.keys, results, results.c.place).add_cte(*ctes, nest_here=True)
        return search_result(searched.add_columns(*_added_columns(results, *labels)))

    return search_of_shape(select_, shaped(parameters, select_, query, build, "diverse", *labels, own=[weight]))


@lru_cache(maxsize=256)
def _added_columns(results: FromClause, distance: str, rank: str, score: str) -> tuple[ColumnElement[Any], ...]:
    return (
        labelled(results.c.distance, distance),
        type_coerce(results.c.place, Integer()).label(rank),
        type_coerce(results.c.score, Float()).label(score),
    )


def _ranked(parameters: SearchParameters, rows: SelectedRows, bound: BoundQuery) -> list[CTE]:
    """What there is to pick from, numbered by distance."""
    definition, size = parameters.definition, parameters.scan.shortlist
    keys = key_names(len(rows.keys))
    carry = {"full_vector": rows.full}
    if parameters.exact:
        exact = rows.exact_ranking(definition, bound.vector, size, carry=carry)
        return [*bound.ctes, exact.cte(EXACT), _numbered(EXACT, keys)]
    shortlist = rows.shortlist(definition, bound, parameters.scan)
    reranked = shortlist.distances(definition, bound, [*keys, "full_vector"])
    before = [*bound.ctes, *shortlist.ctes, materialized(reranked, RERANKED)]
    if not with_fallback(rows, fallback=parameters.complete):
        return [*before, _numbered(RERANKED, keys)]
    falls_short = falls_short_sql(size)
    if rows.sharded:
        ranking = rows.exact_ranking(definition, bound.vector, size, text(f"({falls_short})"), carry=carry)
        every_row = materialized(ranking, EXACT)
    else:
        every_row = unlimited(rows.every_row(definition, bound.vector, carry)).cte(EXACT)
    either = f"({either_sql(falls_short, limited=not rows.sharded)})"
    nearest = f"(SELECT * FROM {either} AS ranked ORDER BY distance, {', '.join(keys)} LIMIT {size}) AS ranked"  # noqa: S608
    return [*before, every_row, _numbered(nearest, keys)]


def _numbered(source: str, keys: Sequence[str]) -> CTE:
    body = numbered_sql(source, keys)
    return materialized(text(body).columns(), RANKED)
