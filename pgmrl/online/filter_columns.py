"""What of an index is looked up in the table that it is built on: the columns covered, a condition."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import text

from pgmrl.database.printed_predicates import printed_index
from pgmrl.database.search_path import catalogue_result
from pgmrl.errors import MigrationError
from pgmrl.model.filter_index import ENTRY_LIMIT, FilterIndex, entry_bytes, too_wide

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from pgmrl.online.index_statements import ShortIndex
    from pgmrl.online.target import Target

__all__ = ["completed"]

_COLUMNS: Final = """
SELECT a.attname AS name, t.typname AS type,
    CASE WHEN a.attlen > 0 THEN a.attlen WHEN t.typname = 'vector' THEN 8 + 4 * greatest(a.atttypmod, 0)
        WHEN t.typname = 'halfvec' THEN 8 + 2 * greatest(a.atttypmod, 0) ELSE 1 END::int AS bytes,
    coalesce(a.attnum = ANY (x.indkey), false) AS key
FROM pg_attribute AS a JOIN pg_type AS t ON t.oid = a.atttypid
LEFT JOIN pg_index AS x ON x.indrelid = a.attrelid AND x.indisprimary
WHERE a.attrelid = to_regclass(:owner) AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY array_position(x.indkey::int2[], a.attnum), a.attnum
"""


def completed(connection: Connection, target: Target, index: ShortIndex) -> ShortIndex:
    """An index as the server has it once it is built, for comparisons.

    A covering index with the columns of the table's key, by which full vectors are fetched; a partial one with its
    condition as the server prints it.

    Args:
        connection: of the database.
        target: the short column.
        index: what is to be built.

    Raises:
        MigrationError: the table does not have a column that it names, an entry cannot fit a page, or no index can
            have its condition.
    """
    if not isinstance(index, FilterIndex):
        return printed_index(connection, target.schema, target.table, index)
    columns = {row.name: row for row in catalogue_result(connection, text(_COLUMNS), {"owner": target.owner}).all()}
    for name in (*index.columns, *index.include):
        if name not in columns:
            raise MigrationError(f"{index!r}: table {target.owner} has no column {name}; it has {', '.join(columns)}")
    for name in index.columns:
        if columns[name].type in {"vector", "halfvec", "sparsevec"}:
            raise MigrationError(f"{index!r}: {target.owner}.{name} is a vector: expected what searches filter by")
    with_keys = index.with_keys(name for name, column in columns.items() if column.key)
    widths = [columns[name].bytes for name in (*with_keys.columns, *with_keys.include)]
    size = entry_bytes(widths, target.definition.short_bytes)
    if size > ENTRY_LIMIT:
        raise MigrationError(too_wide(index, target.owner, size, target.definition.short_bytes))
    return with_keys
