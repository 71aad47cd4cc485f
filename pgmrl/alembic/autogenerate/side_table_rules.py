"""The rules for the triggers that copy vectors into side tables; pure, without a database."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgmrl.alembic.operations import DropSide, KeepSide, OneWay
from pgmrl.model.ddl import sync_trigger_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pgmrl.alembic.autogenerate.compared_tables import DeclaredSide
    from pgmrl.database.table_state import SideState

__all__ = ["side_changes", "side_repairs"]


def side_changes(
    schema: str | None,
    table: str,
    declared: Sequence[DeclaredSide],
    existing: Sequence[SideState],
    keys: Sequence[str],
) -> tuple[list[KeepSide], list[DropSide]]:
    """The triggers to install on a table, and those to remove.

    Args:
        schema: of the table and its side tables.
        table: the table whose vectors are copied.
        declared: what the model declares.
        existing: what the table has.
        keys: its primary key in the database.
    """
    existing_names = {state.name for state in existing}
    declared_names = {_trigger_name(side) for side in declared}
    kept = [_keep(schema, table, side) for side in declared if _trigger_name(side) not in existing_names]
    dropped = []
    for state in existing:
        if state.name not in declared_names:
            previous = KeepSide(table, _unqualified(state.side), tuple(keys), state.full, schema)
            dropped.append(DropSide(table, previous.side, state.full, schema, previous))
    return kept, dropped


def side_repairs(
    schema: str | None, table: str, declared: Sequence[DeclaredSide], existing: Sequence[SideState]
) -> list[OneWay]:
    """Triggers that are disabled or gone in part, installed once more; arguments as of `side_changes`."""
    broken = {state.name for state in existing if not state.complete}
    return [OneWay(_keep(schema, table, side)) for side in declared if _trigger_name(side) in broken]


def _keep(schema: str | None, table: str, side: DeclaredSide) -> KeepSide:
    return KeepSide(table, side.side, side.keys, side.column, schema)


def _trigger_name(side: DeclaredSide) -> str:
    return sync_trigger_name(side.side, side.column)


def _unqualified(table: str) -> str:
    """The table's own name of a qualified one, without its quotes."""
    if not table.endswith('"'):
        return table.rpartition(".")[2]
    start = table.rfind('"', 0, -1)
    while start > 0 and table[start - 1] == '"':  # a doubled quote within
        start = table.rfind('"', 0, start - 1)
    return table[start + 1 : -1].replace('""', '"')
