"""Ways to declare a Matryoshka column: each creates its table, keeps its short vectors and is searched."""

from __future__ import annotations

import pickle
import uuid
from typing import Any

import numpy as np
import pytest
from pgvector.sqlalchemy import HALFVEC, VECTOR
from sqlalchemy import (
    Column,
    Connection,
    Engine,
    ForeignKey,
    Integer,
    MetaData,
    Table,
    Text,
    inspect,
    select,
)
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlmodel import Field, SQLModel

from pgmrl import database
from pgmrl.errors import DefinitionError
from pgmrl.model.columns import Matryoshka, add_short, add_side_table, matryoshka
from pgmrl.model.hnsw import Hnsw
from pgmrl.model.shortening import Rotation, Short
from pgmrl.model.vectors import VectorArray
from pgmrl.searching.search import search

QUERY = np.array([1.0, 2, 3, 4, 5, 6, 7, 8])


def find(session: Session, model: Any, attribute: Any = None) -> list[Any]:
    """The rows of a model by their distance to QUERY."""
    return [row[0] for row in session.execute(search(select(model), attribute or model.embedding, QUERY))]


def check(engine: Engine, base: Any, model: Any, **values: Any) -> None:
    """Make the tables, write two rows, find the nearer one first, drop the tables and everything of pgmrl's."""
    with engine.begin() as connection:
        base.metadata.create_all(connection)
    with Session(engine) as session:
        near, far = model(embedding=QUERY, **values), model(embedding=-QUERY, **values)
        session.add_all([far, near])
        session.commit()
        assert find(session, model) == [near, far]
        assert np.array_equal(near.embedding, QUERY)
        assert near.embedding.dtype == np.float32
    with engine.begin() as connection:
        assert len(database.columns(connection)) == 1
        base.metadata.drop_all(connection)
        left = connection.exec_driver_sql(r"SELECT count(*) FROM pg_proc WHERE proname LIKE 'zz\_pgmrl\_%%'")
        assert left.scalar_one() == 0


def test_an_abstract_base(engine: Engine) -> None:
    """Declared once, for every table below."""

    class Base(DeclarativeBase):
        pass

    class Document(Base):
        __abstract__ = True
        id: Mapped[int] = mapped_column(primary_key=True)
        embedding: Mapped[VectorArray] = matryoshka(8, Short(4))

    class Article(Document):
        __tablename__ = "articles"

    class Comment(Document):
        __tablename__ = "comments"

    assert {name for table in Base.metadata.tables.values() for name in table.c.keys()} >= {"embedding_short_4"}  # noqa: SIM118
    Base.metadata.remove(Base.metadata.tables["articles"])
    check(engine, Base, Comment)
    assert Article.__table__.c.embedding_short_4 is not Comment.__table__.c.embedding_short_4


def test_a_mixin_with_uuid_keys(engine: Engine) -> None:
    """Two classes with one mixin have a short column and an index each."""

    class Base(DeclarativeBase):
        pass

    class Embedded:
        id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
        embedding: Mapped[VectorArray] = matryoshka(8, Short(4), metric="l2")

    class Article(Embedded, Base):
        __tablename__ = "articles"

    class Comment(Embedded, Base):
        __tablename__ = "comments"

    with engine.begin() as connection:
        Base.metadata.create_all(connection)
        names = [info.index_name for info in database.columns(connection)]
        assert names == ["articles_embedding_short_4_hnsw", "comments_embedding_short_4_hnsw"]
        Comment.__table__.drop(connection)  # type: ignore[attr-defined]
    Base.metadata.remove(Comment.__table__)  # type: ignore[arg-type]
    check(engine, Base, Article)


