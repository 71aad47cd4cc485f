"""The operations on the indexes of short vectors: HNSW, and those on the columns that searches filter by."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from alembic.operations import Operations

from pgmrl.alembic.operations.short_operations import OnShort
from pgmrl.model.hnsw import Hnsw
from pgmrl.online.index_statements import Build, ShortIndex

if TYPE_CHECKING:
    from pgmrl.model.shortening import Definition

__all__ = ["CreateShortIndex", "DropShortIndex", "OnIndex", "RebuildShortIndex"]


@dataclass(frozen=True)
class OnIndex(OnShort):
    """What the operations on an index of a short column have in common.

    Attributes:
        index: build parameters of the HNSW index, or a covering one, `FilterIndex("tenant_id")`.
        build: how it is built.
        name: of the index, where it is not the model's.

    """

    index: ShortIndex = Hnsw()  # noqa: RUF009 - immutable
    build: Build = Build()  # noqa: RUF009 - immutable
    name: str | None = None

    @property
    def index_name(self) -> str:
        """The name of the index."""
        return self.name or self.index.index_name(self.table, self.target.short)


@Operations.register_operation("create_short_index")
@dataclass(frozen=True)
class CreateShortIndex(OnIndex):
    """Build an index on a short column, or one that includes it."""

    @classmethod
    def create_short_index(
        cls,
        operations: Operations,
        table: str,
        column: str,
        definition: Definition,
        *,
        index: ShortIndex | None = None,
        concurrently: bool = True,
        maintenance_work_mem: str | None = None,
        parallel_workers: int | None = None,
        schema: str | None = None,
        name: str | None = None,
    ) -> None:
        """Build the HNSW index on a short column, or a covering one, by default while others read and write.

        Where the definition says `stored=False` it is an index on an expression, and all that a search needs.

        Concurrently, it commits what the migration has done so far and can be run again after any failure: an INVALID
        leftover is removed first, a build that is still running is waited for. Does nothing where it is there.

        Args:
            operations: Alembic's own, filled in by `op`.
            table: the table.
            column: the full vector's column.
            definition: full and short vector.
            index: build parameters; default `Hnsw()`. `FilterIndex("tenant_id")` builds a covering index instead, into
                which the columns of the table's key come by themselves (not where the script is only printed).
            concurrently: False: inside the migration's transaction, writers wait.
            maintenance_work_mem: for this build, such as "8GB": the graph should fit.
            parallel_workers: for this build.
            schema: of the table.
            name: of the index; by default as the model names it.

        Raises:
            MigrationError: another index has its name, Alembic does not own the transaction, or it cannot be built.

        """
        build = Build(concurrently, maintenance_work_mem, parallel_workers)
        operations.invoke(cls(table, column, definition, schema, index or Hnsw(), build, name))

    def reverse(self) -> DropShortIndex:
        """Drop it."""
        return DropShortIndex(self.table, self.column, self.definition, self.schema, self.index, self.build, self.name)


@Operations.register_operation("drop_short_index")
@dataclass(frozen=True)
class DropShortIndex(OnIndex):
    """Drop an index of a short column."""

    @classmethod
    def drop_short_index(
        cls,
        operations: Operations,
        table: str,
        column: str,
        definition: Definition,
        *,
        index: ShortIndex | None = None,
        concurrently: bool = True,
        schema: str | None = None,
        name: str | None = None,
    ) -> None:
        """Drop an index of a short column, by default without stopping anybody.

        Raises:
            MigrationError: Alembic does not own the transaction.

        """
        operations.invoke(cls(table, column, definition, schema, index or Hnsw(), Build(concurrently), name))

    def reverse(self) -> CreateShortIndex:
        """Build it."""
        return CreateShortIndex(
            self.table, self.column, self.definition, self.schema, self.index, self.build, self.name
        )


@Operations.register_operation("rebuild_short_index")
@dataclass(frozen=True)
class RebuildShortIndex(OnIndex):
    """Replace an index of a short column by one with other parameters or columns, the old one serving meanwhile.

    Attributes:
        previous: the parameters it had.
        previous_definition: what it was built for, where that was another metric.

    """

    previous: ShortIndex | None = None
    previous_definition: Definition | None = None

    @classmethod
    def rebuild_short_index(
        cls,
        operations: Operations,
        table: str,
        column: str,
        definition: Definition,
        *,
        index: ShortIndex | None = None,
        maintenance_work_mem: str | None = None,
        parallel_workers: int | None = None,
        schema: str | None = None,
    ) -> None:
        """Build the index anew beside the old one, then exchange them by name and drop the old one.

        For other parameters or columns, another operator class, or an INVALID index. Needs room for both for a while.

        Raises:
            MigrationError: as `create_short_index`.

        """
        build = Build(True, maintenance_work_mem, parallel_workers)
        operations.invoke(cls(table, column, definition, schema, index or Hnsw(), build))

    def reverse(self) -> RebuildShortIndex:
        """Rebuild it as it was."""
        return replace(
            self,
            definition=self.previous_definition or self.definition,
            previous_definition=self.definition,
            index=self.previous or self.index,
            previous=self.index,
        )
