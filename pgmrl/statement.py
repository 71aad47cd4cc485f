"""The parts a search is put together from: candidates, shortlist, rerank, result."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import (
    Column,
    Float,
    Integer,
    Join,
    Select,
    and_,
    bindparam,
    column,
    literal_column,
    select,
    table,
    text,
)
from sqlalchemy.orm import LoaderCriteriaOption, aliased
from sqlalchemy.orm.attributes import QueryableAttribute
from sqlalchemy.sql.operators import custom_op

from pgmrl.columns import base_column
from pgmrl.errors import DefinitionError, SearchError
from pgmrl.limits import EF_SEARCH_LIMIT, MAX_SCAN_TUPLES
from pgmrl.sent import Sent, queries, sent_query

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sqlalchemy import CTE, ColumnElement, FromClause, TextClause
    from sqlalchemy.orm import Mapper

    from pgmrl.columns import Attachment
    from pgmrl.shortening import Definition

__all__ = [
    "Candidates",
    "Scan",
    "Sent",
    "Winners",
    "candidates",
    "gate",
    "key_names",
    "materialized",
    "max_scan_tuples",
    "queries",
    "ranked_sql",
    "result",
    "sent_query",
    "winners",
    "winners_table",
]

AnySelect = Select[*tuple[Any, ...]]
SHORTLIST: Final = "pgmrl_shortlist"  # names that no application's table has: a CTE would hide it
WINNERS: Final = "pgmrl_winners"


class Scan(NamedTuple):
    """How the short index is read.

    Attributes:
        shortlist: rows to take.
        ef_search: candidates HNSW keeps at a time.

    """

    shortlist: int
    ef_search: int


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
        rows = self.rows.where(gate(scan), _planned_anew()) if self.filtered else self.rows.where(gate(scan))
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
    outer = _Subject.of(asked, attachment)
    filtered = True
    if _reads_only(statement, outer.selectable):
        inner, rows = outer, statement
        filtered = _filters(statement, outer)
    else:
        _check_reads(statement, outer)
        # Joined to other tables a row could take many places of the shortlist: ask only whether it is among the rows.
        inner = outer.aliased(attachment)
        same = [ours == theirs for ours, theirs in zip(outer.keys, inner.keys, strict=True)]
        among: AnySelect = statement.with_only_columns(literal_column("1"), maintain_column_froms=True).where(*same)
        rows = select(*inner.keys).where(among.correlate(*_leaves(inner.selectable)).exists())
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


def winners(definition: Definition, shortlist: AnySelect, sent: Sent, keys: int, k: int) -> Winners:
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


# -- the subject: whose rows are searched --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Subject:
    """The model or table that is searched, under the name it has in a Select.

    Attributes:
        mapper: of a mapped class; None for a Table.
        entity: the class or its alias; None for a Table.
        base: the Table's full column.
        selectable: what it is in FROM.
        keys: its primary key.
        full: its full vector.
        short: its short vector; None before a rotation has been learned.
        links: conditions that join the side table, where there is one.

    """

    mapper: Mapper[Any] | None
    entity: Any
    base: Column[Any]
    selectable: FromClause
    keys: Sequence[ColumnElement[Any]]
    full: ColumnElement[Any]
    short: ColumnElement[Any] | None
    links: Sequence[ColumnElement[Any]]

    @classmethod
    def of(cls, asked: Any, attachment: Attachment) -> _Subject:
        base = base_column(asked)
        if isinstance(asked, QueryableAttribute):
            parent = asked.parent
            mapper, entity, selectable = parent.mapper, parent.entity, parent.selectable
            keys = [getattr(entity, mapper.get_property_by_column(key).key) for key in mapper.primary_key]
        else:
            mapper, entity, selectable = None, None, asked.table
            keys = [_in(selectable, key) for key in base.table.primary_key.columns]
        if not keys:
            raise DefinitionError(f"table {base.table} has no primary key: a search returns rows by their key")
        if attachment.side is not None:
            side = base.table.metadata.tables[attachment.side]
            links = [key == side.c[key.name] for key in keys]
            beside = None if attachment.short is None else side.c[attachment.short]
            return cls(mapper, entity, base, selectable, keys, side.c[attachment.full], beside, links)
        short = None if attachment.short is None else _in(selectable, base.table.c[attachment.short])
        return cls(mapper, entity, base, selectable, keys, asked, short, ())

    def aliased(self, attachment: Attachment) -> _Subject:
        """The same rows under another name."""
        if self.mapper is None:
            return _Subject.of(self.base.table.alias().c[self.base.key], attachment)
        other = aliased(self.mapper.class_, flat=True)
        return _Subject.of(getattr(other, self.mapper.get_property_by_column(self.base).key), attachment)

    def column_of(self, asked: Any) -> Column[Any]:
        """The Table's column of a column or attribute of the searched rows.

        Raises:
            SearchError: it is of something else.

        """
        column = next(iter(getattr(asked, "base_columns", ())), None)
        if isinstance(asked, QueryableAttribute):
            own = self.entity is not None and asked.parent.entity is self.entity
        else:
            own = getattr(asked, "table", None) is self.selectable
        if not own or not isinstance(column, Column) or column.table is not self.base.table:
            table = self.base.table
            raise SearchError(f"{asked} is no column of what is searched: give one of {table}, as it is in the Select")
        return column

    def own(self, column: Column[Any]) -> ColumnElement[Any]:
        """The Table's column under the name the table has here."""
        if self.mapper is None:
            return _in(self.selectable, column)
        found: ColumnElement[Any] = getattr(self.entity, self.mapper.get_property_by_column(column).key)
        return found


