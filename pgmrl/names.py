"""Names in the database: at most 63 bytes, the same on every machine, quoted by SQLAlchemy's PostgreSQL dialect."""

from __future__ import annotations

import hashlib
from typing import Final

from sqlalchemy.dialects import postgresql

from pgmrl.errors import DefinitionError
from pgmrl.reprs import safe_repr

__all__ = [
    "LIMIT",
    "column_parts",
    "dollar_quoted",
    "identifier",
    "literal",
    "qualified",
    "quoted",
]

LIMIT: Final = 63
_PREPARER = postgresql.dialect().identifier_preparer  # type: ignore[no-untyped-call]


def identifier(name: str, limit: int = LIMIT) -> str:
    """A name of at most `limit` bytes; a longer one is cut and ends with a hash of the whole.

    The server would cut it silently, and two long names could become one.
    """
    encoded = name.encode()
    if len(encoded) <= limit:
        return name
    digest = hashlib.sha256(encoded).hexdigest()[:8]
    kept = encoded[: limit - len(digest) - 1].decode(errors="ignore")
    return f"{kept}_{digest}"


def quoted(name: str) -> str:
    """An identifier as SQL text, in quotes where it needs them."""
    # the preparer doubles percent signs for drivers that format the statement; here it is plain text
    return _PREPARER.quote(name).replace("%%", "%") if "%" in name else _PREPARER.quote(name)


def qualified(schema: str | None, name: str) -> str:
    """A name with its schema, where one is given, as SQL text."""
    return f"{quoted(schema)}.{quoted(name)}" if schema else quoted(name)


def column_parts(name: str) -> tuple[str | None, str, str]:
    """Schema (or None), table and column of `table.column` or `schema.table.column`, as people write them.

    Raises:
        DefinitionError: it is neither.
    """
    value: object = name
    parts = value.split(".") if isinstance(value, str) else []
    if len(parts) not in {2, 3} or not all(parts):
        raise DefinitionError(f"{safe_repr(name)}: expected table.column or schema.table.column")
    return (parts[0] if len(parts) == 3 else None), parts[-2], parts[-1]


def literal(value: str) -> str:
    """A string constant as SQL text."""
    escaped = value.replace("'", "''")
    return f"E'{escaped}'".replace("\\", "\\\\") if "\\" in escaped else f"'{escaped}'"


def dollar_quoted(body: str) -> str:
    """A text in dollar quotes, with a tag that it does not contain."""
    tag = "$pgmrl$"
    while tag in body:
        tag = f"{tag[:-1]}_$"
    return f"{tag}{body}{tag}"
