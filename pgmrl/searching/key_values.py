"""Values of a primary key that callers pass: of the column's type, or refused before the server is asked."""

from __future__ import annotations

import datetime as dt
import uuid
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from sqlalchemy import BigInteger, ClauseElement, Enum, Integer, Numeric, SmallInteger, String, TypeDecorator, Uuid
from sqlalchemy.types import UserDefinedType

from pgmrl.errors import SearchError
from pgmrl.model.argument_types import is_unicode, real_number, whole_number
from pgmrl.reprs import safe_repr

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import ColumnElement
    from sqlalchemy.types import TypeEngine

__all__ = ["key_values"]

BITS: Final[tuple[tuple[type[Integer], int], ...]] = ((SmallInteger, 15), (BigInteger, 63), (Integer, 31))


def key_values(argument: str, columns: Sequence[ColumnElement[Any]], values: Iterable[Any]) -> tuple[Any, ...]:
    """The values of one key, NumPy's as Python's; expressions of SQL are left as they are.

    Of types of the application's own, which convert values themselves, any value is taken.

    Args:
        argument: where the key stands, as an error names it.
        columns: the key's, as many as values.
        values: as they were passed.

    Raises:
        SearchError: a value that the column cannot hold.

    """
    return tuple(_checked(argument, column, value) for column, value in zip(columns, values, strict=True))


def _checked(argument: str, column: ColumnElement[Any], value: Any) -> Any:
    if isinstance(value, ClauseElement):
        return value
    try:
        plain = value.item() if isinstance(value, np.generic) else value
        return _converted(column.type, plain)
    except Exception as error:  # whatever the value's own methods raise
        expected = getattr(column.type, "__visit_name__", "unknown").replace("_", " ")
        reason = f" ({error})" if isinstance(error, SearchError) else ""
        raise SearchError(
            f"{safe_repr(value)} in {argument}: expected a value of the key's column {column.key}, "
            f"of type {expected}{reason}"
        ) from None


def _converted(type_: TypeEngine[Any], value: Any) -> Any:
    if isinstance(type_, TypeDecorator | UserDefinedType):
        hash(value)
        return value
    if isinstance(type_, Integer):
        bits = next(bits for kind, bits in BITS if issubclass(type(type_), kind))
        return whole_number("it", value, SearchError, -(2**bits), 2**bits - 1)
    if isinstance(type_, Numeric):
        if not isinstance(value, Decimal):
            real_number("it", value, SearchError)
    elif isinstance(type_, Enum):
        _require((isinstance(value, str) and value in type_.enums) or _is_member(type_, value))
    elif isinstance(type_, String):
        _require(isinstance(value, str) and "\0" not in value and is_unicode(value))
    elif isinstance(type_, Uuid):
        return value if isinstance(value, uuid.UUID) else type_.python_type(str(uuid.UUID(value)))
    else:
        return _of_python_type(type_, value)
    return value


def _of_python_type(type_: TypeEngine[Any], value: Any) -> Any:
    try:
        kind = type_.python_type
    except NotImplementedError:
        return value
    if isinstance(value, str) and kind in {dt.date, dt.datetime, dt.time}:  # out of JSON, say
        return kind.fromisoformat(value)
    _require(isinstance(value, kind))
    return value


def _is_member(type_: Enum, value: Any) -> bool:
    return type_.enum_class is not None and isinstance(value, type_.enum_class)


def _require(fits: bool) -> None:
    if not fits:
        raise TypeError
