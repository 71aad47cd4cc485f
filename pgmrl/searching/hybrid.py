"""Hybrid search: several lists of rows, by vectors and by words, fused into one.

In one statement, so that all lists see one snapshot:

    WITH pgmrl_found_1 AS (WITH pgmrl_shortlist AS MATERIALIZED (…), … SELECT …), -- as `search` has it: key, value
         pgmrl_found_2 AS (…),                                                    -- each retriever's list
         pgmrl_fused AS (
             SELECT <key>, <score>, <ranks> FROM (<the lists with their ranks, one below the other>)
             GROUP BY <key> ORDER BY score DESC, <key> LIMIT <k>
         )
    SELECT <the caller's columns>, score, rank_1, rank_2
    FROM …, pgmrl_fused WHERE <the caller's filters> AND <key> = pgmrl_fused.<key> ORDER BY score DESC, <key>
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import BigInteger, Double, Select, bindparam, column, table, text

from pgmrl.errors import SearchError
from pgmrl.searching.options import check_statement, labels, positive
from pgmrl.searching.retrievers import Found, Retriever, check_parameters, check_weight, is_number
from pgmrl.searching.statement import key_names

if TYPE_CHECKING:
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

    k: float = 60

    def __post_init__(self) -> None:
        if not is_number(self.k) or not 0 <= self.k < math.inf:
            raise SearchError(f"Rrf(k={self.k!r}): give a number of 0 or more")

    def _part(self, weight: str) -> str:
        return f"{weight} / (CAST(:pgmrl_rrf_k AS double precision) + rank)"

    def _bound(self) -> list[BindParameter[Any]]:
        return [bindparam("pgmrl_rrf_k", float(self.k), Double(), unique=True)]


@dataclass(frozen=True, slots=True)
class Weighted:
    """A weighted sum of values, each list's scaled so that its best row has 1 and its last 0.

    The values are similarities (the negative distance) and text ranks. A list whose rows all have the same value, as
    one of a single row, gives each 1. A row that a list does not hold has 0 there, as its last row has.
    """

    def _part(self, weight: str) -> str:
        low, high = "min(value) OVER ()", "max(value) OVER ()"
        return f"{weight} * coalesce((value - {low}) / nullif({high} - {low}, 0), 1)"

    def _bound(self) -> list[BindParameter[Any]]:
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
    k = positive("k", k)
    given = _checked(retrievers, fuse, label)
    lists = []
    for one in given:
        # no comprehension: that would be one more frame between a warning and its cause
        lists.append(one.found(statement, k, stacklevel=2))  # noqa: PERF401
    _check_same(lists)
    keys = lists[0].keys
    ctes = [one.rows.cte(_found(number)) for number, one in enumerate(lists, 1)]
    weights = [check_weight(number, one.weight) for number, one in enumerate(given, 1)]
    fused = _fused_table(len(keys), len(lists))
    ranks = [fused.c[f"rank_{n}"].label(name) for n, name in enumerate(_labels(given), 1)]
    same = [key == fused.c[name] for name, key in zip(key_names(len(keys)), keys, strict=True)]
    found = statement.where(*same).order_by(fused.c.score.desc(), *keys)
    found = found.add_cte(*ctes, _fused(fuse, weights, len(keys), k))
    return found.add_columns(fused.c.score.label(label), *ranks)


# -- the arguments -------------------------------------------------------------------------------------------------


def _checked(retrievers: Any, fuse: Any, label: str) -> list[Retriever]:
    if not isinstance(retrievers, Sequence) or isinstance(retrievers, str):
        raise SearchError(f"retrievers is {type(retrievers).__name__}: give a list of Nearest, Words and Trigrams")
    given = list(retrievers)
    if not given:
        raise SearchError("there are no retrievers: give at least one of Nearest, Words and Trigrams")
    for number, one in enumerate(given, 1):
        if not isinstance(one, Retriever):
            raise SearchError(f"retriever {number} is {one!r}: give Nearest, Words or Trigrams")
        check_weight(number, one.weight)
    if not isinstance(fuse, Rrf | Weighted):
        raise SearchError(f"fuse={fuse!r}: give Rrf() or Weighted()")
    check_parameters(given)
    labels(label, *_labels(given))
    return given


def _labels(given: Sequence[Retriever]) -> list[str]:
    return [one.label or f"rank_{number}" for number, one in enumerate(given, 1)]


def _check_same(lists: Sequence[Found]) -> None:
    """Ranks of different rows cannot be added."""
    first = lists[0].keys
    for number, one in enumerate(lists[1:], 2):
        same = len(one.keys) == len(first) and all(
            ours.expression.compare(theirs.expression) for ours, theirs in zip(one.keys, first, strict=True)
        )
        if not same:
            raise SearchError(
                f"retriever {number} finds rows by {', '.join(map(str, one.keys))}, the first by "
                f"{', '.join(map(str, first))}: give columns of the same table or alias"
            )


# -- the fusion ----------------------------------------------------------------------------------------------------


def _fused(fuse: Fusion, weights: Sequence[float], keys: int, k: int) -> CTE:
    """As text and constants, like `statement.winners`: constructs would take most of the time."""
    bound = fuse._bound()
    bound += [bindparam(f"pgmrl_weight_{n}", weight, Double(), unique=True) for n, weight in enumerate(weights, 1)]
    made = text(_fused_sql(fuse, len(weights), ", ".join(key_names(keys)), k)).bindparams(*bound)
    return made.columns().cte(FUSED)


@lru_cache(maxsize=64)
def _fused_table(keys: int, lists: int) -> FromClause:
    # made once: a new one would be another statement to SQLAlchemy's cache
    ranks = [column(f"rank_{n}", BigInteger()) for n in range(1, lists + 1)]
    return table(FUSED, *map(column, key_names(keys)), column("score", Double()), *ranks)


def _fused_sql(fuse: Fusion, count: int, keys: str, k: int) -> str:
    numbers = range(1, count + 1)
    # added in the order of the retrievers, and not by sum(): the same lists give the same score to the last bit
    score = " + ".join(f"coalesce(max(part_{n}), 0)" for n in numbers)
    ranks = ", ".join(f"max(rank_{n}) AS rank_{n}" for n in numbers)
    lists = " UNION ALL ".join(_ranked_sql(fuse, n, count, keys) for n in numbers)
    return (  # of numbers and names of ours
        f"SELECT {keys}, {score} AS score, {ranks} FROM ({lists}) AS listed "  # noqa: S608
        f"GROUP BY {keys} ORDER BY score DESC, {keys} LIMIT {k}"
    )


def _ranked_sql(fuse: Fusion, number: int, count: int, keys: str) -> str:
    """One list with its rank and its part of the score; NULL in the columns of the others."""
    columns = [
        f"rank AS rank_{n}, {fuse._part(f'CAST(:pgmrl_weight_{n} AS double precision)')} AS part_{n}"
        if n == number
        else f"NULL::bigint AS rank_{n}, NULL::double precision AS part_{n}"
        for n in range(1, count + 1)
    ]
    ranked = f"SELECT {keys}, value, row_number() OVER (ORDER BY value DESC, {keys}) AS rank FROM {_found(number)}"  # noqa: S608
    return f"SELECT {keys}, {', '.join(columns)} FROM ({ranked}) AS ranked"  # noqa: S608


def _found(number: int) -> str:
    return f"pgmrl_found_{number}"
