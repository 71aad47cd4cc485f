"""A value of the caller's in a message, whatever it is."""

from __future__ import annotations

__all__ = ["safe_repr"]


def safe_repr(value: object, limit: int = 100) -> str:
    """The repr of a value, cut to `limit` characters; never an error of the value's own instead of the message."""
    try:
        text = repr(value)
    except Exception:
        # Python refuses to write integers of thousands of digits
        text = f"an integer of {value.bit_length():,} bits" if isinstance(value, int) else _unprintable(value)
    text = text.encode("utf-8", "backslashreplace").decode()  # half a character cannot be printed
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def _unprintable(value: object) -> str:
    return f"<{type(value).__name__}, whose repr fails>"
