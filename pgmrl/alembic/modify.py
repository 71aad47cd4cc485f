"""Alembic's own operations on a table: without short columns, which are pgmrl's, and with what Alembic does not see."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from alembic.operations import ops
from sqlalchemy import CheckConstraint, Column, Table
from sqlalchemy.types import NullType

from pgmrl.alembic.operations import OneWay
from pgmrl.model.columns import INFO_KEY, Attachment, Matryoshka
from pgmrl.model.hnsw import Hnsw
from pgmrl.model.types import NumpyVector
from pgmrl.names import identifier

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from alembic.operations import MigrateOperation

    from pgmrl.alembic.diff import Changes
    from pgmrl.database.table_state import TableState

__all__ = ["Seen", "attachments", "column_named", "repair_types", "with_own", "without_shorts"]


@dataclass(slots=True)
class Seen:
    """A table that passed the application's filters.

    Attributes:
        schema: None for the default one.
        name: of the table.
        there: as reflected; None where it is to be created.
        model: as the model has it; None where it is to be dropped.
        state: what pgmrl looks at; None where there is none of its concern.
        changes: what is to be done.
    """

    schema: str | None
    name: str
    there: Table | None
    model: Table | None
    state: TableState | None = None
    changes: Changes | None = None

    @property
    def key(self) -> tuple[str | None, str]:
        """Schema and name as Alembic has them."""
        return (self.schema, self.name)

    @property
    def said_schema(self) -> str | None:
        """The schema as the migration says it."""
        return self.schema if self.model is None else self.model.schema or self.schema


def attachments(table: Any) -> Iterator[Attachment]:
    """Of the table's own columns, those that a side table searches left out."""
    for column in table.columns:
        found = column.info.get(INFO_KEY)
        if isinstance(found, Attachment) and found.side is None and found.full == column.name:
            yield found


def column_named(table: Table, name: str) -> Column[Any]:
    """A column by its name in the database; its key may be another."""
    return next(column for column in table.columns if column.name == name)


def repair_types(one: Seen) -> None:
    """Name the types that reflection did not know because pgvector is not on the search_path."""
    if one.state is None or one.there is None:
        return
    for column in one.there.columns:
        found = one.state.columns.get(str(column.name))
        if (
            found is not None
            and isinstance(column.type, NullType)
            and found.dims
            and found.kind in {"vector", "halfvec"}
        ):
            place = next((short.definition.vector_schema for short in one.state.shorts.values()), None)
            column.type = NumpyVector(found.dims, "vector" if found.kind == "vector" else "halfvec", place)


# -- Alembic's operations on one table -----------------------------------------------------------------------------


def without_shorts(op: MigrateOperation, one: Seen | None) -> list[MigrateOperation]:
    """An operation of Alembic's without what concerns short columns; none where nothing is left."""
    if one is None:
        return [op]
    names = _short_names(one)
    if isinstance(op, ops.CreateTableOp):
        op.columns = [item for item in op.columns if not (isinstance(item, Column) and item.name in names)]
        op.if_not_exists = op.if_not_exists or (True if one.changes is not None and one.changes.repeated else None)
    elif isinstance(op, ops.DropTableOp) and op._reverse is not None:
        left = op._reverse.columns
        op._reverse.columns = [item for item in left if not (isinstance(item, Column) and item.name in names)]
    elif isinstance(op, ops.ModifyTableOps):
        _restore_own(op, one)
        op.ops = [inner for inner in op.ops if not _concerns(inner, one, names)]
        return [op] if op.ops else []
    return [op]


def _restore_own(modify: ops.ModifyTableOps, one: Seen) -> None:
    """The application's own indexes go with a short column, and come back after it."""
    if one.changes is None:
        return
    managed = _index_names(one)
    for op in modify.ops:
        if isinstance(op, ops.DropIndexOp) and op.index_name not in managed and _columns(op) & one.changes.lost:
            one.changes.restores.append(OneWay(op.reverse(), True))


def _short_names(one: Seen) -> set[str]:
    declared = set() if one.model is None else {str(a.short) for a in attachments(one.model) if a.short}
    return declared | (set(one.state.shorts) if one.state is not None else set())


def _concerns(op: MigrateOperation, one: Seen, shorts: set[str]) -> bool:
    if isinstance(op, ops.AddColumnOp):
        return op.column.name in shorts
    if isinstance(op, ops.DropColumnOp | ops.AlterColumnOp):
        mirrored = isinstance(op, ops.DropColumnOp) and one.state is not None and op.column_name in one.state.mirrored
        return op.column_name in shorts or mirrored
    if isinstance(op, ops.CreateIndexOp | ops.DropIndexOp):
        lost = one.changes.lost if one.changes is not None else set()
        going = isinstance(op, ops.DropIndexOp) and bool(_columns(op) & lost)
        return op.index_name in _index_names(one) or going
    return False


