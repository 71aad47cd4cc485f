"""The statements that make, fill and keep a short column, as SQL text: tables, migrations and checks share them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from pgmrl.model.rotation import Rotation
from pgmrl.names import identifier, literal, qualified, quoted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pgmrl.model.shortening import Definition

__all__ = [
    "Storage",
    "create_mirror_triggers",
    "create_short_sync_triggers",
    "create_side_sync_triggers",
    "default_storage",
    "drop_mirror_triggers",
    "drop_sync_triggers",
    "fill_short",
    "mirror_trigger_name",
    "rule_of",
    "set_computed_by",
    "set_storage",
    "sync_trigger_name",
]

Storage = Literal["main", "external"]
"""Where the full vector lives: `main` inline in the row while it fits, `external` in TOAST."""

INLINE_BYTES: Final = 7_500  # of a page of 8,192, with room for the short vector and a few columns


def default_storage(definition: Definition) -> Storage:
    """Inline while a vector fits a page beside a few columns: reading TOAST doubles the time of the rerank.

    At 3,072 dimensions in half precision a page holds one row either way: the table is no larger.
    """
    size = definition.dims * (2 if definition.full == "halfvec" else 4)
    return "main" if size <= INLINE_BYTES else "external"


def set_storage(table: str, column: str, storage: Storage) -> str:
    """`main` and not `plain`: a vector that does not fit its page then goes to TOAST instead of failing.

    Args:
        table: SQL text of the table, quoted.
        column: the column's name.
        storage: where its values go from now on; stored values stay where they are.

    """
    return f"ALTER TABLE {table} ALTER COLUMN {quoted(column)} SET STORAGE {storage.upper()}"


def fill_short(definition: Definition, schema: str | None, table: str, full: str) -> list[str]:
    """Compute the short vectors that a plain short column does not have yet; one transaction."""
    short = quoted(definition.short_name(full))
    value = definition.sql(quoted(full))
    missing = f"{short} IS NULL AND {quoted(full)} IS NOT NULL"
    return [
        set_computed_by(definition),  # or the trigger would compute each a second time
        f"UPDATE {qualified(schema, table)} SET {short} = {value} WHERE {missing}",  # noqa: S608
        "SELECT set_config('pgmrl.computed_by', '', true)",
    ]


def set_computed_by(definition: Definition) -> str:
    """Tell the trigger that this transaction computes the short vectors itself, by the same rule."""
    return f"SELECT set_config('pgmrl.computed_by', {literal(rule_of(definition))}, true)"


def rule_of(definition: Definition) -> str:
    """How the trigger's arguments and the backfill name the shortening: `prefix`, or the rotation's id."""
    return str(definition.short.by.id) if isinstance(definition.short.by, Rotation) else "prefix"


def create_short_sync_triggers(definition: Definition, schema: str | None, table: str, full: str) -> str:
    """Install the triggers that keep a plain short column in step, whoever writes.

    Raises:
        RotationError: the rotation has not been learned.

    """
    short = definition.short_name(full)
    expression = definition.sql(f"NEW.{quoted(full)}")
    texts = [sync_trigger_name(table, short), full, short, rule_of(definition), definition.metric.name, expression]
    return f"SELECT pgmrl.sync_short_v1({_regclass(schema, table)}, {', '.join(map(literal, texts))})"


def create_side_sync_triggers(schema: str | None, table: str, side: str, keys: Sequence[str], full: str) -> str:
    """Install the triggers that copy a table's vector into its side table, and copy what is there.

    Args:
        schema: of both tables.
        table: the application's table.
        side: the side table.
        keys: the primary key's columns, named alike in both.
        full: the vector's column, named alike in both.

    """
    array = f"ARRAY[{', '.join(map(literal, keys))}]"
    tables = f"{_regclass(schema, table)}, {_regclass(schema, side)}"
    return f"SELECT pgmrl.sync_side_v1({tables}, {literal(sync_trigger_name(side, full))}, {array}, {literal(full)})"


def drop_sync_triggers(schema: str | None, table: str, column: str) -> str:
    """Remove the triggers of a short column, or of a side table's full one, with their function."""
    return f"DROP FUNCTION IF EXISTS {qualified(schema, sync_trigger_name(table, column))}() CASCADE"


def sync_trigger_name(table: str, column: str) -> str:
    """Name of a column's sync triggers and their function; `zz_` because triggers fire in the order of their names."""
    return identifier(f"zz_pgmrl_{table}_{column}", limit=61)  # the second trigger adds two bytes


def create_mirror_triggers(schema: str | None, table: str, old: str, new: str) -> str:
    """Install the triggers that keep two full columns the same, while an application moves from one to the other."""
    texts = ", ".join(map(literal, [mirror_trigger_name(table, new), old, new]))
    return f"SELECT pgmrl.mirror_full_v1({_regclass(schema, table)}, {texts})"


def drop_mirror_triggers(schema: str | None, table: str, new: str) -> str:
    """Remove what `create_mirror_triggers` installed."""
    return f"DROP FUNCTION IF EXISTS {qualified(schema, mirror_trigger_name(table, new))}() CASCADE"


def mirror_trigger_name(table: str, new: str) -> str:
    """Name of a column's mirror triggers and their function; they fire before those that keep short columns in step."""
    return identifier(f"zy_pgmrl_{table}_{new}", limit=61)


def _regclass(schema: str | None, table: str) -> str:
    return f"{literal(qualified(schema, table))}::regclass"
