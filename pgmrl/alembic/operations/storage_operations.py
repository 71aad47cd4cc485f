"""The operations on where full vectors are stored: a column's storage, and side tables."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from alembic.operations import Operations

from pgmrl.alembic.operations.base_operations import PgmrlOperation, stated

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pgmrl.model.ddl import Storage

__all__ = ["DropSide", "KeepSide", "SetStorage"]


@Operations.register_operation("set_storage")
@dataclass(frozen=True)
class SetStorage(PgmrlOperation):
    """Say where a column's values are stored from now on.

    Attributes:
        table: the table.
        column: of vectors.
        storage: `main` (inline) or `external` (TOAST).
        previous: the storage before.
        schema: of the table.

    """

    table: str
    column: str
    storage: Storage
    previous: str = "external"
    schema: str | None = None

    @classmethod
    def set_storage(
        cls, operations: Operations, table: str, column: str, storage: Storage, *, schema: str | None = None
    ) -> None:
        """Say where a column's values are stored from now on; those that are stored stay where they are.

        Takes a strong lock for a moment, with retries.

        """
        operations.invoke(cls(table, column, storage, schema=schema))

    def reverse(self) -> SetStorage:
        """The storage before."""
        return replace(self, storage=self.previous, previous=self.storage)  # type: ignore[arg-type]  # the catalogue's


@Operations.register_operation("keep_side")
@dataclass(frozen=True)
class KeepSide(PgmrlOperation):
    """Install the triggers that copy a table's vector into its side table, and copy what is there.

    Attributes:
        table: the application's table.
        side: the side table.
        keys: the primary key's columns, named alike in both.
        column: the vector's column, named alike in both.
        schema: of both.

    """

    table: str
    side: str
    keys: tuple[str, ...]
    column: str
    schema: str | None = None

    @classmethod
    def keep_side(
        cls,
        operations: Operations,
        table: str,
        side: str,
        keys: Iterable[str],
        column: str,
        *,
        schema: str | None = None,
    ) -> None:
        """Install the triggers that copy a table's vector into its side table, and copy what is there."""
        operations.invoke(cls(table, side, tuple(keys), column, schema))

    def reverse(self) -> DropSide:
        """Remove the triggers."""
        return DropSide(self.table, self.side, self.column, self.schema, self)


@Operations.register_operation("drop_side")
@dataclass(frozen=True)
class DropSide(PgmrlOperation):
    """Remove the triggers that copy a vector into a side table; the side table stays.

    Attributes:
        table: the application's table.
        side: the side table.
        column: the vector's column.
        schema: of both.
        previous: how to install them again; None where the operation does not say.

    """

    table: str
    side: str
    column: str
    schema: str | None = None
    previous: KeepSide | None = None

    @classmethod
    def drop_side(
        cls, operations: Operations, table: str, side: str, column: str, *, schema: str | None = None
    ) -> None:
        """Remove the triggers that copy a vector into a side table; the side table stays."""
        operations.invoke(cls(table, side, column, schema))

    def reverse(self) -> KeepSide:
        """Install them again.

        Raises:
            DefinitionError: `previous` is None.

        """
        return stated(self.previous, f"drop_side({self.table!r}, {self.side!r})")
