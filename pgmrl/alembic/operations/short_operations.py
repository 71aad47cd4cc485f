"""The operations on a short column: add, fill, check, mark, replace, drop."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from alembic.operations import Operations

from pgmrl.alembic.operations.base_operations import OneWay, PgmrlOperation, stated
from pgmrl.model.ddl import rule_of
from pgmrl.online.target import Target

if TYPE_CHECKING:
    from pgmrl.model.shortening import Definition

__all__ = ["AddShort", "AlterShort", "BackfillShort", "DropShort", "MarkShort", "OnShort", "Stage", "ValidateShort"]

Stage = Literal["arriving", "retired"]


@dataclass(frozen=True)
class OnShort(PgmrlOperation):
    """What the operations on one short column have in common.

    Attributes:
        table: the table.
        column: the full vector's column.
        definition: full and short vector, as the model declares them.
        schema: of the table.

    """

    table: str
    column: str
    definition: Definition
    schema: str | None = None

    @property
    def target(self) -> Target:
        """The short column."""
        return Target(self.table, self.column, self.definition, self.schema)

    @property
    def by_trigger(self) -> bool:
        """Whether a trigger keeps the column, for which pgmrl's schema is needed."""
        return rule_of(self.definition) != "prefix"


@Operations.register_operation("add_short")
@dataclass(frozen=True)
class AddShort(OnShort):
    """Add a short column and what keeps it in step, to a table that has the full one.

    Attributes:
        online: as a plain column and a trigger, in a moment, to be filled by `BackfillShort`; else filled at once.

    """

    online: bool = False

    @property
    def by_trigger(self) -> bool:
        """Whether a trigger keeps the column, for which pgmrl's schema is needed."""
        return self.online or super().by_trigger

    @classmethod
    def add_short(
        cls,
        operations: Operations,
        table: str,
        column: str,
        definition: Definition,
        *,
        online: bool = False,
        schema: str | None = None,
    ) -> None:
        """Add the short column of `definition` beside a full one that is there.

        Online it takes its strong lock for a moment, in a transaction of its own: a plain column that is empty, and a
        trigger which keeps it in step from then on. `op.backfill_short` fills it. Otherwise nobody can read or write
        the table until the migration's transaction ends: a prefix rewrites it, a rotation fills it with one UPDATE.

        Does nothing where the column is there and kept in step, in either way.

        Args:
            operations: Alembic's own, filled in by `op`.
            table: the table.
            column: the full vector's column.
            definition: full and short vector.
            online: for a table in use.
            schema: of the table.

        Raises:
            MigrationError: no such table or column, or a column of another type is in the way.
            RotationError: the rotation has not been learned.
            NotMigrated: pgmrl's schema is missing or too old for a column that a trigger keeps.
            Locked: others hold the table.

        """
        operations.invoke(cls(table, column, definition, schema, online))

    def reverse(self) -> DropShort:
        """Drop it."""
        return DropShort(self.table, self.target.short, self.schema, self)


@Operations.register_operation("drop_short")
@dataclass(frozen=True)
class DropShort(PgmrlOperation):
    """Drop a short column with its index and what keeps it in step; the full vectors stay.

    Attributes:
        table: the table.
        short: the short vector's column.
        schema: of the table.
        previous: how to add it again; None where the operation does not say.

    """

    table: str
    short: str
    schema: str | None = None
    previous: AddShort | None = None

    @classmethod
    def drop_short(cls, operations: Operations, table: str, short: str, *, schema: str | None = None) -> None:
        """Drop a short column with its index and what keeps it in step.

        Takes a strong lock for a moment, with retries.

        Raises:
            MigrationError: there is no such table, or the column is no short column.
            Locked: others hold the table.

        """
        operations.invoke(cls(table, short, schema))

    def reverse(self) -> AddShort:
        """Add it again.

        Raises:
            DefinitionError: `previous` is None.

        """
        return stated(self.previous, f"drop_short({self.table!r}, {self.short!r})")


