"""pgmrl's plugin named in `autogenerate_plugins`: an Alembic that has no plugins does not overlook it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Column, Integer, MetaData, Table

import pgmrl.alembic  # noqa: F401 - as the application's env.py or its migrations do
from pgmrl.errors import MigrationError
from pgmrl.model.columns import Matryoshka
from pgmrl.model.shortening import Short
from tests.versions import HAS_PLUGINS

if TYPE_CHECKING:
    from sqlalchemy import Engine


def test_the_plugin_works_or_is_refused(engine: Engine) -> None:
    """Before 1.18 there would be a migration without what the plugin adds."""
    metadata = MetaData()
    Table("documents", metadata, Column("id", Integer, primary_key=True), Column("e", Matryoshka(8, Short(4))))
    plugins = {"autogenerate_plugins": ["alembic.autogenerate.*", "pgmrl"], "target_metadata": metadata}
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts=plugins)
        if not HAS_PLUGINS:
            with pytest.raises(MigrationError, match=r"expected Alembic 1\.18 or later .* take pgmrl out of"):
                compare_metadata(context, metadata)
            return
        differences = [difference[0] for difference in compare_metadata(context, metadata)]
    assert "add_short" in differences


def test_without_the_plugin(engine: Engine) -> None:
    """It is not missed where it is not named."""
    context = MigrationContext.configure(opts={"target_metadata": MetaData()}, connection=engine.connect())
    assert context.connection is not None
    with context.connection:
        assert compare_metadata(context, MetaData()) == []
