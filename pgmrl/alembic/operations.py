"""The operations of pgmrl in a migration: immutable values that say what to do; `running` does it.

Each renders as one line. Those that work online run in transactions of their own and can be run again after any
failure: they look at what is there first.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from alembic.operations import MigrateOperation, Operations

from pgmrl.errors import DefinitionError
from pgmrl.model.ddl import rule_of
from pgmrl.model.hnsw import Hnsw
from pgmrl.online.index_builds import Build
from pgmrl.online.target import Target

if TYPE_CHECKING:
    from pathlib import Path

    from pgmrl.model.ddl import Storage
    from pgmrl.model.shortening import Definition

__all__ = [
    "AddShort",
    "AlterShort",
    "BackfillShort",
    "CreateShortIndex",
    "DropShort",
    "DropShortIndex",
    "DropSide",
    "InstallRotation",
    "KeepSide",
    "MarkShort",
    "OnIndex",
    "OnShort",
    "OneWay",
    "PgmrlOperation",
    "RebuildShortIndex",
    "RemoveRotation",
    "SetStorage",
    "UpgradePgmrl",
    "ValidateShort",
]

Index = TypeVar("Index", bound="OnIndex")


class PgmrlOperation(MigrateOperation):
    """What all of them have in common."""

    def to_diff_tuple(self) -> tuple[str, MigrateOperation]:
        """For `alembic check` and `compare_metadata`."""
        return (re.sub(r"(?<!^)(?=[A-Z])", "_", type(self).__name__).lower(), self)


@dataclass(frozen=True)
class OneWay(PgmrlOperation):
    """An operation that has nothing to undo, or that is done on the way back only; no directive of its own.

    A table's index, for example, goes with its column: nothing has to drop it, but the way back has to build it.

    Attributes:
        operation: what is done.
        back: it is done on the way back.

    """

    operation: MigrateOperation
    back: bool = False

    def reverse(self) -> OneWay:
        """The way back."""
        return replace(self, back=not self.back)

    def to_diff_tuple(self) -> tuple[str, MigrateOperation]:
        """The operation's own."""
        told: tuple[str, MigrateOperation] = self.operation.to_diff_tuple()
        return told


@Operations.implementation_for(OneWay)
def _one_way(operations: Operations, one: OneWay) -> None:
    if not one.back:
        operations.invoke(one.operation)


@Operations.register_operation("upgrade_pgmrl")
@dataclass(frozen=True)
class UpgradePgmrl(PgmrlOperation):
    """Bring pgmrl's schema from one of its revisions to another.

    Attributes:
        to: the revision to reach, such as "0001"; "base" removes everything.
        since: the revision that an earlier migration of this history reached; None for the first one.

    """

    to: str
    since: str | None = None

    @classmethod
    def upgrade_pgmrl(cls, operations: Operations, to: str, since: str | None = None) -> None:
        """Bring pgmrl's schema to a revision, inside this migration.

        Raises:
            DefinitionError: there is no such revision.
            NotMigrated: the database is at another revision than `since`.

        """
        operations.invoke(cls(to, since))

    def reverse(self) -> UpgradePgmrl:
        """The way back."""
        return UpgradePgmrl(self.since or "base", self.to)


# -- rotations -----------------------------------------------------------------------------------------------------


@Operations.register_operation("install_rotation")
@dataclass(frozen=True)
class InstallRotation(PgmrlOperation):
    """Put the axes of a saved rotation into the database, which checks their hash.

    Attributes:
        path: the file `Rotation.save` wrote; a relative one is looked for beside the migration's environment.

    """

    path: str

    @classmethod
    def install_rotation(cls, operations: Operations, path: str | Path) -> None:
        """Put the axes of a saved rotation into the database.

        Raises:
            RotationError: there is no such file, or its axes are not those its name says.

        """
        operations.invoke(cls(str(path)))

    def reverse(self) -> RemoveRotation:
        """The way back."""
        return RemoveRotation(self.path)


@Operations.register_operation("remove_rotation")
@dataclass(frozen=True)
class RemoveRotation(PgmrlOperation):
    """Take the axes of a rotation out of the database, unless a short column still needs them.

    Attributes:
        path: as `InstallRotation`.

    """

    path: str

    @classmethod
    def remove_rotation(cls, operations: Operations, path: str | Path) -> None:
        """Take the axes of a rotation out of the database, unless a short column still needs them.

        Raises:
            RotationError: there is no such file.

        """
        operations.invoke(cls(str(path)))

    def reverse(self) -> InstallRotation:
        """The way back."""
        return InstallRotation(self.path)


# -- short columns -------------------------------------------------------------------------------------------------


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

        Does nothing where the column is there and kept in step, by whichever road.

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
        """The way back."""
        short = self.definition.short_name(self.column)
        return DropShort(self.table, short, self.schema, self)


