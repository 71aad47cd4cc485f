"""Connections: engines, transactions for reading, and text that is run as it is."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
from sqlalchemy import Connection, CursorResult, Engine, create_engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, scoped_session

from pgmrl.database.search_path import in_autocommit, pin_engine
from pgmrl.errors import DatabaseError, Unreachable, WrongConnection
from pgmrl.model.argument_types import is_unicode
from pgmrl.reprs import safe_repr
from pgmrl.urls import connection_options, display_url, engine_arguments, masked

if TYPE_CHECKING:
    from collections.abc import Iterator


__all__ = [
    "connect",
    "execute_plain",
    "in_autocommit",
    "psycopg_connection",
    "snapshot",
    "sqlalchemy_connection",
    "sqlstate",
]


@contextmanager
def connect(url: str, *, pin: bool = False) -> Iterator[Engine]:
    """An Engine on this database, tried once and disposed of at the end.

    Args:
        url: of the database.
        pin: whether names mean the server's own objects on its connections: see `pin_engine`.

    Raises:
        Unreachable: it is no PostgreSQL URL, the server does not answer, or it refuses the login.

    """
    options = connection_options(url)
    address, arguments = engine_arguments({"connect_timeout": "10", **options})
    engine = create_engine(address, connect_args=arguments)
    if pin:
        pin_engine(engine)
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
    """Run text as it is: a colon or a percent sign in a name is no parameter.

    Raises:
        DatabaseError: it cannot be sent.

    """
    if not is_unicode(statement):
        raise DatabaseError(f"{safe_repr(statement)} is no valid Unicode: it has half of a surrogate pair")
    return connection.exec_driver_sql(statement, execution_options={"no_parameters": True})


def sqlalchemy_connection(connection: Connection | Session) -> Connection:
    """The Connection behind a Session (also a `scoped_session`), or itself.

    Raises:
        WrongConnection: it is neither: an Engine, say, or something asynchronous; or it is closed.

    """
    if isinstance(connection, Connection):
        if connection.closed:
            raise WrongConnection("this Connection is closed: open one with engine.connect()")
        return connection
    if isinstance(connection, Session | scoped_session):
        return connection.connection()
    raise WrongConnection(f"expected a Connection or a Session, got {_kind(connection)}: {_remedy(connection)}")


def psycopg_connection(connection: Connection | Session, what: str) -> psycopg.Connection[Any]:
    """The connection of psycopg 3 behind one of SQLAlchemy's, for COPY and cursors on the server.

    Args:
        connection: of the database.
        what: what needs it, as the beginning of a sentence.

    Raises:
        WrongConnection: it is of another driver, or asynchronous.

    """
    if isinstance(connection, Connection | Session | scoped_session):
        through = sqlalchemy_connection(connection)
        driver = through.connection.driver_connection
        if isinstance(driver, psycopg.Connection):
            return driver
        got = f"one of {through.dialect.driver}{', asynchronous' if through.dialect.is_async else ''}"
    else:
        got = _kind(connection)
    raise WrongConnection(
        f"{what} needs a connection of psycopg 3 that is not asynchronous, got {got}: "
        'with create_engine("postgresql+psycopg://…").connect() as connection: …'
    )


def _kind(connection: Any) -> str:
    kind = type(connection)
    package = kind.__module__.partition(".")[0]
    return kind.__name__ if package in {"sqlalchemy", "builtins"} else f"{package}'s {kind.__name__}"


def _remedy(connection: Any) -> str:
    names = {kind.__name__ for kind in type(connection).__mro__}
    if names & {"AsyncSession", "async_scoped_session"}:
        return "await session.run_sync(lambda session: …(session, …))"
    if "AsyncConnection" in names and hasattr(connection, "run_sync"):
        return "await connection.run_sync(lambda connection: …(connection, …))"
    if "AsyncEngine" in names:
        return (
            "async with engine.connect() as connection: await connection.run_sync(lambda connection: …(connection, …))"
        )
    engine = "engine" if isinstance(connection, Engine) else "create_engine(…)"
    return f"with {engine}.connect() as connection: …"


@contextmanager
def snapshot(connection: Connection) -> Iterator[None]:
    """A transaction that leaves nothing behind, for reading: a cursor on the server needs one.

    All statements see the same rows and none can write; within a transaction of the caller's, its rules hold.
    """
    mode = "ISOLATION LEVEL REPEATABLE READ, READ ONLY"
    if in_autocommit(connection):
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
    """The server's code for an error, whatever the driver; None where the server did not raise it."""
    origin: Any = error.orig
    code: str | None = getattr(origin, "sqlstate", None) or getattr(origin, "pgcode", None)
    if code is None and origin is not None and origin.args and isinstance(origin.args[0], dict):  # of pg8000
        code = origin.args[0].get("C")
    return code
