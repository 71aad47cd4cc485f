"""The rows that a table had before it embedded its own text: each is written once, and its trigger embeds it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from sqlalchemy import text

from pgmrl import database
from pgmrl.names import quoted
from pgmrl.online.preconditions import check_sees_all_rows

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Engine

__all__ = ["embed_rows"]

_SECONDS: Final = 0.3  # of a transaction, and so of its row locks
_PARTS: Final = text(
    "SELECT format('%I.%I', n.nspname, c.relname), pg_relation_size(c.oid) / current_setting('block_size')::bigint "
    "FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace "
    "WHERE c.relkind = 'r' AND (c.oid = to_regclass(:name) OR c.oid IN ("
    "SELECT p.relid FROM pg_partition_tree(to_regclass(:name)) AS p)) ORDER BY 1"
)


def embed_rows(engine: Engine, table: str, column: str) -> Iterator[int]:
    """Have the rows without a vector embedded, some pages in each transaction.

    Rows that are written meanwhile are embedded by that: the pages that are there at first are all there is to do.
    Ended early, it goes on where vectors are missing.

    Args:
        engine: whose role may update the table; the table's other triggers fire under its search_path.
        table: with its schema, as SQL text; of a partitioned one all partitions.
        column: which `pgmrl.keep_text` keeps.

    Yields:
        The number of rows that each transaction embedded.

    Raises:
        MigrationError: row-level security hides rows from this role.

    """
    engine = engine.execution_options(**{database.UNPINNED[0]: True})
    with engine.connect() as connection:
        check_sees_all_rows(connection, table)
        parts = database.catalogue_result(connection, _PARTS, {"name": table}).all()
    for part, pages in parts:
        first, step = 0, 8
        while first < pages:
            start = time.monotonic()
            with engine.begin() as connection:
                yield database.execute_plain(connection, _statement(part, column, first, first + step)).scalar_one()
            first += step
            seconds = time.monotonic() - start
            step = max(1, step // 2) if seconds > 2 * _SECONDS else step * 2 if seconds < _SECONDS else step


def _statement(part: str, column: str, first: int, last: int) -> str:
    """Write the rows without a vector on some pages, the last one not among them."""
    vector = f"t.{quoted(column)}"
    return (
        f"WITH written AS (UPDATE ONLY {part} AS t SET {quoted(column)} = NULL WHERE {vector} IS NULL "
        f"AND t.ctid OPERATOR(pg_catalog.>=) '({first},0)' AND t.ctid OPERATOR(pg_catalog.<) '({last},0)' "
        f"RETURNING {vector} IS NOT NULL AS embedded) "
        "SELECT pg_catalog.count(*) FILTER (WHERE w.embedded) FROM written AS w"
    )
