"""The parts a search is put together from: candidates, shortlist, rerank, result."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from sqlalchemy import (
    BindParameter,
    Float,
    Integer,
    Join,
    Select,
    bindparam,
    column,
    literal_column,
    select,
    table,
    text,
)
from sqlalchemy.orm import aliased
from sqlalchemy.orm.attributes import QueryableAttribute

from pgmrl.columns import base_column
from pgmrl.errors import DefinitionError, SearchError
from pgmrl.rotation import Rotation
from pgmrl.types import FloatArray, NumpyVector, require_psycopg, to_wire

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sqlalchemy import CTE, Column, ColumnElement, Dialect, FromClause, TextClause
    from sqlalchemy.orm import Mapper

    from pgmrl.columns import Attachment
    from pgmrl.shortening import Definition
    from pgmrl.types import Wire
    from pgmrl.vectors import Vector

__all__ = ["EF_SEARCH_LIMIT", "Candidates", "Scan", "candidates", "queries", "result", "short_query"]

EF_SEARCH_LIMIT: Final = 1000  # pgvector's; beyond it the scan iterates
AnySelect = Select[*tuple[Any, ...]]
SHORTLIST: Final = "pgmrl_shortlist"  # names that no application's table has: a CTE would hide it
WINNERS: Final = "pgmrl_winners"
MAX_SCAN_TUPLES: Final = 20_000  # pgvector's default


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

    """

    rows: AnySelect
    keys: Sequence[ColumnElement[Any]]
    inner_keys: Sequence[ColumnElement[Any]]
    full: ColumnElement[Any]
    short: ColumnElement[Any] | None

    def nearest(self, definition: Definition, query: Any, scan: Scan) -> AnySelect:
        """The shortlist: in the order of the short vectors, through their index."""
        if self.short is None:  # the plan has made such a search exact
            raise SearchError("this column has no short vectors yet: run `pgmrl fit`")
        distance = self.short.op(definition.short_operator, return_type=Float())(query)
        rows = self.rows.where(_gate(scan)).order_by(distance)
        # a bound LIMIT would change the plan once the server plans generically
        return rows.limit(literal_column(str(scan.shortlist)))

    def reranked(self, definition: Definition, shortlist: FromClause, query: Any, k: int) -> AnySelect:
        """The k nearest of the shortlist by full distance."""
        *keys, full = shortlist.c
        distance = full.op(definition.full_operator, return_type=Float())(query).label("distance")
        return select(*_numbered(keys), distance).order_by(distance, *keys).limit(literal_column(str(k)))

    def exactly(self, definition: Definition, query: Any, k: int) -> AnySelect:
        """The k nearest of all rows by full distance."""
        distance = self.full.op(definition.full_operator, return_type=Float())(query)
        # + 0 keeps an index on the full vector out, which would make the truth approximate
        ordered = distance + literal_column("0")
        rows = self.rows.with_only_columns(
            *_numbered(self.inner_keys), distance.label("distance"), maintain_column_froms=True
        )
        return rows.order_by(ordered, *self.inner_keys).limit(literal_column(str(k)))


def candidates(statement: AnySelect, asked: Any, attachment: Attachment) -> Candidates:
    """Key and full vector of the rows that the caller's Select leaves.

    Raises:
        SearchError: the Select does not read the column's table.
        DefinitionError: the table has no primary key.

    """
    outer = _Subject.of(asked, attachment)
    if _reads_only(statement, outer.selectable):
        inner, rows = outer, statement
    else:
        _check_reads(statement, outer)
        # Joined to other tables a row could take many places of the shortlist: ask only whether it is among the rows.
        inner = outer.aliased(attachment)
        same = [ours == theirs for ours, theirs in zip(outer.keys, inner.keys, strict=True)]
        among: AnySelect = statement.with_only_columns(literal_column("1"), maintain_column_froms=True).where(*same)
        rows = select(*inner.keys).where(among.correlate(*_leaves(inner.selectable)).exists())
    rows = rows.with_only_columns(*_numbered(inner.keys), inner.full.label("full_vector"), maintain_column_froms=True)
    if inner.links:
        rows = rows.where(*inner.links)
    return Candidates(rows, outer.keys, inner.keys, inner.full, inner.short)


