"""pgvector's binary format: `vector`, `halfvec` and `bit` to and from bytes, one value or many at a time.

What the types' send and receive functions have (src/vector.c, src/halfvec.c of pgvector, varbit.c of PostgreSQL): a
header of four bytes, which is the dimensions as 16 bits and 16 bits that are zero, of `bit` the length as 32 bits; then
the numbers in network byte order, of `bit` eight to a byte, the first one highest.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from pgmrl.errors import VectorError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from pgmrl.model.metrics import ShortType

__all__ = ["HEADER", "decode", "decode_many", "encode", "encode_many", "value_dtype"]

HEADER: Final = 4
"""Bytes before the numbers."""

_ITEMS: Final = {"vector": ">f4", "halfvec": ">f2", "bit": "u1"}


def value_dtype(kind: ShortType, dims: int) -> np.dtype[np.void]:
    """The bytes of one value, as fields `header` and `items`.

    Args:
        kind: `vector`, `halfvec` or `bit`.
        dims: dimensions; of `bit` its length.

    """
    return np.dtype([("header", f"V{HEADER}"), ("items", _ITEMS[kind], (_width(kind, dims),))])


def encode(vector: ArrayLike, kind: ShortType) -> bytes:
    """One value.

    Args:
        vector: shape (dims,); numbers, or of `bit` truth values.
        kind: `vector`, `halfvec` or `bit`.

    """
    array = np.asarray(vector)
    if kind == "bit":
        return _header(kind, array.size) + np.packbits(array.astype(np.bool_)).tobytes()
    return _header(kind, array.size) + array.astype(_ITEMS[kind]).tobytes()


def encode_many(vectors: NDArray[Any], kind: ShortType) -> NDArray[np.void]:
    """Many values of the same dimensions, each as `value_dtype` has it.

    Args:
        vectors: shape (n, dims); numbers, or of `bit` truth values.
        kind: `vector`, `halfvec` or `bit`.

    Returns:
        Shape (n,).

    """
    count, dims = vectors.shape
    values = np.empty(count, value_dtype(kind, dims))
    values["header"] = np.void(_header(kind, dims))
    values["items"] = np.packbits(vectors.astype(np.bool_), axis=1) if kind == "bit" else vectors
    return values


def decode(value: bytes, kind: ShortType) -> NDArray[Any]:
    """One value.

    Returns:
        Shape (dims,): float32; of `bit` truth values.

    """
    if kind == "bit":
        length = int.from_bytes(value[:HEADER], "big")
        return np.unpackbits(np.frombuffer(value, np.uint8, offset=HEADER), count=length).astype(np.bool_)
    return np.frombuffer(value, _ITEMS[kind], offset=HEADER).astype(np.float32)


def decode_many(values: Sequence[bytes], kind: ShortType, dims: int) -> NDArray[Any]:
    """Many values of the same dimensions, by one copy of their bytes.

    Returns:
        Shape (n, dims): float32; of `bit` truth values.

    Raises:
        VectorError: they have not these dimensions.

    """
    whole = b"".join(values)
    dtype = value_dtype(kind, dims)
    if len(whole) != len(values) * dtype.itemsize:
        raise VectorError(f"expected values of {kind}({dims}), {dtype.itemsize} bytes each, got others")
    items = np.frombuffer(whole, dtype)["items"]
    if kind == "bit":
        return np.unpackbits(items, axis=1, count=dims).astype(np.bool_)
    return items.astype(np.float32)


def _width(kind: ShortType, dims: int) -> int:
    """Items of one value."""
    return (dims + 7) // 8 if kind == "bit" else dims


def _header(kind: ShortType, dims: int) -> bytes:
    return struct.pack(">I", dims) if kind == "bit" else struct.pack(">HH", dims, 0)
