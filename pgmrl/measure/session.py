"""A transaction to measure in: one snapshot, nothing written, bounded in time, nothing left behind."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from pgmrl import database

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

__all__ = ["measuring"]


@contextmanager
def measuring(connection: Connection, *, seconds: float, parallel: int = 0) -> Iterator[None]:
    """Read in one snapshot and within so many seconds, and leave no setting behind.

    A transaction of its own is REPEATABLE READ and READ ONLY, which a hot standby allows too. Within a transaction of
    the caller's it is a savepoint, and the caller's isolation holds.

    Args:
        connection: of the database.
        seconds: after which the server cancels a statement.
        parallel: processes that help with a scan of the table.

    """
    with database.snapshot(connection):
        connection.exec_driver_sql(f"SET LOCAL statement_timeout = {max(1, round(1000 * seconds))}")
        connection.exec_driver_sql(f"SET LOCAL max_parallel_workers_per_gather = {int(parallel)}")
        yield
