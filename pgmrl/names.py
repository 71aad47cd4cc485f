"""Names in the database: at most 63 bytes, the same on every machine."""

from __future__ import annotations

import hashlib
from typing import Final

__all__ = ["identifier"]

LIMIT: Final = 63


def identifier(name: str) -> str:
    """A name that fits PostgreSQL's 63 bytes; a longer one is cut and ends with a hash of the whole.

    The server would cut it silently, and two long names could become one.
    """
    encoded = name.encode()
    if len(encoded) <= LIMIT:
        return name
    digest = hashlib.sha256(encoded).hexdigest()[:8]
    kept = encoded[: LIMIT - len(digest) - 1].decode(errors="ignore")
    return f"{kept}_{digest}"
