"""Values as psycopg's binary dumper for a type sends them unchanged, and nothing else.

A dumper that is chosen by a column's type takes whatever it is given: the one for `interval` reads the memory of a
text, 40,000 for a `smallint` becomes -25,536, and any text is true. So each type has the classes that its dumper is
made for, and each value is what the server would store for its literal, or is refused.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import math
import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import numpy as np
from psycopg.types.json import Json, Jsonb

from pgmrl.model.binary import encode
from pgmrl.model.compat import Bit, SparseVector
from pgmrl.model.real_numbers import real_numbers
from pgmrl.model.vectors import as_vector

if TYPE_CHECKING:
    from pgmrl.model.metrics import FullType

__all__ = ["SCALARS", "Convert", "is_row", "plain_value"]

Convert = Callable[[Any], Any]
"""From a value, not None, to what is sent; raises TypeError or ValueError where it is none of the type's values."""

NUMERIC_DIGITS: Final = 131_072  # before the point
NUMERIC_SCALE: Final = 16_383  # behind it


def plain_value(value: Any) -> Any:
    """A scalar of NumPy's as one of Python's; another value as it is.

    Raises:
        ValueError: Python has none such.
    """
    if not isinstance(value, np.generic):
        return value
    if isinstance(value, (np.datetime64, np.timedelta64)):
        return _moment_of_numpy(value)
    if isinstance(value, np.longdouble):
        return _exactly(value, float(value))
    return value.item()


def is_row(value: Any) -> bool:
    """Whether it is a tuple with names, which is a row and no array."""
    return isinstance(value, tuple) and hasattr(value, "_fields")


def _moment_of_numpy(value: np.datetime64 | np.timedelta64) -> Any:
    # NumPy gives nanoseconds, and what is beyond Python's range, as integers
    if np.isnat(value):
        raise ValueError("no moment: None is NULL")
    if np.datetime_data(value.dtype)[0] == "generic":
        raise ValueError("without a unit")
    plain = value.item()
    if isinstance(plain, int):
        kind = "M8[us]" if isinstance(value, np.datetime64) else "m8[us]"
        plain = _exactly(value, value.astype(kind)).item()
    if isinstance(plain, int):
        raise ValueError("out of range")
    return plain


def _exactly(value: Any, converted: Any) -> Any:
    if converted != value and not np.isnan(value):
        raise ValueError("digits would be cut off")
    return converted


# -- numbers -------------------------------------------------------------------------------------------------------


def _integer(low: int, high: int) -> Convert:
    def convert(value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool):
            raise TypeError("not an integer")
        if not low <= value < high:
            raise ValueError("out of range")
        return int(value)

    return convert


def _number(value: Any) -> int | float | Decimal:
    if not isinstance(value, (int, float, Decimal)) or isinstance(value, bool):
        raise TypeError("not a number")
    if isinstance(value, Decimal) and value.is_snan():
        raise ValueError("a signalling NaN")
    return value


def _double(value: Any) -> float:
    number = _number(value)
    double = float(number)  # OverflowError is an ArithmeticError, and refused as well
    if (math.isinf(double) and not _is_infinite(number)) or (double == 0 and number != 0):
        raise ValueError("out of range")
    return double


def _is_infinite(number: float | Decimal) -> bool:
    return number.is_infinite() if isinstance(number, Decimal) else math.isinf(number)


def _single(value: Any) -> float:
    number, double = _number(value), _double(value)
    with np.errstate(over="ignore", under="ignore"):
        single = np.float32(double)
    if (np.isinf(single) and not math.isinf(double)) or (single == 0 and double != 0):
        raise ValueError("out of range")
    # rounded twice, a number next to the middle of two singles may end as the wrong one of them
    if double != number and math.isfinite(double) and _is_midway(double, single):
        raise ValueError("not exactly rounded: give a float")
    return double


def _is_midway(double: float, single: np.float32) -> bool:
    towards = np.float32(math.inf if double > float(single) else -math.inf)  # or NumPy would compare in single
    return (float(single) + float(np.nextafter(single, towards))) / 2 == double


def _numeric(value: Any) -> int | Decimal:
    number = _number(value)
    if isinstance(number, float):
        number = Decimal(repr(float(number)))
    digits = number.bit_length() * math.log10(2) if isinstance(number, int) else 0.0
    if isinstance(number, Decimal) and number.is_finite() and number:
        digits = float(number.adjusted() + 1)
        exponent = number.as_tuple().exponent
        if isinstance(exponent, int) and exponent < -NUMERIC_SCALE:
            raise ValueError("too many digits behind the point")
    if digits > NUMERIC_DIGITS:
        raise ValueError("out of range")
    return int(number) if isinstance(number, int) else number


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError("not a truth value")
    return value


# -- texts and bytes -----------------------------------------------------------------------------------------------


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("not a text")
    return str.__str__(value)  # of an enum with texts the text, and not its name


def _bytes(value: Any) -> bytes:
    if not isinstance(value, (bytes, bytearray, memoryview)):
        raise TypeError("no bytes")
    return bytes(value)


def _json(value: Any) -> Any:
    if isinstance(value, (Json, Jsonb)):
        return value
    if isinstance(value, str):
        raise TypeError("a text may be JSON or be meant as a string of it: wrap it, psycopg's Jsonb(...)")
    if not isinstance(value, (dict, list, tuple, int, float)) or is_row(value):
        raise TypeError("not JSON")
    return value


