"""Another short vector for a table in use, without embedding again: what changes.

`expand` builds the new short column (and, for another full type, the new full column) beside the old, keeps both in
step and gives the new one its index. The application switches with its next deploy; old and new code run side by side.
`contract` drops the old one when nothing reads it any more.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from pgmrl import database
from pgmrl.database.shards import distributed_table
from pgmrl.errors import MigrationError
from pgmrl.model import ddl
from pgmrl.model.hnsw import Hnsw, index_source
from pgmrl.model.shortening import Prefix, Rotation, Short
from pgmrl.names import identifier
from pgmrl.online.preconditions import existing_table
from pgmrl.online.target import Target

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from pgmrl.database.table_state import ShortState, TableState
    from pgmrl.model.filter_index import FilterIndex
    from pgmrl.model.metrics import FullType
    from pgmrl.model.shortening import Definition

__all__ = ["Reshape", "current_index", "reshape", "status"]


@dataclass(frozen=True, slots=True)
class Reshape:
    """From one short vector to another.

    Attributes:
        old: the short column that the application reads now.
        new: the one it will read.
        old_index: how the old one's index was built; None where it has none.
        new_index: how the new one's is built.
        partial: further partial indexes of the old one, which the new one gets, too.
        rotation: to be installed first, with its axes; None where it is there, or none is needed.
        filters: the covering indexes of the old one, which the new one gets too.
    """

    old: Target
    new: Target
    old_index: Hnsw | None
    new_index: Hnsw
    rotation: Rotation | None = None
    filters: tuple[FilterIndex, ...] = ()
    partial: tuple[Hnsw, ...] = ()

    @property
    def same_columns(self) -> bool:
        """Whether only the index changes, which no application notices."""
        return self.old.short == self.new.short and self.old.full == self.new.full

    @property
    def moves_full(self) -> bool:
        """Whether the full vector moves to another column."""
        return self.old.full != self.new.full

    @property
    def model(self) -> str:
        """What the application's model says from its next deploy on."""
        definition, short = self.new.definition, self.new.definition.short
        by = f"Rotation.load('rotations/{short.by.id}.npy')" if isinstance(short.by, Rotation) else "Prefix()"
        type_ = "" if short.type == "halfvec" else f", type={short.type!r}"
        stored = "" if definition.has_column else ", stored=False"
        name = "" if self._usual_name else f", name={short.name!r}"
        indexes = ", ".join(map(index_source, self.new_indexes))
        index = f"index=[{indexes}]" if self.partial else f"index={indexes}"
        column = f", name={self.new.full!r}" if self.moves_full else ""
        filters = f", filters={list(self.filters)!r}" if self.filters else ""
        return (
            f"matryoshka({definition.dims}, Short({short.dims}, by={by}{type_}{name}), "
            f"metric={definition.metric.name!r}, full={definition.full!r}, {index}{column}{stored}{filters})"
        )

    @property
    def new_indexes(self) -> tuple[Hnsw, ...]:
        """All indexes of the new short column."""
        return self.new_index, *self.partial

    @property
    def _usual_name(self) -> bool:
        definition = self.new.definition
        unnamed = replace(definition, short=replace(definition.short, name=None))
        return unnamed.short_name(self.new.full) == self.new.short


def reshape(
    connection: Connection,
    table: str,
    full: str,
    *,
    schema: str | None = None,
    dims: int | None = None,
    by: Prefix | Rotation | None = None,
    type_: Any = None,
    index: Hnsw | None = None,
    full_type: FullType | None = None,
    full_name: str | None = None,
    name: str | None = None,
) -> Reshape:
    """What changes: everything that is not given stays as the database has it.

    Args:
        connection: of the database.
        table: the table.
        full: the full vector's column.
        schema: of the table.
        dims: short dimensions.
        by: the shortening.
        type_: of the short column.
        index: build parameters of the index; a partial one keeps its condition.
        full_type: another type for the full vector, in a column of its own.
        full_name: that column's name.
        name: the new short column's.

    Raises:
        MigrationError: there is no short column to start from, nothing would change, or a name is taken.
        DefinitionError: dimensions or types that cannot work.
    """
    state = existing_table(connection, schema, table)
    current = _current_short(state, full)
    current_short = current.definition.short
    old_index = current.indexes[0].index if current.indexes else None
    others = {state.index.predicate: state.index for state in current.indexes[1:]}
    partial = tuple(other for predicate, other in others.items() if predicate is not None)
    if index is not None and index.predicate is None and old_index is not None and old_index.predicate is not None:
        index = replace(old_index, m=index.m, ef_construction=index.ef_construction)
    new_full_type = full_type or current.definition.full
    moves_full = new_full_type != current.definition.full
    new_full = (full_name or identifier(f"{full}_{new_full_type}")) if moves_full else full
    short = replace(
        current_short,
        dims=dims or current_short.dims,
        by=by or current_short.by,
        type=type_ or current_short.type,
        name=name,
    )
    definition = _reshaped(current, short, new_full_type)
    if not moves_full and name is None and _meaning(definition) == _meaning(current.definition):
        definition = replace(definition, short=replace(short, name=current_short.name))
    rotation = short.by if isinstance(short.by, Rotation) and short.by.axes is not None else None
    if rotation is not None and rotation.id in database.installed_rotations(connection):
        rotation = None
    old = Target(table, full, current.definition, schema)
    new = Target(table, new_full, definition, schema)
    filters = tuple(filter_index.index for filter_index in current.filter_indexes)
    change = Reshape(old, new, old_index, index or old_index or Hnsw(), rotation, filters, partial)
    _check(connection, state, change)
    distributed = None if change.same_columns else distributed_table(connection, new.owner)
    if distributed is not None:
        raise MigrationError(
            f"{new.owner} is {distributed.describe()}, and Citus has no FOR UPDATE over shards, which batches "
            "need. With the new definition: op.add_short(..., online=True), op.backfill_short, op.create_short_index; "
            "deploy the model; op.drop_short of the old one"
        )
    return change


