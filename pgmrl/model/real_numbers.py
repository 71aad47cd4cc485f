"""What is an array of real numbers, and what NumPy would only take for one.

NumPy reads digits in a text, drops the imaginary part, counts the microseconds of a date, forgets a mask and makes 1 of
true. A vector of such is a mistake of the caller's that no search would show.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from pgmrl.errors import VectorError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

__all__ = ["NO_NUMBERS", "real_numbers"]

NO_NUMBERS: Final = (
    *(bool, np.bool_, complex, np.complexfloating),
    *(str, bytes, bytearray, memoryview, np.void),
    *(dt.date, dt.time, dt.timedelta, np.datetime64, np.timedelta64),
)
NESTED: Final = (list, tuple, np.ndarray)
DEPTH: Final = 3
"""A list of vectors is a list of lists; whatever nests deeper has a shape that no vector has."""


def real_numbers(value: Any, what: str) -> NDArray[np.floating]:
    """An array of what holds real numbers.

    Args:
        value: an array of floats or integers, a list of numbers, or what NumPy makes such an array of, such as
            `pgvector.Vector` or a tensor.
        what: how an error names it.

    Returns:
        Of any shape: float16 and float32 as they are, everything else as float64. Values are not checked.

    Raises:
        VectorError: truth values, complex numbers, texts, dates, records, masked values, or no numbers at all.

    """
    try:
        return _converted(value, what)
    except VectorError:
        raise
    except Exception as error:  # whatever the value's own __array__, to_numpy, __float__ and __len__ raise
        raise _refused(what) from error


def _converted(value: Any, what: str) -> NDArray[np.floating]:
    if not isinstance(value, np.ndarray) and hasattr(value, "to_numpy"):  # pgvector.Vector, a column of a data frame
        value = value.to_numpy()
    if isinstance(value, NO_NUMBERS):  # a text of digits alone
        raise _refused(what, type(value).__name__)
    if isinstance(value, (list, tuple)):
        _check_items(value, what)
    elif isinstance(value, np.ndarray):
        _check_array(value, what)
    array = np.asarray(value)
    _check_array(array, what)
    if array.dtype == np.object_:
        _check_items(array.ravel().tolist(), what)
    if array.dtype in {np.dtype(np.float16), np.dtype(np.float32)}:
        return array
    with np.errstate(over="ignore"):  # an overflow becomes infinity, which is named where values are checked
        return array.astype(np.float64)


def _check_items(items: Iterable[Any], what: str, depth: int = 1) -> None:
    kinds = set(map(type, items))
    wrong = next((kind for kind in kinds if issubclass(kind, NO_NUMBERS)), None)
    if wrong is not None:
        raise _refused(what, wrong.__name__)
    if depth >= DEPTH or not any(issubclass(kind, NESTED) for kind in kinds):
        return
    for item in items:
        if isinstance(item, np.ndarray):
            _check_array(item, what)
        elif isinstance(item, (list, tuple)):
            _check_items(item, what, depth + 1)


def _check_array(array: NDArray[Any], what: str) -> None:
    if isinstance(array, np.ma.MaskedArray) and np.ma.getmaskarray(array).any():
        raise VectorError(f"{what} has masked values, which a vector cannot have: fill them, or leave the vector out")
    # of kind V are records, and the extra types of ml_dtypes such as bfloat16, which are numbers
    if array.dtype.kind in "bcSUMmT" or array.dtype.type is np.void:
        raise _refused(what, str(array.dtype))


def _refused(what: str, holds: str = "") -> VectorError:
    said = f" but of {holds}" if holds else ""
    return VectorError(f"{what} is not made of numbers{said}: give an array or a list of floats")
