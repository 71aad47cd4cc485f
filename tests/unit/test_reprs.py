"""A caller's value in a message: one line that can be printed, whatever the value is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pgmrl.errors import SearchError
from pgmrl.reprs import safe_repr, safe_str


class Raises:
    """Says nothing of itself."""

    def __repr__(self) -> str:
        raise OSError

    __str__ = __repr__


class Text(str):
    """A text that says something else."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "\x1b[2J\nX"

    __str__ = __repr__


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (5, "5"),
        ("a\nb\x1b", r"'a\nb\x1b'"),
        ("\ud800é", r"'\ud800é'"),
        (Raises(), "<Raises, whose repr fails>"),
        ([Raises()], "<list, whose repr fails>"),
        (10**5000, "an integer of 16,610 bits"),
        (Text("a"), r"\x1b[2J X"),
        (np.ones((2, 2)), "array([[1., 1.], [1., 1.]])"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_shown(value: Any, shown: str) -> None:
    """Characters that cannot be printed are escapes, and lines are joined."""
    assert safe_repr(value) == shown
    assert safe_str(value).isprintable()


@pytest.mark.parametrize(
    "value",
    [[0] * 10**6, "x" * 10**6, b"x" * 10**6, set(range(10**6)), {n: n for n in range(10**6)}],
    ids=lambda value: type(value).__name__,
)
def test_what_is_long_is_cut(value: Any) -> None:
    """Without being written out first."""
    assert len(safe_repr(value)) == 100
    assert safe_repr(value).endswith("…")
    assert len(safe_str(value, 50)) == 50


def test_an_errors_message_can_be_printed() -> None:
    """Whoever made it: names of tables and files hold anything."""
    message = str(SearchError("a\x1b[2J \udcff\nremedy"))
    assert message == "a\\x1b[2J \\udcff\nremedy"
