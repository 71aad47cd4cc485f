"""What NumPy would take for numbers and is none; what holds numbers and raises instead of giving them."""

from __future__ import annotations

import array
import datetime as dt
import enum
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from pgmrl.errors import VectorError
from pgmrl.model.compat import Bit, HalfVector, SparseVector
from pgmrl.model.compat import Vector as PgVector
from pgmrl.model.real_numbers import real_numbers
from pgmrl.model.vectors import as_query, as_vector, as_vectors
from pgmrl.searching.more_like_this import average_vectors

if TYPE_CHECKING:
    from collections.abc import Callable


class Raises:
    """Each way to numbers ends in an error of its own."""

    def __array__(self, *_: Any, **__: Any) -> Any:
        """NumPy asks for this first."""
        raise RuntimeError("no array")

    def __repr__(self) -> str:
        raise OSError("no repr")


class NoFrame:
    """As a data frame's column whose server is gone."""

    def to_numpy(self) -> Any:
        """What is asked first."""
        raise ConnectionError("gone")


class NoFloat:
    """As a lazy number."""

    def __float__(self) -> float:
        raise ZeroDivisionError("lazy")


class Endless:
    """A sequence that never says how long it is."""

    def __len__(self) -> int:
        return 2**70

    def __getitem__(self, _: int) -> float:
        return 1.0


class Level(enum.IntEnum):
    """Integers with names."""

    ONE = 1
    TWO = 2


CIRCLE: list[Any] = [1.0]
CIRCLE.append(CIRCLE)
DAY = dt.date(2020, 1, 1)

NO_NUMBERS: dict[str, Any] = {
    "masked": np.ma.array([1.0, 2.0], mask=[False, True]),
    "masked item": [1.0, np.ma.masked],
    "complex": [1.0, 2j],
    "complex, nothing imaginary": np.array([1.0, 2.0], np.complex64),
    "complex object": np.array([1.0, np.complex64(2)], object),
    "digits": ["1", "2"],
    "digits among numbers": [1.0, "2"],
    "array of digits": np.array(["1", "2"]),
    "object array of digits": np.array(["1", "2"], object),
    "bytes of digits": np.array([b"1", b"2"]),
    "text": "12",
    "bytes": b"12",
    "bytearray": bytearray(b"12"),
    "memoryview": memoryview(b"12"),
    "half a character": "\ud800",
    "truth values": [True, False],
    "a truth value among numbers": [1.0, True],
    "NumPy's truth value among numbers": [1.0, np.True_],
    "array of truth values": np.array([True, False]),
    "object array with a truth value": np.array([1.0, True], object),
    "truth value in an array of its own": [np.array(1.0), np.array(True)],
    "bits": Bit("10"),
    "dates": [DAY, DAY],
    "dates of NumPy": np.array([DAY, DAY], "M8[D]"),
    "dates of NumPy as items": [np.datetime64(DAY), np.datetime64(DAY)],
    "durations": np.array([1, 2], "m8[s]"),
    "durations of Python": [dt.timedelta(1), dt.timedelta(2)],
    "records": np.array([(1.0,), (2.0,)], [("a", np.float32)]),
    "void": np.zeros(2, "V4"),
    "None": [1.0, None],
    "dict": {1.0: 2.0, 2.0: 3.0},
    "set": {1.0, 2.0},
    "generator": (x for x in [1.0, 2.0]),
    "ragged": [[1.0], [1.0, 2.0]],
    "circle": CIRCLE,
    "huge integer": [10**400, 1],
    "array raises": Raises(),
    "array of an item raises": [Raises(), 1.0],
    "float raises": [NoFloat(), 1.0],
    "to_numpy raises": NoFrame(),
    "endless": Endless(),
    "object": object(),
    "class": list,
}
NUMBERS: dict[str, Any] = {
    "list": [1, 2.0],
    "tuple": (1, 2.0),
    "NumPy's scalars": [np.float16(1), np.int8(2)],
    "scalars as arrays": [np.array(1), np.array(2.0)],
    "decimals": [Decimal(1), Decimal("2.0")],
    "fractions": [Fraction(1), Fraction(4, 2)],
    "named": [Level.ONE, Level.TWO],
    "range": range(1, 3),
    "array": array.array("d", [1, 2]),
    "buffer of numbers": np.frombuffer(array.array("f", [1, 2]), np.float32),
    "unsigned": np.array([1, 2], np.uint8),
    "long double": np.array([1, 2], np.longdouble),
    "objects": np.array([1, 2.0], object),
    "nothing masked": np.ma.array([1.0, 2.0], mask=False),
    "other byte order": np.array([1, 2], ">f4"),
    "backwards": np.array([2.0, 1.0])[::-1],
    "Vector": PgVector([1, 2]),
    "HalfVector": HalfVector([1, 2]),
    "SparseVector": SparseVector([1, 2]),
}


