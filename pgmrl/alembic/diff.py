"""From what a model declares and what a table has to the operations between them; pure, without a database.

Order within a table: what stands in the way of Alembic's own operations (`before`), those, then what needs them
(`after`), the indexes, and last what is no longer wanted. A new short column is therefore searchable before the old
one goes, and the way back is the same in reverse.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Literal, cast

from pgmrl.alembic.operations import (
    AddShort,
    AlterShort,
    BackfillShort,
    CreateShortIndex,
    DropShort,
    MarkShort,
    OneWay,
    RebuildShortIndex,
    SetStorage,
    ValidateShort,
)
from pgmrl.model.ddl import rule_of
from pgmrl.model.hnsw import Hnsw
from pgmrl.model.metrics import METRICS
from pgmrl.online.index_builds import Build

if TYPE_CHECKING:
    from collections.abc import Iterable

    from alembic.operations import MigrateOperation

    from pgmrl.database.table_state import ColumnState, ShortState, TableState
    from pgmrl.model.ddl import Storage
    from pgmrl.model.shortening import Definition
    from pgmrl.online.index_builds import IndexState

__all__ = [
    "Changes",
    "WantedFull",
    "WantedShort",
    "WantedTable",
    "diff",
]

USUAL: Final = "external"  # the storage of pgvector's types, which a new column and one of a new type have
VECTORS: Final = frozenset({"vector", "halfvec"})
Stage = Literal["arriving", "retired"]


@dataclass(frozen=True, slots=True)
class WantedFull:
    """A full column as the model declares it.

    Attributes:
        name: its name.
        type: such as `halfvec(768)`.
        storage: None where the model does not say.
    """

    name: str
    type: str
    storage: Storage | None = None


@dataclass(frozen=True, slots=True)
class WantedShort:
    """A short column as the model declares it.

    Attributes:
        full: the full column's name.
        definition: full and short vector.
        index: of the short column; None for none.
    """

    full: str
    definition: Definition
    index: Hnsw | None

    @property
    def name(self) -> str:
        """The short column's name."""
        return self.definition.short_name(self.full)


@dataclass(frozen=True, slots=True)
class WantedTable:
    """What the model declares of one table.

    Attributes:
        columns: the names of all its columns.
        fulls: full columns.
        shorts: short columns.
        hidden: short columns and indexes that the application's filters leave out.
        indexed: the names of the indexes that the table has.
    """

    columns: frozenset[str]
    fulls: tuple[WantedFull, ...] = ()
    shorts: tuple[WantedShort, ...] = ()
    hidden: frozenset[str] = frozenset()
    indexed: frozenset[str] = frozenset()


@dataclass(slots=True)
class Changes:
    """Operations on one table, in their order.

    Attributes:
        restores: indexes of columns that `before` drops; for the way back only.
        before: ahead of Alembic's own operations on the table.
        after: behind them.
        indexes: of new short columns.
        drops: of what is no longer wanted.
        retyped: full columns whose type Alembic has to change.
        lost: short columns that go, with whatever indexes they have.
        repeated: the migration commits before its end, so that its own additions have to bear a second run.
    """

    restores: list[MigrateOperation] = field(default_factory=list)
    before: list[MigrateOperation] = field(default_factory=list)
    after: list[MigrateOperation] = field(default_factory=list)
    indexes: list[MigrateOperation] = field(default_factory=list)
    drops: list[MigrateOperation] = field(default_factory=list)
    retyped: set[str] = field(default_factory=set)
    lost: set[str] = field(default_factory=set)
    repeated: bool = False

    @property
    def all(self) -> list[MigrateOperation]:
        """All operations."""
        return [*self.restores, *self.before, *self.after, *self.indexes, *self.drops]


def diff(
    schema: str | None, table: str, wanted: WantedTable | None, state: TableState | None, *, online: bool = False
) -> Changes:
    """The operations that bring a table to what the model declares.

    Args:
        schema: of the table, as the migration shall say it.
        table: its name.
        wanted: what the model declares; None where it no longer has the table.
        state: what the database has; None where it does not have the table yet.
        online: for tables in use: plain columns with triggers, filled in batches, old ones marked and not dropped.
    """
    if wanted is None:
        return _Gone(schema, table).changes(state) if state is not None else Changes()
    if state is None:
        return _New(schema, table).changes(wanted)
    return _Changed(schema, table, wanted, state, online).changes()


