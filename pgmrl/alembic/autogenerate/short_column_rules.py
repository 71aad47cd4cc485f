"""The rules for full and short columns and their indexes; pure, without a database.

Order within a table: what stands in the way of Alembic's own operations (`before`), those, then what needs them
(`after`), the indexes, and last what is no longer declared. A new short column is therefore searchable before the old
one goes, and the downgrade is the same in reverse.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, cast

from pgmrl.alembic.autogenerate.compared_tables import Changes
from pgmrl.alembic.autogenerate.filter_index_rules import (
    filter_index_changes,
    new_filter_indexes,
    restored_filter_indexes,
)
from pgmrl.alembic.operations import (
    AddShort,
    AlterShort,
    BackfillShort,
    CreateShortIndex,
    DropShort,
    DropShortIndex,
    MarkShort,
    OneWay,
    RebuildShortIndex,
    SetStorage,
    ValidateShort,
)
from pgmrl.model.ddl import rule_of
from pgmrl.model.hnsw import is_index_name
from pgmrl.model.metrics import METRICS
from pgmrl.online.index_statements import Build

if TYPE_CHECKING:
    from collections.abc import Iterable

    from alembic.operations import MigrateOperation

    from pgmrl.alembic.autogenerate.compared_tables import DeclaredFull, DeclaredShort, DeclaredTable
    from pgmrl.alembic.operations.short_operations import Stage
    from pgmrl.database.index_states import IndexState
    from pgmrl.database.table_state import ShortState, TableState
    from pgmrl.model.ddl import Storage
    from pgmrl.model.hnsw import Hnsw
    from pgmrl.model.shortening import Definition

__all__ = ["table_changes"]

USUAL_STORAGE: Final = "external"  # of pgvector's types, which a new column and one of a new type have
VECTOR_TYPES: Final = frozenset({"vector", "halfvec"})


def table_changes(
    schema: str | None, table: str, declared: DeclaredTable | None, state: TableState | None, *, online: bool = False
) -> Changes:
    """The operations that bring a table to what the model declares.

    Args:
        schema: of the table, as the migration shall say it.
        table: its name.
        declared: what the model declares; None where it no longer has the table.
        state: what the database has; None where it does not have the table yet.
        online: for tables in use: plain columns with triggers, filled in batches, old ones marked and not dropped.
    """
    if declared is None:
        return _DroppedTable(schema, table).changes(state) if state is not None else Changes()
    if state is None:
        return _NewTable(schema, table).changes(declared)
    return _ExistingTable(schema, table, declared, state, online).result()


@dataclass(frozen=True, slots=True)
class _TableOperations:
    """Operations on one table."""

    schema: str | None
    table: str

    def storage(self, column: str, storage: str, previous: str = USUAL_STORAGE) -> SetStorage:
        return SetStorage(self.table, column, cast("Storage", storage), previous, self.schema)

    def add(self, full: str, definition: Definition, *, online: bool = False) -> AddShort:
        return AddShort(self.table, full, definition, self.schema, online)

    def index(
        self, full: str, definition: Definition, index: Hnsw, *, concurrently: bool = True, name: str | None = None
    ) -> CreateShortIndex:
        return CreateShortIndex(self.table, full, definition, self.schema, index, Build(concurrently), name)

    def mark(self, short: str, stage: str | None, previous: str | None) -> MarkShort:
        stages = cast("tuple[Stage | None, Stage | None]", (stage, previous))
        return MarkShort(self.table, short, *stages, schema=self.schema)

    def fill(self, full: str, definition: Definition) -> list[MigrateOperation]:
        where = (self.table, full, definition, self.schema)
        return [OneWay(BackfillShort(*where)), OneWay(ValidateShort(*where))]

    def drop(self, short: ShortState, *, concurrently: bool = True) -> list[MigrateOperation]:
        """Drop a short column; the downgrade makes it as it was: kept the same way, filled, indexed, marked."""
        definition, by_trigger = _unnamed(short), _added_online(short)
        operations: list[MigrateOperation] = []
        if short.stage:
            operations.append(OneWay(self.mark(short.short, short.stage, None), downgrade=True))
        for index in _own_indexes(short, self.table):
            created = self.drop_index(short, index, concurrently=concurrently).reverse()
            operations.append(OneWay(created, downgrade=True))
        if by_trigger and concurrently:
            operations += [operation.reverse() for operation in reversed(self.fill(short.full, definition))]
        previous = self.add(short.full, definition, online=by_trigger)
        return [*operations, DropShort(self.table, short.short, self.schema, previous)]

    def filter_indexes(
        self, short: ShortState, application: frozenset[str] = frozenset(), *, concurrently: bool = True
    ) -> list[MigrateOperation]:
        """For the downgrade: the covering indexes of a short column that is dropped, when all columns are back."""
        where = (self.schema, self.table, short, _unnamed(short), application)
        return restored_filter_indexes(*where, concurrently=concurrently)

    def drop_index(self, short: ShortState, index: IndexState, *, concurrently: bool = True) -> DropShortIndex:
        """Drop an index of short vectors, whoever named it."""
        name = None if index.name == index.index.index_name(self.table, short.short) else index.name
        definition = _for_index(_unnamed(short), index)
        return self.index(short.full, definition, index.index, concurrently=concurrently, name=name).reverse()

    def restore_storage(self, state: TableState, columns: Iterable[str]) -> list[MigrateOperation]:
        """For the downgrade: a column that is added again, or of its old type again, is stored as it was."""
        fulls = [state.columns[name] for name in sorted(columns) if name not in state.shorts]
        return [
            OneWay(self.storage(column.name, column.storage), downgrade=True)
            for column in fulls
            if column.kind in VECTOR_TYPES and column.storage != USUAL_STORAGE
        ]


@dataclass(frozen=True, slots=True)
class _NewTable(_TableOperations):
    """A table that does not exist yet: it is empty, and its migration stays in one transaction."""

    def changes(self, declared: DeclaredTable) -> Changes:
        changes = Changes()
        for full in declared.fulls:
            if full.storage not in {None, USUAL_STORAGE}:
                changes.after.append(OneWay(self.storage(full.name, str(full.storage))))
        for short in declared.shorts:
            if short.definition.has_column:
                added = self.add(short.full, short.definition)
                # dropping the table leaves a trigger's function behind
                changes.after.append(OneWay(added) if rule_of(short.definition) == "prefix" else added)
            for index in short.indexes:
                if index.index_name(self.table, short.name) not in declared.hidden:
                    created = self.index(short.full, short.definition, index, concurrently=False)
                    changes.indexes.append(OneWay(created))
            where = (self.schema, self.table)
            changes.indexes += new_filter_indexes(*where, short, declared.hidden, concurrently=False)
        return changes


@dataclass(frozen=True, slots=True)
class _DroppedTable(_TableOperations):
    """A table that the model no longer has."""

    def changes(self, state: TableState) -> Changes:
        changes = Changes(dropped=set(state.shorts))
        for short in state.shorts.values():
            if short.kept_by == "index":
                drops = [self.drop_index(short, index, concurrently=False) for index in short.indexes]
                changes.restores += [OneWay(drop.reverse(), downgrade=True) for drop in drops]
                continue
            *restores, dropped = self.drop(short, concurrently=False)
            changes.restores += restores + self.filter_indexes(short, concurrently=False)
            forward = short.kept_by == "trigger"
            changes.before.append(dropped if forward else OneWay(dropped.reverse(), downgrade=True))
        changes.before += self.restore_storage(state, state.columns)
        return changes


@dataclass(frozen=True, slots=True)
class _ExistingTable(_TableOperations):
    """A table that is there and stays."""

    declared: DeclaredTable
    state: TableState
    online: bool
    changes: Changes = field(default_factory=Changes)

    def result(self) -> Changes:
        columns, declared = self.state.columns, self.declared
        self.changes.retyped |= {
            full.name for full in declared.fulls if full.name in columns and columns[full.name].type != full.type
        }
        # a full column that another one stands for is dropped by `pgmrl reshape contract`
        moving = self.changes.retyped | (set(columns) - declared.columns - self.state.mirrored)
        self._drop_shorts_of(moving)
        for full in declared.fulls:
            self._full(full)
        for short in declared.shorts:
            if short.name not in declared.hidden:
                self._short(short)
        self._drop_undeclared()
        self.changes.repeatable = self.online
        return self.changes

    def _drop_shorts_of(self, fulls: set[str]) -> None:
        """Short columns go before the full ones they are computed from change their type or go."""
        shorts = self.state.shorts
        for short in shorts.values():
            if short.full not in fulls or short.short in self.declared.hidden:
                continue
            self.changes.dropped.add(short.short)
            if short.kept_by == "index":  # an ALTER of the column would build it anew under its lock
                self.changes.before += [self.drop_index(short, index) for index in self._own_indexes(short)]
            else:
                *restores, dropped = self.drop(short)
                self.changes.restores += restores + self.filter_indexes(short, self.declared.indexes)
                self.changes.before.append(dropped)
        self.changes.before += self.restore_storage(self.state, (name for name in fulls if name not in shorts))

    def _full(self, declared: DeclaredFull) -> None:
        column = self.state.columns.get(declared.name)
        fresh = column is None or declared.name in self.changes.retyped
        previous = USUAL_STORAGE if column is None or fresh else column.storage
        if declared.storage is None or declared.storage == previous:
            return
        operation = self.storage(declared.name, declared.storage, previous)
        self.changes.after.append(OneWay(operation) if fresh else operation)

    def _short(self, declared: DeclaredShort) -> None:
        existing = self.state.shorts.get(declared.name)
        if declared.name in self.changes.dropped or (existing is None and declared.name not in self.state.columns):
            self._add(declared)
        elif existing is None:
            self._repair(declared)  # nothing keeps it in step, or another column is in the way: `add_short` says which
            self._add_indexes(declared, but=self.declared.existing_indexes)
        elif existing.is_for(declared.full, declared.definition):
            self._keep(declared, existing)
        else:
            self._replace(declared, existing)

    def _add(self, declared: DeclaredShort) -> None:
        if not declared.definition.has_column:
            self._add_indexes(declared)
            return
        self.changes.after.append(self.add(declared.full, declared.definition, online=self.online))
        if self.online:
            self.changes.after += self.fill(declared.full, declared.definition)
        self._add_indexes(declared)

    def _add_indexes(self, declared: DeclaredShort, but: frozenset[str] = frozenset()) -> None:
        # without a vector yet it takes a moment: the migration stays one transaction
        has_vectors = declared.full in self.state.columns or self.online
        goes_with_column = declared.definition.has_column or declared.full not in self.state.columns
        for index in declared.indexes:
            if index.index_name(self.table, declared.name) not in self.declared.hidden | but:
                created = self.index(declared.full, declared.definition, index, concurrently=has_vectors)
                self.changes.indexes.append(OneWay(created) if goes_with_column else created)
        where = (self.schema, self.table, declared, self.declared.hidden | but)
        self.changes.indexes += new_filter_indexes(*where, concurrently=has_vectors)

    def _repair(self, declared: DeclaredShort) -> None:
        # online in any case: the column is there, and only its triggers are missing
        self.changes.after.append(OneWay(self.add(declared.full, declared.definition, online=True)))
        self.changes.after += self.fill(declared.full, declared.definition)

    def _keep(self, declared: DeclaredShort, existing: ShortState) -> None:
        if existing.kept_by == "index":
            self._keep_indexes(declared, existing)
            return
        after = self.changes.after
        trigger = self.state.sync_triggers.get(existing.short)
        if existing.kept_by == "trigger" and (trigger is None or not trigger.complete):
            self._repair(declared)
        elif existing.kept_by == "trigger" and existing.definition.metric != declared.definition.metric:
            # the trigger's arguments say the metric to those who have no model
            online = rule_of(declared.definition) == "prefix"
            after.append(OneWay(self.add(declared.full, _unnamed(existing), online=online), downgrade=True))
            after.append(OneWay(self.add(declared.full, declared.definition, online=online)))
        column = self.state.columns[existing.short]
        if declared.definition.short.type != "bit" and column.storage != "main":
            after.append(self.storage(existing.short, "main", column.storage))
        if existing.stage and existing.full not in self.state.mirrored:
            self.changes.drops.append(self.mark(existing.short, None, existing.stage))
        self._keep_indexes(declared, existing)
        filter_index_changes(self.schema, self.table, declared, existing, self.declared, self.changes)

    def _keep_indexes(self, declared: DeclaredShort, existing: ShortState) -> None:
        """Make what is declared and not there, and drop what is there and not declared.

        An index that was made by hand on an expression, after pgvector's README say, is as good as ours, and so is one
        of ours for the same rows whose condition was spelled otherwise.
        """
        own = [index for index in _own_indexes(existing, self.table) if index.name not in self.declared.hidden]
        by_hand = existing.kept_by == "index" and bool(declared.indexes)
        kept = set()
        for index in declared.indexes:
            name = index.index_name(self.table, declared.name)
            candidates = sorted(existing.indexes if by_hand else own, key=lambda state, ours=name: state.name != ours)
            serving = next((state for state in candidates if _serves(state, declared, index)), None)
            kept.add(name if serving is None else serving.name)
            if serving is None and name not in self.declared.hidden:
                self._make_index(declared, index, existing)
        undeclared = [
            index
            for index in (self._own_indexes(existing) if by_hand else own)
            if index.name not in kept and index.builder is None
        ]
        for state in undeclared:
            drops = self.changes.drops if by_hand else self.changes.indexes
            if state.index.predicate is not None and set(self.state.columns) - self.declared.columns:
                drops = self.changes.before  # a column that goes takes it along; the downgrade needs the column first
            drops.append(self.drop_index(existing, state))

    def _make_index(self, declared: DeclaredShort, index: Hnsw, existing: ShortState) -> None:
        """Create an index, or make it anew where its name has another one."""
        name = index.index_name(self.table, declared.name)
        present = next((state for state in existing.indexes if state.name == name), None)
        if present is not None and present.builder is not None:
            return  # being built now
        if present is not None and present.index.predicate == index.predicate:
            self._rebuild_index(declared, index, present)
            return
        if present is not None:
            self.changes.indexes.append(self.drop_index(existing, present))
        self.changes.indexes.append(self.index(declared.full, declared.definition, index))

    def _own_indexes(self, short: ShortState) -> list[IndexState]:
        """The indexes of short vectors that no column holds, without those that the application declares or hides."""
        application = self.declared.indexes | self.declared.hidden
        return [index for index in short.indexes if index.name not in application]

    def _rebuild_index(self, declared: DeclaredShort, index: Hnsw, existing: IndexState) -> None:
        operator_class = declared.definition.metric.operator_class(declared.definition.short.type)
        same_class, same_parameters = existing.operator_class == operator_class, existing.index == index
        if same_class and same_parameters and existing.valid:
            return
        rebuilt = RebuildShortIndex(
            self.table,
            declared.full,
            declared.definition,
            self.schema,
            index,
            previous=None if same_parameters else replace(existing.index, where=index.declared),
            previous_definition=None if same_class else _for_index(declared.definition, existing),
        )
        self.changes.indexes.append(OneWay(rebuilt) if same_class and same_parameters else rebuilt)

    def _replace(self, declared: DeclaredShort, existing: ShortState) -> None:
        """The same name with another meaning."""
        self.changes.dropped.add(existing.short)
        *restores, dropped = self.drop(existing)
        self.changes.restores += self.filter_indexes(existing, self.declared.indexes)
        in_place = not _added_online(existing) and not self.online and existing.full == declared.full
        if in_place:
            altered = AlterShort(self.table, declared.full, declared.definition, self.schema, _unnamed(existing))
            self.changes.after += [*restores, altered]
            self._add_indexes(declared)
        else:
            self.changes.after += [*restores, dropped]
            self._add(declared)

    def _drop_undeclared(self) -> None:
        keep = {short.name for short in self.declared.shorts} | self.declared.hidden | self.changes.dropped
        served = {short.full for short in self.declared.shorts}
        for short in self.state.shorts.values():
            if short.short in keep or short.stage is not None or short.full in self.state.mirrored:
                continue
            if short.kept_by == "index":
                if not (self.online and short.full in served):  # online it serves the old code until it is gone
                    self.changes.drops += [self.drop_index(short, index) for index in self._own_indexes(short)]
            elif self.online and short.full in served:
                self.changes.drops.append(self.mark(short.short, "retired", None))
            else:
                self.changes.drops += self.drop(short)
                self.changes.restores += self.filter_indexes(short, self.declared.indexes)
                self.changes.dropped.add(short.short)


def _added_online(short: ShortState) -> bool:
    """Whether it is a prefix that a trigger keeps."""
    return short.kept_by == "trigger" and rule_of(short.definition) == "prefix"


def _unnamed(short: ShortState) -> Definition:
    """Its definition, without a name where that is the usual one."""
    definition = short.definition
    unnamed = replace(definition, short=replace(definition.short, name=None))
    return unnamed if unnamed.short_name(short.full) == short.short else definition


def _own_indexes(short: ShortState, table: str) -> list[IndexState]:
    """The indexes that are pgmrl's by their names; others are the application's own."""
    return [index for index in short.indexes if is_index_name(index.name, table, short.short)]


def _serves(existing: IndexState, declared: DeclaredShort, index: Hnsw) -> bool:
    """Whether an index is what is declared, or becomes it when its build is over."""
    operator_class = declared.definition.metric.operator_class(declared.definition.short.type)
    usable = existing.valid or existing.builder is not None
    return usable and (existing.operator_class, existing.index) == (operator_class, index)


def _for_index(definition: Definition, index: IndexState) -> Definition:
    """The definition with the metric that an index's operator class is for."""
    short_type = definition.short.type
    metrics = [metric for metric in METRICS.values() if metric.operator_class(short_type) == index.operator_class]
    if not metrics or definition.metric in metrics:
        return definition
    return replace(definition, metric=metrics[0])