def _columns(op: ops.CreateIndexOp | ops.DropIndexOp) -> set[str]:
    return {str(getattr(part, "name", "")) for part in op.to_index().expressions}


def _index_names(one: Seen) -> set[str]:
    declared = [] if one.model is None else attachments(one.model)
    names = {found.index.index_name(one.name, found.short) for found in declared if found.short}
    there = one.state.shorts if one.state is not None else {}
    return names | {Hnsw().index_name(one.name, short) for short in there}


def with_own(op: ops.ModifyTableOps | None, one: Seen) -> list[MigrateOperation]:
    """Alembic's operations on a table that stays, with the changes of full columns that it does not see."""
    given = [] if op is None else op.ops
    first, last = _checks(one, given)
    fulls = set() if one.model is None else {found.full for found in attachments(one.model)}
    for inner in given:
        if isinstance(inner, ops.AddColumnOp) and inner.column.name in fulls:
            inner.if_not_exists = True if one.changes is not None and one.changes.repeated else inner.if_not_exists
    # the application's own indexes on a short column come when it is there
    late = [inner for inner in given if isinstance(inner, ops.CreateIndexOp) and _columns(inner) & _short_names(one)]
    if late and one.changes is not None:
        one.changes.indexes.append(ops.ModifyTableOps(one.name, late, schema=one.said_schema))
    _build_again(one)
    own = [*first, *(inner for inner in given if inner not in late), *_retyped(one, given), *last]
    return [ops.ModifyTableOps(one.name, own, schema=one.said_schema)] if own else []


def _build_again(one: Seen) -> None:
    """The application's own indexes on a short column that is replaced go with the old one; Alembic sees no change."""
    if one.changes is None or one.model is None or one.there is None:
        return
    there = {str(index.name): index for index in one.there.indexes}
    managed = _index_names(one)
    for index in one.model.indexes:
        op, old = ops.CreateIndexOp.from_index(index), there.get(str(index.name))
        if old is not None and index.name not in managed and _columns(op) & one.changes.lost:
            one.changes.indexes.append(OneWay(op))
            one.changes.restores.append(OneWay(ops.CreateIndexOp.from_index(old), True))


def _retyped(one: Seen, given: Sequence[MigrateOperation]) -> list[MigrateOperation]:
    """Alembic sees another type as a rule; not where `compare_type=False`, or pgvector is off the search_path."""
    if one.changes is None or one.model is None or one.there is None:
        return []
    added: list[MigrateOperation] = []
    for name in sorted(one.changes.retyped):
        alters = [op for op in given if isinstance(op, ops.AlterColumnOp) and op.column_name == name]
        if not alters:
            there = column_named(one.there, name)
            new = ops.AlterColumnOp(
                one.name, name, schema=one.said_schema, existing_type=there.type, existing_nullable=there.nullable
            )
            alters = [new]
            added.append(new)
        if alters[0].modify_type is None:
            alters[0].modify_type = column_named(one.model, name).type
    return added


def _checks(one: Seen, given: Sequence[MigrateOperation]) -> tuple[list[MigrateOperation], list[MigrateOperation]]:
    """The CHECK against zero vectors where `forbid_zero` was added or removed; Alembic compares no CHECK."""
    first: list[MigrateOperation] = []
    last: list[MigrateOperation] = []
    if one.model is None or one.there is None or one.changes is None:
        return first, last
    told = {str(getattr(op, "constraint_name", "")) for op in given}
    for attachment in attachments(one.model):
        declared, there = (_check_named(table, one.name, attachment.full) for table in (one.model, one.there))
        type_ = column_named(one.model, attachment.full).type
        if not isinstance(type_, Matryoshka) or {str(c.name) for c in (declared, there) if c is not None} & told:
            continue  # a copied table does not say, or the application lets Alembic compare them
        retyped = attachment.full in one.changes.retyped  # its function is another one then
        if there is not None and (declared is None or retyped):
            first.append(ops.DropConstraintOp.from_constraint(there))
        if declared is not None and (there is None or retyped):
            last.append(ops.CreateCheckConstraintOp.from_constraint(declared))
    return first, last


def _check_named(table: Table, owner: str, full: str) -> CheckConstraint | None:
    usual = identifier(f"{owner}_{full}_not_zero")
    found = [one for one in table.constraints if isinstance(one, CheckConstraint)]
    # a naming convention puts something before it
    return next((one for one in found if one.name is not None and str(one.name).endswith(usual)), None)
