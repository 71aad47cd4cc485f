"""A database in which nothing is installed yet."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import create_engine

from pgmrl import database

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Engine

    from pgmrl import local


@pytest.fixture
def empty(server: local.LocalServer, database_url: str) -> Iterator[Engine]:
    """A database without pgmrl's schema and without pgvector."""
    name = database_url.rpartition("/")[2].partition("?")[0] + "_empty"
    admin = create_engine(database.sqlalchemy_url(server.url("postgres")), isolation_level="AUTOCOMMIT")
    engine = create_engine(database.sqlalchemy_url(server.url(name)))
    with admin.connect() as opened:
        opened.exec_driver_sql(f"CREATE DATABASE {name} TEMPLATE template0")
    yield engine
    engine.dispose()
    with admin.connect() as opened:
        opened.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")
    admin.dispose()