def result(
    statement: AnySelect, keys: Sequence[ColumnElement[Any]], winners: FromClause, *first: ColumnElement[Any]
) -> AnySelect:
    """The caller's Select for the winners only, nearest first."""
    same = [key == winners.c[f"key_{number}"] for number, key in enumerate(keys, 1)]
    defined = winners.c.distance != literal_column("'NaN'")  # nor NULL: without a vector there is no distance
    return statement.where(*same, defined).order_by(*first, winners.c.distance, *keys)


def winners(definition: Definition, shortlist: AnySelect, sent: BindParameter[Any], keys: int, k: int) -> Winners:
    """The k nearest of a shortlist, for one query.

    As text and constants: with SQLAlchemy's constructs they would take most of the time that building a search takes.
    """
    ranked = text(_ranked_sql(definition, sent._orig_key, keys, k)).bindparams(sent).columns()
    ctes = (
        shortlist.cte(SHORTLIST).prefix_with("MATERIALIZED", dialect="postgresql"),
        ranked.cte(WINNERS),
    )
    return Winners(_winners_table(keys), ctes)


class Winners(NamedTuple):
    """The nearest rows, as something to join.

    Attributes:
        table: key and distance; its columns are `key_1`, …, `distance`.
        ctes: what defines it, in order.

    """

    table: FromClause
    ctes: tuple[CTE, CTE]


def _ranked_sql(definition: Definition, parameter: str, keys: int, k: int) -> str:
    names = ", ".join(_key_names(keys))
    distance = f"full_vector {definition.full_operator} :{parameter} AS distance"
    return f"SELECT {names}, {distance} FROM {SHORTLIST} ORDER BY distance, {names} LIMIT {k}"  # noqa: S608


@lru_cache(maxsize=64)
def _winners_table(keys: int) -> FromClause:
    return table(WINNERS, *map(column, _key_names(keys)), column("distance", Float()))


def _key_names(keys: int) -> list[str]:
    return [f"key_{number}" for number in range(1, keys + 1)]


# -- the query's side ----------------------------------------------------------------------------------------------


class QueryVector(NumpyVector):
    """A query's full vector: as `NumpyVector`, and neither NULL nor, under cosine, zero.

    Args:
        definition: of the column that is searched.

    """

    cache_ok = True

    def __init__(self, definition: Definition) -> None:
        super().__init__(definition.dims, definition.full, definition.vector_schema)
        self.definition = definition

    def bind_processor(self, dialect: Dialect) -> Callable[[Any], Wire]:
        """Check the value and put it into binary form."""
        require_psycopg(dialect)
        check, kind = self.definition.query, self.kind
        return lambda value: to_wire(check(value), kind)


def sent_query(definition: Definition, query: Any, what: str) -> BindParameter[Any]:
    """The parameter for the query's full vector, from a vector or from the caller's own parameter.

    Raises:
        VectorError: the vector cannot be searched with.
        SearchError: the parameter's name does not fit into SQL text.

    """
    type_ = QueryVector(definition)
    if not isinstance(query, BindParameter):
        return bindparam("query", definition.query(query, what), type_=type_, unique=True)
    if not query.key.isidentifier():
        raise SearchError(f"the parameter's name {query.key!r} is no identifier: use letters, digits and underscores")
    return bindparam(query.key, type_=type_)


