"""Full-text columns and trigram indexes through autogenerate: Alembic writes them, and finds what it wrote."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import Column, Engine, Index, Integer, MetaData, String, Table, Text, inspect, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from pgmrl import FullText, Matryoshka, Short, Words, full_text, search_hybrid, trigram_index
from tests.databases import create_extension

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Select

    from tests.migrations.conftest import Application

    Model = Callable[[MetaData], object]

HOSTILE = 'te"xt X'  # Alembic itself cannot write an expression with a percent sign or a colon in a name


def documents(*columns: Any, trigrams: bool = False, schema: str | None = None) -> Model:
    """A table with a key, texts of several types, a vector, and these columns."""

    def make(metadata: MetaData) -> Table:
        texts: list[Any] = [Column("title", Text), Column("short", String(20)), Column("any", String)]
        texts += [Column(HOSTILE, Text, key="hostile"), Column("embedding", Matryoshka(8, Short(4)))]
        copies = [column._copy() for column in columns]
        key: Column[Any] = Column("id", Integer, primary_key=True, autoincrement=False)
        made: Table = Table("documents", metadata, key, *texts, *copies, schema=schema)
        if trigrams:
            trigram_index(made.c.title)
        return made

    return make


def words(*made_of: Any, name: str = "words", config: str = "english") -> Column[Any]:
    """A full-text column."""
    return Column(name, FullText(*made_of, config=config))


def generated(engine: Engine, schema: str | None) -> dict[str, str]:
    """The generated columns with their expressions, and the definitions of indexes."""
    with engine.connect() as connection:
        columns = inspect(connection).get_columns("documents", schema)
        computed = {column["name"]: column["computed"]["sqltext"] for column in columns if "computed" in column}
        query = text("SELECT indexname, indexdef FROM pg_indexes WHERE tablename = 'documents'")
        return computed | {str(name): str(definition) for name, definition in connection.execute(query)}


@pytest.mark.parametrize("schema", [None, "shop"])
@pytest.mark.parametrize("online", [False, True])
@pytest.mark.parametrize(
    "columns",
    [
        [words("title")],
        [words({"title": "A", "short": "B", "any": None}, config="simple")],
        [words("title"), words({"hostile": "D", "title": "A"}, name='wo"rds %:w', config="german")],
    ],
    ids=["one", "weights", "hostile"],
)
def test_a_column_is_added(project: Application, columns: list[Column[Any]], schema: str | None, online: bool) -> None:
    """To a table with rows; there, found complete, back, there again, and printed."""
    options: dict[str, Any] = {"include_schemas": True, "pgmrl_online": online, "compare_server_default": True}
    before, after = documents(schema=schema), documents(*columns, trigrams=True, schema=schema)
    engine = project.new_database()
    with engine.begin() as connection:
        create_extension(connection, "pg_trgm")
    project.revise(engine, before, "a1", **options)
    project.upgrade(engine, before, "a1", **options)
    project.fill(engine, before)
    second = project.copy(engine)
    there = generated(engine, schema)
    written = project.revise(engine, after, "a2", **options)
    assert "FullText" not in written
    assert "postgresql.TSVECTOR()" in written
    assert "postgresql_ops={'title': 'gin_trgm_ops'}" in written
    project.upgrade(engine, after, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # such as: the expression has changed, which cannot be migrated
        project.check(engine, after, **options)
    made = generated(engine, schema)
    assert len(made) == len(there) + 2 * len(columns) + 1
    assert_finds(engine, after, columns)
    project.downgrade(engine, before, "a1", **options)
    assert generated(engine, schema) == there
    project.upgrade(engine, after, **options)
    assert generated(engine, schema) == made
    project.run_printed(second, project.printed(second, after, "a1:head", **options))
    assert generated(second, schema) == made
    project.check(second, after, **options)


def assert_finds(engine: Engine, model: Model, columns: list[Column[Any]]) -> None:
    """The column holds the words of the rows that were there."""
    metadata = MetaData()
    model(metadata)
    (table,) = metadata.sorted_tables
    with engine.connect() as connection:
        for column in columns:
            statement: Select[Any] = search_hybrid(table.select(), [Words(table.c[column.name], "title 7")])
            assert [row.id for row in connection.execute(statement)] == [7]


def test_a_new_table_of_a_declarative_class(project: Application) -> None:
    """Table, column and index in one migration; the second run is empty."""

    def model(metadata: MetaData) -> None:
        class Base(DeclarativeBase):
            pass

        Base.metadata = metadata

        class Note(Base):
            __tablename__ = "documents"
            id: Mapped[int] = mapped_column(primary_key=True)
            title: Mapped[str]
            words: Mapped[str] = full_text("title", config="english")

    engine = project.new_database()
    written = project.revise(engine, model, "a1")
    assert "FullText" not in written
    project.upgrade(engine, model)
    project.check(engine, model)
    assert "documents_words_gin" in generated(engine, None)


def test_another_expression_is_said_and_not_migrated(project: Application) -> None:
    """Alembic cannot change what generates a column, and says so where asked: give the new one another name."""
    engine = project.new_database()
    first, other = documents(words("title")), documents(words("title", config="simple"))
    project.revise(engine, first, "a1")
    project.upgrade(engine, first)
    with pytest.warns(UserWarning, match=r"Computed default on documents\.words cannot be modified"):
        project.check(engine, other, compare_server_default=True)
    renamed = documents(words("title", config="simple", name="simple_words"))
    project.revise(engine, renamed, "a2")
    project.upgrade(engine, renamed)
    project.check(engine, renamed)
    assert "documents_words_gin" not in generated(engine, None)


def test_an_index_of_ones_own(project: Application) -> None:
    """`index=False`, and a GIN index with the application's options."""

    def model(metadata: MetaData) -> None:
        column: Column[Any] = Column("words", FullText("title", config="english", index=False))
        made: Any = documents(column)(metadata)
        Index("own", made.c.words, postgresql_using="gin", postgresql_with={"fastupdate": False})

    engine = project.new_database()
    project.revise(engine, model, "a1")
    project.upgrade(engine, model)
    project.check(engine, model)
    names = generated(engine, None)
    assert "own" in names
    assert "documents_words_gin" not in names