@pytest.mark.parametrize("name", NO_NUMBERS)
def test_what_is_no_vector_of_numbers(name: str) -> None:
    """It is refused by name: as a vector, as a query, as one vector of several, as an example."""
    value = NO_NUMBERS[name]
    calls: list[Callable[[], object]] = [
        lambda: as_vector(value, 2, what="the thing"),
        lambda: as_query(value, 2, "vector", direction=True, what="the thing"),
        lambda: as_vectors([value, value], 2, what="the thing"),
        lambda: as_vectors([[1.0, 2.0], value], 2, what="the thing"),
        lambda: average_vectors([value, value]),
        lambda: average_vectors([[1.0, 2.0]], [value]),
    ]
    for call in calls:
        with pytest.raises(VectorError, match=r"the thing|the (positive|negative) vectors"):
            call()


@pytest.mark.parametrize("name", NUMBERS)
def test_what_holds_numbers(name: str) -> None:
    """Its values come out."""
    assert as_vector(NUMBERS[name], 2).tolist() == [1, 2]
    assert as_query(NUMBERS[name], 2, "halfvec", direction=True).tolist() == [1, 2]


def test_the_message_says_what_it_holds() -> None:
    """Where the type is known."""
    with pytest.raises(VectorError, match=r"^q is not made of numbers but of complex128: give an array or a list"):
        real_numbers(np.array([1j]), "q")
    with pytest.raises(VectorError, match=r"^q has masked values"):
        real_numbers(NO_NUMBERS["masked"], "q")


def test_a_masked_row_among_many() -> None:
    """NumPy stacks the rows without their masks."""
    rows = [np.ma.array([1.0, 2.0], mask=mask) for mask in ([False, False], [True, False])]
    with pytest.raises(VectorError, match="masked"):
        as_vectors(rows, 2)
    assert as_vectors(rows[:1], 2).tolist() == [[1, 2]]


@pytest.mark.parametrize("scale", [5e-324, 1e-310, 1e-40, 1e-25, 1.0, 1e25, 1e40, 1e300])
@pytest.mark.parametrize("full", ["halfvec", "vector"])
def test_a_query_is_scaled_where_its_direction_counts(scale: float, full: Any) -> None:
    """By a power of two, so that no digit is lost; single precision would make it zero or infinite first."""
    value = np.array([3.0, -4.0, 0.0]) * scale
    found = as_query(value, 3, full, direction=True).astype(np.float64)
    assert 2.0**-8 <= np.abs(found).max() <= 2.0**8
    np.testing.assert_allclose(found / np.linalg.norm(found), [0.6, -0.8, 0], rtol=1e-6 if scale > 1e-320 else 0.2)


def test_an_ordinary_query_is_sent_as_it_is() -> None:
    """To the last bit: the distance of a row to itself stays 0."""
    value = np.random.default_rng(0).normal(size=768).astype(np.float32)
    np.testing.assert_array_equal(as_query(value, 768, "vector", direction=True), value)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([3e-16, 4e-16], r"row 1 of the vectors has the length 5e-16, expected 0 or 1e-15 to 1e\+18"),
        ([3e20, 4e20], r"the length 5e\+20"),
        ([1e-300, 0.0], r"the length 1e-300"),
        ([1e-320, 0.0], r"the length 1e-320|the length 9.99e-321"),
    ],
)
def test_a_length_beyond_bounds(value: list[float], message: str) -> None:
    """Zero is within: whether that can be searched is another question."""
    with pytest.raises(VectorError, match=message):
        as_vectors([[0, 0], value], 2, lengths=(1e-15, 1e18))
    with pytest.raises(VectorError, match="the vector has the length"):
        as_vector(value, 2, lengths=(1e-15, 1e18))
    assert as_vectors([[0, 0], [1e-15, 0], [1e18, 0]], 2, lengths=(1e-15, 1e18)).shape == (3, 2)
