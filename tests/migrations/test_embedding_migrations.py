"""What keeps a column in step with a text comes by autogenerate, changes and goes by it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import Column, Engine, Integer, MetaData, Table, Text, text
from sqlalchemy.exc import DBAPIError

from pgmrl import Embed, Matryoshka, Short, database
from pgmrl.alembic import KeepEmbedding
from pgmrl.model.embed import keep_embedding_triggers

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.migrations.conftest import Application

    Model = Callable[[MetaData], object]


def notes(embed: Embed | None, *, schema: str | None = None, vectors: bool = True) -> Model:
    """A model with a column of vectors, which a text may be declared for."""

    def make(metadata: MetaData) -> None:
        table = Table("notes", metadata, Column("id", Integer, primary_key=True), Column("title", Text), schema=schema)
        if vectors:
            table.append_column(Column("embedding", Matryoshka(8, Short(4), embed=embed)))

    return make


def embeddings(engine: Engine) -> list[tuple[str, str, str, bool]]:
    """Schema, template, model and notification of each column."""
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT table_schema, template, embedder, notifies FROM pgmrl.embeddings"))
        return [tuple(row) for row in rows]


def queued(engine: Engine) -> int:
    """How many rows are marked."""
    with engine.connect() as connection:
        count: int = connection.execute(text("SELECT count(*) FROM pgmrl.embedding_queue")).scalar_one()
        return count


@pytest.mark.parametrize("schema", [None, "shop"])
def test_it_comes_changes_and_goes(project: Application, schema: str | None) -> None:
    """Each revision is followed by nothing more to do, and can be undone."""
    engine = project.new_database()
    options: dict[str, Any] = {"include_schemas": True} if schema else {}
    plain = notes(None, schema=schema)
    project.revise(engine, plain, "a1", **options)
    project.upgrade(engine, plain, **options)
    with engine.begin() as connection:
        connection.execute(text(f"INSERT INTO {schema or 'public'}.notes (id, title) VALUES (1, 'a'), (2, 'b')"))
    first = notes(Embed("{title}\n", "static"), schema=schema)
    written = project.revise(engine, first, "a2", **options)
    place = f", schema={schema!r}" if schema else ""
    assert f"op.keep_embedding('notes', 'embedding', Embed('{{title}}\\n', 'static'){place})" in written
    assert "op.upgrade_pgmrl(" in written
    project.upgrade(engine, first, **options)
    project.check(engine, first, **options)
    assert embeddings(engine) == [(schema or "public", "{title}\n", "static", True)]
    assert queued(engine) == 2
    second = notes(Embed("title", "other:model", notify=False), schema=schema)
    assert "notify=False" in project.revise(engine, second, "a3", **options)
    project.upgrade(engine, second, **options)
    project.check(engine, second, **options)
    assert embeddings(engine) == [(schema or "public", "title", "other:model", False)]
    with engine.connect() as connection, pytest.raises(DBAPIError, match="in use by the embeddings of"):
        database.downgrade(connection)
    without = notes(None, schema=schema, vectors=False)
    assert "op.drop_embedding('notes', 'embedding'" in project.revise(engine, without, "a4", **options)
    project.upgrade(engine, without, **options)
    project.check(engine, without, **options)
    assert embeddings(engine) == []
    project.downgrade(engine, without, "a3", **options)
    assert embeddings(engine) == [(schema or "public", "title", "other:model", False)]
    project.downgrade(engine, without, "a2", **options)
    assert embeddings(engine) == [(schema or "public", "{title}\n", "static", True)]
    project.downgrade(engine, without, "a1", **options)
    with engine.connect() as connection:
        assert database.installed_revision(connection) is None


def test_another_model_by_a_column_beside_the_old_one(project: Application) -> None:
    """Both follow their text; only the new one's rows are marked; the old one goes alone."""
    engine = project.new_database()
    old, new = Embed("title", "static"), Embed("title", "other:model")

    def both(metadata: MetaData) -> None:
        notes(old)(metadata)
        metadata.tables["notes"].append_column(Column("embedding_2", Matryoshka(16, Short(8), embed=new)))

    def only_new(metadata: MetaData) -> None:
        notes(None, vectors=False)(metadata)
        metadata.tables["notes"].append_column(Column("embedding_2", Matryoshka(16, Short(8), embed=new)))

    project.revise(engine, notes(old), "d1")
    project.upgrade(engine, notes(old))
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO notes (id, title, embedding) VALUES (1, 'a', '[1,2,3,4,5,6,7,8]')"))
    assert queued(engine) == 0
    refused = pytest.raises(DBAPIError, match="holds vectors of static, with which those of other:model")
    with engine.begin() as connection, refused:
        Operations(MigrationContext.configure(connection)).invoke(KeepEmbedding("notes", "embedding", new))
    project.revise(engine, both, "d2")
    project.upgrade(engine, both)
    project.check(engine, both)
    assert sorted(model for _, _, model, _ in embeddings(engine)) == ["other:model", "static"]
    assert queued(engine) == 1
    project.revise(engine, only_new, "d3")
    project.upgrade(engine, only_new)
    project.check(engine, only_new)
    assert [model for _, _, model, _ in embeddings(engine)] == ["other:model"]
    assert queued(engine) == 1


def test_what_the_command_line_installed_is_left_alone(project: Application) -> None:
    """A model need not know of it."""
    engine = project.new_database()
    model = notes(None)
    project.revise(engine, model, "b1")
    project.upgrade(engine, model)
    with engine.begin() as connection:
        database.upgrade(connection)
        connection.execute(text(keep_embedding_triggers(Embed("title", "static"), None, "notes", "embedding")))
    project.check(engine, model)


def test_printed_instead_of_run(project: Application) -> None:
    """`alembic upgrade --sql` has the statements, which run as they are."""
    engine = project.new_database()
    model = notes(Embed("it's %s :x {title}", "static"))
    project.revise(engine, model, "c1")
    script = project.printed(engine, model, "base:head")
    other = project.new_database()
    project.run_printed(other, script)
    assert embeddings(other) == [("public", "it's %s :x {title}", "static", True)]
