"""The exact fallback, and the ranking it completes: what comes back where a shortlist falls short.

    pgmrl_reranked  the shortlist with its full distances
    pgmrl_exact     the caller's rows with their full distances; executed only where the shortlist is not full
    pgmrl_results   k of the one or the other, behind the page before and within the threshold

The number of rows in the shortlist is an InitPlan, which a LIMIT reads: where the shortlist is full, it is 0, and the
exact fallback is never executed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import literal_column, tuple_

from pgmrl.model.ranking_sql import key_names
from pgmrl.searching.query import sql_text
from pgmrl.searching.selected_rows import materialized
from pgmrl.searching.statement import RESULTS, Results, results_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import CTE, ColumnElement, TextClause

    from pgmrl.model.shortening import Definition
    from pgmrl.searching.pages import Page
    from pgmrl.searching.query import BoundQuery
    from pgmrl.searching.selected_rows import SelectedRows, Shortlist
    from pgmrl.searching.subject import AnySelect

__all__ = [
    "EXACT",
    "RERANKED",
    "Ranking",
    "either_sql",
    "falls_short_sql",
    "only_if_sql",
    "unlimited",
    "with_fallback",
]

RERANKED: Final = "pgmrl_reranked"
EXACT: Final = "pgmrl_exact"


@dataclass(frozen=True, slots=True)
class Ranking:
    """Rows, a query, and which of the rows come back.

    Attributes:
        definition: of the column.
        rows: what the caller's Select leaves.
        query: as the statement sees it.
        page: which come back.

    """

    definition: Definition
    rows: SelectedRows
    query: BoundQuery
    page: Page

    def exact(self) -> Results:
        """Of all rows."""
        where = [self.after()] if self.page.after else []
        limit = self.page.k + (self.page.offset or 0)
        body = self.rows.exact_ranking(self.definition, self.query.vector, limit, *where)
        return self._results([*self.query.ctes, body.cte(EXACT)], EXACT, behind=False)

    def of_shortlist(self, shortlist: Shortlist, *, fallback: bool) -> Results:
        """Of a shortlist, and with the fallback of all rows where that falls short.

        Args:
            shortlist: of the rows.
            fallback: whether the exact fallback stands behind it.

        """
        distances = shortlist.distances(self.definition, self.query, key_names(len(self.rows.keys)))
        fallback = self.completed(fallback=fallback)
        # without a fallback it is read once, and the server computes the results in one go
        reranked = materialized(distances, RERANKED) if fallback else distances.cte(RERANKED)
        return self.of_reranked([*shortlist.ctes, reranked], falls_short_sql(shortlist.size), fallback=fallback)

    def of_reranked(self, ctes: Sequence[CTE], falls_short: str, *, fallback: bool) -> Results:
        """As `of_shortlist`, of a shortlist with its distances.

        Args:
            ctes: what comes first; the last has key and distance.
            falls_short: whether the shortlist is not full, as SQL text.
            fallback: whether the exact fallback stands behind it.

        """
        before = [*self.query.ctes, *ctes]
        if not fallback:
            return self._results(before, RERANKED)
        falls_short = self.falls_short(falls_short)
        if self.rows.sharded:
            where = [self.after()] if self.page.after else []
            limit = self.page.k + (self.page.offset or 0)
            condition = self.text(f"({falls_short})")
            ranked = self.rows.exact_ranking(self.definition, self.query.vector, limit, condition, *where)
            exact = materialized(ranked, EXACT)
        else:
            exact = unlimited(self.rows.every_row(self.definition, self.query.vector)).cte(EXACT)
        return self._results([*before, exact], f"({either_sql(falls_short, limited=not self.rows.sharded)})")

    def completed(self, *, fallback: bool) -> bool:
        """Whether the exact fallback stands behind the shortlist, where the caller wants it."""
        return with_fallback(self.rows, fallback=fallback) or (fallback and self.page.after)

    def falls_short(self, shortlist: str) -> str:
        """Whether the shortlist does not answer this page, as SQL text.

        Args:
            shortlist: whether it is not full.

        """
        after = self.after_sql()
        if after is None:
            return shortlist
        few = f"(SELECT count(*) FROM {RERANKED} WHERE {after} AND distance != 'NaN') < {self.page.k}"  # noqa: S608
        return f"{shortlist} OR {few}"

    @property
    def _names(self) -> str:
        return ", ".join(key_names(len(self.rows.keys)))

    def _results(self, ctes: Sequence[CTE], source: str, *, behind: bool = True) -> Results:
        """The rows that come back; those behind the page before, where the source has others too."""
        limit = "distance <= :pgmrl_max" if self.page.max_distance else None
        body = f"{_sorted(source, self._names, limit, self.after_sql() if behind else None)} LIMIT {self.page.k}"
        if self.page.offset:
            body += f" OFFSET {self.page.offset}"
        return Results(results_table(len(self.rows.keys)), (*ctes, self.text(body).columns().cte(RESULTS)))

    # -- the page before ---------------------------------------------------------------------------------------

    def text(self, body: str) -> TextClause:
        """SQL text with the parameters of the page in it."""
        clause = sql_text(body)
        parameters = [parameter for name, parameter in self.page.parameters.items() if f":{name}" in body]
        return clause.bindparams(*parameters) if parameters else clause

    def after_sql(self) -> str | None:
        """The condition on ranked rows to be behind the page before, as SQL text; None for the first page."""
        if not self.page.after:
            return None
        names = ", ".join(f":pgmrl_{name}" for name in key_names(len(self.rows.keys)))
        return f"(distance, {self._names}) > (:pgmrl_distance, {names})"

    def after(self) -> ColumnElement[bool]:
        """The same condition on all rows."""
        distance = self.rows.distance(self.definition, self.query.vector)
        names = ["distance", *key_names(len(self.rows.keys))]
        last = tuple_(*(self.page.parameters[f"pgmrl_{name}"] for name in names))
        behind: ColumnElement[bool] = tuple_(distance, *self.rows.inner_keys) > last
        return behind


def _sorted(source: str, names: str, *where: str | None) -> str:
    conditions = [condition for condition in where if condition]
    filtered = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    alias = " AS ranked" if source.startswith("(") else ""
    return f"SELECT {names}, distance FROM {source}{alias}{filtered} ORDER BY distance, {names}"  # noqa: S608


def falls_short_sql(size: int, source: str = RERANKED) -> str:
    """Whether the shortlist is not full, as SQL text.

    Not whether fewer than k rows were found: a scan of the index that gave up may have met any k rows of a filter.

    Args:
        size: rows it holds when it is full.
        source: name of what has its rows.

    """
    return f"(SELECT count(*) FROM {source}) < {size}"  # noqa: S608


def with_fallback(rows: SelectedRows, *, fallback: bool) -> bool:
    """Whether the exact fallback is to stand behind a shortlist of these rows.

    Args:
        rows: that are searched.
        fallback: whether the caller wants it.

    """
    return fallback and (rows.filtered or not rows.sharded)


def either_sql(falls_short: str, *, limited: bool = True) -> str:
    """The shortlist with its distances, or all rows where that falls short, as SQL text.

    Args:
        falls_short: a condition.
        limited: whether a limit keeps all rows from being read else; not where they have the condition themselves.

    """
    every_row = only_if_sql(EXACT, falls_short) if limited else f"SELECT * FROM {EXACT}"  # noqa: S608
    return f"SELECT * FROM {RERANKED} WHERE NOT ({falls_short}) UNION ALL {every_row}"  # noqa: S608


def only_if_sql(source: str, condition: str) -> str:
    """The rows of a relation under a condition of the whole statement, else none and nothing read, as SQL text.

    A limit of 0 executes nothing of what is below it. The planner takes a limit that it does not know for a tenth of
    the rows: so a search is not charged with reading the whole table, for which the server would compile it
    (`jit_above_cost`).

    Args:
        source: name of what `unlimited` selects.
        condition: true or false.

    """
    return f"(SELECT * FROM {source} LIMIT (SELECT CASE WHEN {condition} THEN NULL ELSE 0 END))"  # noqa: S608


def unlimited(rows: AnySelect) -> AnySelect:
    """Rows under a limit that takes none away, and makes the planner expect a tenth of them once more."""
    return rows.limit(literal_column("(SELECT CAST(NULL AS bigint))"))