def test_joined_and_single_table_inheritance(engine: Engine) -> None:
    """Searched on the parent, on a child with a table of its own, and on one without."""

    class Base(DeclarativeBase):
        pass

    class Animal(Base):
        __tablename__ = "animals"
        id: Mapped[int] = mapped_column(primary_key=True)
        kind: Mapped[str]
        embedding: Mapped[VectorArray] = matryoshka(8, Short(4))
        __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "animal"}  # noqa: RUF012

    class Dog(Animal):
        __tablename__ = "dogs"
        id: Mapped[int] = mapped_column(ForeignKey("animals.id"), primary_key=True)
        trick: Mapped[str | None]
        scent: Mapped[VectorArray | None] = matryoshka(8, Short(2))
        __mapper_args__ = {"polymorphic_identity": "dog"}  # noqa: RUF012

    class Cat(Animal):
        __mapper_args__ = {"polymorphic_identity": "cat"}  # noqa: RUF012

    Base.metadata.create_all(engine)
    with Session(engine) as session:
        cat, dog, old = (
            Cat(embedding=QUERY),
            Dog(embedding=QUERY * [1, 1, 1, 1, 1, 1, 1, 0], scent=QUERY),
            Dog(embedding=-QUERY),
        )
        session.add_all([cat, dog, old])
        session.commit()
        assert find(session, Animal) == [cat, dog, old]
        assert find(session, Cat) == [cat]
        assert find(session, Dog) == [dog, old]
        assert find(session, Dog, Dog.scent) == [dog]
        joined = search(select(Dog).where(Dog.trick.is_(None)), Dog.embedding, QUERY)
        assert session.scalars(joined).all() == [dog, old]


def test_sqlmodel(engine: Engine) -> None:
    """A Pydantic model that is a table."""

    class Thing(SQLModel, table=True):
        __tablename__ = "things"
        model_config = {"arbitrary_types_allowed": True}
        id: int | None = Field(default=None, primary_key=True)
        embedding: Any = Field(sa_column=Column("embedding", Matryoshka(8, Short(4))))

    Thing.metadata.create_all(engine)
    with Session(engine) as session:
        near, far = Thing(embedding=QUERY), Thing(embedding=-QUERY)
        session.add_all([far, near])
        session.commit()
        assert find(session, Thing) == [near, far]


def test_several_columns_on_a_table(connection: Connection, small_rotation: Rotation) -> None:
    """Each with its own rule; also two short columns' worth of metrics on one name each."""
    database.install_rotation(connection, small_rotation)
    table = Table(
        "docs",
        MetaData(),
        Column("id", Integer, primary_key=True),
        Column("title", Matryoshka(8, Short(4))),
        Column("body", Matryoshka(8, Short(2, small_rotation), "l2", "vector", Hnsw(8, 32))),
        Column("image", Matryoshka(8, Short(8, type="bit"), "inner_product", index=None)),
    )
    table.create(connection)
    connection.execute(table.insert(), [{"id": n, "title": QUERY, "body": QUERY * n, "image": -QUERY} for n in (1, 2)])
    assert connection.execute(search(select(table.c.id), table.c.body, QUERY * 2)).scalars().all() == [2, 1]
    assert connection.execute(search(select(table.c.id), table.c.image, QUERY)).scalars().all() == [1, 2]
    infos = {info.full_column: info for info in database.columns(connection)}
    assert [infos[name].metric for name in ("title", "body")] == ["cosine", "l2"]
    assert [infos[name].shortening for name in ("title", "body", "image")] == ["prefix", "rotation", "prefix"]
    assert infos["image"].index_name is None
    options = connection.exec_driver_sql(
        "SELECT reloptions FROM pg_class WHERE relname = %s", (infos["body"].index_name,)
    )
    assert options.scalar_one() == ["m=8", "ef_construction=32"]


