"""Checks and conversions of vectors before anything is sent: what the server would refuse, said first and by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from pgmrl.errors import VectorError

if TYPE_CHECKING:
    from pgmrl.model.metrics import FullType

__all__ = ["HALF_MAX", "VectorArray", "VectorLike", "as_float32", "as_query", "as_vector", "as_vectors"]

VectorArray = NDArray[np.float32]
"""A vector as pgmrl returns it: shape (dims,), float32 whatever the column stores."""

VectorLike = NDArray[Any] | Sequence[float]
"""What is accepted as a vector: an array of any real dtype, a list, pgvector's own classes."""

HALF_MAX: Final = 65504.0  # the largest finite half-precision number


def as_vector(value: Any, dims: int, full: FullType = "vector", *, what: str = "the vector") -> VectorArray:
    """One vector, checked.

    Args:
        value: an array or sequence of `dims` numbers, or a `pgvector.Vector` / `HalfVector`.
        dims: the dimensions the column has.
        full: the column's type; half precision refuses values beyond 65,504.
        what: how an error names the vector.

    Returns:
        Shape (dims,), float32.

    Raises:
        VectorError: NULL, not numbers, other dimensions, NaN, infinite or beyond the type's range.

    """
    if value is None:
        raise VectorError(f"{what} is NULL, expected {dims} numbers")
    array = as_float32(value, what)
    if array.ndim != 1 or array.shape[0] != dims:
        raise VectorError(f"{what} has shape {array.shape}, expected ({dims},): the column has {dims} dimensions")
    _check_range(array, full, what)
    return array


def as_vectors(values: Any, dims: int, full: FullType = "vector", *, what: str = "the vectors") -> VectorArray:
    """Several vectors, checked; shape (n, dims), float32.

    Raises:
        VectorError: as `as_vector`, naming the first row that is wrong.

    """
    array = as_float32(values, what)
    if array.ndim != 2 or array.shape[1] != dims:
        raise VectorError(f"{what} have shape {array.shape}, expected (n, {dims}): one row a vector")
    bad = np.flatnonzero(~np.isfinite(array).all(axis=1))
    if bad.size == 0 and full == "halfvec":
        bad = np.flatnonzero((np.abs(array) > HALF_MAX).any(axis=1))
    if bad.size:
        _check_range(array[bad[0]], full, f"row {bad[0]} of {what}")
    return array


def as_query(value: Any, dims: int, full: FullType, *, direction: bool, what: str = "the query vector") -> VectorArray:
    """One query vector, checked; the server would answer a zero or NULL one with arbitrary rows.

    Args:
        value: as `as_vector`.
        dims: as `as_vector`.
        full: as `as_vector`.
        direction: whether the metric compares directions (cosine), which a zero vector has not.
        what: how an error names it.

    Raises:
        VectorError: as `as_vector`, and a zero vector where `direction`.

    """
    array = as_vector(value, dims, full, what=what)
    if direction and not array.any():
        raise VectorError(f"{what} is all zeros and has no direction: cosine distance to it is undefined")
    return array


def as_float32(value: Any, what: str) -> VectorArray:
    """An array of what holds numbers; of any shape, and values are not checked."""
    if hasattr(value, "to_numpy"):  # pgvector.Vector, pgvector.HalfVector
        value = value.to_numpy()
    try:
        with np.errstate(over="ignore"):  # an overflow becomes infinity, which is named below
            return np.ascontiguousarray(value, dtype=np.float32)
    except (TypeError, ValueError):
        raise VectorError(f"{what} is not made of numbers: give an array or a list of floats") from None


def _check_range(array: VectorArray, full: FullType, what: str) -> None:
    finite = np.isfinite(array)
    if not finite.all():
        at = int(np.flatnonzero(~finite)[0])
        raise VectorError(f"{what} has {array[at]} at dimension {at + 1}: every value must be finite")
    if full == "halfvec" and array.size and float(np.abs(array).max()) > HALF_MAX:
        raise VectorError(f"{what} has a value beyond half precision's {HALF_MAX:.0f}: store the column as `vector`")
