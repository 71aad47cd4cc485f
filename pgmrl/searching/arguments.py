"""Checks of the arguments that searches share: numbers, labels, and the caller's Select."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import Select

from pgmrl.errors import SearchError
from pgmrl.model.argument_types import NAME_BYTES, is_unicode, real_number, truth_value, whole_number
from pgmrl.model.sqlalchemy_internals import clauses_of
from pgmrl.reprs import safe_repr

__all__ = [
    "MOST_SECONDS",
    "check_distance",
    "check_fraction",
    "check_labels",
    "check_seconds",
    "check_statement",
    "finite",
    "flag",
    "integer",
    "positive_integer",
]


MOST_SECONDS: Final = 2_000_000
"""Three weeks; the server counts milliseconds in 32 bits."""


def positive_integer(name: str, value: Any) -> int:
    """A whole number, at least 1.

    Raises:
        SearchError: it is not.

    """
    return whole_number(name, value, SearchError, 1)


def integer(name: str, value: Any) -> int:
    """A whole number, of Python or NumPy, that PostgreSQL's `bigint` holds.

    Raises:
        SearchError: it is not.

    """
    return whole_number(name, value, SearchError)


def finite(name: str, value: Any) -> float:
    """A finite number.

    Raises:
        SearchError: it is not.

    """
    return real_number(name, value, SearchError)


def check_seconds(value: Any) -> float:
    """The argument `seconds`: a limit of time that a server can be given.

    Raises:
        SearchError: it is none.

    """
    number = finite("seconds", value)
    if not 0 < number <= MOST_SECONDS:
        raise SearchError(f"seconds={safe_repr(value)}: expected more than 0 and at most {MOST_SECONDS:,}")
    return number


def flag(name: str, value: Any) -> bool:
    """A truth value, of Python or NumPy; None is False.

    Raises:
        SearchError: it is neither True nor False.

    """
    return truth_value(name, value, SearchError)


def check_fraction(name: str, value: Any) -> float:
    """A number from 0 to 1.

    Raises:
        SearchError: it is not.

    """
    number = finite(name, value)
    if not 0 <= number <= 1:
        raise SearchError(f"{name}={safe_repr(value)}: expected a number from 0 to 1")
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
        if not isinstance(name, str) or type(name).__hash__ is not str.__hash__ or not name:
            raise SearchError(f"label {safe_repr(name)}: expected a text of at least one character")
        if "\0" in name or not 1 <= len(name.encode("utf-8", "ignore")) <= NAME_BYTES or not is_unicode(name):
            raise SearchError(f"label {safe_repr(name)}: expected at most {NAME_BYTES} bytes that a name can have")
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise SearchError(
            f"two columns of the result would be called {safe_repr(twice[0])}: give one of them another label"
        )


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