def test_a_copy_of_the_metadata_creates_the_same_table(engine: Engine, small_rotation: Rotation) -> None:
    """`to_metadata`: one short column, its index, its trigger; a copy of a copy too."""
    original = Table(
        "docs",
        MetaData(),
        Column("id", Integer, primary_key=True),
        Column("e", Matryoshka(8, Short(4), storage="external")),
        Column("f", Matryoshka(8, Short(4, small_rotation))),
    )
    copied = original.to_metadata(MetaData())
    seen = []
    for table in (original, copied, copied.to_metadata(MetaData())):
        with engine.connect() as connection:
            database.install_rotation(connection, small_rotation)
            table.create(connection)
            connection.execute(table.insert(), {"id": 1, "e": QUERY, "f": QUERY})
            columns = [(c["name"], str(c["type"]), c.get("computed")) for c in inspect(connection).get_columns("docs")]
            storage = connection.exec_driver_sql(
                "SELECT attname, attstorage FROM pg_attribute WHERE attrelid = 'docs'::regclass ORDER BY 1"
            ).all()
            found = connection.execute(search(select(table.c.id), table.c.f, QUERY)).scalars().all()
            short = connection.exec_driver_sql(f"SELECT f_{small_rotation.id}_4::text FROM docs").scalar_one()
            seen.append((columns, storage, len(inspect(connection).get_indexes("docs")), found, short))
            connection.rollback()
    assert seen == [seen[0]] * 3
    assert seen[0][2] == 2
    assert seen[0][4] is not None


def test_a_pickled_table_is_searched_alike(small_rotation: Rotation) -> None:
    """A cache of reflected metadata; events are not pickled, so tables are not created from it."""
    original = Table(
        "docs",
        MetaData(),
        Column("id", Integer, primary_key=True),
        Column("e", Matryoshka(8, Short(4, small_rotation))),
    )
    loaded = pickle.loads(pickle.dumps(original.metadata)).tables["docs"]  # noqa: S301 - our own
    first, second = (str(search(select(table.c.id), table.c.e, QUERY)) for table in (original, loaded))
    assert first == second


@pytest.mark.parametrize("type_", [VECTOR(8), HALFVEC(8)])
def test_a_column_that_is_there_gains_a_short_one(engine: Engine, type_: Any) -> None:
    """A column of pgvector-python's; the code that writes it does not change."""

    class Base(DeclarativeBase):
        pass

    class Document(Base):
        __tablename__ = "documents"
        id: Mapped[int] = mapped_column(primary_key=True)
        embedding: Mapped[Any] = mapped_column(type_)

    add_short(Document.embedding, Short(4), metric="cosine")
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all([Document(id=1, embedding=(-QUERY).tolist()), Document(id=2, embedding=QUERY.tolist())])
        session.commit()
        assert [row.id for row in find(session, Document)] == [2, 1]
    with pytest.raises(DefinitionError, match="has a short column already"):
        add_short(Document.embedding, Short(2))


def test_columns_that_cannot_have_a_short_one() -> None:
    """Each with its reason."""
    table = Table("t", MetaData(), Column("title", Text), Column("loose", VECTOR()), Column("e", VECTOR(8)))
    reasons = {table.c.title: "expected a column of the type `vector`", table.c.loose: "declares no dimensions"}
    for column, message in reasons.items():
        with pytest.raises(DefinitionError, match=message):
            add_short(column, Short(4))
    with pytest.raises(DefinitionError, match="no primary key"):
        add_side_table(table.c.e, Short(4))
    with pytest.raises(DefinitionError, match=r"already has a column title.*another one"):
        add_short(table.c.e, Short(4, name="title"))


def test_a_zero_vector_is_forbidden(connection: Connection) -> None:
    """By a CHECK, in either type; NULL is allowed."""
    for full in ("halfvec", "vector"):
        type_ = Matryoshka(8, Short(4), full=full, forbid_zero=True)
        table = Table(f"t_{full}", MetaData(), Column("id", Integer, primary_key=True), Column("e", type_))
        table.create(connection)
        connection.execute(table.insert(), [{"id": 1, "e": QUERY}, {"id": 2, "e": None}])
        with connection.begin_nested() as savepoint:
            with pytest.raises(IntegrityError, match="e_not_zero"):
                connection.execute(table.insert(), {"id": 3, "e": QUERY * 0})
            savepoint.rollback()
