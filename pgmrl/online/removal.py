"""Remove: a column of full vectors that nothing reads any more, with its short ones, their indexes and triggers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pgmrl.errors import MigrationError
from pgmrl.names import qualified, quoted
from pgmrl.online import index_builds, locks, plan, steps
from pgmrl.online.contract import check_unread, readers
from pgmrl.online.preconditions import check_owner, existing_table
from pgmrl.online.target import Target

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from pgmrl.database.table_state import ShortState
    from pgmrl.online.plan import PlannedStep

__all__ = ["Removal", "plan_removal", "removal", "remove"]


@dataclass(frozen=True, slots=True)
class Removal:
    """What goes.

    Attributes:
        schema: of the table.
        table: the table.
        full: the column of full vectors.
        shorts: its short ones.
        statements: of the transaction that drops them, after their indexes.
    """

    schema: str | None
    table: str
    full: str
    shorts: tuple[ShortState, ...]
    statements: tuple[str, ...]

    @property
    def owner(self) -> str:
        """The table as SQL text."""
        return qualified(self.schema, self.table)

    @property
    def columns(self) -> list[str]:
        """Those that are dropped, the short ones first."""
        return [*(short.short for short in self.shorts if short.kept_by != "index"), self.full]


def removal(
    connection: Connection, table: str, full: str, *, schema: str | None = None, before: Sequence[str] = ()
) -> Removal:
    """What goes with a column of full vectors; nothing is changed.

    Args:
        connection: of the database.
        table: the table.
        full: the column.
        schema: of the table.
        before: statements that the transaction begins with, such as those that drop further triggers on the column.

    Raises:
        MigrationError: there is no such table or column of vectors; a reshape moves it, a side table copies it, or
            a view or a function reads it; or it is another role's.
    """
    state = existing_table(connection, schema, table)
    column = state.columns.get(full)
    if column is None or column.kind not in {"vector", "halfvec"} or full in state.shorts:
        raise MigrationError(f"table {table} has no column {full} of full vectors: check its name")
    if full in state.mirrored:
        raise MigrationError(f"{table}.{full} is moved by a reshape: `pgmrl reshape contract` or `undo` comes first")
    if sides := [side.side for side in state.sides if side.full == full]:
        raise MigrationError(f"{table}.{full} is copied into the side table {', '.join(sides)}: drop that first")
    shorts = tuple(short for short in state.shorts.values() if short.full == full)
    stored = [short.short for short in shorts if short.kept_by != "index"]
    drops = [statement for short in stored for statement in steps.drop_short(schema, table, short)]
    owner = qualified(schema, table)
    going = Removal(schema, table, full, shorts, (*before, *drops, f"ALTER TABLE {owner} DROP COLUMN {quoted(full)}"))
    for problem in readers(connection, owner, going.columns, table=table):
        raise MigrationError(problem)
    check_owner(connection, owner, creates=False)
    return going


def plan_removal(going: Removal) -> list[PlannedStep]:
    """The steps of `remove` as they will run."""
    indexes = [
        plan.drop_index(Target(going.table, going.full, short.definition, going.schema), index.name)
        for short in going.shorts
        for index in short.indexes
    ]
    return [*indexes, plan.statements(f"drop {', '.join(going.columns)}", going.owner, going.statements)]


def remove(connection: Connection, going: Removal, *, watch: float = 60.0, force: bool = False) -> None:
    """Drop a column of full vectors, its short ones, their indexes and triggers.

    Args:
        connection: in autocommit.
        going: from `removal`.
        watch: seconds in which no search may use one of the indexes before they are dropped.
        force: drop it although it is searched.

    Raises:
        MigrationError: it is still searched; nothing was dropped.
        Locked: others hold the table; its indexes may be gone.
    """
    if not force:
        check_unread(connection, going.shorts, watch)
    for short in going.shorts:
        for index in short.indexes:
            index_builds.drop(connection, going.schema, index.name)
    locks.in_transaction(connection, [locks.lock_table(going.owner), *going.statements], going.owner)
