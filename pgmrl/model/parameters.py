"""How a vector is sent: in pgvector's binary form through psycopg 3, as text through any other driver.

Nothing is set up on a connection, a pool or PgBouncer, and nothing depends on when pgmrl is imported. psycopg looks a
value's dumper up in the connection, which has copied the registered ones when it was opened; a connection that was
opened, or whose engine was made, before pgmrl was imported does not have ours. Such a connection goes up the value's
base classes and finds the dumper for Enum, which sends `value.name.encode(…)` as a text of unknown type: that is why
BinaryValue is an Enum (without members) and what its `name` is for.
"""

from __future__ import annotations

import enum
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import psycopg
from psycopg.adapt import Dumper
from psycopg.pq import Format

from pgmrl.model.binary import decode, encode

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from sqlalchemy import Dialect

    from pgmrl.model.metrics import FullType, ShortType
    from pgmrl.model.vectors import VectorArray

__all__ = [
    "BinaryValue",
    "array_sender",
    "binary_value",
    "vector_sender",
    "vector_text",
]

PSYCOPG: Final = frozenset({"psycopg", "psycopg_async"})
DIGITS: Final = ".9g"  # as many as a single-precision number needs to be read back as the same one


class BinaryValue(enum.Enum):
    """A parameter already in a server type's binary form; its cast in the statement tells the server the type.

    Attributes:
        data: the bytes.
        kind: `vector`, `halfvec` or `bit`; `real[]` for a one-dimensional array of single-precision numbers.

    """

    data: bytes
    kind: ShortType | str

    @property
    def name(self) -> Any:
        """What psycopg's dumper for Enum asks to `encode` itself."""
        return _TextForm(self)

    def text(self) -> str:
        """The server's text form of the value."""
        if self.kind == "real[]":
            numbers = np.frombuffer(self.data, _ARRAY_ITEM, offset=20)["value"]
            return "{" + ",".join([f"{number:{DIGITS}}" for number in numbers.tolist()]) + "}"
        if self.kind == "bit":
            return "".join("1" if bit else "0" for bit in decode(self.data, "bit"))
        return vector_text(decode(self.data, self.kind), self.kind)  # type: ignore[arg-type]

    def __repr__(self) -> str:
        return f"<{self.kind}, {len(self.data)} bytes>"


class _TextForm:
    """The text of a value, made when it is asked for."""

    __slots__ = ("value",)

    def __init__(self, value: BinaryValue) -> None:
        self.value = value

    def encode(self, _encoding: str) -> bytes:
        return self.value.text().encode()


class _BinaryValueDumper(Dumper):
    format = Format.BINARY
    oid = 0  # unknown: an extension's types have other oids in every database

    def dump(self, obj: BinaryValue) -> bytes:
        return obj.data

    def quote(self, obj: BinaryValue) -> bytes:
        """As a literal, for cursors that put parameters into the statement themselves (ClientCursor)."""
        return f"'{obj.text()}'".encode()


psycopg.adapters.register_dumper(BinaryValue, _BinaryValueDumper)


def binary_value(data: bytes, kind: ShortType | str) -> BinaryValue:
    """A value of `BinaryValue`, which as an Enum cannot be called."""
    value = object.__new__(BinaryValue)
    value.data, value.kind = data, kind
    return value


def vector_text(vector: VectorArray, kind: FullType) -> str:
    """A vector of shape (dims,) as pgvector reads it: `[1,2.5,0]`; of `halfvec` rounded to half precision first."""
    if kind == "halfvec":
        return "[" + ",".join(_half_texts()[vector.astype(np.float16).view(np.uint16)]) + "]"
    return "[" + ",".join([f"{number:{DIGITS}}" for number in vector.tolist()]) + "]"


@cache
def _half_texts() -> NDArray[Any]:
    """The text of each half, by its bits: 7 MB, made once in 40 ms; 768 numbers are written in 20 µs, not in 250."""
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    return np.array([f"{half:{DIGITS}}" for half in halves.tolist()], object)


def vector_sender(dialect: Dialect) -> Callable[[NDArray[Any], FullType], Any]:
    """What turns a vector of shape (dims,) into what this dialect's driver is given for it."""
    return _binary_vector if dialect.driver in PSYCOPG else vector_text


def _binary_vector(vector: NDArray[Any], kind: FullType) -> BinaryValue:
    return binary_value(encode(vector, kind), kind)


def array_sender(dialect: Dialect) -> Callable[[NDArray[Any]], Any]:
    """What turns numbers of any shape into what this dialect's driver is given for a flat `real[]`."""
    if dialect.driver in PSYCOPG:
        return lambda values: binary_value(_real_array(values), "real[]")
    return lambda values: np.ravel(values).tolist()


_ARRAY_ITEM: Final = np.dtype([("size", ">i4"), ("value", ">f4")])


def _real_array(values: NDArray[Any]) -> bytes:
    # header: dimensions 1, no NULLs, element type real (oid 700), length, lower bound; then length-prefixed items
    flat = np.ravel(values)
    header = np.array([1, 0, 700, flat.size, 1], dtype=">i4").tobytes()
    items = np.empty(flat.size, dtype=_ARRAY_ITEM)
    items["size"], items["value"] = 4, flat
    return header + items.tobytes()