def _uuid(value: Any) -> UUID:
    return value if isinstance(value, UUID) else UUID(_text(value))


def _bits(value: Any) -> bytes:
    if not isinstance(value, Bit):
        if isinstance(value, str) and re.fullmatch("[01]*", value) is None:
            raise ValueError("not of 0 and 1")
        if not isinstance(value, str) and not _are_truth_values(value):
            raise TypeError("not bits")
        value = Bit(value)
    encoded: bytes = value.to_binary()
    return encoded


def _are_truth_values(value: Any) -> bool:
    if isinstance(value, np.ndarray):
        return value.dtype == np.bool_ and not isinstance(value, np.ma.MaskedArray)
    return isinstance(value, list) and all(type(item) is bool for item in value)


# -- moments -------------------------------------------------------------------------------------------------------


def _date(value: Any) -> dt.date:
    if isinstance(value, dt.datetime):
        if _is_zoned(value) or value.time() != dt.time(0):
            raise ValueError("a time of day would be cut off")
        return value.date()
    if not isinstance(value, dt.date):
        raise TypeError("not a date")
    return value


def _time(*, zone: bool) -> Convert:
    def convert(value: Any) -> dt.time:
        if not isinstance(value, dt.time):
            raise TypeError("not a time of day")
        if _is_zoned(value) != zone:
            raise ValueError("without a time zone" if zone else "the time zone would be cut off")
        return value

    return convert


def _moment(*, zone: bool) -> Convert:
    def convert(value: Any) -> dt.datetime:
        if not isinstance(value, dt.datetime):
            raise TypeError("not a moment")
        # pandas' Timestamp may have nanoseconds, and its NaT is a datetime, too, which says NaN
        if getattr(value, "nanosecond", None):
            raise ValueError("no moment, or finer than a microsecond")
        if _is_zoned(value) != zone:
            raise ValueError("without a time zone" if zone else "the time zone would be cut off")
        return value

    return convert


def _is_zoned(value: dt.datetime | dt.time) -> bool:
    return value.tzinfo is not None


def _interval(value: Any) -> dt.timedelta:
    if not isinstance(value, dt.timedelta):
        raise TypeError("not a duration")
    if getattr(value, "nanoseconds", None):
        raise ValueError("finer than a microsecond")
    return value


# -- addresses -----------------------------------------------------------------------------------------------------

_ADDRESSES = (ipaddress.IPv4Address, ipaddress.IPv6Address)  # interfaces are addresses
_NETWORKS = (ipaddress.IPv4Network, ipaddress.IPv6Network)


def _inet(value: Any) -> Any:
    if not isinstance(value, _ADDRESSES):
        raise TypeError("not an address or interface of ipaddress")
    if getattr(value, "scope_id", None) is not None:
        raise ValueError("the scope would be cut off")
    return value


def _cidr(value: Any) -> Any:
    if not isinstance(value, _NETWORKS):
        raise TypeError("not a network of ipaddress")
    if getattr(value.network_address, "scope_id", None) is not None:
        raise ValueError("the scope would be cut off")
    return value


# -- vectors -------------------------------------------------------------------------------------------------------


def _vector(kind: FullType) -> Convert:
    def convert(value: Any) -> bytes:
        numbers = real_numbers(value, "the vector")
        return encode(as_vector(numbers, numbers.size, kind), kind)

    return convert


def _sparse(value: Any) -> bytes:
    if not isinstance(value, SparseVector):
        numbers = real_numbers(value, "the vector")
        value = SparseVector(as_vector(numbers, numbers.size))
    encoded: bytes = value.to_binary()
    return encoded


SCALARS: Final[Mapping[str, tuple[str, Convert]]] = {
    "int2recv": ("int2", _integer(-(2**15), 2**15)),
    "int4recv": ("int4", _integer(-(2**31), 2**31)),
    "int8recv": ("int8", _integer(-(2**63), 2**63)),
    "oidrecv": ("oid", _integer(0, 2**32)),
    "float4recv": ("float4", _single),
    "float8recv": ("float8", _double),
    "numeric_recv": ("numeric", _numeric),
    "boolrecv": ("bool", _boolean),
    **dict.fromkeys(("textrecv", "varcharrecv", "bpcharrecv", "citextrecv", "enum_recv"), ("text", _text)),
    "namerecv": ("name", _text),
    "bytearecv": ("bytea", _bytes),
    "json_recv": ("json", _json),
    "jsonb_recv": ("jsonb", _json),
    "uuid_recv": ("uuid", _uuid),
    "date_recv": ("date", _date),
    "time_recv": ("time", _time(zone=False)),
    "timetz_recv": ("timetz", _time(zone=True)),
    "timestamp_recv": ("timestamp", _moment(zone=False)),
    "timestamptz_recv": ("timestamptz", _moment(zone=True)),
    "interval_recv": ("interval", _interval),
    "inet_recv": ("inet", _inet),
    "cidr_recv": ("cidr", _cidr),
    # in their own binary form, which the dumper of `bytea` passes on
    "bit_recv": ("bytea", _bits),
    "vector_recv": ("bytea", _vector("vector")),
    "halfvec_recv": ("bytea", _vector("halfvec")),
    "sparsevec_recv": ("bytea", _sparse),
}
"""By a type's receive function, which alone decides what bytes mean: the type whose dumper sends it, and its values."""
