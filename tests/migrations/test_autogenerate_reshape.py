"""Autogenerate beside a reshape: what stands side by side for a while is no difference, to old models and new."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from pgvector.sqlalchemy import VECTOR
from sqlalchemy import Column, Integer, MetaData, Table, Text

from pgmrl import database
from pgmrl.database.table_state import table_state
from pgmrl.model.columns import Matryoshka, add_short
from pgmrl.model.shortening import Short
from pgmrl.online.contract import contract, pending_contraction
from pgmrl.online.expand import expand
from pgmrl.online.index_statements import Build
from pgmrl.online.reshape import reshape

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Engine

    from tests.migrations.conftest import Application

    Model = Callable[[MetaData], object]


def before(metadata: MetaData) -> None:
    """A `vector` column with a short one."""
    key = Column("id", Integer, primary_key=True, autoincrement=False)
    table = Table("documents", metadata, key, Column("title", Text), Column("embedding", VECTOR(8)))
    add_short(table.c.embedding, Short(4))


def shorter(metadata: MetaData) -> None:
    """Another short column."""
    key = Column("id", Integer, primary_key=True, autoincrement=False)
    table = Table("documents", metadata, key, Column("title", Text), Column("embedding", VECTOR(8)))
    add_short(table.c.embedding, Short(2))


def halved(metadata: MetaData) -> None:
    """Another full column."""
    key = Column("id", Integer, primary_key=True, autoincrement=False)
    full: Column[Any] = Column("embedding_halfvec", Matryoshka(8, Short(4), full="halfvec"))
    Table("documents", metadata, key, Column("title", Text), full)


@pytest.fixture
def there(project: Application) -> Engine:
    """A database with the table and rows."""
    engine = project.new_database()
    project.revise(engine, before, "a1")
    project.upgrade(engine, before)
    project.fill(engine, before)
    with engine.begin() as connection:
        database.upgrade(connection)
    return engine


def finish_reshape(engine: Engine, full: str) -> None:
    """The end of a reshape."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        contract(connection, pending_contraction(connection, "documents", full), watch=0)


@pytest.mark.parametrize("online", [False, True])
def test_full_vectors_that_are_moving(project: Application, there: Engine, online: bool) -> None:
    """Neither the model before the switch nor the one after it would drop the other's column."""
    with there.connect() as connection:
        change = reshape(connection, "documents", "embedding", full_type="halfvec")
    assert expand(there, change, Build())
    project.check(there, before, pgmrl_online=online)
    project.check(there, halved, pgmrl_online=online)
    finish_reshape(there, "embedding_halfvec")
    project.check(there, halved, pgmrl_online=online)
    with there.connect() as connection:
        state = table_state(connection, None, "documents")
    assert state is not None
    assert "embedding" not in state.columns


def test_the_model_before_the_switch(project: Application, there: Engine) -> None:
    """A short column that is arriving is not dropped by the version that does not know it."""
    with there.connect() as connection:
        change = reshape(connection, "documents", "embedding", dims=2)
    assert expand(there, change, Build())
    project.check(there, before)
    finish_reshape(there, "embedding")
    project.check(there, shorter)


def test_expanded_by_a_migration_contracted_by_the_command(project: Application, there: Engine) -> None:
    """Online, autogenerate marks the old one as retired; the command drops it."""
    project.revise(there, shorter, "a2", pgmrl_online=True)
    project.upgrade(there, shorter, pgmrl_online=True)
    with there.connect() as connection:
        state = table_state(connection, None, "documents")
        assert state is not None
        assert {name: short.stage for name, short in state.shorts.items()} == {
            "embedding_short_4": "retired",
            "embedding_short_2": None,
        }
    finish_reshape(there, "embedding")
    project.check(there, shorter, pgmrl_online=True)


def test_the_command_first_and_then_the_migration(project: Application, there: Engine) -> None:
    """A migration that was written elsewhere finds everything done, and does nothing."""
    other = project.new_database()
    project.upgrade(other, before)
    project.revise(other, shorter, "a2", pgmrl_online=True)
    with there.connect() as connection:
        change = reshape(connection, "documents", "embedding", dims=2)
    assert expand(there, change, Build())
    finish_reshape(there, "embedding")
    with there.connect() as connection:
        reshaped = table_state(connection, None, "documents")
    project.upgrade(there, shorter, pgmrl_online=True)
    with there.connect() as connection:
        assert table_state(connection, None, "documents") == reshaped
    project.check(there, shorter, pgmrl_online=True)
