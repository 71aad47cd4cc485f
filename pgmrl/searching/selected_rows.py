"""The rows that the caller's Select leaves, as a search reads them: by key, full and short vector.

Filters and joins of the caller hold here, and so inside every shortlist and every exact ranking.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple

from sqlalchemy import BinaryExpression, Float, and_, column, literal_column, select, text
from sqlalchemy.sql.operators import custom_op

from pgmrl.errors import SearchError
from pgmrl.model.ranking_sql import distance_sql, key_names
from pgmrl.model.scan_settings import EXPECTED_CANDIDATES
from pgmrl.searching.scan import Scan, custom_plan
from pgmrl.searching.subject import AnySelect, Subject, check_reads, filters_rows, leaves, reads_only

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import CTE, ColumnElement, FromClause, TextClause, TextualSelect

    from pgmrl.model.columns import Attachment
    from pgmrl.model.shortening import Definition
    from pgmrl.searching.query import BoundQuery

__all__ = ["CANDIDATES", "SHORTLIST", "SelectedRows", "Shortlist", "materialized", "selected_rows"]

SHORTLIST: Final = "pgmrl_shortlist"  # names that no application's table has: a CTE would hide it
CANDIDATES: Final = "pgmrl_candidates"


class Shortlist(NamedTuple):
    """The rows nearest by their short vectors.

    Attributes:
        rows: selects key, full vector and further columns, in no order.
        size: how many there are when it is full.
        ctes: what it reads.

    """

    rows: AnySelect
    size: int
    ctes: tuple[CTE, ...] = ()

    def distances(self, definition: Definition, query: BoundQuery, names: Sequence[str]) -> AnySelect:
        """Columns of the shortlist and the full distance of each row, in no order.

        The full vectors are read above the LIMIT, so for these rows alone, whatever plan the server takes.

        Args:
            definition: of the column.
            query: the query.
            names: of the columns that come along.

        """
        columns = query.text(f"{', '.join(names)}, {distance_sql(definition, query.full)}")
        return select(columns).select_from(self.rows.subquery(SHORTLIST))


@dataclass(frozen=True, slots=True)
class SelectedRows:
    """The rows that the caller's Select leaves, as something to order by distance.

    Attributes:
        select: selects key and full vector.
        keys: the key's columns in the caller's Select.
        inner_keys: the key's columns in `select`.
        full: the full vector in `select`.
        short: the short vector in `select`; None before a rotation has been learned.
        source: what these are columns of: a table, also by another name, or a join.
        filtered: whether the caller's Select leaves out rows of the table, as far as Python can see.
        extra: further columns of the searched table in `select`, by their labels there.
        each: conditions that `select` has and that each other part which reads the table has to have too.
        sharded: whether they are on several nodes, see pgmrl.searching.distributed_statement.

    """

    sharded: ClassVar[bool] = False
    select: AnySelect
    keys: Sequence[ColumnElement[Any]]
    inner_keys: Sequence[ColumnElement[Any]]
    full: ColumnElement[Any]
    short: ColumnElement[Any] | None
    source: FromClause
    filtered: bool = False
    extra: Mapping[str, ColumnElement[Any]] = field(default_factory=dict)
    each: Sequence[ColumnElement[bool]] = ()

    @property
    def direct(self) -> bool:
        """Whether the caller's Select reads nothing else, so that its rows are taken as they are."""
        return self.keys is self.inner_keys

    def shortlist(self, definition: Definition, query: BoundQuery, scan: Scan) -> Shortlist:
        """The nearest by the short vectors.

        Under a filter the scan reads keys and short vectors only, so that an index on the filter's column which
        includes them answers it alone; the full vectors are fetched for the shortlist.

        Args:
            definition: of the column.
            query: the query.
            scan: how the short index is read.

        """
        distance = self.short_distance(definition, query.short_vector(scan))
        # a bound LIMIT would change the plan once the server plans generically
        size: ColumnElement[int] = literal_column(str(scan.shortlist))
        if not self.filtered:
            return Shortlist(self.select.order_by(distance).limit(size), scan.shortlist)
        keys = self.select.with_only_columns(*_as_keys(self.inner_keys), maintain_column_froms=True)
        expected: ColumnElement[int] = literal_column(str(scan.shortlist * EXPECTED_CANDIDATES))
        candidates = keys.where(custom_plan()).order_by(distance).limit(expected)
        nearest = _nearest(len(self.inner_keys), scan.shortlist)
        same = and_(*(key == own for key, own in zip(self.inner_keys, nearest.c, strict=True)))
        columns = [*_as_keys(self.inner_keys), self.full.label("full_vector"), *_labelled(self.extra)]
        rows: AnySelect = select(*columns).select_from(self.source.join(nearest, same)).correlate(None)
        if self.each:
            rows = rows.where(*self.each)
        return Shortlist(rows.limit(size), scan.shortlist, (materialized(candidates, CANDIDATES),))

    def short_distance(self, definition: Definition, query: Any) -> ColumnElement[float]:
        """The short distance of a row."""
        if self.short is None:  # a search with the options checked is exact then
            raise SearchError("this column has no short vectors yet: run `pgmrl fit-rotation`")
        return _distance(definition.short_operator, self.short, query)

    def distance(self, definition: Definition, query: Any) -> ColumnElement[float]:
        """The full distance of a row."""
        return _distance(definition.full_operator, self.full, query)

    def every_row(
        self, definition: Definition, query: Any, carry: Mapping[str, ColumnElement[Any]] = MappingProxyType({})
    ) -> AnySelect:
        """All rows with their full distance, in no order.

        Args:
            definition: of the column.
            query: the query's full vector.
            carry: columns that come along, by their labels.

        """
        distance = self.exact_distance(definition, query).label("distance")
        return self.select.with_only_columns(
            *_as_keys(self.inner_keys), *_labelled(carry), distance, maintain_column_froms=True
        )

    def exact_distance(self, definition: Definition, query: Any) -> ColumnElement[float]:
        """The full distance for a ranking of all rows; arguments as of `every_row`."""
        return self.distance(definition, query)

    def exact_ranking(
        self,
        definition: Definition,
        query: Any,
        k: int,
        *where: ColumnElement[Any] | TextClause,
        carry: Mapping[str, ColumnElement[Any]] = MappingProxyType({}),
    ) -> AnySelect:
        """The k nearest of all rows by full distance.

        Args:
            definition: of the column.
            query: the query's full vector.
            k: how many.
            *where: further conditions.
            carry: columns that come along, by their labels.

        """
        rows = self.every_row(definition, query, carry)
        if where:
            rows = rows.where(*where)
        # OFFSET 0: in one query the distance would be computed twice for each row, for its order and for the result. It
        # also keeps an index on the full vector out, which would make the truth approximate.
        candidates = rows.offset(literal_column("0")).subquery("candidates")
        keys = list(candidates.c)[: len(self.inner_keys)]
        return select(candidates).order_by(candidates.c.distance, *keys).limit(literal_column(str(k)))


