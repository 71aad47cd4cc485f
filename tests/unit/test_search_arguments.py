"""Numbers, flags and labels of a search: whatever is given, one SearchError or what it says."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from pgmrl.errors import SearchError
from pgmrl.searching.arguments import check_labels, check_seconds, finite, flag, integer
from pgmrl.searching.options import shortlist_size


class Raises:
    """Each way to a number, and to a text, ends in an error of its own."""

    def __index__(self) -> int:
        raise OSError

    def __float__(self) -> float:
        raise OSError

    def __repr__(self) -> str:
        raise OSError


NO_NUMBERS: list[Any] = [
    *(None, "5", b"5", [5], object(), 1j, True, np.True_, "\ud800", Raises(), np.array([5])),
    *(np.datetime64(5, "s"), np.timedelta64(5, "s"), 10**5_000),
]


def refused(call: Any) -> None:
    """Refused with a message of ordinary length that can be printed."""
    with pytest.raises(SearchError) as caught:
        call()
    assert len(str(caught.value)) < 300
    assert str(caught.value).encode()


@pytest.mark.parametrize(
    "value", [*NO_NUMBERS, 1.5, np.array([1, 2]), 2**63, -(2**64)], ids=lambda value: type(value).__name__
)
def test_no_whole_number(value: Any) -> None:
    """Nor one that the server's LIMIT would not take."""
    refused(lambda: integer("k", value))


@pytest.mark.parametrize(
    "value",
    [*NO_NUMBERS, float("nan"), float("inf"), np.float64("nan"), Decimal("sNaN")],
    ids=lambda value: type(value).__name__,
)
def test_no_finite_number(value: Any) -> None:
    """For a distance, a share, seconds, and how much longer the shortlist is."""
    for call in (finite, lambda _, number: check_seconds(number), lambda _, number: shortlist_size(10, None, number)):
        if value is None and call is not finite:
            continue
        refused(lambda call=call: call("x", value))


def test_numbers() -> None:
    """Of Python and of NumPy."""
    values = (5, np.int64(5), np.array(5), np.uint8(5))
    assert [integer("k", value) for value in values] == [5] * 4
    assert integer("k", 2**63 - 1) == 2**63 - 1
    assert [finite("x", value) for value in (0.5, np.float32(0.5), Decimal("0.5"), Fraction(1, 2))] == [0.5] * 4
    assert shortlist_size(10, None, np.float64(4.5)) == 45
    refused(lambda: shortlist_size(10, None, 1e300))
    for seconds in (0, -1, 1e9):
        refused(lambda seconds=seconds: check_seconds(seconds))


@pytest.mark.parametrize(
    "value", [1, 0, "x", np.array([True, False]), Raises(), [], 2.0], ids=lambda value: type(value).__name__
)
def test_no_truth_value(value: Any) -> None:
    """An array has none, and of a text it is not what it says."""
    refused(lambda: flag("exact", value))


def test_truth_values() -> None:
    """None is as if left out."""
    assert [flag("exact", value) for value in (None, False, True, np.True_)] == [False, False, True, True]


@pytest.mark.parametrize(
    "label", ["", 5, "a\0", "\ud800", "x" * 64, "é" * 32, Raises()], ids=lambda label: type(label).__name__
)
def test_labels_that_the_server_would_change(label: Any) -> None:
    """Cut, or not take."""
    refused(lambda: check_labels(label))
    check_labels("é" * 31, "x" * 63, None)
