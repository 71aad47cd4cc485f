"""One run of autogenerate on one database: all rules, and their operations in an order that can be run."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from alembic.operations import ops
from pgvector.sqlalchemy import HALFVEC, VECTOR
from sqlalchemy import Table, text
from sqlalchemy.types import NullType

from pgmrl import database
from pgmrl.alembic.autogenerate.alembic_operation_rules import with_unseen_changes, without_shorts
from pgmrl.alembic.autogenerate.chunk_rules import chunk_changes, installed_chunks
from pgmrl.alembic.autogenerate.compared_tables import (
    DeclaredFull,
    DeclaredShort,
    DeclaredSide,
    DeclaredTable,
    attachments,
    column_named,
    declared_index_names,
)
from pgmrl.alembic.autogenerate.embedding_rules import embedding_changes, installed_embeddings
from pgmrl.alembic.autogenerate.function_rules import function_changes
from pgmrl.alembic.autogenerate.prerequisites import commits, done_by_upgrade, needs_schema, rotations_used
from pgmrl.alembic.autogenerate.rendering import NewRotation
from pgmrl.alembic.autogenerate.short_column_rules import table_changes
from pgmrl.alembic.autogenerate.side_table_rules import side_changes, side_repairs
from pgmrl.alembic.operations import (
    BackfillShort,
    CreateShortIndex,
    DropSide,
    InstallRotation,
    KeepSide,
    OneWay,
    PgmrlOperation,
    UpgradePgmrl,
)
from pgmrl.database.function_sets import installed_markers
from pgmrl.database.job_log import log
from pgmrl.database.printed_predicates import printed_index
from pgmrl.database.search_path import catalogue_result
from pgmrl.database.table_state import TableState, table_state
from pgmrl.errors import MigrationError, RotationError
from pgmrl.model.columns import INFO_KEY, Attachment, Matryoshka
from pgmrl.model.hnsw import Hnsw

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from alembic.autogenerate.api import AutogenContext
    from alembic.operations import MigrateOperation

    from pgmrl.alembic.autogenerate.compared_tables import ComparedTable
    from pgmrl.model.rotation import Rotation

__all__ = ["Comparison"]

ROTATIONS: Final = "rotations"  # a folder beside the application's migrations


class Comparison:
    """One run of autogenerate on one database.

    Args:
        context: Alembic's.
        tables: those that passed the application's filters.

    Raises:
        MigrationError: the context has no connection.
    """

    def __init__(self, context: AutogenContext, tables: list[ComparedTable]) -> None:
        if context.connection is None:
            raise MigrationError("autogenerate needs a connection: configure the context with one")
        self.context = context
        self.connection = context.connection
        self.online = bool(context.opts.get("pgmrl_online"))
        self.tables = tables

    @cached_property
    def has_pgvector(self) -> bool:
        """Whether the database has pgvector."""
        query = text("SELECT count(*) = 1 FROM pg_extension WHERE extname = 'vector'")
        return bool(catalogue_result(self.connection, query).scalar_one())

    @property
    def default_schema(self) -> str:
        """The schema of tables that name none."""
        return self.connection.dialect.default_schema_name or "public"

    def run(self, upgrade: ops.UpgradeOps) -> None:
        """Change the list of operations in place."""
        for table in self.tables:
            table.state = self._state(table)
            declared = None if table.model is None else self._declared(table.model, table.reflected)
            table.changes = table_changes(table.declared_schema, table.name, declared, table.state, online=self.online)
            _check_key(table)
            table.repair_types()
        kept, dropped, repaired = self._side_changes()
        first, last = self._move_side_indexes(kept, dropped)
        body = self._merge(self._drop_sides_first(upgrade.ops, dropped))
        markers = installed_markers(self.connection)
        old_functions, new_functions = function_changes(self.tables, markers, self.default_schema)
        unmarked, marked = embedding_changes(self.tables, installed_embeddings(self.connection), self.default_schema)
        uncut, cut = chunk_changes(self.tables, installed_chunks(self.connection), self.default_schema)
        operations = [
            *old_functions, *uncut, *unmarked, *first, *dropped, *body, *kept, *repaired, *last, *marked, *cut,
            *new_functions,
        ]  # fmt: skip
        _warn_of_commits(operations)
        upgrade.ops = [*self._prerequisites(operations), *operations]
        pgmrls = [operation for operation in upgrade.ops if isinstance(operation, PgmrlOperation)]
        for done in done_by_upgrade(pgmrls):
            log.info("Detected %s %r", done.to_diff_tuple()[0], getattr(done, "table", ""))

    # -- the two sides of the comparison ------------------------------------------------------------------------

    def _state(self, table: ComparedTable) -> TableState | None:
        if table.reflected is None:
            return None
        if not self.has_pgvector:  # no column can be of its types
            return TableState(table.schema or "", table.name, False, {}, {}, {}, (), ())
        vectors = any(isinstance(column.type, VECTOR | HALFVEC | NullType) for column in table.reflected.columns)
        if not vectors and not table.declared_attachments:
            return None
        return table_state(self.connection, table.schema, table.name)

    def _declared(self, model: Table, reflected: Table | None) -> DeclaredTable:
        fulls, shorts = [], []
        for attachment in attachments(model):
            definition, type_ = attachment.definition, column_named(model, attachment.full).type
            storage = type_.storage if isinstance(type_, Matryoshka) else None
            fulls.append(DeclaredFull(attachment.full, f"{definition.full}({definition.dims})", storage))
            if attachment.short is not None:
                named = {index.index_name(model.name, attachment.short): index for index in attachment.indexes}
                kept = [named[name] for name in named.keys() & _items(model, "index").keys()]
                indexes = tuple(self._printed(model, reflected, index) for index in attachment.indexes if index in kept)
                shorts.append(DeclaredShort(attachment.full, definition, indexes, attachment.filters))
        names = frozenset(str(column.name) for column in model.columns)
        existing_indexes = frozenset() if reflected is None else frozenset(_items(reflected, "index"))
        hidden = frozenset(self._hidden(model, reflected))
        own_indexes = frozenset(_items(model, "index")) - declared_index_names(model)
        return DeclaredTable(names, tuple(fulls), tuple(shorts), hidden, existing_indexes, own_indexes)

    def _printed(self, model: Table, reflected: Table | None, index: Hnsw) -> Hnsw:
        """A declared index with its condition as the server prints that of the existing one."""
        if reflected is None:
            return index
        pending = _items(model, "column").keys() - _items(reflected, "column").keys()
        return printed_index(self.connection, reflected.schema, str(reflected.name), index, pending=pending)

    def _hidden(self, model: Table, reflected: Table | None) -> Iterator[str]:
        """Columns and indexes that `include_name` or `include_object` leave out."""
        parents: Any = {"table_name": model.name, "schema_name": model.schema}
        for kind in ("column", "index"):
            declared, existing = _items(model, kind), {} if reflected is None else _items(reflected, kind)
            for name in declared.keys() | existing.keys():
                if name in existing and not self.context.run_name_filters(name, kind, dict(parents)):
                    yield name
                    continue
                is_reflected = name not in declared
                item, other = (existing[name], None) if is_reflected else (declared[name], existing.get(name))
                if not self.context.run_object_filters(item, name, kind, is_reflected, other):
                    yield name

    # -- side tables --------------------------------------------------------------------------------------------

    def _side_changes(self) -> tuple[list[KeepSide], list[DropSide], list[OneWay]]:
        """The triggers to install, to remove, and to install once more."""
        kept: list[KeepSide] = []
        dropped: list[DropSide] = []
        repaired: list[OneWay] = []
        for table in self.tables:
            existing = table.state.sides if table.state is not None else ()
            keys = [] if table.reflected is None else [str(key.name) for key in table.reflected.primary_key.columns]
            declared = [] if table.model is None else list(self._declared_sides(table.model))
            new, old = side_changes(table.declared_schema, table.name, declared, existing, keys)
            kept += new
            dropped += old
            repaired += side_repairs(table.declared_schema, table.name, declared, existing)
        return kept, dropped, repaired

    def _declared_sides(self, model: Table) -> Iterator[DeclaredSide]:
        compared = {table.model for table in self.tables if table.model is not None}
        for column in model.columns:
            attachment = column.info.get(INFO_KEY)
            if not isinstance(attachment, Attachment) or not attachment.side:
                continue
            side = model.metadata.tables.get(attachment.side)
            if side is not None and side in compared:
                keys = tuple(str(key.name) for key in model.primary_key.columns)
                yield DeclaredSide(str(side.name), keys, str(column.name))

    def _move_side_indexes(
        self, kept: Sequence[KeepSide], dropped: Sequence[DropSide]
    ) -> tuple[list[MigrateOperation], list[MigrateOperation]]:
        """The indexes of side tables, first and last: built when the copy is there, in both directions."""
        first: list[MigrateOperation] = []
        last: list[MigrateOperation] = []
        owners = {}
        for operation in kept:
            owners[self._key(operation.schema, operation.side)] = self._key(operation.schema, operation.table)
        dropped_sides = {self._key(operation.schema, operation.side) for operation in dropped}
        existing = {table.key for table in self.tables if table.reflected is not None}
        for table in self.tables:
            changes = table.changes
            if table.key in owners and table.reflected is None:
                owner_exists = owners[table.key] in existing
                last += map(_concurrently, changes.indexes) if owner_exists else changes.indexes
                changes.indexes = []
                changes.repeatable = owner_exists
            if table.key in dropped_sides and table.model is None:
                first += map(_concurrently, changes.restores)
                changes.restores = []
        return first, last

    def _drop_sides_first(
        self, operations: Sequence[MigrateOperation], dropped: Sequence[DropSide]
    ) -> list[MigrateOperation]:
        """Alembic drops tables in any order; a side table refers to its owner and goes before it."""
        sides = {self._key(operation.schema, operation.side) for operation in dropped}
        removed = {table.key for table in self.tables if table.model is None and table.key in sides}
        return sorted(operations, key=lambda operation: self._table_of(operation) not in removed)

    # -- Alembic's own operations -------------------------------------------------------------------------------

    def _merge(self, alembics: Sequence[MigrateOperation]) -> list[MigrateOperation]:
        """Alembic's operations without those on short columns, and pgmrl's around them."""
        tables = {table.key: table for table in self.tables}
        waiting = dict(tables)
        merged: list[MigrateOperation] = []
        for operation in alembics:
            key = self._table_of(operation)
            table = tables.get(key) if key is not None else None
            rest = without_shorts(operation, table)
            if table is None or waiting.pop(table.key, None) is None:  # none of ours, or its changes are there already
                merged += rest
                continue
            if isinstance(operation, ops.ModifyTableOps) and table.model is not None and table.reflected is not None:
                rest = with_unseen_changes(operation, table)
            merged += table.changes.around(rest)
        for table in waiting.values():
            unseen = with_unseen_changes(None, table)
            merged += table.changes.around(unseen)
        return merged

    def _table_of(self, operation: MigrateOperation) -> tuple[str | None, str] | None:
        if not isinstance(operation, ops.ModifyTableOps | ops.CreateTableOp | ops.DropTableOp):
            return None
        return self._key(operation.schema, operation.table_name)

    def _key(self, schema: str | None, table: str) -> tuple[str | None, str]:
        """A table as Alembic names it: without a schema in the default one."""
        return (None if schema == self.default_schema else schema, str(table))

    # -- what comes first ---------------------------------------------------------------------------------------

    def _prerequisites(self, operations: Sequence[MigrateOperation]) -> list[MigrateOperation]:
        """pgvector, pgmrl's schema and rotations, as far as they are not there."""
        first: list[MigrateOperation] = []
        if not self.has_pgvector and any(table.changes.all for table in self.tables):
            first.append(OneWay(ops.ExecuteSQLOp("CREATE EXTENSION IF NOT EXISTS vector")))
        if needs_schema(operations):
            revision = database.installed_revision(self.connection)
            if revision != database.NEWEST_REVISION:
                first.append(UpgradePgmrl(database.NEWEST_REVISION, revision))
        rotations = rotations_used(operations)
        installed = database.installed_rotations(self.connection) if rotations else []
        return [*first, *(self._install(rotation) for rotation in rotations if rotation.id not in installed)]

    def _install(self, rotation: Rotation) -> MigrateOperation:
        script = self.context.migration_context.script
        path = f"{ROTATIONS}/{rotation.id}.npy"
        if script is not None and (Path(script.dir) / path).exists():
            return InstallRotation(path)
        if rotation.axes is None:
            raise RotationError(
                f"rotation {rotation.id} is not in this database, and the model has only its id: say "
                f"Rotation.load(<file that `pgmrl fit-rotation` wrote>) in the model, or put that file to {path} "
                "beside the migrations"
            )
        if script is None:
            raise RotationError(f"rotation {rotation.id} is not in this database: install it with `pgmrl fit-rotation`")
        return NewRotation(path, rotation, Path(script.dir) / ROTATIONS)


