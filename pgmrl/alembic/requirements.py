"""Side tables' triggers, and what operations need to be there before them; pure, as `diff`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pgmrl.alembic.function_operations import InstallFunctions
from pgmrl.alembic.operations import (
    AddShort,
    AlterShort,
    BackfillShort,
    DropSide,
    KeepSide,
    OneWay,
    OnIndex,
    RebuildShortIndex,
)
from pgmrl.model.ddl import sync_trigger_name
from pgmrl.model.shortening import Rotation

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from alembic.operations import MigrateOperation

    from pgmrl.database.table_state import SideState

__all__ = ["WantedSide", "commits", "needs_schema", "rotations_used", "side_changes", "side_repairs"]


@dataclass(frozen=True, slots=True)
class WantedSide:
    """A side table as the model declares it.

    Attributes:
        side: its name.
        keys: the primary key's columns.
        column: the vector's column, named alike in both.
    """

    side: str
    keys: tuple[str, ...]
    column: str


# -- side tables ---------------------------------------------------------------------------------------------------


def side_changes(
    schema: str | None, table: str, wanted: Sequence[WantedSide], there: Sequence[SideState], keys: Sequence[str]
) -> tuple[list[KeepSide], list[DropSide]]:
    """The triggers to install on a table, and those to remove.

    Args:
        schema: of the table and its side tables.
        table: the table whose vectors are copied.
        wanted: what the model declares.
        there: what the table has.
        keys: its primary key in the database.
    """
    names = {one.name for one in there}
    kept = [
        KeepSide(table, one.side, one.keys, one.column, schema)
        for one in wanted
        if sync_trigger_name(one.side, one.column) not in names
    ]
    stay = {sync_trigger_name(one.side, one.column) for one in wanted}
    dropped = []
    for one in there:
        if one.name not in stay:
            was = KeepSide(table, _last_name(one.side), tuple(keys), one.full, schema)
            dropped.append(DropSide(table, was.side, one.full, schema, was))
    return kept, dropped


def side_repairs(
    schema: str | None, table: str, wanted: Sequence[WantedSide], there: Sequence[SideState]
) -> list[OneWay]:
    """Triggers of side tables that are disabled or gone in part, installed once more; arguments as `side_changes`."""
    broken = {one.name for one in there if not one.complete}
    return [
        OneWay(KeepSide(table, one.side, one.keys, one.column, schema))
        for one in wanted
        if sync_trigger_name(one.side, one.column) in broken
    ]


def _last_name(text: str) -> str:
    """The table's own name of a qualified one, without its quotes."""
    name = text
    if text.endswith('"'):
        start = text.rfind('"', 0, -1)
        while start > 0 and text[start - 1] == '"':  # a doubled quote within
            start = text.rfind('"', 0, start - 1)
        name = text[start + 1 : -1].replace('""', '"')
    else:
        name = text.rpartition(".")[2]
    return name


# -- what the operations need --------------------------------------------------------------------------------------


def _forward(ops: Iterable[MigrateOperation]) -> list[MigrateOperation]:
    found = [one.operation if isinstance(one, OneWay) and not one.back else one for one in ops]
    return [one for one in found if not isinstance(one, OneWay)]


def needs_schema(ops: Iterable[MigrateOperation]) -> bool:
    """Whether they need pgmrl's schema: triggers and SQL functions do, generated columns do not."""
    return any(
        isinstance(operation, InstallFunctions | KeepSide)
        or (isinstance(operation, AddShort | AlterShort) and operation.by_trigger)
        for operation in _forward(ops)
    )


def rotations_used(ops: Iterable[MigrateOperation]) -> list[Rotation]:
    """The rotations whose axes have to be in the database, each once."""
    found: dict[str, Rotation] = {}
    for one in _forward(ops):
        if isinstance(one, AddShort | AlterShort) and isinstance(one.definition.short.by, Rotation):
            rotation = one.definition.short.by
            known = found.get(str(rotation.id))
            found[str(rotation.id)] = known if known is not None and known.axes is not None else rotation
    return list(found.values())


def commits(op: MigrateOperation) -> bool:
    """Whether it ends the migration's transaction before it runs."""
    return any(
        isinstance(one, BackfillShort | RebuildShortIndex)
        or (isinstance(one, AddShort) and one.online)
        or (isinstance(one, OnIndex) and one.build.concurrently)
        for one in _forward([op])
    )
