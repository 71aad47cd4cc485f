"""The parts a search is put together from: candidates, shortlist, rerank, result."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import (
    Float,
    and_,
    column,
    literal_column,
    select,
    table,
)
from sqlalchemy.sql.operators import custom_op

from pgmrl.errors import SearchError
from pgmrl.searching.query import BoundQuery
from pgmrl.searching.scan import Scan, gate, planned_anew
from pgmrl.searching.subject import AnySelect, Subject, check_reads, filters_rows, leaves, reads_only

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import CTE, ColumnElement, FromClause, TextClause

    from pgmrl.model.columns import Attachment
    from pgmrl.model.shortening import Definition

__all__ = [
    "SHORTLIST",
    "WINNERS",
    "Candidates",
    "Winners",
    "candidates",
    "key_names",
    "materialized",
    "ranked_sql",
    "result",
    "winners",
    "winners_table",
]

SHORTLIST: Final = "pgmrl_shortlist"  # names that no application's table has: a CTE would hide it
WINNERS: Final = "pgmrl_winners"


@dataclass(frozen=True, slots=True)
class Candidates:
    """The rows that the caller's Select leaves, as something to order by distance.

    Attributes:
        rows: selects key and full vector.
        keys: the key's columns in the caller's Select.
        inner_keys: the key's columns in `rows`.
        full: the full vector in `rows`.
        short: the short vector in `rows`; None before a rotation has been learned.
        filtered: whether the caller's Select leaves out rows of the table, as far as Python can see.
        extra: further columns of the searched table in `rows`, by their labels there.

    """

    rows: AnySelect
    keys: Sequence[ColumnElement[Any]]
    inner_keys: Sequence[ColumnElement[Any]]
    full: ColumnElement[Any]
    short: ColumnElement[Any] | None
    filtered: bool = False
    extra: Mapping[str, ColumnElement[Any]] = field(default_factory=dict)

    @property
    def direct(self) -> bool:
        """Whether the caller's Select reads nothing else, so that its rows are taken as they are."""
        return self.keys is self.inner_keys

    def nearest(self, definition: Definition, query: Any, scan: Scan) -> AnySelect:
        """The shortlist: in the order of the short vectors, through their index."""
        distance = self.short_distance(definition, query)
        rows = self.rows.where(gate(scan), planned_anew()) if self.filtered else self.rows.where(gate(scan))
        rows = rows.order_by(distance)
        # a bound LIMIT would change the plan once the server plans generically
        return rows.limit(literal_column(str(scan.shortlist)))

    def short_distance(self, definition: Definition, query: Any) -> ColumnElement[float]:
        """The short distance of a row."""
        if self.short is None:  # the plan has made such a search exact
            raise SearchError("this column has no short vectors yet: run `pgmrl fit`")
        found: ColumnElement[float] = _operator(definition.short_operator)(self.short, query)
        return found

    def distance(self, definition: Definition, query: Any) -> ColumnElement[float]:
        """The full distance of a row."""
        found: ColumnElement[float] = _operator(definition.full_operator)(self.full, query)
        return found

    def reranked(self, definition: Definition, shortlist: FromClause, query: Any, k: int) -> AnySelect:
        """The k nearest of the shortlist by full distance."""
        *keys, full = list(shortlist.c)[: len(self.keys) + 1]
        distance = _operator(definition.full_operator)(full, query).label("distance")
        return select(*_numbered(keys), distance).order_by(distance, *keys).limit(literal_column(str(k)))

    def exactly(
        self,
        definition: Definition,
        query: Any,
        k: int | None,
        *where: ColumnElement[Any] | TextClause,
        carry: Mapping[str, ColumnElement[Any]] = MappingProxyType({}),
    ) -> AnySelect:
        """The k nearest of all rows by full distance; all of them, in no order, where k is None.

        Args:
            definition: of the column.
            query: the query's full vector.
            k: how many.
            *where: further conditions.
            carry: columns that come along, by their labels.

        """
        distance = self.distance(definition, query)
        rows = self.rows.with_only_columns(
            *_numbered(self.inner_keys), *_labelled(carry), distance.label("distance"), maintain_column_froms=True
        )
        if where:
            rows = rows.where(*where)
        if k is None:
            return rows
        # OFFSET 0: in one query the distance would be computed twice for each row, for its order and for the result. It
        # also keeps an index on the full vector out, which would make the truth approximate.
        candidates = rows.offset(literal_column("0")).subquery("candidates")
        keys = list(candidates.c)[: len(self.inner_keys)]
        return select(candidates).order_by(candidates.c.distance, *keys).limit(literal_column(str(k)))


