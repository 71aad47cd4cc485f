"""The exact fallback, and the ranking it completes: what comes back where a shortlist falls short.

    pgmrl_reranked the shortlist by full distance, behind the page before
    pgmrl_exact    the caller's rows by full distance; executed only where too few were reranked
    pgmrl_results  k of the one or the other, within the threshold

The number of reranked rows is an InitPlan, and the comparison with it a One-Time Filter: where there are enough, the
exact fallback is never executed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Float, bindparam, tuple_

from pgmrl.model.ranking_sql import distances_sql, key_names
from pgmrl.searching.query import sql_text
from pgmrl.searching.statement import RESULTS, SHORTLIST, Results, results_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import CTE, BindParameter, ColumnElement, TextClause

    from pgmrl.model.shortening import Definition
    from pgmrl.searching.pages import Page
    from pgmrl.searching.query import BoundQuery
    from pgmrl.searching.selected_rows import SelectedRows

__all__ = ["EXACT", "RERANKED", "Ranking", "falls_short", "falls_short_sql"]

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
        where = [] if self.page.after is None else [self._after()]
        limit = self.page.k + (self.page.offset or 0)
        body = self.rows.exact_ranking(self.definition, self.query.vector, limit, *where)
        return self._results([*self.query.ctes, body.cte(EXACT)], EXACT)

    def of_shortlist(self, ctes: Sequence[CTE], size: int, source: str = SHORTLIST, *, fallback: bool) -> Results:
        """Of a shortlist, and with the fallback of all rows where that falls short.

        Args:
            ctes: what defines the shortlist.
            size: rows it holds when it is full.
            source: its name; it has the key and `full_vector`.
            fallback: whether the exact fallback stands behind it.

        """
        before = [*self.query.ctes, *ctes]
        if not fallback:
            return self._results(before, f"({self._distances(source)})", self._after_sql())
        # All pages must come from one ranking, so with an offset the shortlist is either full or not used.
        need = self.page.k if self.page.offset is None else size
        reranked = f"{_sorted(f'({self._distances(source)})', self._names, self._after_sql())} LIMIT {need}"
        where: list[Any] = [falls_short(need)]
        if self.page.after is not None:
            where.append(self._after())
        exact = self.rows.exact_ranking(self.definition, self.query.vector, need, *where)
        ctes = [*before, self._text(reranked).columns().cte(RERANKED), exact.cte(EXACT)]
        either = f"(SELECT * FROM {RERANKED} WHERE NOT {falls_short_sql(need)} UNION ALL TABLE {EXACT})"  # noqa: S608
        return self._results(ctes, either)

    @property
    def _names(self) -> str:
        return ", ".join(key_names(len(self.rows.keys)))

    def _distances(self, source: str) -> str:
        return distances_sql(self.definition, self.query.full, self._names, source)

    def _results(self, ctes: Sequence[CTE], source: str, *where: str | None) -> Results:
        limit = None if self.page.max_distance is None else "distance <= :pgmrl_max"
        body = f"{_sorted(source, self._names, limit, *where)} LIMIT {self.page.k}"
        if self.page.offset:
            body += f" OFFSET {self.page.offset}"
        return Results(results_table(len(self.rows.keys)), (*ctes, self._text(body).columns().cte(RESULTS)))

    # -- the page before ---------------------------------------------------------------------------------------

    def _text(self, body: str) -> TextClause:
        ranks = f" {self.query.full} AS distance " in body
        clause = self.query.text(body) if ranks else sql_text(body)
        parameters = [parameter for name, parameter in self._parameters().items() if f":{name}" in body]
        return clause.bindparams(*parameters) if parameters else clause

    def _parameters(self) -> dict[str, BindParameter[Any]]:
        """The threshold and the last row of the page before, by their names in SQL text."""
        parameters = self._after_parameters()
        if self.page.max_distance is not None:
            parameters["pgmrl_max"] = bindparam("pgmrl_max", self.page.max_distance, type_=Float(), unique=True)
        return parameters

    def _after_parameters(self) -> dict[str, BindParameter[Any]]:
        if self.page.after is None:
            return {}
        distance, *key = self.page.after
        parameters = {"pgmrl_distance": bindparam("pgmrl_distance", distance, type_=Float(), unique=True)}
        for name, column, value in zip(key_names(len(key)), self.rows.keys, key, strict=True):
            parameters[f"pgmrl_{name}"] = bindparam(f"pgmrl_{name}", value, type_=column.type, unique=True)
        return parameters

    def _after_sql(self) -> str | None:
        if self.page.after is None:
            return None
        names = ", ".join(f":pgmrl_{name}" for name in key_names(len(self.rows.keys)))
        return f"(distance, {self._names}) > (:pgmrl_distance, {names})"

    def _after(self) -> ColumnElement[bool]:
        distance = self.rows.distance(self.definition, self.query.vector)
        last = tuple_(*self._after_parameters().values())
        behind: ColumnElement[bool] = tuple_(distance, *self.rows.inner_keys) > last
        return behind


def _sorted(source: str, names: str, *where: str | None) -> str:
    conditions = [condition for condition in where if condition]
    filtered = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    alias = " AS ranked" if source.startswith("(") else ""
    return f"SELECT {names}, distance FROM {source}{alias}{filtered} ORDER BY distance, {names}"  # noqa: S608


def falls_short_sql(need: int) -> str:
    """Whether fewer rows were reranked than are needed, as text."""
    return f"(SELECT count(*) FROM {RERANKED} WHERE distance != 'NaN') < {need}"  # noqa: S608


def falls_short(need: int) -> TextClause:
    """Whether fewer rows were reranked than are needed; the same for every row, so it is a One-Time Filter."""
    return sql_text(falls_short_sql(need))
