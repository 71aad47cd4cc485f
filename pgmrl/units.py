"""Numbers for people."""

from __future__ import annotations

__all__ = ["milliseconds", "shown"]


def milliseconds(number: float) -> str:
    """A time."""
    return f"{number:.2f} ms" if number < 1 else f"{number:,.1f} ms"


def shown(size: float) -> str:
    """A number of bytes, in powers of ten."""
    if size >= 1e9:
        return f"{size / 1e9:,.1f} GB"
    return f"{size / 1e6:,.1f} MB" if size >= 1e6 else f"{size / 1e3:,.1f} kB"
