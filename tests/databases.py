"""Databases of a test run's server: one for each test, and some that tests only read and all workers share."""

from __future__ import annotations

import itertools
import os
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import Connection, Engine, NullPool, Row, Table, create_engine, text

from pgmrl import database

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pgmrl.local import LocalServer

TEMPLATE = "pgmrl_template"
"""With pgvector and pgmrl's schema."""

_numbers = itertools.count(1)


@contextmanager
def admin(server: LocalServer) -> Iterator[Connection]:
    """A connection that makes and drops databases."""
    with database.connect(server.url("postgres")) as engine, engine.connect() as connection:
        yield connection.execution_options(isolation_level="AUTOCOMMIT")


@contextmanager
def new_database(server: LocalServer, purpose: str, template: str = TEMPLATE) -> Iterator[str]:
    """The URL for SQLAlchemy of a copy of the template, dropped afterwards; its name begins with the purpose."""
    name = f"{purpose}_{os.environ.get('PYTEST_XDIST_WORKER', 'main')}_{next(_numbers)}"
    with admin(server) as connection:
        connection.execute(text(f"CREATE DATABASE {name} TEMPLATE {template}"))
    try:
        yield database.sqlalchemy_url(server.url(name))
    finally:
        with admin(server) as connection:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))


@contextmanager
def connected(url: str) -> Iterator[Engine]:
    """An Engine without a connection left open afterwards."""
    engine = create_engine(url)
    try:
        yield engine
    finally:
        engine.dispose()


def create_extension(connection: Connection, name: str) -> None:
    """Create an extension of PostgreSQL's own; the test skips beside a server that was packed without."""
    available = text("SELECT count(*) FROM pg_available_extensions WHERE name = :name")
    if not connection.execute(available, {"name": name}).scalar_one():
        pytest.skip(f"this server was packed without {name}")
    connection.exec_driver_sql(f"CREATE EXTENSION {name}")


def shared_database(server: LocalServer, name: str, fill: Callable[[Engine], None], template: str = TEMPLATE) -> str:
    """The URL of a database that tests only read: the first worker to come fills it, the others wait for that.

    It goes with the server. Nobody is connected to it until the caller is, so that it may be a template.
    """
    with admin(server) as connection:
        connection.execute(text("SELECT pg_advisory_lock(hashtext(:name))"), {"name": name})
        try:
            databases = text("SELECT FROM pg_database WHERE datname = :name")
            if connection.execute(databases, {"name": name}).first() is None:
                connection.execute(text(f"DROP DATABASE IF EXISTS {name}_new"))
                connection.execute(text(f"CREATE DATABASE {name}_new TEMPLATE {template}"))
                with connected(database.sqlalchemy_url(server.url(f"{name}_new"))) as engine:
                    fill(engine)
                connection.execute(text(f"ALTER DATABASE {name}_new RENAME TO {name}"))
        finally:
            connection.execute(text("SELECT pg_advisory_unlock(hashtext(:name))"), {"name": name})
    return database.sqlalchemy_url(server.url(name))


@contextmanager
def indexed_afterwards(connection: Connection, *tables: Table) -> Iterator[None]:
    """Drop the tables' HNSW indexes and build them when rows are loaded: several times faster than row by row."""
    indexes = [
        index for table in tables for index in table.indexes if index.dialect_options["postgresql"]["using"] == "hnsw"
    ]
    for index in indexes:
        index.drop(connection)
    yield
    for index in indexes:
        index.create(connection)


class Scratch:
    """A database for tests that roll back all they do: one after the other has it; one that left something ends it.

    Making one for each such test would take longer than most of them.
    """

    LEFT = text(
        "SELECT (SELECT max(oid) FROM pg_class), (SELECT count(*) FROM pg_class), (SELECT count(*) FROM pg_proc), "
        "(SELECT count(*) FROM pg_namespace), (SELECT count(*) FROM pg_extension), "
        "(SELECT count(*) FROM pg_db_role_setting), (SELECT count(*) FROM pgmrl.rotations), "
        "(SELECT count(*) FROM pgmrl.queries), (SELECT count(*) FROM pgmrl.settings), "
        "(SELECT count(*) FROM pgmrl.recall_history)"
    )

    def __init__(self, server: LocalServer) -> None:
        self._server = server
        self._stack = ExitStack()
        self._engine: Engine | None = None
        self._empty: Row[Any] | None = None

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """A connection that nobody had before, in a transaction that is rolled back."""
        if self._engine is None:
            url = self._stack.enter_context(new_database(self._server, "scratch"))
            self._engine = create_engine(url, poolclass=NullPool)
            with self._engine.connect() as connection:
                self._empty = connection.execute(self.LEFT).one()
        with self._engine.connect() as connection:
            yield connection
        with self._engine.connect() as connection:
            if connection.execute(self.LEFT).one() == self._empty:
                return
        self.drop()

    def drop(self) -> None:
        """The next test has another one."""
        self._engine = None
        self._stack.close()


def vacuum(engine: Engine, table: str = "") -> None:
    """Visibility and statistics as autovacuum, which does not run in the tests, would have left them."""
    with engine.begin() as connection:
        # VACUUM marks no page whose rows' commit is not on disk yet, and no commit of the tests waits for that: this
        # one, which writes something, does, for itself and for all before it
        connection.exec_driver_sql("SET LOCAL synchronous_commit = on")
        connection.exec_driver_sql("SELECT pg_logical_emit_message(true, 'tests', '')")
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql(f"VACUUM ANALYZE {table}")
