"""Values for a binary COPY: binary leaves no conversion to the server, so what it would refuse must be refused here.

psycopg's own dumpers take some values that do not fit and send something else: 40,000 for a `smallint` becomes
-25,536, and any text is true.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import numpy as np
from pgvector import Bit, HalfVector, SparseVector
from pgvector import Vector as PgVector

from pgmrl.vectors import as_vector

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["converted"]

INTEGERS: Final = {"int2": 2**15, "int4": 2**31, "int8": 2**63}


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


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError("not a truth value")
    return value


def _numeric(value: Any) -> Any:
    return Decimal(repr(value)) if isinstance(value, float) else value


def _uuid(value: Any) -> UUID:
    return value if isinstance(value, UUID) else UUID(value)


def _vector(kind: str) -> Callable[[Any], bytes]:
    def convert(value: Any) -> bytes:
        numbers = value.to_list() if hasattr(value, "to_list") else value
        checked = as_vector(numbers, len(numbers), "halfvec" if kind == "halfvec" else "vector")
        encoded: bytes = (HalfVector if kind == "halfvec" else PgVector)(checked).to_binary()
        return encoded

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
    "numeric": _numeric,
    "uuid": _uuid,
    "vector": _vector("vector"),
    "halfvec": _vector("halfvec"),
    "bit": _bits,
    "sparsevec": _sparse,
}
