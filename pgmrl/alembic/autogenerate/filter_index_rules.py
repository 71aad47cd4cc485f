"""The rules for covering indexes; pure, without a database.

One that does what is declared is as good as ours, whatever its name. What no longer is declared goes; the application's
own indexes, and those of a short column that a reshape keeps beside the new one, are left alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgmrl.alembic.operations import CreateShortIndex, OneWay, RebuildShortIndex
from pgmrl.model.filter_index import FilterIndex
from pgmrl.online.index_statements import Build

if TYPE_CHECKING:
    from alembic.operations import MigrateOperation

    from pgmrl.alembic.autogenerate.compared_tables import Changes, DeclaredShort, DeclaredTable
    from pgmrl.database.index_states import FilterIndexState
    from pgmrl.database.table_state import ShortState
    from pgmrl.model.shortening import Definition

__all__ = ["filter_index_changes", "new_filter_indexes", "restored_filter_indexes"]


def new_filter_indexes(
    schema: str | None, table: str, short: DeclaredShort, hidden: frozenset[str], *, concurrently: bool
) -> list[MigrateOperation]:
    """Those of a short column that is added: they go with it."""
    return [
        OneWay(CreateShortIndex(table, short.full, short.definition, schema, index, Build(concurrently)))
        for index in short.filters
        if index.index_name(table, short.name) not in hidden
    ]


def restored_filter_indexes(
    schema: str | None,
    table: str,
    short: ShortState,
    definition: Definition,
    application: frozenset[str],
    *,
    concurrently: bool,
) -> list[MigrateOperation]:
    """Those of a short column that is dropped, for the downgrade, without the application's own."""
    return [
        OneWay(_creation(schema, table, short.full, definition, state, Build(concurrently)), downgrade=True)
        for state in short.filter_indexes
        if state.name not in application
    ]


def filter_index_changes(
    schema: str | None, table: str, declared: DeclaredShort, short: ShortState, model: DeclaredTable, changes: Changes
) -> None:
    """What brings the covering indexes of a short column that stays to what is declared; added to `changes`."""
    own = [state for state in short.filter_indexes if state.name not in model.indexes | model.hidden]
    serving: set[str] = set()
    for index in declared.filters:
        name = index.index_name(table, declared.name)
        if name in model.hidden:
            continue
        # one that is being built now becomes what it looks like; ours first
        candidates = sorted(short.filter_indexes, key=lambda state: state.name != name)
        served = next((s for s in candidates if (s.valid or s.builder is not None) and s.index.serves(index)), None)
        existing = next((state for state in own if state.name == name), None)
        serving |= {name} if served is None else {served.name}
        if served is not None:
            continue
        where = (table, declared.full, declared.definition, schema, index)
        if existing is None:
            changes.indexes.append(CreateShortIndex(*where))
            continue
        same = existing.index.same(index)
        rebuilt = RebuildShortIndex(*where, previous=None if same else _named(existing))
        changes.indexes.append(OneWay(rebuilt) if same else rebuilt)
    for state in own:
        if state.name not in serving and state.builder is None:
            dropped = _creation(schema, table, short.full, short.definition, state, Build()).reverse()
            # a column that goes takes it along; the downgrade builds it when the column is back
            goes = {*state.index.columns, *state.index.include} - model.columns
            (changes.before if goes else changes.drops).append(dropped)


def _creation(
    schema: str | None, table: str, full: str, definition: Definition, state: FilterIndexState, build: Build
) -> CreateShortIndex:
    return CreateShortIndex(table, full, definition, schema, _named(state), build)


def _named(state: FilterIndexState) -> FilterIndex:
    """As it is there, without a name where that is the usual one."""
    index = state.index
    usual = index.index_name(state.table, state.short) == state.name
    return index if usual else FilterIndex(*index.columns, include=index.include, name=state.name)
