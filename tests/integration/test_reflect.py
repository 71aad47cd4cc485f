"""What is not there by its name: the message says what the name may have meant."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pgmrl.database.reflection import reflect
from pgmrl.errors import NotMigrated

if TYPE_CHECKING:
    from sqlalchemy import Engine
else:
    Engine = Any


def refused(engine: Engine, name: str) -> str:
    """The error."""
    with engine.connect() as connection, pytest.raises(NotMigrated) as caught:
        reflect(connection, name)
    return str(caught.value)


def test_a_table_of_another_schema(engine: Engine) -> None:
    """Each that has one of the name; an index of the name is none."""
    assert refused(engine, "docs.e") == "there is no table public.docs in this database: run its migrations"
    with engine.begin() as connection:
        for schema in ("shop", "archive"):
            connection.exec_driver_sql(
                f"CREATE SCHEMA {schema} CREATE TABLE docs (id integer PRIMARY KEY, e vector(4))"
            )
        connection.exec_driver_sql("CREATE SCHEMA zoo CREATE TABLE animals (id integer)")
        connection.exec_driver_sql("CREATE INDEX docs ON zoo.animals (id)")
    said = "there is archive.docs, shop.docs: write the schema. Else run its migrations"
    assert refused(engine, "docs.e") == f"there is no table public.docs in this database: {said}"
    with engine.connect() as connection:
        assert reflect(connection, "shop.docs.e").table.schema == "shop"


def test_a_column_of_nearly_that_name(engine: Engine) -> None:
    """The nearest, if there is one."""
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE docs (id integer PRIMARY KEY, embedding vector(4))")
    assert refused(engine, "docs.embeding").endswith(
        "(it has id, embedding): did you mean 'embedding'? Else run its migrations"
    )
    assert refused(engine, "docs.short").endswith("(it has id, embedding): run its migrations")
