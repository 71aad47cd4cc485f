"""What the pending migrations of an application would do, without running them."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.util import CommandError

from pgmrl.alembic.implementations import collected
from pgmrl.alembic.operations import AddShort, CreateShortIndex, DropShort, OnShort, RebuildShortIndex
from pgmrl.alembic.planning import planned
from pgmrl.database.table_state import table_state
from pgmrl.errors import MigrationError
from pgmrl.names import qualified
from pgmrl.online import plan, preflight
from pgmrl.online.preflight import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from alembic.operations import MigrateOperation
    from sqlalchemy import Connection

    from pgmrl.online.plan import PlannedStep

__all__ = ["operations_of", "pending"]

Checked = tuple[str, list["PlannedStep"], list[Finding]]


def pending(connection: Connection, config: Path, to: str = "head", free_space: int | None = None) -> Iterator[Checked]:
    """What the pending migrations would do, one short column after the other.

    Args:
        connection: of the database they would run in.
        config: alembic.ini.
        to: up to this revision.
        free_space: bytes free on the server's disk.

    Yields:
        Title, steps and findings.

    Raises:
        MigrationError: Alembic cannot print them.
    """
    groups: dict[tuple[str | None, str, str], list[MigrateOperation]] = {}
    for operation in operations_of(connection, config, to):
        key = _key(operation)
        if key is not None:
            groups.setdefault(key, []).append(operation)
    for (schema, table, short), operations in groups.items():
        yield _checked(connection, qualified(schema, table), f"{table}.{short}", operations, free_space)


def operations_of(connection: Connection, config: Path, to: str = "head") -> list[MigrateOperation]:
    """The operations of pgmrl's in the pending migrations, in their order.

    Raises:
        MigrationError: there is no such configuration, or Alembic cannot print these migrations.
    """
    if not config.is_file():
        raise MigrationError(f"there is no {config}: give the path of your alembic.ini")
    heads = MigrationContext.configure(connection).get_current_heads()
    printing = Config(str(config), output_buffer=io.StringIO())
    with collected() as listed:
        try:
            for head in heads or ("base",):
                command.upgrade(printing, f"{head}:{to}", sql=True)
        except CommandError as error:
            raise MigrationError(f"Alembic cannot print the pending migrations: {error}") from error
    return listed


def _key(operation: MigrateOperation) -> tuple[str | None, str, str] | None:
    if isinstance(operation, OnShort):
        return operation.schema, operation.table, operation.target.short
    if isinstance(operation, DropShort):
        return operation.schema, operation.table, operation.short
    return None


def _checked(
    connection: Connection, owner: str, title: str, operations: list[MigrateOperation], free_space: int | None
) -> Checked:
    size = plan.size_of(connection, owner)
    steps = [step for operation in operations for step in planned(connection, operation, size)]
    target = next((operation.target for operation in operations if isinstance(operation, OnShort)), None)
    if target is None:
        return title, steps, []
    state = table_state(connection, target.schema, target.table)
    if state is None or target.full not in state.columns:
        message = f"{owner} or its column {target.full} is not there yet: these migrations make it"
        return title, steps, [Finding("note", "definition", message)]
    add = next((operation for operation in operations if isinstance(operation, AddShort)), None)
    build = next(
        (operation for operation in operations if isinstance(operation, CreateShortIndex | RebuildShortIndex)), None
    )
    findings = preflight.check(
        connection,
        target,
        steps,
        by_trigger=add is not None and add.by_trigger,
        index=build.index if build else None,
        build=build.build if build else None,
        free_space=free_space,
        kept=add is None,
        installs=True,
    )
    return title, steps, findings
