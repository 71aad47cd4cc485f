"""The operations: values that say what to do, and how it is done."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alembic.operations import MigrateOperation, Operations
from alembic.script import ScriptDirectory
from sqlalchemy import text

from pgmrl import database, ddl
from pgmrl.ddl import Hnsw
from pgmrl.errors import DefinitionError, NotMigrated
from pgmrl.names import qualified, quoted
from pgmrl.rotation import Rotation
from pgmrl.shortening import Definition, Prefix

if TYPE_CHECKING:
    from collections.abc import Iterator

    from alembic.script import Script

__all__ = ["AddShort", "DropShort", "InstallRotation", "UpgradePgmrl"]


@Operations.register_operation("upgrade_pgmrl")
@dataclass(frozen=True)
class UpgradePgmrl(MigrateOperation):
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


@Operations.register_operation("install_rotation")
@dataclass(frozen=True)
class InstallRotation(MigrateOperation):
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


@Operations.register_operation("add_short")
@dataclass(frozen=True)
class AddShort(MigrateOperation):
    """Add a short column, what keeps it in step, and its index, to a table that has the full one.

    Attributes:
        table: the table.
        column: the full vector's column.
        definition: full and short vector, as the model declares them.
        index: how the index is built; None for no index.
        schema: of the table.

    """

    table: str
    column: str
    definition: Definition
    index: Hnsw | None
    schema: str | None = None

    @classmethod
    def add_short(
        cls,
        operations: Operations,
        table: str,
        column: str,
        definition: Definition,
        *,
        index: Hnsw | None = None,
        with_index: bool = True,
        schema: str | None = None,
    ) -> None:
        """Add the short column of `definition` beside a full one that is there.

        Nobody can read or write the table until the migration's transaction ends: a prefix rewrites it, a rotation
        adds a plain column and fills it with one UPDATE, and both build the index. For a table in use see
        docs/existing.md, which splits the steps over transactions.

        Raises:
            RotationError: the rotation has not been learned.

        """
        chosen = (index or Hnsw()) if with_index else None  # Alembic copies defaults as text: they must be plain
        operations.invoke(cls(table, column, definition, chosen, schema))

    def reverse(self) -> DropShort:
        """The way back."""
        return DropShort(self.table, self.definition.short_name(self.column), self.schema)


@Operations.register_operation("drop_short")
@dataclass(frozen=True)
class DropShort(MigrateOperation):
    """Drop a short column with its index and what keeps it in step; the full vectors stay.

    Attributes:
        table: the table.
        short: the short vector's column.
        schema: of the table.

    """

    table: str
    short: str
    schema: str | None = None

    @classmethod
    def drop_short(cls, operations: Operations, table: str, short: str, *, schema: str | None = None) -> None:
        """Drop a short column with its index and what keeps it in step."""
        operations.invoke(cls(table, short, schema))


# -- how -----------------------------------------------------------------------------------------------------------


@Operations.implementation_for(UpgradePgmrl)
def _upgrade_pgmrl(operations: Operations, operation: UpgradePgmrl) -> None:
    context = operations.migration_context
    before = operation.since
    if not context.as_sql and context.connection is not None:
        before = _current(context.connection, operation)
    if before is None:
        operations.execute(text(database.create_schema()))
        operations.execute(text(database.create_version_table()))
    # a revision's own `op` is the application's, so that both run in one transaction, or print into one script
    for revision, up in _steps(before, None if operation.to == "base" else operation.to):
        (revision.module.upgrade if up else revision.module.downgrade)()
        reached = revision.revision if up else revision.down_revision
        operations.execute(text(database.set_version(str(reached) if reached else None)))


@Operations.implementation_for(InstallRotation)
def _install_rotation(operations: Operations, operation: InstallRotation) -> None:
    path = Path(operation.path)
    script = operations.migration_context.opts.get("script")
    if not path.is_absolute() and not path.exists() and script is not None:
        path = Path(script.dir) / path
    for statement in database.rotation_statements(Rotation.load(path)):
        operations.execute(text(statement))


@Operations.implementation_for(AddShort)
def _add_short(operations: Operations, operation: AddShort) -> None:
    for statement in add_short_statements(operation):
        operations.execute(_plain(statement))


@Operations.implementation_for(DropShort)
def _drop_short(operations: Operations, operation: DropShort) -> None:
    table = qualified(operation.schema, operation.table)
    operations.execute(_plain(ddl.drop_keeper(operation.schema, operation.table, operation.short)))
    operations.execute(_plain(f"ALTER TABLE {table} DROP COLUMN {quoted(operation.short)}"))


def add_short_statements(operation: AddShort) -> Iterator[str]:
    """The statements that add a short column, in order."""
    definition, table = operation.definition, qualified(operation.schema, operation.table)
    short = definition.short_name(operation.column)
    added = f"ALTER TABLE {table} ADD COLUMN {quoted(short)} {definition.short_type}"
    if isinstance(definition.short.by, Prefix):
        yield f"{added} GENERATED ALWAYS AS ({definition.sql(quoted(operation.column))}) STORED"
    else:
        yield added
        yield ddl.keep_short(definition, operation.schema, operation.table, operation.column)
        yield from ddl.fill_short(definition, operation.schema, operation.table, operation.column)
    if definition.short.type != "bit":
        yield ddl.set_storage(table, short, "main")
    if operation.index is not None:
        yield ddl.create_index(definition, operation.schema, operation.table, short, operation.index)


def _plain(statement: str) -> Any:
    # a colon in a name is no parameter
    return text(statement.replace(":", "\\:").replace("\\:\\:", "::"))


def _current(connection: Any, operation: UpgradePgmrl) -> str | None:
    there = database.current(connection)
    wanted = operation.since
    if wanted is not None and there != wanted:
        raise NotMigrated(f"pgmrl's schema is at {there}, this migration continues from {wanted}: run those before it")
    return there


def _steps(before: str | None, to: str | None) -> list[tuple[Script, bool]]:
    scripts = ScriptDirectory(str(database.migrations_path()))
    line = [revision.revision for revision in reversed(list(scripts.walk_revisions()))]
    for name in (before, to):
        if name is not None and name not in line:
            raise DefinitionError(f"pgmrl has no revision {name!r}: it has {', '.join(line)}")
    start = line.index(before) + 1 if before else 0
    end = line.index(to) + 1 if to else 0
    if start <= end:
        return [(scripts.get_revision(name), True) for name in line[start:end]]
    return [(scripts.get_revision(name), False) for name in reversed(line[end:start])]
