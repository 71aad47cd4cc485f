"""Checks and conversions of vectors before anything is sent: what the server refuses or misreads, said by name."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from pgmrl.errors import VectorError
from pgmrl.model.real_numbers import real_numbers

if TYPE_CHECKING:
    from pgmrl.model.metrics import FullType

__all__ = [
    "ANY_LENGTH",
    "HALF_LENGTH",
    "HALF_MAX",
    "HALF_STEP",
    "VECTOR_LENGTHS",
    "Lengths",
    "VectorArray",
    "VectorLike",
    "as_float32",
    "as_query",
    "as_vector",
    "as_vectors",
    "is_ordinary",
    "query_vectors",
]

VectorArray = NDArray[np.float32]
"""A vector as pgmrl returns it: shape (dims,), float32 whatever the column stores."""

VectorLike = NDArray[Any] | Sequence[float]
"""What is accepted as a vector: an array of any real dtype, a list, pgvector's own classes."""

Lengths = tuple[float, float]
"""The lengths (L2 norms) that vectors may have besides 0."""

HALF_MAX: Final = 65504.0  # the largest finite half-precision number
HALF_STEP: Final = 2.0**-24
"""The smallest half-precision number above 0: a shorter vector rounds to zero."""
HALF_LENGTH: Final = 2.0**-14
"""The smallest normal half-precision number: of a vector shorter than that rounding leaves no direction to rely on."""

VECTOR_LENGTHS: Final[Lengths] = (1e-15, 1e18)
"""pgvector adds squares and products in single precision. Measured on 0.8.6: distances are right to seven digits at
lengths from 1e-18 to 1e19, off by a thousandth at 1e-21, and 0, 1, 2, NaN or infinity beyond. With many dimensions each
number is smaller than the whole, hence the margin."""

ANY_LENGTH: Final[Lengths] = (0.0, math.inf)

_ORDINARY: Final[Lengths] = (0.25, 2.0**16)
"""Squares of lengths about 1, which most models give. The largest of 16,000 numbers is then above 2**-8, below 2**8."""
_NOT_ZERO: Final = 2.0**-20
"""Square of a length that half precision does not round to 0, in however many dimensions."""
_FLOAT32: Final = np.dtype(np.float32)

_LARGEST: Final = 8
"""A query whose largest number is within 2**-8 and 2**8 is sent as it is: every vector of unit length is such a one."""


def as_vector(
    value: Any, dims: int, full: FullType = "vector", *, what: str = "the vector", lengths: Lengths = ANY_LENGTH
) -> VectorArray:
    """One vector, checked.

    Args:
        value: an array or sequence of `dims` numbers, or a `pgvector.Vector` / `HalfVector`.
        dims: the dimensions the column has.
        full: the column's type; half precision refuses values beyond 65,504.
        what: how an error names the vector.
        lengths: the lengths it may have, besides 0.

    Returns:
        Shape (dims,), float32.

    Raises:
        VectorError: NULL, not real numbers, other dimensions, NaN, infinite or beyond the type's range, too short or
            too long.

    """
    array = _one(value, dims, what)
    single = _single(array)
    _check_range(single, full, what)
    _check_lengths(array[np.newaxis], lengths, lambda _: what)
    return single


def as_vectors(
    values: Any, dims: int, full: FullType = "vector", *, what: str = "the vectors", lengths: Lengths = ANY_LENGTH
) -> VectorArray:
    """Several vectors, checked; shape (n, dims), float32.

    Raises:
        VectorError: as `as_vector`, naming the first row that is wrong.

    """
    array = _several(values, dims, what)
    single = _single(array)
    wrong = np.flatnonzero(~np.isfinite(single).all(axis=1))
    if wrong.size == 0 and full == "halfvec":
        wrong = np.flatnonzero((np.abs(single) > HALF_MAX).any(axis=1))
    if wrong.size:
        _check_range(single[wrong[0]], full, f"row {wrong[0]} of {what}")
    _check_lengths(array, lengths, lambda row: f"row {row} of {what}")
    return single


def as_query(
    value: Any,
    dims: int,
    full: FullType,
    *,
    direction: bool,
    what: str = "the query vector",
    lengths: Lengths = ANY_LENGTH,
) -> VectorArray:
    """One query vector, checked; the server would answer a zero or NULL one with arbitrary rows.

    Where only its direction counts, a very short or long one is scaled by a power of two, so that the column's type
    holds it and pgvector's arithmetic does not run out of range; the order and the distances stay the same.

    Args:
        value: as `as_vector`.
        dims: as `as_vector`.
        full: as `as_vector`.
        direction: whether the metric compares directions (cosine), which a zero vector has not.
        what: how an error names it.
        lengths: where the length counts: the lengths it may have, besides 0.

    Returns:
        Shape (dims,), float32.

    Raises:
        VectorError: as `as_vector`, and a zero vector where `direction`.

    """
    array = _one(value, dims, what)
    if direction:
        if not array.any():
            raise VectorError(f"{what} is all zeros and has no direction: cosine distance to it is undefined")
        array = _scaled(array)
    single = _single(array)
    _check_range(single, full, what)
    if not direction:
        _check_lengths(array[np.newaxis], lengths, lambda _: what)
    return single


