"""SQLAlchemy types that carry vectors as NumPy arrays; how a driver is sent one is pgmrl.model.parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from sqlalchemy import Float, func, type_coerce
from sqlalchemy import cast as sql_cast
from sqlalchemy.orm import LoaderCallableStatus
from sqlalchemy.sql.functions import GenericFunction
from sqlalchemy.types import LargeBinary, UserDefinedType

from pgmrl.model.binary import decode
from pgmrl.model.metrics import METRICS
from pgmrl.model.parameters import array_sender, vector_sender, vector_text
from pgmrl.model.vectors import VectorArray, as_float32, as_vector
from pgmrl.names import qualified, quoted

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import BindParameter, ColumnElement, Dialect
    from sqlalchemy.sql.operators import OperatorType

    from pgmrl.model.metrics import FullType

__all__ = ["FloatArray", "NumpyVector"]


class NumpyVector(UserDefinedType[VectorArray]):
    """`vector(dims)` or `halfvec(dims)` as a float32 NumPy array.

    Accepts arrays, lists and pgvector's own classes. Works with every PostgreSQL driver of SQLAlchemy's.

    Args:
        dims: dimensions.
        kind: `vector` or `halfvec`.
        vector_schema: pgvector's schema, where it is not on the search_path.
        as_list: a loaded vector is a list of floats instead of an array: for JSON, pydantic, and comparisons by `==`.

    """

    cache_ok = True
    hashable = False

    def __init__(
        self, dims: int, kind: FullType = "halfvec", vector_schema: str | None = None, as_list: bool = False
    ) -> None:
        self.dims = dims
        self.kind: FullType = kind
        self.vector_schema = vector_schema
        self.as_list = as_list

    def __repr__(self) -> str:
        schema = f", vector_schema={self.vector_schema!r}" if self.vector_schema else ""
        return f"NumpyVector({self.dims}, {self.kind!r}{schema}{', as_list=True' if self.as_list else ''})"

    def get_col_spec(self, **_: Any) -> str:
        """The type as DDL."""
        return f"{qualified(self.vector_schema, self.kind)}({self.dims})"

    def bind_processor(self, dialect: Dialect) -> Callable[[Any], Any]:
        """Check the value and put it into the form that the driver takes."""
        checked, send, kind = self.checked, vector_sender(dialect), self.kind
        return lambda value: None if value is None else send(checked(value), kind)

    def checked(self, value: Any) -> VectorArray:
        """A value as it is sent; shape (dims,), float32.

        Raises:
            VectorError: it cannot be stored.

        """
        return as_vector(value, self.dims, self.kind)

    def literal_processor(self, dialect: Dialect) -> Callable[[Any], str]:  # noqa: ARG002
        """Render the value as text, for `literal_binds` and offline migrations."""
        checked, kind = self.checked, self.kind
        return lambda value: f"'{vector_text(checked(value), kind)}'"

    def bind_expression(self, bindvalue: BindParameter[Any]) -> ColumnElement[Any]:
        """Say the type in the statement, since a binary parameter arrives without one."""
        return sql_cast(bindvalue, self)

    def column_expression(self, column: ColumnElement[Any]) -> ColumnElement[Any]:
        """Fetch the binary form: no driver knows how to load an extension's type unless a connection registers it."""
        package = getattr(func, self.vector_schema) if self.vector_schema else func
        return type_coerce(getattr(package, f"{self.kind}_send")(column, type_=LargeBinary()), self)

    def result_processor(
        self,
        dialect: Dialect,  # noqa: ARG002
        coltype: object,  # noqa: ARG002
    ) -> Callable[[Any], Any]:
        """Read the binary form."""
        kind = self.kind
        if self.as_list:
            return lambda value: None if value is None else decode(value, kind).tolist()
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

        def l1_distance(self, other: Any) -> ColumnElement[float]:
            """`<+>`: the sum of the absolute differences; not a metric of a Matryoshka column."""
            return self._distance("<+>", other)

        def _distance(self, operator: str, other: Any) -> ColumnElement[float]:
            schema = self.type.vector_schema
            name = f"OPERATOR({quoted(schema)}.{operator})" if schema else operator
            return self.op(name, return_type=Float())(other)  # type: ignore[return-value]

    comparator_factory = Comparator

    def coerce_compared_value(self, op: OperatorType | None, value: Any) -> Any:  # noqa: ARG002
        """The other operand of a comparison is a vector of the same type."""
        return self


class _Average(GenericFunction[Any]):
    """`func.avg` of vectors is a vector; of anything else it is what it is without pgmrl."""

    name = "avg"
    inherit_cache = True

    def __init__(self, *arguments: Any, **options: Any) -> None:
        of = getattr(arguments[0], "type", None) if arguments else None
        if isinstance(of, NumpyVector):
            options.setdefault("type_", NumpyVector(of.dims, of.kind, of.vector_schema, of.as_list))
        super().__init__(*arguments, **options)


class FloatArray(UserDefinedType[VectorArray]):
    """Many vectors as one flat `real[]` parameter; shape (n, dims) goes in, and nothing comes out."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        """The type as DDL."""
        return "REAL[]"

    def bind_processor(self, dialect: Dialect) -> Callable[[Any], Any]:
        """One flat array, in the form that the driver takes."""
        return array_sender(dialect)

    def literal_processor(self, dialect: Dialect) -> Callable[[Any], str]:  # noqa: ARG002
        """The same as text, for EXPLAIN of a distributed table."""
        return lambda values: f"'{{{','.join(map(str, np.ravel(values).tolist()))}}}'"

    def bind_expression(self, bindvalue: BindParameter[Any]) -> ColumnElement[Any]:
        """Say the type in the statement."""
        return sql_cast(bindvalue, self)
