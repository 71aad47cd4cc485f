"""The statements of a migration's steps: shared by operations, commands and plans."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgmrl.model import ddl
from pgmrl.names import literal, qualified, quoted

if TYPE_CHECKING:
    from pgmrl.model.shortening import Rotation
    from pgmrl.online.target import Target

__all__ = ["add_in_place", "add_online", "drop_short", "mark", "remove_rotation"]


def add_online(target: Target, *, inline: bool = True) -> list[str]:
    """A plain column and its triggers: no rewrite, no row read; arguments as of `add_in_place`."""
    definition = target.definition
    column = f"ALTER TABLE {target.owner} ADD COLUMN IF NOT EXISTS {quoted(target.short)} {definition.short_type}"
    triggers = ddl.create_short_sync_triggers(definition, target.schema, target.table, target.full)
    return [column, *(_inline(target) if inline else []), triggers]


def add_in_place(target: Target, *, inline: bool = True) -> list[str]:
    """A generated column, which rewrites the table; or a plain one with triggers, filled at once.

    Args:
        target: the short column.
        inline: whether it is kept out of TOAST, which Citus refuses to set for a distributed table.

    """
    definition = target.definition
    if ddl.rule_of(definition) != "prefix":
        return [*add_online(target), *ddl.fill_short(definition, target.schema, target.table, target.full)]
    generated = f"GENERATED ALWAYS AS ({target.value}) STORED"
    column = f"ALTER TABLE {target.owner} ADD COLUMN {quoted(target.short)} {definition.short_type} {generated}"
    return [column, *(_inline(target) if inline else [])]


def _inline(target: Target) -> list[str]:
    bits = target.definition.short.type == "bit"
    return [] if bits else [ddl.set_storage(target.owner, target.short, "main")]


def drop_short(schema: str | None, table: str, short: str) -> list[str]:
    """The triggers, their function, the column with its indexes."""
    owner = qualified(schema, table)
    return [
        ddl.drop_short_sync_triggers(schema, table, short),
        f"ALTER TABLE {owner} DROP COLUMN IF EXISTS {quoted(short)}",
    ]


def mark(schema: str | None, table: str, short: str, stage: str | None) -> str:
    """Say in the column's comment that it stands beside another one for a while."""
    comments = {
        "arriving": "pgmrl: arriving; the next version of the application reads it",
        "retired": "pgmrl: retired; drop it when nothing reads it any more",
    }
    comment = literal(comments[stage]) if stage else "NULL"
    return f"COMMENT ON COLUMN {qualified(schema, table)}.{quoted(short)} IS {comment}"


def remove_rotation(rotation: Rotation) -> str:
    """Remove a rotation that nothing uses; one in use stays."""
    triggers = f"SELECT FROM pg_trigger AS t WHERE position(convert_to('{rotation.id}', 'UTF8') IN t.tgargs) > 0"
    return f"DELETE FROM pgmrl.rotations WHERE id = '{rotation.id}' AND NOT EXISTS ({triggers})"
