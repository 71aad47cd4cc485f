"""A table's name in the server, where a connection translates schemas (`schema_translate_map`: a schema per tenant)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgmrl.names import qualified

if TYPE_CHECKING:
    from sqlalchemy import Connection, Table

__all__ = ["server_name", "translated_schema"]


def translated_schema(connection: Connection, schema: str | None) -> str | None:
    """The schema that a statement of SQLAlchemy's on this connection names for a table of this one; None for none."""
    translations = connection.get_execution_options().get("schema_translate_map") or {}
    translated: str | None = translations.get(schema, schema)
    return translated


def server_name(connection: Connection, table: Table) -> str:
    """The table as SQL text, quoted, in the schema that this connection translates its own to."""
    return qualified(translated_schema(connection, table.schema), table.name)