def _reshaped(current: ShortState, short: Short, full: FullType) -> Definition:
    """The new definition; a rotation brings short vectors that are not stored into a column.

    Raises:
        MigrationError: others that are not stored either: they have no column to stand beside the old one.
    """
    definition = current.definition
    stored = definition.has_column or isinstance(short.by, Rotation) or short.name is not None
    new = replace(definition, short=short, full=full, has_column=stored)
    if stored or (_meaning(new), full) == (_meaning(definition), definition.full):
        return new
    raise MigrationError(
        f"{current.short} is not stored (stored=False), so there is no column to reshape: op.create_short_index with "
        "the new definition, deploy the model, then op.drop_short_index with the old one; or give the new short column "
        "a --name, and it is stored"
    )


def current_index(connection: Connection, table: str, full: str, *, schema: str | None = None) -> Hnsw | None:
    """How the index is built that searches use now; None where there is none.

    Raises:
        MigrationError: as `reshape`.
    """
    indexes = _current_short(existing_table(connection, schema, table), full).indexes
    return indexes[0].index if indexes else None


def status(connection: Connection, table: str, full: str, *, schema: str | None = None) -> str:
    """One line for people: what stands beside what.

    Raises:
        MigrationError: there is no such table.
    """
    state = existing_table(connection, schema, table)
    fulls = {full, *(name for pair in state.mirrors if full in pair for name in pair)}
    shorts = [
        f"{short.short} ({short.stage or 'in use'}, {short.definition.short_type}, kept by {short.kept_by}, "
        f"{'valid index' if any(index.valid for index in short.indexes) else 'no valid index'})"
        for short in state.shorts.values()
        if short.full in fulls
    ]
    return f"{table}.{full}: {'; '.join(shorts) or 'no short column'}"


def _meaning(definition: Definition) -> tuple[Any, ...]:
    short = definition.short
    return definition.has_column, short.dims, ddl.rule_of(definition), short.type, definition.metric.name


def _check(connection: Connection, state: TableState, change: Reshape) -> None:
    if change.moves_full and _is_side_table(connection, change.new.owner):
        raise MigrationError(
            f"{change.new.owner} is a side table, which a trigger fills by the full column's name: make another side "
            "table with the other type instead"
        )
    if change.same_columns and change.old_index == change.new_index:
        raise MigrationError(f"{change.new.title} is so already: say what is to change, such as --short-dims or --m")
    if change.same_columns and change.new_index.predicate is not None:
        raise MigrationError(
            f"the index on {change.new.title} is partial (WHERE {change.new_index.predicate}): change its Hnsw(...) in "
            "the model and run autogenerate"
        )
    existing = state.shorts.get(change.new.short)
    if not change.same_columns and existing is not None and not existing.is_for(change.new.full, change.new.definition):
        raise MigrationError(f"{change.new.title} is there and is something else: give the new one a --name")


def _is_side_table(connection: Connection, owner: str) -> bool:
    query = text(
        # anybody can write an argument that is no name, on which to_regclass fails
        "SELECT EXISTS (SELECT FROM pg_trigger AS t JOIN pg_proc AS p ON p.oid = t.tgfoid, "
        "pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace "
        "WHERE c.oid = to_regclass(:owner) AND p.proname LIKE 'zz\\_pgmrl\\_%' AND t.tgnargs = 1 "
        "AND rtrim(t.tgargs, '\\x00'::bytea) "
        "= convert_to(quote_ident(n.nspname) || '.' || quote_ident(c.relname), 'UTF8'))"
    )
    return bool(database.catalogue_result(connection, query, {"owner": owner}).scalar_one())


def _current_short(state: TableState, full: str) -> ShortState:
    """The short column that the application reads: not one that is arriving."""
    candidates = [short for short in state.shorts.values() if short.full == full and short.stage != "arriving"]
    if not candidates:
        listed = ", ".join(f"{short.full} -> {short.short}" for short in state.shorts.values()) or "none"
        raise MigrationError(
            f"{state.table}.{full} has no short column to start from (there: {listed}): op.add_short adds one"
        )
    valid = [short for short in candidates if any(index.valid for index in short.indexes)]
    staying = [short for short in valid or candidates if short.stage is None] or valid or candidates
    if len(staying) > 1:
        names = ", ".join(short.short for short in staying)
        raise MigrationError(f"{state.table}.{full} has several short columns ({names}): drop those that nothing reads")
    return staying[0]
