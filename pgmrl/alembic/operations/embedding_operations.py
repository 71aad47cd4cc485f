"""The operations on the triggers that mark rows whose text is to be embedded."""

from __future__ import annotations

from dataclasses import dataclass

from alembic.operations import Operations

from pgmrl.alembic.operations.base_operations import PgmrlOperation, stated
from pgmrl.model.embed import Embed

__all__ = ["DropEmbedding", "KeepEmbedding"]


@Operations.register_operation("keep_embedding")
@dataclass(frozen=True)
class KeepEmbedding(PgmrlOperation):
    """Install the triggers that mark a row when its text changes.

    Attributes:
        table: the table.
        column: of the vectors.
        embed: the text and the model.
        schema: of the table.
        previous: what the column was kept in step with before; None for nothing.

    """

    table: str
    column: str
    embed: Embed
    schema: str | None = None
    previous: Embed | None = None

    @classmethod
    def keep_embedding(
        cls, operations: Operations, table: str, column: str, embed: Embed, *, schema: str | None = None
    ) -> None:
        """Install the triggers that mark a row when its text changes, and mark the rows that have no vector.

        Takes a lock against writers for a moment, with retries. A column that holds vectors of another model is
        refused: vectors of two models cannot be compared.

        """
        operations.invoke(cls(table, column, embed, schema))

    def reverse(self) -> KeepEmbedding | DropEmbedding:
        """What was there before."""
        if self.previous is not None:
            return KeepEmbedding(self.table, self.column, self.previous, self.schema, self.embed)
        return DropEmbedding(self.table, self.column, self.schema, self.embed)


@Operations.register_operation("drop_embedding")
@dataclass(frozen=True)
class DropEmbedding(PgmrlOperation):
    """Remove the triggers that mark rows; the vectors stay.

    Attributes:
        table: the table.
        column: of the vectors.
        schema: of the table.
        previous: the text and the model; None where the operation does not say.

    """

    table: str
    column: str
    schema: str | None = None
    previous: Embed | None = None

    @classmethod
    def drop_embedding(cls, operations: Operations, table: str, column: str, *, schema: str | None = None) -> None:
        """Remove the triggers that mark rows; the vectors stay."""
        operations.invoke(cls(table, column, schema))

    def reverse(self) -> KeepEmbedding:
        """Install them again.

        Raises:
            DefinitionError: `previous` is None.

        """
        embed = stated(self.previous, f"drop_embedding({self.table!r}, {self.column!r})")
        return KeepEmbedding(self.table, self.column, embed, self.schema)
