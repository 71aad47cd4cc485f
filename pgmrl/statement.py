"""The parts a search is put together from: candidates, shortlist, rerank, result."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

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
from sqlalchemy.sql.operators import custom_op

from pgmrl.columns import base_column
from pgmrl.errors import DefinitionError, SearchError
from pgmrl.limits import EF_SEARCH_LIMIT, MAX_SCAN_TUPLES
from pgmrl.rotation import Rotation
from pgmrl.shortening import FULL_LIMIT
from pgmrl.types import FloatArray, NumpyVector, require_psycopg, to_wire

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sqlalchemy import CTE, Column, ColumnElement, Dialect, FromClause, TextClause
    from sqlalchemy.orm import Mapper

    from pgmrl.columns import Attachment
    from pgmrl.metrics import FullType
    from pgmrl.shortening import Definition
    from pgmrl.types import Wire
    from pgmrl.vectors import Vector

__all__ = ["Candidates", "Scan", "candidates", "queries", "result", "sent_query", "winners"]

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
        distance = _operator(definition.short_operator)(self.short, query)
        rows = self.rows.where(_gate(scan)).order_by(distance)
        # a bound LIMIT would change the plan once the server plans generically
        return rows.limit(literal_column(str(scan.shortlist)))

    def reranked(self, definition: Definition, shortlist: FromClause, query: Any, k: int) -> AnySelect:
        """The k nearest of the shortlist by full distance."""
        *keys, full = shortlist.c
        distance = _operator(definition.full_operator)(full, query).label("distance")
        return select(*_numbered(keys), distance).order_by(distance, *keys).limit(literal_column(str(k)))

    def exactly(self, definition: Definition, query: Any, k: int) -> AnySelect:
        """The k nearest of all rows by full distance."""
        distance = _operator(definition.full_operator)(self.full, query)
        # + 0 keeps an index on the full vector out, which would make the truth approximate
        ordered = distance + literal_column("0")
        rows = self.rows.with_only_columns(
            *_numbered(self.inner_keys), distance.label("distance"), maintain_column_froms=True
        )
        return rows.order_by(ordered, *self.inner_keys).limit(literal_column(str(k)))


@lru_cache(maxsize=64)
def _operator(name: str) -> custom_op[float]:
    """A distance operator, made once: `column.op(name)` makes it for every search."""
    return custom_op(name, return_type=Float())


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


def winners(definition: Definition, shortlist: AnySelect, sent: Sent, keys: int, k: int) -> Winners:
    """The k nearest of a shortlist, for one query.

    As text and constants: with SQLAlchemy's constructs they would take most of the time that building a search takes.
    """
    ranked = text(_ranked_sql(definition, sent.full, keys, k)).bindparams(sent.parameter).columns()
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


def _ranked_sql(definition: Definition, query: str, keys: int, k: int) -> str:
    names = ", ".join(_key_names(keys))
    distance = f"full_vector {definition.full_operator} {query} AS distance"
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
        exact: whether the short index is left out.

    """

    cache_ok = True

    def __init__(self, definition: Definition, exact: bool = False) -> None:
        super().__init__(definition.dims, definition.full, definition.vector_schema)
        self.definition = definition
        self.exact = exact

    def bind_processor(self, dialect: Dialect) -> Callable[[Any], Wire]:
        """Check the value and put it into binary form."""
        require_psycopg(dialect)
        check, kind = self.definition.query if self.exact else self.definition.short_query, self.kind
        return lambda value: to_wire(check(value), kind)


class QueryVectors(NumpyVector):
    """A query's full vector, sent with its short one behind it: for a parameter whose value comes at execution.

    The client shortens by a rotation ten times faster than the server does, and one parameter has one value.

    Args:
        definition: of the column that is searched; its rotation holds its axes.

    """

    cache_ok = True

    def __init__(self, definition: Definition) -> None:
        halves = definition.full == definition.short.type == "halfvec"
        dims = definition.dims + definition.short.dims
        super().__init__(dims, "halfvec" if halves else "vector", definition.vector_schema)
        self.definition = definition

    def bind_processor(self, dialect: Dialect) -> Callable[[Any], Wire]:
        """Check the value, shorten it, and put both into binary form."""
        require_psycopg(dialect)
        check, shorten, kind = self.definition.short_query, self.definition.shorten, self.kind

        def process(value: Any) -> Wire:
            full = check(value)
            return to_wire(np.concatenate([full, shorten(full).astype(np.float32)]), kind)

        return process


class Sent(NamedTuple):
    """A query as the statement sees it.

    Attributes:
        parameter: what is sent.
        full: SQL text of the full vector, with the parameter in it.
        short: the short vector; None where the search is exact.

    """

    parameter: BindParameter[Any]
    full: str
    short: ColumnElement[Any] | TextClause | None


def sent_query(definition: Definition, query: Any, what: str, *, exact: bool) -> Sent:
    """The query's vectors, from a vector or from the caller's own parameter.

    Raises:
        VectorError: the vector cannot be searched with.
        SearchError: the parameter's name does not fit into SQL text.

    """
    if isinstance(query, BindParameter):
        return _sent_later(definition, query.key, exact=exact)
    vector = definition.query(query, what) if exact else definition.short_query(query, what)
    # checked here, by name: not a second time when it is sent
    type_ = NumpyVector(definition.dims, definition.full, definition.vector_schema)
    sent = bindparam("query", vector, type_=type_, unique=True)
    if exact:
        return Sent(sent, ":query", None)
    if not _client_shortens(definition):
        return Sent(sent, ":query", _shortened_by_server(definition, sent))
    kind = cast("FullType", definition.short.type)
    short_type = NumpyVector(definition.short.dims, kind, definition.vector_schema)
    return Sent(sent, ":query", bindparam("short_query", definition.shorten(vector), type_=short_type, unique=True))


def _sent_later(definition: Definition, name: str, *, exact: bool) -> Sent:
    if not name.isidentifier():
        raise SearchError(f"the parameter's name {name!r} is no identifier: use letters, digits and underscores")
    both = definition.dims + definition.short.dims <= FULL_LIMIT
    if both and not exact and _client_shortens(definition):
        return _both_sent(definition, name)
    sent = bindparam(name, type_=QueryVector(definition, exact))
    return Sent(sent, f":{name}", None if exact else _shortened_by_server(definition, sent))


def _client_shortens(definition: Definition) -> bool:
    rule = definition.short.by
    return isinstance(rule, Rotation) and rule.axes is not None and definition.short.type != "bit"


def _shortened_by_server(definition: Definition, sent: BindParameter[Any]) -> TextClause:
    # a scalar subquery is evaluated once, whatever plan the server takes
    return text(f"(SELECT {definition.sql(f':{sent._orig_key}')})").bindparams(sent)


def _both_sent(definition: Definition, name: str) -> Sent:
    sent = bindparam(name, type_=QueryVectors(definition))
    part = definition.qualified("subvector")
    full = f"(SELECT {part}(:{name}, 1, {definition.dims})::{definition.full_type})"
    short = f"(SELECT {part}(:{name}, {definition.dims + 1}, {definition.short.dims})::{definition.short_type})"
    return Sent(sent, full, text(short).bindparams(sent))


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
