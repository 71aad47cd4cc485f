"""Connections: engines, transactions for reading, and text that is run as it is."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, CursorResult, Engine, create_engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from pgmrl.errors import Unreachable
from pgmrl.urls import connection_options, display_url, engine_arguments, masked

if TYPE_CHECKING:
    from collections.abc import Iterator


__all__ = ["connect", "execute_plain", "snapshot", "sqlalchemy_connection", "sqlstate"]


@contextmanager
def connect(url: str) -> Iterator[Engine]:
    """An Engine on this database, tried once and disposed of at the end.

    Raises:
        Unreachable: it is no PostgreSQL URL, the server does not answer, or it refuses the login.

    """
    options = connection_options(url)
    address, arguments = engine_arguments({"connect_timeout": "10", **options})
    engine = create_engine(address, connect_args=arguments)
    try:
        try:
            engine.connect().close()
        except DBAPIError as error:
            said = masked(str(error.orig).strip(), options)
            raise Unreachable(
                f"cannot reach {display_url(options)}: {said}\nCheck the URL and that the server runs."
            ) from None
        yield engine
    finally:
        engine.dispose()


def execute_plain(connection: Connection, statement: str) -> CursorResult[Any]:
    """Run text as it is: a colon or a percent sign in a name is no parameter."""
    return connection.exec_driver_sql(statement, execution_options={"no_parameters": True})


def sqlalchemy_connection(connection: Connection | Session) -> Connection:
    """The Connection behind a Session, or itself."""
    return connection.connection() if isinstance(connection, Session) else connection


@contextmanager
def snapshot(connection: Connection) -> Iterator[None]:
    """A transaction that leaves nothing behind, for reading: a cursor on the server needs one.

    All statements see the same rows and none can write; within a transaction of the caller's, its rules hold.
    """
    mode = "ISOLATION LEVEL REPEATABLE READ, READ ONLY"
    if getattr(connection.connection.dbapi_connection, "autocommit", False):
        connection.exec_driver_sql(f"BEGIN {mode}")
        try:
            yield
        finally:
            connection.exec_driver_sql("ROLLBACK")
    elif connection.in_transaction():
        savepoint = connection.begin_nested()
        try:
            yield
        finally:
            savepoint.rollback()
    else:
        transaction = connection.begin()
        try:
            connection.exec_driver_sql(f"SET TRANSACTION {mode}")
            yield
        finally:
            transaction.rollback()


def sqlstate(error: DBAPIError) -> str | None:
    """The server's code for an error; None where the server did not raise it."""
    code: str | None = getattr(error.orig, "sqlstate", None)
    return code