def _in(selectable: FromClause, column: Column[Any]) -> ColumnElement[Any]:
    found = selectable.corresponding_column(column)
    return column if found is None else found


def _reads_only(statement: AnySelect, selectable: FromClause) -> bool:
    """Whether a Select reads this and nothing else, so that each row can come only once."""
    if statement._setup_joins or statement._from_obj:
        return False
    own = set(_leaves(selectable)) | {selectable}
    read = [leaf for source in statement.columns_clause_froms for leaf in _leaves(source)]
    for condition in statement._where_criteria:
        read.extend(leaf for source in condition._from_objects for leaf in _leaves(source))
    return bool(read) and all(source in own for source in read)


def _filters(statement: AnySelect, subject: _Subject) -> bool:
    """Whether a Select that reads nothing else leaves out rows."""
    if statement._where_criteria or (subject.mapper is not None and subject.mapper.single):
        return True
    return any(isinstance(option, LoaderCriteriaOption) for option in statement._with_options)


def _check_reads(statement: AnySelect, subject: _Subject) -> None:
    read = {leaf for source in statement.get_final_froms() for leaf in _leaves(source)}
    if not set(_leaves(subject.selectable)) <= read:
        raise SearchError(f"the Select does not read {subject.base.table}, whose {subject.base.name} is searched")


def _leaves(source: Any) -> Iterator[FromClause]:
    """The tables and aliases that a FROM clause joins."""
    if isinstance(source, Join):
        yield from _leaves(source.left)
        yield from _leaves(source.right)
    else:
        yield source._deannotate() if source._annotations else source


def _numbered(keys: Sequence[ColumnElement[Any]]) -> list[ColumnElement[Any]]:
    return [key.label(name) for name, key in zip(key_names(len(keys)), keys, strict=True)]


def _labelled(columns: Mapping[str, ColumnElement[Any]]) -> list[ColumnElement[Any]]:
    return [one.label(label) for label, one in columns.items()]


@lru_cache(maxsize=1024)
def gate(scan: Scan) -> TextClause:
    """Set the scan's parameters for this statement; true for every row."""
    settings = {"ef_search": str(scan.ef_search), "iterative_scan": "relaxed_order"}
    limit = max_scan_tuples(scan.shortlist)
    if limit is not None:
        settings["max_scan_tuples"] = str(limit)
        settings["scan_mem_multiplier"] = "8"
    calls = " || ".join(f"set_config('hnsw.{name}', '{value}', true)" for name, value in settings.items())
    return text(f"(SELECT {calls}) IS NOT NULL")


def max_scan_tuples(shortlist: int) -> int | None:
    """What the gate of a shortlist of so many rows sets hnsw.max_scan_tuples to; None where it leaves it alone."""
    return max(MAX_SCAN_TUPLES, 4 * shortlist) if shortlist > EF_SEARCH_LIMIT else None


@lru_cache(maxsize=1)
def _planned_anew() -> TextClause:
    """Have the server plan a filtered search for its values each time, also where the statement is prepared.

    A plan for no values in particular takes a filter for an average one. For a rare value it would walk the graph,
    and it looks cheaper than the right plan, so the server keeps it. This expression costs nothing with its parameter
    known to be 1, and looks very dear without.
    """
    ones = ", ".join(f"generate_series(1, :pgmrl_one) AS {name}" for name in "abcd")
    one = bindparam("pgmrl_one", 1, type_=Integer())
    return text(f"(SELECT count(*) FROM {ones}) = 1").bindparams(one)  # noqa: S608 - constants
