"""Vectors are checked before anything is sent."""

from __future__ import annotations

import warnings
from typing import Any, Final

import numpy as np
import pytest

from pgmrl.errors import PgmrlError, VectorError
from pgmrl.model.compat import HalfVector
from pgmrl.model.compat import Vector as PgVector
from pgmrl.model.metrics import METRICS, FullType
from pgmrl.model.shortening import Definition, Short
from pgmrl.model.vectors import as_query, as_vector, as_vectors, is_ordinary


@pytest.mark.parametrize(
    "value",
    [
        [1, 2, 3],
        (1.0, 2.0, 3.0),
        np.array([1, 2, 3]),
        np.array([1, 2, 3], np.float64),
        np.array([1, 2, 3], np.float16),
        np.array([1, 9, 2, 9, 3], np.float32)[::2],
        PgVector([1, 2, 3]),
        HalfVector([1, 2, 3]),
    ],
    ids=["list", "tuple", "int64", "float64", "float16", "strided", "Vector", "HalfVector"],
)
def test_whatever_holds_numbers_is_a_vector(value: Any) -> None:
    """And comes out as contiguous float32."""
    found = as_vector(value, 3)
    assert found.dtype == np.float32
    assert found.flags.c_contiguous
    assert found.tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "is NULL"),
        ([1, 2], r"shape \(2,\).*3 dimensions"),
        ([1, 2, 3, 4], r"shape \(4,\)"),
        ([[1, 2, 3]], r"shape \(1, 3\)"),
        (1.0, "shape"),
        ([], r"shape \(0,\)"),
        ("abc", "not made of numbers"),
        ([1, "x", 2], "not made of numbers"),
        ([[1], [1, 2]], "not made of numbers"),
        ([1, float("nan"), 2], "nan at dimension 2"),
        ([1, 2, float("inf")], "inf at dimension 3"),
        ([-float("inf"), 2, 3], "-inf at dimension 1"),
        ([1e39, 0, 0], "inf at dimension 1"),
    ],
)
def test_what_the_server_would_refuse_is_refused_by_name(value: Any, message: str) -> None:
    """The error names the vector, the place and the remedy, and is a ValueError too."""
    with pytest.raises(VectorError, match=message) as caught:
        as_vector(value, 3, what="the vector of row 7")
    assert "row 7" in str(caught.value)
    assert isinstance(caught.value, PgmrlError)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(("value", "full", "fits"), [
    (65504.0, "halfvec", True),
    (65505.0, "halfvec", False),
    (-70000.0, "halfvec", False),
    (70000.0, "vector", True),
])  # fmt: skip
def test_half_precision_has_a_largest_number(value: float, full: FullType, fits: bool) -> None:
    """The server would answer 22003."""
    if fits:
        assert as_vector([value, 0], 2, full)[0] == value
        assert as_vectors([[value, 0]], 2, full).shape == (1, 2)
        return
    with pytest.raises(VectorError, match=r"beyond half precision.*`vector`"):
        as_vector([value, 0], 2, full)
    with pytest.raises(VectorError, match="row 1 of"):
        as_vectors([[0, 0], [value, 0]], 2, full)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1, 2], r"shape \(2,\), expected \(n, 2\)"),
        ([[1, 2, 3]], r"shape \(1, 3\)"),
        ([[1, 2], [1, float("nan")]], "row 1 of the vectors has nan at dimension 2"),
        ([[1, 2], [1]], "not made of numbers"),
    ],
)
def test_the_first_wrong_row_of_many_is_named(values: Any, message: str) -> None:
    """Among ten thousand rows the number is what helps."""
    with pytest.raises(VectorError, match=message):
        as_vectors(values, 2)


def test_no_rows_are_rows_too() -> None:
    """An empty batch is no error."""
    assert as_vectors(np.empty((0, 4)), 4).shape == (0, 4)


def test_a_zero_query_has_no_direction() -> None:
    """The server would answer it with arbitrary rows under cosine; under L2 it is a point like any other."""
    with pytest.raises(VectorError, match="all zeros"):
        as_query([0.0, 0.0], 2, "vector", direction=True)
    assert as_query([0.0, 0.0], 2, "vector", direction=False).tolist() == [0, 0]


FULL: Final[tuple[FullType, ...]] = ("halfvec", "vector")
UNIT: Final = np.array([0.6, 0.8, 0, 0], np.float32)


@pytest.mark.parametrize("dims", [1, 4, 768, 16_000])
@pytest.mark.parametrize("length", [0.5, 1, 255])
def test_an_ordinary_query_passes_every_check(dims: int, length: float) -> None:
    """And is sent as it is: under each metric and for each type."""
    for vector in (np.eye(1, dims), np.ones((1, dims)), np.random.default_rng(dims).normal(size=(1, dims))):
        value = (vector[0] / np.linalg.norm(vector[0]) * length * 1.001).astype(np.float32)
        assert is_ordinary(value, dims)
        for direction in (True, False):
            for full in FULL:
                for metric in METRICS.values():
                    definition = Definition(dims, Short(1, type="vector"), metric, full)
                    assert as_query(value, dims, full, direction=direction, lengths=definition.query_lengths) is value
                    if is_ordinary(value, dims, 1):
                        assert not definition.unfindable(value[np.newaxis])[0]


@pytest.mark.parametrize(
    "value",
    [
        [0.6, 0.8, 0, 0],
        UNIT.astype(np.float64),
        UNIT.astype(">f4"),
        UNIT[:3],
        UNIT[np.newaxis],
        UNIT * 0,
        UNIT * 0.4,
        UNIT * 1e3,
        UNIT * 1e30,
        UNIT * np.float32("nan"),
        np.array([1, 0, 0, np.inf], np.float32),
        np.array([1, 0, 0, np.nan], np.float32),
        np.repeat(UNIT, 2)[::2],
        np.ma.masked_array(UNIT, [False, True, False, False]),
    ],
)
def test_any_other_query_is_checked(value: Any) -> None:
    """Without a warning about what is in it."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not is_ordinary(value, 4)


def test_leading_dimensions_of_zeros_are_not_ordinary() -> None:
    """Where the short vector is made of them."""
    value = UNIT[::-1].copy()
    assert is_ordinary(value, 4)
    assert is_ordinary(value, 4, 3)
    assert not is_ordinary(value, 4, 2)
