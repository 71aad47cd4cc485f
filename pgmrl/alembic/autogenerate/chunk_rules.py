"""The rules for the triggers that mark rows whose text is to be cut into chunks."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from pgmrl import database
from pgmrl.alembic.operations import DropChunks, KeepChunks
from pgmrl.errors import DefinitionError
from pgmrl.model.chunks import CHUNKS_KEY, Chunks

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sqlalchemy import Connection

    from pgmrl.alembic.autogenerate.compared_tables import ComparedTable

__all__ = ["InstalledChunks", "chunk_changes", "installed_chunks"]

Place = tuple[str, str]


class InstalledChunks(NamedTuple):
    """What the database keeps in step.

    Attributes:
        chunks: which text.
        parent: schema and name of its table.
    """

    chunks: Chunks
    parent: Place


def installed_chunks(connection: Connection) -> dict[Place, InstalledChunks]:
    """What the database keeps in step with texts, by schema and name of the table of chunks."""
    if database.installed_revision(connection) is None:
        return {}
    query = (
        "SELECT chunk_schema, chunk_table, table_schema, table_name, template, model, size, overlap, notifies "
        "FROM pgmrl.chunk_tables"
    )
    tables = {}
    for schema, table, parent_schema, parent, *declaration in database.catalogue_result(connection, query):
        with suppress(DefinitionError):  # a trigger of a stranger's under a name of pgmrl's
            tables[schema, table] = InstalledChunks(Chunks(*declaration), (parent_schema, parent))
    return tables


def chunk_changes(
    tables: Iterable[ComparedTable], installed: Mapping[Place, InstalledChunks], default_schema: str
) -> tuple[list[DropChunks], list[KeepChunks]]:
    """The triggers to remove before all else, and those to install at the end.

    What no model declares was installed by the command line, and is left alone while its table and columns are there.

    Args:
        tables: that are compared.
        installed: what the database has.
        default_schema: of the connection.
    """
    dropped: list[DropChunks] = []
    kept: list[KeepChunks] = []
    models = {(table.declared_schema or default_schema, table.name): table for table in tables}
    for place, table in models.items():
        there = installed.get(place)
        previous = None if there is None else there.chunks
        parent = None if there is None else models.get(there.parent)
        columns = None if parent is None or parent.model is None else {column.name for column in parent.model.columns}
        if previous is not None and (
            table.model is None or (columns is not None and not {*previous.text.columns} <= columns)
        ):
            dropped.append(DropChunks(table.name, table.declared_schema, previous))
            previous = None
        declared = None if table.model is None else table.model.info.get(CHUNKS_KEY)
        if isinstance(declared, Chunks) and declared != previous:
            kept.append(KeepChunks(table.name, declared, table.declared_schema, previous))
    return dropped, kept
