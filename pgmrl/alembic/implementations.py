"""How the operations are done: in the migration's transaction, in transactions of their own, or printed as SQL."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alembic.operations import MigrateOperation, Operations
from alembic.script import ScriptDirectory
from sqlalchemy import text

from pgmrl import database
from pgmrl.alembic.function_operations import DropFunctions, InstallFunctions
from pgmrl.alembic.operations import (
    AddShort,
    AlterShort,
    BackfillShort,
    CreateShortIndex,
    DropShort,
    DropShortIndex,
    DropSide,
    InstallRotation,
    KeepSide,
    MarkShort,
    RebuildShortIndex,
    RemoveRotation,
    SetStorage,
    UpgradePgmrl,
    ValidateShort,
)
from pgmrl.alembic.planning import announce
from pgmrl.database.table_state import table_state
from pgmrl.errors import DefinitionError, MigrationError, NotMigrated
from pgmrl.functions import installed
from pgmrl.functions.install_statements import drop_statement, install_statements
from pgmrl.model import ddl
from pgmrl.model.hnsw import Hnsw
from pgmrl.model.rotation import Rotation
from pgmrl.names import qualified
from pgmrl.online import backfill, index_builds, locks, steps

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from alembic.script import Script
    from sqlalchemy import Connection

__all__ = ["collected"]

log = logging.getLogger("alembic.pgmrl")


_collecting: ContextVar[list[MigrateOperation] | None] = ContextVar("_collecting", default=None)


@contextmanager
def collected() -> Iterator[list[MigrateOperation]]:
    """Inside, operations of pgmrl are listed instead of done: to plan migrations without running them."""
    listed: list[MigrateOperation] = []
    token = _collecting.set(listed)
    try:
        yield listed
    finally:
        _collecting.reset(token)


def _implements(kind: type[MigrateOperation]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    def register(run: Callable[..., None]) -> Callable[..., None]:
        def either(operations: Operations, operation: MigrateOperation) -> None:
            listed = _collecting.get()
            if listed is None:
                run(operations, operation)
            else:
                listed.append(operation)

        Operations.implementation_for(kind)(either)
        return run

    return register


# -- pgmrl's own schema --------------------------------------------------------------------------------------------


@_implements(UpgradePgmrl)
def _upgrade_pgmrl(operations: Operations, operation: UpgradePgmrl) -> None:
    context = operations.migration_context
    before = operation.since
    if not context.as_sql and context.connection is not None:
        before = _current(context.connection, operation)
    if before is not None and operation.since is None and _reached(before, operation.to):
        return  # somebody brought it further already: a step of a history never goes back unasked
    if before is None:
        operations.execute(text(database.create_schema()))
        operations.execute(text(database.create_version_table()))
    # a revision's own `op` is the application's, so that both run in one transaction, or print into one script
    for revision, up in _revisions(before, None if operation.to == "base" else operation.to):
        (revision.module.upgrade if up else revision.module.downgrade)()
        reached = revision.revision if up else revision.down_revision
        operations.execute(text(database.set_version(str(reached) if reached else None)))


def _current(connection: Connection, operation: UpgradePgmrl) -> str | None:
    there = database.installed_revision(connection)
    wanted = operation.since
    # a migration that failed after it had committed so far is run again
    if wanted is not None and there not in {wanted, operation.to}:
        raise NotMigrated(f"pgmrl's schema is at {there}, this migration continues from {wanted}: run those before it")
    return there


def _reached(there: str, to: str) -> bool:
    return to != "base" and all(up is False for _, up in _revisions(there, to))


def _revisions(before: str | None, to: str | None) -> list[tuple[Script, bool]]:
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


@_implements(InstallRotation)
def _install_rotation(operations: Operations, operation: InstallRotation) -> None:
    for statement in database.rotation_statements(_rotation(operations, operation.path)):
        operations.execute(text(statement))


@_implements(RemoveRotation)
def _remove_rotation(operations: Operations, operation: RemoveRotation) -> None:
    operations.execute(text(steps.remove_rotation(_rotation(operations, operation.path))))


def _rotation(operations: Operations, given: str) -> Rotation:
    path = Path(given)
    script = operations.migration_context.opts.get("script")
    if not path.is_absolute() and not path.exists() and script is not None:
        path = Path(script.dir) / path
    return Rotation.load(path)


# -- short columns -------------------------------------------------------------------------------------------------


@_implements(AddShort)
def _add_short(operations: Operations, operation: AddShort) -> None:
    target, connection = operation.target, _connection(operations)
    if connection is not None and steps.check_add(connection, target, by_trigger=operation.by_trigger):
        log.info("%s is there and kept in step", target.title)
        return
    if connection is not None:
        if operation.online:
            backfill.short_fill(connection, target)  # needs a primary key: said before the column is there
        announce(connection, operation)
    if operation.online:
        _alone(operations, steps.add_online(target), target.owner)
    else:
        _together(operations, steps.add_in_place(target), target.owner)


@_implements(DropShort)
def _drop_short(operations: Operations, operation: DropShort) -> None:
    connection, owner = _connection(operations), qualified(operation.schema, operation.table)
    if connection is not None and not steps.check_drop(connection, operation.schema, operation.table, operation.short):
        log.info("%s.%s is gone already", owner, operation.short)
        return
    _together(operations, steps.drop_short(operation.schema, operation.table, operation.short), owner)


@_implements(AlterShort)
def _alter_short(operations: Operations, operation: AlterShort) -> None:
    target, connection = operation.target, _connection(operations)
    if connection is not None and not steps.check_alter(connection, target):
        return
    dropped = steps.drop_short(operation.schema, operation.table, target.short)
    _together(operations, [*dropped, *steps.add_in_place(target)], target.owner)


@_implements(BackfillShort)
def _backfill_short(operations: Operations, operation: BackfillShort) -> None:
    if operation.undo:
        return
    target = operation.target
    with _committing(operations, "backfill_short"):
        connection = _connection(operations)
        if connection is None:
            _print(operations, [steps.backfill_script(target)])
            return
        steps.check_there(connection, target)
        announce(connection, operation)
        throttle = backfill.Throttle(max_rows_per_second=operation.max_rows_per_second)
        backfill.backfill_on(connection, backfill.short_fill(connection, target), throttle, progress=steps.Told())


@_implements(ValidateShort)
def _validate_short(operations: Operations, operation: ValidateShort) -> None:
    if operation.undo:
        return
    connection = _connection(operations)
    if connection is None:
        _print(operations, [steps.validate_script(operation.target)])
    else:
        steps.validate(connection, operation.target)


@_implements(MarkShort)
def _mark_short(operations: Operations, operation: MarkShort) -> None:
    connection = _connection(operations)
    if connection is not None:
        state = table_state(connection, operation.schema, operation.table)
        if state is None or operation.short not in state.columns:
            log.info("%s.%s is gone already", operation.table, operation.short)  # contracted before this was run
            return
    statement = steps.mark(operation.schema, operation.table, operation.short, operation.stage)
    _together(operations, [statement], qualified(operation.schema, operation.table), lock=False)


# -- indexes -------------------------------------------------------------------------------------------------------


@_implements(CreateShortIndex)
def _create_short_index(operations: Operations, operation: CreateShortIndex) -> None:
    target, how = operation.target, operation.build
    if not how.concurrently:
        _in_transaction(operations, operation)
        return
    with _committing(operations, "create_short_index"):
        connection = _connection(operations)
        if connection is None:
            _print(operations, steps.index_script(target, operation.index, how))
        else:
            steps.check_there(connection, target)
            announce(connection, operation)
            index_builds.build(connection, target, operation.index, how, progress=steps.Told())


def _in_transaction(operations: Operations, operation: CreateShortIndex) -> None:
    target, connection = operation.target, _connection(operations)
    if connection is not None and steps.has_index(connection, target, operation.index):
        return
    settings = [f"SELECT set_config('{name}', '{value}', true)" for name, value in operation.build.settings()]
    statement = index_builds.create_statement(target, operation.index, concurrently=False)
    _together(operations, [*settings, statement], target.owner, lock=False)


@_implements(DropShortIndex)
def _drop_short_index(operations: Operations, operation: DropShortIndex) -> None:
    name = operation.index.index_name(operation.table, operation.target.short)
    if not operation.build.concurrently:
        statement = index_builds.drop_statement(operation.schema, name, concurrently=False)
        _together(operations, [statement], operation.target.owner, lock=False)
        return
    with _committing(operations, "drop_short_index"):
        connection = _connection(operations)
        if connection is None:
            _print(operations, [index_builds.drop_statement(operation.schema, name)])
        else:
            index_builds.drop(connection, operation.schema, name)


@_implements(RebuildShortIndex)
def _rebuild_short_index(operations: Operations, operation: RebuildShortIndex) -> None:
    target, how = operation.target, operation.build
    with _committing(operations, "rebuild_short_index"):
        connection = _connection(operations)
        if connection is None:
            _print(operations, steps.rebuild_script(target, operation.index, how))
        else:
            steps.check_there(connection, target)
            announce(connection, operation)
            index_builds.rebuild(connection, target, operation.index, how, progress=steps.Told())


# -- the full column, and side tables ------------------------------------------------------------------------------


@_implements(SetStorage)
def _set_storage(operations: Operations, operation: SetStorage) -> None:
    owner = qualified(operation.schema, operation.table)
    _together(operations, [ddl.set_storage(owner, operation.column, operation.storage)], owner)


@_implements(KeepSide)
def _keep_side(operations: Operations, operation: KeepSide) -> None:
    statement = ddl.create_side_sync_triggers(
        operation.schema, operation.table, operation.side, operation.keys, operation.column
    )
    _together(operations, [statement], qualified(operation.schema, operation.table), lock=False)


@_implements(DropSide)
def _drop_side(operations: Operations, operation: DropSide) -> None:
    statement = ddl.drop_sync_triggers(operation.schema, operation.side, operation.column)
    _together(operations, [statement], qualified(operation.schema, operation.table))


# -- SQL functions -------------------------------------------------------------------------------------------------


@_implements(InstallFunctions)
def _install_functions(operations: Operations, operation: InstallFunctions) -> None:
    vector_schema = database.vector_schema_of(operations.migration_context)
    place = operation.place(_default_schema(operations), vector_schema)
    connection = _connection(operations)
    if connection is None:
        _print(operations, install_statements(place, Hnsw()))
    else:
        installed.install(connection, place, Hnsw())


@_implements(DropFunctions)
def _drop_functions(operations: Operations, operation: DropFunctions) -> None:
    connection, schema = _connection(operations), operation.schema or _default_schema(operations)
    if connection is None:
        _print(operations, [drop_statement(schema, operation.name)])
    elif not installed.drop(connection, schema, operation.name):
        log.info("functions %s.%s_… are gone already", schema, operation.name)


def _default_schema(operations: Operations) -> str:
    """Where a table without a schema is; where the migration is printed, nobody can be asked."""
    connection = _connection(operations)
    return (connection.dialect.default_schema_name if connection is not None else None) or "public"


# -- three ways to run a statement ---------------------------------------------------------------------------------


def _connection(operations: Operations) -> Connection | None:
    """None where the migration is printed."""
    context = operations.migration_context
    return None if context.as_sql else context.connection


def _together(operations: Operations, statements: Sequence[str], owner: str, *, lock: bool = True) -> None:
    """In the migration's own transaction, which keeps the lock until it ends."""
    connection = _connection(operations)
    taken = [locks.lock_table(owner)] if lock else []
    if connection is None:
        _print(operations, [*taken, *statements] if lock else statements)
    elif connection.in_transaction() and not _autocommit(connection):
        locks.with_savepoints(connection, [*taken, *statements], owner)
    else:
        locks.in_transaction(connection, [*taken, *statements], owner)


