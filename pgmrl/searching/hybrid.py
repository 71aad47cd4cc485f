"""Hybrid search: several lists of rows, by vectors and by words, fused into one.

In one statement, so that all lists see one snapshot:

    WITH pgmrl_list_1 AS (WITH pgmrl_reranked AS MATERIALIZED (…), … SELECT …), -- as `search` has it: key, value
         pgmrl_list_2 AS (…),                                                    -- each retriever's list
         pgmrl_fused AS (
             SELECT <key>, <score>, <ranks> FROM (<the lists with their ranks, one below the other>)
             GROUP BY <key> ORDER BY score DESC, <key> LIMIT <k>
         )
    SELECT <the caller's columns>, score, rank_1, rank_2
    FROM …, pgmrl_fused WHERE <the caller's filters> AND <key> = pgmrl_fused.<key> ORDER BY score DESC, <key>
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, cast

from sqlalchemy import BigInteger, Double, Select, bindparam, column, table, text

from pgmrl.errors import SearchError
from pgmrl.limits import RRF_K
from pgmrl.model.argument_types import argument_list, real_number
from pgmrl.model.ranking_sql import fused_sql, key_names, rrf_part_sql, weighted_part_sql
from pgmrl.reprs import safe_repr
from pgmrl.searching.arguments import check_labels, check_statement, positive_integer
from pgmrl.searching.retrievers import RankedList, Retriever, check_parameters, check_weight
from pgmrl.searching.search_result import search_result
from pgmrl.searching.statement import labelled
from pgmrl.searching.templates import Shaped, search_of_shape

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from sqlalchemy import CTE, BindParameter, FromClause

__all__ = ["Fusion", "Rrf", "Weighted", "search_hybrid"]

FUSED: Final = "pgmrl_fused"


@dataclass(frozen=True, slots=True)
class Rrf:
    """Reciprocal rank fusion: a row's score is the sum of weight / (k + rank) over the lists that hold it.

    Only ranks count, so that lists whose values have nothing in common can be fused.
    Cormack, Clarke, Buettcher: "Reciprocal Rank Fusion outperforms Condorcet and individual Rank Learning Methods",
    SIGIR 2009.

    Attributes:
        k: the larger, the less the first places count before the others.

    """

    k: float = RRF_K

    def __post_init__(self) -> None:
        if real_number("Rrf: k", self.k, SearchError) < 0:
            raise SearchError(f"Rrf(k={safe_repr(self.k)}): expected a number of 0 or more")

    def score_sql(self, weight: str) -> str:
        """SQL text of what a list of this weight adds to a row's score, from the row's `rank` in it."""
        return rrf_part_sql(weight, ":pgmrl_rrf_k")

    def parameters(self) -> list[BindParameter[Any]]:
        """The parameters in `score_sql`."""
        return [bindparam("pgmrl_rrf_k", float(self.k), Double(), unique=True)]


@dataclass(frozen=True, slots=True)
class Weighted:
    """A weighted sum of values, each list's scaled so that its best row has 1 and its last 0.

    The values are similarities (the negative distance) and text ranks. A list whose rows all have the same value, as
    one of a single row, gives each 1. A row that a list does not hold has 0 there, as its last row has.
    """

    def score_sql(self, weight: str) -> str:
        """SQL text of what a list of this weight adds to a row's score, from the row's `value` in it."""
        return weighted_part_sql(weight)

    def parameters(self) -> list[BindParameter[Any]]:
        """None."""
        return []


Fusion = Rrf | Weighted


def search_hybrid(
    statement: Select[*tuple[Any, ...]],
    retrievers: Sequence[Retriever],
    *,
    k: int = 10,
    fuse: Fusion = Rrf(),
    label: str = "score",
) -> Select[*tuple[Any, ...]]:
    """Turn a Select into one that returns the k rows that several retrievers together find best.

        search_hybrid(
            select(Package).where(Package.section == "games"),
            [Nearest(Package.embedding, vector), Words(Package.words, "train simulation")],
        )

    The Select keeps its filters and joins, which hold inside every retriever before its limit. One statement, one
    snapshot. A row that only one retriever finds is kept. Rows of the same score are ordered by primary key.

    In a transaction the parameters of scans last until its end, as with `search`.

    Args:
        statement: selects the model (or its Table), without LIMIT, ORDER BY, GROUP BY or DISTINCT.
        retrievers: `Nearest`, `Words` and `Trigrams` in any number and order, all on columns of the same rows.
        k: rows to return.
        fuse: `Rrf()` by ranks, or `Weighted()` by values.
        label: the name of the score in the result.

    Returns:
        The Select with more columns: the score, larger is better, and for each retriever the rank of the row in its
        list (1 is the best, NULL where it did not find the row) as `rank_1`, `rank_2`, … or by the retriever's label.

    Raises:
        SearchError: arguments or a Select that cannot be searched.
        VectorError: as `search`.
        DefinitionError: a column that a retriever cannot read.

    Warns:
        ExactSearchWarning: as `search`.

    """
    check_statement(statement)
    k = positive_integer("k", k)
    checked = _checked(retrievers, fuse, label)
    lists = []
    for retriever in checked:
        # no comprehension: that would be one more frame between a warning and its cause
        lists.append(retriever.ranked_list(statement, k, stacklevel=2))  # noqa: PERF401
    weights: list[BindParameter[Any]] = [
        bindparam(f"pgmrl_weight_{number}", check_weight(number, retriever.weight), Double(), unique=True)
        for number, retriever in enumerate(checked, 1)
    ]
    own = [*weights, *fuse.parameters()]
    labels = _labels(checked)

    def build() -> Select[*tuple[Any, ...]]:
        ranked_lists = [ranked.build() for ranked in lists]
        _check_same_rows(ranked_lists)
        keys = ranked_lists[0].keys
        ctes = [ranked.rows.cte(_list_name(number)) for number, ranked in enumerate(ranked_lists, 1)]
        fused = _fused_table(len(keys), len(lists))
        ranks = [labelled(fused.c[f"rank_{number}"], name) for number, name in enumerate(labels, 1)]
        same = [key == fused.c[name] for name, key in zip(key_names(len(keys)), keys, strict=True)]
        searched = statement.where(*same).order_by(fused.c.score.desc(), *keys)
        searched = searched.add_cte(*ctes, _fused(fuse, len(lists), own, len(keys), k))
        return search_result(searched.add_columns(labelled(fused.c.score, label), *ranks))

    return search_of_shape(statement, _shape(build, lists, own, isinstance(fuse, Rrf), k, label, *labels))


def _shape(
    build: Callable[[], Select[*tuple[Any, ...]]],
    lists: Sequence[Shaped[RankedList]],
    own: Sequence[BindParameter[Any]],
    *options: Hashable,
) -> Shaped[Select[*tuple[Any, ...]]]:
    """The shape of a search, which is that of its lists."""
    if any(ranked.options is None for ranked in lists):
        return Shaped(build, None)
    subjects = tuple(subject for ranked in lists for subject in ranked.subjects)
    shapes = tuple((ranked.options, len(ranked.subjects)) for ranked in lists)
    own = [*(parameter for ranked in lists for parameter in ranked.own), *own]
    return Shaped(build, ("hybrid", *options, shapes), subjects, own)


# -- the arguments -------------------------------------------------------------------------------------------------


def _checked(retrievers: Any, fuse: Any, label: str) -> list[Retriever]:
    retrievers = argument_list("retrievers", retrievers, SearchError, "a list of Nearest, Words and Trigrams")
    if not retrievers:
        raise SearchError("there are no retrievers: give at least one of Nearest, Words and Trigrams")
    for number, retriever in enumerate(retrievers, 1):
        if not isinstance(retriever, Retriever):
            raise SearchError(f"retriever {number}: expected Nearest, Words or Trigrams, got {safe_repr(retriever)}")
        check_weight(number, retriever.weight)
    if not isinstance(fuse, Rrf | Weighted):
        raise SearchError(f"fuse={safe_repr(fuse)}: expected Rrf() or Weighted()")
    check_parameters(retrievers)
    check_labels(label, *_labels(retrievers))
    return cast("list[Retriever]", retrievers)


def _labels(retrievers: Sequence[Retriever]) -> list[str]:
    labels = (retriever.label for retriever in retrievers)
    return [f"rank_{number}" if label is None else label for number, label in enumerate(labels, 1)]


def _check_same_rows(lists: Sequence[RankedList]) -> None:
    """Ranks of different rows cannot be added."""
    first = lists[0].keys
    for number, ranked in enumerate(lists[1:], 2):
        same = len(ranked.keys) == len(first) and all(
            ours.expression.compare(theirs.expression) for ours, theirs in zip(ranked.keys, first, strict=True)
        )
        if not same:
            raise SearchError(
                f"retriever {number} finds rows by {', '.join(map(str, ranked.keys))}, the first by "
                f"{', '.join(map(str, first))}: give columns of the same table or alias"
            )


# -- the fusion ----------------------------------------------------------------------------------------------------


def _fused(fuse: Fusion, lists: int, parameters: Sequence[BindParameter[Any]], key_columns: int, k: int) -> CTE:
    """As text and constants, like the rest of a search: constructs would take most of the time."""
    numbers = range(1, lists + 1)
    parts = [fuse.score_sql(f":pgmrl_weight_{number}") for number in numbers]
    fused = text(fused_sql(list(map(_list_name, numbers)), parts, key_names(key_columns), str(k)))
    return fused.bindparams(*parameters).columns().cte(FUSED)


@lru_cache(maxsize=64)
def _fused_table(key_columns: int, lists: int) -> FromClause:
    # made once: a new one would be another statement to SQLAlchemy's cache
    ranks = [column(f"rank_{n}", BigInteger()) for n in range(1, lists + 1)]
    return table(FUSED, *map(column, key_names(key_columns)), column("score", Double()), *ranks)


def _list_name(number: int) -> str:
    return f"pgmrl_list_{number}"