@Operations.register_operation("alter_short")
@dataclass(frozen=True)
class AlterShort(OnShort):
    """Replace a short column by one of the same name with another meaning, in one transaction.

    Attributes:
        previous: the definition it has; None where the operation does not say.

    """

    previous: Definition | None = None

    @classmethod
    def alter_short(
        cls,
        operations: Operations,
        table: str,
        column: str,
        definition: Definition,
        *,
        previous: Definition | None = None,
        schema: str | None = None,
    ) -> None:
        """Replace a short column by one of the same name: other dimensions, type, rule or metric.

        Its indexes go with it. Searches are refused or exact until the application knows; nobody can use the table
        while it is filled. For a table in use give the new one another name, and let both stand side by side
        (docs/reshape.md).

        Raises:
            MigrationError: as `add_short`.

        """
        operations.invoke(cls(table, column, definition, schema, previous))

    def reverse(self) -> AlterShort:
        """Replace it by what it was.

        Raises:
            DefinitionError: `previous` is None.

        """
        previous = stated(self.previous, f"alter_short({self.table!r}, …)")
        return replace(self, definition=previous, previous=self.definition)


@Operations.register_operation("backfill_short")
@dataclass(frozen=True)
class BackfillShort(OnShort):
    """Fill a short column in batches, each a transaction of its own.

    Attributes:
        max_rows_per_second: at most.

    """

    max_rows_per_second: float | None = None

    @classmethod
    def backfill_short(
        cls,
        operations: Operations,
        table: str,
        column: str,
        definition: Definition,
        *,
        max_rows_per_second: float | None = None,
        schema: str | None = None,
    ) -> None:
        """Fill a short column that was added online, while the table is in use.

        The job is kept in the database: after a failure the next run goes on where it was, and `pgmrl backfill` can
        work at it before or beside the migration.

        Raises:
            MigrationError: no primary key, missing rights, or a value that cannot be computed.

        """
        operations.invoke(cls(table, column, definition, schema, max_rows_per_second))

    def reverse(self) -> OneWay:
        """Nothing to do in a downgrade."""
        return OneWay(self, downgrade=True)


@Operations.register_operation("validate_short")
@dataclass(frozen=True)
class ValidateShort(OnShort):
    """Check that no row is without its short vector."""

    @classmethod
    def validate_short(
        cls, operations: Operations, table: str, column: str, definition: Definition, *, schema: str | None = None
    ) -> None:
        """Check that no row is without its short vector, and a sample that each is right.

        Raises:
            MigrationError: some are missing or out of step, with their number.

        """
        operations.invoke(cls(table, column, definition, schema))

    def reverse(self) -> OneWay:
        """Nothing to do in a downgrade."""
        return OneWay(self, downgrade=True)


@Operations.register_operation("mark_short")
@dataclass(frozen=True)
class MarkShort(PgmrlOperation):
    """Say that a short column stands beside another for a while, so that autogenerate leaves it alone.

    Attributes:
        table: the table.
        short: the short vector's column.
        stage: `arriving` (the next deploy reads it), `retired` (dropped when nothing reads it), or None.
        previous: the stage before.
        schema: of the table.

    """

    table: str
    short: str
    stage: Stage | None
    previous: Stage | None = None
    schema: str | None = None

    @classmethod
    def mark_short(
        cls, operations: Operations, table: str, short: str, stage: Stage | None, *, schema: str | None = None
    ) -> None:
        """Say that a short column stands beside another for a while, in its comment.

        Args:
            operations: Alembic's own, filled in by `op`.
            table: the table.
            short: the short vector's column.
            stage: `arriving` (the next deploy reads it), `retired` (dropped when nothing reads it), or None.
            schema: of the table.

        """
        operations.invoke(cls(table, short, stage, schema=schema))

    def reverse(self) -> MarkShort:
        """The stage before."""
        return replace(self, stage=self.previous, previous=self.stage)
