"""Values for a binary COPY: binary leaves no conversion to the server, so what it would refuse must be refused here.

psycopg's own dumpers take some values that do not fit and send something else: 40,000 for a `smallint` becomes
-25,536, and any text is true.
"""

from __future__ import annotations

import datetime as dt
import math
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import numpy as np
from pgvector import Bit, SparseVector
from sqlalchemy import Enum
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.types import TypeDecorator

from pgmrl.errors import DefinitionError
from pgmrl.model.binary import encode
from pgmrl.model.vectors import as_vector

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from sqlalchemy import Column, Table

    from pgmrl.model.metrics import FullType

__all__ = ["ModelValues", "converted"]

INTEGERS: Final = {"int2": 2**15, "int4": 2**31, "int8": 2**63}


@dataclass(frozen=True, slots=True)
class ModelValues:
    """What a Table says of its values and the catalogue does not.

    Attributes:
        defaults: makes the value of a column that a row does not have.
        binders: of columns whose type is the application's own in Python: what is sent for a value.
    """

    defaults: Mapping[str, Callable[[], Any]]
    binders: Mapping[str, Callable[[Any], Any]]

    @classmethod
    def of(cls, table: Table, except_for: Collection[str | None] = ()) -> ModelValues:
        """Of a Table, but for the columns `except_for`."""
        columns = [column for column in table.columns if column.name not in except_for]
        dialect = PGDialect_psycopg()  # type: ignore[no-untyped-call]
        binders = {
            column.name: column.type.dialect_impl(dialect).bind_processor(dialect)
            for column in columns
            if isinstance(column.type, (TypeDecorator, Enum))
        }
        return cls(
            {column.name: _default(column) for column in columns if column.default is not None},
            {name: binder for name, binder in binders.items() if binder is not None},
        )

    def completed(self, row: Mapping[str, Any]) -> Mapping[str, Any]:
        """A row with the defaults of the columns that it does not have.

        Raises:
            DefinitionError: one of them can only be made by an INSERT.
        """
        missing = {name: make() for name, make in self.defaults.items() if name not in row}
        return {**row, **missing} if missing else row

    def bound(self, name: str, value: Any) -> Any:
        """A value as the column's type in Python sends it."""
        binder = self.binders.get(name)
        return value if binder is None else binder(value)


def _default(column: Column[Any]) -> Callable[[], Any]:
    default: Any = column.default
    message = (
        f"column {column.name!r} has a default that only an INSERT can make: give its value in every row, "
        "or declare it as server_default"
    )

    def make() -> Any:
        if default.is_scalar:
            return default.arg
        if not default.is_callable:  # an expression or a sequence
            raise DefinitionError(message)
        try:
            return default.arg(None)
        except Exception as error:  # it reads the INSERT's other values
            raise DefinitionError(message) from error

    return make


def converted(kind: str, value: Any) -> Any:
    """A value as psycopg's dumper for this type of column sends it unchanged.

    Args:
        kind: the type's name in the catalogue, `int4`; of an array with the underscore it has there, `_int4`.
        value: not None.

    Raises:
        TypeError: a value of another type.
        ValueError: beyond the type's range, or otherwise none of its values.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if kind.startswith("_") and isinstance(value, np.ndarray):
        value = value.tolist()
    if kind.startswith("_") and isinstance(value, (list, tuple)):
        return [None if inner is None else converted(_inner(kind, inner), inner) for inner in value]
    convert = _CONVERSIONS.get(kind)
    return value if convert is None else convert(value)


def _inner(kind: str, value: Any) -> str:
    return kind if isinstance(value, (list, tuple, np.ndarray)) else kind[1:]


def _integer(limit: int) -> Callable[[Any], int]:
    def convert(value: Any) -> int:
        if not isinstance(value, int):
            raise TypeError("not an integer")
        if not -limit <= value < limit:
            raise ValueError("out of range")
        return int(value)

    return convert


def _single(value: Any) -> float:
    number = float(value) if not isinstance(value, str) else math.nan
    with np.errstate(over="ignore"):
        single = np.float32(number)
    if isinstance(value, str) or (np.isinf(single) and not math.isinf(number)):
        raise ValueError("no number, or out of range")
    return number


def _bytes(value: Any) -> Any:
    if not isinstance(value, (bytes, bytearray, memoryview)):
        raise TypeError("no bytes")
    return value


def _date(value: Any) -> Any:
    if isinstance(value, dt.datetime):
        if value.time() != dt.time(0) or value.tzinfo is not None:
            raise ValueError("a time of day would be cut off")
        return value.date()
    return value


def _time(value: Any) -> Any:
    if isinstance(value, dt.time) and value.tzinfo is not None:
        raise ValueError("the time zone would be cut off")
    return value


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError("not a truth value")
    return value


def _numeric(value: Any) -> Any:
    return Decimal(repr(value)) if isinstance(value, float) else value


def _uuid(value: Any) -> UUID:
    return value if isinstance(value, UUID) else UUID(value)


def _vector(kind: FullType) -> Callable[[Any], bytes]:
    def convert(value: Any) -> bytes:
        numbers = value.to_list() if hasattr(value, "to_list") else value
        checked = as_vector(numbers, len(numbers), kind)
        return encode(checked, kind)

    return convert


def _bits(value: Any) -> bytes:
    encoded: bytes = (value if isinstance(value, Bit) else Bit(value)).to_binary()
    return encoded


def _sparse(value: Any) -> bytes:
    encoded: bytes = (value if isinstance(value, SparseVector) else SparseVector(value)).to_binary()
    return encoded


_CONVERSIONS: Final[Mapping[str, Callable[[Any], Any]]] = {
    **{kind: _integer(limit) for kind, limit in INTEGERS.items()},
    "bool": _boolean,
    "bytea": _bytes,
    "date": _date,
    "float4": _single,
    "time": _time,
    "numeric": _numeric,
    "uuid": _uuid,
    "vector": _vector("vector"),
    "halfvec": _vector("halfvec"),
    "bit": _bits,
    "sparsevec": _sparse,
}
