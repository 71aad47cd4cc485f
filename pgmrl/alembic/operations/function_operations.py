"""The operations on the SQL functions of a column."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from alembic.operations import MigrateOperation, Operations

from pgmrl.alembic.operations.base_operations import PgmrlOperation, stated
from pgmrl.alembic.operations.short_operations import OnShort
from pgmrl.functions.searched_column import SearchedColumn
from pgmrl.model.sql_functions import SqlFunctions

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pgmrl.model.shortening import Definition

__all__ = ["DropFunctions", "InstallFunctions"]


@Operations.register_operation("install_functions")
@dataclass(frozen=True)
class InstallFunctions(OnShort):
    """Install the SQL functions of a column, or replace those of another version or declaration.

    Attributes:
        functions: which functions, and what they take.
        keys: the primary key's columns with their types, in order.
        types: the filters' columns with their types.
        side: the side table, where the vectors are searched there.
        distributed: the distribution column, on Citus.
        previous: what was installed before; None for nothing.

    """

    functions: SqlFunctions = SqlFunctions()  # noqa: RUF009 - immutable
    keys: tuple[tuple[str, str], ...] = ()
    types: tuple[tuple[str, str], ...] = ()
    side: str | None = None
    distributed: str | None = None
    previous: InstallFunctions | None = None

    @classmethod
    def install_functions(
        cls,
        operations: Operations,
        table: str,
        column: str,
        definition: Definition,
        functions: SqlFunctions,
        *,
        keys: Mapping[str, str],
        types: Mapping[str, str] | None = None,
        side: str | None = None,
        schema: str | None = None,
        distributed: str | None = None,
    ) -> None:
        """Install the SQL functions of a column, or replace those of another version or declaration.

        Takes no lock on the table. A replaced function keeps what uses it, such as a view, while its arguments and
        results stay the same.

        Args:
            operations: Alembic's own, filled in by `op`.
            table: the table.
            column: the full vector's column.
            definition: full and short vector.
            functions: which functions, and what they take.
            keys: the primary key's columns with their types as SQL, in order.
            types: the filters' columns with their types as SQL.
            side: the side table, where the vectors are searched there.
            schema: of the table.
            distributed: the distribution column of a table of Citus's, whose searches go to the shards.

        Raises:
            DefinitionError: a filter without a type, no key, or a rotation that has not been learned.
            MigrationError: something of somebody else's is in the way, or uses what has to be dropped.
            NotMigrated: pgmrl's schema is missing or too old.

        """
        filters = tuple((types or {}).items())
        described = cls(table, column, definition, schema, functions, tuple(keys.items()), filters, side, distributed)
        operations.invoke(described)

    def searched_column(self, default_schema: str, vector_schema: str) -> SearchedColumn:
        """The functions with everything their text needs.

        Args:
            default_schema: the table's, where the migration does not say one.
            vector_schema: the schema pgvector lives in.

        Raises:
            DefinitionError: see `SearchedColumn`.

        """
        return SearchedColumn(
            self.functions,
            self.schema or default_schema,
            self.table,
            self.column,
            self.definition,
            self.keys,
            self.types,
            self.side,
            vector_schema,
            managed=True,
            distributed=self.distributed,
        )

    def reverse(self) -> MigrateOperation:
        """Drop them, or install those again that they replaced."""
        if self.previous is not None:
            return replace(self.previous, previous=replace(self, previous=None))
        return DropFunctions(self.functions.name or self.table, self.functions.schema or self.schema, self)


@Operations.register_operation("drop_functions")
@dataclass(frozen=True)
class DropFunctions(PgmrlOperation):
    """Drop the SQL functions of a column, with their views.

    Attributes:
        name: what their names begin with.
        schema: where they are.
        previous: how to install them again; None where the operation does not say.

    """

    name: str
    schema: str | None = None
    previous: InstallFunctions | None = None

    @classmethod
    def drop_functions(cls, operations: Operations, name: str, *, schema: str | None = None) -> None:
        """Drop the SQL functions whose names begin so, with their views; none is no error.

        Raises:
            MigrationError: something else uses them.
            NotMigrated: pgmrl's schema is missing or too old.

        """
        operations.invoke(cls(name, schema))

    def reverse(self) -> InstallFunctions:
        """Install them again.

        Raises:
            DefinitionError: `previous` is None.

        """
        return stated(self.previous, f"drop_functions({self.name!r})")
