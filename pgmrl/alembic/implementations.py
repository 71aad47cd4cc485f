"""How each operation of `pgmrl.alembic.operations` is done."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING

from alembic.operations import MigrateOperation, Operations
from sqlalchemy import text

from pgmrl import database
from pgmrl.alembic.execution import (
    committing,
    connection_of,
    default_schema,
    print_sql,
    run_alone,
    run_in_migration,
)
from pgmrl.alembic.operations import (
    AddShort,
    AlterShort,
    BackfillShort,
    CreateShortIndex,
    DistributeTable,
    DropChunks,
    DropEmbedding,
    DropFunctions,
    DropShort,
    DropShortIndex,
    DropSide,
    InstallFunctions,
    InstallRotation,
    InstallTextModel,
    KeepChunks,
    KeepEmbedding,
    KeepSide,
    MarkShort,
    RebuildShortIndex,
    RemoveRotation,
    RemoveTextModel,
    SetStorage,
    UndistributeTable,
    UpgradePgmrl,
    ValidateShort,
)
from pgmrl.alembic.planning import announce
from pgmrl.database.job_log import log
from pgmrl.database.shards import distributed_table, on_this_node
from pgmrl.database.table_state import table_state
from pgmrl.embedders import DEFAULT
from pgmrl.embedders.token_model import load_token_model
from pgmrl.errors import MigrationError, NotMigrated
from pgmrl.functions import installed, text_models
from pgmrl.functions.install_statements import drop_statement, printed_statements
from pgmrl.model import ddl
from pgmrl.model.chunks import drop_chunk_triggers, keep_chunk_triggers, queue_chunks
from pgmrl.model.embed import drop_embedding_triggers, keep_embedding_triggers, queue_embeddings
from pgmrl.model.hnsw import Hnsw
from pgmrl.model.rotation import Rotation
from pgmrl.names import qualified
from pgmrl.online import (
    backfill,
    distributing,
    filter_columns,
    index_builds,
    index_statements,
    preconditions,
    printed_scripts,
    steps,
    validation,
)
from pgmrl.online.progress_log import ProgressLog

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Connection

    from pgmrl.online.target import Target

__all__ = ["collected"]


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


def _implements(operation_class: type[MigrateOperation]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a function with Alembic as what does an operation; inside `collected` it is listed instead."""

    def register(run: Callable[..., None]) -> Callable[..., None]:
        def run_or_list(operations: Operations, operation: MigrateOperation) -> None:
            listed = _collecting.get()
            if listed is None:
                run(operations, operation)
            else:
                listed.append(operation)

        Operations.implementation_for(operation_class)(run_or_list)
        return run

    return register


# -- pgmrl's own schema --------------------------------------------------------------------------------------------


@_implements(UpgradePgmrl)
def _upgrade_pgmrl(operations: Operations, operation: UpgradePgmrl) -> None:
    connection = connection_of(operations)
    current = operation.since if connection is None else _current_revision(connection, operation)
    if current is not None and operation.since is None and _is_reached(current, operation.to):
        return  # somebody brought it further already: a step of a history never goes back unasked
    if connection is not None and current != operation.to:
        database.check_schema_rights(connection)
    statements = [] if current is not None else [*database.create_schema(), database.create_version_table()]
    vector_schema = database.vector_schema_of(operations.migration_context)
    for step in database.revision_steps(current, None if operation.to == "base" else operation.to):
        statements += database.revision_statements(step.revision, step.up, vector_schema)
        statements += database.set_version(step.reached)
    with nullcontext() if connection is None else on_this_node(connection):
        for statement in statements:
            operations.execute(text(statement))


def _current_revision(connection: Connection, operation: UpgradePgmrl) -> str | None:
    current, expected = database.installed_revision(connection), operation.since
    # a migration that failed after it had committed so far is run again
    if expected is not None and current not in {expected, operation.to}:
        raise NotMigrated(f"pgmrl's schema: expected revision {expected}, got {current}: run the migrations before it")
    return current


def _is_reached(current: str, to: str) -> bool:
    return to != "base" and not any(step.up for step in database.revision_steps(current, to))


@_implements(InstallRotation)
def _install_rotation(operations: Operations, operation: InstallRotation) -> None:
    for statement in database.rotation_statements(_rotation(operations, operation.path)):
        operations.execute(text(statement))