@Operations.register_operation("drop_short")
@dataclass(frozen=True)
class DropShort(PgmrlOperation):
    """Drop a short column with its index and what keeps it in step; the full vectors stay.

    Attributes:
        table: the table.
        short: the short vector's column.
        schema: of the table.
        was: how to add it again; None where nobody said.

    """

    table: str
    short: str
    schema: str | None = None
    was: AddShort | None = None

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
        """The way back.

        Raises:
            DefinitionError: it was not said what the column was.

        """
        if self.was is None:
            raise DefinitionError(f"drop_short({self.table!r}, {self.short!r}) cannot be reversed: give `was`")
        return self.was


@Operations.register_operation("alter_short")
@dataclass(frozen=True)
class AlterShort(OnShort):
    """Replace a short column by one of the same name with another meaning, in one transaction.

    Attributes:
        was: the definition it has.

    """

    was: Definition | None = None

    @classmethod
    def alter_short(
        cls,
        operations: Operations,
        table: str,
        column: str,
        definition: Definition,
        *,
        was: Definition | None = None,
        schema: str | None = None,
    ) -> None:
        """Replace a short column by one of the same name: other dimensions, type, rule or metric.

        Its indexes go with it. Searches are refused or exact until the application knows; nobody can use the table
        while it is filled. For a table in use give the new one another name, and let both stand side by side
        (docs/reshape.md).

        Raises:
            MigrationError: as `add_short`.

        """
        operations.invoke(cls(table, column, definition, schema, was))

    def reverse(self) -> AlterShort:
        """The way back.

        Raises:
            DefinitionError: it was not said what the column was.

        """
        if self.was is None:
            raise DefinitionError(f"alter_short({self.table!r}, …) cannot be reversed: give `was`")
        return AlterShort(self.table, self.column, self.was, self.schema, self.definition)


@Operations.register_operation("backfill_short")
@dataclass(frozen=True)
class BackfillShort(OnShort):
    """Fill a short column in batches, each a transaction of its own; its way back is nothing.

    Attributes:
        max_rows_per_second: at most.
        undo: the way back: does nothing.

    """

    max_rows_per_second: float | None = None
    undo: bool = False

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

    def reverse(self) -> BackfillShort:
        """The way back: nothing to do."""
        return replace(self, undo=not self.undo)


@Operations.register_operation("validate_short")
@dataclass(frozen=True)
class ValidateShort(OnShort):
    """Check that no row is without its short vector; its way back is nothing.

    Attributes:
        undo: the way back: does nothing.

    """

    undo: bool = False

    @classmethod
    def validate_short(
        cls, operations: Operations, table: str, column: str, definition: Definition, *, schema: str | None = None
    ) -> None:
        """Check that no row is without its short vector, and a sample that each is right.

        Raises:
            MigrationError: some are missing or out of step, with their number.

        """
        operations.invoke(cls(table, column, definition, schema))

    def reverse(self) -> ValidateShort:
        """The way back: nothing to do."""
        return replace(self, undo=not self.undo)


@Operations.register_operation("mark_short")
@dataclass(frozen=True)
class MarkShort(PgmrlOperation):
    """Say that a short column stands beside another for a while, so that autogenerate leaves it alone.

    Attributes:
        table: the table.
        short: the short vector's column.
        stage: `arriving` (the next deploy reads it), `retired` (dropped when nothing reads it), or None.
        was: the stage before.
        schema: of the table.

    """

    table: str
    short: str
    stage: Literal["arriving", "retired"] | None
    was: Literal["arriving", "retired"] | None = None
    schema: str | None = None

    @classmethod
    def mark_short(
        cls,
        operations: Operations,
        table: str,
        short: str,
        stage: Literal["arriving", "retired"] | None,
        *,
        schema: str | None = None,
    ) -> None:
        """Say that a short column stands beside another for a while, in its comment."""
        operations.invoke(cls(table, short, stage, None, schema))

    def reverse(self) -> MarkShort:
        """The way back."""
        return replace(self, stage=self.was, was=self.stage)


# -- indexes -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class OnIndex(OnShort):
    """What the operations on the index of a short column have in common.

    Attributes:
        index: build parameters.
        build: how it is built.

    """

    index: Hnsw = Hnsw()  # noqa: RUF009 - immutable
    build: Build = Build()  # noqa: RUF009 - immutable


