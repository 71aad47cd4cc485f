"""The operations on the triggers that mark rows whose text is to be cut into chunks."""

from __future__ import annotations

from dataclasses import dataclass

from alembic.operations import Operations

from pgmrl.alembic.operations.base_operations import PgmrlOperation, stated
from pgmrl.model.chunks import Chunks

__all__ = ["DropChunks", "KeepChunks"]


@Operations.register_operation("keep_chunks")
@dataclass(frozen=True)
class KeepChunks(PgmrlOperation):
    """Install the triggers that mark a parent's row when its text changes.

    Attributes:
        table: of the chunks.
        chunks: which text, and how long the chunks are.
        schema: of the table.
        previous: what was declared before; None for nothing.

    """

    table: str
    chunks: Chunks
    schema: str | None = None
    previous: Chunks | None = None

    @classmethod
    def keep_chunks(cls, operations: Operations, table: str, chunks: Chunks, *, schema: str | None = None) -> None:
        """Install the triggers that mark a parent's row when its text changes, and mark all of its rows.

        Takes a lock against writers of the parent for a moment, with retries.

        """
        operations.invoke(cls(table, chunks, schema))

    def reverse(self) -> KeepChunks | DropChunks:
        """What was there before."""
        if self.previous is not None:
            return KeepChunks(self.table, self.previous, self.schema, self.chunks)
        return DropChunks(self.table, self.schema, self.chunks)


@Operations.register_operation("drop_chunks")
@dataclass(frozen=True)
class DropChunks(PgmrlOperation):
    """Remove the triggers that mark rows; the chunks stay.

    Attributes:
        table: of the chunks.
        schema: of the table.
        previous: what was declared; None where the operation does not say.

    """

    table: str
    schema: str | None = None
    previous: Chunks | None = None

    @classmethod
    def drop_chunks(cls, operations: Operations, table: str, *, schema: str | None = None) -> None:
        """Remove the triggers that mark rows; the chunks stay."""
        operations.invoke(cls(table, schema))

    def reverse(self) -> KeepChunks:
        """Install them again.

        Raises:
            DefinitionError: `previous` is None.

        """
        return KeepChunks(self.table, stated(self.previous, f"drop_chunks({self.table!r})"), self.schema)
