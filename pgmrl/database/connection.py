"""Connections: URLs, engines, transactions for reading, and text that is run as it is."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, CursorResult, Engine, create_engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError
from sqlalchemy.orm import Session

from pgmrl.errors import (
    Unreachable,
)

if TYPE_CHECKING:
    from collections.abc import Iterator


__all__ = ["connect", "execute_plain", "snapshot", "sqlalchemy_connection", "sqlalchemy_url", "sqlstate"]


def sqlalchemy_url(url: str) -> str:
    """A URL for SQLAlchemy with psycopg 3, from a URL of libpq's or SQLAlchemy's form.

    Raises:
        Unreachable: it is no PostgreSQL URL.

    """
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise Unreachable(f"{url!r} is no database URL: write postgresql://user@host/database") from None
    if parsed.get_backend_name() not in {"postgresql", "postgres"}:
        raise Unreachable(f"{parsed.get_backend_name()} is not PostgreSQL: write postgresql://user@host/database")
    return parsed.set(drivername="postgresql+psycopg").render_as_string(hide_password=False)


@contextmanager
def connect(url: str) -> Iterator[Engine]:
    """An Engine on this database, tried once and disposed of at the end.

    Raises:
        Unreachable: the server does not answer, or refuses the login.

    """
    engine = create_engine(sqlalchemy_url(url), connect_args={"connect_timeout": 10})
    try:
        try:
            engine.connect().close()
        except OperationalError as error:
            shown = engine.url.render_as_string(hide_password=True)
            raise Unreachable(f"cannot reach {shown}: {error.orig}\nCheck the URL and that the server runs.") from error
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

    All statements see the same rows and none can write; within a transaction of the caller's, that one's rules hold.
    """
    how = "ISOLATION LEVEL REPEATABLE READ, READ ONLY"
    if getattr(connection.connection.dbapi_connection, "autocommit", False):
        connection.exec_driver_sql(f"BEGIN {how}")
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
            connection.exec_driver_sql(f"SET TRANSACTION {how}")
            yield
        finally:
            transaction.rollback()


def sqlstate(error: DBAPIError) -> str | None:
    """The server's code for an error; None where the server did not raise it."""
    found: str | None = getattr(error.orig, "sqlstate", None)
    return found
