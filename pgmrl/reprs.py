"""A value of the caller's in a message, whatever it is."""

from __future__ import annotations

import re
import reprlib
from typing import Final

__all__ = ["printable", "safe_repr", "safe_str"]

LONG: Final = 1_000
"""Items of a list or characters of a text: of more, only the first are written out at all."""


def safe_repr(value: object, limit: int = 100) -> str:
    """The repr of a value, on one line and cut to `limit` characters; never an error of the value's own instead."""
    try:
        text = _brief(limit).repr(value) if _is_long(value) else repr(value)
    except Exception:
        # Python refuses to write integers of thousands of digits
        text = f"an integer of {int.bit_length(value):,} bits" if isinstance(value, int) else _unprintable(value)
    return _cut(text, limit)


def safe_str(value: object, limit: int = 100) -> str:
    """What `str` makes of a value, as a column's name in a message; else as `safe_repr`."""
    try:
        text = value[: limit + 1] if type(value) is str else str(value)
    except Exception:
        return safe_repr(value, limit)
    return _cut(text, limit)


def printable(text: str, keep: str = "") -> str:
    """A text for a terminal, a log or a monitor: what cannot be printed, but for what is to be kept, as escapes.

    A name in the database may hold any character but a zero byte: a newline begins a line of its own in a log, and an
    escape sequence rewrites the terminal.
    """
    if text.isprintable():
        return text
    return "".join(
        character
        if character.isprintable() or character in keep
        else character.encode("unicode_escape", "backslashreplace").decode()
        for character in text
    )


def _cut(text: str, limit: int) -> str:
    # NumPy breaks lines; half a character cannot be printed, and a control character can move a terminal's cursor
    text = printable(re.sub(r"\s*\n\s*", " ", text[: 10 * limit + LONG])[: limit + 1])
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def _is_long(value: object) -> bool:
    return type(value) in {list, tuple, dict, set, frozenset, str, bytes, bytearray} and len(value) > LONG  # type: ignore[arg-type]


def _brief(limit: int) -> reprlib.Repr:
    brief = reprlib.Repr()
    brief.maxlist = brief.maxtuple = brief.maxdict = brief.maxset = brief.maxfrozenset = limit
    brief.maxstring = brief.maxother = 10 * limit
    return brief


def _unprintable(value: object) -> str:
    return f"<{type(value).__name__}, whose repr fails>"