@_implements(RemoveRotation)
def _remove_rotation(operations: Operations, operation: RemoveRotation) -> None:
    operations.execute(text(steps.remove_rotation(_rotation(operations, operation.path))))


def _rotation(operations: Operations, file: str) -> Rotation:
    return Rotation.load(_beside_environment(operations, file))


def _beside_environment(operations: Operations, file: str) -> Path:
    path = Path(file)
    script = operations.migration_context.opts.get("script")
    if not path.is_absolute() and not path.exists() and script is not None:
        path = Path(script.dir) / path
    return path


# -- models in the database ----------------------------------------------------------------------------------------


@_implements(InstallTextModel)
def _install_text_model(operations: Operations, operation: InstallTextModel) -> None:
    connection = _connected(operations, f"pgmrl model install {operation.source}")
    bundled = operation.source == DEFAULT
    model = load_token_model(DEFAULT if bundled else str(_beside_environment(operations, operation.source)))
    if not text_models.install_model(connection, operation.model_name, model):
        log.info("the model %s is there already", operation.model_name)


@_implements(RemoveTextModel)
def _remove_text_model(operations: Operations, operation: RemoveTextModel) -> None:
    connection = _connected(operations, f"pgmrl model remove {operation.name}")
    if not text_models.remove_model(connection, operation.name):
        log.info("the model %s is gone already", operation.name)


def _connected(operations: Operations, command: str) -> Connection:
    connection = connection_of(operations)
    if connection is None:
        raise MigrationError(f"a model's millions of numbers are not printed as SQL: run `{command}` instead")
    return connection


# -- short columns -------------------------------------------------------------------------------------------------


@_implements(AddShort)
def _add_short(operations: Operations, operation: AddShort) -> None:
    target, connection = operation.target, connection_of(operations)
    preconditions.check_stored(target)
    if connection is not None and preconditions.check_add(connection, target, by_trigger=operation.by_trigger):
        log.info("%s is there and kept in step", target.title)
        return
    if connection is not None and _on_shards(connection, target):
        statements = distributing.add_to_shards(connection, target, filled=not operation.online)
    else:
        statements = steps.add_online(target) if operation.online else steps.add_in_place(target)
        if connection is not None:
            if operation.online:
                backfill.short_fill(connection, target)  # needs a primary key: said before the column is there
            announce(connection, operation)
    if operation.online:
        run_alone(operations, "add_short(online=True)", statements, target.owner)
    else:
        run_in_migration(operations, statements, target.owner)


def _on_shards(connection: Connection, target: Target) -> bool:
    return distributed_table(connection, target.owner) is not None


@_implements(DropShort)
def _drop_short(operations: Operations, operation: DropShort) -> None:
    schema, table, short = operation.schema, operation.table, operation.short
    connection, owner = connection_of(operations), qualified(schema, table)
    if connection is not None and not preconditions.check_drop(connection, schema, table, short):
        log.info("%s.%s is gone already", owner, short)
        return
    run_in_migration(operations, steps.drop_short(schema, table, short), owner)


@_implements(AlterShort)
def _alter_short(operations: Operations, operation: AlterShort) -> None:
    target, connection = operation.target, connection_of(operations)
    if connection is not None and not preconditions.check_alter(connection, target):
        return
    dropped = steps.drop_short(operation.schema, operation.table, target.short)
    if connection is not None and _on_shards(connection, target):
        added = distributing.add_to_shards(connection, target, filled=True)
    else:
        added = steps.add_in_place(target)
    run_in_migration(operations, [*dropped, *added], target.owner)


@_implements(BackfillShort)
def _backfill_short(operations: Operations, operation: BackfillShort) -> None:
    target = operation.target
    preconditions.check_stored(target)
    with committing(operations, "backfill_short") as connection:
        if connection is None:
            print_sql(operations, [printed_scripts.backfill_script(target)])
            return
        state = preconditions.check_there(connection, target)
        if _on_shards(connection, target) and state.shorts[target.short].kept_by == "trigger":
            preconditions.check_sees_all_rows(connection, target.owner)
            database.execute_plain(connection, distributing.fill_shards(target))
            return
        announce(connection, operation)
        throttle = backfill.Throttle(max_rows_per_second=operation.max_rows_per_second)
        backfill.backfill_on(connection, backfill.short_fill(connection, target), throttle, progress=ProgressLog())


