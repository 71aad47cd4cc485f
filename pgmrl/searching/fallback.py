"""Which of the ranked rows win: pages, thresholds, and the exact branch behind a shortlist that fell short.

    pgmrl_found   the shortlist by full distance, behind the page before
    pgmrl_exact   the caller's rows by full distance; executed only where too few were found
    pgmrl_winners k of the one or the other, within the threshold

The number found is an InitPlan, and the comparison with it a One-Time Filter: where enough were found, the exact branch
is never executed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Float, bindparam, text, tuple_

from pgmrl.searching.more_like_this import MoreLikeThis
from pgmrl.searching.query import bind_query
from pgmrl.searching.statement import SHORTLIST, WINNERS, Winners, candidates, key_names, winners_table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import CTE, BindParameter, ColumnElement, TextClause

    from pgmrl.model.shortening import Definition
    from pgmrl.searching.options import Page, SearchOptions
    from pgmrl.searching.query import BoundQuery
    from pgmrl.searching.statement import Candidates
    from pgmrl.searching.subject import AnySelect

__all__ = ["EXACT", "FOUND", "Ranking", "distances_sql", "few_sql", "prepare_search", "too_few"]

FOUND: Final = "pgmrl_found"
EXACT: Final = "pgmrl_exact"


def prepare_search(
    asked: SearchOptions, statement: AnySelect, query: Any, extra: Mapping[str, Any] = MappingProxyType({})
) -> tuple[Candidates, BoundQuery]:
    """The rows of a search and its query, whatever that is given as.

    Args:
        asked: the column and numbers.
        statement: the caller's Select.
        query: a vector, the caller's parameter, an expression or examples.
        extra: further columns of the searched table, by the labels they get.

    Raises:
        SearchError: as `candidates` and `bind_query`.
        VectorError: the vector cannot be searched with.
        DefinitionError: the table has no primary key.

    """
    rows = candidates(statement, asked.column, asked.attachment, extra)
    if isinstance(query, MoreLikeThis):
        query, rows = query.vector(asked.definition), query.apart(rows, asked.column)
    return rows, bind_query(asked.definition, query, f"the query for {asked.name}", exact=asked.exact)


@dataclass(frozen=True, slots=True)
class Ranking:
    """Rows, a query, and which of the rows come back.

    Attributes:
        definition: of the column.
        rows: what the caller's Select leaves.
        sent: the query.
        cut: which come back.

    """

    definition: Definition
    rows: Candidates
    sent: BoundQuery
    cut: Page

    def exact(self) -> Winners:
        """Of all rows."""
        where = [] if self.cut.after is None else [self._behind()]
        limit = self.cut.k + (self.cut.offset or 0)
        body = self.rows.exactly(self.definition, self.sent.vector, limit, *where)
        return self._winners([*self.sent.ctes, body.cte(EXACT)], EXACT)

    def of_shortlist(self, ctes: Sequence[CTE], size: int, source: str = SHORTLIST, *, complete: bool) -> Winners:
        """Of a shortlist, and of all rows where that fell short and the search shall be complete.

        Args:
            ctes: what defines the shortlist.
            size: rows it holds when it is full.
            source: its name; it has the key and `full_vector`.
            complete: whether the exact branch stands behind it.

        """
        before = [*self.sent.ctes, *ctes]
        if not complete:
            return self._winners(before, f"({self._distances(source)})", self._after_sql())
        # All pages must come from one ranking, so with an offset the shortlist is either full or not used.
        need = self.cut.k if self.cut.offset is None else size
        found = f"{_sorted(f'({self._distances(source)})', self._names, self._after_sql())} LIMIT {need}"
        where: list[Any] = [too_few(need)] if self.cut.after is None else [too_few(need), self._behind()]
        exact = self.rows.exactly(self.definition, self.sent.vector, need, *where)
        ctes = [*before, self._text(found).columns().cte(FOUND), exact.cte(EXACT)]
        return self._winners(ctes, f"(SELECT * FROM {FOUND} WHERE NOT {few_sql(need)} UNION ALL TABLE {EXACT})")  # noqa: S608

    @property
    def _names(self) -> str:
        return ", ".join(key_names(len(self.rows.keys)))

    def _distances(self, source: str) -> str:
        return distances_sql(self.definition, self.sent, self._names, source)

    def _winners(self, ctes: Sequence[CTE], source: str, *where: str | None) -> Winners:
        limit = None if self.cut.max_distance is None else "distance <= :pgmrl_max"
        body = f"{_sorted(source, self._names, limit, *where)} LIMIT {self.cut.k}"
        if self.cut.offset:
            body += f" OFFSET {self.cut.offset}"
        return Winners(winners_table(len(self.rows.keys)), (*ctes, self._text(body).columns().cte(WINNERS)))

    # -- the page before ---------------------------------------------------------------------------------------

    def _text(self, body: str) -> TextClause:
        ranks = f" {self.sent.full} AS distance " in body
        found = self.sent.text(body) if ranks else text(body)
        given = [bind for bind in self._binds() if f":{bind._orig_key}" in body]
        return found.bindparams(*given) if given else found

    def _binds(self) -> list[BindParameter[Any]]:
        binds = self._after_binds()
        if self.cut.max_distance is not None:
            binds.append(bindparam("pgmrl_max", self.cut.max_distance, type_=Float(), unique=True))
        return binds

    def _after_binds(self) -> list[BindParameter[Any]]:
        if self.cut.after is None:
            return []
        distance, *key = self.cut.after
        parts = zip(key, self.rows.keys, strict=True)
        keys = [bindparam(f"pgmrl_key_{n}", v, type_=c.type, unique=True) for n, (v, c) in enumerate(parts, 1)]
        return [bindparam("pgmrl_distance", distance, type_=Float(), unique=True), *keys]

    def _after_sql(self) -> str | None:
        if self.cut.after is None:
            return None
        names = ", ".join(f":pgmrl_{name}" for name in key_names(len(self.rows.keys)))
        return f"(distance, {self._names}) > (:pgmrl_distance, {names})"

    def _behind(self) -> ColumnElement[bool]:
        distance = self.rows.distance(self.definition, self.sent.vector)
        found: ColumnElement[bool] = tuple_(distance, *self.rows.inner_keys) > tuple_(*self._after_binds())
        return found


def _sorted(source: str, names: str, *where: str | None) -> str:
    conditions = [one for one in where if one]
    such = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    as_ = " AS ranked" if source.startswith("(") else ""
    return f"SELECT {names}, distance FROM {source}{as_}{such} ORDER BY distance, {names}"  # noqa: S608


def distances_sql(definition: Definition, sent: BoundQuery, names: str, source: str) -> str:
    """Columns of a source that has `full_vector`, and the distance; once a row, whoever reads it."""
    distance = f"full_vector {definition.full_operator} {sent.full}"
    return f"SELECT {names}, {distance} AS distance FROM {source} OFFSET 0"  # noqa: S608


def few_sql(need: int) -> str:
    """Whether fewer rows were found than are needed, as text."""
    return f"(SELECT count(*) FROM {FOUND} WHERE distance != 'NaN') < {need}"  # noqa: S608


@lru_cache(maxsize=256)
def too_few(need: int) -> TextClause:
    """Whether fewer rows were found than are needed; the same for every row, so it is a One-Time Filter."""
    return text(few_sql(need))
