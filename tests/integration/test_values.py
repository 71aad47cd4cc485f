"""What goes in, what comes out, what is fetched, and where it is stored."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sqlalchemy import Column, Connection, Engine, Integer, MetaData, Table, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from pgmrl.errors import VectorError
from pgmrl.model.columns import Matryoshka, matryoshka
from pgmrl.model.compat import HalfVector
from pgmrl.model.compat import Vector as PgVector
from pgmrl.model.shortening import Short
from pgmrl.model.vectors import VectorArray
from pgmrl.searching.search import search

VALUES = [1.5, -2, 0.25, 4, 5, 6, 7, 8]


class Base(DeclarativeBase):
    """The models of this file."""


class Item(Base):
    """One vector."""

    __tablename__ = "items"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str | None]
    embedding: Mapped[VectorArray | None] = matryoshka(8, Short(4))


def table(name: str, dims: int, short: Short, **options: Any) -> Table:
    """A Table with one vector."""
    return Table(
        name, MetaData(), Column("id", Integer, primary_key=True), Column("e", Matryoshka(dims, short, **options))
    )


@pytest.mark.parametrize("full", ["halfvec", "vector"])
@pytest.mark.parametrize(
    "value",
    [VALUES, tuple(VALUES), np.array(VALUES), np.array(VALUES, np.float16), PgVector(VALUES), HalfVector(VALUES), None],
    ids=["list", "tuple", "float64", "float16", "Vector", "HalfVector", "NULL"],
)
def test_values_make_the_round_trip(connection: Connection, value: Any, full: Any) -> None:
    """Float32 arrays come out, or None."""
    docs = table("docs", 8, Short(4), full=full)
    docs.create(connection)
    connection.execute(docs.insert(), {"id": 1, "e": value})
    found = connection.execute(select(docs.c.e)).scalar_one()
    if value is None:
        assert found is None
        return
    assert found.dtype == np.float32
    assert found.tolist() == VALUES
    found[0] = 9  # its own memory


@pytest.mark.parametrize("value", [[1, 2], [*VALUES, 9], [np.nan] * 8, [np.inf] * 8, [1e5] * 8, "text"])
def test_what_is_wrong_is_refused_before_it_is_sent(connection: Connection, value: Any) -> None:
    """As pgmrl's own error, not wrapped by SQLAlchemy, and nothing is written."""
    docs = table("docs", 8, Short(4))
    docs.create(connection)
    with pytest.raises(VectorError):
        connection.execute(docs.insert(), {"id": 1, "e": value})
    assert connection.execute(select(docs)).all() == []


def test_no_vector_is_loaded_unless_asked_for(engine: Engine, statements: list[str]) -> None:
    """Both columns are deferred, and the short one is not fetched after INSERT or UPDATE."""
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        statements.clear()
        item = Item(name="a", embedding=np.array(VALUES))
        session.add(item)
        session.commit()
        session.refresh(item)
        session.scalars(select(Item)).all()
        item.embedding = np.array(VALUES) * 2
        session.commit()
        session.get(Item, item.id)
        assert len(statements) >= 4
        assert not [s for s in statements if "embedding_short" in s]
        assert not [s for s in statements if s.startswith("SELECT") and "embedding" in s]
        assert not [s for s in statements if "embedding" in s.partition("RETURNING")[2]]
        statements.clear()
        assert item.embedding.tolist() == [2 * v for v in VALUES]
        assert len([s for s in statements if "halfvec_send" in s]) == 1


def test_an_equal_vector_is_not_written_again(engine: Engine, statements: list[str]) -> None:
    """The unit of work compares arrays by value."""
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        item = Item(embedding=np.array(VALUES))
        session.add(item)
        session.commit()
        assert item.embedding is not None
        statements.clear()
        for same in (np.array(VALUES), PgVector(VALUES), list(VALUES)):
            item.embedding = same  # type: ignore[assignment]
            session.commit()
            assert item.embedding is not None
        assert not [s for s in statements if s.startswith("UPDATE")]


@pytest.mark.parametrize(
    ("dims", "full", "storage", "expected"),
    [
        (768, "halfvec", None, "m"),
        (3072, "halfvec", None, "m"),
        (3072, "vector", None, "e"),
        (768, "vector", None, "m"),
        (768, "halfvec", "external", "e"),
        (3072, "vector", "main", "m"),
    ],
)
def test_storage_is_set(connection: Connection, dims: int, full: Any, storage: Any, expected: str) -> None:
    """In the catalogue, and a row whose vector does not fit its page is still taken."""
    docs = table("docs", dims, Short(8), full=full, storage=storage)
    docs.create(connection)
    query = "SELECT attstorage::text FROM pg_attribute WHERE attrelid = 'docs'::regclass AND attname = 'e'"
    assert connection.exec_driver_sql(query).scalar_one() == expected
    vector = np.random.default_rng(0).normal(size=dims)
    connection.execute(docs.insert(), {"id": 1, "e": vector})
    assert connection.execute(select(docs.c.e)).scalar_one() == pytest.approx(vector, rel=1e-2, abs=1e-3)


@pytest.mark.parametrize(
    ("dims", "short", "full"),
    [
        (3072, Short(256), "halfvec"),
        (3072, Short(3072), "halfvec"),
        (3072, Short(3072, type="bit"), "vector"),
        (16_000, Short(512), "vector"),
        (16_000, Short(16_000, type="bit"), "halfvec"),
    ],
)
def test_more_dimensions_than_an_index_takes(connection: Connection, dims: int, short: Short, full: Any) -> None:
    """The full vector needs no index: this is what the short one is for."""
    docs = table("docs", dims, short, full=full)
    docs.create(connection)
    vectors = np.random.default_rng(0).normal(size=(30, dims))
    connection.execute(docs.insert(), [{"id": n, "e": v} for n, v in enumerate(vectors)])
    for exact in (False, True):
        row = connection.execute(search(docs.select(), docs.c.e, vectors[7], k=3, exact=exact)).first()
        assert row is not None
        assert row.id == 7
        assert row.distance == pytest.approx(0, abs=1e-5)
