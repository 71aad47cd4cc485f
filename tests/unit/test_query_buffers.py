"""A query is what it was when the search was made, whatever its array holds later; no database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sqlalchemy import select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from pgmrl import Nearest, Rotation, Short, VectorArray, matryoshka, search, search_hybrid, search_many
from pgmrl.searching.compile_sql import compile_sql

if TYPE_CHECKING:
    from collections.abc import Callable


class Base(DeclarativeBase):
    """The model of this file."""


class Item(Base):
    """A prefix, and a rotation that the client holds."""

    __tablename__ = "items"
    id: Mapped[int] = mapped_column(primary_key=True)
    flat: Mapped[VectorArray] = matryoshka(8, Short(4), full="vector")
    held: Mapped[VectorArray] = matryoshka(8, Short(4, by=Rotation.of(np.eye(8)[:4])))


SEARCHES: dict[str, Callable[[Any], Any]] = {
    "prefix": lambda query: search(select(Item.id), Item.flat, query),
    "rotation": lambda query: search(select(Item.id), Item.held, query),
    "exact": lambda query: search(select(Item.id), Item.flat, query, exact=True),
    "many": lambda query: search_many(select(Item.id), Item.held, query[np.newaxis]),
    "hybrid": lambda query: search_hybrid(select(Item), [Nearest(Item.held, query), Nearest(Item.flat, query)]),
}


@pytest.mark.parametrize("kind", SEARCHES)
def test_an_array_that_is_filled_anew(kind: str) -> None:
    """An application that has one buffer for its queries searches with each of them, and never with unchecked ones."""
    query = np.arange(1, 9, dtype=np.float32) / 15
    for _ in range(2):  # built, and of a shape that is known
        buffer = query.copy()
        statement = SEARCHES[kind](buffer)
        buffer[:] = np.nan
        assert sent(statement) == sent(SEARCHES[kind](query))


def sent(statement: Any) -> list[Any]:
    """What the driver is given."""
    params: Any = compile_sql(statement).params
    return [getattr(value, "data", value) for value in params.values()]
