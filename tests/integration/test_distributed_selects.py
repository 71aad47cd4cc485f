"""Selects whose columns cannot come with the shortlist of a distributed table: they give the ordinary rows too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import (
    Column,
    Connection,
    Float,
    ForeignKey,
    Integer,
    MetaData,
    Table,
    Text,
    literal_column,
    select,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from pgmrl import Short, VectorArray, matryoshka, search
from pgmrl.errors import SearchError
from pgmrl.model.columns import Matryoshka
from tests.integration.test_more_like_this import vectors

if TYPE_CHECKING:
    from collections.abc import Callable

ROWS = [{"id": n, "name": f"row {n % 10}", "place": n % 4, "embedding": v} for n, v in enumerate(vectors()[:60])]

SELECTS: dict[str, Callable[[Any, Any], Any]] = {
    "joined by a column that is not selected": lambda d, p: select(d.c.id).select_from(d.join(p)),
    "joined, with a condition on a column of the same name": lambda d, p: (
        select(d.c.id).select_from(d.join(p)).where(p.c.name == "place 1")
    ),
    "text": lambda d, _: select(d.c.id).where(text("docs.name = 'row 3'")),
    "a column in text": lambda d, _: select(d.c.id).where(literal_column("docs.name") == "row 3"),
    "both": lambda d, _: select(d.c.id).where(d.c.id > 7, text("name = 'row 3'")),
}


def tables(distributed: Any, *more: Column[Any]) -> tuple[Table, Table]:
    """Documents, each of a place."""
    metadata = MetaData()
    places = Table("places", metadata, Column("id", Integer, primary_key=True), Column("name", Text))
    docs = Table(
        "docs",
        metadata,
        Column("id", Integer, primary_key=True),
        Column("name", Text),
        Column("place", ForeignKey("places.id")),
        Column("embedding", Matryoshka(8, Short(4), distributed=distributed)),
        *more,
    )
    return docs, places


def fill(connection: Connection, docs: Table, **values: Any) -> None:
    """Sixty documents in four places."""
    docs.metadata.create_all(connection)
    connection.execute(docs.metadata.tables["places"].insert(), [{"id": n, "name": f"place {n}"} for n in range(4)])
    connection.execute(docs.insert(), [{**row, **values} for row in ROWS])


def rows_of(connection: Connection, statement: Any) -> list[list[Any]]:
    """With distances that may differ in the last bit."""
    rows = connection.execute(statement).all()
    return [[pytest.approx(v, abs=1e-9) if isinstance(v, float) else v for v in row] for row in rows]


@pytest.mark.parametrize("name", SELECTS)
def test_what_the_shortlist_does_not_carry(connection: Connection, name: str) -> None:
    """Joins, and columns that only text names."""
    fill(connection, tables(distributed=False)[0])
    results = []
    for distributed in (False, True):
        docs, places = tables(distributed)
        statement = search(SELECTS[name](docs, places), docs.c.embedding, vectors()[3])
        results.append(rows_of(connection, statement))
    assert results[1] == results[0]
    assert results[0]


def test_a_column_called_distance_under_another_schema(connection: Connection) -> None:
    """With a schema_translate_map no CTE has the table's name, and its own column is not taken for the distance."""
    docs, _ = tables(False, Column("distance", Float))
    fill(connection, docs, distance=0.0)
    docs, _ = tables(True, Column("distance", Float))
    translated = connection.execution_options(schema_translate_map={None: "public"})
    statement = select(docs.c.id)
    nearest, exact = (
        rows_of(translated, search(statement, docs.c.embedding, vectors()[3], shortlist=60, exact=exact))
        for exact in (False, True)
    )
    assert nearest == exact
    assert nearest[0][0] == 3


def test_another_schema(connection: Connection) -> None:
    """A schema_translate_map is refused where the columns are in a CTE of the table's name; an alias has it."""
    docs, _ = tables(False)
    fill(connection, docs)
    docs, _ = tables(True)
    translated = connection.execution_options(schema_translate_map={None: "public"})
    for exact in (False, True):
        with pytest.raises(SearchError, match="search an alias of it"):
            translated.execute(search(select(docs.c.id), docs.c.embedding, vectors()[3], exact=exact))
    other = docs.alias()
    assert translated.scalars(search(select(other.c.id), other.c.embedding, vectors()[3])).first() == 3
    elsewhere = connection.execution_options(schema_translate_map={"app": "public"})
    assert elsewhere.scalars(search(select(docs.c.id), docs.c.embedding, vectors()[3])).first() == 3


class Base(DeclarativeBase):
    """Classes that inherit."""


class Animal(Base):
    """Two kinds in one table, a third with a table of its own."""

    __tablename__ = "animals"
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    name: Mapped[str]
    embedding: Mapped[VectorArray] = matryoshka(8, Short(4), distributed="id")
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "animal"}  # noqa: RUF012


class Dog(Animal):
    """In its table."""

    __mapper_args__ = {"polymorphic_identity": "dog"}  # noqa: RUF012


class Fish(Animal):
    """In a table of its own."""

    __tablename__ = "fish"
    id: Mapped[int] = mapped_column(ForeignKey("animals.id"), primary_key=True)
    depth: Mapped[int]
    __mapper_args__ = {"polymorphic_identity": "fish"}  # noqa: RUF012


def test_classes_that_inherit(connection: Connection) -> None:
    """The condition on the kind, and the distribution column of the base's table."""
    Base.metadata.create_all(connection)
    with Session(connection) as session:
        for n, vector in enumerate(vectors()[:60]):
            cls = (Animal, Dog, Fish)[n % 3]
            session.add(cls(id=n, name=str(n), embedding=vector, **({"depth": n} if cls is Fish else {})))
        session.commit()
        dogs: list[Any] = [select(Dog), select(Dog.id), select(Dog.name, Dog.id)]
        for column in (Animal.embedding, Dog.embedding):
            for statement in dogs:
                rows = session.execute(search(statement, column, vectors()[4], k=5)).all()
                ids = [getattr(row, "id", None) or row[0].id for row in rows]
                assert len(ids) == 5
                assert ids[0] == 4
                assert {n % 3 for n in ids} == {1}
        fish: list[Any] = [select(Fish), select(Fish.id).where(Fish.id == 5), select(Fish.depth).where(Fish.depth > 9)]
        for statement in fish:
            results = [
                session.execute(search(statement, Fish.embedding, vectors()[5], k=5, exact=exact)).all()
                for exact in (False, True)
            ]
            assert results[0]
            assert [row[0] for row in results[0]] == [row[0] for row in results[1]]
