"""Numbers for people."""

from __future__ import annotations

__all__ = ["shown"]


def shown(size: float) -> str:
    """A number of bytes, in powers of ten."""
    if size >= 1e9:
        return f"{size / 1e9:,.1f} GB"
    return f"{size / 1e6:,.1f} MB" if size >= 1e6 else f"{size / 1e3:,.1f} kB"
