"""The statements that make, fill and keep a short column, as SQL text: tables, migrations and checks share them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from pgmrl.model.rotation import Rotation
from pgmrl.names import dollar_quoted, identifier, literal, qualified, quoted

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
    "drop_short_sync_triggers",
    "drop_side_sync_triggers",
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
        # or the trigger would compute each a second time; as a backfill, it answers for the full vector it read alone
        f"SELECT set_config('pgmrl.computed_by', {literal('backfill ' + rule_of(definition))}, true)",
        f"UPDATE {qualified(schema, table)} SET {short} = {value} WHERE {missing}",  # noqa: S608
        "SELECT pg_catalog.set_config('pgmrl.computed_by', '', true)",
    ]


def set_computed_by(definition: Definition) -> str:
    """Tell the trigger that this transaction computes the short vectors itself, by the same rule."""
    return f"SELECT pg_catalog.set_config('pgmrl.computed_by', {literal(rule_of(definition))}, true)"


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


def drop_short_sync_triggers(schema: str | None, table: str, short: str) -> str:
    """Remove the triggers of a short column with their function, also where table or column was renamed."""
    watched = "a.attnum = substring(g.tgqual::text FROM 'varattno (\\d+)')::int2"  # the first in the condition
    return _drop_triggers(schema, table, short, sync_trigger_name(table, short), f"g.tgnargs = 4 AND {watched}")


def _drop_triggers(schema: str | None, table: str, column: str, name: str, condition: str) -> str:
    """Remove the functions whose triggers watch a column, and the function of a name that has no triggers any more.

    By the column's number in a trigger's condition: names change, and a function of this name may keep another table,
    one that was renamed. Each operator has its own types on both sides: none of a stranger's fits better.
    """
    function, owner = literal(f"{qualified(schema, name)}()"), literal(qualified(schema, table))
    # quoted as constants
    body = f"""
DECLARE
    kept_by regprocedure;
BEGIN
    FOR kept_by IN
        SELECT DISTINCT p.oid FROM pg_catalog.pg_proc AS p
        LEFT JOIN pg_catalog.pg_trigger AS g ON g.tgfoid = p.oid
        LEFT JOIN pg_catalog.pg_attribute AS a ON a.attrelid = g.tgrelid AND a.attname = {literal(column)}
        WHERE p.proname::text LIKE 'z_\\_pgmrl\\_%' AND CASE WHEN g.oid IS NULL
            THEN p.oid = pg_catalog.to_regprocedure({function})::oid
            ELSE g.tgrelid = pg_catalog.to_regclass({owner})::oid AND {condition} END
    LOOP
        EXECUTE pg_catalog.format('DROP FUNCTION %s CASCADE', kept_by);
    END LOOP;
END """  # noqa: S608
    return f"DO {dollar_quoted(body)}"


def drop_side_sync_triggers(schema: str | None, side: str, full: str) -> str:
    """Remove the triggers that copy a table's vector into its side table, with their function."""
    return f"DROP FUNCTION IF EXISTS {qualified(schema, sync_trigger_name(side, full))}() CASCADE"


def sync_trigger_name(table: str, column: str) -> str:
    """Name of a column's sync triggers and their function; `zz_` because triggers fire in the order of their names."""
    return identifier(f"zz_pgmrl_{table}_{column}", limit=61)  # the second trigger adds two bytes


def create_mirror_triggers(schema: str | None, table: str, old: str, new: str) -> str:
    """Install the triggers that keep two full columns the same, while an application moves from one to the other."""
    texts = ", ".join(map(literal, [mirror_trigger_name(table, new), old, new]))
    return f"SELECT pgmrl.mirror_full_v1({_regclass(schema, table)}, {texts})"


def drop_mirror_triggers(schema: str | None, table: str, new: str) -> str:
    """Remove what `create_mirror_triggers` installed, also where table or columns were renamed."""
    watched = "a.attnum IN (SELECT m[1]::int2 FROM regexp_matches(g.tgqual::text, 'varattno (\\d+)', 'g') AS m)"
    return _drop_triggers(schema, table, new, mirror_trigger_name(table, new), f"g.tgnargs = 2 AND {watched}")


def mirror_trigger_name(table: str, new: str) -> str:
    """Name of a column's mirror triggers and their function; they fire before those that keep short columns in step."""
    return identifier(f"zy_pgmrl_{table}_{new}", limit=61)


def _regclass(schema: str | None, table: str) -> str:
    return f"{literal(qualified(schema, table))}::regclass"