def short_query(definition: Definition, sent: BindParameter[Any]) -> ColumnElement[Any] | TextClause:
    """The short vector of the query that is sent: by the client where it holds the axes, else by the server."""
    rule, kind = definition.short.by, definition.short.type
    known = not sent.required and isinstance(rule, Rotation) and rule.axes is not None
    if known and kind != "bit":
        type_ = NumpyVector(definition.short.dims, kind, definition.vector_schema)
        return bindparam("short_query", definition.shorten(np.asarray(sent.value)), type_=type_, unique=True)
    # a scalar subquery is evaluated once, whatever plan the server takes
    return text(f"(SELECT {definition.sql(f':{sent._orig_key}')})").bindparams(sent)


def queries(definition: Definition, vectors: Vector) -> CTE:
    """Query vectors of shape (n, dims) as rows: number from 0, full and short vector."""
    dims = definition.dims
    items = bindparam("items", vectors, type_=FloatArray(), unique=True)
    count = bindparam("count", len(vectors), type_=Integer(), unique=True)
    slice_ = f"(flat.items[number * {dims} + 1 : (number + 1) * {dims}])::{definition.full_type}"
    short = definition.sql("full_query") if definition.learned else "NULL"
    # OFFSET 0 keeps the expressions in their place, so that each is computed once a query
    body = text(  # the texts put in are numbers and types of a checked definition
        f"SELECT number, full_query, {short} AS short_query FROM ("  # noqa: S608
        f"SELECT number, {slice_} AS full_query FROM (SELECT :items AS items OFFSET 0) AS flat, "
        "generate_series(0, :count - 1) AS number OFFSET 0) AS given"
    ).bindparams(items, count)
    rows = body.columns(
        column("number", Integer()), column("full_query", QueryVector(definition)), column("short_query")
    )
    return rows.cte("pgmrl_queries").prefix_with("MATERIALIZED", dialect="postgresql")


# -- the subject: whose rows are searched --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Subject:
    """The model or table that is searched, under the name it has in a Select.

    Attributes:
        mapper: of a mapped class; None for a Table.
        base: the Table's full column.
        selectable: what it is in FROM.
        keys: its primary key.
        full: its full vector.
        short: its short vector; None before a rotation has been learned.
        links: conditions that join the side table, where there is one.

    """

    mapper: Mapper[Any] | None
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
            mapper, selectable = parent.mapper, parent.selectable
            keys = [getattr(parent.entity, mapper.get_property_by_column(key).key) for key in mapper.primary_key]
        else:
            mapper, selectable = None, asked.table
            keys = [_in(selectable, key) for key in base.table.primary_key.columns]
        if not keys:
            raise DefinitionError(f"table {base.table} has no primary key: a search returns rows by their key")
        if attachment.side is not None:
            side = base.table.metadata.tables[attachment.side]
            links = [key == side.c[key.name] for key in keys]
            beside = None if attachment.short is None else side.c[attachment.short]
            return cls(mapper, base, selectable, keys, side.c[attachment.full], beside, links)
        short = None if attachment.short is None else _in(selectable, base.table.c[attachment.short])
        return cls(mapper, base, selectable, keys, asked, short, ())

    def aliased(self, attachment: Attachment) -> _Subject:
        """The same rows under another name."""
        if self.mapper is None:
            return _Subject.of(self.base.table.alias().c[self.base.key], attachment)
        other = aliased(self.mapper.class_, flat=True)
        return _Subject.of(getattr(other, self.mapper.get_property_by_column(self.base).key), attachment)


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
    return [key.label(name) for name, key in zip(_key_names(len(keys)), keys, strict=True)]


@lru_cache(maxsize=1024)
def _gate(scan: Scan) -> TextClause:
    """Set the scan's parameters for this statement; true for every row."""
    settings = {"ef_search": str(scan.ef_search), "iterative_scan": "relaxed_order"}
    if scan.shortlist > EF_SEARCH_LIMIT:
        settings["max_scan_tuples"] = str(max(MAX_SCAN_TUPLES, 4 * scan.shortlist))
        settings["scan_mem_multiplier"] = "8"
    calls = " || ".join(f"set_config('hnsw.{name}', '{value}', true)" for name, value in settings.items())
    return text(f"(SELECT {calls}) IS NOT NULL")
