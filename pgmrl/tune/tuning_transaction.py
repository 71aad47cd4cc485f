"""A transaction to tune in: one snapshot of the table, and nothing left behind, however it ends."""

from __future__ import annotations

import contextlib
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from pgmrl.database.connection import psycopg_connection
from pgmrl.database.search_path import catalogue_result
from pgmrl.errors import DatabaseError, MeasureError
from pgmrl.measure.session import CONFLICT, ended_by_standby

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

__all__ = ["driver_of", "prepares", "savepoint", "snapshot"]

TIMEOUTS = ("statement_timeout", "idle_in_transaction_session_timeout", "transaction_timeout")


def driver_of(connection: Connection) -> psycopg.Connection[Any]:
    """The driver's connection, for what SQLAlchemy has no words for: cursors on the server and COPY.

    Raises:
        WrongConnection: it is not psycopg 3's, synchronous.

    """
    return psycopg_connection(connection, "tune")


def prepares(driver: psycopg.Connection[Any]) -> bool | None:
    """Whether statements are prepared at once: unless the caller's connection must not, such as behind a pooler."""
    return None if driver.prepare_threshold is None else True


@contextmanager
def snapshot(connection: Connection) -> Iterator[None]:
    """A REPEATABLE READ transaction that is rolled back at the end: all passes over the table see the same rows.

    Args:
        connection: outside a transaction. Or in one, where a savepoint serves, and the caller ends the transaction:
            of REPEATABLE READ or SERIALIZABLE, or before its first statement; then it becomes REPEATABLE READ.

    Raises:
        MeasureError: it is in a READ COMMITTED transaction, or a standby ended the snapshot.
        DatabaseError: the server stopped it, or the connection dropped.

    """
    driver = driver_of(connection)
    idle = driver.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
    of_caller = connection.in_transaction() and not driver.autocommit  # also where nothing was sent yet
    try:
        if of_caller or not idle:  # the caller's, who ends it
            _check_isolation(connection, settable=idle)
            with savepoint(connection, undo=True):
                _prepare(connection)
                yield
            return
        begin = "BEGIN ISOLATION LEVEL" if driver.autocommit else "SET TRANSACTION ISOLATION LEVEL"
        connection.exec_driver_sql(f"{begin} REPEATABLE READ")
        try:
            _prepare(connection)
            yield
        finally:
            with contextlib.suppress(SQLAlchemyError):
                _roll_back(connection, driver)
    except (DBAPIError, psycopg.Error) as error:
        raise _explained(error) from error


@contextmanager
def savepoint(connection: Connection, *, undo: bool = False, read_only: bool = False) -> Iterator[None]:
    """A part of the transaction; undone where it fails.

    Args:
        connection: in a transaction.
        undo: undo it in any case.
        read_only: the server refuses to write in it.

    """
    connection.exec_driver_sql("SAVEPOINT pgmrl_tune")
    try:
        if read_only:
            connection.exec_driver_sql("SET TRANSACTION READ ONLY")
        yield
    except BaseException:
        with contextlib.suppress(SQLAlchemyError):  # of a dropped connection the first error counts
            _undo(connection)
        raise
    if undo:
        _undo(connection)
    else:
        connection.exec_driver_sql("RELEASE SAVEPOINT pgmrl_tune")


def _explained(error: DBAPIError | psycopg.Error) -> Exception:
    """One error in words, whether SQLAlchemy raised it or the driver did."""
    origin = error.orig if isinstance(error, DBAPIError) else error
    if getattr(origin, "sqlstate", None) == CONFLICT:
        return ended_by_standby()
    return DatabaseError(
        f"tuning was stopped by the server: {str(origin).strip()}\nNothing is left there; run it again."
    )


def _undo(connection: Connection) -> None:
    connection.exec_driver_sql("ROLLBACK TO SAVEPOINT pgmrl_tune")
    connection.exec_driver_sql("RELEASE SAVEPOINT pgmrl_tune")


def _roll_back(connection: Connection, driver: psycopg.Connection[Any]) -> None:
    if driver.autocommit:
        connection.exec_driver_sql("ROLLBACK")
    else:
        connection.rollback()


def _check_isolation(connection: Connection, *, settable: bool) -> None:
    """See to one snapshot for all statements of the caller's transaction; before its first one that can be set."""
    level = connection.exec_driver_sql("SHOW transaction_isolation").scalar_one()  # takes no snapshot
    if level in {"repeatable read", "serializable"}:
        return
    if not settable:
        raise MeasureError(
            "tune reads the table several times in one snapshot, and this connection is in a READ COMMITTED "
            "transaction: commit or roll back first, or begin it as REPEATABLE READ"
        )
    connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")


def _prepare(connection: Connection) -> None:
    """A scan that began in the middle of the table would give other batches; products between fetches take time."""
    connection.exec_driver_sql("SET LOCAL synchronize_seqscans = off")
    known = catalogue_result(
        connection, text("SELECT name FROM pg_settings WHERE name = ANY(:names)"), {"names": list(TIMEOUTS)}
    ).scalars()
    for name in known.all():
        connection.exec_driver_sql(f"SET LOCAL {name} = 0")
