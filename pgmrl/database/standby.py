"""Standbys: servers that replay what a primary writes, and take no writes themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pgmrl.database.connection import execute_plain
from pgmrl.errors import DatabaseError

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = ["KEEPS_NO_HISTORY", "is_standby", "require_primary"]

KEEPS_NO_HISTORY: Final = "a standby keeps no history: measure on its primary"


def is_standby(connection: Connection) -> bool:
    """Whether the server replays another one's writes."""
    return bool(execute_plain(connection, "SELECT pg_catalog.pg_is_in_recovery()").scalar_one())


def require_primary(connection: Connection, server: str) -> None:
    """Check that a server takes writes.

    Args:
        connection: to it.
        server: what it is called, such as its URL.

    Raises:
        DatabaseError: it is a standby, or starts its transactions read-only.

    """
    row = execute_plain(
        connection,
        "SELECT pg_catalog.pg_is_in_recovery() AS standby, "
        "pg_catalog.current_setting('transaction_read_only') = 'on' AS read_only, "
        "(SELECT pg_catalog.format(' of %s:%s', w.sender_host, w.sender_port) "  # NULL without pg_monitor
        "FROM pg_catalog.pg_stat_wal_receiver AS w WHERE w.sender_host IS NOT NULL) AS source",
    ).one()
    if row.standby:
        raise DatabaseError(
            f"expected a primary, which takes writes, got a standby{row.source or ''}: {server}. Give the URL of its "
            "primary"
        )
    if row.read_only:
        raise DatabaseError(
            f"expected a server that takes writes, got one whose transactions are read-only: {server}. Give another "
            "URL, or change default_transaction_read_only"
        )