def is_ordinary(value: Any, dims: int, leading: int | None = None) -> bool:
    """Whether a query is one that every check takes, which nearly every query is; in a tenth of the checks' time.

    Its length is near 1, and that of its leading dimensions is not near 0. With a value that is NaN, infinite or beyond
    a type's range it has another length.

    Args:
        value: as given.
        dims: the dimensions the column has.
        leading: the first dimensions, where the short vector is made of these.

    """
    if type(value) is not np.ndarray or value.dtype is not _FLOAT32 or value.shape != (dims,):
        return False
    (low, high), part = _ORDINARY, value[:leading]
    with np.errstate(over="ignore", invalid="ignore"):
        length, rest = float(value.dot(value)), leading is None or float(part.dot(part)) >= _NOT_ZERO
    return low <= length <= high and rest and value.flags.c_contiguous


def query_vectors(values: Any, dims: int, what: str) -> NDArray[np.floating]:
    """Several query vectors by their shape alone, each to be checked by `as_query`; shape (n, dims).

    Raises:
        VectorError: not real numbers, or another shape.

    """
    return _several(values, dims, what)


def as_float32(value: Any, what: str) -> VectorArray:
    """An array of what holds numbers; of any shape, and values are not checked.

    Raises:
        VectorError: it holds no real numbers.

    """
    return _single(real_numbers(value, what))


def _one(value: Any, dims: int, what: str) -> NDArray[np.floating]:
    if value is None:
        raise VectorError(f"{what} is NULL: give {dims} numbers")
    array = real_numbers(value, what)
    if array.ndim != 1 or array.shape[0] != dims:
        raise VectorError(f"{what} has shape {array.shape}, the column has {dims} dimensions: use the same model")
    return array


def _several(values: Any, dims: int, what: str) -> NDArray[np.floating]:
    array = real_numbers(values, what)
    if array.ndim != 2 or array.shape[1] != dims:
        raise VectorError(f"{what} have shape {array.shape}, expected (n, {dims}): one row a vector")
    return array


def _single(array: NDArray[np.floating]) -> VectorArray:
    with np.errstate(over="ignore"):  # an overflow becomes infinity, which is named by who checks values
        return np.ascontiguousarray(array, np.float32)


def _scaled(array: NDArray[np.floating]) -> NDArray[np.floating]:
    """The same direction, exactly: by a power of two, so that the largest number is from 0.5 to 1."""
    exponent = int(np.frexp(np.abs(array).max())[1])  # of infinity and NaN 0
    if abs(exponent) <= _LARGEST:
        return array
    return np.ldexp(array.astype(np.float64), -exponent)


def _check_range(array: VectorArray, full: FullType, what: str) -> None:
    finite = np.isfinite(array)
    if not finite.all():
        at = int(np.flatnonzero(~finite)[0])
        raise VectorError(f"{what} has {array[at]} at dimension {at + 1}: every value must be finite")
    if full == "halfvec" and array.size and float(np.abs(array).max()) > HALF_MAX:
        raise VectorError(f"{what} has a value beyond half precision's {HALF_MAX:.0f}: store the column as `vector`")


def _check_lengths(array: NDArray[np.floating], lengths: Lengths, named: Callable[[int], str]) -> None:
    """Refuse the first row that is neither zero nor of a length within bounds; values are finite.

    Args:
        array: shape (n, dims).
        lengths: the bounds.
        named: how an error names a row.
    """
    if lengths == ANY_LENGTH:
        return
    wide = array.astype(np.float64, copy=False)  # of what is finite in single precision no square overflows
    norms = np.sqrt(np.einsum("ij,ij->i", wide, wide))
    low, high = lengths
    outside = (norms < low) | (norms > high)
    if not outside.any():
        return
    for row in np.flatnonzero(outside):
        if wide[row].any():
            length = math.hypot(*wide[row].tolist())  # not 0 where the squares are
            raise VectorError(
                f"{named(int(row))} has the length {length:.3g}, expected 0 or {low:.3g} to {high:.3g}, where its "
                "type and pgvector's single precision compute right distances: scale all vectors alike"
            )
