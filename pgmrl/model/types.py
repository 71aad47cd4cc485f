"""SQLAlchemy types that carry vectors as NumPy arrays, in pgvector's binary form in both directions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import psycopg
from pgvector import HalfVector
from pgvector import Vector as PgVector
from psycopg.adapt import Dumper
from psycopg.pq import Format
from sqlalchemy import Float, func, type_coerce
from sqlalchemy import cast as sql_cast
from sqlalchemy.orm import LoaderCallableStatus
from sqlalchemy.types import LargeBinary, UserDefinedType

from pgmrl.errors import DefinitionError
from pgmrl.model.binary import decode, encode
from pgmrl.model.metrics import METRICS
from pgmrl.model.vectors import VectorArray, as_float32, as_vector
from pgmrl.names import qualified, quoted

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import BindParameter, ColumnElement, Dialect
    from sqlalchemy.sql.operators import OperatorType

    from pgmrl.model.metrics import FullType

__all__ = ["FloatArray", "NumpyVector", "Wire", "require_psycopg", "to_wire"]

_TEXT: Final[dict[str, type[PgVector] | type[HalfVector]]] = {"vector": PgVector, "halfvec": HalfVector}


class Wire:
    """A parameter already in a server type's binary form; its cast in the statement tells the server the type."""

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data


class _WireDumper(Dumper):
    format = Format.BINARY
    oid = 0  # unknown: an extension's types have other oids in every database

    def dump(self, obj: Wire) -> bytes:
        return obj.data


psycopg.adapters.register_dumper(Wire, _WireDumper)


def to_wire(vector: VectorArray, kind: FullType) -> Wire:
    """A vector of shape (dims,) in the binary form of `vector` or `halfvec`."""
    return Wire(encode(vector, kind))


class NumpyVector(UserDefinedType[VectorArray]):
    """`vector(dims)` or `halfvec(dims)` as a float32 NumPy array.

    Accepts arrays, lists and pgvector's own classes. Needs psycopg 3 (`postgresql+psycopg://`), sync or async.

    Args:
        dims: dimensions.
        kind: `vector` or `halfvec`.
        vector_schema: pgvector's schema, where it is not on the search_path.

    """

    cache_ok = True
    hashable = False

    def __init__(self, dims: int, kind: FullType = "halfvec", vector_schema: str | None = None) -> None:
        self.dims = dims
        self.kind: FullType = kind
        self.vector_schema = vector_schema

    def __repr__(self) -> str:
        schema = f", vector_schema={self.vector_schema!r}" if self.vector_schema else ""
        return f"NumpyVector({self.dims}, {self.kind!r}{schema})"

    def get_col_spec(self, **_: Any) -> str:
        """The type as DDL."""
        return f"{qualified(self.vector_schema, self.kind)}({self.dims})"

    def bind_processor(self, dialect: Dialect) -> Callable[[Any], Wire | None]:
        """Check the value and put it into binary form."""
        require_psycopg(dialect)
        checked, kind = self.checked, self.kind
        return lambda value: None if value is None else to_wire(checked(value), kind)

    def checked(self, value: Any) -> VectorArray:
        """A value as it is sent; shape (dims,), float32.

        Raises:
            VectorError: it cannot be stored.

        """
        return as_vector(value, self.dims, self.kind)

    def literal_processor(self, dialect: Dialect) -> Callable[[Any], str]:  # noqa: ARG002
        """Render the value as text, for `literal_binds` and offline migrations."""
        checked, kind = self.checked, self.kind
        return lambda value: f"'{_TEXT[kind](checked(value)).to_text()}'"

    def bind_expression(self, bindvalue: BindParameter[Any]) -> ColumnElement[Any]:
        """Say the type in the statement, since a binary parameter arrives without one."""
        return sql_cast(bindvalue, self)

    def column_expression(self, column: ColumnElement[Any]) -> ColumnElement[Any]:
        """Fetch the binary form; psycopg knows no loader for an extension's type unless a connection registers one."""
        package = getattr(func, self.vector_schema) if self.vector_schema else func
        return type_coerce(getattr(package, f"{self.kind}_send")(column, type_=LargeBinary()), self)

    def result_processor(
        self,
        dialect: Dialect,
        coltype: object,  # noqa: ARG002
    ) -> Callable[[Any], VectorArray | None]:
        """Read the binary form."""
        require_psycopg(dialect)
        kind = self.kind
        return lambda value: None if value is None else decode(value, kind)

    def compare_values(self, x: Any, y: Any) -> bool:
        """Whether two values are the same to the unit of work; arrays have no truth value of their own."""
        unknown = (type(None), LoaderCallableStatus)  # a deferred vector that was not loaded is neither
        if isinstance(x, unknown) or isinstance(y, unknown):
            return x is y
        return np.array_equal(as_float32(x, "the new vector"), as_float32(y, "the old vector"))

    class Comparator(UserDefinedType.Comparator[VectorArray]):
        """pgvector's distances, under the names that pgvector-python gives them."""

        type: NumpyVector

        def cosine_distance(self, other: Any) -> ColumnElement[float]:
            """`<=>`."""
            return self._distance(METRICS["cosine"].operator, other)

        def l2_distance(self, other: Any) -> ColumnElement[float]:
            """`<->`."""
            return self._distance(METRICS["l2"].operator, other)

        def max_inner_product(self, other: Any) -> ColumnElement[float]:
            """`<#>`: the negative inner product."""
            return self._distance(METRICS["inner_product"].operator, other)

        def _distance(self, operator: str, other: Any) -> ColumnElement[float]:
            schema = self.type.vector_schema
            name = f"OPERATOR({quoted(schema)}.{operator})" if schema else operator
            return self.op(name, return_type=Float())(other)  # type: ignore[return-value]

    comparator_factory = Comparator

    def coerce_compared_value(self, op: OperatorType | None, value: Any) -> Any:  # noqa: ARG002
        """The other operand of a comparison is a vector of the same type."""
        return self


class FloatArray(UserDefinedType[VectorArray]):
    """Many vectors as one flat `real[]` parameter; shape (n, dims) goes in, and nothing comes out."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        """The type as DDL."""
        return "REAL[]"

    def bind_processor(self, dialect: Dialect) -> Callable[[Any], Wire]:
        """The binary form of a one-dimensional `real[]`."""
        require_psycopg(dialect)
        return lambda value: Wire(_real_array(value))

    def bind_expression(self, bindvalue: BindParameter[Any]) -> ColumnElement[Any]:
        """Say the type in the statement."""
        return sql_cast(bindvalue, self)


def _real_array(values: VectorArray) -> bytes:
    # header: dimensions 1, no NULLs, element type real (oid 700), length, lower bound; then length-prefixed items
    flat = np.ravel(values)
    header = np.array([1, 0, 700, flat.size, 1], dtype=">i4").tobytes()
    items = np.empty(flat.size, dtype=[("size", ">i4"), ("value", ">f4")])
    items["size"], items["value"] = 4, flat
    return header + items.tobytes()


def require_psycopg(dialect: Dialect) -> None:
    """Refuse any other driver before a vector goes through it.

    Raises:
        DefinitionError: the driver is not psycopg 3.

    """
    if dialect.driver not in {"psycopg", "psycopg_async"}:
        raise DefinitionError(
            f"the driver {dialect.driver!r} is not supported: pgmrl sends vectors in binary through psycopg 3; "
            "use an URL that begins with postgresql+psycopg://"
        )
