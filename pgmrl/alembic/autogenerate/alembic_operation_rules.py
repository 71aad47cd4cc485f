"""The rules for Alembic's own operations: without short columns, which are pgmrl's, and with what Alembic misses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alembic.operations import ops
from sqlalchemy import CheckConstraint, Column, Table

from pgmrl.alembic.autogenerate.compared_tables import column_named, declared_index_names
from pgmrl.alembic.operations import OneWay
from pgmrl.model.columns import Matryoshka
from pgmrl.model.hnsw import Hnsw, is_index_name
from pgmrl.names import identifier

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from alembic.operations import MigrateOperation
    from sqlalchemy.schema import SchemaItem

    from pgmrl.alembic.autogenerate.compared_tables import ComparedTable

__all__ = ["with_unseen_changes", "without_shorts"]


# -- without short columns -----------------------------------------------------------------------------------------


def without_shorts(operation: MigrateOperation, table: ComparedTable | None) -> list[MigrateOperation]:
    """An operation of Alembic's without what concerns short columns; none where nothing is left."""
    if table is None:
        return [operation]
    shorts = _short_names(table)
    if isinstance(operation, ops.CreateTableOp):
        operation.columns = _without_columns(operation.columns, shorts)
        operation.if_not_exists = operation.if_not_exists or (True if table.changes.repeatable else None)
    elif isinstance(operation, ops.DropTableOp) and shorts:
        return [_drop_table(operation, shorts)]
    elif isinstance(operation, ops.ModifyTableOps):
        _restore_own_indexes(operation, table)
        operation.ops = [inner for inner in operation.ops if not _concerns(inner, table, shorts)]
        return [operation] if operation.ops else []
    return [operation]


def _drop_table(operation: ops.DropTableOp, shorts: Collection[str]) -> ops.DropTableOp:
    """The same, whose downgrade creates the table without its short columns."""
    created = operation.reverse()
    created.columns = _without_columns(created.columns, shorts)
    dropped = created.reverse()
    dropped.if_exists = operation.if_exists
    return dropped


def _without_columns(items: Sequence[SchemaItem], names: Collection[str]) -> list[SchemaItem]:
    return [item for item in items if not (isinstance(item, Column) and item.name in names)]


def _restore_own_indexes(modify: ops.ModifyTableOps, table: ComparedTable) -> None:
    """The application's own indexes go with a short column, and come back after it."""
    managed = _index_names(table)
    for operation in modify.ops:
        if (
            isinstance(operation, ops.DropIndexOp)
            and operation.index_name not in managed
            and _index_columns(operation) & table.changes.dropped
        ):
            table.changes.restores.append(OneWay(operation.reverse(), downgrade=True))


def _concerns(operation: MigrateOperation, table: ComparedTable, shorts: Collection[str]) -> bool:
    """Whether an operation is on a short column, its index, or a full column that a reshape is moving."""
    if isinstance(operation, ops.AddColumnOp):
        return operation.column.name in shorts
    if isinstance(operation, ops.DropColumnOp):
        mirrored = table.state is not None and operation.column_name in table.state.mirrored
        return operation.column_name in shorts or mirrored
    if isinstance(operation, ops.AlterColumnOp):
        return operation.column_name in shorts
    if isinstance(operation, ops.CreateIndexOp | ops.DropIndexOp):
        goes = isinstance(operation, ops.DropIndexOp) and bool(_index_columns(operation) & table.changes.dropped)
        return operation.index_name in _index_names(table) or goes
    return False


def _short_names(table: ComparedTable) -> set[str]:
    declared = {str(attachment.short) for attachment in table.declared_attachments if attachment.short}
    return declared | (set(table.state.shorts) if table.state is not None else set())


def _index_names(table: ComparedTable) -> set[str]:
    """Of the indexes on short columns that pgmrl manages."""
    declared = set() if table.model is None else declared_index_names(table.model)
    existing = table.state.shorts if table.state is not None else {}
    # B-trees that include a short column, without those that the application declares as its own
    application = set() if table.model is None else {str(index.name) for index in table.model.indexes} - declared
    covering = {index.name for short in existing.values() for index in short.filter_indexes} - application
    # short vectors that no column holds are an index, whoever named it
    expressions = {index.name for short in existing.values() if short.kept_by == "index" for index in short.indexes}
    partial = {
        index.name
        for short in existing.values()
        for index in short.indexes
        if is_index_name(index.name, table.name, short.short)
    }
    return declared | expressions | partial | covering | {Hnsw().index_name(table.name, short) for short in existing}


def _index_columns(operation: ops.CreateIndexOp | ops.DropIndexOp) -> set[str]:
    index = operation.to_index()
    included = index.dialect_options["postgresql"]["include"] or ()
    return {str(getattr(part, "name", part)) for part in (*index.expressions, *included)}


