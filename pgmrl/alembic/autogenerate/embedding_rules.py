"""The rules for the triggers that mark rows whose text is to be embedded."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from pgmrl import database
from pgmrl.alembic.operations import DropEmbedding, KeepEmbedding
from pgmrl.errors import DefinitionError
from pgmrl.model.columns import INFO_KEY, Attachment
from pgmrl.model.embed import Embed

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sqlalchemy import Connection

    from pgmrl.alembic.autogenerate.compared_tables import ComparedTable

__all__ = ["embedding_changes", "installed_embeddings"]

Place = tuple[str, str, str]


def installed_embeddings(connection: Connection) -> dict[Place, Embed]:
    """What the database keeps in step with a text, by schema, table and column."""
    if database.installed_revision(connection) is None:
        return {}
    query = "SELECT table_schema, table_name, embedding, template, embedder, notifies FROM pgmrl.embeddings"
    embeddings = {}
    for schema, table, column, *declaration in database.catalogue_result(connection, query):
        with suppress(DefinitionError):  # a trigger of a stranger's under a name of pgmrl's
            embeddings[schema, table, column] = Embed(*declaration)
    return embeddings


def embedding_changes(
    tables: Iterable[ComparedTable], installed: Mapping[Place, Embed], default_schema: str
) -> tuple[list[DropEmbedding], list[KeepEmbedding]]:
    """The triggers to remove before all else, and those to install at the end.

    What no model declares was installed by the command line, and is left alone while its columns are there.

    Args:
        tables: that are compared.
        installed: what the database has.
        default_schema: of the connection.
    """
    dropped: list[DropEmbedding] = []
    kept: list[KeepEmbedding] = []
    for table in tables:
        if table.model is None:
            continue
        schema = table.declared_schema or default_schema
        names = {column.name for column in table.model.columns}
        for (own_schema, name, column), embed in installed.items():
            if (own_schema, name) == (schema, table.name) and not {column, *embed.columns} <= names:
                dropped.append(DropEmbedding(name, column, table.declared_schema, embed))
        gone = {operation.column for operation in dropped if operation.table == table.name}
        for column_ in table.model.columns:
            attachment = column_.info.get(INFO_KEY)
            embed_ = attachment.embed if isinstance(attachment, Attachment) else None
            previous = None if column_.name in gone else installed.get((schema, table.name, column_.name))
            if embed_ is not None and embed_ != previous:
                kept.append(KeepEmbedding(table.name, column_.name, embed_, table.declared_schema, previous))
    return dropped, kept
