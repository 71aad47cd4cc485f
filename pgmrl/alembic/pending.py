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
    made = Config(str(config), output_buffer=io.StringIO())
    with collected() as listed:
        try:
            for head in heads or ("base",):
                command.upgrade(made, f"{head}:{to}", sql=True)
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
    listed = [step for one in operations for step in planned(connection, one, size)]
    target = next((one.target for one in operations if isinstance(one, OnShort)), None)
    if target is None:
        return title, listed, []
    state = table_state(connection, target.schema, target.table)
    if state is None or target.full not in state.columns:
        what = f"{owner} or its column {target.full} is not there yet: these migrations make it"
        return title, listed, [Finding("note", "definition", what)]
    added = next((one for one in operations if isinstance(one, AddShort)), None)
    made = next((one for one in operations if isinstance(one, CreateShortIndex | RebuildShortIndex)), None)
    found = preflight.check(
        connection,
        target,
        listed,
        by_trigger=added is not None and added.by_trigger,
        index=made.index if made else None,
        build=made.build if made else None,
        free_space=free_space,
        kept=added is None,
        installs=True,
    )
    return title, listed, found
