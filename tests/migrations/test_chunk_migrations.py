"""What keeps chunks in step with texts comes by autogenerate, changes and goes by it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import Column, Engine, ForeignKey, Integer, MetaData, Table, Text, text
from sqlalchemy.exc import DBAPIError

from pgmrl import Chunks, add_chunks, database
from pgmrl.model.chunks import keep_chunk_triggers

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.migrations.conftest import Application

    Model = Callable[[MetaData], object]


def essays(chunks: Chunks | None, *, schema: str | None = None, pieces: bool = True) -> Model:
    """A model of texts, and of their pieces."""

    def make(metadata: MetaData) -> None:
        place = f"{schema}." if schema else ""
        Table("essays", metadata, Column("id", Integer, primary_key=True), Column("body", Text), schema=schema)
        if not pieces:
            return
        table = Table(
            "pieces",
            metadata,
            Column("id", Integer, primary_key=True),
            Column("essay_id", ForeignKey(f"{place}essays.id", ondelete="CASCADE"), nullable=False),
            *(Column(name, Integer, nullable=False) for name in ("ordinal", "start", "stop")),
            Column("text", Text, nullable=False),
            schema=schema,
        )
        if chunks is not None:
            add_chunks(table, chunks)

    return make


def declared(engine: Engine) -> list[tuple[Any, ...]]:
    """Schema, template, model and numbers of each table of chunks."""
    with engine.connect() as connection:
        rows = connection.execute(
            text("SELECT chunk_schema, template, model, size, overlap, notifies FROM pgmrl.chunk_tables")
        )
        return [tuple(row) for row in rows]


@pytest.mark.parametrize("schema", [None, "shop"])
def test_it_comes_changes_and_goes(project: Application, schema: str | None) -> None:
    """Each revision is followed by nothing more to do, and can be undone."""
    engine = project.new_database()
    options: dict[str, Any] = {"include_schemas": True} if schema else {}
    plain = essays(None, schema=schema, pieces=False)
    project.revise(engine, plain, "a1", **options)
    project.upgrade(engine, plain, **options)
    with engine.begin() as connection:
        connection.execute(text(f"INSERT INTO {schema or 'public'}.essays (id, body) VALUES (1, 'a'), (2, 'b')"))
    first = essays(Chunks("{body}\n", "static", size=9, overlap=2), schema=schema)
    written = project.revise(engine, first, "a2", **options)
    place = f", schema={schema!r}" if schema else ""
    assert f"op.keep_chunks('pieces', Chunks('{{body}}\\n', 'static', size=9, overlap=2){place})" in written
    assert "op.upgrade_pgmrl(" in written
    project.upgrade(engine, first, **options)
    project.check(engine, first, **options)
    own = schema or "public"
    assert declared(engine) == [(own, "{body}\n", "static", 9, 2, True)]
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM pgmrl.embedding_queue")).scalar_one() == 2
    second = essays(Chunks("body", "characters", notify=False), schema=schema)
    assert "size=256, notify=False)" in project.revise(engine, second, "a3", **options)
    project.upgrade(engine, second, **options)
    project.check(engine, second, **options)
    assert declared(engine) == [(own, "body", "characters", 256, 0, False)]
    with engine.connect() as connection, pytest.raises(DBAPIError, match="in use by the chunks of"):
        database.downgrade(connection)
    written = project.revise(engine, plain, "a4", **options)
    assert written.index("op.drop_chunks('pieces'") < written.index("op.drop_table('pieces'")
    project.upgrade(engine, plain, **options)
    project.check(engine, plain, **options)
    assert declared(engine) == []
    project.downgrade(engine, plain, "a3", **options)
    assert declared(engine) == [(own, "body", "characters", 256, 0, False)]
    project.downgrade(engine, plain, "a1", **options)
    with engine.connect() as connection:
        assert database.installed_revision(connection) is None


def test_what_the_command_line_installed_is_left_alone(project: Application) -> None:
    """A model need not know of it."""
    engine = project.new_database()
    model = essays(None)
    project.revise(engine, model, "b1")
    project.upgrade(engine, model)
    with engine.begin() as connection:
        database.upgrade(connection)
        connection.execute(text(keep_chunk_triggers(Chunks("body", "static"), None, "pieces")))
    project.check(engine, model)


def test_printed_instead_of_run(project: Application) -> None:
    """`alembic upgrade --sql` has the statements, which run as they are."""
    engine = project.new_database()
    model = essays(Chunks("it's %s :x {body}", "static"))
    project.revise(engine, model, "c1")
    script = project.printed(engine, model, "base:head")
    other = project.new_database()
    project.run_printed(other, script)
    assert declared(other) == [("public", "it's %s :x {body}", "static", 256, 0, True)]