@_implements(ValidateShort)
def _validate_short(operations: Operations, operation: ValidateShort) -> None:
    connection = connection_of(operations)
    preconditions.check_stored(operation.target)
    if connection is None:
        print_sql(operations, [printed_scripts.validate_script(operation.target)])
    else:
        validation.validate(connection, operation.target)


@_implements(MarkShort)
def _mark_short(operations: Operations, operation: MarkShort) -> None:
    connection = connection_of(operations)
    if connection is not None:
        state = table_state(connection, operation.schema, operation.table)
        if state is None or operation.short not in state.columns:
            log.info("%s.%s is gone already", operation.table, operation.short)  # contracted before this was run
            return
    _check_owner(operations, qualified(operation.schema, operation.table), creates=False)
    statement = steps.mark(operation.schema, operation.table, operation.short, operation.stage)
    run_in_migration(operations, [statement], qualified(operation.schema, operation.table), lock=False)


# -- indexes -------------------------------------------------------------------------------------------------------


@_implements(CreateShortIndex)
def _create_short_index(operations: Operations, operation: CreateShortIndex) -> None:
    target, build = operation.target, operation.build
    if not build.concurrently:
        _create_in_migration(operations, operation)
        return
    with committing(operations, "create_short_index") as connection:
        if connection is None:
            print_sql(operations, printed_scripts.index_script(target, operation.index, build, operation.name))
        else:
            preconditions.check_there(connection, target)
            announce(connection, operation)
            index_builds.build(connection, target, operation.index, build, name=operation.name, progress=ProgressLog())


def _create_in_migration(operations: Operations, operation: CreateShortIndex) -> None:
    target, index, connection = operation.target, operation.index, connection_of(operations)
    if connection is not None:
        preconditions.check_there(connection, target)
        index = filter_columns.completed(connection, target, index)
        if preconditions.has_index(connection, target, index, operation.index_name):
            return
        preconditions.check_owner(connection, target.owner)
    settings = [
        f"SELECT pg_catalog.set_config('{name}', '{value}', true)" for name, value in operation.build.settings()
    ]
    statement = index_statements.create_statement(target, index, concurrently=False, name=operation.name)
    run_in_migration(operations, [*settings, statement], target.owner, lock=False)


@_implements(DropShortIndex)
def _drop_short_index(operations: Operations, operation: DropShortIndex) -> None:
    name, concurrently = operation.index_name, operation.build.concurrently
    statement = index_statements.drop_statement(operation.schema, name, concurrently=concurrently)
    _check_owner(operations, qualified(operation.schema, name), creates=False)
    if not concurrently:
        run_in_migration(operations, [statement], operation.target.owner, lock=False)
        return
    with committing(operations, "drop_short_index") as connection:
        if connection is None:
            print_sql(operations, [statement])
        else:
            index_builds.drop(connection, operation.schema, name)


@_implements(RebuildShortIndex)
def _rebuild_short_index(operations: Operations, operation: RebuildShortIndex) -> None:
    target, build = operation.target, operation.build
    with committing(operations, "rebuild_short_index") as connection:
        if connection is None:
            print_sql(operations, printed_scripts.rebuild_script(target, operation.index, build))
        else:
            preconditions.check_there(connection, target)
            announce(connection, operation)
            index_builds.rebuild(connection, target, operation.index, build, progress=ProgressLog())


# -- Citus ---------------------------------------------------------------------------------------------------------


@_implements(DistributeTable)
def _distribute_table(operations: Operations, operation: DistributeTable) -> None:
    connection, owner = connection_of(operations), qualified(operation.schema, operation.table)
    if connection is None:
        statements = [distributing.create_distributed_table(owner, operation.by, operation.shards)]
    else:
        statements = distributing.distribution_statements(
            connection, operation.schema, operation.table, operation.by, operation.shards
        )
    run_in_migration(operations, statements, owner, lock=False)


@_implements(UndistributeTable)
def _undistribute_table(operations: Operations, operation: UndistributeTable) -> None:
    connection, owner = connection_of(operations), qualified(operation.schema, operation.table)
    if connection is not None and distributed_table(connection, owner) is None:
        return
    run_in_migration(operations, [distributing.undistribute_table(owner)], owner, lock=False)


