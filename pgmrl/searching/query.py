"""The query as a statement sees it: a vector, the caller's own parameter, an expression of SQL, or many vectors."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

import numpy as np
from sqlalchemy import BindParameter, ColumnElement, Integer, bindparam, column, literal_column, select, text
from sqlalchemy import cast as sql_cast

from pgmrl.errors import SearchError
from pgmrl.model.parameters import vector_sender, vector_text
from pgmrl.model.query_lengths import scaled_sql, uncountable_sql
from pgmrl.model.rotation import Rotation
from pgmrl.model.shortening import FULL_LIMIT
from pgmrl.model.types import FloatArray, NumpyVector
from pgmrl.names import literal
from pgmrl.reprs import safe_repr
from pgmrl.searching.scan import Scan, gated_sql

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import CTE, Dialect, Select, TextClause

    from pgmrl.model.metrics import FullType
    from pgmrl.model.shortening import Definition
    from pgmrl.model.vectors import VectorArray

__all__ = [
    "BoundQuery",
    "FullAndShortQuery",
    "FullQuery",
    "bind_query",
    "bound_vector",
    "check_parameter_name",
    "query_rows",
    "raise_sql",
    "sql_text",
    "vector_parameters",
    "vectors_parameters",
]

QUERY: Final = "pgmrl_query"
QUERIES: Final = "pgmrl_queries"


class FullQuery(NumpyVector):
    """The type of a parameter for a query's full vector: as `NumpyVector`, and neither NULL nor, under cosine, zero.

    Args:
        definition: of the column that is searched.
        exact: whether the short index is left out.

    """

    cache_ok = True

    def __init__(self, definition: Definition, exact: bool = False) -> None:
        super().__init__(definition.dims, definition.full, definition.vector_schema)
        self.definition = definition
        self.exact = exact

    def bind_processor(self, dialect: Dialect) -> Callable[[Any], Any]:
        """Check the value and put it into the form that the driver takes."""
        check, kind = self.definition.query if self.exact else self.definition.short_query, self.kind
        send = vector_sender(dialect)
        return lambda value: send(check(value), kind)


class CheckedVector(NumpyVector):
    """The type of a parameter whose value was checked when the parameter was made."""

    cache_ok = True

    def checked(self, value: Any) -> VectorArray:
        """An array as it is."""
        return value if type(value) is np.ndarray else super().checked(value)


class FullAndShortQuery(NumpyVector):
    """The type of a parameter for a query's full vector that is sent with its short one behind it.

    For a value that comes at execution: the client shortens by a rotation ten times faster than the server does, and
    one parameter has one value.

    Args:
        definition: of the column that is searched; its rotation holds its axes.

    """

    cache_ok = True

    def __init__(self, definition: Definition) -> None:
        halves = definition.full == definition.short.type == "halfvec"
        dims = definition.dims + definition.short.dims
        super().__init__(dims, "halfvec" if halves else "vector", definition.vector_schema)
        self.definition = definition

    def bind_processor(self, dialect: Dialect) -> Callable[[Any], Any]:
        """Check the value, shorten it, and put both into the form that the driver takes."""
        check, shorten, kind = self.definition.short_query, self.definition.shorten, self.kind
        send = vector_sender(dialect)

        dims, both_dims = self.definition.dims, self.dims

        def process(value: Any) -> Any:
            full, both = check(value), np.empty(both_dims, np.float32)
            both[:dims], both[dims:] = full, shorten(full)
            return send(both, kind)

        return process

    def literal_processor(self, dialect: Dialect) -> Callable[[Any], str]:  # noqa: ARG002
        """Both as text, for EXPLAIN of a distributed table."""
        check, shorten, kind = self.definition.short_query, self.definition.shorten, self.kind

        def process(value: Any) -> str:
            full = check(value)
            return f"'{vector_text(np.concatenate([full, shorten(full).astype(np.float32)]), kind)}'"

        return process


class BoundQuery(NamedTuple):
    """A query as the statement sees it.

    Attributes:
        parameter: what is sent; None where the vector is an expression, which `ctes` define.
        full: SQL text of the full vector, with the parameter in it.
        short: SQL text of the short vector; None where the search is exact.
        ctes: what comes first in the statement.
        both: whether the parameter holds the short vector behind the full one.
        short_parameter: what is sent as the short vector; None where it comes from the full one.
        source: the CTE that `short` is a column of; None where it is an expression.

    """

    parameter: BindParameter[Any] | None
    full: str
    short: str | None
    ctes: tuple[CTE, ...] = ()
    both: bool = False
    short_parameter: BindParameter[Any] | None = None
    source: str | None = None

    def text(self, sql: str) -> TextClause:
        """SQL text that has `full` in it."""
        return sql_text(sql) if self.parameter is None else sql_text(sql).bindparams(self.parameter)

    def short_vector(self, scan: Scan | None = None, *, endless: bool = False) -> TextClause:
        """The short vector, as something to compare with; a scalar subquery, so that it is evaluated once.

        Args:
            scan: how the short index is read, which the subquery sets.
            endless: whether the scan gives up only at the end of the index or of its memory.

        """
        short = str(self.short)
        if self.source is not None:  # in its FROM: of a subquery without FROM Citus would evaluate the gate itself
            short = f"{short} FROM {self.source}"
        sql = f"(SELECT {short})" if scan is None else gated_sql(short, scan, endless=endless)
        return self.text(sql) if self.short_parameter is None else sql_text(sql).bindparams(self.short_parameter)

    @property
    def vector(self) -> ColumnElement[Any] | TextClause:
        """The full vector, as something to compare with."""
        return self.text(self.full) if self.parameter is None or self.both else self.parameter


@lru_cache(maxsize=256)
def sql_text(sql: str) -> TextClause:
    """SQL text, searched for parameters once: the texts of a search depend on its shape alone."""
    return text(sql)


def bind_query(definition: Definition, query: Any, what: str, *, exact: bool) -> BoundQuery:
    """The query's vectors, from a vector, from the caller's own parameter or from an expression.

    Args:
        definition: of the column that is searched.
        query: shape (dims,); or a `bindparam`; or an expression of SQL.
        what: how an error names it.
        exact: whether the short index is left out.

    Raises:
        VectorError: the vector cannot be searched with.
        SearchError: the parameter's name does not fit into SQL text.

    """
    if isinstance(query, BindParameter):
        return _bind_callers_parameter(definition, query.key, exact=exact)
    if isinstance(query, ColumnElement):
        return _bind_expression(definition, query, exact=exact)
    return bound_vector(definition, *vector_parameters(definition, query, what, exact=exact), exact=exact)


def vector_parameters(
    definition: Definition, query: Any, what: str, *, exact: bool, shorten: bool = False
) -> tuple[BindParameter[Any], BindParameter[Any] | None]:
    """The parameters of a query vector: of the full one, and of the short one where the client shortens.

    Args:
        definition: of the column that is searched.
        query: shape (dims,).
        what: how an error names it.
        exact: whether the short index is left out.
        shorten: whether the client shortens wherever it can, also where the server is as fast.

    Raises:
        VectorError: the vector cannot be searched with.

    """
    # checked here, by name: not a second time when it is sent; a copy, since the caller may fill the array anew
    vector = (definition.query(query, what) if exact else definition.short_query(query, what)).copy()
    type_ = CheckedVector(definition.dims, definition.full, definition.vector_schema)
    parameter = bindparam("query", vector, type_=type_, unique=True)
    if exact or not _client_shortens(definition, prefix=shorten):
        return parameter, None
    kind = cast("FullType", definition.short.type)
    short_type = CheckedVector(definition.short.dims, kind, definition.vector_schema)
    return parameter, bindparam("short_query", definition.shorten(vector), type_=short_type, unique=True)


def bound_vector(
    definition: Definition, parameter: BindParameter[Any], short: BindParameter[Any] | None, *, exact: bool
) -> BoundQuery:
    """A query of these parameters, as `vector_parameters` makes them."""
    if exact:
        return BoundQuery(parameter, ":query", None)
    if short is None:
        return BoundQuery(parameter, ":query", definition.sql(":query"))
    return BoundQuery(parameter, ":query", ":short_query", short_parameter=short)


def check_parameter_name(name: str) -> None:
    """Check that the name of a caller's parameter can stand in SQL text.

    Raises:
        SearchError: it cannot.

    """
    if not name.isidentifier():
        raise SearchError(f"bindparam({safe_repr(name)}): expected a name of letters, digits and underscores")


def _bind_callers_parameter(definition: Definition, name: str, *, exact: bool) -> BoundQuery:
    check_parameter_name(name)
    both = definition.dims + definition.short.dims <= FULL_LIMIT
    if both and not exact and _client_shortens(definition):
        return _bind_full_and_short(definition, name)
    parameter = bindparam(name, type_=FullQuery(definition, exact))
    return BoundQuery(parameter, f":{name}", None if exact else definition.sql(f":{name}"))


def _client_shortens(definition: Definition, *, prefix: bool = False) -> bool:
    rule = definition.short.by
    return definition.short.type != "bit" and (rule.axes is not None if isinstance(rule, Rotation) else prefix)


def _bind_full_and_short(definition: Definition, name: str) -> BoundQuery:
    parameter = bindparam(name, type_=FullAndShortQuery(definition))
    part = definition.qualified("subvector")
    full = f"(SELECT {part}(:{name}, 1, {definition.dims})::{definition.full_type})"
    short = f"{part}(:{name}, {definition.dims + 1}, {definition.short.dims})::{definition.short_type}"
    return BoundQuery(parameter, full, short, both=True)


def _bind_expression(definition: Definition, expression: ColumnElement[Any], *, exact: bool) -> BoundQuery:
    """An expression of one vector; the server raises an error where it is nothing to search with."""
    type_ = NumpyVector(definition.dims, "vector", definition.vector_schema)  # before half precision rounds it
    zero: ColumnElement[int] = literal_column("0")
    unchecked = select(sql_cast(expression, type_).label("vector")).offset(zero).subquery("pgmrl_unchecked")
    # OFFSET 0 keeps the expressions in their place, so that each is computed once
    checked_vector: ColumnElement[Any] = literal_column(_checked(definition, exact=exact)).label("full_vector")
    checked: Select[Any] = select(checked_vector).select_from(unchecked)
    names: list[ColumnElement[Any]] = [literal_column("full_vector")]
    if not exact:
        names.append(literal_column(definition.sql("full_vector")).label("short_vector"))
    body = select(*names).select_from(checked.offset(zero).subquery("pgmrl_checked"))
    cte = body.cte(QUERY).prefix_with("MATERIALIZED", dialect="postgresql")
    full = f"(SELECT full_vector FROM {QUERY})"  # noqa: S608
    return BoundQuery(None, full, None if exact else "short_vector", (cte,), source=QUERY)


def _checked(definition: Definition, *, exact: bool) -> str:
    null = raise_sql(definition, "the query's expression is NULL, expected a vector", "vector")
    scaled = f"CAST({scaled_sql(definition, 'vector')} AS {definition.full_type})"
    arms = [f"WHEN vector IS NULL THEN {null}"]
    length = f"{definition.norm('vector')}(vector)"
    uncountable = uncountable_sql(definition, length, stored=False)
    if uncountable is not None:
        low, high = definition.query_lengths
        message = f"expected a query of length 0 or {low:g} to {high:g}, got "
        arms.append(f"WHEN {uncountable} THEN {raise_sql(definition, message, length, shown=True)}")
    if definition.metric.normalise:
        zero = raise_sql(definition, "the query's expression is all zeros and has no direction", "vector")
        arms.append(f"WHEN {length} OPERATOR(pg_catalog.=) 0 THEN {zero}")
        if not exact and definition.may_lose_direction:
            leading = f"{definition.qualified('subvector')}({scaled}, 1, {definition.short.dims})"
            message = f"the query is zero in its leading {definition.short.dims} dimensions: use exact=True"
            norm = definition.norm(definition.full)
            arms.append(
                f"WHEN {norm}({leading}) OPERATOR(pg_catalog.=) 0 THEN {raise_sql(definition, message, 'vector')}"
            )
    return f"CASE {' '.join(arms)} ELSE {scaled} END"


def raise_sql(definition: Definition, message: str, row: str, *, shown: bool = False) -> str:
    """SQL text of the full type that raises an error with this message when it is evaluated.

    SQL has no RAISE. A text that is no vector has the same effect, once it depends on the row: a constant would be
    evaluated while planning.

    Args:
        definition: whose full type the expression has.
        message: what the error says, behind `invalid input syntax for type …`.
        row: SQL text of something that is only known at run time.
        shown: whether the message ends with it.

    """
    value = f"CAST({row} AS text)" if shown else f"left(CAST({row} AS text), 0)"
    return f"CAST(pg_catalog.concat({literal(f'pgmrl: {message}')}, {value}) AS {definition.full_type})"


def vectors_parameters(definition: Definition, vectors: VectorArray) -> tuple[BindParameter[Any], BindParameter[int]]:
    """The parameters of query vectors: numbers, with the short ones where the client shortens; how many they are.

    Args:
        definition: of the column that is searched.
        vectors: shape (n, dims).

    """
    values = vectors
    if _client_shortens(definition):
        # one by one, as `search` does: a product of matrices would start threads, which spin beside the server
        short = np.stack([definition.shorten(vector) for vector in vectors])
        values = np.hstack([vectors, short], dtype=np.float32)
    items = bindparam("items", values, type_=FloatArray(), unique=True)
    return items, bindparam("count", len(vectors), type_=Integer(), unique=True)


def query_rows(definition: Definition, items: BindParameter[Any], count: BindParameter[int]) -> CTE:
    """Query vectors as rows: number from 0, full and short vector.

    Args:
        definition: of the column.
        items: as `vectors_parameters` makes it.
        count: the same.

    """
    both, dims = _client_shortens(definition), definition.dims
    width = dims + (definition.short.dims if both else 0)
    start = f"flat.items[number * {width}"
    full = f"({start} + 1 : number * {width} + {dims}])::{definition.full_type}"
    sent = f", ({start} + {dims + 1} : (number + 1) * {width}])::{definition.short_type} AS short_query" if both else ""
    short = (
        "short_query" if both else f"{definition.sql('full_query') if definition.learned else 'NULL'} AS short_query"
    )
    # OFFSET 0 keeps the expressions in their place, so that each is computed once a query
    body = text(  # the texts put in are numbers and types of a checked definition
        f"SELECT number, full_query, {short} FROM ("  # noqa: S608
        f"SELECT number, {full} AS full_query{sent} FROM (SELECT :items AS items OFFSET 0) AS flat, "
        "generate_series(0, :count - 1) AS number OFFSET 0) AS queries"
    ).bindparams(items, count)
    rows = body.columns(column("number", Integer()), column("full_query", FullQuery(definition)), column("short_query"))
    return rows.cte(QUERIES).prefix_with("MATERIALIZED", dialect="postgresql")