# -- what Alembic does not see -------------------------------------------------------------------------------------


def with_unseen_changes(modify: ops.ModifyTableOps | None, table: ComparedTable) -> list[MigrateOperation]:
    """Alembic's operations on a table that stays, with the changes of full columns that it does not see."""
    seen = [] if modify is None else modify.ops
    dropped_checks, created_checks = _check_changes(table, seen)
    fulls = {attachment.full for attachment in table.declared_attachments}
    for operation in seen:
        if isinstance(operation, ops.AddColumnOp) and operation.column.name in fulls and table.changes.repeatable:
            operation.if_not_exists = True
    # the application's own indexes on a short column come when it is there
    shorts = _short_names(table)
    late = [
        operation
        for operation in seen
        if isinstance(operation, ops.CreateIndexOp) and _index_columns(operation) & shorts
    ]
    if late:
        table.changes.indexes.append(ops.ModifyTableOps(table.name, late, schema=table.declared_schema))
    _build_own_indexes_again(table)
    early = [operation for operation in seen if operation not in late]
    operations = [*dropped_checks, *early, *_type_changes(table, seen), *created_checks]
    return [ops.ModifyTableOps(table.name, operations, schema=table.declared_schema)] if operations else []


def _build_own_indexes_again(table: ComparedTable) -> None:
    """The application's own indexes on a short column that is replaced go with the old one; Alembic sees no change."""
    if table.model is None or table.reflected is None:
        return
    reflected = {str(index.name): index for index in table.reflected.indexes}
    managed = _index_names(table)
    for index in table.model.indexes:
        created, existing = ops.CreateIndexOp.from_index(index), reflected.get(str(index.name))
        if existing is None or index.name in managed:
            continue
        dropped = ops.DropIndexOp.from_index(existing)
        if _index_columns(created) & table.changes.dropped:
            table.changes.indexes.append(OneWay(created))
            table.changes.restores.append(OneWay(dropped.reverse(), downgrade=True))
        elif _index_columns(dropped) & table.changes.dropped:  # it includes another short column from now on
            table.changes.indexes += [dropped, created]


def _type_changes(table: ComparedTable, seen: Sequence[MigrateOperation]) -> list[MigrateOperation]:
    """Alembic sees another type as a rule; not where `compare_type=False`, or pgvector is off the search_path."""
    if table.model is None or table.reflected is None:
        return []
    added: list[MigrateOperation] = []
    for name in sorted(table.changes.retyped):
        alter = next(
            (
                operation
                for operation in seen
                if isinstance(operation, ops.AlterColumnOp) and operation.column_name == name
            ),
            None,
        )
        if alter is None:
            column = column_named(table.reflected, name)
            alter = ops.AlterColumnOp(
                table.name,
                name,
                schema=table.declared_schema,
                existing_type=column.type,
                existing_nullable=column.nullable,
            )
            added.append(alter)
        if alter.modify_type is None:
            alter.modify_type = column_named(table.model, name).type
    return added


def _check_changes(
    table: ComparedTable, seen: Sequence[MigrateOperation]
) -> tuple[list[MigrateOperation], list[MigrateOperation]]:
    """The CHECK against zero vectors where `forbid_zero` was added or removed, dropped and created.

    Alembic compares no CHECK.
    """
    dropped: list[MigrateOperation] = []
    created: list[MigrateOperation] = []
    if table.model is None or table.reflected is None:
        return dropped, created
    seen_names = {str(getattr(operation, "constraint_name", "")) for operation in seen}
    for attachment in table.declared_attachments:
        declared, existing = (
            _check_named(side, table.name, attachment.full) for side in (table.model, table.reflected)
        )
        names = {str(check.name) for check in (declared, existing) if check is not None}
        if not isinstance(column_named(table.model, attachment.full).type, Matryoshka) or names & seen_names:
            continue  # a copied table does not say, or the application lets Alembic compare them
        retyped = attachment.full in table.changes.retyped  # its function is another one then
        if existing is not None and (declared is None or retyped):
            dropped.append(ops.DropConstraintOp.from_constraint(existing))
        if declared is not None and (existing is None or retyped):
            created.append(ops.CreateCheckConstraintOp.from_constraint(declared))
    return dropped, created


def _check_named(table: Table, owner: str, full: str) -> CheckConstraint | None:
    usual_name = identifier(f"{owner}_{full}_not_zero")
    checks = [constraint for constraint in table.constraints if isinstance(constraint, CheckConstraint)]
    # a naming convention puts something before it
    return next((check for check in checks if check.name is not None and str(check.name).endswith(usual_name)), None)