@Operations.register_operation("create_short_index")
@dataclass(frozen=True)
class CreateShortIndex(OnIndex):
    """Build the HNSW index on a short column."""

    @classmethod
    def create_short_index(
        cls,
        operations: Operations,
        table: str,
        column: str,
        definition: Definition,
        *,
        index: Hnsw | None = None,
        concurrently: bool = True,
        maintenance_work_mem: str | None = None,
        parallel_workers: int | None = None,
        schema: str | None = None,
    ) -> None:
        """Build the HNSW index on a short column, by default while others read and write.

        Concurrently, it commits what the migration has done so far and can be run again after any failure: an INVALID
        leftover is removed first, a build that is still running is waited for. Does nothing where it is there.

        Args:
            operations: Alembic's own, filled in by `op`.
            table: the table.
            column: the full vector's column.
            definition: full and short vector.
            index: build parameters; default `Hnsw()`.
            concurrently: False: inside the migration's transaction, writers wait.
            maintenance_work_mem: for this build, such as "8GB": the graph should fit.
            parallel_workers: for this build.
            schema: of the table.

        Raises:
            MigrationError: another index has its name, Alembic does not own the transaction, or it cannot be built.

        """
        build = Build(concurrently, maintenance_work_mem, parallel_workers)
        operations.invoke(cls(table, column, definition, schema, index or Hnsw(), build))

    def reverse(self) -> DropShortIndex:
        """The way back."""
        return _as(DropShortIndex, self)


@Operations.register_operation("drop_short_index")
@dataclass(frozen=True)
class DropShortIndex(OnIndex):
    """Drop the HNSW index on a short column."""

    @classmethod
    def drop_short_index(
        cls,
        operations: Operations,
        table: str,
        column: str,
        definition: Definition,
        *,
        index: Hnsw | None = None,
        concurrently: bool = True,
        schema: str | None = None,
    ) -> None:
        """Drop the HNSW index on a short column, by default without stopping anybody.

        Raises:
            MigrationError: Alembic does not own the transaction.

        """
        operations.invoke(cls(table, column, definition, schema, index or Hnsw(), Build(concurrently)))

    def reverse(self) -> CreateShortIndex:
        """The way back."""
        return _as(CreateShortIndex, self)


@Operations.register_operation("rebuild_short_index")
@dataclass(frozen=True)
class RebuildShortIndex(OnIndex):
    """Replace the HNSW index on a short column by one with other parameters, the old one serving meanwhile.

    Attributes:
        was: the parameters it had.
        was_definition: what it was built for, where that was another metric.

    """

    was: Hnsw | None = None
    was_definition: Definition | None = None

    @classmethod
    def rebuild_short_index(
        cls,
        operations: Operations,
        table: str,
        column: str,
        definition: Definition,
        *,
        index: Hnsw | None = None,
        maintenance_work_mem: str | None = None,
        parallel_workers: int | None = None,
        schema: str | None = None,
    ) -> None:
        """Build the index anew beside the old one, then exchange them by name and drop the old one.

        For other parameters, another operator class, or an INVALID index. Needs room for both for a while.

        Raises:
            MigrationError: as `create_short_index`.

        """
        build = Build(True, maintenance_work_mem, parallel_workers)
        operations.invoke(cls(table, column, definition, schema, index or Hnsw(), build))

    def reverse(self) -> RebuildShortIndex:
        """The way back."""
        before = self.was_definition or self.definition
        return replace(
            self, definition=before, was_definition=self.definition, index=self.was or self.index, was=self.index
        )


def _as(kind: type[Index], other: OnIndex) -> Index:
    return kind(other.table, other.column, other.definition, other.schema, other.index, other.build)


# -- the full column, and side tables ------------------------------------------------------------------------------


@Operations.register_operation("set_storage")
@dataclass(frozen=True)
class SetStorage(PgmrlOperation):
    """Say where a column's values are stored from now on.

    Attributes:
        table: the table.
        column: of vectors.
        storage: `main` (inline) or `external` (TOAST).
        was: before.
        schema: of the table.

    """

    table: str
    column: str
    storage: Storage
    was: str = "external"
    schema: str | None = None

    @classmethod
    def set_storage(
        cls, operations: Operations, table: str, column: str, storage: Storage, *, schema: str | None = None
    ) -> None:
        """Say where a column's values are stored from now on; those that are stored stay where they are.

        Takes a strong lock for a moment, with retries.

        """
        operations.invoke(cls(table, column, storage, "external", schema))

    def reverse(self) -> SetStorage:
        """The way back."""
        return replace(self, storage=self.was, was=self.storage)  # type: ignore[arg-type]  # what the catalogue said


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
        cls, operations: Operations, table: str, side: str, keys: Any, column: str, *, schema: str | None = None
    ) -> None:
        """Install the triggers that copy a table's vector into its side table, and copy what is there."""
        operations.invoke(cls(table, side, tuple(keys), column, schema))

    def reverse(self) -> DropSide:
        """The way back."""
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
        was: how to install them again.

    """

    table: str
    side: str
    column: str
    schema: str | None = None
    was: KeepSide | None = None

    @classmethod
    def drop_side(
        cls, operations: Operations, table: str, side: str, column: str, *, schema: str | None = None
    ) -> None:
        """Remove the triggers that copy a vector into a side table; the side table stays."""
        operations.invoke(cls(table, side, column, schema))

    def reverse(self) -> KeepSide:
        """The way back.

        Raises:
            DefinitionError: it was not said what it was.

        """
        if self.was is None:
            raise DefinitionError(f"drop_side({self.table!r}, {self.side!r}) cannot be reversed: give `was`")
        return self.was