@dataclass(frozen=True, slots=True)
class _Place:
    schema: str | None
    table: str

    def storage(self, column: str, storage: str, was: str = USUAL) -> SetStorage:
        return SetStorage(self.table, column, cast("Storage", storage), was, self.schema)

    def add(self, full: str, definition: Definition, *, online: bool = False) -> AddShort:
        return AddShort(self.table, full, definition, self.schema, online)

    def index(self, full: str, definition: Definition, index: Hnsw, *, concurrently: bool = True) -> CreateShortIndex:
        return CreateShortIndex(self.table, full, definition, self.schema, index, Build(concurrently))

    def filled(self, full: str, definition: Definition) -> list[MigrateOperation]:
        given = (self.table, full, definition, self.schema)
        return [OneWay(BackfillShort(*given)), OneWay(ValidateShort(*given))]

    def removed(self, there: ShortState, *, concurrently: bool = True) -> list[MigrateOperation]:
        """Drop a short column; the way back makes it as it was: kept the same way, filled, indexed, marked."""
        definition = _tidy(there)
        ops: list[MigrateOperation] = []
        if there.stage:
            ops.append(OneWay(MarkShort(self.table, there.short, cast("Stage", there.stage), None, self.schema), True))
        best = _usual_index(there, self.table)
        if best is not None:
            of_index = _for_index(definition, best)
            ops.append(OneWay(self.index(there.full, of_index, best.index, concurrently=concurrently), True))
        by_trigger = _odd(there)
        if by_trigger and concurrently:
            ops += [one.reverse() for one in reversed(self.filled(there.full, definition))]
        was = self.add(there.full, definition, online=by_trigger)
        return [*ops, DropShort(self.table, there.short, self.schema, was)]


@dataclass(frozen=True, slots=True)
class _New(_Place):
    """A table that does not exist yet: it is empty, and its migration stays in one transaction."""

    def changes(self, wanted: WantedTable) -> Changes:
        done = Changes()
        for full in wanted.fulls:
            if full.storage not in {None, USUAL}:
                done.after.append(OneWay(self.storage(full.name, str(full.storage))))
        for short in wanted.shorts:
            added = self.add(short.full, short.definition)
            # dropping the table leaves a trigger's function behind
            done.after.append(OneWay(added) if rule_of(short.definition) == "prefix" else added)
            if short.index is not None and short.index.index_name(self.table, short.name) not in wanted.hidden:
                built = self.index(short.full, short.definition, short.index, concurrently=False)
                done.indexes.append(OneWay(built))
        return done


@dataclass(frozen=True, slots=True)
class _Gone(_Place):
    """A table that the model no longer has."""

    def changes(self, state: TableState) -> Changes:
        done = Changes(lost=set(state.shorts))
        for there in state.shorts.values():
            *ops, dropped = self.removed(there, concurrently=False)
            done.restores += ops
            forward = there.kept_by == "trigger"
            done.before.append(dropped if forward else OneWay(dropped.reverse(), True))
        done.before += _old_storage(self, state, state.columns)
        return done


