"""A transaction to measure in: one snapshot, nothing written, bounded in time, nothing left behind."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

__all__ = ["isolated", "measuring"]


def isolated(connection: Connection) -> bool:
    """Whether a connection is in a transaction of the caller's, whose isolation holds."""
    return connection.in_transaction() and not _autocommit(connection)


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
    if isolated(connection):
        with connection.begin_nested() as savepoint:
            _limit(connection, seconds, parallel)
            yield
            savepoint.rollback()
        return
    if _autocommit(connection):
        connection.exec_driver_sql("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        try:
            _limit(connection, seconds, parallel)
            yield
        finally:
            connection.exec_driver_sql("ROLLBACK")
        return
    with connection.begin() as transaction:
        connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        _limit(connection, seconds, parallel)
        yield
        transaction.rollback()


def _limit(connection: Connection, seconds: float, parallel: int) -> None:
    connection.exec_driver_sql(f"SET LOCAL statement_timeout = {max(1, round(1000 * seconds))}")
    connection.exec_driver_sql(f"SET LOCAL max_parallel_workers_per_gather = {int(parallel)}")


def _autocommit(connection: Connection) -> bool:
    driver: Any = connection.connection.dbapi_connection
    return bool(getattr(driver, "autocommit", False))
