"""The sets of SQL functions in a database, by what their workers say of themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from pgmrl.database.schema import installed_revision
from pgmrl.database.search_path import catalogue_result

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = ["installed_markers"]


def installed_markers(connection: Connection) -> list[tuple[str, dict[str, Any]]]:
    """Schema and declaration of every set of functions; none where pgmrl's schema is missing."""
    if installed_revision(connection) is None:
        return []
    rows = catalogue_result(connection, text("SELECT function_schema, marker FROM pgmrl.function_sets"))
    return [(functions_schema, marker) for functions_schema, marker in rows]