@dataclass(frozen=True, slots=True)
class _Changed(_Place):
    """A table that is there and stays."""

    wanted: WantedTable
    state: TableState
    online: bool
    done: Changes = field(default_factory=Changes)

    def changes(self) -> Changes:
        columns, wanted = self.state.columns, self.wanted
        self.done.retyped |= {
            full.name for full in wanted.fulls if full.name in columns and columns[full.name].type != full.type
        }
        # a full column that another one stands for is dropped by `pgmrl reshape contract`
        moving = self.done.retyped | (set(columns) - wanted.columns - self.state.mirrored)
        for there in self.state.shorts.values():
            if there.full in moving and there.short not in wanted.hidden:
                *restores, dropped = self.removed(there)
                self.done.restores += restores
                self.done.before.append(dropped)
                self.done.lost.add(there.short)
        shorts = self.state.shorts
        self.done.before += _old_storage(self, self.state, (name for name in moving if name not in shorts))
        for full in wanted.fulls:
            self.full(full)
        for short in wanted.shorts:
            if short.name not in wanted.hidden:
                self.short(short)
        self.unwanted()
        self.done.repeated = self.online
        return self.done

    def full(self, full: WantedFull) -> None:
        column = self.state.columns.get(full.name)
        fresh = column is None or full.name in self.done.retyped
        was = USUAL if column is None or fresh else column.storage
        if full.storage is None or full.storage == was:
            return
        stored = self.storage(full.name, full.storage, was)
        self.done.after.append(OneWay(stored) if fresh else stored)

    def short(self, want: WantedShort) -> None:
        there = self.state.shorts.get(want.name)
        if want.name in self.done.lost or (there is None and want.name not in self.state.columns):
            self.new(want)
        elif there is None:
            self.repaired(want)  # nothing keeps it in step, or another column is in the way: `add_short` says which
            if Hnsw().index_name(self.table, want.name) not in self.wanted.indexed:
                self.new_index(want)
        elif there.is_for(want.full, want.definition):
            self.same(want, there)
        else:
            self.other(want, there)

    def new(self, want: WantedShort) -> None:
        self.done.after.append(self.add(want.full, want.definition, online=self.online))
        if self.online:
            self.done.after += self.filled(want.full, want.definition)
        self.new_index(want)

    def new_index(self, want: WantedShort) -> None:
        if want.index is not None and want.index.index_name(self.table, want.name) not in self.wanted.hidden:
            # without a vector yet it takes a moment: the migration stays one transaction
            filled = want.full in self.state.columns or self.online
            built = self.index(want.full, want.definition, want.index, concurrently=filled)
            self.done.indexes.append(OneWay(built))

    def repaired(self, want: WantedShort) -> None:
        # online, whatever was asked for: the column is there, and only its triggers are missing
        self.done.after.append(OneWay(self.add(want.full, want.definition, online=True)))
        self.done.after += self.filled(want.full, want.definition)

    def same(self, want: WantedShort, there: ShortState) -> None:
        after = self.done.after
        keeper = self.state.sync_triggers.get(there.short)
        if there.kept_by == "trigger" and (keeper is None or not keeper.complete):
            self.repaired(want)
        elif there.kept_by == "trigger" and there.definition.metric != want.definition.metric:
            # the trigger's arguments say the metric to those who have no model
            online = rule_of(want.definition) == "prefix"
            after.append(OneWay(self.add(want.full, _tidy(there), online=online), True))
            after.append(OneWay(self.add(want.full, want.definition, online=online)))
        column = self.state.columns[there.short]
        if want.definition.short.type != "bit" and column.storage != "main":
            after.append(self.storage(there.short, "main", column.storage))
        if there.stage and there.full not in self.state.mirrored:
            self.done.drops.append(MarkShort(self.table, there.short, None, cast("Stage", there.stage), self.schema))
        self.same_index(want, there)

    def same_index(self, want: WantedShort, there: ShortState) -> None:
        name = (want.index or Hnsw()).index_name(self.table, want.name)
        found = next((one for one in there.indexes if one.name == name), None)
        indexes = self.done.indexes
        if name in self.wanted.hidden or (found is not None and found.builder is not None):
            return  # not ours to touch, or being built now
        if want.index is None:
            if found is not None:
                was = self.index(there.full, _for_index(_tidy(there), found), found.index)
                indexes.append(was.reverse())
        elif found is None:
            indexes.append(self.index(want.full, want.definition, want.index))
        else:
            self.other_index(want, want.index, found)

    def other_index(self, want: WantedShort, index: Hnsw, found: IndexState) -> None:
        wanted_class = want.definition.metric.operator_class(want.definition.short.type)
        same_class, same = found.operator_class == wanted_class, found.index == index
        if same_class and same and found.valid:
            return
        built = RebuildShortIndex(
            self.table,
            want.full,
            want.definition,
            self.schema,
            index,
            was=None if same else found.index,
            was_definition=None if same_class else _for_index(want.definition, found),
        )
        self.done.indexes.append(OneWay(built) if same_class and same else built)

    def other(self, want: WantedShort, there: ShortState) -> None:
        """The same name with another meaning."""
        self.done.lost.add(there.short)
        *restores, dropped = self.removed(there)
        natural = not _odd(there) and not self.online and there.full == want.full
        if natural:
            altered = AlterShort(self.table, want.full, want.definition, self.schema, _tidy(there))
            self.done.after += [*restores, altered]
            self.new_index(want)
        else:
            self.done.after += [*restores, dropped]
            self.new(want)

    def unwanted(self) -> None:
        keep = {want.name for want in self.wanted.shorts} | self.wanted.hidden | self.done.lost
        served = {want.full for want in self.wanted.shorts}
        for there in self.state.shorts.values():
            if there.short in keep or there.stage is not None or there.full in self.state.mirrored:
                continue
            if self.online and there.full in served:
                self.done.drops.append(MarkShort(self.table, there.short, "retired", None, self.schema))
            else:
                self.done.drops += self.removed(there)
                self.done.lost.add(there.short)


def _old_storage(place: _Place, state: TableState, columns: Iterable[str]) -> list[MigrateOperation]:
    """For the way back: a column that is added again, or of its old type again, is stored as it was."""
    found: list[ColumnState] = [state.columns[name] for name in sorted(columns) if name not in state.shorts]
    return [
        OneWay(place.storage(column.name, column.storage), True)
        for column in found
        if column.kind in VECTORS and column.storage != USUAL
    ]


def _odd(there: ShortState) -> bool:
    """Whether it was added online: a prefix that a trigger keeps."""
    return there.kept_by == "trigger" and rule_of(there.definition) == "prefix"


def _tidy(there: ShortState) -> Definition:
    """Its definition, without a name where that is the usual one."""
    definition = there.definition
    unnamed = replace(definition, short=replace(definition.short, name=None))
    return unnamed if unnamed.short_name(there.full) == there.short else definition


def _usual_index(there: ShortState, table: str) -> IndexState | None:
    """The index to bring back; others are the application's own."""
    name = Hnsw().index_name(table, there.short)
    return next((one for one in there.indexes if one.name == name), None)


def _for_index(definition: Definition, index: IndexState) -> Definition:
    """The definition with the metric that an index's operator class is for."""
    short = definition.short.type
    metrics = [one for one in METRICS.values() if one.operator_class(short) == index.operator_class]
    if not metrics or definition.metric in metrics:
        return definition
    return replace(definition, metric=metrics[0])