def selected_rows(
    statement: AnySelect, searched: Any, attachment: Attachment, extra: Mapping[str, Any] = MappingProxyType({})
) -> SelectedRows:
    """Key and full vector of the rows that the caller's Select leaves.

    Args:
        statement: the caller's Select.
        searched: the column.
        attachment: where its vectors are.
        extra: further columns of the searched table, by the labels they get.

    Raises:
        SearchError: the Select does not read the column's table, or an extra column is not of it.
        DefinitionError: the table has no primary key.

    """
    outer = Subject.of(searched, attachment)
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
    extra_columns = {label: inner.own(outer.column_of(own)) for label, own in extra.items()}
    rows = rows.with_only_columns(
        *_as_keys(inner.keys), inner.full.label("full_vector"), *_labelled(extra_columns), maintain_column_froms=True
    )
    source = inner.selectable
    if inner.links:
        # a JOIN: of conditions, inside a LATERAL, SQLAlchemy's linter takes no notice and would warn
        source = source.join(inner.full.table, and_(*inner.links))
        rows = rows.select_from(source)
    return SelectedRows(rows, outer.keys, inner.keys, inner.full, inner.short, source, filtered, extra_columns)


def materialized(body: AnySelect | TextualSelect, name: str) -> CTE:
    """A part of a statement that is computed once, whoever reads it."""
    return body.cte(name).prefix_with("MATERIALIZED", dialect="postgresql")


@lru_cache(maxsize=64)
def _nearest(key_columns: int, size: int) -> FromClause:
    """The keys of the nearest candidates. What is materialized is computed as far as it is read."""
    names = key_names(key_columns)
    sql = f"SELECT {', '.join(names)} FROM {CANDIDATES} LIMIT {size}"  # noqa: S608 - names and numbers of our own
    return text(sql).columns(*map(column, names)).subquery("nearest")


def _distance(operator: str, vector: Any, query: Any) -> ColumnElement[float]:
    """The distance of two vectors. As an expression, `vector.op(operator)(query)` takes four times as long to build."""
    attribute = getattr(vector, "__clause_element__", None)
    return BinaryExpression(vector if attribute is None else attribute(), query, _operator(operator), type_=Float())


@lru_cache(maxsize=64)
def _operator(name: str) -> custom_op[float]:
    """A distance operator, made once."""
    return custom_op(name, return_type=Float())


def _as_keys(keys: Sequence[ColumnElement[Any]]) -> list[ColumnElement[Any]]:
    return [key.label(name) for name, key in zip(key_names(len(keys)), keys, strict=True)]


def _labelled(columns: Mapping[str, ColumnElement[Any]]) -> list[ColumnElement[Any]]:
    return [own.label(label) for label, own in columns.items()]
