"""What callers may pass for a number, a truth value, a name: taken, or refused by one error that shows the value.

A value's own methods may raise anything, and are only called where that ends in the same error. `error` is the class of
the error, by what the argument belongs to.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from pgmrl.model.real_numbers import NO_NUMBERS
from pgmrl.reprs import safe_repr

if TYPE_CHECKING:
    from pgmrl.errors import PgmrlError

__all__ = [
    "argument_list",
    "callable_argument",
    "choice",
    "is_unicode",
    "name_argument",
    "optional_name",
    "path_argument",
    "plain_text",
    "real_number",
    "truth_value",
    "whole_number",
]

BIGINT: Final = 2**63
"""LIMIT and OFFSET take less."""
NAME_BYTES: Final = 63
"""The server would cut a longer name."""


def whole_number(
    name: str, value: Any, error: type[PgmrlError], low: int | None = None, high: int | None = None, remedy: str = ""
) -> int:
    """A whole number, of Python or NumPy, that PostgreSQL's `bigint` holds.

    Args:
        name: the argument's.
        value: as it was passed.
        error: raised where it is none, or out of range.
        low: the least it may be.
        high: the most it may be.
        remedy: why, or what to do; the end of the message where the number is out of range.

    """
    try:
        if isinstance(value, bool | np.bool_):  # NumPy 1.26 takes its own for an index
            raise TypeError("a truth value")
        number = int(operator.index(value))
    except Exception:  # whatever the value's own __index__ raises
        raise error(f"{name}={safe_repr(value)}: expected a whole number") from None
    if not -BIGINT <= number < BIGINT:
        raise error(f"{name}={safe_repr(value)}: expected less than 2**63, what PostgreSQL takes")
    if (low is not None and number < low) or (high is not None and number > high):
        reach = f"at least {low}" if high is None else f"{low} to {high:,}"
        raise error(f"{name}={number}: expected {reach}{remedy}")
    return number


def real_number(name: str, value: Any, error: type[PgmrlError]) -> float:
    """A finite number."""
    try:
        number = math.nan if isinstance(value, NO_NUMBERS) or getattr(value, "ndim", None) else float(value)
    except Exception:  # whatever the value's own __float__ raises
        number = math.nan
    if not math.isfinite(number):
        raise error(f"{name}={safe_repr(value)}: expected a finite number")
    return number


def truth_value(name: str, value: Any, error: type[PgmrlError]) -> bool:
    """A truth value, of Python or NumPy; None is False."""
    if value is None or isinstance(value, (bool, np.bool_)):
        return bool(value)
    raise error(f"{name}={safe_repr(value)}: expected True or False")


def choice(name: str, value: Any, choices: Sequence[str], error: type[PgmrlError]) -> str:
    """One of several words."""
    text = plain_text(value)
    if text is not None and text in choices:
        return text
    raise error(f"{name}={safe_repr(value)}: expected one of {', '.join(choices)}")


def name_argument(name: str, value: Any, error: type[PgmrlError], *, what: str = "a name") -> str:
    """The name of something in the database, which the server takes as it is."""
    text = plain_text(value)
    if not text:
        raise error(f"{name}={safe_repr(value)}: expected {what}, a text of at least one character")
    if "\0" in text or not is_unicode(text) or len(text.encode()) > NAME_BYTES:
        raise error(f"{name}={safe_repr(value)}: expected {what} of 1 to {NAME_BYTES} bytes, in valid Unicode")
    return text


def optional_name(name: str, value: Any, error: type[PgmrlError], *, what: str = "a name") -> str | None:
    """As `name_argument`; None for none."""
    return None if value is None else name_argument(name, value, error, what=what)


def plain_text(value: Any) -> str | None:
    """A text as Python's own `str`, whose methods no subclass has replaced; None where it is none."""
    return str.__str__(value) if isinstance(value, str) else None


def is_unicode(text: str) -> bool:
    """Whether it has no half of a pair of surrogates, which cannot be sent."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def argument_list(name: str, value: Any, error: type[PgmrlError], expected: str) -> list[Any]:
    """The items of a list, a tuple or another sequence; a text is none, nor is what can be read only once.

    Args:
        name: the argument's.
        value: as it was passed.
        error: raised where it is none.
        expected: what it shall be, with an example.

    """
    try:
        if isinstance(value, Sequence) and not isinstance(value, (str, bytes, bytearray, memoryview)):
            return list(value)
    except Exception:  # whatever the value's own __iter__ and __len__ raise
        raise error(f"{name}={safe_repr(value)}: expected {expected}") from None
    raise error(f"{name}={safe_repr(value)}: expected {expected}")


def path_argument(name: str, value: Any, error: type[PgmrlError]) -> Path:
    """The path of a file or folder, which need not be there."""
    try:
        path = Path(value)
    except Exception:  # whatever the value's own __fspath__ raises
        raise error(f"{name}={safe_repr(value)}: expected the path of a file or folder") from None
    if "\0" in str(path):
        raise error(f"{name}={safe_repr(value)}: expected a path without NUL characters")
    return path


def callable_argument(name: str, value: Any, error: type[PgmrlError]) -> None:
    """Check that a function is one; None for none."""
    if value is not None and not callable(value):
        raise error(f"{name}={safe_repr(value)}: expected a function, or None")