@lru_cache(maxsize=64)
def _operator(name: str) -> custom_op[float]:
    """A distance operator, made once: `column.op(name)` makes it for every search."""
    return custom_op(name, return_type=Float())


def candidates(
    statement: AnySelect, asked: Any, attachment: Attachment, extra: Mapping[str, Any] = MappingProxyType({})
) -> Candidates:
    """Key and full vector of the rows that the caller's Select leaves.

    Args:
        statement: the caller's Select.
        asked: the column that is searched.
        attachment: of that column.
        extra: further columns of the searched table, by the labels they get.

    Raises:
        SearchError: the Select does not read the column's table, or an extra column is not of it.
        DefinitionError: the table has no primary key.

    """
    outer = Subject.of(asked, attachment)
    filtered = True
    if reads_only(statement, outer.selectable):
        inner, rows = outer, statement
        filtered = filters_rows(statement, outer)
    else:
        check_reads(statement, outer)
        # Joined to other tables a row could take many places of the shortlist: ask only whether it is among the rows.
        inner = outer.aliased(attachment)
        same = [ours == theirs for ours, theirs in zip(outer.keys, inner.keys, strict=True)]
        among: AnySelect = statement.with_only_columns(literal_column("1"), maintain_column_froms=True).where(*same)
        rows = select(*inner.keys).where(among.correlate(*leaves(inner.selectable)).exists())
    more = {label: inner.own(outer.column_of(one)) for label, one in extra.items()}
    rows = rows.with_only_columns(
        *_numbered(inner.keys), inner.full.label("full_vector"), *_labelled(more), maintain_column_froms=True
    )
    if inner.links:
        # a JOIN: of conditions, inside a LATERAL, SQLAlchemy's linter takes no notice and would warn
        rows = rows.select_from(inner.selectable.join(inner.full.table, and_(*inner.links)))
    return Candidates(rows, outer.keys, inner.keys, inner.full, inner.short, filtered, more)


def result(
    statement: AnySelect, keys: Sequence[ColumnElement[Any]], winners: FromClause, *first: ColumnElement[Any]
) -> AnySelect:
    """The caller's Select for the winners only, nearest first."""
    same = [key == winners.c[f"key_{number}"] for number, key in enumerate(keys, 1)]
    defined = winners.c.distance != literal_column("'NaN'")  # nor NULL: without a vector there is no distance
    return statement.where(*same, defined).order_by(*first, winners.c.distance, *keys)


def winners(definition: Definition, shortlist: AnySelect, sent: BoundQuery, keys: int, k: int) -> Winners:
    """The k nearest of a shortlist, for one query.

    As text and constants: with SQLAlchemy's constructs they would take most of the time that building a search takes.
    """
    ranked = sent.text(ranked_sql(definition, sent.full, keys, k)).columns()
    return Winners(winners_table(keys), (*sent.ctes, materialized(shortlist, SHORTLIST), ranked.cte(WINNERS)))


def materialized(body: AnySelect, name: str) -> CTE:
    """A part of a statement that is computed once, whoever reads it."""
    return body.cte(name).prefix_with("MATERIALIZED", dialect="postgresql")


class Winners(NamedTuple):
    """The nearest rows, as something to join.

    Attributes:
        table: key and distance; its columns are `key_1`, …, `distance`.
        ctes: what defines it, in order.

    """

    table: FromClause
    ctes: tuple[CTE, ...]


def ranked_sql(definition: Definition, query: str, keys: int, k: int) -> str:
    """The k nearest of the shortlist, as text."""
    names = ", ".join(key_names(keys))
    distance = f"full_vector {definition.full_operator} {query} AS distance"
    return f"SELECT {names}, {distance} FROM {SHORTLIST} ORDER BY distance, {names} LIMIT {k}"  # noqa: S608


@lru_cache(maxsize=64)
def winners_table(keys: int, *more: str) -> FromClause:
    """The winners by name, with key, distance and further numbers."""
    return table(WINNERS, *map(column, key_names(keys)), column("distance", Float()), *map(column, more))


def key_names(keys: int) -> list[str]:
    """The names a primary key's columns have in the parts of a statement."""
    return [f"key_{number}" for number in range(1, keys + 1)]


def _numbered(keys: Sequence[ColumnElement[Any]]) -> list[ColumnElement[Any]]:
    return [key.label(name) for name, key in zip(key_names(len(keys)), keys, strict=True)]


def _labelled(columns: Mapping[str, ColumnElement[Any]]) -> list[ColumnElement[Any]]:
    return [one.label(label) for label, one in columns.items()]
