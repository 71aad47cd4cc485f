"""Thirty rows with a vector each, one without and one with a zero one: few enough that the truth is a NumPy product."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from sqlalchemy import Engine, insert
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from pgmrl import Short, SqlFunctions, add_functions, full_text, install_functions, matryoshka
from pgmrl.model.real_numbers import real_numbers
from pgmrl.model.vectors import VectorArray

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["DIMS", "QUERY", "ROWS", "Base", "Item", "Pair", "Shop", "fill"]

DIMS = 8
ROWS = 30
QUERY = np.linspace(1.0, 2.0, DIMS).astype(np.float32)


class Base(DeclarativeBase):
    """The models of the shop."""


class Item(Base):
    """One vector; an integer as its key."""

    __tablename__ = "items"
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    name: Mapped[str]
    stars: Mapped[int | None]
    words: Mapped[str] = full_text("name", config="english")
    embedding: Mapped[VectorArray | None] = matryoshka(DIMS, Short(4))


class Pair(Base):
    """The same vectors under another metric; a text and an integer as their key."""

    __tablename__ = "pairs"
    place: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    embedding: Mapped[VectorArray] = matryoshka(DIMS, Short(4), metric="l2", full="vector")


add_functions(Item.embedding, SqlFunctions(filters=("kind", "stars >=", "kind in"), group_by="kind", words="words"))


class Shop(NamedTuple):
    """The shop.

    Attributes:
        engine: on its database.
        vectors: of the items 0 to 29 as stored, shape (30, 8).

    """

    engine: Engine
    vectors: NDArray[np.float64]

    def distances(self, query: Any) -> NDArray[np.float64]:
        """The cosine distances of the items to a query, shape (30,)."""
        wide = real_numbers(query, "query").astype(np.float64)
        wide = (wide / np.abs(wide).max()).astype(np.float16).astype(np.float64)
        return np.asarray(1 - self.vectors @ wide / np.linalg.norm(self.vectors, axis=1) / np.linalg.norm(wide))


def fill(engine: Engine) -> NDArray[np.float64]:
    """Make the tables and their rows; the items' vectors as stored."""
    vectors = np.random.default_rng(1).normal(size=(ROWS, DIMS)).astype(np.float16)
    items = [
        {"id": n, "kind": "abc"[n % 3], "name": f"item number {n}", "stars": n, "embedding": vector}
        for n, vector in enumerate(vectors)
    ]
    more = [
        {"id": ROWS, "kind": "a", "name": "no vector", "stars": None, "embedding": None},
        {"id": ROWS + 1, "kind": "a", "name": "zero", "stars": None, "embedding": np.zeros(DIMS)},
    ]
    pairs = [{"place": "ab"[n % 2], "number": n, "embedding": vector} for n, vector in enumerate(vectors)]
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE EXTENSION IF NOT EXISTS pg_trgm")
        Base.metadata.create_all(connection)
        connection.execute(insert(Item), [*items, *more])
        connection.execute(insert(Pair), pairs)
    with engine.begin() as connection:
        install_functions(connection, Item.embedding)
        connection.exec_driver_sql("ANALYZE")
    return vectors.astype(np.float64)
