"""Checks of the arguments that searches share: numbers, labels, and the caller's Select."""

from __future__ import annotations

import math
from typing import Any

from sqlalchemy import Select

from pgmrl.errors import SearchError
from pgmrl.model.sqlalchemy_internals import clauses_of

__all__ = [
    "check_distance",
    "check_fraction",
    "check_labels",
    "check_statement",
    "finite",
    "integer",
    "positive_integer",
]


def positive_integer(name: str, value: Any) -> int:
    """A whole number, at least 1.

    Raises:
        SearchError: it is not.

    """
    number = integer(name, value)
    if number < 1:
        raise SearchError(f"{name}={number}: expected at least 1")
    return number


def integer(name: str, value: Any) -> int:
    """A whole number, of Python or NumPy.

    Raises:
        SearchError: it is not.

    """
    if isinstance(value, bool) or (not isinstance(value, int) and not hasattr(value, "__index__")):
        raise SearchError(f"{name}={value!r}: expected a whole number")
    return int(value)


def finite(name: str, value: Any) -> float:
    """A finite number.

    Raises:
        SearchError: it is not.

    """
    try:
        number = math.nan if isinstance(value, bool | str) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise SearchError(f"{name}={value!r}: expected a finite number")
    return number


def check_fraction(name: str, value: Any) -> float:
    """A number from 0 to 1.

    Raises:
        SearchError: it is not.

    """
    number = finite(name, value)
    if not 0 <= number <= 1:
        raise SearchError(f"{name}={value!r}: expected a number from 0 to 1")
    return number


def check_distance(value: Any) -> float | None:
    """The argument `max_distance`: a threshold, or None.

    Raises:
        SearchError: it is no finite number.

    """
    return None if value is None else finite("max_distance", value)


def check_labels(*labels: Any) -> None:
    """Check that the columns a search adds have names of their own; None stands for a column that is not added.

    Raises:
        SearchError: two are the same, or one is no text.

    """
    names = [label for label in labels if label is not None]
    for name in names:
        if not isinstance(name, str) or not name:
            raise SearchError(f"label {name!r}: expected a text of at least one character")
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise SearchError(f"two columns of the result would be called {twice[0]!r}: give one of them another label")


def check_statement(statement: Any) -> None:
    """Check that a Select can be searched.

    Raises:
        SearchError: it is none, or has a clause of which a search has its own.

    """
    if not isinstance(statement, Select):
        raise SearchError(f"expected a Select of the model, such as select(Model), got {type(statement).__name__}")
    clauses = clauses_of(statement)
    if "FOR UPDATE" in clauses:
        raise SearchError(
            "the Select has FOR UPDATE, which would lock candidates: put it on the result, "
            "search(…).with_for_update(of=Model)"
        )
    if clauses:
        raise SearchError(
            f"the Select has {clauses[0]}, and a search adds its own: apply yours to the result's subquery()"
        )