def _check_key(table: ComparedTable) -> None:
    """Say now that a table cannot be filled in batches, and not in the middle of its migration.

    Raises:
        MigrationError: it has no primary key.
    """
    if table.reflected is None or len(table.reflected.primary_key.columns):
        return
    if any(isinstance(operation, BackfillShort) for operation in done_by_upgrade(table.changes.all)):
        raise MigrationError(
            f"table {table.name} has no primary key, by which a backfill goes: give it one, or add the short column "
            "without pgmrl_online"
        )


def _warn_of_commits(operations: Sequence[MigrateOperation]) -> None:
    """A migration that commits before its end is run again from its start after a failure."""
    last = max((n for n, operation in enumerate(operations) if commits(operation)), default=0)
    before = [
        inner
        for operation in operations[:last]
        for inner in (operation.ops if isinstance(operation, ops.OpContainer) else [operation])
    ]
    names = [
        type(operation).__name__
        for operation in before
        if type(operation).__module__ == ops.__name__ and not _is_repeatable(operation)
    ]
    if names:
        log.warning(
            "this migration commits before its end (concurrent indexes, backfills). Should it fail after that, %s "
            "would run a second time: give what is not pgmrl's a revision of its own",
            ", ".join(dict.fromkeys(names)),
        )


def _is_repeatable(operation: MigrateOperation) -> bool:
    return isinstance(operation, ops.AlterColumnOp) or bool(getattr(operation, "if_not_exists", False))


def _items(table: Table, kind: str) -> dict[str, Any]:
    items: Any = table.columns if kind == "column" else table.indexes
    return {str(item.name): item for item in items if item.name is not None}


def _concurrently(operation: MigrateOperation) -> MigrateOperation:
    if isinstance(operation, OneWay) and isinstance(operation.operation, CreateShortIndex):
        index = operation.operation
        return replace(operation, operation=replace(index, build=replace(index.build, concurrently=True)))
    return operation
