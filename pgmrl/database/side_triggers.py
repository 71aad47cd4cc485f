"""Whether the trigger of a side table still finds what it names: the side table, and columns of both."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from sqlalchemy import text

from pgmrl.database.search_path import catalogue_result
from pgmrl.database.table_state import table_state
from pgmrl.model import ddl
from pgmrl.names import literal, qualified, quoted

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from pgmrl.database.table_state import SideState, TableState

__all__ = ["BrokenCopy", "broken_copy"]


class BrokenCopy(NamedTuple):
    """Why the trigger of a side table fails.

    Attributes:
        reason: what it does not find.
        remedy: the statements that install it anew; renaming back does it as well.
    """

    reason: str
    remedy: str


# a side table refers to its owner's key, by the columns' numbers
_REFERRING: Final = """
SELECT n.nspname, c.relname,
    ARRAY(SELECT a.attname::text FROM unnest(f.confkey) WITH ORDINALITY AS k (number, place)
          JOIN pg_attribute AS a ON a.attrelid = f.confrelid AND a.attnum = k.number ORDER BY k.place) AS owner_keys,
    ARRAY(SELECT a.attname::text FROM unnest(f.conkey) WITH ORDINALITY AS k (number, place)
          JOIN pg_attribute AS a ON a.attrelid = f.conrelid AND a.attnum = k.number ORDER BY k.place) AS side_keys
FROM pg_constraint AS f
JOIN pg_class AS c ON c.oid = f.conrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE f.contype = 'f' AND f.confrelid = to_regclass(:owner) AND f.confupdtype = 'c' AND f.confdeltype = 'c'
  AND has_schema_privilege(n.oid, 'USAGE')
ORDER BY 1, 2
"""
_FUNCTION: Final = """
SELECT DISTINCT format('%I.%I', n.nspname, p.proname) FROM pg_trigger AS g
JOIN pg_proc AS p ON p.oid = g.tgfoid JOIN pg_namespace AS n ON n.oid = p.pronamespace
WHERE g.tgrelid = to_regclass(:owner) AND p.proname = :name
"""
# the other way round: parse_ident fails where the argument is no name
_NAMED: Final = """
SELECT n.nspname, c.relname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE quote_ident(n.nspname) || '.' || quote_ident(c.relname) = :side
"""


def broken_copy(connection: Connection, owner: TableState, side: SideState) -> BrokenCopy | None:
    """Why the trigger that copies a table's vectors into its side table fails; None where it finds what it names.

    Args:
        connection: of the database.
        owner: the table.
        side: the triggers.
    """
    place = catalogue_result(connection, text(_NAMED), {"side": side.side}).first()
    copy = None if place is None else table_state(connection, place.nspname, place.relname)
    names = side.installed_names
    if copy is None:
        reason = f"there is no table {side.side}"
    else:
        missing = [f"{table.table}.{name}" for table in (owner, copy) for name in names if name not in table.columns]
        if not missing and names[-1:] == (side.full,):
            return None
        was = ", ".join(missing) if missing else f"{owner.table}.{names[-1]}"
        reason = f"{was} {'is' if len(missing) < 2 else 'are'} no column that it copies: renamed or dropped"
    return BrokenCopy(reason, _remedy(connection, owner, side))


def _remedy(connection: Connection, owner: TableState, side: SideState) -> str:
    place = qualified(owner.schema, owner.table)
    functions = catalogue_result(connection, text(_FUNCTION), {"owner": place, "name": side.name}).scalars()
    dropped = [f"DROP FUNCTION {function}() CASCADE;" for function in functions]
    for row in catalogue_result(connection, text(_REFERRING), {"owner": place}).all():
        copy = table_state(connection, row.nspname, row.relname)
        vector = None if copy is None else _copied_column(copy, side)
        if copy is not None and vector is not None:
            pairs = [*zip(row.side_keys, row.owner_keys, strict=True), (vector, side.full)]
            copy_place = qualified(copy.schema, copy.table)
            alike = [
                f"ALTER TABLE {copy_place} RENAME COLUMN {quoted(before)} TO {quoted(after)};"
                for before, after in pairs
                if before != after
            ]
            name = ddl.sync_trigger_name(copy.table, side.full)
            texts = f"{literal(name)}, ARRAY[{', '.join(map(literal, row.owner_keys))}], {literal(side.full)}"
            tables = f"{literal(place)}::regclass, {literal(copy_place)}::regclass"
            return " ".join([*dropped, *alike, f"SELECT pgmrl.sync_side_v1({tables}, {texts});"])
    return " ".join([*dropped, "Then make another side table (op.create_table, op.keep_side)."])


def _copied_column(copy: TableState, side: SideState) -> str | None:
    """The side table's full column: by its name, or else the only one that nothing computes."""
    vectors = (name for name, column in copy.columns.items() if column.kind in {"vector", "halfvec"})
    plain = [name for name in vectors if name not in copy.shorts]
    named = [name for name in plain if name in {side.full, *side.installed_names[-1:]}]
    if not named and len(plain) == 1:
        return plain[0]
    return named[0] if named else None