# -- the full column, and side tables ------------------------------------------------------------------------------


@_implements(SetStorage)
def _set_storage(operations: Operations, operation: SetStorage) -> None:
    owner = qualified(operation.schema, operation.table)
    _check_owner(operations, owner, creates=False)
    run_in_migration(operations, [ddl.set_storage(owner, operation.column, operation.storage)], owner)


@_implements(KeepSide)
def _keep_side(operations: Operations, operation: KeepSide) -> None:
    statement = ddl.create_side_sync_triggers(
        operation.schema, operation.table, operation.side, operation.keys, operation.column
    )
    owner = qualified(operation.schema, operation.table)
    _check_owner(operations, owner)
    run_in_migration(operations, [statement], owner, lock=False)


@_implements(DropSide)
def _drop_side(operations: Operations, operation: DropSide) -> None:
    _check_owner(operations, qualified(operation.schema, operation.table), creates=False)
    statement = ddl.drop_side_sync_triggers(operation.schema, operation.side, operation.column)
    run_in_migration(operations, [statement], qualified(operation.schema, operation.table))


@_implements(KeepEmbedding)
def _keep_embedding(operations: Operations, operation: KeepEmbedding) -> None:
    place, connection = (operation.schema, operation.table, operation.column), connection_of(operations)
    owner = qualified(operation.schema, operation.table)
    _check_owner(operations, owner)
    changed = operation.previous is not None and operation.previous.by != operation.embed.by
    if connection is not None:
        database.require_schema(connection)
        query = text(
            "SELECT embedder FROM pgmrl.embeddings WHERE relation = to_regclass(:owner) AND embedding = :column"
        )
        embedder = database.catalogue_result(connection, query, {"owner": owner, "column": operation.column}).scalar()
        changed = embedder not in {None, operation.embed.by}
    statements = [keep_embedding_triggers(operation.embed, *place), queue_embeddings(*place, everything=changed)]
    run_in_migration(operations, statements, owner, lock=False)


@_implements(DropEmbedding)
def _drop_embedding(operations: Operations, operation: DropEmbedding) -> None:
    owner = qualified(operation.schema, operation.table)
    _check_owner(operations, owner, creates=False)
    statement = drop_embedding_triggers(operation.schema, operation.table, operation.column)
    run_in_migration(operations, [statement], owner, lock=False)


@_implements(KeepChunks)
def _keep_chunks(operations: Operations, operation: KeepChunks) -> None:
    place, connection = (operation.schema, operation.table), connection_of(operations)
    owner = qualified(*place)
    _check_owner(operations, owner)
    if connection is not None:
        database.require_schema(connection)
    statements = [keep_chunk_triggers(operation.chunks, *place), queue_chunks(*place)]
    run_in_migration(operations, statements, owner, lock=False)


@_implements(DropChunks)
def _drop_chunks(operations: Operations, operation: DropChunks) -> None:
    owner = qualified(operation.schema, operation.table)
    _check_owner(operations, owner, creates=False)
    run_in_migration(operations, [drop_chunk_triggers(operation.schema, operation.table)], owner, lock=False)


def _check_owner(operations: Operations, owner: str, *, creates: bool = True) -> None:
    connection = connection_of(operations)
    if connection is not None:
        preconditions.check_owner(connection, owner, creates=creates)


# -- SQL functions -------------------------------------------------------------------------------------------------


@_implements(InstallFunctions)
def _install_functions(operations: Operations, operation: InstallFunctions) -> None:
    vector_schema = database.vector_schema_of(operations.migration_context)
    searched = operation.searched_column(default_schema(operations), vector_schema)
    connection = connection_of(operations)
    if connection is None:
        print_sql(operations, printed_statements(searched, Hnsw()))
    else:
        installed.install(connection, searched, Hnsw())


@_implements(DropFunctions)
def _drop_functions(operations: Operations, operation: DropFunctions) -> None:
    connection, schema = connection_of(operations), operation.schema or default_schema(operations)
    if connection is None:
        print_sql(operations, [drop_statement(schema, operation.name)])
    elif not installed.drop(connection, schema, operation.name):
        log.info("functions %s.%s_… are gone already", schema, operation.name)
