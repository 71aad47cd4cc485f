"""Statements over every column of a table, as applications have them before the short column is there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from pgvector.sqlalchemy import VECTOR
from sqlalchemy import Column, Integer, MetaData, Table, Text, insert, select, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from pgmrl import Matryoshka, Rotation, Short, VectorArray, add_short, matryoshka
from pgmrl.database.rotations import install_rotation
from pgmrl.database.schema import upgrade

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection, Engine

ROTATION = Rotation.of(np.linalg.qr(np.random.default_rng(3).normal(size=(8, 8)))[0][:4])
KINDS = ["declared", "added", "rotation"]
VECTORS = np.random.default_rng(1).normal(size=(5, 8)).astype(np.float32)


@pytest.fixture
def connection(engine: Engine) -> Iterator[Connection]:
    """A connection to a database with pgvector and pgmrl's schema, rolled back."""
    with engine.connect() as opened:
        opened.execute(text("CREATE EXTENSION IF NOT EXISTS vector"))
        upgrade(opened)
        install_rotation(opened, ROTATION)
        yield opened
        opened.rollback()


def docs(connection: Connection, name: str, kind: str) -> Table:
    """A table whose vector column had been there before."""
    table = Table(
        name,
        MetaData(),
        Column("id", Integer, primary_key=True),
        Column("title", Text),
        Column("embedding", Matryoshka(8, Short(4)) if kind == "declared" else VECTOR(8)),
    )
    if kind != "declared":
        add_short(table.c.embedding, Short(4, by=ROTATION) if kind == "rotation" else Short(4))
    table.create(connection)
    return table


def rows(*numbers: int) -> list[dict[str, Any]]:
    """What an application would write."""
    return [{"id": n, "title": f"title {n}", "embedding": VECTORS[n % 5]} for n in numbers]


def stored(connection: Connection, table: Table) -> list[Any]:
    """All that the server has, the short vectors too."""
    return list(connection.execute(text(f"SELECT * FROM {table.name} ORDER BY id")).all())


def expected(connection: Connection, kind: str, *numbers: int) -> list[Any]:
    """The same rows, written one by one without naming the short column."""
    table = docs(connection, "expected", kind)
    for row in rows(*numbers):
        connection.execute(table.insert(), row)
    return stored(connection, table)


@pytest.mark.parametrize("kind", KINDS)
def test_an_upsert_of_every_column(connection: Connection, kind: str) -> None:
    """As the usual helper writes it: all of `excluded` but the key."""
    table = docs(connection, "docs", kind)
    connection.execute(table.insert(), [{"id": n, "title": "old", "embedding": np.ones(8)} for n in (1, 2)])
    for columns in (
        lambda made: {column.name: column for column in made.excluded if not column.primary_key},
        lambda made: {key: made.excluded[key] for key in table.c.keys()},  # noqa: SIM118 - columns, not a dict
    ):
        made = postgresql.insert(table).values(rows(1, 2, 3))
        upsert = made.on_conflict_do_update(index_elements=[table.c.id], set_=columns(made))
        connection.execute(upsert)
    assert stored(connection, table) == expected(connection, kind, 1, 2, 3)


@pytest.mark.parametrize("kind", KINDS)
def test_an_upsert_of_many_sets_of_parameters(connection: Connection, kind: str) -> None:
    """Executed with a list, which SQLAlchemy sends in batches."""
    table = docs(connection, "docs", kind)
    made = postgresql.insert(table)
    upsert = made.on_conflict_do_update(index_elements=["id"], set_=dict(made.excluded))
    for _ in range(2):
        connection.execute(upsert, rows(1, 2, 3))
    assert stored(connection, table) == expected(connection, kind, 1, 2, 3)


@pytest.mark.parametrize("kind", KINDS)
def test_insert_from_select(connection: Connection, kind: str) -> None:
    """Every column of one table into another, whichever way the columns are listed; with parameters in it."""
    source, target = docs(connection, "docs", kind), docs(connection, "target", kind)
    connection.execute(source.insert(), rows(1, 2, 3, 4))
    listed = [column.name for column in source.c]
    ways = [
        select(source),  # has no short column
        select(*source.c),  # names it
        select(source).where(source.c.id < 3).union_all(select(source).where(source.c.id >= 3)),
    ]
    for way in ways:
        connection.execute(target.delete())
        connection.execute(insert(target).from_select(listed, way))
        assert stored(connection, target) == stored(connection, source)
    made = postgresql.insert(target).from_select(listed, select(*source.c).where(source.c.id == 2))
    connection.execute(made.on_conflict_do_update(index_elements=["id"], set_=dict(made.excluded)))
    connection.execute(insert(target).from_select(["id", "embedding"], select(source.c.id + 10, source.c.embedding)))
    assert len(stored(connection, target)) == 8


def test_an_upsert_through_the_orm(connection: Connection) -> None:
    """With RETURNING, and the objects it returns."""

    class Base(DeclarativeBase):
        pass

    class Doc(Base):
        __tablename__ = "mapped"
        id: Mapped[int] = mapped_column(primary_key=True)
        title: Mapped[str]
        embedding: Mapped[VectorArray] = matryoshka(8, Short(4))

    Base.metadata.create_all(connection)
    with Session(connection, join_transaction_mode="create_savepoint") as session:
        for _ in range(2):
            made = postgresql.insert(Doc).values(rows(1, 2))
            set_ = {column.name: column for column in made.excluded if not column.primary_key}
            docs_ = session.scalars(made.on_conflict_do_update(index_elements=[Doc.id], set_=set_).returning(Doc)).all()
        assert [doc.title for doc in docs_] == ["title 1", "title 2"]


def test_other_tables_and_databases_are_left_alone() -> None:
    """The text of statements without a short column, and of other databases."""
    plain = Table("plain", MetaData(), Column("id", Integer, primary_key=True), Column("n", Integer))
    made = postgresql.insert(plain).values(id=1, n=2)
    upsert = made.on_conflict_do_update(index_elements=["id"], set_=dict(made.excluded))
    text_ = str(upsert.compile(dialect=postgresql.dialect()))  # type: ignore[no-untyped-call]
    assert text_.endswith("ON CONFLICT (id) DO UPDATE SET id = excluded.id, n = excluded.n")
