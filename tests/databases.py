"""Databases of a test run's server: one for each test, and some that tests only read and all workers share."""

from __future__ import annotations

import itertools
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sqlalchemy import Connection, Engine, create_engine, text

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


def vacuum(engine: Engine) -> None:
    """Visibility and statistics as autovacuum would have left them: it does not run in the tests."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("VACUUM ANALYZE")