def _alone(operations: Operations, statements: Sequence[str], owner: str) -> None:
    """In a transaction of its own, so that the lock is over in a moment."""
    with _committing(operations, "add_short(online=True)"):
        connection = _connection(operations)
        whole = [locks.lock_table(owner), *statements]
        if connection is None:
            _print(operations, ["BEGIN", locks.Patience().setting, *whole, "COMMIT"])
        else:
            locks.in_transaction(connection, whole, owner)


@contextmanager
def _committing(operations: Operations, name: str) -> Iterator[None]:
    """Commit what the migration has done so far, and run what follows in autocommit.

    Raises:
        MigrationError: somebody else's transaction cannot be committed from here.
    """
    context = operations.migration_context
    connection = _connection(operations)
    if connection is not None and _autocommit(connection):
        yield
        return
    # Alembic has no public word for whether the transaction is its own
    if connection is not None and connection.in_transaction() and context._transaction is None:
        raise MigrationError(
            f"op.{name} commits on its own, and this connection's transaction is not Alembic's: give context.configure "
            "a connection without one (engine.connect(), not engine.begin()), or for an index say concurrently=False"
        )
    with context.autocommit_block():
        yield


def _autocommit(connection: Connection) -> bool:
    return bool(getattr(connection.connection.driver_connection, "autocommit", False))


def _print(operations: Operations, statements: Iterable[str]) -> None:
    for statement in statements:
        operations.execute(_plain(statement))


def _plain(statement: str) -> Any:
    # a colon in a name is no parameter
    return text(statement.replace(":", "\\:").replace("\\:\\:", "::"))
