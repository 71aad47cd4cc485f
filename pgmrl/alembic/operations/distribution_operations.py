"""The operations that distribute a table by Citus, and that make an ordinary one of it again."""

from __future__ import annotations

from dataclasses import dataclass

from alembic.operations import Operations

from pgmrl.alembic.operations.base_operations import PgmrlOperation

__all__ = ["DistributeTable", "UndistributeTable"]


@Operations.register_operation("distribute_table")
@dataclass(frozen=True)
class DistributeTable(PgmrlOperation):
    """Distribute a table with Matryoshka columns over the nodes of Citus.

    Attributes:
        table: the table.
        by: the distribution column, part of the primary key.
        shards: how many; None for `citus.shard_count`.
        schema: of the table.

    """

    table: str
    by: str
    shards: int | None = None
    schema: str | None = None

    @classmethod
    def distribute_table(
        cls, operations: Operations, table: str, by: str, *, shards: int | None = None, schema: str | None = None
    ) -> None:
        """Distribute a table with Matryoshka columns over the nodes of Citus, inside this migration.

        Looks at every node first, and brings what is missing there, outside this transaction: pgvector, and pgmrl's
        schema and rotations for triggers. A table that is distributed by that column already is left as it is.

        Raises:
            MigrationError: see `pgmrl distribute`.

        """
        operations.invoke(cls(table, by, shards, schema))

    def reverse(self) -> UndistributeTable:
        """An ordinary table again."""
        return UndistributeTable(self.table, self.by, self.shards, self.schema)


@Operations.register_operation("undistribute_table")
@dataclass(frozen=True)
class UndistributeTable(PgmrlOperation):
    """Move the rows of a distributed table back to the coordinator; attributes as `DistributeTable`."""

    table: str
    by: str
    shards: int | None = None
    schema: str | None = None

    @classmethod
    def undistribute_table(
        cls, operations: Operations, table: str, by: str, *, shards: int | None = None, schema: str | None = None
    ) -> None:
        """Move the rows of a distributed table back to the coordinator; `by` and `shards` are for the way back."""
        operations.invoke(cls(table, by, shards, schema))

    def reverse(self) -> DistributeTable:
        """Distributed once more."""
        return DistributeTable(self.table, self.by, self.shards, self.schema)
